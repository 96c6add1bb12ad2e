//! What roll-ups cost the database, beside 10,000 VMs and 1,000 hosts that are collected.
//!
//! Samples are made in the server and lie as a collector's do, minute by minute, in a chunk that holds some hours
//! already. Then the store makes the buckets of an hour, five minutes at a time as in normal running, and the hour, and
//! the day's bucket from the hours of a whole day. The cost is the CPU time of the backend, as the kernel counts it.
//! Per five minutes that is a bucket of each kind, a twelfth of an hour and a 288th of a day.
//!
//! `make bench` runs it. VMS (10000) and HOSTS (1000) make it smaller. Fails at twice the target of 1.5 s.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a terminal that may fail loudly"
)]

#[path = "shared/leased.rs"]
mod leased;

use leased::Leased;
use support::database::Database as TestDatabase;
use tokio::time::Instant;
use tokio_postgres::Client;
use virt_collector::store::rollup::{Due, Made};
use virt_collector::store::{Database, Lease};

const TARGET_SECONDS: f64 = 1.5;

/// 2026-01-31T00:00:00Z: the start of a chunk.
const START: i64 = 1_769_817_600;

/// Hours in the chunk before the one that is rolled up.
const HOURS_BEFORE: i64 = 2;

/// Columns that hold a number, of whatever size, as those of a busy fleet do.
const NUMBERS: &str = "SELECT string_agg(attname, ', '), string_agg(format('(random() * 1000)::%s', format_type(atttypid, NULL)), ', ')
    FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
      AND attname NOT IN ('collected_at', 'interval_seconds', 'host_id', 'vm_id', 'vcpu_count')";

fn main() {
    let number = |name: &str, default: i32| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (vms, hosts) = (number("VMS", 10_000), number("HOSTS", 1_000));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let seconds = runtime.block_on(run(vms, hosts));
    assert!(
        seconds < 2.0 * TARGET_SECONDS,
        "{seconds:.2} s of CPU per 5 minutes; the target is {TARGET_SECONDS} s"
    );
}

/// A platform with its entities, and their samples.
struct Fleet {
    sql: Client,
    store: Database,
    lease: Lease,
    _fresh: TestDatabase,
}

impl Fleet {
    async fn new(vms: i32, hosts: i32) -> Self {
        let Leased {
            store,
            lease,
            sql,
            fresh,
        } = Leased::new().await;
        let platform = lease.platform;
        sql.batch_execute(&format!(
            "INSERT INTO virt_host (platform_id, moref, power_state, is_connected, in_maintenance, first_seen_at)
             SELECT {platform}, 'host-' || n, 'on', true, false, now() FROM generate_series(1, {hosts}) AS n;
             INSERT INTO virt_vm (platform_id, moref, power_state, is_connected, is_template, first_seen_at)
             SELECT {platform}, 'vm-' || n, 'on', true, false, now() FROM generate_series(1, {vms}) AS n;
             ANALYZE virt_host; ANALYZE virt_vm"
        ))
        .await
        .unwrap();
        Self {
            sql,
            store,
            lease,
            _fresh: fresh,
        }
    }

    /// An hour of samples that begins at an hour of the day, a minute of all entities at a time.
    async fn collect(&self, hour: i64) {
        for (table, entity, key, more) in [
            ("virt_host_metrics", "virt_host", "host_id", ""),
            ("virt_vm_metrics", "virt_vm", "vm_id", ", 1, 2"),
        ] {
            let row = self.sql.query_one(NUMBERS, &[&table]).await.unwrap();
            let (columns, values): (String, String) = (row.get(0), row.get(1));
            let head = if more.is_empty() {
                ""
            } else {
                ", host_id, vcpu_count"
            };
            for minute in 0..60 {
                let from = START + hour * 3600 + minute * 60;
                let insert = format!(
                    "INSERT INTO {table} (collected_at, {key}, interval_seconds, {columns}{head})
                     SELECT to_timestamp({from} + 20 * sample), {key}, 20, {values}{more}
                     FROM {entity} CROSS JOIN generate_series(1, 3) AS sample ORDER BY {key}, sample"
                );
                self.sql.batch_execute(&insert).await.unwrap();
            }
        }
    }

    async fn note(&self, level: &str, end: i64) {
        self.sql
            .execute(
                "INSERT INTO virt_rollup_pending (bucket, due_at, platform_id, kind, level)
                 SELECT to_timestamp($3::float8), clock_timestamp(), $1, kind, $2
                 FROM unnest(ARRAY['host', 'vm']) AS kind",
                #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
                &[&self.lease.platform.0, &level, &(end as f64)],
            )
            .await
            .unwrap();
    }

    /// Makes what is due; CPU and wall seconds of it.
    async fn make(&self, expected: [u64; 3]) -> (f64, f64) {
        let before = self.cpu().await;
        let started = Instant::now();
        let mut made = Made::default();
        loop {
            let more = self.store.roll_up(&self.lease, Due::Now).await.unwrap();
            if more.is_nothing() {
                break;
            }
            made.add(&more);
        }
        let wall = started.elapsed().as_secs_f64();
        assert_eq!(made.buckets, expected);
        (self.cpu().await - before, wall)
    }

    /// CPU time of the one backend that the store uses.
    async fn cpu(&self) -> f64 {
        let pids = self
            .sql
            .query(
                "SELECT pid FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'virt-collector/bench/pool'",
                &[],
            )
            .await
            .unwrap();
        pids.iter().map(|row| cpu_seconds(row.get(0))).sum()
    }
}

/// CPU seconds of a process so far: the kernel counts nanoseconds.
fn cpu_seconds(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

async fn run(vms: i32, hosts: i32) -> f64 {
    let fleet = Fleet::new(vms, hosts).await;
    for hour in 0..=HOURS_BEFORE {
        fleet.collect(hour).await;
    }
    // What a running database has done within minutes.
    fleet
        .sql
        .batch_execute("ANALYZE virt_vm_metrics; ANALYZE virt_host_metrics; CHECKPOINT")
        .await
        .unwrap();
    let from = START + HOURS_BEFORE * 3600;
    let mut five = Vec::new();
    for bucket in 1..=12 {
        fleet.note("5m", from + bucket * 300).await;
        let (cpu, wall) = fleet.make([2, 0, 0]).await;
        five.push(cpu);
        if bucket == 12 {
            println!("rollup: the last bucket of 5 minutes took {wall:.2} s in all");
        }
    }
    // The notes that the twelve left.
    let due = "UPDATE virt_rollup_pending SET due_at = clock_timestamp() WHERE level = '1h'";
    fleet.sql.batch_execute(due).await.unwrap();
    let (hour, _) = fleet.make([0, 2, 0]).await;
    // The other hours of the day are as this one.
    for (table, key) in [
        ("virt_host_metrics_1h", "host_id"),
        ("virt_vm_metrics_1h", "vm_id"),
    ] {
        let row = fleet
            .sql
            .query_one(
                "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = $1::text::regclass \
                 AND attnum > 0 AND NOT attisdropped AND attname <> 'collected_at'",
                &[&table],
            )
            .await
            .unwrap();
        let columns: String = row.get(0);
        let copy = format!(
            "INSERT INTO {table} (collected_at, {columns}) SELECT to_timestamp({START} + 3600 * hour), {columns} \
             FROM {table} CROSS JOIN generate_series(1, 24) AS hour WHERE hour <> {} ORDER BY hour, {key}",
            HOURS_BEFORE + 1
        );
        fleet.sql.batch_execute(&copy).await.unwrap();
    }
    let due = "UPDATE virt_rollup_pending SET due_at = clock_timestamp()";
    fleet.sql.batch_execute(due).await.unwrap();
    let (day, _) = fleet.make([0, 0, 2]).await;

    five.sort_by(f64::total_cmp);
    let at = |index: usize| five.get(index).copied().unwrap_or(f64::NAN);
    let (least, median, most) = (at(0), at(five.len() / 2), at(five.len() - 1));
    let share = hour / 12.0 + day / 288.0;
    println!(
        "rollup: vms={vms} hosts={hosts} five_minutes={median:.2}s ({least:.2} to {most:.2} in {}) hour={hour:.2}s \
         day={day:.2}s",
        five.len()
    );
    println!(
        "rollup: cpu_seconds_per_5_minutes={:.2} ({:.2} to {:.2}), target {TARGET_SECONDS}",
        median + share,
        least + share,
        most + share
    );
    median + share
}
