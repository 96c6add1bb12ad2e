//! The store against a real TimescaleDB.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail loudly and have no supervisor"
)]

mod chain;
mod connections;
mod cookbook;
mod copy;
mod credential;
mod inventory;
mod lease;
mod reader;
mod reading;
mod retention;
mod rollup;
mod schema;
mod views;
mod wipe;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use support::database::{Database as TestDatabase, Role};
use tokio::time::Instant;
use tokio_postgres::Client;
use virt_collector::config::{Account, Database as DatabaseConfig, DatabaseTls, PlatformKind};
use virt_collector::error::{Chain, Disposition};
use virt_collector::model::columns::{Column, Instances, SqlType};
use virt_collector::model::gap::{GapId, GapLane, NewGap, Reason, Step};
use virt_collector::model::ids::{EntityId, EntityKind, HostId, MoRef, PlatformId, VmId};
use virt_collector::model::inventory::{Host, Inventory, PowerState, Vm};
use virt_collector::model::sample::{Cell, RowHead, Window};
use virt_collector::model::status::{ErrorClass, PlatformState, PlatformStatus};
use virt_collector::store::copy::encode;
use virt_collector::store::registry::Address;
use virt_collector::store::{
    Class, Database, Edition, Error, Flush, LEASE_TTL, Lease, Owner, Pinned, SchemaState, Settings, Writer,
    migrate,
};
use virt_collector::units::{Conversion, Stamp};

use crate::rig::{Rig, small};

/// 2026-01-31T10:00:00Z, in the middle of a chunk.
const NOON: i64 = 1_769_853_600;

fn stamp(seconds: i64) -> Stamp {
    Stamp::from_seconds(NOON + seconds)
}

fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

fn configured(
    url: &str,
    password_file: Option<&std::path::Path>,
    tls: DatabaseTls,
) -> (DatabaseConfig, Account) {
    let account = Account {
        url: url.to_owned(),
        password_file: password_file.map(Into::into),
    };
    (
        DatabaseConfig {
            writer: account.clone(),
            owner: None,
            tls,
        },
        account,
    )
}

fn settings_for(url: &str, name: &str) -> Result<Settings, Error> {
    let (database, account) = configured(url, None, DatabaseTls::Auto { ca_file: None });
    Settings::new(&database, &account, &owner(name))
}

fn said(error: &Error) -> String {
    Chain(error).to_string()
}

/// A migrated database, gone at the end of the test.
struct Fixture {
    database: TestDatabase,
    /// A superuser's session, to look and to break things.
    sql: Client,
}

impl Fixture {
    async fn bare() -> Self {
        // What is wrong with the variable or the server stands in the error.
        let database = TestDatabase::create()
            .await
            .unwrap_or_else(|error| panic!("{}", Chain(&error)));
        let sql = database.connect(Role::Superuser).await.unwrap();
        Self { database, sql }
    }

    async fn new() -> Self {
        let fixture = Self::bare().await;
        migrate::apply(&fixture.settings(Role::Owner, "migration"))
            .await
            .unwrap();
        fixture
    }

    fn settings(&self, role: Role, name: &str) -> Settings {
        settings_for(&self.database.url(role), name).unwrap()
    }

    fn store(&self, name: &str) -> Database {
        Database::new(self.settings(Role::Writer, name)).unwrap()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }
}

/// A migrated database with a platform whose lease `a` holds, two hosts and three VMs, and a writer.
struct Platform {
    fixture: Fixture,
    store: Database,
    writer: Writer,
    lease: Lease,
    hosts: Vec<HostId>,
    vms: Vec<VmId>,
}

impl Platform {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let store = fixture.store("a");
        let platform = store
            .provision_platform("lab", &Address::new(PlatformKind::VCenter, "vc", 443))
            .await
            .unwrap()
            .unwrap();
        let lease = store.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
        // Nobody renews it here.
        fixture
            .sql
            .batch_execute("UPDATE virt_platform_lease SET until = 'infinity'")
            .await
            .unwrap();
        let known = store
            .sync_inventory(&lease, &inventory(), stamp(-7200))
            .await
            .unwrap();
        let writer = store.writer().await.unwrap();
        Self {
            hosts: known.hosts.iter().map(|host| host.id).collect(),
            vms: known.vms.iter().map(|vm| vm.id).collect(),
            fixture,
            store,
            writer,
            lease,
        }
    }

    /// A second platform of the same owner.
    async fn other(&self) -> Lease {
        let platform = self
            .store
            .provision_platform("other", &Address::new(PlatformKind::VCenter, "vc2", 443))
            .await
            .unwrap()
            .unwrap();
        let taken = self.store.acquire_lease(platform, &owner("a")).await;
        taken.unwrap().unwrap()
    }

    async fn rows(&self) -> (i64, i64, i64) {
        let row = self
            .fixture
            .sql
            .query_one(
                "SELECT (SELECT count(*) FROM virt_host_metrics), (SELECT count(*) FROM virt_vm_metrics), \
                 (SELECT count(*) FROM virt_collection_gap)",
                &[],
            )
            .await
            .unwrap();
        (row.get(0), row.get(1), row.get(2))
    }

    /// The problems that the chain's own check sees.
    async fn breaks(&self) -> Vec<String> {
        let rows = self
            .fixture
            .sql
            .query("SELECT problem FROM virt_chain_break() ORDER BY 1", &[])
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn host(moref: &str) -> Host {
    Host {
        moref: MoRef::new(moref),
        name: Some(format!("name of {moref}")),
        uuid: Some(format!("uuid of {moref}")),
        power: PowerState::On,
        connected: true,
        maintenance: false,
        threads: Some(32),
        details: std::sync::Arc::default(),
    }
}

fn vm(moref: &str, host: &str) -> Vm {
    Vm {
        moref: MoRef::new(moref),
        name: Some(format!("name of {moref}")),
        instance_uuid: Some(format!("instance of {moref}")),
        bios_uuid: Some(format!("bios of {moref}")),
        power: PowerState::On,
        connected: true,
        host: Some(MoRef::new(host)),
        vcpus: Some(4),
        memory_mib: Some(8192),
        template: false,
        details: std::sync::Arc::default(),
    }
}

fn inventory() -> Inventory {
    Inventory {
        hosts: vec![host("host-1"), host("host-2")],
        vms: vec![vm("vm-1", "host-1"), vm("vm-2", "host-1"), vm("vm-3", "host-2")],
        ..Inventory::default()
    }
}

fn window_of(entity: impl Into<EntityId>, stamps: impl IntoIterator<Item = i64>, value: f64) -> Window {
    let entity = entity.into();
    let mut window = Window::with_capacity(entity, 8);
    let cells = vec![Cell::new(value); Column::of(entity.kind).len()];
    for seconds in stamps {
        let host = (entity.kind == EntityKind::Vm).then_some(HostId(1));
        let head = RowHead {
            stamp: stamp(seconds),
            interval_seconds: 20,
            host,
            cpus: 4,
            complete: true,
        };
        assert!(window.push(head, &cells));
    }
    window
}

fn rolled_up(entity: impl Into<EntityId>, seconds: i64) -> Window {
    let entity = entity.into();
    let mut window = Window::with_capacity(entity, 1);
    let head = RowHead {
        stamp: stamp(seconds),
        interval_seconds: 300,
        host: None,
        cpus: 0,
        complete: true,
    };
    assert!(window.push(head, &vec![Cell::new(1.0); Column::of(entity.kind).len()]));
    window
}

fn flush(windows: Vec<Window>) -> Flush {
    Flush {
        windows,
        ..Flush::default()
    }
}

fn gap(entity: impl Into<EntityId>, from: i64, to: i64, reason: Option<Reason>) -> NewGap {
    let step = Step {
        from: stamp(from),
        to: Some(stamp(to)),
        to_interval: 20,
        initial: false,
    };
    NewGap {
        entity: entity.into(),
        step,
        reason,
        hint: None,
        lane: GapLane::Ring,
        ask_after: None,
    }
}
