//! Cost at scale, end to end: the daemon as its own process, a simulated vCenter in this one, a real TimescaleDB.
//!
//! Three phases, the daemon started anew for each: the back-fill of the hour before its first start, live collection
//! with 60-s polls, and with 20-s polls. CPU and memory are those of the daemon's process as the kernel counts them;
//! the simulator's CPU is this process's and told apart, so is the database's. At the end the oracle compares every
//! stored cell with what was published. The simulator has the text of every cell ready before the daemon starts, so that
//! what it takes is for copying, gzip and TLS.
//!
//! On the ten thousand VMs that the targets are for, twice a target fails.
//!
//! `make bench-scale` runs it. VMS (10000), HOSTS (500) and SECONDS (300, of each live phase) make it smaller;
//! REQUESTS_PER_SECOND paces the daemon otherwise than by default; COLLECTOR names another build of the daemon to compare
//! with; GZIP=0 makes the simulator send replies as they are; STAGES=1 samples the daemon with `perf` in the live phases
//! and prints the share of each stage.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a program for a terminal that may fail loudly; numbers for people"
)]

#[path = "shared/baseline.rs"]
mod baseline;
#[path = "shared/copy_ratio.rs"]
mod copy_ratio;
#[path = "shared/cost.rs"]
mod cost;
#[path = "shared/decode_ratio.rs"]
mod decode_ratio;
#[path = "shared/leased.rs"]
mod leased;
#[path = "shared/reply.rs"]
mod reply;
#[path = "shared/stages.rs"]
mod stages;

use std::fmt;
use std::ops::{Not as _, Range};
use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::{Database, Role};
use support::{oracle, usage};
use tokio::time::Instant;
use tokio_postgres::Client;
use virt_collector::model::columns::Column;
use virt_collector::model::ids::EntityKind;
use vsphere_simulator::{Simulator, Spec};

const PLATFORM: &str = "scale";

/// How long a sample has to be readable before it is owed: ten minutes, as `missing` is defined.
const GRACE: Duration = Duration::from_secs(600);

/// Longest time for the back-fill and for a warm-up.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Polls before a live phase is measured: the first ones still catch up.
const WARM_UP_POLLS: f64 = 2.0;

/// How often the back-fill is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the back-fill and the start of each phase may take, for which the simulator prepares cells, too.
const BESIDE: Duration = Duration::from_secs(1200);

/// CPU-seconds per minute with 60-s and 20-s polls, MiB in live collection and in the back-fill.
const TARGETS: [(&str, f64); 4] = [
    ("cpu_seconds_per_minute", 1.5),
    ("cpu_seconds_per_minute_20s", 4.0),
    ("rss_mib", 150.0),
    ("rss_backfill_mib", 250.0),
];

fn main() {
    let number =
        |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (vms, hosts) = (number("VMS", 10_000), number("HOSTS", 500));
    let seconds = number("SECONDS", 300);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let prepared = reply::prepare(&[3]);
    let (_, _, csv) = prepared.first().unwrap();
    let (decode_ratio, _) = decode_ratio::measure(csv, 11);
    println!("scale: decode_ratio={decode_ratio}");
    runtime.block_on(run(
        vms,
        hosts,
        Duration::from_secs(seconds as u64),
        &decode_ratio,
    ));
}

/// What a phase has cost.
#[derive(Debug, Clone)]
struct Phase {
    wall: Duration,
    collector: f64,
    simulator: f64,
    database: f64,
    /// Largest resident set, MiB.
    rss: f64,
    /// Rows of hosts and of VMs.
    rows: [f64; 2],
    reply_bytes: f64,
    /// Waiting for answers to QueryPerf, seconds; several are under way at once.
    asking: f64,
    /// Waiting for transactions that store samples, seconds.
    storing: f64,
    polls: Polls,
    stages: Option<String>,
}

/// The live polls of a phase.
#[derive(Debug, Clone, Copy)]
struct Polls {
    n: f64,
    skipped: f64,
    mean: f64,
    within_10s: f64,
}

impl Phase {
    fn per_minute(&self, seconds: f64) -> f64 {
        seconds * 60.0 / self.wall.as_secs_f64()
    }

    /// Rows per second, each counted with a weight for its kind.
    fn rows_per_second(&self, weights: [f64; 2]) -> f64 {
        let weighted = self.rows.iter().zip(weights).map(|(rows, weight)| rows * weight);
        weighted.sum::<f64>() / self.wall.as_secs_f64()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} s, CPU-seconds per minute: collector {:.2}, database {:.2}, simulator {:.2}; rss {:.0} MiB; \
             {:.0} rows per second; {:.1} MB of replies; seconds waited per minute: answers {:.2}, \
             commits {:.2}; {:.0} polls, mean {:.2} s, {:.0} within 10 s, {:.0} skipped",
            self.wall.as_secs_f64(),
            self.per_minute(self.collector),
            self.per_minute(self.database),
            self.per_minute(self.simulator),
            self.rss,
            self.rows_per_second([1.0, 1.0]),
            self.reply_bytes / 1e6,
            self.per_minute(self.asking),
            self.per_minute(self.storing),
            self.polls.n,
            self.polls.mean,
            self.polls.within_10s,
            self.polls.skipped,
        )?;
        match &self.stages {
            Some(stages) => write!(f, "\nscale: share of the collector's CPU time:{stages}"),
            None => Ok(()),
        }
    }
}

async fn run(vms: usize, hosts: usize, time: Duration, decode_ratio: &cost::Ratio) {
    let copy_ratio = copy_ratio::measure(9).await;
    println!("scale: copy_ratio={copy_ratio}");

    let mut stage = Stage::build(vms, hosts, time * 2 + BESIDE).await;
    println!("scale: vms={vms} hosts={hosts}, the hour before the first start");
    let start = now();
    let healthy_from = stage.start(Duration::from_secs(60)).await;
    let filled = stage.back_fill().await;
    println!("scale: back-fill: {filled}");
    let slow = stage.live(Duration::from_secs(60), time).await;
    println!("scale: 60-s polls: {slow}");
    let fast = stage.live(Duration::from_secs(20), time).await;
    println!("scale: 20-s polls: {fast}");
    stage.collector.stop(Duration::from_secs(60)).await.unwrap();
    let healthy = Range {
        start: healthy_from.max(start),
        end: now(),
    };

    let truth = stage.simulator.truth();
    let verdict = oracle::check(&stage.sql, PLATFORM, &truth, &[healthy], GRACE)
        .await
        .unwrap();
    if !verdict.is_clean() {
        println!("{}", verdict.report());
    }
    println!(
        "scale: owed={} stored={} unexplained={} open={}",
        verdict.owed, verdict.stored, verdict.unexplained, verdict.open
    );
    const SIZE: &str =
        "SELECT (hypertable_size('virt_host_metrics') + hypertable_size('virt_vm_metrics'))::int8";
    let bytes: i64 = stage.sql.query_one(SIZE, &[]).await.unwrap().get(0);
    println!(
        "scale: {:.0} MB on disk, {:.0} bytes per row with its indexes",
        bytes as f64 / 1e6,
        bytes as f64 / verdict.stored as f64
    );
    let filled_cells = [
        stage.filled_cells(EntityKind::Host).await,
        stage.filled_cells(EntityKind::Vm).await,
    ];
    let measured = [
        slow.per_minute(slow.collector),
        fast.per_minute(fast.collector),
        slow.rss.max(fast.rss),
        filled.rss,
    ];
    let [cpu, cpu_20s, rss, rss_backfill] = measured;
    println!(
        "scale: vms={} hosts={} cpu_seconds_per_minute={cpu:.2} cpu_seconds_per_minute_20s={cpu_20s:.2} \
         rss_mib={rss:.0} rss_backfill_mib={rss_backfill:.0} values_per_second={:.0} rows_per_second={:.0} decode_ratio={:.2} copy_ratio={:.2} \
         backfill_minutes={:.1} missing={} duplicate={} wrong={}",
        verdict.vms,
        verdict.hosts,
        filled.rows_per_second(filled_cells),
        filled.rows_per_second([1.0, 1.0]),
        decode_ratio.median(),
        copy_ratio.median(),
        filled.wall.as_secs_f64() / 60.0,
        verdict.missing,
        verdict.duplicate,
        verdict.wrong,
    );
    assert!(
        verdict.is_clean(),
        "what is stored differs from what was published"
    );
    if vms <= 10_000 {
        for ((name, target), measured) in TARGETS.iter().zip(measured) {
            assert!(
                measured <= target * 2.0,
                "{name} is more than twice its target of {target}"
            );
        }
    }
}

/// Everything that runs.
struct Stage {
    collector: Collector,
    settings: Settings,
    directory: tempfile::TempDir,
    simulator: Simulator,
    sql: Client,
    // Last: it goes when nobody is connected any more.
    _database: Database,
}

/// Counters at one moment.
struct Reading {
    at: Instant,
    collector: f64,
    simulator: f64,
    database: f64,
    metrics: Metrics,
}

impl Stage {
    async fn build(vms: usize, hosts: usize, ahead: Duration) -> Self {
        let database = Database::create().await.unwrap();
        let sql = database.connect(Role::Superuser).await.unwrap();
        let simulator = Simulator::start(Spec {
            powered_off: Some(0),
            gzip: std::env::var("GZIP").is_ok_and(|gzip| gzip == "0").not(),
            ..Spec::vcenter(hosts, vms)
        })
        .await
        .unwrap();
        let columns = EntityKind::ALL.into_iter().flat_map(Column::of);
        let counters: Vec<&str> = columns.flat_map(Column::counters).collect();
        simulator.prepare(&counters, ahead);
        let settings = Settings::on(&database, vec![Platform::simulated(PLATFORM, &simulator)]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let collector = prepare(directory.path(), &settings);
        collector.migrate().await.unwrap();
        Self {
            collector,
            settings,
            directory,
            simulator,
            sql,
            _database: database,
        }
    }

    /// Starts the daemon anew with this poll interval; returns when.
    async fn start(&mut self, interval: Duration) -> i64 {
        self.collector.stop(Duration::from_secs(60)).await.unwrap();
        self.settings.interval = interval;
        self.collector = prepare(self.directory.path(), &self.settings);
        let at = now();
        self.collector.start().await.unwrap();
        self.collector.ready(Duration::from_secs(60)).await.unwrap();
        at
    }

    /// Until the hour before the start is stored.
    async fn back_fill(&mut self) -> Phase {
        let before = Reading {
            at: Instant::now(),
            collector: 0.0,
            metrics: Metrics::default(),
            ..self.read().await
        };
        loop {
            tokio::time::sleep(LOOK).await;
            // Gaps at first contact are there from the first poll on; they are asked for when they have settled.
            const LEFT: &str = "SELECT count(*) FILTER (WHERE state = 'open'), \
                (SELECT count(*) FROM (SELECT FROM virt_vm_metrics LIMIT 1) AS any_row) FROM virt_collection_gap";
            let row = self.sql.query_one(LEFT, &[]).await.unwrap();
            let (open, rows): (i64, i64) = (row.get(0), row.get(1));
            let metrics = self.metrics().await;
            if open == 0 && rows > 0 && metrics.live_polls() > 0.0 {
                break;
            }
            assert!(before.at.elapsed() < PATIENCE, "{open} gaps are open still");
        }
        let after = self.read().await;
        phase(&before, &after, self.peak_rss())
    }

    /// Live collection for a while.
    async fn live(&mut self, interval: Duration, time: Duration) -> Phase {
        self.start(interval).await;
        let started = Instant::now();
        while self.metrics().await.live_polls() < WARM_UP_POLLS {
            assert!(started.elapsed() < PATIENCE, "no poll succeeds");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // From the middle between two polls.
        tokio::time::sleep(interval / 2).await;
        let wanted = std::env::var("STAGES").is_ok_and(|stages| stages == "1");
        let recording =
            wanted.then(|| stages::Recording::start(self.pid(), time.as_secs(), self.directory.path()));
        self.forget_peak_rss();
        let before = self.read().await;
        tokio::time::sleep(time).await;
        let after = self.read().await;
        let rss = self.peak_rss();
        Phase {
            stages: recording.map(stages::Recording::finish),
            ..phase(&before, &after, rss)
        }
    }

    async fn read(&mut self) -> Reading {
        let collector = self.pid();
        Reading {
            at: Instant::now(),
            collector: cpu_seconds(collector),
            simulator: cpu_seconds(std::process::id()),
            database: self.database_cpu().await,
            metrics: self.metrics().await,
        }
    }

    fn pid(&mut self) -> u32 {
        self.collector.must_run().unwrap();
        self.collector.pid().unwrap()
    }

    /// The largest resident set since the start or since it was forgotten, MiB.
    fn peak_rss(&mut self) -> f64 {
        usage::most_resident_kib(self.pid()).unwrap() as f64 / 1024.0
    }

    fn forget_peak_rss(&mut self) {
        const PEAK: &str = "5";
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), PEAK).unwrap();
    }

    /// Cells of a row that are not NULL, on average.
    async fn filled_cells(&self, kind: EntityKind) -> f64 {
        let counts: Vec<String> = Column::of(kind)
            .iter()
            .map(|column| format!("count({})", column.name))
            .collect();
        let sql = format!(
            "SELECT (({})::float8 / count(*)) FROM virt_{kind}_metrics",
            counts.join(" + ")
        );
        self.sql.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn metrics(&self) -> Metrics {
        Metrics(self.collector.metrics().await.unwrap())
    }

    /// CPU of the server with all its processes, those that have ended included. NaN on another machine.
    async fn database_cpu(&self) -> f64 {
        let backend: i32 = self
            .sql
            .query_one("SELECT pg_backend_pid()", &[])
            .await
            .unwrap()
            .get(0);
        let Some(server) = stat(&backend.to_string()).map(|stat| stat.parent) else {
            return f64::NAN;
        };
        let ended = stat(&server.to_string()).map_or(0.0, |stat| stat.own + stat.children);
        let running: f64 = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| stat(&entry.ok()?.file_name().to_string_lossy()))
            .filter(|stat| stat.parent == server)
            .map(|stat| stat.own)
            .sum();
        ended + running
    }
}

fn prepare(directory: &Path, settings: &Settings) -> Collector {
    let program =
        std::env::var("COLLECTOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_virt-collector").to_owned());
    let collector = Collector::prepare(Path::new(&program), directory, settings).unwrap();
    if let Ok(pace) = std::env::var("REQUESTS_PER_SECOND") {
        let file = collector.config_file();
        let text = std::fs::read_to_string(&file).unwrap();
        let paced = format!("[collection]\nrequests_per_second = {pace}\n");
        std::fs::write(&file, text.replace("[collection]\n", &paced)).unwrap();
    }
    collector
}

fn phase(before: &Reading, after: &Reading, rss: f64) -> Phase {
    let gained =
        |name: &str, labels: &[&str]| after.metrics.sum(name, labels) - before.metrics.sum(name, labels);
    let n = gained("virt_collector_poll_duration_seconds_count", &[LIVE]);
    let rows = EntityKind::ALL.map(|kind| {
        gained(
            "virt_collector_rows_written_total",
            &[&format!(r#"kind="{kind}""#)],
        )
    });
    Phase {
        wall: after.at - before.at,
        collector: after.collector - before.collector,
        simulator: after.simulator - before.simulator,
        database: after.database - before.database,
        rss,
        rows,
        reply_bytes: gained("virt_collector_response_bytes_total", &[]),
        asking: gained(
            "virt_collector_soap_duration_seconds_sum",
            &[r#"method="QueryPerf""#],
        ),
        storing: gained("virt_collector_flush_duration_seconds_sum", &[]),
        stages: None,
        polls: Polls {
            n,
            skipped: gained("virt_collector_polls_skipped_total", &[]),
            mean: gained("virt_collector_poll_duration_seconds_sum", &[LIVE]) / n,
            within_10s: gained(
                "virt_collector_poll_duration_seconds_bucket",
                &[LIVE, r#"le="10""#],
            ),
        },
    }
}

const LIVE: &str = r#"lane="live""#;

/// The text of `/metrics`.
#[derive(Debug, Default)]
struct Metrics(String);

impl Metrics {
    /// The sum of all series of this name that have these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let is_meant = |line: &str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        self.0
            .lines()
            .filter(|line| is_meant(line))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Live polls that went well.
    fn live_polls(&self) -> f64 {
        self.sum("virt_collector_polls_total", &[LIVE, r#"result="ok""#])
    }
}

/// What the kernel says of a process.
struct Stat {
    parent: u32,
    own: f64,
    children: f64,
}

/// `None` where there is no such process.
fn stat(pid: &str) -> Option<Stat> {
    /// `USER_HZ`, the same on every Linux that Rust runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    pid.parse::<u32>().ok()?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
        children: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
    })
}

fn cpu_seconds(pid: u32) -> f64 {
    stat(&pid.to_string()).map_or(f64::NAN, |stat| stat.own)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
