//! Database, vCenter and collectors, and their comings and goings.
//!
//! Owns: everything that runs, and which time of the vCenter was healthy. Never does: judging.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;
use vsphere_simulator::{ClockMode, Simulator, Spec};

use super::Error;
use super::plan::Plan;
use super::set_up::Ground;
use super::slot::Slot;
use crate::cluster::{Cluster, Mode};
use crate::process;

/// The platform. A platform's polls keep a phase that follows from its name, and this one's second poll comes 2.4 s
/// after its first: whatever the first one suffers, the daemon's own next try is not far.
pub(super) const PLATFORM: &str = "drill-3";

/// The shortest that configuration allows.
pub(super) const INTERVAL: Duration = Duration::from_secs(20);

/// The database.
pub(super) const DATABASE: &str = "virt_drill";

/// To be there after a start.
pub(super) const READY_DEADLINE: Duration = Duration::from_secs(60);

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
        let longest = self.slots.iter().map(|slot| slot.take_longest_start()).max();
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

    /// The other collector is the holder now; it took over in so long.
    pub(super) fn swap(&mut self, took: Duration) {
        self.holder = 1 - self.holder;
        self.takeover_max = self.takeover_max.max(took);
        self.note("taken over");
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

    /// Reads the high-water mark of every collector's memory.
    pub(super) fn note_memory(&mut self) {
        for slot in &self.slots {
            if let Some(kib) = slot.most_memory_kib() {
                self.rss_max_kib = self.rss_max_kib.max(kib);
            }
        }
    }

    /// Most memory that the holder ever had; `None` where it does not run.
    pub(super) fn memory_kib(&self) -> Option<u64> {
        self.holder().most_memory_kib()
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

/// Now, seven seconds after a sample.
fn on_the_grid() -> i64 {
    let now = jiff::Timestamp::now().as_second();
    (now - now.rem_euclid(20) + 7) * 1_000_000
}
