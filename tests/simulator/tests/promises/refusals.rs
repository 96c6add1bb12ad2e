//! Operations that are refused, that fail, or whose answer gets lost.

use std::time::Duration;

use vsphere_simulator::rules::Action;
use vsphere_simulator::{Event, HostLink, Rule, Spec, TaskState, TlsMode, Told};

use crate::desk::{Desk, SNAPSHOT, VM, fault_of, task_of};
use crate::support::{Client, envelope, one};
use crate::{frozen, start};

const OFF: &str =
    r#"<PowerOffVM_Task xmlns="urn:vim25"><_this type="VirtualMachine">vm-10001</_this></PowerOffVM_Task>"#;

fn fault(kind: &str) -> Action {
    Action::Fault {
        fault: kind.to_owned(),
        message: String::new(),
    }
}

fn task_fault(kind: &str) -> Action {
    Action::TaskFault {
        fault: kind.to_owned(),
        message: String::new(),
    }
}

#[tokio::test]
async fn a_wrong_state_is_told_by_the_task_or_by_a_fault_and_says_which_state_it_is() {
    let desk = Desk::new().await;
    let fields = "<requestedState>poweredOff</requestedState><existingState>poweredOn</existingState>";
    let task = desk.task("PowerOnVM_Task", "").await;
    let error = desk.property("Task", &task, "info.error").await.expect("error");
    assert!(
        error.contains("xsi:type=\"LocalizedMethodFault\"") && error.contains(fields),
        "{error}"
    );
    let by = Told::Fault;
    desk.simulator.rules().add(Rule {
        method: None,
        ..Rule::on("", Action::Refuse { by })
    });
    let reply = desk.vm("PowerOnVM_Task", "").await;
    assert_eq!(fault_of(&reply), "InvalidPowerState");
    assert!(reply.body.contains(fields), "{}", reply.body);

    // What each power state allows.
    let methods = [
        "PowerOnVM_Task",
        "PowerOffVM_Task",
        "SuspendVM_Task",
        "ResetVM_Task",
        "ShutdownGuest",
        "RebootGuest",
    ];
    for (state, allowed) in [
        ("poweredOff", vec!["PowerOnVM_Task"]),
        ("suspended", vec!["PowerOnVM_Task", "PowerOffVM_Task"]),
        (
            "poweredOn",
            vec![
                "PowerOffVM_Task",
                "SuspendVM_Task",
                "ResetVM_Task",
                "ShutdownGuest",
                "RebootGuest",
            ],
        ),
    ] {
        for method in methods {
            let world = desk.simulator.world();
            match state {
                "poweredOff" => world.power_off(VM),
                "suspended" => world.suspend(VM),
                _ => world.power_on(VM),
            }
            .unwrap_or_default();
            let reply = desk.vm(method, "").await;
            assert_eq!(
                reply.status == 200,
                allowed.contains(&method),
                "{method} when {state}: {}",
                reply.body
            );
            let disabled = desk.property("VirtualMachine", VM, "disabledMethod").await;
            assert!(
                disabled
                    .expect("list")
                    .starts_with("<val xsi:type=\"ArrayOfString\"><string>")
            );
        }
    }
    desk.end().await;
}

#[tokio::test]
async fn a_busy_vm_a_template_a_lost_host_and_a_disabled_method_say_so() {
    let desk = Desk::at(Spec {
        task_time: Duration::from_secs(40),
        ..frozen()
    })
    .await;
    let running = desk.task("CreateSnapshot_Task", SNAPSHOT).await;
    let busy = desk.vm("PowerOffVM_Task", "").await;
    assert_eq!(fault_of(&busy), "TaskInProgress");
    assert!(
        busy.body
            .contains(&format!("<task type=\"Task\">{running}</task>")),
        "{}",
        busy.body
    );
    let id = desk
        .simulator
        .rules()
        .add(Rule::on("PowerOffVM_Task", Action::Refuse { by: Told::Task }));
    let task = desk.task("PowerOffVM_Task", "").await;
    assert_eq!(desk.progress(&task).await.2.as_deref(), Some("TaskInProgress"));
    desk.simulator.rules().remove(id);
    // Another VM is not busy.
    let other = desk
        .call("PowerOffVM_Task", "VirtualMachine", "vm-10002", "")
        .await;
    task_of(&other);
    desk.advance(40);

    let world = desk.simulator.world();
    let method = |enabled| Event::SetMethod {
        vm: VM.to_owned(),
        method: "PowerOffVM_Task".to_owned(),
        enabled,
    };
    world.apply(method(false)).expect("disable");
    assert_eq!(desk.refused("PowerOffVM_Task").await, "MethodDisabled");
    let disabled = desk
        .property("VirtualMachine", VM, "disabledMethod")
        .await
        .expect("list");
    assert!(
        disabled.contains("<string>PowerOffVM_Task</string>"),
        "{disabled}"
    );
    world.apply(method(true)).expect("enable");

    let template = world.find("template-021").expect("template");
    let task = task_of(&desk.call("PowerOnVM_Task", "VirtualMachine", &template, "").await);
    assert_eq!(desk.progress(&task).await.2.as_deref(), Some("InvalidState"));

    world
        .set_host_link("host-1001", HostLink::Disconnected)
        .expect("link");
    let state = desk.text("VirtualMachine", VM, "runtime.connectionState").await;
    assert_eq!(state.as_deref(), Some("disconnected"));
    let task = desk.task("PowerOffVM_Task", "").await;
    assert_eq!(desk.progress(&task).await.2.as_deref(), Some("HostNotConnected"));
    assert_eq!(desk.power().await, "poweredOn");
    desk.end().await;
}

#[tokio::test]
async fn a_rule_makes_a_call_or_its_task_fail_without_effect_with_the_fields_of_the_fault() {
    let desk = Desk::new().await;
    let rules = desk.simulator.rules();
    for (kind, part) in [
        (
            "NoPermission",
            "<privilegeId>VirtualMachine.Interact.PowerOff</privilegeId>",
        ),
        (
            "InvalidPowerState",
            "<requestedState>poweredOn</requestedState><existingState>poweredOn</existingState>",
        ),
        ("TaskInProgress", "<task type=\"Task\">"),
        (
            "ManagedObjectNotFound",
            "<obj type=\"VirtualMachine\">vm-10001</obj>",
        ),
        ("InsufficientResourcesFault", ""),
        ("RestrictedVersion", ""),
        ("SnapshotFault", ""),
    ] {
        let id = rules.add(Rule::on("PowerOffVM_Task", fault(kind)));
        let reply = desk.vm("PowerOffVM_Task", "").await;
        assert_eq!(fault_of(&reply), kind);
        assert!(reply.body.contains(part), "{part} in {}", reply.body);
        rules.remove(id);
        assert_eq!(desk.simulator.calls().method("PowerOffVM_Task").faults[kind], 1);

        let id = rules.add(Rule::on("PowerOffVM_Task", task_fault(kind)));
        let task = desk.task("PowerOffVM_Task", "").await;
        let error = desk.property("Task", &task, "info.error").await.expect("error");
        assert!(
            error.contains(&format!("<fault xsi:type=\"{kind}\">")) && error.contains(part),
            "{error}"
        );
        rules.remove(id);
    }
    assert_eq!(desk.power().await, "poweredOn");
    let log = desk.simulator.world().operations();
    assert_eq!(log.len(), 7, "a call that is refused is none");
    assert!(
        log.iter()
            .all(|one| one.state == Some(TaskState::Error) && one.effect_at.is_none())
    );
    assert_eq!(log[0].fault.as_deref(), Some("NoPermission"));

    let reply = {
        rules.add(Rule::on("RemoveSnapshot_Task", fault("NoPermission")));
        let snapshot = desk.snapshot("a").await;
        let arguments = "<removeChildren>false</removeChildren>";
        desk.call(
            "RemoveSnapshot_Task",
            "VirtualMachineSnapshot",
            &snapshot,
            arguments,
        )
        .await
    };
    assert_eq!(
        one(&reply.body, "privilegeId", "privilegeId"),
        "VirtualMachine.State.RemoveSnapshot"
    );
    desk.end().await;
}

#[tokio::test]
async fn a_free_licence_lets_read_and_refuses_every_change() {
    let desk = Desk::at(Spec {
        tls: TlsMode::Plain,
        clock: frozen().clock,
        free_license: true,
        ..Spec::esxi(2)
    })
    .await;
    for method in ["PowerOffVM_Task", "ResetVM_Task", "ShutdownGuest"] {
        let reply = desk.call(method, "VirtualMachine", "1", "").await;
        assert_eq!(fault_of(&reply), "RestrictedVersion", "{method}");
    }
    let state = desk.text("VirtualMachine", "1", "runtime.powerState").await;
    assert_eq!(state.as_deref(), Some("poweredOn"));
    assert!(desk.simulator.world().operations().is_empty());
    desk.end().await;
}

/// What a client cannot tell apart: its call was lost, or the answer.
#[tokio::test]
async fn a_cut_connection_comes_before_or_after_the_effect() {
    let desk = Desk::new().await;
    let rules = desk.simulator.rules();
    let world = desk.simulator.world();
    let id = rules.add(Rule::on("PowerOffVM_Task", Action::Lose));
    desk.client.post(&envelope(OFF)).await.expect_err("no answer");
    assert!(world.operations().is_empty());
    assert_eq!(desk.power().await, "poweredOn");
    assert_eq!(desk.simulator.calls().count("PowerOffVM_Task"), 1);
    rules.remove(id);

    for action in [
        Action::Reset { at: 0 },
        Action::Cut { at: 100 },
        Action::Status {
            code: 503,
            body: None,
        },
    ] {
        let before = world.operations().len();
        let id = rules.add(Rule::on("PowerOffVM_Task", action.clone()));
        let reply = desk.client.post(&envelope(OFF)).await;
        assert!(reply.is_err() || reply.is_ok_and(|reply| !reply.body.contains("</returnval>")));
        rules.remove(id);
        assert_eq!(desk.power().await, "poweredOff", "{action:?}");
        assert_eq!(world.operations().len(), before + 1);
        world.power_on(VM).expect("on");
    }
    desk.end().await;
}

/// A caller that is killed while it waits for the answer: the effect is there already, or never will be.
#[tokio::test]
async fn a_caller_that_goes_away_before_the_answer_leaves_the_effect_and_before_the_call_none() {
    let desk = Desk::new().await;
    let world = desk.simulator.world();
    let rules = desk.simulator.rules();
    let gone = async |until: &dyn Fn() -> bool| {
        let seen = async {
            while !until() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let call = envelope(OFF);
        tokio::select! {
            reply = desk.client.post(&call) => panic!("{reply:?}"),
            seen = tokio::time::timeout(Duration::from_secs(30), seen) => seen.expect("no effect"),
        }
    };
    let id = rules.add(Rule::on("PowerOffVM_Task", Action::Hold { millis: 600_000 }));
    gone(&|| world.operations().len() == 1).await;
    assert_eq!(desk.power().await, "poweredOff");
    rules.remove(id);

    world.power_on(VM).expect("on");
    rules.add(Rule::on("PowerOffVM_Task", Action::Delay { millis: 600_000 }));
    gone(&|| desk.simulator.calls().count("PowerOffVM_Task") == 2).await;
    while desk.simulator.calls().method("PowerOffVM_Task").in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(world.operations().len(), 1);
    assert_eq!(desk.power().await, "poweredOn");
    desk.end().await;
}

#[tokio::test]
async fn arguments_are_checked_as_strictly_as_a_real_server_does() {
    let desk = Desk::new().await;
    let snapshot = desk.snapshot("a").await;
    let vm = ("VirtualMachine", VM);
    let of_snapshot = ("VirtualMachineSnapshot", &*snapshot);
    for (method, (kind, moref), arguments) in [
        // Out of order.
        (
            "CreateSnapshot_Task",
            vm,
            "<description>d</description><name>n</name><memory>false</memory><quiesce>false</quiesce>",
        ),
        (
            "CreateSnapshot_Task",
            vm,
            "<name>n</name><quiesce>false</quiesce><memory>false</memory>",
        ),
        (
            "RemoveSnapshot_Task",
            of_snapshot,
            "<consolidate>true</consolidate><removeChildren>false</removeChildren>",
        ),
        // Missing.
        (
            "CreateSnapshot_Task",
            vm,
            "<memory>false</memory><quiesce>false</quiesce>",
        ),
        ("CreateSnapshot_Task", vm, "<name>n</name><memory>false</memory>"),
        ("RemoveSnapshot_Task", of_snapshot, ""),
        ("CreateCollectorForTasks", ("TaskManager", "TaskManager"), ""),
        ("ReadNextTasks", ("TaskHistoryCollector", "x"), ""),
        // Unknown, and of the wrong type.
        ("PowerOffVM_Task", vm, "<force>true</force>"),
        ("ShutdownGuest", vm, "<host type=\"HostSystem\">host-1001</host>"),
        (
            "RemoveSnapshot_Task",
            of_snapshot,
            "<removeChildren>maybe</removeChildren>",
        ),
        (
            "RevertToSnapshot_Task",
            of_snapshot,
            "<suppressPowerOn></suppressPowerOn>",
        ),
        (
            "CreateCollectorForTasks",
            ("TaskManager", "TaskManager"),
            "<filter><state>success</state><time><timeType>queuedTime</timeType></time></filter>",
        ),
        (
            "CreateCollectorForTasks",
            ("TaskManager", "TaskManager"),
            "<filter><time><timeType>yesterday</timeType></time></filter>",
        ),
        // A VM stays where it is.
        ("PowerOnVM_Task", vm, "<host type=\"HostSystem\">host-1002</host>"),
    ] {
        let reply = desk.call(method, kind, moref, arguments).await;
        assert_eq!(fault_of(&reply), "InvalidRequest", "{method} {arguments}");
    }
    for (method, kind, moref, arguments) in [
        ("PowerOffVM_Task", "VirtualMachine", "vm-9", ""),
        ("PowerOffVM_Task", "HostSystem", "host-1001", ""),
        ("PowerOffVM_Task", "VirtualMachineSnapshot", &*snapshot, ""),
        (
            "RemoveSnapshot_Task",
            "VirtualMachine",
            VM,
            "<removeChildren>false</removeChildren>",
        ),
        (
            "CreateCollectorForTasks",
            "TaskManager",
            "ha-taskmgr",
            "<filter/>",
        ),
    ] {
        let reply = desk.call(method, kind, moref, arguments).await;
        assert_eq!(fault_of(&reply), "ManagedObjectNotFound", "{method} {kind}");
    }
    assert_eq!(desk.simulator.world().operations().len(), 1, "the snapshot");
    desk.end().await;
}

#[tokio::test]
async fn the_control_port_reaches_operations_too() {
    let simulator = start(Spec {
        powered_off: Some(0),
        ..frozen()
    })
    .await;
    let client = Client::login(&simulator).await;
    let mut control = Client::new(&simulator);
    control.aim(simulator.control_addr());
    for (path, body) in [
        (
            "/rules",
            r#"{"method":"PowerOffVM_Task","action":"task-time","queued":1000,"millis":4000,"steps":1}"#,
        ),
        ("/rules", r#"{"action":"task-stuck","times":0}"#),
        (
            "/rules",
            r#"{"action":"task-fault","fault":"SnapshotFault","times":0}"#,
        ),
        ("/rules", r#"{"action":"task-asks","times":0}"#),
        (
            "/rules",
            r#"{"action":"task-gone","millis":5,"forgotten":true,"times":0}"#,
        ),
        ("/rules", r#"{"action":"refuse","by":"fault","times":0}"#),
        ("/rules", r#"{"action":"guest","millis":null,"times":0}"#),
        ("/rules", r#"{"action":"guest","millis":10,"away":20,"times":0}"#),
        ("/rules", r#"{"action":"lose","times":0}"#),
        ("/rules", r#"{"action":"hold","millis":5,"times":0}"#),
        ("/event", r#"{"event":"ask","vm":"vm-10001"}"#),
        ("/event", r#"{"event":"answer","vm":"vm-10001"}"#),
        (
            "/event",
            r#"{"event":"set-method","vm":"vm-10001","method":"ResetVM_Task","enabled":false}"#,
        ),
    ] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = control.raw(&request).await;
        assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
    }
    assert_eq!(client.call(OFF).await.status, 200);
    let log = control.get("/operations").await.body;
    let log: Vec<vsphere_simulator::OperationRecord> = serde_json::from_str(&log).expect("log");
    assert_eq!(log, simulator.world().operations());
    assert_eq!((log.len(), log[0].state), (1, Some(TaskState::Queued)));
    simulator.shutdown().await;
}
