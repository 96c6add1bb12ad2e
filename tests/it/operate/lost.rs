//! Calls whose answer is lost: what became of them is found out, and none is sent twice.

use super::*;
use virt_collector::model::operation::Action as A;
use vsphere_simulator::Action as Do;

/// The call is done, and its answer never comes.
const UNHEARD: Do = Do::Reset { at: 0 };

/// The task is gone at once.
const fn gone(forgotten: bool) -> Do {
    Do::TaskGone { millis: 0, forgotten }
}

const METHODS: [&str; 8] = [
    "PowerOnVM_Task",
    "PowerOffVM_Task",
    "SuspendVM_Task",
    "ResetVM_Task",
    "CreateSnapshot_Task",
    "RevertToSnapshot_Task",
    "RemoveSnapshot_Task",
    "RemoveAllSnapshots_Task",
];

/// Every action whose effect can be seen, with what it needs before, while answers are lost as `rules` say.
async fn every_action_is_found_out(rules: &[Do], note: &str) {
    let desk = Desk::new().await;
    let first = desk.snapshot("first").await;
    let second = desk.snapshot("second").await;
    let before = desk.done_there().len();
    for method in METHODS {
        for rule in rules {
            desk.rule(Rule::on(method, rule.clone()));
        }
    }
    let actions = [
        A::Suspend,
        A::PowerOn,
        A::PowerOff,
        A::PowerOn,
        new_snapshot("third"),
        A::RevertSnapshot {
            snapshot: first.as_str().into(),
        },
        A::RemoveSnapshot {
            snapshot: second.as_str().into(),
            children: false,
        },
        A::RemoveAllSnapshots,
    ];
    for (n, action) in actions.iter().enumerate() {
        // Two tasks of one kind in the same second could be either.
        desk.rig.pass(Duration::from_secs(2));
        let ended = desk.done(action.clone()).await;
        let outcome = succeeded(&ended);
        let said = outcome.note.as_deref().unwrap_or_default();
        assert!(said.contains(note), "{action:?}: {said:?}");
        assert_eq!(
            outcome.snapshot.is_some(),
            action.as_str() == "create_snapshot",
            "{ended:?}"
        );
        assert_eq!(desk.done_there().len(), before + n + 1, "{action:?}");
    }
    desk.snapshots(&[]).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_made_good_by_the_task_that_the_call_started() {
    Box::pin(every_action_is_found_out(&[UNHEARD], "found again as task-")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_gone_already_is_found_in_the_history() {
    Box::pin(every_action_is_found_out(
        &[UNHEARD, gone(false)],
        "found again as task-",
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_task_is_left_the_vm_tells() {
    Box::pin(every_action_is_found_out(
        &[UNHEARD, gone(true)],
        "found out by looking",
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_had_no_effect_and_left_no_trace_ends_as_unknown_and_is_not_sent_again() {
    let desk = Desk::new().await;
    desk.rule(Rule::on("PowerOffVM_Task", Do::Lose));
    let ended = desk.done(A::PowerOff).await;
    let words = [
        "will not be sent again",
        "no task",
        "was on before and is on now",
        "ask again",
    ];
    assert_eq!(unknown(&ended, &words), "answer_lost");
    assert_eq!(desk.rig.simulator.calls().count("PowerOffVM_Task"), 1);
    assert_eq!(desk.done_there(), []);
    assert_eq!(
        desk.audit(ended.id).await,
        [
            format!("intent {ACTOR} power_off lab {VM}"),
            format!("outcome {ACTOR} power_off lab {VM} unknown answer_lost")
        ]
    );
    // The VM is free for the next one.
    desk.rig.simulator.rules().clear();
    succeeded(&desk.done(A::PowerOff).await);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_tells_a_reset_vm_from_one_that_was_left_alone() {
    let desk = Desk::new().await;
    desk.rule(Rule::on("ResetVM_Task", UNHEARD));
    desk.rule(Rule::on("ResetVM_Task", gone(true)));
    assert_eq!(unknown(&desk.done(A::Reset).await, &["no task"]), "answer_lost");
    assert_eq!(desk.done_there().len(), 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_heard_it_shows_by_going_down_and_one_that_reboots_does_not_show() {
    let desk = Desk::new().await;
    for method in ["ShutdownGuest", "RebootGuest"] {
        desk.rule(Rule::on(method, UNHEARD));
        desk.rule(Rule::on(
            method,
            Do::Guest {
                millis: Some(30_000),
                away: 0,
            },
        ));
    }
    let reboot = desk.done(A::RebootGuest).await;
    assert_eq!(unknown(&reboot, &["will not be sent again"]), "answer_lost");
    desk.rig.pass(LONG);
    let asked = desk.ask(VM, A::ShutdownGuest).await;
    until("the guest has heard it", async || {
        let n = desk.done_there().len();
        if n == 2 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
    desk.rig.pass(LONG);
    let ended = desk.ended(asked.id).await;
    assert!(
        succeeded(&ended)
            .note
            .as_deref()
            .unwrap()
            .contains("powered off now"),
        "{ended:?}"
    );
    assert_eq!(desk.rig.simulator.calls().count("ShutdownGuest"), 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_task_of_the_same_kind_is_not_taken_for_the_lost_one() {
    let desk = Desk::new().await;
    // The simulator's clock stands still: both would be of the same moment.
    succeeded(&desk.done(A::Reset).await);
    desk.rule(Rule::on("ResetVM_Task", Do::Lose));
    assert_eq!(unknown(&desk.done(A::Reset).await, &["no task"]), "answer_lost");
    assert_eq!(desk.done_there().len(), 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_task_that_was_never_answered_is_a_failure() {
    let desk = Desk::new().await;
    desk.rule(Rule::on("CreateSnapshot_Task", UNHEARD));
    desk.rule(Rule::on(
        "CreateSnapshot_Task",
        Do::TaskFault {
            fault: "SnapshotFault".to_owned(),
            message: "the disk is too large".to_owned(),
        },
    ));
    let ended = desk.done(new_snapshot("no")).await;
    assert_eq!(
        failed(&ended, &["SnapshotFault", "the disk is too large"]),
        "fault"
    );
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_vanishes_while_it_is_followed_is_found_in_the_history_or_in_the_vm() {
    for forgotten in [false, true] {
        let desk = Desk::new().await;
        desk.rule(Rule::on("CreateSnapshot_Task", gone(forgotten)));
        let ended = desk.done(new_snapshot("found")).await;
        assert!(succeeded(&ended).snapshot.is_some(), "{ended:?}");
        desk.rule(Rule::on("ResetVM_Task", gone(forgotten)));
        let reset = desk.done(A::Reset).await;
        if forgotten {
            assert_eq!(unknown(&reset, &["has forgotten how that ended"]), "task_gone");
        } else {
            succeeded(&reset);
        }
        desk.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esxi_host_keeps_no_history_and_its_vm_tells() {
    let desk = Desk::with(Spec {
        powered_off: Some(0),
        clock: crate::rig::frozen(),
        ..Spec::esxi(3)
    })
    .await;
    desk.rule(Rule::on("PowerOffVM_Task", UNHEARD));
    desk.rule(Rule::on("PowerOffVM_Task", gone(true)));
    let row = desk
        .sql
        .query_one("SELECT moref FROM virt_vm WHERE NOT is_template LIMIT 1", &[])
        .await;
    let vm: String = row.unwrap().get(0);
    let asked = desk.ask(&vm, A::PowerOff).await;
    let ended = desk.ended(asked.id).await;
    assert!(succeeded(&ended).note.is_some(), "{ended:?}");
    assert_eq!(desk.done_there().len(), 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_after_the_deadline_is_a_lost_one() {
    let rig = Rig::new(Spec {
        powered_off: Some(0),
        ..small()
    })
    .await;
    let mut config = rig.config();
    config.collection.request_timeout = Duration::from_secs(5);
    let daemon = rig.start_with(config).await;
    let desk = Desk {
        store: rig.store(),
        sql: rig.database.connect(Role::Superuser).await.unwrap(),
        rig,
        daemon,
    };
    desk.rule(Rule::on("PowerOffVM_Task", Do::Hold { millis: 600_000 }));
    let ended = desk.done(A::PowerOff).await;
    assert!(succeeded(&ended).note.as_deref().unwrap().contains("found again"));
    assert_eq!(desk.done_there().len(), 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_for_a_while_delays_an_action_and_repeats_nothing() {
    for column in ["started_at", "sent_at", "accepted_at", "ended_at"] {
        let desk = Desk::new().await;
        // A sequence counts also what is rolled back.
        let refuse_twice = format!(
            "CREATE SEQUENCE tries; \
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
                 IF OLD.{column} IS NULL AND NEW.{column} IS NOT NULL AND nextval('tries') <= 2 THEN \
                     RAISE EXCEPTION 'not now' USING ERRCODE = '40001'; \
                 END IF; \
                 RETURN NEW; \
             END $$; \
             CREATE TRIGGER refuse BEFORE UPDATE ON virt_operation FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        desk.sql.batch_execute(&refuse_twice).await.unwrap();
        let ended = desk.done(A::PowerOff).await;
        assert_eq!(*succeeded(&ended), Outcome::default(), "{column}");
        let tries: i64 = desk
            .sql
            .query_one("SELECT last_value FROM tries", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(tries, 3, "{column}");
        assert_eq!(desk.rig.simulator.calls().count("PowerOffVM_Task"), 1, "{column}");
        assert_eq!(desk.audit(ended.id).await.len(), 2, "{column}");
        desk.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_the_database_forgot_in_a_fail_over_is_looked_for_and_not_sent_again() {
    const FORGET: &str = "UPDATE virt_operation SET state = 'queued', started_at = NULL, ended_at = NULL, sent_at = NULL, \
                          sent_at_source = NULL, seen_before = NULL, accepted_at = NULL, task = NULL, progress = NULL, \
                          result = NULL, code = NULL, detail = NULL";
    let desk = Desk::new().await;
    let asked = desk.done(A::Reset).await;
    succeeded(&asked);
    // As on a standby that missed the last commits.
    desk.sql.batch_execute(FORGET).await.unwrap();
    let again = desk.ended(asked.id).await;
    let said = succeeded(&again).note.clone().unwrap_or_default();
    assert!(said.contains("found again as task-"), "{said:?}");
    assert_eq!(desk.rig.simulator.calls().count("ResetVM_Task"), 1);
    desk.stop().await;
}
