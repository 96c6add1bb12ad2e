//! One platform, from its lease to its loops.
//!
//! Tasks, all under the platform's lease and stopped with it: `lease` (renews), `flush`, `rollups`, `discovery`, `live`,
//! `ring`, `rollup`, `operations`, `status`. While another collector holds the lease none of them runs, and there is no
//! session.
//!
//! Never does: deciding whether the platform is to be taken or handed over; that is the [`Standing`]'s.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::status::Status;
use crate::admin::DatabaseHealth;
use crate::app::registry::Wanted;
use crate::budget::Share;
use crate::clock::WallClock;
use crate::collect::ask::Source;
use crate::collect::back_fill::BackFill;
use crate::collect::back_fill::BackFillReport;
use crate::collect::live;
use crate::collect::live::LiveLane;
use crate::collect::live::PollReport;
use crate::collect::placement::Placements;
use crate::config;
use crate::error::Chain;
use crate::ingest::chain::Watermarks;
use crate::ingest::flush::Bells;
use crate::ingest::flush::FlushLoop;
use crate::ingest::flush::Readiness;
use crate::ingest::queue::Queue;
use crate::ingest::rollups;
use crate::ingest::rollups::RollupReport;
use crate::ingest::rollups::Rollups;
use crate::ingest::writers::Writers;
use crate::inventory;
use crate::inventory::Discovery;
use crate::inventory::DiscoveryReport;
use crate::model::gap::GapLane;
use crate::model::status::PlatformState;
use crate::model::status::PlatformStatus;
use crate::operate::{Operate, Sent};
use crate::retry::Backoff;
use crate::store;
use crate::store::Database;
use crate::store::Lease;
use crate::store::Owner;
use crate::store::collectors::Standing;
use crate::store::registry::Address;
use crate::supervise::Tasks;
use crate::supervise::trigger::Trigger;
use crate::supervise::trigger::Triggered;
use crate::supervise::trigger::trigger;
use crate::telemetry::metrics::DatabaseMetrics;
use crate::telemetry::metrics::PlatformMetrics;
use crate::telemetry::metrics::RollupMetrics;
use crate::telemetry::metrics::platform_status;
use crate::units::Stamp;
use crate::vsphere;
use crate::vsphere::Vsphere;

/// A third of the lease's time to live: two renewals may fail.
const RENEWAL: Duration = Duration::from_secs(10);

/// While renewal fails; the first write after an outage needs a lease that is good. It grows, with jitter: after an
/// outage the platforms of all collectors must not come at once.
const RENEWAL_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RENEWAL_RETRY: Duration = Duration::from_secs(5);

/// How soon a lease is tried again that could not be had, unless the standing changes before.
const LEASE_RETRY: Duration = Duration::from_secs(5);

/// How soon settings that cannot work are tried again: a file that they name may have been mended.
const SETTINGS_RETRY: Duration = Duration::from_secs(60);

/// What the loops may take to end: a poll drains for 15 s, the last flush follows.
const LOOPS_DEADLINE: Duration = Duration::from_secs(25);

/// Logging out of all sessions.
const LOGOUT_DEADLINE: Duration = Duration::from_secs(5);

/// Logging out and releasing the lease.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(10);

/// The platform's own loop turns at least this often while it makes progress.
const PROGRESS: Duration = Duration::from_secs(120);

/// What a platform is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) wanted: Wanted,
    pub(super) collection: config::Collection,
    pub(super) attributes: Vec<String>,
    pub(super) database: Database,
    pub(super) database_health: watch::Receiver<DatabaseHealth>,
    pub(super) writers: Writers,
    pub(super) rollup_turns: rollups::Turns,
    pub(super) share: Share,
    pub(super) owner: Owner,
    pub(super) standing: watch::Receiver<Standing>,
    /// Changes when there may be an action to carry out.
    pub(super) asked: watch::Receiver<u64>,
    pub(super) clock: Arc<dyn WallClock>,
}

/// One platform's life.
#[derive(Debug)]
pub(super) struct Platform {
    parts: Parts,
    metrics: PlatformMetrics,
    live: Triggered<PollReport>,
    ring: Triggered<BackFillReport>,
    rollup: Triggered<BackFillReport>,
    rollups: Triggered<RollupReport>,
    discovery: Triggered<DiscoveryReport>,
    health: watch::Sender<live::Health>,
    owned: Arc<AtomicBool>,
    turned: Arc<AtomicI64>,
    sent: Arc<Sent>,
}

/// A platform as others see it.
#[derive(Debug, Clone)]
pub struct PlatformHandle {
    live: Trigger<PollReport>,
    ring: Trigger<BackFillReport>,
    rollup: Trigger<BackFillReport>,
    rollups: Trigger<RollupReport>,
    discovery: Trigger<DiscoveryReport>,
    health: watch::Receiver<live::Health>,
    owned: Arc<AtomicBool>,
    turned: Arc<AtomicI64>,
    clock: Arc<dyn WallClock>,
}

impl PlatformHandle {
    /// Polls now and reports; `None` when the platform is being stopped.
    pub async fn poll_now(&self) -> Option<PollReport> {
        self.live.fire().await
    }

    /// Reads the inventory now and reports; `None` when the platform is being stopped.
    pub async fn discover_now(&self) -> Option<DiscoveryReport> {
        self.discovery.fire().await
    }

    /// Fills gaps from the ring now and reports; `None` when the platform is being stopped.
    pub async fn back_fill_now(&self) -> Option<BackFillReport> {
        self.ring.fire().await
    }

    /// Fills older gaps from roll-ups now and reports; `None` when the platform is being stopped.
    pub async fn back_fill_from_rollups_now(&self) -> Option<BackFillReport> {
        self.rollup.fire().await
    }

    /// Makes all roll-ups now that are noted, also those that are not due, and reports; `None` when the platform is
    /// being stopped.
    pub async fn roll_up_now(&self) -> Option<RollupReport> {
        self.rollups.fire().await
    }

    /// True when the last poll went well.
    #[must_use]
    pub fn is_well(&self) -> bool {
        matches!(*self.health.borrow(), live::Health::Well)
    }

    /// True while this collector holds the platform's lease.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.owned.load(Ordering::Relaxed)
    }

    pub(super) fn makes_progress(&self) -> bool {
        let turned = Stamp::from_micros(self.turned.load(Ordering::Relaxed));
        self.clock.now().since(turned) < PROGRESS
    }
}

impl Platform {
    pub(super) fn new(parts: Parts) -> (Self, PlatformHandle) {
        let (live, live_triggered) = trigger();
        let (ring, ring_triggered) = trigger();
        let (rollups, rollups_triggered) = trigger();
        let (rollup, rollup_triggered) = trigger();
        let (discovery, discovery_triggered) = trigger();
        let (health, health_seen) = watch::channel(live::Health::Unknown);
        let metrics = PlatformMetrics::new(&parts.wanted.platform.name);
        let owned = Arc::new(AtomicBool::new(false));
        let turned = Arc::new(AtomicI64::new(parts.clock.now().micros()));
        let handle = PlatformHandle {
            live,
            ring,
            rollups,
            rollup,
            discovery,
            health: health_seen,
            owned: Arc::clone(&owned),
            turned: Arc::clone(&turned),
            clock: Arc::clone(&parts.clock),
        };
        (
            Self {
                parts,
                metrics,
                live: live_triggered,
                ring: ring_triggered,
                rollups: rollups_triggered,
                rollup: rollup_triggered,
                discovery: discovery_triggered,
                health,
                owned,
                turned,
                sent: Arc::default(),
            },
            handle,
        )
    }

    /// Collects whenever the lease can be had, until the tasks stop.
    pub(super) async fn run(self, tasks: Tasks) {
        let span = tracing::info_span!("platform", platform = %self.parts.wanted.platform.name);
        let stopping = tasks.stopping();
        async {
            while let Some(lease) = self.lease(&stopping).await {
                self.metrics.lease(true);
                self.owned.store(true, Ordering::Relaxed);
                tracing::info!(epoch = lease.epoch, "this collector owns the platform");
                self.collect(lease, &tasks).await;
                self.owned.store(false, Ordering::Relaxed);
                self.metrics.lease(false);
                platform_status(&self.parts.wanted.platform.name, PlatformState::Disconnected);
            }
        }
        .instrument(span)
        .await;
    }

    /// Waits for the lease; `None` when the tasks stop.
    async fn lease(&self, stopping: &CancellationToken) -> Option<Lease> {
        let mut standing = self.parts.standing.clone();
        let mut told = false;
        let mut failing = false;
        while !stopping.is_cancelled() {
            self.turn();
            if self.is_due(&mut standing, stopping).await {
                match self.try_lease().await {
                    Ok(Some(lease)) => return Some(lease),
                    Ok(None) => failing = false,
                    // Told once per trouble.
                    Err(error) if !failing && !error.is_outage() => {
                        failing = true;
                        tracing::warn!(error = %Chain(&error), "cannot take the platform; trying again");
                    }
                    Err(error) => tracing::debug!(error = %Chain(&error), "cannot take the platform"),
                }
                tokio::select! {
                    () = stopping.cancelled() => return None,
                    _ = standing.changed() => {}
                    () = tokio::time::sleep(LEASE_RETRY) => {}
                }
            } else if !told && *self.parts.database_health.borrow() == DatabaseHealth::Up {
                tracing::info!(
                    "another collector owns the platform, or one that was killed did until now; waiting"
                );
                told = true;
            }
        }
        None
    }

    /// Waits until the platform is to be taken; false when it was not within [`LEASE_RETRY`], so that the loop turns
    /// also while another collector owns it or the database is away.
    async fn is_due(&self, standing: &mut watch::Receiver<Standing>, stopping: &CancellationToken) -> bool {
        let name = &self.parts.wanted.platform.name;
        let due = async {
            let due = standing.wait_for(|standing| standing.take.contains(name));
            if due.await.is_err() {
                // Nobody says any more: everything stops.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => false,
            due = tokio::time::timeout(LEASE_RETRY, due) => due.is_ok(),
        }
    }

    async fn try_lease(&self) -> Result<Option<Lease>, store::Error> {
        let Parts {
            wanted,
            database,
            owner,
            ..
        } = &self.parts;
        let address = Address::of(&wanted.platform);
        let Some(id) = wanted.registered else {
            let name = &wanted.platform.name;
            let Some(id) = database.provision_platform(name, &address).await? else {
                // Paused: the registry's loop stops it in a moment.
                return Ok(None);
            };
            let lease = database.acquire_lease(id, owner).await?;
            if let Some(lease) = &lease
                && database.describe_platform(lease, &address).await?
            {
                tracing::warn!(
                    "config.toml has taken the platform over from the registry, its password is forgotten"
                );
            }
            return Ok(lease);
        };
        // What is known here may be old: the registry's loop is told in a moment.
        if !database.is_current(id, wanted.revision).await? {
            return Ok(None);
        }
        database.acquire_lease(id, owner).await
    }

    /// Runs every loop until the tasks stop, the lease is lost, or the platform is to be handed over.
    async fn collect(&self, lease: Lease, tasks: &Tasks) {
        let group = tasks.child();
        let lost = CancellationToken::new();
        // Sessions of its own for each term of the lease: those of the one before are logged out.
        let options = vsphere::Options::new(&self.parts.wanted.platform, &self.parts.collection);
        let vsphere = match Vsphere::within(options, self.parts.share.clone()) {
            Ok(vsphere) => vsphere,
            Err(error) => {
                let reason = Chain(&error).to_string();
                tracing::error!(error = %reason, "the platform cannot be collected until this is mended");
                let status = PlatformStatus {
                    reason: Some(reason),
                    ..PlatformStatus::of(PlatformState::Error(error.class()))
                };
                platform_status(&self.parts.wanted.platform.name, status.state);
                if let Err(error) = self.parts.database.set_status(&lease, &status).await {
                    tracing::debug!(error = %Chain(&error), "cannot write the platform's status");
                }
                self.release(&lease).await;
                stopping_or(&group, SETTINGS_RETRY).await;
                return;
            }
        };
        self.start_loops(&lease, &vsphere, &group, &lost);
        let stopping = group.stopping();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = lost.cancelled() => tracing::warn!("the lease is void: another collector has taken the platform, or the database was started again"),
            () = self.asked_to_hand_over() => tracing::info!("handing the platform over to a collector that has fewer"),
        }
        group.stop();
        let hanging = group.join(LOOPS_DEADLINE).await;
        if !hanging.is_empty() {
            tracing::error!(tasks = hanging.join(", "), "tasks did not end in time");
        }
        let farewell = async {
            vsphere.close(LOGOUT_DEADLINE).await;
            if !lost.is_cancelled() {
                let gone = PlatformStatus::of(PlatformState::Disconnected);
                if let Err(error) = self.parts.database.set_status(&lease, &gone).await {
                    tracing::debug!(error = %Chain(&error), "cannot note the platform as disconnected");
                }
                self.release(&lease).await;
            }
        };
        if tokio::time::timeout(FAREWELL_DEADLINE, farewell).await.is_err() {
            tracing::warn!("logging out took too long; the server ends idle sessions itself");
        }
        // Whether it is well is for its next owner to say.
        self.health.send_replace(live::Health::Unknown);
    }

    async fn asked_to_hand_over(&self) {
        let name = &self.parts.wanted.platform.name;
        let mut standing = self.parts.standing.clone();
        let asked = standing.wait_for(|standing| standing.give.as_ref() == Some(name));
        if asked.await.is_err() {
            // Nobody asks any more: everything stops.
            std::future::pending::<()>().await;
        }
    }

    async fn release(&self, lease: &Lease) {
        if let Err(error) = self.parts.database.release_lease(lease).await {
            tracing::warn!(error = %Chain(&error), "cannot release the platform; it is free in 30 s");
        }
    }

    fn start_loops(&self, lease: &Lease, vsphere: &Vsphere, group: &Tasks, lost: &CancellationToken) {
        let Parts {
            wanted,
            collection,
            attributes,
            database,
            writers,
            rollup_turns,
            share,
            asked,
            clock,
            ..
        } = &self.parts;
        let name = &wanted.platform.name;
        let (queue, batches) = Queue::new();
        let (readiness, ready) = watch::channel(Readiness::default());
        let (inventory, known) = watch::channel(None);
        let (discovery_health, discovery_seen) = watch::channel(inventory::Health::Unknown);
        let watermarks = Arc::new(Watermarks::default());
        let placements = Arc::new(Placements::default());
        let gaps_opened = Arc::new(Bells::default());
        let source = Source {
            vsphere: vsphere.clone(),
            share: share.clone(),
            metrics: self.metrics.clone(),
            told: Arc::default(),
        };
        let stopping = || group.stopping();
        // The flush loop ends last: it is asked to when the lanes have gone and the queue is empty.
        let spawn = |what: &str, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            group.spawn(
                format!("{what} {name}"),
                task.instrument(tracing::Span::current()),
            );
        };

        let flush = FlushLoop {
            lease: lease.clone(),
            database: database.clone(),
            writers: writers.clone(),
            watermarks: Arc::clone(&watermarks),
            batches,
            readiness,
            gaps_opened: Arc::clone(&gaps_opened),
            lost: lost.clone(),
            metrics: self.metrics.clone(),
            database_metrics: DatabaseMetrics::new(),
        };
        spawn("flush", Box::pin(flush.run(stopping())));

        let rollups = Rollups {
            lease: lease.clone(),
            database: database.clone(),
            turns: rollup_turns.clone(),
            triggered: self.rollups.clone(),
            lost: lost.clone(),
            metrics: RollupMetrics::new(name),
            database_metrics: DatabaseMetrics::new(),
        };
        spawn("rollups", Box::pin(rollups.run(stopping())));

        let discovery = Discovery {
            lease: lease.clone(),
            interval: collection.discovery_interval,
            confirm: inventory::CONFIRM,
            filter: wanted.platform.filter.clone(),
            attributes: attributes.clone(),
            vsphere: vsphere.clone(),
            database: database.clone(),
            inventory,
            health: discovery_health,
            triggered: self.discovery.clone(),
            lost: lost.clone(),
            metrics: self.metrics.clone(),
        };
        spawn("discovery", Box::pin(discovery.run(stopping())));

        let live = LiveLane {
            platform: name.clone(),
            interval: collection.interval,
            parallel_requests: collection.parallel_requests,
            entities_per_request: collection.entities_per_request,
            source: source.clone(),
            database: database.clone(),
            watermarks,
            queue: queue.clone(),
            readiness: ready.clone(),
            inventory: known.clone(),
            placements: Arc::clone(&placements),
            triggered: self.live.clone(),
            health: self.health.clone(),
            clock: Arc::clone(clock),
            last_reading: Mutex::default(),
        };
        spawn("live", Box::pin(live.run(stopping())));

        for (lane, triggered) in [(GapLane::Ring, &self.ring), (GapLane::Rollup, &self.rollup)] {
            let back_fill = BackFill {
                lane,
                platform: lease.platform,
                source: source.clone(),
                database: database.clone(),
                queue: queue.clone(),
                readiness: ready.clone(),
                inventory: known.clone(),
                gaps_opened: Arc::clone(&gaps_opened),
                placements: Arc::clone(&placements),
                triggered: triggered.clone(),
                told_of_none: OnceLock::new(),
            };
            spawn(
                &format!("back-fill {}", lane.as_str()),
                Box::pin(back_fill.run(stopping())),
            );
        }
        // The flush loop ends when the last lane has gone.
        drop(queue);

        let operate = Operate {
            lease: lease.clone(),
            database: database.clone(),
            vsphere: vsphere.clone(),
            asked: asked.clone(),
            sent: Arc::clone(&self.sent),
            lost: lost.clone(),
            metrics: self.metrics.clone(),
        };
        spawn("operations", Box::pin(operate.run(stopping())));

        let status = Status {
            platform: name.clone(),
            lease: lease.clone(),
            database: database.clone(),
            discovery: discovery_seen,
            live: self.health.subscribe(),
        };
        spawn("status", Box::pin(status.run(stopping())));

        let renewal = Renewal {
            lease: lease.clone(),
            database: database.clone(),
            lost: lost.clone(),
            turned: Arc::clone(&self.turned),
            clock: Arc::clone(clock),
        };
        spawn("lease", Box::pin(renewal.run(stopping())));
    }

    fn turn(&self) {
        self.turned
            .store(self.parts.clock.now().micros(), Ordering::Relaxed);
    }
}

async fn stopping_or(group: &Tasks, time: Duration) {
    let stopping = group.stopping();
    tokio::select! {
        () = stopping.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// Keeps the lease. A database that is away is no loss: whoever takes the platform meanwhile fences this collector,
/// and where nobody does, it goes on.
#[derive(Debug)]
struct Renewal {
    lease: Lease,
    database: Database,
    lost: CancellationToken,
    turned: Arc<AtomicI64>,
    clock: Arc<dyn WallClock>,
}

impl Renewal {
    async fn run(self, stopping: CancellationToken) {
        let mut failing = false;
        let seed = u64::try_from(self.clock.now().micros()).unwrap_or(1);
        let seed = seed ^ u64::try_from(self.lease.platform.0).unwrap_or(1).rotate_left(32);
        let mut retry = Backoff::new(RENEWAL_RETRY, LONGEST_RENEWAL_RETRY, seed);
        loop {
            self.turned.store(self.clock.now().micros(), Ordering::Relaxed);
            let wait = if failing { retry.next_wait() } else { RENEWAL };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match self.database.renew_lease(&self.lease).await {
                Ok(()) => {
                    failing = false;
                    retry.reset();
                }
                Err(error) if error.class().ends_term() => {
                    self.lost.cancel();
                    stopping.cancelled().await;
                    return;
                }
                // Told once per outage: the database's own loop tells when it is over.
                Err(error) if !failing && !error.is_outage() => {
                    failing = true;
                    tracing::warn!(error = %Chain(&error), "cannot renew the lease; trying again");
                }
                Err(error) => {
                    failing = true;
                    tracing::debug!(error = %Chain(&error), "cannot renew the lease");
                }
            }
        }
    }
}
