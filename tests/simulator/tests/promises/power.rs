//! Power and guest operations: what changes, when, and what the log then says.

use vsphere_simulator::rules::Action;
use vsphere_simulator::{ClockMode, Rule, Spec, TaskState};

use crate::desk::{Desk, VM, fault_of};
use crate::{MICROS, START, frozen};

fn stamps(desk: &Desk, vm: &str, from: i64) -> Vec<i64> {
    let truth = desk.simulator.truth();
    let entity = truth.entity(vm).expect("vm");
    entity
        .samples(from, i64::MAX)
        .map(|sample| sample.stamp - START)
        .collect()
}

#[tokio::test]
async fn power_operations_change_the_vm_and_its_samples_and_are_logged_once() {
    let desk = Desk::new().await;
    let booted = desk.text("VirtualMachine", VM, "runtime.bootTime").await;
    desk.task("PowerOffVM_Task", "").await;
    assert_eq!(desk.power().await, "poweredOff");
    assert_eq!(desk.text("VirtualMachine", VM, "runtime.bootTime").await, None);
    desk.advance(100);
    assert_eq!(stamps(&desk, VM, START - 10), [-5], "none while it is off");
    desk.task("PowerOnVM_Task", "").await;
    assert_eq!(desk.power().await, "poweredOn");
    assert_ne!(desk.text("VirtualMachine", VM, "runtime.bootTime").await, booted);
    desk.advance(60);
    assert_eq!(stamps(&desk, VM, START - 10), [-5, 135, 155]);

    let booted = desk.text("VirtualMachine", VM, "runtime.bootTime").await;
    desk.task("SuspendVM_Task", "").await;
    assert_eq!(desk.power().await, "suspended");
    desk.advance(60);
    desk.task("PowerOnVM_Task", "").await;
    assert_eq!(
        desk.text("VirtualMachine", VM, "runtime.bootTime").await,
        booted,
        "resumed"
    );
    desk.task("ResetVM_Task", "").await;
    desk.advance(60);
    assert_eq!(desk.text("VirtualMachine", VM, "runtime.bootTime").await, booted);
    assert_eq!(
        stamps(&desk, VM, START + 150),
        [155, 255, 275],
        "no hole for a reset"
    );

    let log = desk.simulator.world().operations();
    let methods: Vec<&str> = log.iter().map(|one| one.method.as_str()).collect();
    assert_eq!(
        methods,
        [
            "PowerOffVM_Task",
            "PowerOnVM_Task",
            "SuspendVM_Task",
            "PowerOnVM_Task",
            "ResetVM_Task"
        ]
    );
    let first = &log[0];
    assert_eq!((first.object.as_str(), first.vm.as_str()), (VM, VM));
    assert_eq!(first.user, "monitor@vsphere.local");
    assert_eq!(first.operation_id.as_deref(), Some("test-1"));
    assert_eq!(
        (first.at, first.effect_at),
        (START * MICROS, Some(START * MICROS))
    );
    assert_eq!(first.state, Some(TaskState::Success));
    desk.end().await;
}

/// Nobody looks while the task ends: the VM is off from then on, not from when somebody looks.
#[tokio::test]
async fn an_effect_has_its_own_time_whenever_it_is_seen() {
    let spec = Spec {
        task_time: std::time::Duration::from_secs(30),
        ..frozen()
    };
    let desk = Desk::at(spec).await;
    desk.task("PowerOffVM_Task", "").await;
    desk.advance(29);
    assert_eq!(desk.power().await, "poweredOn");
    desk.advance(1000);
    assert_eq!(stamps(&desk, VM, START - 10), [-5, 15]);
    assert_eq!(desk.power().await, "poweredOff");
    let log = desk.simulator.world().operations();
    assert_eq!(log[0].effect_at, Some((START + 30) * MICROS));
    desk.end().await;
}

#[tokio::test]
async fn guests_obey_after_a_time_or_never_and_only_where_tools_run() {
    let spec = Spec {
        guest_time: std::time::Duration::from_secs(20),
        guest_boot: std::time::Duration::from_secs(40),
        ..frozen()
    };
    let desk = Desk::at(spec).await;
    let told = desk.vm("RebootGuest", "").await;
    assert!(
        told.body
            .contains("<RebootGuestResponse xmlns=\"urn:vim25\"></RebootGuestResponse>")
    );
    assert_eq!(desk.tools().await, "guestToolsRunning");
    desk.advance(20);
    assert_eq!(
        (desk.power().await.as_str(), desk.tools().await.as_str()),
        ("poweredOn", "guestToolsNotRunning")
    );
    assert_eq!(
        desk.refused("RebootGuest").await,
        "ToolsUnavailable",
        "it is just starting"
    );
    desk.advance(40);
    assert_eq!(desk.tools().await, "guestToolsRunning");

    desk.vm("ShutdownGuest", "").await;
    desk.advance(19);
    assert_eq!(desk.power().await, "poweredOn");
    assert_eq!(desk.simulator.world().operations()[1].effect_at, None);
    desk.advance(1);
    assert_eq!(desk.power().await, "poweredOff");
    assert_eq!(
        desk.simulator.world().operations()[1].effect_at,
        Some((START + 80) * MICROS)
    );
    assert_eq!(desk.refused("ShutdownGuest").await, "InvalidPowerState");

    // A guest that was told, and is off, or another one, when it would obey.
    desk.task("PowerOnVM_Task", "").await;
    assert_eq!(desk.tools().await, "guestToolsNotRunning");
    desk.advance(40);
    desk.vm("ShutdownGuest", "").await;
    desk.task("PowerOffVM_Task", "").await;
    desk.task("PowerOnVM_Task", "").await;
    desk.advance(100);
    assert_eq!(desk.power().await, "poweredOn");
    desk.vm("ShutdownGuest", "").await;
    desk.task("PowerOffVM_Task", "").await;
    desk.advance(100);
    assert_eq!(desk.simulator.world().operations()[6].effect_at, None);
    assert_eq!(desk.simulator.world().operations()[3].effect_at, None);
    desk.task("PowerOnVM_Task", "").await;
    desk.advance(40);

    let rules = desk.simulator.rules();
    rules.add(Rule::on(
        "ShutdownGuest",
        Action::Guest {
            millis: None,
            away: 0,
        },
    ));
    assert_eq!(desk.vm("ShutdownGuest", "").await.status, 200);
    desk.advance(1700);
    assert_eq!(desk.power().await, "poweredOn", "it never obeys");

    // Every eighth VM has no tools.
    let reply = desk.call("ShutdownGuest", "VirtualMachine", "vm-10004", "").await;
    assert_eq!(fault_of(&reply), "ToolsUnavailable");
    desk.end().await;
}

#[tokio::test]
async fn on_an_esxi_host_and_a_running_clock_it_is_the_same() {
    let desk = Desk::at(Spec {
        clock: ClockMode::default(),
        tls: vsphere_simulator::TlsMode::Plain,
        task_time: std::time::Duration::from_millis(40),
        ..Spec::esxi(3)
    })
    .await;
    let reply = desk.call("PowerOffVM_Task", "VirtualMachine", "1", "").await;
    let task = crate::desk::task_of(&reply);
    assert_eq!(task, "haTask-1-vim.VirtualMachine.powerOff-1");
    while desk.text("Task", &task, "info.state").await.expect("state") != "success" {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let off = desk.text("VirtualMachine", "1", "runtime.powerState").await;
    assert_eq!(off.as_deref(), Some("poweredOff"));
    desk.end().await;
}
