//! Actions on VMs, from the queue to the platform and back: the daemon, the database and the simulator through their
//! sockets.

mod actions;
mod killed;
mod lost;
mod peer;
mod queue;
mod refusals;

use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::{Database as TestDatabase, Role};
use tokio_postgres::Client;
use uuid::Uuid;
use virt_collector::model::ids::VmId;
use virt_collector::model::operation::{Action, NewSnapshot, Operation, Outcome, State};
use virt_collector::store::operation::{Submission, Submitted};
use virt_collector::store::{Database, Owner};
use vsphere_simulator::{Event, OperationRecord, Rule, Spec};

use crate::rig::{Daemon, Rig, small};
use crate::wait::until;

/// A running VM with VMware Tools, and one without.
const VM: &str = "vm-10001";

/// Most open operations of a platform.
const MOST_OPEN: u32 = 8;

/// Whoever asks.
const ACTOR: &str = "night shift";

/// Who asks, and the daemon that does it.
struct Desk {
    rig: Rig,
    daemon: Daemon,
    store: Database,
    sql: Client,
}

impl Desk {
    /// All VMs run.
    async fn new() -> Self {
        Self::with(Spec {
            powered_off: Some(0),
            ..small()
        })
        .await
    }

    async fn with(spec: Spec) -> Self {
        let rig = Rig::new(spec).await;
        let daemon = rig.start().await;
        Self {
            store: rig.store(),
            sql: rig.database.connect(Role::Superuser).await.unwrap(),
            rig,
            daemon,
        }
    }

    async fn vm(&self, moref: &str) -> VmId {
        vm_id(&self.sql, moref).await
    }

    async fn ask(&self, moref: &str, action: Action) -> Operation {
        ask(&self.store, self.vm(moref).await, &action).await
    }

    /// Asks, and waits for the end.
    async fn done(&self, action: Action) -> Operation {
        let asked = self.ask(VM, action).await;
        self.ended(asked.id).await
    }

    async fn ended(&self, id: Uuid) -> Operation {
        ended(&self.store, id).await
    }

    fn rule(&self, rule: Rule) -> u64 {
        self.rig.simulator.rules().add(rule)
    }

    fn event(&self, event: Event) {
        self.rig.simulator.world().apply(event).unwrap();
    }

    /// What the platform did for clients.
    fn done_there(&self) -> Vec<OperationRecord> {
        self.rig.simulator.world().operations()
    }

    /// The power state as the inventory shows it.
    async fn power(&self, expected: &str) {
        until(&format!("the inventory shows the VM {expected}"), async || {
            let sql = "SELECT power_state FROM virt_vm WHERE moref = $1";
            let seen: String = self.sql.query_one(sql, &[&VM]).await.unwrap().get(0);
            if seen == expected { Ok(()) } else { Err(seen) }
        })
        .await;
    }

    /// A snapshot made by an action.
    async fn snapshot(&self, name: &str) -> String {
        let made = self.done(new_snapshot(name)).await;
        succeeded(&made).snapshot.clone().unwrap()
    }

    /// Snapshots as the inventory shows them: moref, and whether the VM stands on it.
    async fn snapshots(&self, expected: &[(&str, bool)]) {
        until(&format!("the inventory shows {expected:?}"), async || {
            let sql = "SELECT s.moref, is_current FROM virt_vm_snapshot AS s JOIN virt_vm AS vm USING (vm_id) \
                       WHERE vm.moref = $1 AND s.removed_at IS NULL ORDER BY s.moref";
            let rows = self.sql.query(sql, &[&VM]).await.unwrap();
            let seen: Vec<(String, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let same = seen.iter().map(|(moref, current)| (moref.as_str(), *current));
            if same.eq(expected.iter().copied()) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    }

    async fn audit(&self, id: Uuid) -> Vec<String> {
        audit(&self.sql, id).await
    }

    async fn stop(self) {
        self.daemon.stop().await;
    }
}

/// A collector as a process, with one platform.
fn collector(directory: &Path, database: &TestDatabase, platform: Platform) -> Collector {
    let settings = Settings {
        interval: Duration::from_secs(300),
        discovery_interval: Duration::from_secs(3600),
        ..Settings::on(database, vec![platform]).unwrap()
    };
    Collector::prepare(
        Path::new(env!("CARGO_BIN_EXE_virt-collector")),
        directory,
        &settings,
    )
    .unwrap()
}

fn settings(database: &TestDatabase) -> virt_collector::store::Settings {
    use virt_collector::config::{Account, Database, DatabaseTls};

    let account = Account {
        url: database.url(Role::Writer),
        password_file: None,
    };
    let config = Database {
        writer: account.clone(),
        owner: None,
        tls: DatabaseTls::Auto { ca_file: None },
    };
    virt_collector::store::Settings::new(&config, &account, &Owner::random()).unwrap()
}

async fn vm_id(sql: &Client, moref: &str) -> VmId {
    let select = "SELECT vm_id FROM virt_vm WHERE moref = $1";
    VmId(sql.query_one(select, &[&moref]).await.unwrap().get(0))
}

fn submission(vm: VmId, action: &Action) -> Submission<'_> {
    Submission {
        vm,
        action,
        confirmed: None,
        actor: ACTOR,
        client: Some("192.0.2.7"),
        request_id: "request-1",
        key: None,
        most_open: MOST_OPEN,
    }
}

async fn ask(store: &Database, vm: VmId, action: &Action) -> Operation {
    match store.submit_operation(&submission(vm, action)).await.unwrap() {
        Submitted::New(operation) => *operation,
        other => panic!("{other:?}"),
    }
}

async fn ended(store: &Database, id: Uuid) -> Operation {
    until("the operation ends", async || {
        let operation = store.operation(id).await.unwrap().unwrap();
        if operation.state.is_end() {
            Ok(operation)
        } else {
            Err(format!("{operation:?}"))
        }
    })
    .await
}

/// Who, what and how it ended, row by row.
async fn audit(sql: &Client, id: Uuid) -> Vec<String> {
    let select = "SELECT concat_ws(' ', entry, actor, action, platform, target, outcome, code) FROM virt_audit_log \
                  WHERE operation_id = $1::text::uuid ORDER BY audit_id";
    let rows = sql.query(select, &[&id.to_string()]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn new_snapshot(name: &str) -> Action {
    Action::CreateSnapshot(NewSnapshot {
        name: name.to_owned(),
        description: "before the patch".to_owned(),
        memory: false,
        quiesce: false,
    })
}

#[track_caller]
fn succeeded(operation: &Operation) -> &Outcome {
    assert_eq!(operation.state, State::Succeeded, "{operation:?}");
    operation.result.as_ref().unwrap()
}

/// Its code, and that its detail holds all these words.
#[track_caller]
fn failed<'a>(operation: &'a Operation, words: &[&str]) -> &'a str {
    assert_eq!(operation.state, State::Failed, "{operation:?}");
    said(operation, words)
}

#[track_caller]
fn unknown<'a>(operation: &'a Operation, words: &[&str]) -> &'a str {
    assert_eq!(operation.state, State::Unknown, "{operation:?}");
    said(operation, words)
}

#[track_caller]
fn said<'a>(operation: &'a Operation, words: &[&str]) -> &'a str {
    let detail = operation.detail.as_deref().unwrap();
    for part in words {
        assert!(detail.contains(part), "{part:?} is not in {detail:?}");
    }
    operation.code.as_deref().unwrap()
}

/// Longer than any step of a test takes.
const LONG: Duration = Duration::from_secs(60);
