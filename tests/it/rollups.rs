//! Roll-ups, end to end: the daemon collects the simulated platform, and the oracle computes every bucket from what the
//! platform published.

use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::{Database, Role};
use support::oracle;
use support::oracle::rollups::Rollups;
use tokio_postgres::Client;
use vsphere_simulator::{ClockMode, Simulator, Spec};

use crate::gate::Gate;
use crate::rig::{Daemon, PLATFORM, Rig, assert_clean, small};
use crate::wait::until;

const MINUTE: Duration = Duration::from_secs(60);

/// Makes what is noted, until a comparison finds nothing left out: the back-fill lane may store something in between.
async fn made(rig: &Rig, daemon: &Daemon) -> Rollups {
    until("everything is rolled up", async || {
        daemon.make_rollups().await;
        let rollups = rig.rollups().await;
        if rollups.pending == 0 {
            Ok(rollups)
        } else {
            Err(rollups.to_string())
        }
    })
    .await
}

#[track_caller]
fn assert_equal(rollups: &Rollups) {
    assert!(rollups.is_clean() && rollups.pending == 0, "{rollups}");
    assert!(rollups.expected > 0, "{rollups}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bucket_is_what_the_source_published_after_running_late_samples_and_an_outage() {
    let mut rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let n_entities = rig.n_entities();
    let first = made(&rig, &daemon).await;
    assert_equal(&first);
    assert!(
        first.whole >= n_entities * 10,
        "the hour before the first start, of which two buckets are cut: {first}"
    );

    // Normal running. Buckets are made while they fill, and made again; one VM's samples come late.
    let late = rig.simulator.world().running_vms().remove(1);
    for minute in 0..12 {
        if minute % 4 == 1 {
            let now = rig.simulator.clock().now() / 1_000_000;
            let extra = Duration::from_secs(50);
            let world = rig.simulator.world();
            world
                .delay_samples(Some(&late), now + 20, now + 40, extra)
                .unwrap();
        }
        rig.pass(MINUTE);
        daemon.poll().await;
        if minute % 3 == 0 {
            assert_equal(&made(&rig, &daemon).await);
        }
    }
    rig.pass(2 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    let running = made(&rig, &daemon).await;
    assert_clean(&rig.verdict().await);
    assert_equal(&running);
    assert!(running.whole >= first.whole + n_entities * 2, "{running}");
    assert_eq!(running.coarse_seconds, 0, "{running}");

    // 50 minutes of outage. What is live again is rolled up before the hole is filled, and with it again.
    daemon.stop().await;
    rig.pass(50 * MINUTE);
    rig.healthy_from_now();
    let daemon = rig.start().await;
    assert_equal(&made(&rig, &daemon).await);
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    let filled = made(&rig, &daemon).await;
    assert_clean(&rig.verdict().await);
    assert_equal(&filled);
    assert!(filled.whole >= running.whole + n_entities * 10, "{filled}");

    // Nothing is left, and nothing is made of nothing.
    let again = daemon.make_rollups().await;
    assert!(again.made.is_nothing(), "{again:?}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_three_hours_of_outage_buckets_hold_300_second_samples_and_say_so() {
    // In the middle of a bucket of 5 minutes, so that the outage has ragged edges.
    let now = jiff::Timestamp::now().as_second();
    let at = (now - now.rem_euclid(300) + 127) * 1_000_000;
    let mut rig = Rig::new(Spec {
        clock: ClockMode::Frozen { at },
        ..small()
    })
    .await;
    rig.start().await.stop().await;
    rig.pass(180 * MINUTE);
    rig.healthy_from_now();
    let daemon = rig.start().await;
    // Before and after the statistics have come.
    assert_equal(&made(&rig, &daemon).await);
    rig.pass(3 * MINUTE);
    daemon.poll().await;
    daemon.back_fill().await;
    daemon.roll_up().await;
    let rollups = made(&rig, &daemon).await;
    assert_clean(&rig.verdict().await);
    assert_equal(&rollups);
    assert_eq!(rollups.coarse_seconds, rig.n_entities() * 23 * 300, "{rollups}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bucket_is_right_when_the_source_corrects_its_clock() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    for correction in [450, -400, 90, -30] {
        rig.simulator.clock().step(correction * 1_000_000);
        for _ in 0..4 {
            rig.pass(2 * MINUTE);
            daemon.poll().await;
        }
        daemon.back_fill().await;
        assert_equal(&made(&rig, &daemon).await);
    }
    let verdict = rig.verdict().await;
    assert_eq!((verdict.duplicate, verdict.wrong), (0, 0), "{verdict}");
    daemon.stop().await;
}

// ---------------------------------------------------------------------------------------------------------------
// The daemon as a process, killed
// ---------------------------------------------------------------------------------------------------------------

struct Killed {
    collector: Collector,
    simulator: Simulator,
    sql: Client,
    database: Database,
    _directory: tempfile::TempDir,
}

impl Killed {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
        let simulator = Simulator::start(small()).await.unwrap();
        let settings = Settings {
            interval: Duration::from_secs(20),
            discovery_interval: Duration::from_secs(3600),
            ..Settings::on(&database, vec![Platform::simulated(PLATFORM, &simulator)]).unwrap()
        };
        let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
        let collector = Collector::prepare(program, directory.path(), &settings).unwrap();
        collector.migrate().await.unwrap();
        Self {
            collector,
            simulator,
            sql: database.connect(Role::Superuser).await.unwrap(),
            database,
            _directory: directory,
        }
    }

    async fn number(&self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn rollups(&self) -> Rollups {
        oracle::rollups::check(&self.sql, PLATFORM, &self.simulator.truth())
            .await
            .unwrap()
    }

    /// The hour before the first start is stored, and all gaps of it are closed.
    async fn filled(&self) {
        let n_vms = self.simulator.world().running_vms().len();
        until("the hour before the start is stored", async || {
            let rows = self.number("SELECT count(*) FROM virt_vm_metrics").await;
            let open = self
                .number("SELECT count(*) FROM virt_collection_gap WHERE state = 'open'")
                .await;
            if rows >= i64::try_from(n_vms).unwrap() * 170 && open == 0 {
                Ok(())
            } else {
                Err(format!("{rows} rows, {open} open gaps"))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_killed_while_it_refreshes_leaves_the_work_to_its_next_life() {
    const NOTES: &str = "SELECT count(*) FROM virt_rollup_pending";
    const MADE: &str =
        "SELECT (SELECT count(*) FROM virt_vm_metrics_5m) + (SELECT count(*) FROM virt_host_metrics_5m)";
    let mut stage = Killed::new().await;
    stage.collector.start().await.unwrap();
    stage.filled().await;
    stage.collector.kill().await.unwrap();
    let notes = stage.number(NOTES).await;
    assert!(notes > 20, "{notes}");
    assert_eq!(stage.number(MADE).await, 0, "nothing is due yet");

    // The next life finds everything due, and dies in the middle of it.
    let gate = Gate::shut(&stage.database, "virt_vm_metrics_5m").await;
    let due = "UPDATE virt_rollup_pending SET due_at = clock_timestamp(); \
               UPDATE virt_platform_lease SET until = clock_timestamp(); \
               UPDATE virt_collector SET until = clock_timestamp()";
    stage.sql.batch_execute(due).await.unwrap();
    stage.collector.start().await.unwrap();
    gate.reached().await;
    stage.collector.kill().await.unwrap();
    gate.open().await;
    gate.passed().await;
    assert_eq!(stage.number(MADE).await, 0, "what was not committed is not there");
    assert!(stage.number(NOTES).await >= notes, "and no note is lost");

    // Time passes quickly, so that what is made of the buckets becomes due as well.
    stage.sql.batch_execute(due).await.unwrap();
    stage.collector.start().await.unwrap();
    until("all roll-ups are made", async || {
        let soon =
            "UPDATE virt_rollup_pending SET due_at = clock_timestamp() WHERE due_at > clock_timestamp()";
        stage.sql.batch_execute(soon).await.unwrap();
        match stage.number(NOTES).await {
            0 => Ok(()),
            n => Err(format!("{n} notes")),
        }
    })
    .await;
    let rollups = stage.rollups().await;
    assert_equal(&rollups);
    stage.collector.kill().await.unwrap();
}
