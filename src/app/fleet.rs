//! The platforms that run in this process, each on its own.
//!
//! Owns: starting and stopping one platform without touching the others, and the set of their names, which is what
//! this collector announces. Never does: deciding which are to run; that is the [`Registry`](super::registry)'s.
//!
//! Tasks: a group per platform, that of [`platform`](super::platform), and one that waits for the end of each that stops.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::platform::{Parts, Platform, PlatformHandle};
use super::registry::Wanted;
use crate::admin::DatabaseHealth;
use crate::budget::Budget;
use crate::clock::WallClock;
use crate::config::Trust;
use crate::ingest::rollups;
use crate::ingest::writers::Writers;
use crate::model::status::PlatformState;
use crate::store::collectors::Standing;
use crate::store::{Database, Owner};
use crate::supervise::Tasks;
use crate::telemetry::metrics::platform_status;
use crate::vsphere;
use crate::vsphere::Vsphere;

/// The end of a platform: its poll drains, its rows are flushed, it logs out, its lease is released.
const STOP_DEADLINE: Duration = Duration::from_secs(38);

/// What every platform is given.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) database_health: watch::Receiver<DatabaseHealth>,
    pub(super) writers: Writers,
    pub(super) rollup_turns: rollups::Turns,
    pub(super) budget: Budget,
    pub(super) owner: Owner,
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) asked: watch::Receiver<u64>,
    pub(super) clock: Arc<dyn WallClock>,
    pub(super) tasks: Tasks,
}

#[derive(Debug)]
struct Running {
    wanted: Wanted,
    handle: PlatformHandle,
    group: Tasks,
}

impl Running {
    fn is_stopping(&self) -> bool {
        self.group.stopping().is_cancelled()
    }
}

/// The platforms that run here.
#[derive(Debug)]
pub(super) struct Fleet {
    shared: Shared,
    /// With those that are stopping: their lease is held until their end.
    running: Mutex<BTreeMap<String, Running>>,
    names: watch::Sender<BTreeSet<String>>,
    ended: Notify,
}

impl Fleet {
    pub(super) fn new(shared: Shared, names: watch::Sender<BTreeSet<String>>) -> Self {
        Self {
            shared,
            running: Mutex::default(),
            names,
            ended: Notify::new(),
        }
    }

    fn with_running<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Running>) -> T) -> T {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut running);
        let names: BTreeSet<String> = running.keys().cloned().collect();
        self.names.send_if_modified(|current| {
            let is_new = *current != names;
            *current = names;
            is_new
        });
        result
    }

    /// Whether trust settings can work, which is the operator's to mend before anything starts.
    pub(super) fn try_settings(&self, wanted: &Wanted) -> Result<(), vsphere::Error> {
        let options = vsphere::Options::new(&wanted.platform, &wanted.way.collection);
        Vsphere::new(options).map(|_| ())
    }

    /// Starts a platform that does not run.
    pub(super) fn start(&self, wanted: Wanted) {
        let name = wanted.platform.name.clone();
        platform_status(&name, PlatformState::Disconnected);
        if wanted.platform.trust == Trust::Off {
            tracing::warn!(
                platform = %name,
                "its certificate is not verified: whoever stands between here and the server reads the password"
            );
        }
        let Shared {
            database,
            database_health,
            writers,
            rollup_turns,
            budget,
            owner,
            standing,
            asked,
            clock,
            tasks,
        } = &self.shared;
        let (platform, handle) = Platform::new(Parts {
            wanted: wanted.clone(),
            collection: wanted.way.collection.clone(),
            attributes: wanted.way.attributes.clone(),
            database: database.clone(),
            database_health: database_health.clone(),
            writers: writers.clone(),
            rollup_turns: rollup_turns.clone(),
            share: budget.share(),
            owner: owner.clone(),
            standing: standing.clone(),
            asked: asked.clone(),
            clock: Arc::clone(clock),
        });
        let group = tasks.child();
        group.spawn(format!("platform {name}"), platform.run(group.clone()));
        let running = Running {
            wanted,
            handle,
            group,
        };
        self.with_running(|all| all.insert(name, running));
    }

    /// Asks a platform to stop. It is gone when all of it has ended, however long that takes; [`Fleet::ended`] says when.
    pub(super) fn stop(self: &Arc<Self>, name: &str) {
        let group = self.with_running(|all| all.get(name).map(|running| running.group.clone()));
        let Some(group) = group else { return };
        group.stop();
        let (fleet, name) = (Arc::clone(self), name.to_owned());
        self.shared.tasks.spawn_transient("platform's end", async move {
            while !has_ended(&name, &group).await {}
            fleet.with_running(|all| all.remove(&name));
            fleet.ended.notify_one();
        });
    }

    /// Resolves when a platform that was asked to stop has ended.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Waits for the end of all platforms, which was asked for.
    pub(super) async fn end(&self) {
        let groups: Vec<(String, Tasks)> = self.with_running(|all| {
            let groups = all
                .iter()
                .map(|(name, running)| (name.clone(), running.group.clone()));
            groups.collect()
        });
        let ends = groups.iter().map(|(name, group)| has_ended(name, group));
        futures_util::future::join_all(ends).await;
    }

    /// What runs, by name; `None` for what is stopping.
    pub(super) fn wanted(&self) -> BTreeMap<String, Option<Wanted>> {
        self.with_running(|all| {
            let wanted = |running: &Running| (!running.is_stopping()).then(|| running.wanted.clone());
            let all = all.iter();
            all.map(|(name, running)| (name.clone(), wanted(running)))
                .collect()
        })
    }

    pub(super) fn handle(&self, name: &str) -> Option<PlatformHandle> {
        self.with_running(|all| {
            let running = all.get(name).filter(|running| !running.is_stopping())?;
            Some(running.handle.clone())
        })
    }

    /// Every platform.
    pub(super) fn handles(&self) -> Vec<PlatformHandle> {
        self.with_running(|all| all.values().map(|running| running.handle.clone()).collect())
    }
}

/// True when all tasks of a platform have ended within their time.
async fn has_ended(name: &str, group: &Tasks) -> bool {
    let hanging = group.join(STOP_DEADLINE).await;
    if !hanging.is_empty() {
        tracing::error!(
            platform = name,
            tasks = hanging.join(", "),
            "tasks did not end in time"
        );
    }
    hanging.is_empty()
}
