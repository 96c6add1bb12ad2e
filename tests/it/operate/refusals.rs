//! What cannot be done, in words that a person can act on.

use super::*;
use virt_collector::model::operation::Action as A;
use vsphere_simulator::{Action as Do, Told};

fn fault(kind: &str) -> Do {
    Do::Fault {
        fault: kind.to_owned(),
        message: String::new(),
    }
}

fn task_fault(kind: &str) -> Do {
    Do::TaskFault {
        fault: kind.to_owned(),
        message: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_shapes_of_failure_are_told_alike() {
    let desk = Desk::new().await;
    for (kind, code, words) in [
        (
            "NoPermission",
            "no_permission",
            &["VirtualMachine.Interact.PowerOff"] as &[&str],
        ),
        ("RestrictedVersion", "licence", &["free licence of ESXi"]),
        ("TaskInProgress", "busy", &["doing something else"]),
        ("InsufficientResourcesFault", "resources", &["resources"]),
        ("HostNotConnected", "disconnected", &["host"]),
        ("NotSupported", "not_supported", &["does not support"]),
        ("SystemError", "fault", &["injected"]),
    ] {
        for shape in [fault(kind), task_fault(kind)] {
            let rule = desk.rule(Rule::on("PowerOffVM_Task", shape.clone()));
            let ended = desk.done(A::PowerOff).await;
            assert_eq!(failed(&ended, words), code, "{shape:?}");
            assert_eq!(
                desk.audit(ended.id).await.last().unwrap(),
                &format!("outcome {ACTOR} power_off lab {VM} error {code}")
            );
            desk.rig.simulator.rules().remove(rule);
        }
    }
    desk.power("on").await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_changed_just_before_the_call_is_still_already_so() {
    for by in [Told::Fault, Told::Task] {
        let desk = Desk::new().await;
        desk.rule(Rule::on("PowerOffVM_Task", Do::Refuse { by }));
        // Somebody else is faster: the state changes between the look at the VM and the call.
        desk.event(Event::PowerOff { vm: VM.to_owned() });
        for (is, was) in [("poweredOff", "poweredOn"), ("PowerOffVM_Task", "PowerOnVM_Task")] {
            let before = Do::Replace {
                find: is.to_owned(),
                with: was.to_owned(),
            };
            desk.rule(Rule::on("RetrievePropertiesEx", before).object(VM));
        }
        let ended = desk.done(A::PowerOff).await;
        assert_eq!(desk.rig.simulator.calls().count("PowerOffVM_Task"), 1);
        assert!(succeeded(&ended).already, "{ended:?}");
        desk.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_vm_is_in_the_way_of_is_said_before_anything_is_sent() {
    let desk = Desk::new().await;
    let text = "Is it moved or copied?".to_owned();
    desk.event(Event::Ask {
        vm: VM.to_owned(),
        text: Some(text.clone()),
    });
    assert_eq!(
        failed(&desk.done(A::PowerOff).await, &[&text, "nothing was done"]),
        "question"
    );
    desk.event(Event::Answer { vm: VM.to_owned() });

    desk.event(Event::SetMethod {
        vm: VM.to_owned(),
        method: "CreateSnapshot_Task".to_owned(),
        enabled: false,
    });
    let ended = desk.done(new_snapshot("no")).await;
    assert_eq!(failed(&ended, &["CreateSnapshot_Task disabled"]), "disabled");

    let gone = A::RevertSnapshot {
        snapshot: "snapshot-of-another-vm".into(),
    };
    assert_eq!(
        failed(&desk.done(gone).await, &["no snapshot snapshot-of-another-vm"]),
        "snapshot_gone"
    );

    succeeded(&desk.done(A::PowerOff).await);
    for action in [A::Reset, A::Suspend, A::RebootGuest] {
        let ended = desk.done(action).await;
        assert_eq!(
            failed(&ended, &["the VM is powered off", "nothing was done"]),
            "power_state"
        );
    }
    assert_eq!(desk.done_there().len(), 1, "nothing but the one that was done");
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_another_one_now_is_left_alone() {
    let desk = Desk::new().await;
    // The daemon learns of the new name after the person asked: what was confirmed is not what is there.
    let vm = desk.vm(VM).await;
    let sql = "UPDATE virt_vm SET name = 'what it was called' WHERE moref = $1";
    desk.sql.execute(sql, &[&VM]).await.unwrap();
    let asked = ask(&desk.store, vm, &A::PowerOff).await;
    let ended = desk.ended(asked.id).await;
    assert_eq!(
        failed(
            &ended,
            &["its name was \"what it was called\"", "nothing was done"]
        ),
        "vm_changed"
    );

    let sql = "UPDATE virt_vm SET name = NULL, instance_uuid = 'another' WHERE moref = $1";
    desk.sql.execute(sql, &[&VM]).await.unwrap();
    let asked = ask(&desk.store, vm, &A::PowerOff).await;
    let ended = desk.ended(asked.id).await;
    assert_eq!(
        failed(&ended, &["its instance UUID was \"another\""]),
        "vm_changed"
    );
    assert_eq!(desk.done_there(), []);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_gone_is_said_to_be() {
    let desk = Desk::new().await;
    let vm = desk.vm(VM).await;
    desk.rule(Rule::on("RetrievePropertiesEx", fault("ManagedObjectNotFound")).object(VM));
    let asked = ask(&desk.store, vm, &A::PowerOff).await;
    assert_eq!(
        failed(&desk.ended(asked.id).await, &["does not exist"]),
        "vm_gone"
    );
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_and_a_vm_whose_host_is_lost_are_left_alone() {
    let desk = Desk::with(Spec {
        powered_off: Some(0),
        templates: 1,
        ..small()
    })
    .await;
    let row = desk
        .sql
        .query_one("SELECT moref FROM virt_vm WHERE is_template", &[])
        .await;
    let template: String = row.unwrap().get(0);
    let asked = desk.ask(&template, A::PowerOn).await;
    assert_eq!(failed(&desk.ended(asked.id).await, &["template"]), "template");

    for host in desk.rig.simulator.world().hosts() {
        desk.event(Event::HostLink {
            host,
            link: vsphere_simulator::HostLink::Disconnected,
        });
    }
    let ended = desk.done(A::PowerOff).await;
    assert_eq!(
        failed(&ended, &["disconnected", "nothing was done"]),
        "disconnected"
    );
    assert_eq!(desk.done_there(), []);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_without_vmware_tools_cannot_be_asked() {
    let desk = Desk::new().await;
    desk.rule(Rule::on("ShutdownGuest", fault("ToolsUnavailable")));
    let ended = desk.done(A::ShutdownGuest).await;
    assert_eq!(failed(&ended, &["VMware Tools do not run"]), "tools_missing");
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_free_licence_of_esxi_is_named() {
    let desk = Desk::with(Spec {
        powered_off: Some(0),
        free_license: true,
        clock: crate::rig::frozen(),
        ..Spec::esxi(3)
    })
    .await;
    let row = desk
        .sql
        .query_one("SELECT moref FROM virt_vm WHERE NOT is_template LIMIT 1", &[])
        .await;
    let vm: String = row.unwrap().get(0);
    let asked = desk.ask(&vm, A::PowerOff).await;
    assert_eq!(failed(&desk.ended(asked.id).await, &["free licence"]), "licence");
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_too_long_in_the_queue_is_not_done_any_more() {
    let desk = Desk::new().await;
    let vm = desk.vm(VM).await;
    let insert = "INSERT INTO virt_operation (operation_id, platform_id, vm_id, action, requested_by, request_id, created_at) \
                  SELECT gen_random_uuid(), platform_id, vm_id, 'power_off', 'x', 'y', clock_timestamp() - INTERVAL '6 min' \
                  FROM virt_vm WHERE vm_id = $1 RETURNING operation_id::text";
    let id: String = desk.sql.query_one(insert, &[&vm.0]).await.unwrap().get(0);
    let ended = desk.ended(id.parse().unwrap()).await;
    assert_eq!(failed(&ended, &["nothing was done"]), "expired");
    assert_eq!(desk.done_there(), []);
    desk.stop().await;
}
