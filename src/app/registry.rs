//! Which platforms run here: those of config.toml and those of the registry, without those that are paused.
//!
//! Owns: the loop that looks at the registry when it is told that something changed, and now and then anyway; and
//! passing on a person's wish for a reading of the inventory. Never does: changing the registry.
//!
//! Task: `registry`. When everything stops it waits for the end of all platforms.
//!
//! Invariants:
//! - Only platforms whose row or configuration changed are stopped or started; where the way of collecting did, which
//!   is for all, they are restarted one after the other.
//! - A registry that cannot be read changes nothing: what runs goes on.
//! - A name that config.toml has is the configuration's, whatever the registry says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use crate::admin::DatabaseHealth;
use crate::config;
use crate::config::{Collection, Config, Password};
use crate::error::Chain;
use crate::model::ids::PlatformId;
use crate::model::status::PlatformState;
use crate::store;
use crate::store::registry::{Registered, Source};
use crate::store::{Database, Listener};
use crate::supervise::Tasks;
use crate::telemetry::metrics::{no_platform_status, platform_status};
use crate::units::Stamp;

/// How often the registry is read although nothing was heard.
const LOOK: Duration = Duration::from_secs(30);

/// Between two platforms that are restarted because the way of collecting changed.
const NEXT_RESTART: Duration = Duration::from_secs(1);

/// After a reading that failed.
const RETRY: Duration = Duration::from_secs(5);

/// How platforms are collected, all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) collection: Collection,
    /// Custom attributes that are stored.
    pub(super) attributes: Vec<String>,
}

/// What config.toml asks for, as it was last taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configured {
    pub(super) platforms: Arc<Vec<config::Platform>>,
    pub(super) way: Arc<Way>,
}

impl Configured {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            platforms: Arc::new(config.platforms.clone()),
            way: Arc::new(Way {
                collection: config.collection.clone(),
                attributes: config.inventory.custom_attributes.clone(),
            }),
        }
    }
}

/// A platform that is to run, in one form: another form is another run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) platform: config::Platform,
    /// Its key, where it is the registry's.
    pub(super) registered: Option<PlatformId>,
    /// Grows with each change in the registry.
    pub(super) revision: i64,
    pub(super) way: Arc<Way>,
}

impl Wanted {
    /// A platform of config.toml.
    pub(super) const fn configured(platform: config::Platform, way: Arc<Way>) -> Self {
        Self {
            platform,
            registered: None,
            revision: 0,
            way,
        }
    }

    /// The same platform, to be collected in another way.
    fn differs_in_way_alone(&self, other: &Self) -> bool {
        self.way != other.way
            && (&self.platform, self.registered, self.revision)
                == (&other.platform, other.registered, other.revision)
    }

    /// A seal that was made anew with another key is no other password.
    fn renew_seal(&self, from: &Self) {
        if let (Password::Sealed(seal), Password::Sealed(new)) =
            (&self.platform.password, &from.platform.password)
        {
            seal.renew(new);
        }
    }

    fn registered(row: &Registered, keys: &std::path::Path, way: Arc<Way>) -> Self {
        Self {
            platform: row
                .address
                .platform(&row.name, Password::Sealed(row.password(keys))),
            registered: Some(row.id),
            revision: row.revision,
            way,
        }
    }
}

/// What the loop remembers from one look to the next.
#[derive(Debug, Default)]
struct Seen {
    /// Wishes for a reading of the inventory that were passed on.
    passed_on: HashMap<PlatformId, Stamp>,
    /// Platforms in maintenance.
    paused: BTreeSet<String>,
    /// Platforms that were ever to be collected.
    known: BTreeSet<String>,
}

/// The loop.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) configured: watch::Receiver<Configured>,
    /// The key ring of sealed passwords.
    pub(super) keys: PathBuf,
    pub(super) database: Database,
    pub(super) health: watch::Receiver<DatabaseHealth>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) tasks: Tasks,
}

impl Registry {
    /// Follows the registry until `stopping`, then waits for the end of all platforms.
    pub(super) async fn keep(self, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.follow() => {}
        }
        stopping.cancelled().await;
        self.fleet.end().await;
    }

    async fn follow(&self) {
        let mut listener: Option<Listener> = None;
        let mut seen = Seen::default();
        let mut failing = false;
        let mut health = self.health.clone();
        let mut configured = self.configured.clone();
        loop {
            let up = health
                .wait_for(|health| *health == DatabaseHealth::Up)
                .await
                .is_ok();
            if !up {
                // The task that looks at the database has ended: so does everything.
                return;
            }
            let asked = configured.borrow_and_update().clone();
            let wait = match self.look(&mut listener, &mut seen, &asked).await {
                Ok(is_done) => {
                    failing = false;
                    if is_done { LOOK } else { NEXT_RESTART }
                }
                Err(error) => {
                    listener = None;
                    // Told once per trouble.
                    if failing || error.is_outage() {
                        tracing::debug!(error = %Chain(&error), "cannot read the registry of platforms");
                    } else {
                        tracing::warn!(error = %Chain(&error), "cannot read the registry of platforms; trying again");
                    }
                    failing = true;
                    RETRY
                }
            };
            let heard = async {
                match &listener {
                    Some(listener) => listener.heard().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = heard => {}
                () = self.fleet.ended() => {}
                Ok(()) = configured.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
            if listener.as_ref().is_some_and(Listener::is_lost) {
                listener = None;
                // One after the other may be lost as soon as it is there.
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Listens, then reads, so that no change falls in between. False while platforms are yet to be restarted.
    async fn look(
        &self,
        listener: &mut Option<Listener>,
        seen: &mut Seen,
        configured: &Configured,
    ) -> Result<bool, store::Error> {
        if listener.is_none() {
            *listener = Some(self.database.listen_to_registry().await?);
        }
        let rows = self.database.registered_platforms().await?;
        let wanted = wanted(configured, &rows, &self.keys);
        let mut known: BTreeSet<String> = wanted.keys().cloned().collect();
        let is_done = self.apply(wanted);
        let paused = rows.iter().filter(|row| row.in_maintenance);
        let paused: BTreeSet<String> = paused.map(|row| row.name.clone()).collect();
        for name in seen.paused.difference(&paused) {
            if self.fleet.handle(name).is_none() {
                platform_status(name, PlatformState::Disconnected);
            }
        }
        for name in &paused {
            platform_status(name, PlatformState::Maintenance);
        }
        known.extend(paused.iter().cloned());
        // At each look: one that is still stopping may have told its status once more.
        for name in seen.known.difference(&known) {
            no_platform_status(name);
        }
        seen.known.extend(known);
        seen.paused = paused;
        for row in &rows {
            self.pass_on(row, &mut seen.passed_on);
        }
        Ok(is_done)
    }

    /// What has ended and is to run again is started when its end is told. False while platforms are yet to be restarted.
    fn apply(&self, wanted: BTreeMap<String, Wanted>) -> bool {
        let running = self.fleet.wanted();
        // Another way of collecting is for all of them: only one at a time is away for it.
        let mut may_change_way =
            running.values().all(Option::is_some) && wanted.keys().all(|name| running.contains_key(name));
        let mut is_done = true;
        for (name, runs) in &running {
            let Some(runs) = runs else { continue };
            match wanted.get(name) {
                Some(wanted) if wanted == runs => continue,
                Some(wanted) if wanted.differs_in_way_alone(runs) => {
                    is_done = false;
                    if !std::mem::take(&mut may_change_way) {
                        continue;
                    }
                    tracing::info!(platform = %name, "restarting the platform: [collection] or [inventory] changed");
                }
                Some(_) => tracing::info!(platform = %name, "restarting the platform: its settings changed"),
                None => {
                    tracing::info!(platform = %name, "stopping the platform: it is not to be collected any more")
                }
            }
            self.fleet.stop(name);
        }
        for (name, wanted) in wanted {
            match running.get(&name) {
                Some(Some(runs)) if *runs == wanted => runs.renew_seal(&wanted),
                Some(_) => {}
                None => {
                    tracing::info!(platform = %name, "starting the platform");
                    self.fleet.start(wanted);
                }
            }
        }
        is_done
    }

    /// Has the inventory read where somebody asked for it since the last reading, and this collector owns the platform.
    fn pass_on(&self, row: &Registered, passed_on: &mut HashMap<PlatformId, Stamp>) {
        let Some(asked) = row.sync_asked_at.filter(|asked| row.synced_at < Some(*asked)) else {
            return;
        };
        let handle = self
            .fleet
            .handle(&row.name)
            .filter(super::PlatformHandle::is_owned);
        let Some(handle) = handle else { return };
        if passed_on.insert(row.id, asked) == Some(asked) {
            return;
        }
        // Whether it went well shows in the platform's row.
        self.tasks.spawn_transient("sync", async move {
            handle.discover_now().await;
        });
    }
}

/// What is to run, by name.
fn wanted(
    Configured { platforms, way }: &Configured,
    rows: &[Registered],
    keys: &std::path::Path,
) -> BTreeMap<String, Wanted> {
    let is_configured = |name: &str| platforms.iter().any(|platform| platform.name == name);
    let registered = rows
        .iter()
        .filter(|row| row.source == Source::Registry && row.is_active && !row.in_maintenance)
        .filter(|row| !is_configured(&row.name))
        .map(|row| Wanted::registered(row, keys, Arc::clone(way)));
    let is_paused = |name: &str| rows.iter().any(|row| row.name == name && row.in_maintenance);
    let configured = platforms
        .iter()
        .filter(|platform| !is_paused(&platform.name))
        .map(|platform| Wanted::configured(platform.clone(), Arc::clone(way)));
    registered
        .chain(configured)
        .map(|wanted| (wanted.platform.name.clone(), wanted))
        .collect()
}
