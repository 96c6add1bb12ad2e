use super::*;
use crate::model::ids::{PlatformId, VmId};
use crate::model::inventory::Snapshot;
use crate::model::operation::{NewSnapshot, State};

const SENT: i64 = 1_769_853_600;

fn operation(action: Action) -> Operation {
    Operation {
        id: uuid::Uuid::from_u128(7),
        platform: PlatformId(1),
        platform_name: "lab".to_owned(),
        vm: VmId(1),
        vm_moref: MoRef::new("vm-1"),
        vm_name: Some("web".to_owned()),
        vm_instance_uuid: Some("5000-AB".to_owned()),
        action,
        state: State::Running,
        requested_by: String::new(),
        request_id: String::new(),
        created_at: Stamp::from_seconds(SENT),
        started_at: None,
        ended_at: None,
        sent_at: None,
        sent_at_source: None,
        seen_before: Some(Seen {
            power_state: "on".to_owned(),
            tasks: vec!["task-1".to_owned()],
            ..Seen::default()
        }),
        accepted_at: None,
        task: None,
        progress: None,
        result: None,
        code: None,
        detail: None,
    }
}

fn vm(power: PowerState) -> VmNow {
    VmNow {
        name: Some("web".to_owned()),
        instance_uuid: Some("5000-ab".to_owned()),
        connection: Some("connected".to_owned()),
        power,
        ..VmNow::default()
    }
}

fn task(description_id: &str, entity: &str, queued_at: i64) -> TaskInfo {
    TaskInfo {
        task: "task-2".to_owned(),
        description_id: description_id.to_owned(),
        entity: Some(entity.to_owned()),
        state: TaskState::Success,
        cancelled: false,
        error: None,
        result: None,
        progress: None,
        queued_at: Some(Stamp::from_seconds(queued_at)),
    }
}

fn fault(kind: FaultKind, existing: Option<&str>) -> Fault {
    Fault {
        kind,
        message: String::new(),
        object: None,
        property: None,
        privilege: None,
        existing_state: existing.map(str::to_owned),
        reason: None,
    }
}

fn snapshot(moref: &str, description: Option<String>, current: bool) -> Snapshot {
    Snapshot {
        moref: MoRef::new(moref),
        parent: None,
        name: None,
        description,
        created_at: None,
        power: PowerState::Off,
        quiesced: None,
        current,
    }
}

fn revert() -> Action {
    Action::RevertSnapshot {
        snapshot: "snapshot-1".into(),
    }
}

fn remove() -> Action {
    Action::RemoveSnapshot {
        snapshot: "snapshot-1".into(),
        children: false,
    }
}

fn create() -> Action {
    Action::CreateSnapshot(NewSnapshot {
        name: "a".to_owned(),
        description: String::new(),
        memory: false,
        quiesce: false,
    })
}

#[test]
fn what_the_server_does_not_tell_stops_nothing() {
    let silent = VmNow::default();
    assert_eq!(before(&operation(Action::PowerOff), &silent), Before::Go);
    assert_eq!(before(&operation(Action::Reset), &silent), Before::Go);
    // An instance UUID in other letters is the same.
    assert_eq!(
        before(&operation(Action::PowerOff), &vm(PowerState::On)),
        Before::Go
    );
}

#[test]
fn another_name_or_instance_comes_before_anything_else() {
    let renamed = VmNow {
        name: Some("Web".to_owned()),
        is_template: true,
        ..vm(PowerState::Off)
    };
    let Before::End(End::Failed(code, words)) = before(&operation(Action::PowerOff), &renamed) else {
        panic!("not stopped");
    };
    assert_eq!(code, Code::VmChanged);
    assert!(words.contains("\"web\"") && words.contains("\"Web\""), "{words}");
}

#[test]
fn only_a_new_task_of_the_kind_about_the_vm_may_be_the_call() {
    let sent = Stamp::from_seconds(SENT);
    let fits = |action: Action, info: &TaskInfo| may_be_ours(&operation(action), sent, info);
    assert!(fits(
        Action::PowerOff,
        &task("VirtualMachine.powerOff", "vm-1", SENT)
    ));
    assert!(!fits(
        Action::PowerOff,
        &task("VirtualMachine.powerOn", "vm-1", SENT)
    ));
    assert!(!fits(
        Action::PowerOff,
        &task("VirtualMachine.powerOff", "vm-2", SENT)
    ));
    assert!(!fits(
        Action::PowerOff,
        &task("VirtualMachine.powerOff", "vm-1", SENT - 2)
    ));
    let known = TaskInfo {
        task: "task-1".to_owned(),
        ..task("VirtualMachine.powerOff", "vm-1", SENT)
    };
    assert!(!fits(Action::PowerOff, &known), "it was there before");
    let without_time = TaskInfo {
        queued_at: None,
        ..task("VirtualMachine.powerOff", "vm-1", SENT)
    };
    assert!(!fits(Action::PowerOff, &without_time));
    // vCenter and vcsim call them differently, and about the VM or the snapshot.
    for name in ["vm.Snapshot.revert", "VirtualMachine.revertToSnapshot"] {
        assert!(fits(revert(), &task(name, "vm-1", SENT)), "{name}");
        assert!(fits(revert(), &task(name, "snapshot-1", SENT)), "{name}");
        assert!(!fits(revert(), &task(name, "snapshot-2", SENT)), "{name}");
    }
    for name in ["vm.Snapshot.remove", "VirtualMachine.removeSnapshot"] {
        assert!(fits(remove(), &task(name, "vm-1", SENT)), "{name}");
    }
}

#[test]
fn a_vm_tells_only_by_what_has_changed() {
    let tells = |action: Action, vm: &VmNow| evidence(&operation(action), vm).is_some();
    assert!(tells(Action::PowerOff, &vm(PowerState::Off)));
    assert!(!tells(Action::PowerOff, &vm(PowerState::On)));
    assert!(tells(Action::ShutdownGuest, &vm(PowerState::Off)));
    assert!(tells(Action::Suspend, &vm(PowerState::Suspended)));
    // It was on before.
    assert!(!tells(Action::PowerOn, &vm(PowerState::On)));
    assert!(!tells(Action::Reset, &vm(PowerState::On)));
    assert!(!tells(Action::RebootGuest, &vm(PowerState::On)));

    let on = |snapshots| VmNow {
        snapshots,
        ..vm(PowerState::On)
    };
    let mark = uuid::Uuid::from_u128(7).to_string();
    assert!(tells(
        create(),
        &on(vec![snapshot("snapshot-9", Some(format!("x\n{mark}")), true)])
    ));
    assert!(!tells(
        create(),
        &on(vec![snapshot("snapshot-9", Some("x".to_owned()), true)])
    ));
    assert!(tells(revert(), &on(vec![snapshot("snapshot-1", None, true)])));
    assert!(!tells(revert(), &on(vec![snapshot("snapshot-1", None, false)])));
    let mut stood_there = operation(revert());
    stood_there.seen_before = Some(Seen {
        current_snapshot: Some("snapshot-1".to_owned()),
        ..Seen::default()
    });
    assert_eq!(
        evidence(&stood_there, &on(vec![snapshot("snapshot-1", None, true)])),
        None
    );
    assert!(tells(remove(), &on(vec![snapshot("snapshot-2", None, true)])));
    assert!(!tells(remove(), &on(vec![snapshot("snapshot-1", None, true)])));
    assert!(tells(Action::RemoveAllSnapshots, &on(Vec::new())));
    assert!(!tells(
        Action::RemoveAllSnapshots,
        &on(vec![snapshot("snapshot-1", None, true)])
    ));
}

#[test]
fn a_wrong_power_state_is_a_success_only_where_it_is_the_one_that_was_wanted() {
    let end = |action, existing| of_fault(&action, &fault(FaultKind::InvalidPowerState, existing));
    assert_eq!(end(Action::PowerOff, Some("poweredOff")), already());
    assert_eq!(end(Action::PowerOn, Some("poweredOn")), already());
    assert_eq!(end(Action::Suspend, Some("suspended")), already());
    for (action, existing) in [
        (Action::Suspend, Some("poweredOff")),
        (Action::Reset, Some("poweredOff")),
        (Action::RebootGuest, Some("poweredOff")),
        (Action::PowerOff, None),
        // Neither of them is known.
        (Action::Reset, Some("contemplating")),
    ] {
        assert_eq!(
            end(action.clone(), existing).state(),
            State::Failed,
            "{action:?} {existing:?}"
        );
    }
}

#[test]
fn a_guest_that_reboots_is_back_when_its_tools_are_after_they_were_gone() {
    let reboot = operation(Action::RebootGuest);
    let tools = VmNow {
        tools: Some("guestToolsRunning".to_owned()),
        ..vm(PowerState::On)
    };
    let none = vm(PowerState::On);
    assert_eq!(of_guest(&reboot, &tools, false, false), None);
    assert_eq!(of_guest(&reboot, &none, true, false), None);
    assert_eq!(
        of_guest(&reboot, &tools, true, false),
        Some(End::Succeeded(Outcome::default()))
    );
    let Some(End::Succeeded(outcome)) = of_guest(&reboot, &tools, false, true) else {
        panic!("accepted is all that can be seen");
    };
    assert!(outcome.note.unwrap().contains("cannot be seen"));
    assert_eq!(
        of_guest(&reboot, &none, true, true),
        None,
        "it went down and is not back"
    );
    let off = of_guest(&reboot, &vm(PowerState::Off), true, false).unwrap();
    assert_eq!(off.state(), State::Failed);
    let shutdown = operation(Action::ShutdownGuest);
    assert_eq!(of_guest(&shutdown, &tools, true, true), None);
    assert!(of_guest(&shutdown, &vm(PowerState::Off), true, false).is_some());
}
