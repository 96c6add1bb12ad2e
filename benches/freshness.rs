//! Freshness, end to end: how old samples are when they are committed.
//!
//! The daemon with its default poll interval of 60 s collects three simulated vCenters into a real TimescaleDB: one
//! healthy, one whose QueryPerf never answers in time, and one larger one that is back-filled meanwhile. The age of a
//! row is its commit time, as PostgreSQL recorded it, minus `collected_at`; nothing of the daemon is trusted.
//!
//! `make bench` runs it; BENCH_SECONDS sets how long (default 300). Fails where less than 95 % of the healthy
//! platform's samples are committed within 90 s.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal that may fail loudly"
)]

use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::{Database, Role};
use vsphere_simulator::{Action, Rule, Simulator, Spec};

const LIMIT_SECONDS: f64 = 90.0;
const WANTED_SHARE: f64 = 0.95;

/// The first poll's look-back reaches before the start; what it brings is not fresh by anyone's fault.
const LIVE_AFTER_START: Duration = Duration::from_secs(20);

/// Ages of the rows of one platform behind a stamp, by the server's own record of their commits.
const AGES: &str = "
    WITH age AS (
        SELECT extract(epoch FROM pg_xact_commit_timestamp(m.xmin) - m.collected_at)::float8 AS seconds
        FROM virt_vm_metrics m JOIN virt_vm v USING (vm_id) JOIN virt_platform p USING (platform_id)
        WHERE p.name = $1 AND m.collected_at > to_timestamp($2::float8)
    )
    SELECT count(*), coalesce(avg((seconds <= $3)::int)::float8, 0),
           coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds), 0),
           coalesce(percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds), 0), coalesce(max(seconds), 0)
    FROM age";

fn main() {
    let seconds = std::env::var("BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let share = runtime.block_on(run(Duration::from_secs(seconds)));
    assert!(
        share >= WANTED_SHARE,
        "{:.1} % within {LIMIT_SECONDS} s; wanted 95 %",
        share * 100.0
    );
}

async fn run(time: Duration) -> f64 {
    let database = Database::create().await.unwrap();
    let healthy = platform(
        "healthy",
        Spec {
            vms: 200,
            hosts: 20,
            seed: 1,
            ..Spec::default()
        },
    )
    .await;
    let hanging = platform(
        "hanging",
        Spec {
            vms: 50,
            hosts: 5,
            seed: 2,
            ..Spec::default()
        },
    )
    .await;
    let filled = platform(
        "back-filled",
        Spec {
            vms: 500,
            hosts: 20,
            seed: 3,
            ..Spec::default()
        },
    )
    .await;
    hanging
        .0
        .rules()
        .add(Rule::on("QueryPerf", Action::Delay { millis: 3_600_000 }));

    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::on(&database, vec![healthy.1, hanging.1, filled.1]).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    collector.migrate().await.unwrap();
    let started = jiff::Timestamp::now().as_microsecond();
    collector.start().await.unwrap();
    println!(
        "freshness: collecting for {} s with the default poll interval of 60 s",
        time.as_secs()
    );
    tokio::time::sleep(time).await;
    collector.must_run().unwrap();

    let client = database.connect(Role::Superuser).await.unwrap();
    let since = started as f64 / 1e6 + LIVE_AFTER_START.as_secs_f64();
    let mut healthy_share = 0.0;
    for (name, what) in [
        ("healthy", "beside the two others"),
        ("back-filled", "while its first hour is filled"),
    ] {
        let row = client
            .query_one(AGES, &[&name, &since, &LIMIT_SECONDS])
            .await
            .unwrap();
        let n_rows: i64 = row.get(0);
        let [share, median, p95, max]: [f64; 4] = [1, 2, 3, 4].map(|column| row.get(column));
        println!(
            "freshness: platform={name} rows={n_rows} within_{LIMIT_SECONDS:.0}s={:.2}% median={median:.1}s p95={p95:.1}s \
             max={max:.1}s ({what})",
            share * 100.0
        );
        if name == "healthy" {
            healthy_share = share;
            assert!(
                n_rows > 0,
                "no sample of the healthy platform; see {}",
                collector.log().display()
            );
        }
    }
    let hung: i64 = client
        .query_one(
            "SELECT count(*) FROM virt_vm_metrics JOIN virt_vm USING (vm_id) JOIN virt_platform p USING (platform_id) \
             WHERE p.name = 'hanging'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(hung, 0, "the hanging platform was meant to hang");
    collector.stop(Duration::from_secs(45)).await.unwrap();
    healthy_share
}

async fn platform(name: &str, spec: Spec) -> (Simulator, Platform) {
    let simulator = Simulator::start(spec).await.unwrap();
    let platform = Platform::simulated(name, &simulator);
    (simulator, platform)
}
