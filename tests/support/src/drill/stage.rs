//! Database, vCenter, proxies and collectors, and their comings and goings.
//!
//! Owns: everything that runs, and which time of the vCenter was healthy. Never does: judging.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_postgres::Client;
use vsphere_simulator::{ClockMode, Simulator, Spec};

use super::Error;
use super::machine::Systemd;
use super::plan::Plan;
use super::set_up::{self, Ground};
use crate::cluster::{Cluster, Mode};
use crate::collector::{Collector, Platform, Settings};
use crate::process::{self, Signal};
use crate::proxy::{Endpoint, Protocol, Proxy, Weather};
use crate::usage;

/// The platform. A platform's polls keep a phase that follows from its name, and this one's second poll comes 2.4 s
/// after its first: whatever the first one suffers, the daemon's own next try is not far.
pub(super) const PLATFORM: &str = "drill-3";

/// The shortest that configuration allows.
const INTERVAL: Duration = Duration::from_secs(20);

/// The database.
pub(super) const DATABASE: &str = "virt_drill";

/// The daemon promises to stop within this.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(45);

/// For one that does not keep its promise.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// To be there after a start.
pub(super) const READY_DEADLINE: Duration = Duration::from_secs(60);

/// TTL and ten seconds: what is promised of a take-over.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(40);

/// One collector with its ways to the database and to the vCenter.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) collector: Collector,
    /// The way to the server that takes writes.
    pub(super) database: Proxy,
    /// The way to the other server, which is named beside it; closed while there is none.
    pub(super) spare: Proxy,
    pub(super) vcenter: Proxy,
    /// Address of the admin API.
    pub(super) api: SocketAddr,
    systemd: Systemd,
    running: bool,
}

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Stage {
    /// With the server that takes writes.
    pub(super) ground: Ground,
    /// The other one, which changes places with it in a fail-over; it runs only while a fault needs it.
    pub(super) spare: Cluster,
    pub(super) simulator: Simulator,
    pub(super) slots: [Slot; 2],
    /// The one that holds, or is to hold, the lease.
    holder: usize,
    /// Time of the vCenter that passed while something was away.
    away: Vec<Range<i64>>,
    born: i64,
    takeover_max: Duration,
    /// The longest since it was taken.
    recovery: Duration,
    /// What was done since it was taken, with the machine's and the vCenter's time.
    journal: Vec<String>,
    rss_max_kib: u64,
    /// A token of the admin API, once somebody needed it.
    token: Option<String>,
    /// Most memory of the first collector when it had read everything for the first time.
    usual_kib: u64,
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
        let ground = Ground::prepare("drill", &plan.cluster, DATABASE).await?;
        let simulator = Simulator::start(Spec {
            vms: plan.vms,
            hosts: plan.hosts,
            powered_off: Some(1),
            clock: ClockMode::Frozen { at: on_the_grid() },
            ..Spec::default().seed(plan.seed)
        })
        .await?;
        let slots = [
            Slot::prepare(0, &ground, &simulator)?,
            Slot::prepare(1, &ground, &simulator)?,
        ];
        let born = simulator.clock().horizon();
        let mut stage = Self {
            spare: Cluster::named(&format!("{}-b", plan.cluster)),
            ground,
            simulator,
            slots,
            holder: 0,
            away: Vec::new(),
            born,
            takeover_max: Duration::ZERO,
            recovery: Duration::ZERO,
            journal: Vec::new(),
            rss_max_kib: 0,
            token: None,
            usual_kib: 0,
            hasty: plan.hasty,
        };
        // Left behind by a run that ended in the middle.
        stage
            .client()
            .await?
            .batch_execute("DROP TABLESPACE IF EXISTS virt_drill_room")
            .await?;
        stage.holder().collector.migrate().await?;
        stage.holder().collector.command(&["key", "init"]).await?;
        stage.start().await?;
        stage.recovered().await?;
        stage.usual_kib = stage.memory_kib().unwrap_or(0);
        Ok(stage)
    }

    /// Ends what runs.
    pub(super) async fn clear(mut self) -> Result<(), Error> {
        for slot in &mut self.slots {
            slot.collector.kill().await?;
        }
        self.spare.stop(Mode::Immediate).await?;
        self.ground.clear().await
    }

    pub(super) fn directory(&self) -> &Path {
        &self.ground.directory
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

    /// The longest time from a start to READY since the last call.
    pub(super) fn take_ready(&mut self) -> Duration {
        let longest = self.slots.iter().map(|slot| slot.systemd.take_longest()).max();
        longest.unwrap_or_default()
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

    /// Starts the holder. Waits for nothing.
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        self.start_by(&[]).await
    }

    /// As [`Stage::start`], by a program that becomes it.
    pub(super) async fn start_by(&mut self, by: &[String]) -> Result<(), Error> {
        self.note(format!("collector {} starts", self.holder));
        self.holder_mut().start_by(by).await
    }

    /// Ends the holder. After a kill its lease and what it said of itself are made to run out at once, unless another
    /// collector waits for it: the faults that are about the lease wait for it.
    pub(super) async fn end(&mut self, end: End) -> Result<(), Error> {
        self.note_memory();
        self.note(format!("collector {}: {end:?}", self.holder));
        let slot = self.holder_mut();
        match end {
            End::Kill => {
                slot.kill().await?;
                self.expire_lease().await
            }
            End::Term => slot.stop().await.map(drop),
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

    pub(super) async fn expire_lease(&self) -> Result<(), Error> {
        if self.slots.iter().any(|slot| slot.running) {
            return Ok(());
        }
        let client = self.client().await?;
        client
            .batch_execute(
                "UPDATE virt_platform_lease SET until = clock_timestamp() WHERE until > clock_timestamp(); \
                 UPDATE virt_collector SET until = clock_timestamp() WHERE until > clock_timestamp()",
            )
            .await?;
        Ok(())
    }

    /// Reads the high-water mark of every collector's memory.
    pub(super) fn note_memory(&mut self) {
        for slot in &self.slots {
            if let Some(kib) = most_kib(&slot.collector) {
                self.rss_max_kib = self.rss_max_kib.max(kib);
            }
        }
    }

    /// Most memory that the holder ever had; `None` where it does not run.
    pub(super) fn memory_kib(&self) -> Option<u64> {
        most_kib(&self.holder().collector)
    }

    /// What a collector needs to read everything, nothing being wrong.
    pub(super) const fn usual_memory_kib(&self) -> u64 {
        self.usual_kib
    }

    // ---- what operators change

    /// Changes the configuration files; who runs does not know of it yet.
    pub(super) fn amend(&mut self, change: impl Fn(&str) -> String) -> Result<(), Error> {
        self.note("config.toml amended");
        for slot in &self.slots {
            slot.collector.amend(&change)?;
        }
        Ok(())
    }

    /// Gives the collectors another password for the platform.
    pub(super) fn give_password(&mut self, password: &str) -> Result<(), Error> {
        self.note("password given");
        for slot in &self.slots {
            slot.collector.give_password(0, password)?;
        }
        Ok(())
    }

    /// The time zone of collectors and of the writer's sessions, from their next start on; `None`: as they were.
    pub(super) async fn set_zone(&mut self, zone: Option<&'static str>) -> Result<(), Error> {
        self.note(format!("time zone {zone:?}"));
        for slot in &mut self.slots {
            slot.collector.set_zone(zone);
        }
        let sql = zone.map_or_else(
            || format!("ALTER DATABASE {DATABASE} RESET timezone"),
            |zone| format!("ALTER DATABASE {DATABASE} SET timezone = '{zone}'"),
        );
        Ok(self.client().await?.batch_execute(&sql).await?)
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
            .query_one(
                "SELECT owner, epoch FROM virt_platform_lease JOIN virt_platform USING (platform_id) WHERE name = $1",
                &[&PLATFORM],
            )
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

    // ---- the admin API

    /// A request to the holder, by somebody who may do everything: what is answered, and what with.
    pub(super) async fn ask(
        &mut self,
        (method, path): (hyper::Method, &str),
        prefer: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(hyper::StatusCode, Value), Error> {
        let token = self.token().await?;
        let asked = crate::http::ask(self.holder().api, &token, (method, path), prefer, body);
        let (status, body) = tokio::time::timeout(READY_DEADLINE, asked)
            .await
            .map_err(|_elapsed| {
                Error::criterion("an answer of the admin API", format!("none to {path}"))
            })??;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    pub(super) async fn token(&mut self) -> Result<String, Error> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let made = self
            .holder()
            .collector
            .command(&["token", "create", "drill", "--role", "admin"])
            .await?;
        let token = made.split_whitespace().find(|word| word.starts_with("vc_"));
        let token = token.ok_or(Error::Nothing("token"))?.to_owned();
        self.token = Some(token.clone());
        Ok(token)
    }

    // ---- the database

    /// A superuser's connection, past the proxies.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        self.ground.client().await
    }

    pub(super) async fn restart_database(&mut self, mode: Mode) -> Result<(), Error> {
        self.note(format!("database restarts: {mode:?}"));
        Ok(self.ground.cluster.restart(mode).await?)
    }

    pub(super) async fn stop_database(&mut self, mode: Mode) -> Result<(), Error> {
        self.note(format!("database stops: {mode:?}"));
        Ok(self.ground.cluster.stop(mode).await?)
    }

    /// Starts it again; it may listen elsewhere now.
    pub(super) async fn start_database(&mut self) -> Result<(), Error> {
        let target = self.ground.start().await?;
        self.note("database is back");
        for slot in &self.slots {
            slot.database.set_target(target.clone());
        }
        Ok(())
    }
}

impl Slot {
    fn prepare(number: usize, ground: &Ground, simulator: &Simulator) -> Result<Self, Error> {
        let target = ground.socket()?;
        // One over TCP, one over a Unix socket: both are in use.
        // Both name two servers, as where there is a standby.
        let (way, spare, host) = if number == 0 {
            let [way, spare] = [
                Proxy::tcp(Protocol::Postgres, target.clone())?,
                Proxy::tcp(Protocol::Postgres, target)?,
            ];
            let port = |proxy: &Proxy| Ok::<_, Error>(proxy.address().ok_or(Error::Nothing("port"))?.port());
            let ports = format!("{},{}", port(&way)?, port(&spare)?);
            (way, spare, format!("host=127.0.0.1,127.0.0.1 port={ports}"))
        } else {
            let [first, second] = ["a", "b"].map(|name| ground.sockets().join(name));
            for directory in [&first, &second] {
                set_up::fresh(directory)?;
            }
            (
                Proxy::unix(&first, target.clone())?,
                Proxy::unix(&second, target)?,
                format!("host={},{}", first.display(), second.display()),
            )
        };
        spare.refuse(true);
        let vcenter = Proxy::tcp(Protocol::Opaque, Endpoint::Tcp(simulator.addr()))?;
        let platform = Platform {
            address: vcenter.address().ok_or(Error::Nothing("port"))?,
            ..Platform::simulated(PLATFORM, simulator)
        };
        let api = process::free_address()?;
        let keys = ground.directory.join("keyring");
        let settings = Settings {
            database: format!("{host} user=virt_writer dbname={DATABASE}"),
            owner: format!("{host} user=virt_owner dbname={DATABASE}"),
            interval: INTERVAL,
            discovery_interval: INTERVAL,
            listen: process::free_address()?,
            top: String::new(),
            more: format!(
                "[keys]\nfile = {keys:?}\n\n[api]\nlisten = \"{api}\"\nconnections = 512\n\
                 connections_per_address = 512\nrequests_per_second = 1000\nactions_per_minute = 600\n\n\
                 [log]\nlevel = \"info,virt_collector=debug\""
            ),
            platforms: vec![platform],
        };
        let files = ground.directory.join(format!("collector-{number}"));
        Ok(Self {
            collector: Collector::prepare(&ground.program, &files, &settings)?,
            database: way,
            spare,
            vcenter,
            api,
            systemd: Systemd::new(ground.sockets(), number),
            running: false,
        })
    }

    pub(super) async fn start(&mut self) -> Result<(), Error> {
        self.start_by(&[]).await
    }

    async fn start_by(&mut self, by: &[String]) -> Result<(), Error> {
        let mut all = self.systemd.starts()?;
        all.extend_from_slice(by);
        self.collector.start_by(&all).await?;
        self.running = true;
        Ok(())
    }

    /// Whether the one that was started last is READY.
    pub(super) fn is_ready(&self) -> bool {
        self.systemd.is_ready()
    }

    /// The process, while it runs.
    pub(super) fn pid(&self) -> Result<u32, Error> {
        self.collector.pid().ok_or(Error::Nothing("running collector"))
    }

    /// Where the collector is there no more by itself: how it ended.
    pub(super) async fn ended(&mut self, deadline: Duration) -> Result<std::process::ExitStatus, Error> {
        let daemon = self
            .collector
            .daemon()
            .ok_or(Error::Nothing("running collector"))?;
        let status = daemon.wait(deadline).await?;
        self.running = false;
        Ok(status)
    }

    pub(super) async fn kill(&mut self) -> Result<(), Error> {
        self.running = false;
        Ok(self.collector.kill().await?)
    }

    /// SIGTERM; it must end with 0, and in time. How long that took.
    pub(super) async fn stop(&mut self) -> Result<Duration, Error> {
        if !self.running {
            return Ok(Duration::ZERO);
        }
        // Before that it has no say in how it ends.
        let systemd = &self.systemd;
        process::until("virt-collector to be READY", READY_DEADLINE, || async move {
            if systemd.is_ready() {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .await?;
        let since = Instant::now();
        self.collector.end(STOP_DEADLINE).await?;
        let took = since.elapsed();
        self.running = false;
        if took > STOP_LIMIT {
            return Err(Error::criterion(
                "the end within 45 s of SIGTERM",
                format!("{:.1} s", took.as_secs_f64()),
            ));
        }
        Ok(took)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        Ok(self.collector.signal(signal)?)
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

/// Most memory that it ever had; `None` where it does not run.
fn most_kib(collector: &Collector) -> Option<u64> {
    usage::most_resident_kib(collector.pid()?).ok()
}

/// Now, seven seconds after a sample.
fn on_the_grid() -> i64 {
    let now = jiff::Timestamp::now().as_second();
    (now - now.rem_euclid(20) + 7) * 1_000_000
}
