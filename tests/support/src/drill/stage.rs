//! Database, vCenter, proxies and collectors, and their comings and goings.
//!
//! Owns: everything that runs, and which time of the vCenter was healthy. Never does: judging.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Config, NoTls};
use vsphere_simulator::{ClockMode, Simulator, Spec};

use super::Error;
use super::plan::Plan;
use super::set_up;
use crate::cluster::{Cluster, Mode};
use crate::collector::{Collector, Platform, Settings};
use crate::database::{Database, Role};
use crate::process::{self, Process, Signal};
use crate::proxy::{Endpoint, Protocol, Proxy, Weather};

/// The platform. A platform's polls keep a phase that follows from its name, and this one's second poll comes 2.4 s
/// after its first: whatever the first one suffers, the daemon's own next try is not far.
pub(super) const PLATFORM: &str = "drill-3";

/// The shortest that configuration allows.
const INTERVAL: Duration = Duration::from_secs(20);

/// The database.
const DATABASE: &str = "virt_drill";

/// The daemon promises to stop within 45 s.
const STOP_DEADLINE: Duration = Duration::from_secs(50);

/// To be there after a start.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// TTL and ten seconds: what is promised of a take-over.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(40);

/// One collector with its ways to the database and to the vCenter.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) collector: Collector,
    pub(super) database: Proxy,
    pub(super) vcenter: Proxy,
    running: bool,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage {
    name: String,
    cluster: Cluster,
    superuser: Config,
    database: Option<Database>,
    pub(super) simulator: Simulator,
    slots: [Slot; 2],
    /// The one that holds, or is to hold, the lease.
    holder: usize,
    directory: PathBuf,
    _sockets: tempfile::TempDir,
    /// Time of the vCenter that passed while something was away.
    away: Vec<Range<i64>>,
    born: i64,
    takeover_max: Duration,
    /// The longest since it was taken.
    recovery: Duration,
    /// What was done since it was taken, with the machine's and the vCenter's time.
    journal: Vec<String>,
    rss_max_kib: u64,
    /// As [`Plan::hasty`].
    pub(super) hasty: bool,
}

/// How a collector is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Kill,
    Term,
}

impl Stage {
    pub(super) async fn set(plan: &Plan) -> Result<Self, Error> {
        let program = process::find("virt-collector")?;
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target/drill")
            .join(&plan.cluster);
        set_up::fresh(&directory)?;
        let sockets = tempfile::tempdir().map_err(|source| Error::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let cluster = Cluster::named(&plan.cluster);
        let url = cluster.start().await?;
        Database::remove(&url, DATABASE).await?;
        let database = Database::create_on(&url, DATABASE).await?;
        let superuser = set_up::config(&url, DATABASE)?;
        let simulator = Simulator::start(Spec {
            vms: plan.vms,
            hosts: plan.hosts,
            powered_off: Some(1),
            clock: ClockMode::Frozen { at: on_the_grid() },
            ..Spec::default().seed(plan.seed)
        })
        .await?;
        let slots = [
            Slot::prepare(
                0,
                &program,
                &directory,
                sockets.path(),
                &database,
                &superuser,
                &simulator,
            )?,
            Slot::prepare(
                1,
                &program,
                &directory,
                sockets.path(),
                &database,
                &superuser,
                &simulator,
            )?,
        ];
        let born = simulator.clock().horizon();
        let mut stage = Self {
            name: plan.cluster.clone(),
            cluster,
            superuser,
            database: Some(database),
            simulator,
            slots,
            holder: 0,
            directory,
            _sockets: sockets,
            away: Vec::new(),
            born,
            takeover_max: Duration::ZERO,
            recovery: Duration::ZERO,
            journal: Vec::new(),
            rss_max_kib: 0,
            hasty: plan.hasty,
        };
        stage.holder_mut().collector.migrate().await?;
        stage.start().await?;
        stage.recovered().await?;
        Ok(stage)
    }

    /// Ends what runs; the server too, unless whoever started this drill has started it and will stop it. A kept
    /// database is there again at the next start of the server.
    pub(super) async fn clear(mut self) -> Result<(), Error> {
        for slot in &mut self.slots {
            slot.collector.kill().await?;
        }
        if let Some(mut database) = self.database.take() {
            // The server may be at another place by now than where the database was created.
            database.keep();
            Database::remove(&self.cluster.start().await?, DATABASE).await?;
        }
        if std::env::var("VIRT_CLUSTER").is_ok_and(|name| name == self.name) {
            return Ok(());
        }
        Ok(self.cluster.stop(Mode::Fast).await?)
    }

    /// Leaves the database for somebody to look at.
    pub(super) fn keep_database(&mut self) {
        if let Some(mut database) = self.database.take() {
            database.keep();
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) const fn takeover_max(&self) -> Duration {
        self.takeover_max
    }

    pub(super) const fn rss_max_kib(&self) -> u64 {
        self.rss_max_kib
    }

    pub(super) fn note_recovery(&mut self, took: Duration) {
        self.recovery = self.recovery.max(took);
    }

    /// The longest recovery since the last call.
    pub(super) const fn take_recovery(&mut self) -> Duration {
        std::mem::replace(&mut self.recovery, Duration::ZERO)
    }

    /// Notes what is done.
    pub(super) fn note(&mut self, what: impl Into<String>) {
        let now = jiff::Timestamp::now();
        let vcenter = jiff::Timestamp::from_microsecond(self.simulator.clock().now()).unwrap_or_default();
        let what = what.into();
        self.journal
            .push(format!("{now:.3} vCenter {vcenter:.0}: {what}"));
    }

    /// What was done since the last call.
    pub(super) fn take_journal(&mut self) -> Vec<String> {
        std::mem::take(&mut self.journal)
    }

    // ---- time of the vCenter

    /// Time passes, and all is well.
    pub(super) fn pass(&mut self, time: Duration) {
        self.simulator.clock().advance(time);
        self.note(format!("{} s passed", time.as_secs()));
    }

    /// Time passes while something is away.
    pub(super) fn pass_unwell(&mut self, time: Duration) {
        let from = self.simulator.clock().horizon();
        self.pass(time);
        self.away.push(from..self.simulator.clock().horizon());
        self.note("of these nothing is owed");
    }

    /// The clock is set.
    pub(super) fn step(&mut self, micros: i64) {
        let from = self.simulator.clock().horizon();
        self.simulator.clock().step(micros);
        self.note("clock set");
        self.away.push(from..self.simulator.clock().horizon());
    }

    /// When all was well.
    pub(super) fn healthy(&self) -> Vec<Range<i64>> {
        let mut windows = Vec::with_capacity(self.away.len() + 1);
        let mut from = self.born;
        for away in &self.away {
            windows.push(from..away.start);
            from = away.end;
        }
        windows.push(from..self.simulator.clock().horizon());
        windows.retain(|window| window.start < window.end);
        windows
    }

    /// Time of the vCenter since its epoch.
    pub(super) fn lived(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.simulator.clock().horizon()).unwrap_or_default())
    }

    // ---- collectors

    pub(super) fn holder(&self) -> &Slot {
        let [first, second] = &self.slots;
        if self.holder == 0 { first } else { second }
    }

    pub(super) fn holder_mut(&mut self) -> &mut Slot {
        let [first, second] = &mut self.slots;
        if self.holder == 0 { first } else { second }
    }

    pub(super) fn other_mut(&mut self) -> &mut Slot {
        let [first, second] = &mut self.slots;
        if self.holder == 0 { second } else { first }
    }

    fn swap(&mut self) {
        self.holder = 1 - self.holder;
    }

    /// Starts the holder. Waits for its endpoint only.
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        self.note(format!("collector {} starts", self.holder));
        self.holder_mut().start().await
    }

    /// Ends the holder. After a kill its lease is made to run out at once, unless another collector waits for it:
    /// the faults that are about the lease wait for it.
    pub(super) async fn end(&mut self, end: End) -> Result<(), Error> {
        self.note_memory();
        self.note(format!("collector {}: {end:?}", self.holder));
        let slot = self.holder_mut();
        match end {
            End::Kill => {
                slot.kill().await?;
                self.expire_lease().await
            }
            End::Term => slot.stop().await,
        }
    }

    pub(super) async fn restart(&mut self, end: End) -> Result<(), Error> {
        self.end(end).await?;
        self.start().await
    }

    /// Stops both, which must end well and log out.
    pub(super) async fn stop_collectors(&mut self) -> Result<(), Error> {
        self.note_memory();
        for slot in &mut self.slots {
            slot.stop().await?;
        }
        Ok(())
    }

    /// Nothing while those that should run do.
    pub(super) fn must_run(&mut self) -> Result<(), Error> {
        for slot in &mut self.slots {
            slot.collector.must_run()?;
        }
        Ok(())
    }

    async fn expire_lease(&self) -> Result<(), Error> {
        if self.slots.iter().any(|slot| slot.running) {
            return Ok(());
        }
        let client = self.client().await?;
        client
            .batch_execute(
                "UPDATE virt_platform_lease SET until = clock_timestamp() WHERE until > clock_timestamp()",
            )
            .await?;
        Ok(())
    }

    /// Reads the high-water mark of every collector's memory.
    pub(super) fn note_memory(&mut self) {
        for slot in &mut self.slots {
            let pid = slot.collector.daemon().and_then(|daemon| daemon.id());
            if let Some(kib) = pid.and_then(high_water_kib) {
                self.rss_max_kib = self.rss_max_kib.max(kib);
            }
        }
    }

    // ---- the lease

    /// Starts the other collector and waits until it stands by.
    pub(super) async fn stand_by(&mut self) -> Result<(), Error> {
        self.note(format!("collector {} stands by", 1 - self.holder));
        self.other_mut().start().await?;
        let other = self.other_mut();
        let admin = other.collector.admin();
        process::until("the other collector to stand by", READY_DEADLINE, || async move {
            match crate::http::get(admin, "/readyz").await {
                Ok((status, _)) if status.is_success() => Ok(()),
                Ok((status, _)) => Err(status.to_string()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        Ok(())
    }

    /// Owner and epoch of the lease.
    pub(super) async fn lease(&self) -> Result<(String, i64), Error> {
        let row = self
            .client()
            .await?
            .query_one("SELECT owner, epoch FROM virt_platform_lease", &[])
            .await?;
        Ok((row.get(0), row.get(1)))
    }

    /// Waits for the other collector to take over from the holder, and makes it the holder.
    pub(super) async fn taken_over(&mut self, before: i64, since: Instant) -> Result<Duration, Error> {
        let this = &*self;
        let deadline = 2 * TAKEOVER_LIMIT;
        process::until("the other collector to take over", deadline, || async move {
            match this.lease().await {
                Ok((_, epoch)) if epoch > before => Ok(()),
                Ok((owner, epoch)) => Err(format!("owner {owner}, epoch {epoch}")),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        let took = since.elapsed();
        self.takeover_max = self.takeover_max.max(took);
        self.swap();
        self.note("taken over");
        if took > TAKEOVER_LIMIT {
            return Err(Error::TakeOver {
                took,
                limit: TAKEOVER_LIMIT,
            });
        }
        Ok(took)
    }

    // ---- the database

    /// A superuser's connection, past the proxies.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        let (client, connection) = self.superuser.connect(NoTls).await?;
        drop(tokio::spawn(connection));
        Ok(client)
    }

    pub(super) async fn restart_database(&mut self, mode: Mode) -> Result<(), Error> {
        self.note(format!("database restarts: {mode:?}"));
        Ok(self.cluster.restart(mode).await?)
    }

    pub(super) async fn stop_database(&mut self, mode: Mode) -> Result<(), Error> {
        self.note(format!("database stops: {mode:?}"));
        Ok(self.cluster.stop(mode).await?)
    }

    /// Starts it again; it may listen elsewhere now.
    pub(super) async fn start_database(&mut self) -> Result<(), Error> {
        self.superuser = set_up::config(&self.cluster.start().await?, DATABASE)?;
        self.note("database is back");
        let target = set_up::socket(&self.superuser)?;
        for slot in &self.slots {
            slot.database.set_target(target.clone());
        }
        Ok(())
    }
}

impl Slot {
    fn prepare(
        number: usize,
        program: &Path,
        directory: &Path,
        sockets: &Path,
        database: &Database,
        superuser: &Config,
        simulator: &Simulator,
    ) -> Result<Self, Error> {
        let target = set_up::socket(superuser)?;
        // One over TCP, one over a Unix socket: both are in use.
        let (way, host) = if number == 0 {
            let way = Proxy::tcp(Protocol::Postgres, target)?;
            let port = way.address().ok_or(Error::Nothing("port"))?.port();
            (way, format!("host=127.0.0.1 port={port}"))
        } else {
            (
                Proxy::unix(sockets, target)?,
                format!("host={}", sockets.display()),
            )
        };
        let vcenter = Proxy::tcp(Protocol::Opaque, Endpoint::Tcp(simulator.addr()))?;
        let platform = Platform {
            address: vcenter.address().ok_or(Error::Nothing("port"))?,
            ..Platform::simulated(PLATFORM, simulator)
        };
        let settings = Settings {
            database: format!("{host} user=virt_writer dbname={DATABASE}"),
            owner: database.url(Role::Owner),
            interval: INTERVAL,
            discovery_interval: INTERVAL,
            listen: process::free_address()?,
            top: String::new(),
            more: "[log]\nlevel = \"info,virt_collector=debug\"".to_owned(),
            platforms: vec![platform],
        };
        let files = directory.join(format!("collector-{number}"));
        Ok(Self {
            collector: Collector::prepare(program, &files, &settings)?,
            database: way,
            vcenter,
            running: false,
        })
    }

    pub(super) async fn start(&mut self) -> Result<(), Error> {
        self.collector.start().await?;
        self.running = true;
        Ok(())
    }

    pub(super) async fn kill(&mut self) -> Result<(), Error> {
        self.running = false;
        Ok(self.collector.kill().await?)
    }

    /// SIGTERM; it must end with 0.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        if !self.running {
            return Ok(());
        }
        // Before that it has no say in how it ends.
        let admin = self.collector.admin();
        process::until("virt-collector to answer", READY_DEADLINE, || async move {
            match crate::http::get(admin, "/livez").await {
                Ok(_) => Ok(()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        let log = self.collector.log();
        let status = self.collector.stop(STOP_DEADLINE).await?;
        self.running = false;
        match status {
            Some(status) if !status.success() => Err(Error::Stop {
                status,
                log: process::tail(&log, 20),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        let daemon: Option<&mut Process> = self.collector.daemon();
        Ok(daemon
            .ok_or(Error::Nothing("running collector"))?
            .signal(signal)?)
    }

    /// Fair weather and no traps on both ways.
    pub(super) fn calm(&self) {
        for proxy in [&self.database, &self.vcenter] {
            proxy.disarm();
            proxy.refuse(false);
            proxy.set_weather(Weather::default());
        }
    }
}

/// Now, seven seconds after a sample.
fn on_the_grid() -> i64 {
    let now = jiff::Timestamp::now().as_second();
    (now - now.rem_euclid(20) + 7) * 1_000_000
}

/// Most memory that a process ever had.
fn high_water_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
