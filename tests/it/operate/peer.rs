//! Actions against vcsim, the peer that we did not write.

use super::*;
use support::collector::Trust;
use virt_collector::model::operation::Action as A;

use crate::vcsim::{self, Vcsim};

/// A collector of a vcsim, and one VM of it that runs.
struct Peer {
    store: Database,
    sql: Client,
    vm: VmId,
    collector: Collector,
    _vcsim: Vcsim,
    _database: TestDatabase,
    _directory: tempfile::TempDir,
}

impl Peer {
    async fn new(kind: &'static str, arguments: &[&str]) -> Self {
        let vcsim = Vcsim::start(arguments);
        let database = TestDatabase::create()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let directory = tempfile::tempdir().unwrap();
        let platform = Platform {
            name: "vcsim".to_owned(),
            kind,
            address: vcsim.address(),
            user: vcsim::USER.to_owned(),
            password: vcsim::PASSWORD.to_owned(),
            trust: Trust::Off,
        };
        let mut collector = collector(directory.path(), &database, platform);
        collector.migrate().await.unwrap();
        collector.start().await.unwrap();
        let sql = database.connect(Role::Superuser).await.unwrap();
        let vm = until("a VM that runs is known", async || {
            let select = "SELECT vm_id FROM virt_vm WHERE power_state = 'on' ORDER BY vm_id LIMIT 1";
            let row = sql.query_opt(select, &[]).await.unwrap();
            row.map(|row| VmId(row.get(0))).ok_or("none".to_owned())
        })
        .await;
        Self {
            store: Database::new(settings(&database)).unwrap(),
            sql,
            vm,
            collector,
            _vcsim: vcsim,
            _database: database,
            _directory: directory,
        }
    }

    async fn done(&self, action: A) -> Operation {
        let asked = ask(&self.store, self.vm, &action).await;
        ended(&self.store, asked.id).await
    }

    /// What the server tells the inventory: power state, snapshots in order, and the one the VM stands on.
    async fn shows(&self, power: &str, snapshots: &[&str], current: Option<&str>) {
        let expected = (
            power.to_owned(),
            snapshots.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(),
            current.map(str::to_owned),
        );
        until(&format!("the server shows {expected:?}"), async || {
            let select = "SELECT power_state, ARRAY(SELECT moref FROM virt_vm_snapshot AS s \
                              WHERE s.vm_id = vm.vm_id AND s.removed_at IS NULL ORDER BY created_at, moref), \
                              (SELECT moref FROM virt_vm_snapshot AS s \
                               WHERE s.vm_id = vm.vm_id AND s.removed_at IS NULL AND is_current) \
                          FROM virt_vm AS vm WHERE vm_id = $1";
            let row = self.sql.query_one(select, &[&self.vm.0]).await.unwrap();
            let seen: (String, Vec<String>, Option<String>) = (row.get(0), row.get(1), row.get(2));
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    }
}

async fn every_action(kind: &'static str, arguments: &[&str]) {
    let mut peer = Peer::new(kind, arguments).await;
    for (action, power) in [
        (A::PowerOff, "off"),
        (A::PowerOn, "on"),
        (A::Reset, "on"),
        (A::Suspend, "suspended"),
        (A::PowerOn, "on"),
        (A::ShutdownGuest, "off"),
        (A::PowerOn, "on"),
    ] {
        let ended = peer.done(action.clone()).await;
        assert_eq!(*succeeded(&ended), Outcome::default(), "{action:?}");
        peer.shows(power, &[], None).await;
    }
    assert!(succeeded(&peer.done(A::PowerOn).await).already);
    assert_eq!(
        failed(&peer.done(A::RebootGuest).await, &["VMware Tools"]),
        "tools_missing"
    );

    let create = async |name| {
        let ended = peer.done(new_snapshot(name)).await;
        succeeded(&ended).snapshot.clone().unwrap()
    };
    let (first, second) = (create("first").await, create("second").await);
    let (first, second) = (first.as_str(), second.as_str());
    peer.shows("on", &[first, second], Some(second)).await;
    let revert = A::RevertSnapshot {
        snapshot: first.into(),
    };
    succeeded(&peer.done(revert).await);
    peer.shows("on", &[first, second], Some(first)).await;
    let remove = A::RemoveSnapshot {
        snapshot: second.into(),
        children: false,
    };
    succeeded(&peer.done(remove.clone()).await);
    peer.shows("on", &[first], Some(first)).await;
    assert_eq!(failed(&peer.done(remove).await, &[second]), "snapshot_gone");
    succeeded(&peer.done(A::RemoveAllSnapshots).await);
    peer.shows("on", &[], None).await;
    peer.collector.end(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_action_on_a_vm_of_a_vcenter_of_vcsim() {
    every_action("vcenter", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_action_on_a_vm_of_an_esxi_host_of_vcsim() {
    every_action("esxi", &["-esx"]).await;
}
