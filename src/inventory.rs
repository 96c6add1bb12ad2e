//! Keeps a platform's hosts and VMs in the database and tells collection who there is.
//!
//! Owns: the discovery loop of one platform: greet the server, hold its identity against the pinned one, read all
//! hosts and VMs, store them, publish them by `watch`. Never does: deciding who is polled; removing anything because
//! of an empty answer.
//!
//! Tasks: one loop per platform.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Ticker;
use crate::error::Chain;
use crate::error::Disposition;
use crate::model::inventory::KnownInventory;
use crate::retry::Backoff;
use crate::store;
use crate::store::Database;
use crate::store::Pinned;
use crate::store::lease::Lease;
use crate::supervise::trigger::Triggered;
use crate::telemetry::metrics::PlatformMetrics;
use crate::vsphere;
use crate::vsphere::About;
use crate::vsphere::Vsphere;

/// The longest wait after a failure, so that a vCenter that returns is found soon; a refused login waits as long as
/// the session pool says.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The discovery loop of one platform.
#[derive(Debug)]
pub struct Discovery {
    /// The fence of everything it writes.
    pub lease: Lease,
    /// Time between two readings.
    pub interval: Duration,
    /// Whom to ask.
    pub vsphere: Vsphere,
    /// Where hosts and VMs are kept.
    pub database: Database,
    /// Who there is; `None` until the first reading.
    pub inventory: watch::Sender<Option<Arc<KnownInventory>>>,
    /// Told how each reading went.
    pub health: watch::Sender<Health>,
    /// Cancelled when the platform turns out to be another collector's.
    pub lost: CancellationToken,
    /// Readings out of turn.
    pub triggered: Triggered<DiscoveryReport>,
    /// Counts.
    pub metrics: PlatformMetrics,
}

/// What a reading did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoveryReport {
    /// Why it did not succeed.
    pub error: Option<String>,
}

/// How the last reading went, for the platform's status.
#[derive(Debug, Clone, Default)]
pub enum Health {
    /// None yet.
    #[default]
    Unknown,
    /// Well, from this server.
    Well(Arc<About>),
    /// Not.
    Failed(Arc<Error>),
}

/// Why hosts and VMs could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform.
    #[error(transparent)]
    Source(#[from] vsphere::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Another server answers than the one whose objects are stored: a rebuilt vCenter uses the same references for
    /// other objects.
    #[error(
        "this is another server ({found}) than the one whose objects are stored ({stored}); nothing is collected. \
         If it replaces it on purpose, add it as a platform with a new name"
    )]
    Identity {
        /// What answers.
        found: String,
        /// What is stored.
        stored: String,
    },
}

impl Discovery {
    /// Reads until `stopping`.
    pub async fn run(self, stopping: CancellationToken) {
        // The phase does not matter: readings are rare.
        let mut ticker = Ticker::new(self.interval, Duration::ZERO);
        let seed = u64::try_from(self.lease.platform.0).unwrap_or(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_WAIT, seed);
        let mut unusable = Vec::new();
        loop {
            let mut reply = tokio::select! {
                () = stopping.cancelled() => return,
                reply = self.triggered.asked() => Some(reply),
                _ = ticker.tick() => None,
            };
            loop {
                let started = Instant::now();
                let result = tokio::select! {
                    () = stopping.cancelled() => return,
                    result = self.read(&mut unusable) => result,
                };
                self.metrics.discovery.polled(result.is_ok(), started.elapsed());
                let report = DiscoveryReport {
                    error: result.as_ref().err().map(|error| Chain(error).to_string()),
                };
                // Only the first attempt is waited for.
                if let Some(reply) = reply.take() {
                    reply.send(report).ok();
                }
                let error = match result {
                    Ok(about) => {
                        self.health.send_replace(Health::Well(Arc::new(about)));
                        backoff.reset();
                        break;
                    }
                    Err(error) => error,
                };
                if let Error::Store(error) = &error {
                    if error.class() == store::Class::Fenced {
                        self.lost.cancel();
                        stopping.cancelled().await;
                        return;
                    }
                    tracing::warn!(error = %Chain(error), "cannot store hosts and VMs; trying again");
                }
                let wait = self.wait(&error, &mut backoff);
                self.health.send_replace(Health::Failed(Arc::new(error)));
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }

    fn wait(&self, error: &Error, backoff: &mut Backoff) -> Duration {
        match error {
            Error::Source(error) => match error.disposition() {
                Disposition::RetryAfter(wait) => wait,
                // A person has to act; looking once a minute finds out when it is done.
                Disposition::Permanent => LONGEST_WAIT.min(self.interval),
                _ => backoff.next_wait(),
            },
            Error::Identity { .. } => LONGEST_WAIT.min(self.interval),
            Error::Store(_) => backoff.next_wait(),
        }
    }

    async fn read(&self, told: &mut Vec<String>) -> Result<About, Error> {
        let about = self.vsphere.connect().await?;
        match self.database.pin_identity(&self.lease, &about.identity).await? {
            Pinned::First | Pinned::Same => {}
            Pinned::Other(stored) => {
                return Err(Error::Identity {
                    found: about.identity,
                    stored,
                });
            }
        }
        let server_now = self.vsphere.server_time().await?;
        let found = self.vsphere.discover().await?;
        let known = self
            .database
            .sync_inventory(&self.lease, &found, server_now)
            .await?;
        let first = self.inventory.borrow().is_none();
        if first {
            tracing::info!(
                server = %about.full_name,
                n_hosts = known.hosts.len(),
                n_vms = known.vms.len(),
                "connected"
            );
        }
        let counters = self.vsphere.counters().await?;
        let unusable: Vec<String> = counters.unusable().iter().map(ToString::to_string).collect();
        if *told != unusable {
            if !unusable.is_empty() {
                tracing::warn!(
                    counters = unusable.join(", "),
                    "counters that this server cannot give; their columns stay NULL"
                );
            }
            *told = unusable;
        }
        self.inventory.send_replace(Some(Arc::new(known)));
        Ok(about)
    }
}
