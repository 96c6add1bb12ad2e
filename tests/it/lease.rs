//! Several collectors on one database: they share the platforms, hand them over, and take them from one that was
//! killed or stands still, of which nothing is committed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::{Database, Role};
use support::oracle;
use support::process::Signal;
use tokio::time::Instant;
use tokio_postgres::Client;
use virt_collector::store::LEASE_TTL;
use vsphere_simulator::{Simulator, Spec};

use crate::rig::{PLATFORM, Rig, assert_clean, small};
use crate::wait::until;

mod fence;

/// From the moment a collector is gone to the moment another one owns its platforms.
const TAKE_OVER: Duration = LEASE_TTL.saturating_add(Duration::from_secs(10));

/// A stop in order, and whatever is done without waiting for a lease to run out.
const PROMPT: Duration = Duration::from_secs(20);

fn collector(directory: &Path, database: &Database, platforms: Vec<Platform>) -> Collector {
    let settings = Settings {
        interval: Duration::from_secs(20),
        discovery_interval: Duration::from_secs(3600),
        ..Settings::on(database, platforms).unwrap()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    Collector::prepare(program, directory, &settings).unwrap()
}

/// Two collectors with the same platforms, on one database.
struct Pair {
    a: Collector,
    b: Collector,
    platforms: BTreeMap<&'static str, Simulator>,
    sql: Client,
    database: Database,
    _directory: tempfile::TempDir,
}

impl Pair {
    async fn new(names: &[&'static str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
        let mut platforms = BTreeMap::new();
        for (seed, name) in (1..).zip(names) {
            let spec = Spec {
                seed,
                vms: 3,
                hosts: 1,
                powered_off: Some(0),
                templates: 0,
                ..Spec::default()
            };
            platforms.insert(*name, Simulator::start(spec).await.unwrap());
        }
        let configured = || -> Vec<Platform> {
            let of = |(name, simulator): (&&str, _)| Platform::simulated(name, simulator);
            platforms.iter().map(of).collect()
        };
        let a = collector(&directory.path().join("a"), &database, configured());
        let b = collector(&directory.path().join("b"), &database, configured());
        a.migrate().await.unwrap();
        let sql = database.connect(Role::Superuser).await.unwrap();
        Self {
            a,
            b,
            platforms,
            sql,
            database,
            _directory: directory,
        }
    }

    async fn collectors(&self) -> usize {
        let live = "SELECT owner FROM virt_collector WHERE until > clock_timestamp()";
        self.sql.query(live, &[]).await.unwrap().len()
    }

    /// Each collector's platforms, with their epochs.
    async fn holders(&self) -> BTreeMap<String, BTreeMap<String, i64>> {
        let held = "SELECT owner, name, epoch FROM virt_platform_lease JOIN virt_platform USING (platform_id) \
                    WHERE until > clock_timestamp()";
        let mut holders: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
        for row in self.sql.query(held, &[]).await.unwrap() {
            holders
                .entry(row.get(0))
                .or_default()
                .insert(row.get(1), row.get(2));
        }
        holders
    }

    /// Waits until the platforms are dealt out like this, and says to whom.
    async fn held(&self, counts: &[usize]) -> BTreeMap<String, BTreeMap<String, i64>> {
        until(&format!("the platforms are held {counts:?}"), async || {
            let holders = self.holders().await;
            let mut held: Vec<usize> = holders.values().map(BTreeMap::len).collect();
            held.sort_unstable();
            if held == counts {
                Ok(holders)
            } else {
                Err(format!("{holders:?}"))
            }
        })
        .await
    }

    /// Waits until every VM has a sample of the last minute or so.
    async fn collected(&self) {
        let fresh = "SELECT count(*), count(*) FILTER (WHERE EXISTS ( \
                         SELECT FROM virt_vm_metrics AS m \
                         WHERE m.vm_id = virt_vm.vm_id AND m.collected_at > clock_timestamp() - INTERVAL '75 s')) \
                     FROM virt_vm";
        let n_vms = 3 * i64::try_from(self.platforms.len()).unwrap();
        until("every VM is collected", async || {
            let row = self.sql.query_one(fresh, &[]).await.unwrap();
            let (known, collected): (i64, i64) = (row.get(0), row.get(1));
            if (known, collected) == (n_vms, n_vms) {
                Ok(())
            } else {
                Err(format!("{collected} of {known}"))
            }
        })
        .await;
    }

    /// Nothing twice, nothing wrong, no hole in a chain. What is owed is for tests whose clock stands still.
    async fn assert_consistent(&self) {
        let client = self.database.connect(Role::Reader).await.unwrap();
        for (name, simulator) in &self.platforms {
            let verdict = oracle::check(&client, name, &simulator.truth(), &[], Duration::ZERO)
                .await
                .unwrap();
            let counts = (verdict.duplicate, verdict.wrong, verdict.unexplained);
            assert_eq!(counts, (0, 0, 0), "{name}: {verdict}\n{:#?}", verdict.details);
            assert!(verdict.stored > 0, "{name}: {verdict}");
        }
    }
}

fn epochs(holders: &BTreeMap<String, BTreeMap<String, i64>>) -> Vec<(&str, i64)> {
    let mut epochs: Vec<(&str, i64)> = holders
        .values()
        .flatten()
        .map(|(platform, epoch)| (platform.as_str(), *epoch))
        .collect();
    epochs.sort_unstable();
    epochs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_collectors_share_four_platforms_and_one_that_stops_hands_its_own_over() {
    let mut pair = Pair::new(&["p1", "p2", "p3", "p4"]).await;
    pair.a.start().await.unwrap();
    let alone = pair.held(&[4]).await;
    let first = alone.keys().next().unwrap().clone();

    // The last names move, each of them once, and nothing else does.
    pair.b.start().await.unwrap();
    let shared = pair.held(&[2, 2]).await;
    pair.collected().await;
    let still = pair.held(&[2, 2]).await;
    assert_eq!(shared, still);
    assert_eq!(epochs(&still), [("p1", 1), ("p2", 1), ("p3", 2), ("p4", 2)]);
    let kept: BTreeSet<&str> = still[&first].keys().map(String::as_str).collect();
    assert_eq!(kept, BTreeSet::from(["p1", "p2"]));
    assert_eq!(pair.collectors().await, 2);

    let start = Instant::now();
    let status = pair.b.stop(PROMPT).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    let back = pair.held(&[4]).await;
    let took = start.elapsed();
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(back.keys().next(), Some(&first));
    assert_eq!(epochs(&back), [("p1", 1), ("p2", 1), ("p3", 3), ("p4", 3)]);
    assert_eq!(pair.collectors().await, 1);
    pair.collected().await;

    pair.a.stop(PROMPT).await.unwrap();
    assert_eq!(pair.collectors().await, 0);
    pair.assert_consistent().await;
    for (name, simulator) in &pair.platforms {
        assert_eq!(simulator.sessions().stats().open, 0, "sessions of {name}");
    }
}

/// One test for the two that must wait for a lease to run out, so that they wait at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_killed_or_stands_still_is_replaced_ten_seconds_after_its_lease_ran_out() {
    tokio::join!(Box::pin(killed()), Box::pin(stopped_inside_copy()));
}

async fn killed() {
    let mut pair = Pair::new(&["p1", "p2"]).await;
    pair.a.start().await.unwrap();
    let alone = pair.held(&[2]).await;
    pair.b.start().await.unwrap();
    pair.held(&[1, 1]).await;

    let start = Instant::now();
    pair.a.kill().await.unwrap();
    let after = pair.held(&[2]).await;
    let took = start.elapsed();
    assert!(took < TAKE_OVER, "{took:?}");
    assert_ne!(after.keys().next(), alone.keys().next());
    pair.collected().await;
    pair.b.stop(PROMPT).await.unwrap();
    pair.assert_consistent().await;
}

/// The holder stands still in the middle of COPY, which no time-out of the server ends.
async fn stopped_inside_copy() {
    let mut rig = Rig::new(small()).await;
    let platform = || vec![Platform::simulated(PLATFORM, &rig.simulator)];
    let mut a = collector(&rig.directory.path().join("a"), &rig.database, platform());
    let mut b = collector(&rig.directory.path().join("b"), &rig.database, platform());
    let sql = rig.database.connect(Role::Superuser).await.unwrap();

    // Its first COPY waits for this lock: with the fence behind it, and the lease's row locked.
    let locking = rig.database.connect(Role::Owner).await.unwrap();
    locking
        .batch_execute("BEGIN; LOCK TABLE virt_host_metrics, virt_vm_metrics IN SHARE MODE")
        .await
        .unwrap();
    a.start().await.unwrap();
    let first = copying(&sql, "wait_event_type = 'Lock'").await;
    let start = Instant::now();
    a.signal(Signal::Stop).unwrap();
    locking.batch_execute("ROLLBACK").await.unwrap();
    // The server waits for rows now, and would for ever.
    let transaction = copying(&sql, "wait_event = 'ClientRead'").await;
    assert_eq!(transaction, first);
    let holder = holder(&sql).await;

    b.start().await.unwrap();
    let new_holder = until("another collector owns the platform", async || {
        let now = self::holder(&sql).await;
        if now.0 == holder.0 {
            Err(format!("{now:?}"))
        } else {
            Ok(now)
        }
    })
    .await;
    let took = start.elapsed();
    assert!(took < TAKE_OVER, "{took:?}");
    assert_eq!(new_holder.1, holder.1 + 1);
    // The hour that the source keeps.
    let n_entities = rig.n_entities();
    rows_reach(&sql, n_entities * 177).await;
    let stored = rig.verdict().await.stored;

    a.signal(Signal::Cont).unwrap();
    until("the old owner knows that it is none", async || {
        let held = format!("virt_collector_lease_held{{platform=\"{PLATFORM}\"}} 0");
        let metrics = metrics(&a).await?;
        if metrics.lines().any(|line| line == held) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    let fate: String = sql
        .query_one("SELECT pg_xact_status($1::bigint::text::xid8)", &[&transaction])
        .await
        .unwrap()
        .get(0);
    assert_eq!(fate, "aborted");
    let written = metrics(&a).await.unwrap();
    let written: Vec<&str> = written
        .lines()
        .filter(|line| line.starts_with("virt_collector_rows_written_total{"))
        .collect();
    assert!(
        written.len() == 2 && written.iter().all(|line| line.ends_with(" 0")),
        "{written:?}"
    );
    let verdict = rig.verdict().await;
    assert_clean(&verdict);
    assert_eq!(verdict.stored, stored);

    // It is a candidate again: when the other one stops, it goes on.
    b.stop(PROMPT).await.unwrap();
    rig.pass(Duration::from_secs(180));
    rig.healthy_from_now();
    rows_reach(&sql, stored + n_entities * 9).await;
    assert_eq!(self::holder(&sql).await.0, holder.0);
    assert_clean(&rig.verdict().await);
    a.stop(PROMPT).await.unwrap();
}

/// The transaction of the one backend that copies, once it is in this state.
async fn copying(sql: &Client, state: &str) -> i64 {
    let copying = format!(
        "SELECT backend_xid::text::bigint, state, wait_event_type, wait_event, ({state}) IS TRUE \
         FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name LIKE 'virt-collector/%/copy-%' AND query LIKE 'COPY %'"
    );
    until(&format!("a COPY is in this state: {state}"), async || {
        let rows = sql.query(&copying, &[]).await.unwrap();
        match rows.as_slice() {
            [row] if row.get(4) => Ok(row.get(0)),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn holder(sql: &Client) -> (String, i64) {
    let row = sql
        .query_one("SELECT owner, epoch FROM virt_platform_lease", &[])
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

async fn rows_reach(sql: &Client, n_rows: u64) {
    let count = "SELECT (SELECT count(*) FROM virt_host_metrics) + (SELECT count(*) FROM virt_vm_metrics), \
                 (SELECT count(*) FROM virt_collection_gap WHERE state = 'open')";
    until(
        &format!("{n_rows} rows are stored, and no gap is open"),
        async || {
            let row = sql.query_one(count, &[]).await.unwrap();
            let (rows, open): (i64, i64) = (row.get(0), row.get(1));
            if rows.cast_unsigned() >= n_rows && open == 0 {
                Ok(())
            } else {
                Err(format!("{rows} rows, {open} open"))
            }
        },
    )
    .await;
}

/// `/metrics` in time: a process that stands still does not answer.
async fn metrics(collector: &Collector) -> Result<String, String> {
    let answer = tokio::time::timeout(Duration::from_secs(5), collector.metrics()).await;
    let answer = answer.map_err(|late| late.to_string())?;
    answer.map_err(|error| error.to_string())
}
