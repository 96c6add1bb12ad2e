//! The inventory at scale, end to end: the daemon as its own process, a simulated vCenter, a real TimescaleDB.
//!
//! Measured are the first sync, from the start of the daemon's process to the commit of every object, with the peak of
//! its resident memory as the kernel counts it; and a complete sync after one object in a hundred has changed while the
//! daemon was away, in rows that PostgreSQL says were written. QueryPerf answers nothing meanwhile: this is not about
//! samples.
//!
//! `make bench` runs it. VMS (10000), HOSTS (500) and DATASTORES (200) make it smaller. Fails where the first sync takes
//! more than 60 s or 250 MiB, or where 1 % of changes writes more than 1.5 % of the rows.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a program for a terminal that may fail loudly; numbers for people"
)]

use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::{Database, Role};
use support::{process, usage};
use tokio::time::Instant;
use tokio_postgres::Client;
use vsphere_simulator::{Action, Rule, Simulator, Spec};

const PLATFORM: &str = "inventory";

/// One object in so many is changed.
const ONE_IN: usize = 100;

const PATIENCE: Duration = Duration::from_secs(600);

/// Where objects are rows, and where their parts are.
const OBJECTS: [&str; 6] = [
    "virt_cluster",
    "virt_datacenter",
    "virt_datastore",
    "virt_host",
    "virt_resource_pool",
    "virt_vm",
];
const PARTS: [&str; 4] = [
    "virt_vm_disk",
    "virt_vm_nic",
    "virt_vm_placement",
    "virt_vm_snapshot",
];

fn main() {
    let number =
        |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let spec = Spec {
        vms: number("VMS", 10_000),
        hosts: number("HOSTS", 500),
        datastores: number("DATASTORES", 200),
        ..Spec::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(spec));
}

async fn run(spec: Spec) {
    let (hosts, datastores) = (spec.hosts, spec.datastores);
    let database = Database::create().await.unwrap();
    let simulator = Simulator::start(spec).await.unwrap();
    simulator
        .rules()
        .add(Rule::on("QueryPerf", Action::Delay { millis: 3_600_000 }));
    let world = simulator.world();
    let vms = world.vms();
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::on(&database, vec![Platform::simulated(PLATFORM, &simulator)]).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    collector.migrate().await.unwrap();
    let sql = database.connect(Role::Superuser).await.unwrap();

    let start = Instant::now();
    collector.start().await.unwrap();
    let stored = format!(
        "SELECT (SELECT count(*) FROM virt_vm) >= {} AND (SELECT count(*) FROM virt_host) = {hosts} \
         AND (SELECT count(*) FROM virt_datastore) = {datastores}, (SELECT count(*) FROM virt_vm)",
        vms.len()
    );
    process::until_sql("the first sync", &sql, &stored, PATIENCE)
        .await
        .unwrap();
    let first_sync = start.elapsed().as_secs_f64();
    let rss = peak_mib(&mut collector);
    collector.stop(Duration::from_secs(60)).await.unwrap();
    let objects = rows(&sql, &OBJECTS).await;
    let parts = rows(&sql, &PARTS).await;

    let changed: Vec<&String> = vms.iter().step_by(ONE_IN).collect();
    for (number, vm) in changed.iter().enumerate() {
        world.rename(vm, &format!("changed-{number}")).unwrap();
    }
    let hosts_changed: Vec<String> = world.hosts().into_iter().step_by(ONE_IN).collect();
    for (number, host) in hosts_changed.iter().enumerate() {
        world.rename(host, &format!("changed-{number}")).unwrap();
    }
    let n_changed = changed.len() + hosts_changed.len();
    // What a connection has written is counted when it ends at the latest.
    let before = written(&sql).await;
    collector.start().await.unwrap();
    let renamed = format!(
        "SELECT (SELECT count(*) FROM virt_vm WHERE name LIKE 'changed-%') = {}",
        changed.len()
    );
    process::until_sql("the second sync", &sql, &renamed, PATIENCE)
        .await
        .unwrap();
    collector.stop(Duration::from_secs(60)).await.unwrap();
    let rows_written = written(&sql).await - before;
    let percent = rows_written as f64 * 100.0 / objects as f64;

    println!(
        "inventory: {objects} objects and {parts} parts and placements are stored; {n_changed} objects were changed"
    );
    println!(
        "inventory: vms={} hosts={hosts} datastores={datastores} first_sync_seconds={first_sync:.1} rss_mib={rss:.0} \
         changed_percent={:.0} rows_written={rows_written} rows_written_percent={percent:.2}",
        vms.len(),
        100.0 / ONE_IN as f64,
    );
    assert!(first_sync <= 60.0, "the first sync took more than 60 s");
    assert!(rss <= 250.0, "the first sync took more than 250 MiB");
    assert!(percent <= 1.5, "1 % of changes wrote {percent:.2} % of the rows");
}

/// The largest resident set so far.
fn peak_mib(collector: &mut Collector) -> f64 {
    usage::most_resident_kib(collector.pid().unwrap()).unwrap() as f64 / 1024.0
}

async fn rows(sql: &Client, tables: &[&str]) -> i64 {
    let mut all = 0;
    for table in tables {
        let count = format!("SELECT count(*) FROM {table}");
        all += sql.query_one(&count, &[]).await.unwrap().get::<_, i64>(0);
    }
    all
}

/// Rows of the inventory's tables that were ever inserted or updated.
async fn written(sql: &Client) -> i64 {
    const WRITTEN: &str =
        "SELECT sum(n_tup_ins + n_tup_upd)::int8 FROM pg_stat_user_tables WHERE relname = ANY($1)";
    let tables: Vec<&str> = OBJECTS.into_iter().chain(PARTS).collect();
    sql.query_one(WRITTEN, &[&tables]).await.unwrap().get(0)
}
