//! A collector that is killed in the middle of an action: whoever goes on finds out, and nothing is done twice.
//!
//! The daemon is a process of its own. The simulator holds it at the point where it is to die: a rule keeps a call
//! back, and what the database and the simulator show says that it got there.

use super::*;
use support::collector::{Collector, Platform};
use support::database::Database as TestDatabase;
use support::process::Signal;
use virt_collector::model::operation::Action as A;
use vsphere_simulator::{Action as Do, Simulator};

/// Longer than any test: the daemon dies first.
const HELD: u64 = 600_000;

struct Stage {
    database: TestDatabase,
    simulator: Simulator,
    collector: Collector,
    store: Database,
    sql: Client,
    vm: VmId,
    directory: tempfile::TempDir,
}

impl Stage {
    /// A collector that has read the inventory, as a process.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = TestDatabase::create()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let simulator = Simulator::start(Spec {
            vms: 2,
            hosts: 1,
            powered_off: Some(0),
            templates: 0,
            ..small()
        })
        .await
        .unwrap();
        let lab = Platform::simulated("lab", &simulator);
        let mut collector = collector(&directory.path().join("a"), &database, lab);
        collector.migrate().await.unwrap();
        collector.start().await.unwrap();
        let sql = database.connect(Role::Superuser).await.unwrap();
        let store = Database::new(settings(&database)).unwrap();
        until("the VM is known", async || {
            let known = sql
                .query("SELECT FROM virt_vm WHERE moref = $1", &[&VM])
                .await
                .unwrap();
            if known.len() == 1 {
                Ok(())
            } else {
                Err(known.len().to_string())
            }
        })
        .await;
        Self {
            vm: vm_id(&sql, VM).await,
            store,
            sql,
            collector,
            simulator,
            database,
            directory,
        }
    }

    fn rule(&self, method: &str, action: Do) {
        self.simulator.rules().add(Rule::on(method, action));
    }

    async fn ask(&self, action: A) -> Uuid {
        ask(&self.store, self.vm, &action).await.id
    }

    /// Waits until the operation is so far.
    async fn at(&self, what: &str, id: Uuid, is_there: impl Fn(&Operation) -> bool + Sync) -> Operation {
        until(what, async || {
            let operation = self.store.operation(id).await.unwrap().unwrap();
            if is_there(&operation) {
                Ok(operation)
            } else {
                Err(format!("{operation:?}"))
            }
        })
        .await
    }

    /// Waits until the platform has done so many things.
    async fn done_there(&self, n: usize) {
        until("the platform has done it", async || {
            let done = self.simulator.world().operations();
            if done.len() == n {
                Ok(())
            } else {
                Err(format!("{done:?}"))
            }
        })
        .await;
    }

    /// kill -9, and another life in an undisturbed world.
    async fn die_and_live_again(&mut self) {
        self.collector.kill().await.unwrap();
        self.simulator.rules().clear();
        expire(&self.sql).await;
        self.collector.start().await.unwrap();
    }

    async fn ended(&self, id: Uuid) -> Operation {
        ended(&self.store, id).await
    }

    /// The one intent and the one outcome of an operation.
    async fn assert_audit(&self, action: &str, id: Uuid, outcome: &str) {
        assert_eq!(
            audit(&self.sql, id).await,
            [
                format!("intent {ACTOR} {action} lab {VM}"),
                format!("outcome {ACTOR} {action} lab {VM} {outcome}")
            ]
        );
    }

    fn calls(&self, method: &str) -> u64 {
        self.simulator.calls().count(method)
    }
}

/// What becomes of a dead collector's lease and announcement in 30 s.
async fn expire(sql: &Client) {
    let update = "UPDATE virt_platform_lease SET until = clock_timestamp(); \
                  UPDATE virt_collector SET until = clock_timestamp()";
    sql.batch_execute(update).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_intent_and_call_the_action_is_done_in_the_next_life() {
    let mut stage = Stage::new().await;
    // The last call before sent_at is written.
    stage.rule("CurrentTime", Do::Hold { millis: HELD });
    let id = stage.ask(A::PowerOff).await;
    stage
        .at("it is taken up", id, |operation| {
            operation.state == State::Running
        })
        .await;
    until("the daemon asks for the time", async || {
        let n = stage.calls("CurrentTime");
        if n > 0 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
    assert_eq!(stage.store.operation(id).await.unwrap().unwrap().sent_at, None);
    stage.die_and_live_again().await;
    let ended = stage.ended(id).await;
    assert_eq!(*succeeded(&ended), Outcome::default());
    stage.done_there(1).await;
    stage.assert_audit("power_off", id, "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_call_and_task_record_the_task_is_found_and_the_call_not_sent_again() {
    let mut stage = Stage::new().await;
    stage.rule("PowerOffVM_Task", Do::Hold { millis: HELD });
    let id = stage.ask(A::PowerOff).await;
    stage.done_there(1).await;
    let then = stage.store.operation(id).await.unwrap().unwrap();
    assert!(then.sent_at.is_some() && then.task.is_none(), "{then:?}");
    stage.die_and_live_again().await;
    let ended = stage.ended(id).await;
    assert!(
        succeeded(&ended)
            .note
            .as_deref()
            .unwrap()
            .contains("found again as"),
        "{ended:?}"
    );
    assert_eq!(stage.calls("PowerOffVM_Task"), 1);
    stage.done_there(1).await;
    stage.assert_audit("power_off", id, "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_a_call_that_never_arrived_the_action_ends_as_unknown() {
    let mut stage = Stage::new().await;
    stage.rule("ResetVM_Task", Do::Lose);
    let id = stage.ask(A::Reset).await;
    until("the call is sent", async || {
        let n = stage.calls("ResetVM_Task");
        if n == 1 { Ok(()) } else { Err(n.to_string()) }
    })
    .await;
    stage.die_and_live_again().await;
    let ended = stage.ended(id).await;
    assert_eq!(unknown(&ended, &["will not be sent again"]), "answer_lost");
    assert_eq!(stage.calls("ResetVM_Task"), 1);
    stage.done_there(0).await;
    stage.assert_audit("reset", id, "unknown answer_lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_when_nothing_is_left_to_tell_the_action_ends_as_unknown_and_was_done_once() {
    let mut stage = Stage::new().await;
    let forgotten = Do::TaskGone {
        millis: 0,
        forgotten: true,
    };
    stage.rule("ResetVM_Task", forgotten);
    stage.rule("ResetVM_Task", Do::Hold { millis: HELD });
    let id = stage.ask(A::Reset).await;
    stage.done_there(1).await;
    stage.die_and_live_again().await;
    assert_eq!(unknown(&stage.ended(id).await, &["no task"]), "answer_lost");
    assert_eq!(stage.calls("ResetVM_Task"), 1);
    stage.done_there(1).await;
    stage.assert_audit("reset", id, "unknown answer_lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_snapshot_is_made_and_forgotten_it_is_found_by_the_id_in_its_description() {
    let mut stage = Stage::new().await;
    let forgotten = Do::TaskGone {
        millis: 0,
        forgotten: true,
    };
    stage.rule("CreateSnapshot_Task", forgotten);
    stage.rule("CreateSnapshot_Task", Do::Hold { millis: HELD });
    let id = stage.ask(new_snapshot("before the patch")).await;
    stage.done_there(1).await;
    stage.die_and_live_again().await;
    let ended = stage.ended(id).await;
    assert!(succeeded(&ended).snapshot.is_some(), "{ended:?}");
    stage.done_there(1).await;
    stage.assert_audit("create_snapshot", id, "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_following_the_task_is_followed_to_its_end_in_the_next_life() {
    let mut stage = Stage::new().await;
    let slow = Do::TaskTime {
        queued: 0,
        millis: 40_000,
        steps: 3,
    };
    stage.rule("CreateSnapshot_Task", slow);
    let id = stage.ask(new_snapshot("slow")).await;
    let then = stage
        .at("its task is noted", id, |operation| operation.task.is_some())
        .await;
    stage.die_and_live_again().await;
    stage.simulator.clock().advance(LONG);
    let ended = stage.ended(id).await;
    assert_eq!(ended.task, then.task);
    let outcome = succeeded(&ended);
    assert!(outcome.snapshot.is_some() && outcome.note.is_none(), "{ended:?}");
    assert_eq!(stage.calls("CreateSnapshot_Task"), 1);
    stage.done_there(1).await;
    stage.assert_audit("create_snapshot", id, "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_a_guest_shuts_down_it_is_watched_on_in_the_next_life() {
    let mut stage = Stage::new().await;
    stage.rule(
        "ShutdownGuest",
        Do::Guest {
            millis: Some(40_000),
            away: 0,
        },
    );
    let id = stage.ask(A::ShutdownGuest).await;
    stage
        .at("it is accepted", id, |operation| operation.accepted_at.is_some())
        .await;
    stage.die_and_live_again().await;
    stage.simulator.clock().advance(LONG);
    assert_eq!(*succeeded(&stage.ended(id).await), Outcome::default());
    assert_eq!(stage.calls("ShutdownGuest"), 1);
    stage.assert_audit("shutdown_guest", id, "ok").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_takes_over_in_the_middle_goes_on_and_the_one_that_stood_still_writes_nothing() {
    let mut stage = Stage::new().await;
    let slow = Do::TaskTime {
        queued: 0,
        millis: 40_000,
        steps: 3,
    };
    stage.rule("CreateSnapshot_Task", slow);
    let id = stage.ask(new_snapshot("handed over")).await;
    let then = stage
        .at("its task is noted", id, |operation| operation.task.is_some())
        .await;
    stage.collector.signal(Signal::Stop).unwrap();
    expire(&stage.sql).await;
    let mut other = collector(
        &stage.directory.path().join("b"),
        &stage.database,
        Platform::simulated("lab", &stage.simulator),
    );
    other.start().await.unwrap();
    let epoch = "SELECT epoch FROM virt_platform_lease WHERE until > clock_timestamp()";
    until("the other collector has the platform", async || {
        match stage.sql.query_opt(epoch, &[]).await.unwrap() {
            Some(row) if row.get::<_, i64>(0) == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Both look at the task now.
    stage.collector.signal(Signal::Cont).unwrap();
    stage.simulator.clock().advance(LONG);
    let ended = stage.ended(id).await;
    assert!(succeeded(&ended).snapshot.is_some(), "{ended:?}");
    assert_eq!(ended.task, then.task);
    // The one that was deposed leaves without a word.
    stage.collector.end(LONG).await.unwrap();
    stage.done_there(1).await;
    stage.assert_audit("create_snapshot", id, "ok").await;
    other.stop(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_stops_in_order_hands_an_action_over_in_the_middle() {
    let mut stage = Stage::new().await;
    let slow = Do::TaskTime {
        queued: 0,
        millis: 40_000,
        steps: 3,
    };
    stage.rule("PowerOffVM_Task", slow);
    let id = stage.ask(A::PowerOff).await;
    stage
        .at("its task is noted", id, |operation| operation.task.is_some())
        .await;
    let mut other = collector(
        &stage.directory.path().join("b"),
        &stage.database,
        Platform::simulated("lab", &stage.simulator),
    );
    other.start().await.unwrap();
    stage.collector.end(LONG).await.unwrap();
    assert_eq!(
        stage.store.operation(id).await.unwrap().unwrap().state,
        State::Running
    );
    stage.simulator.clock().advance(LONG);
    succeeded(&stage.ended(id).await);
    stage.done_there(1).await;
    stage.assert_audit("power_off", id, "ok").await;
    other.stop(LONG).await.unwrap();
}
