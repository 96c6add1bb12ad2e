//! Each action to its end, and its effect read back.

use super::*;
use virt_collector::model::operation::Action as A;
use vsphere_simulator::Action as Do;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_actions_change_the_vm_and_the_inventory_shows_it() {
    let desk = Desk::new().await;
    for (action, method, power) in [
        (A::PowerOff, "PowerOffVM_Task", "off"),
        (A::PowerOn, "PowerOnVM_Task", "on"),
        (A::Reset, "ResetVM_Task", "on"),
        (A::Suspend, "SuspendVM_Task", "suspended"),
        (A::PowerOn, "PowerOnVM_Task", "on"),
    ] {
        let ended = desk.done(action.clone()).await;
        assert_eq!(*succeeded(&ended), Outcome::default(), "{action:?}");
        let there = desk.done_there();
        let last = there.last().unwrap();
        assert_eq!((last.method.as_str(), last.vm.as_str()), (method, VM));
        assert_eq!(
            ended.task.as_ref().map(|task| task.as_str()),
            last.task.as_deref()
        );
        assert!(ended.sent_at_source.unwrap().micros() <= last.at, "{ended:?}");
        assert!(ended.created_at <= ended.started_at.unwrap());
        assert!(ended.sent_at.unwrap() <= ended.accepted_at.unwrap());
        let words = format!("{} lab {VM}", action.as_str());
        assert_eq!(
            desk.audit(ended.id).await,
            [
                format!("intent {ACTOR} {words}"),
                format!("outcome {ACTOR} {words} ok")
            ]
        );
        desk.power(power).await;
    }
    assert_eq!(desk.done_there().len(), 5);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_so_already_is_a_success_that_says_so_and_nothing_is_sent() {
    let desk = Desk::new().await;
    let already = Outcome {
        already: true,
        ..Outcome::default()
    };
    assert_eq!(*succeeded(&desk.done(A::PowerOn).await), already);
    assert_eq!(*succeeded(&desk.done(A::RemoveAllSnapshots).await), already);
    assert_eq!(desk.done_there(), []);
    succeeded(&desk.done(A::PowerOff).await);
    for action in [A::PowerOff, A::ShutdownGuest] {
        let ended = desk.done(action).await;
        assert_eq!(*succeeded(&ended), already);
        assert_eq!((ended.sent_at, ended.task), (None, None));
    }
    assert_eq!(desk.done_there().len(), 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_created_reverted_to_and_removed() {
    let desk = Desk::new().await;
    let first = desk.snapshot("first").await;
    let second = desk.snapshot("second").await;
    let third = desk.snapshot("third").await;
    desk.snapshots(&[(&first, false), (&second, false), (&third, true)])
        .await;
    let sql = "SELECT s.description, o.operation_id::text FROM virt_vm_snapshot AS s \
               JOIN virt_operation AS o ON o.result ->> 'snapshot' = s.moref WHERE s.moref = $1";
    let row = desk.sql.query_one(sql, &[&first]).await.unwrap();
    let (description, id): (String, String) = (row.get(0), row.get(1));
    assert_eq!(description, format!("before the patch\n{id}"));

    succeeded(
        &desk
            .done(A::RevertSnapshot {
                snapshot: first.as_str().into(),
            })
            .await,
    );
    desk.snapshots(&[(&first, true), (&second, false), (&third, false)])
        .await;
    succeeded(
        &desk
            .done(A::RemoveSnapshot {
                snapshot: second.as_str().into(),
                children: true,
            })
            .await,
    );
    desk.snapshots(&[(&first, true)]).await;
    desk.snapshot("fourth").await;
    succeeded(&desk.done(A::RemoveAllSnapshots).await);
    desk.snapshots(&[]).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_shuts_down_in_its_own_time_and_the_operation_follows_it() {
    let desk = Desk::new().await;
    desk.rule(Rule::on(
        "ShutdownGuest",
        Do::Guest {
            millis: Some(30_000),
            away: 0,
        },
    ));
    let asked = desk.ask(VM, A::ShutdownGuest).await;
    accepted(&desk, asked.id).await;
    assert_eq!(
        desk.store.operation(asked.id).await.unwrap().unwrap().state,
        State::Running
    );
    desk.rig.pass(LONG);
    assert_eq!(*succeeded(&desk.ended(asked.id).await), Outcome::default());
    desk.power("off").await;
    desk.stop().await;
}

async fn accepted(desk: &Desk, id: Uuid) {
    until("the platform has accepted it", async || {
        let operation = desk.store.operation(id).await.unwrap().unwrap();
        operation.accepted_at.map(drop).ok_or(format!("{operation:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_is_over_when_vmware_tools_are_back() {
    let desk = Desk::new().await;
    desk.rule(Rule::on(
        "RebootGuest",
        Do::Guest {
            millis: Some(0),
            away: 30_000,
        },
    ));
    let asked = desk.ask(VM, A::RebootGuest).await;
    accepted(&desk, asked.id).await;
    desk.rig.pass(Duration::from_secs(1));
    until("VMware Tools are seen to be away", async || {
        // Two looks after the guest went down: whichever began before has ended.
        let n = desk.rig.simulator.calls().count("RetrievePropertiesEx");
        until("the VM is looked at", async || {
            let now = desk.rig.simulator.calls().count("RetrievePropertiesEx");
            if now >= n + 2 {
                Ok(())
            } else {
                Err(now.to_string())
            }
        })
        .await;
        Ok(())
    })
    .await;
    assert!(
        !desk
            .store
            .operation(asked.id)
            .await
            .unwrap()
            .unwrap()
            .state
            .is_end()
    );
    desk.rig.pass(LONG);
    assert_eq!(*succeeded(&desk.ended(asked.id).await), Outcome::default());
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_and_what_the_vm_waits_for() {
    let desk = Desk::new().await;
    desk.rule(Rule::on(
        "CreateSnapshot_Task",
        Do::TaskTime {
            queued: 0,
            millis: 40_000,
            steps: 3,
        },
    ));
    desk.rule(Rule::on("CreateSnapshot_Task", Do::TaskAsks));
    let asked = desk.ask(VM, new_snapshot("slow")).await;
    let waits = until("the question is shown", async || {
        let operation = desk.store.operation(asked.id).await.unwrap().unwrap();
        operation.detail.clone().ok_or(format!("{operation:?}"))
    })
    .await;
    assert!(
        waits.starts_with("the VM waits for an answer to a question"),
        "{waits}"
    );
    desk.event(Event::Answer { vm: VM.to_owned() });
    desk.rig.pass(Duration::from_secs(21));
    until("progress is told", async || {
        let operation = desk.store.operation(asked.id).await.unwrap().unwrap();
        match operation.progress {
            Some(1..=99) => Ok(()),
            _ => Err(format!("{operation:?}")),
        }
    })
    .await;
    desk.rig.pass(LONG);
    let ended = desk.ended(asked.id).await;
    assert!(succeeded(&ended).snapshot.is_some());
    assert_eq!((ended.progress, ended.detail), (Some(100), None));
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_task_on_one_vm_holds_up_nobody_else_and_no_poll() {
    let desk = Desk::new().await;
    desk.rule(Rule::on("CreateSnapshot_Task", Do::TaskStuck).object(VM));
    let stuck = desk.ask(VM, new_snapshot("for ever")).await;
    accepted(&desk, stuck.id).await;
    let others = desk.rig.simulator.world().running_vms();
    let others: Vec<&String> = others.iter().filter(|vm| *vm != VM).take(7).collect();
    let mut asked = Vec::new();
    for vm in &others {
        asked.push(desk.ask(vm, A::Reset).await);
    }
    for operation in asked {
        succeeded(&desk.ended(operation.id).await);
    }
    desk.rig.pass(Duration::from_secs(20));
    assert_eq!(desk.daemon.poll().await.error, None);
    assert!(
        !desk
            .store
            .operation(stuck.id)
            .await
            .unwrap()
            .unwrap()
            .state
            .is_end()
    );
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_refuses_a_call_before_it_is_done_and_it_is_sent_in_a_new_one() {
    let desk = Desk::new().await;
    let rule = desk.rule(
        Rule::on(
            "PowerOffVM_Task",
            Do::Fault {
                fault: "NotAuthenticated".to_owned(),
                message: String::new(),
            },
        )
        .times(1),
    );
    succeeded(&desk.done(A::PowerOff).await);
    assert_eq!(desk.rig.simulator.rules().applied(rule), 1);
    assert_eq!(desk.rig.simulator.calls().count("PowerOffVM_Task"), 2);
    assert_eq!(desk.done_there().len(), 1);
    desk.stop().await;
}
