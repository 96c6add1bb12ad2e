//! Keeps a platform's objects in the database and tells collection who there is.
//!
//! Owns: the loop of one platform: greet the server, hold its identity against the pinned one, read everything once,
//! then store what changes as the server tells it; read again at intervals what changes without a word; publish hosts
//! and VMs by `watch`. `resolve` turns what the server tells into records; `trial` looks around before a platform is
//! kept. Never does: deciding who is polled.
//!
//! Tasks: one loop per platform.
//!
//! Invariants:
//! - An object is gone when the server says that it has left, or when two complete readings a minute apart lack it:
//!   a vCenter that is starting shows a part of what it has. While there is no host at all nothing is gone.
//! - What the filter turns away is as if it were not there: gone when the server tells of a new name or place, and when
//!   the filter itself was changed after two complete readings. A filter that takes nothing removes nothing.
//! - After any failure, of server or database, everything is read again: what was told meanwhile is lost.

mod absent;
pub mod resolve;
mod trial;

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::absent::Absent;
use self::resolve::Found;
use self::resolve::Resolver;
use crate::error::Chain;
use crate::error::Disposition;
use crate::model::filter::Filter;
use crate::model::ids::MoRef;
use crate::model::inventory::KnownHost;
use crate::model::inventory::KnownInventory;
use crate::model::inventory::KnownVm;
use crate::retry::Backoff;
use crate::store;
use crate::store::Database;
use crate::store::Pinned;
use crate::store::lease::Lease;
use crate::supervise::trigger::Triggered;
use crate::telemetry::metrics::PlatformMetrics;
use crate::telemetry::seldom::Seldom;
use crate::units::Stamp;
use crate::vsphere;
use crate::vsphere::About;
use crate::vsphere::Tracker;
use crate::vsphere::Vsphere;
use crate::vsphere::mirror::Changes;
use crate::vsphere::mirror::Mirror;
use crate::vsphere::objects::Body;

pub use self::trial::Trial;
pub use self::trial::reason as trial_reason;
pub use self::trial::try_platform;

/// The longest wait after a failure, so that a vCenter that returns is found soon. Where the session pool lets nobody
/// in for longer, asking sends nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One wait for changes. Each change ends it at once; the rest is for servers that drop quiet connections.
const ONE_WAIT: Duration = Duration::from_secs(20);

/// Changes come in bursts: a clone is a dozen. So long they are gathered.
const GATHER: Duration = Duration::from_millis(500);

/// An object that a complete reading lacks is looked for once more after this time.
pub const CONFIRM: Duration = Duration::from_secs(60);

/// Everything is read anew so often, whatever was told: the server might have forgotten to tell.
const RECONCILE: Duration = Duration::from_secs(6 * 3600);

/// The inventory loop of one platform.
#[derive(Debug)]
pub struct Discovery {
    /// The fence of everything it writes.
    pub lease: Lease,
    /// Time between two readings of what changes without a word.
    pub interval: Duration,
    /// Time after which an object that is missing is looked for again: [`CONFIRM`].
    pub confirm: Duration,
    /// What of it is stored and polled.
    pub filter: Filter,
    /// Names of the custom attributes that are stored.
    pub attributes: Vec<String>,
    /// Whom to ask.
    pub vsphere: Vsphere,
    /// Where objects are kept.
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

/// Why objects could not be read or stored.
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
         If it replaces it on purpose: virt-collector platform accept-identity NAME (with --keep-objects if it is the \
         same inventory, restored)"
    )]
    Identity {
        /// What answers.
        found: String,
        /// What is stored.
        stored: String,
    },
}

impl Error {
    fn is_lost_session(&self) -> bool {
        matches!(self, Self::Source(error) if error.disposition() == Disposition::Relogin)
    }
}

/// Who asked for a reading out of turn.
type Asked = Option<oneshot::Sender<DiscoveryReport>>;

/// What the loop knows, over all sessions of its term.
#[derive(Debug, Default)]
struct State {
    hosts: HashMap<MoRef, KnownHost>,
    vms: HashMap<MoRef, KnownVm>,
    absent: Absent,
    /// Changes are followed, or were until the failure that is being dealt with.
    is_following: bool,
    /// The last complete reading held everything that is stored.
    is_whole: bool,
    /// The last complete reading held nothing: the server is starting.
    shows_nothing: bool,
    /// Datacenters of the filter that are not there, as told.
    unknown: Vec<String>,
    /// Counters that the server cannot give, as told.
    unusable: Vec<String>,
    /// Other platforms that collect the same server, as told.
    twins: Vec<String>,
    asked: Asked,
}

impl State {
    fn learn(&mut self, known: KnownInventory) {
        let hosts = known.hosts.into_iter();
        self.hosts
            .extend(hosts.map(|known| (known.host.moref.clone(), known)));
        let vms = known.vms.into_iter();
        self.vms.extend(vms.map(|known| (known.vm.moref.clone(), known)));
    }

    /// Whether the filter, which took something until now, takes nothing any more: rather a datacenter or folder was
    /// renamed than all of it removed.
    fn would_be_left_with_nothing(&self, changed: &Found) -> bool {
        let away: HashSet<&MoRef> = changed.turned_away.iter().collect();
        let is_left = |moref: &MoRef| !away.contains(moref);
        let nothing = !away.is_empty()
            && changed.inventory.is_empty()
            && !self.hosts.keys().any(is_left)
            && !self.vms.keys().any(is_left);
        if nothing {
            tracing::warn!(
                "the filter takes no host and no VM of this server any more; nothing is taken for removed"
            );
        }
        nothing
    }

    fn forget(&mut self, gone: &MoRef) {
        self.hosts.remove(gone);
        self.vms.remove(gone);
    }

    fn known(&self) -> KnownInventory {
        let mut hosts: Vec<KnownHost> = self.hosts.values().cloned().collect();
        hosts.sort_unstable_by_key(|known| known.id);
        let mut vms: Vec<KnownVm> = self.vms.values().cloned().collect();
        vms.sort_unstable_by_key(|known| known.id);
        KnownInventory { hosts, vms }
    }

    fn answer(&mut self, error: Option<&Error>) {
        if let Some(asked) = self.asked.take() {
            let error = error.map(|error| Chain(error).to_string());
            // Who asked may have gone.
            asked.send(DiscoveryReport { error }).ok();
        }
    }
}

impl Discovery {
    /// Follows the platform until `stopping`.
    pub async fn run(self, stopping: CancellationToken) {
        let seed = u64::try_from(self.lease.platform.0).unwrap_or(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_WAIT, seed);
        let mut state = State::default();
        let mut told = Seldom::default();
        loop {
            let result = tokio::select! {
                // Whatever is on the server ends with the session, which is logged out.
                () = stopping.cancelled() => return,
                result = self.follow(&mut state, &mut backoff) => result,
            };
            let Err(error) = result else { continue };
            state.answer(Some(&error));
            if let Error::Store(error) = &error {
                if error.class().ends_term() {
                    self.lost.cancel();
                    stopping.cancelled().await;
                    return;
                }
                if !error.is_outage()
                    && let Some(repeated) = told.due((), Instant::now())
                {
                    let repeated = (repeated > 0).then_some(repeated);
                    tracing::warn!(error = %Chain(error), repeated, "cannot store the inventory; trying again");
                }
            }
            let wait = self.wait(&error, &mut backoff);
            // A session that ends is replaced in a moment; only where that fails is there anything to tell.
            let is_routine = state.is_following && error.is_lost_session();
            if !is_routine {
                self.health.send_replace(Health::Failed(Arc::new(error)));
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                asked = self.triggered.asked() => state.asked = Some(asked),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn wait(&self, error: &Error, backoff: &mut Backoff) -> Duration {
        match error {
            Error::Source(error) => match error.disposition() {
                // A person has to act, on a refused password too; looking once a minute finds out when it is done.
                Disposition::RetryAfter(wait) => wait.min(LONGEST_WAIT).min(self.interval),
                Disposition::Permanent => LONGEST_WAIT.min(self.interval),
                _ => backoff.next_wait(),
            },
            Error::Identity { .. } => LONGEST_WAIT.min(self.interval),
            Error::Store(_) => backoff.next_wait(),
        }
    }

    /// Reads everything and stores what changes from then on, until it is time to read everything again.
    async fn follow(&self, state: &mut State, backoff: &mut Backoff) -> Result<(), Error> {
        let started = Instant::now();
        state.is_following = false;
        let begun = self.begin(state).await;
        self.metrics.discovery.polled(begun.is_ok(), started.elapsed());
        let mut tracker = begun?;
        backoff.reset();
        state.is_following = true;
        state.answer(None);
        match self.keep(&mut tracker, state).await {
            Ok(()) => {
                tracker.stop().await;
                Ok(())
            }
            Err(error) => {
                if let Error::Source(error) = &error {
                    tracker.give_up(error);
                }
                Err(error)
            }
        }
    }

    async fn begin(&self, state: &mut State) -> Result<Tracker, Error> {
        let begun = self.database.clock().await?;
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
        self.tell_twins(&about, state).await?;
        let tracker = self.vsphere.track(!self.attributes.is_empty()).await?;
        self.tell_unknown(&tracker, state);
        self.store_all(&tracker, begun, state).await?;
        self.tell_unusable(state).await?;
        let first = self.inventory.borrow().is_none();
        if first {
            tracing::info!(
                server = %about.full_name,
                n_hosts = state.hosts.len(),
                n_vms = state.vms.len(),
                "connected"
            );
        }
        self.publish(state);
        self.health.send_replace(Health::Well(Arc::new(about)));
        Ok(tracker)
    }

    async fn tell_twins(&self, about: &About, state: &mut State) -> Result<(), Error> {
        let twins = self.database.twins(self.lease.platform, &about.identity).await?;
        if state.twins != twins {
            if !twins.is_empty() {
                tracing::warn!(
                    others = twins.join(", "),
                    "other platforms collect this server, too: its objects and samples are stored more than once"
                );
            }
            state.twins = twins;
        }
        Ok(())
    }

    fn tell_unknown(&self, tracker: &Tracker, state: &mut State) {
        let (unknown, shown) = resolve::unknown_datacenters(tracker.mirror(), &self.filter);
        if state.unknown != unknown {
            if !unknown.is_empty() {
                tracing::warn!(
                    unknown = unknown.join(", "),
                    shown = shown.join(", "),
                    "the filter names datacenters that the server does not show; correct it, or the account's rights"
                );
            }
            state.unknown = unknown.into_iter().map(ToOwned::to_owned).collect();
        }
    }

    async fn tell_unusable(&self, state: &mut State) -> Result<(), Error> {
        let counters = self.vsphere.counters().await?;
        let unusable: Vec<String> = counters.unusable().iter().map(ToString::to_string).collect();
        if state.unusable != unusable {
            if !unusable.is_empty() {
                tracing::warn!(
                    counters = unusable.join(", "),
                    "counters that this server cannot give; their columns stay NULL"
                );
            }
            state.unusable = unusable;
        }
        Ok(())
    }

    /// Stores changes as they are told, and what is read at intervals.
    async fn keep(&self, tracker: &mut Tracker, state: &mut State) -> Result<(), Error> {
        let begun = Instant::now();
        let mut read_at = begun + self.interval;
        let mut anew_at = begun
            + if state.absent.is_empty() && !state.shows_nothing {
                RECONCILE
            } else {
                self.confirm
            };
        loop {
            let next = read_at.min(anew_at).saturating_duration_since(Instant::now());
            let longest = ONE_WAIT.min(next);
            let changes = tracker
                .wait(longest, async {
                    state.asked = Some(self.triggered.asked().await)
                })
                .await?;
            if !changes.is_empty() {
                let held_back = self.apply(tracker, changes, state).await?;
                if held_back {
                    anew_at = anew_at.min(Instant::now() + self.confirm);
                }
                tokio::time::sleep(GATHER).await;
            }
            if state.asked.is_some() || Instant::now() >= read_at {
                let started = Instant::now();
                let read = self.read_again(tracker, state).await;
                self.metrics.discovery.polled(read.is_ok(), started.elapsed());
                read?;
                read_at = started + self.interval;
                state.answer(None);
            }
            if Instant::now() >= anew_at {
                return Ok(());
            }
        }
    }

    async fn read_again(&self, tracker: &mut Tracker, state: &mut State) -> Result<(), Error> {
        let begun = self.database.clock().await?;
        let told = tracker.look().await?;
        self.apply(tracker, told, state).await?;
        let read = tracker.reread().await?;
        self.apply(tracker, read, state).await?;
        let server_now = self.vsphere.server_time().await?;
        self.database
            .store_capacity(&self.lease, server_now, begun)
            .await?;
        Ok(())
    }

    /// Stores changes; true if objects were held back that the server says have gone.
    async fn apply(&self, tracker: &Tracker, changes: Changes, state: &mut State) -> Result<bool, Error> {
        if changes.is_empty() {
            return Ok(false);
        }
        let mirror = tracker.mirror();
        let changed = self.resolver(mirror).changed(&changes);
        let has_host = mirror.iter().any(|(_, item)| matches!(item.body, Body::Host(_)));
        let mut gone: Vec<MoRef> = changes.left.into_iter().collect();
        // While objects are missing, what is there may seem to be in another place.
        if state.is_whole && !state.would_be_left_with_nothing(&changed) {
            gone.extend(changed.turned_away);
        }
        let held_back = !has_host && !gone.is_empty();
        if held_back {
            tracing::warn!("the server shows no host any more; nothing is taken for removed");
            gone.clear();
        }
        let server_now = self.vsphere.server_time().await?;
        let known = self
            .database
            .store_changes(&self.lease, &changed.inventory, &gone, server_now)
            .await?;
        state.learn(known);
        for moref in &gone {
            state.forget(moref);
        }
        self.publish(state);
        Ok(held_back)
    }

    /// Stores a complete reading. What it lacks is gone only if the one before lacked it, too.
    async fn store_all(&self, tracker: &Tracker, begun: Stamp, state: &mut State) -> Result<(), Error> {
        let found = self.resolver(tracker.mirror()).all().inventory;
        state.is_whole = false;
        state.shows_nothing = false;
        if found.is_empty() {
            if found.other_hosts {
                tracing::warn!(
                    "the filter takes no host and no VM of this server; nothing is taken for removed"
                );
                let server_now = self.vsphere.server_time().await?;
                self.database
                    .store_capacity(&self.lease, server_now, begun)
                    .await?;
                return Ok(());
            }
            state.shows_nothing = true;
            if !state.hosts.is_empty() || !state.vms.is_empty() {
                tracing::warn!("the server shows neither hosts nor VMs; nothing is taken for removed");
            }
            return Ok(());
        }
        let there = resolve::references(&found);
        let stored = self.database.stored_objects(self.lease.platform).await?;
        let confirmed =
            state.absent.read(stored, &there, Instant::now(), self.confirm) && found.shows_hosts();
        let server_now = self.vsphere.server_time().await?;
        let (database, lease) = (&self.database, &self.lease);
        let known = if confirmed {
            database.sync_inventory(lease, &found, server_now).await?
        } else {
            tracing::warn!(
                n_objects = state.absent.len(),
                "stored objects are missing, or the filter leaves them out; looking again in a minute"
            );
            database.store_changes(lease, &found, &[], server_now).await?
        };
        database.store_capacity(lease, server_now, begun).await?;
        if confirmed {
            state.absent.clear();
        }
        let State {
            hosts, vms, absent, ..
        } = state;
        let may_be_there = |moref: &MoRef| there.contains(moref) || absent.holds(moref);
        hosts.retain(|moref, _| may_be_there(moref));
        vms.retain(|moref, _| may_be_there(moref));
        state.is_whole = confirmed;
        state.learn(known);
        Ok(())
    }

    fn resolver<'a>(&'a self, mirror: &'a Mirror) -> Resolver<'a> {
        Resolver::new(mirror, &self.filter, &self.attributes)
    }

    fn publish(&self, state: &State) {
        self.inventory.send_replace(Some(Arc::new(state.known())));
    }
}
