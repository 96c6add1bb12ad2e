//! A vCenter or ESXi host in the collector's terms: who is there, which samples it has.
//!
//! Owns: [`Vsphere`], the handle of one platform; counters by name, discovery, planning of queries, and the
//! decoder from wire to rows.
//! Never does: deciding whom to poll when, retrying beyond one new session, storing anything, keeping tasks.
//!
//! In reading order: [`plan`] (targets and what asking for them costs), [`Vsphere::query`], [`perf`] (the answer
//! becomes windows), [`counters`] (which id feeds which column), [`rollups`] (what is kept beyond the hour),
//! [`tracker`] (what there is and what changes: it keeps a [`mirror`] of [`objects`]), `discovery`, [`actions`] (what
//! is done to a VM, once).
//!
//! Invariants:
//! 1. What belongs to a login (counter ids) is used in that login only: after a new one, possibly to an upgraded
//!    or rebuilt server, the list of counters is read again and the identity compared before anything is asked.
//! 2. Windows are made in [`perf`] and nowhere else.

pub mod actions;
pub mod counters;
mod discovery;
pub mod mirror;
pub mod objects;
pub mod perf;
pub mod plan;
pub mod rollups;
pub mod tracker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Permit;
use crate::budget::Share;
use crate::config;
use crate::config::PlatformKind;
use crate::error::Disposition;
use crate::model::ids::EntityKind;
use crate::model::ids::MoRef;
use crate::model::inventory::Inventory;
use crate::model::status::ErrorClass;
use crate::soap;
use crate::soap::Object;
use crate::soap::ProviderSummary;
use crate::soap::Stats;
use crate::soap::error::SessionLost;
use crate::soap::methods;
use crate::soap::methods::perf::QuerySpec;
use crate::soap::pool;
use crate::soap::pool::Pinned;
use crate::soap::pool::Pool;
use crate::units::REALTIME_SECONDS;
use crate::units::Stamp;

pub use counters::Counters;
pub use counters::Selection;
pub use counters::Unusable;
pub use perf::DecodeCounts;
pub use perf::Reply;
pub use plan::Batch;
pub use plan::Bounds;
pub use plan::Cost;
pub use plan::Estimator;
pub use plan::InstanceCounts;
pub use plan::Target;
pub use rollups::Rollups;
pub use tracker::Tracker;

/// Longer than any window that is asked for without an end: samples are kept for an hour, roll-ups for a day.
const LONGEST_WINDOW: Duration = Duration::from_secs(25 * 3600);

/// After an answer with counters that were not asked for, the list is read again, but not more often than this.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// How to reach a platform and what to ask it for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address, account, trust and limits.
    pub pool: pool::Options,
    /// Which counters.
    pub selection: Selection,
}

impl Options {
    /// From the configuration.
    #[must_use]
    pub fn new(platform: &config::Platform, collection: &config::Collection) -> Self {
        Self {
            pool: pool::Options::new(platform, collection),
            selection: Selection {
                host_disk: collection.host_disk,
                skip_host: collection.skip_host_counters.clone(),
                skip_vm: collection.skip_vm_counters.clone(),
            },
        }
    }
}

/// What a platform turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// vCenter or ESXi.
    pub kind: PlatformKind,
    /// Product, version and build, for people.
    pub full_name: String,
    /// `8.0.3`.
    pub version: String,
    /// `24022515`.
    pub build: String,
    /// The version of the API that the server offers at most.
    pub api_version: String,
    /// What makes this machine this machine: `about.instanceUuid` of a vCenter, the hardware UUID of an ESXi
    /// host.
    pub identity: String,
}

/// Why a platform did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error(transparent)]
    Soap(#[from] soap::Error),
    /// A query for samples failed.
    #[error("the query for samples of {entities} entities failed")]
    Query {
        /// How many entities it was about.
        entities: usize,
        /// Why.
        #[source]
        source: soap::Error,
    },
    /// The call of an action failed. It may have been done all the same: [`Error::is_answer_lost`].
    #[error("the action failed")]
    Action(#[source] soap::Error),
    /// The server at this address is no longer the same machine.
    #[error(
        "the server's identity changed from {was} to {is}: another machine, or rebuilt; if it is meant to replace the old one, accept its identity"
    )]
    IdentityChanged {
        /// Identity at first contact.
        was: String,
        /// Identity now.
        is: String,
    },
    /// The server has nothing to know it by.
    #[error(
        "the server does not tell its identity ({wanted} is unset); the account needs the Read-only role on the root folder"
    )]
    NoIdentity {
        /// The property that is unset.
        wanted: &'static str,
    },
    /// More objects than any server has.
    #[error(
        "the inventory has more than {} MiB, which is more than any vCenter has; is this one?", most >> 20
    )]
    Flood {
        /// What is kept of an inventory.
        most: usize,
    },
}

impl From<mirror::Overfull> for Error {
    fn from(mirror::Overfull { most }: mirror::Overfull) -> Self {
        Self::Flood { most }
    }
}

impl Error {
    /// What the caller should do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Soap(error) | Self::Action(error) => error.disposition(),
            // Nothing is left to split: the one entity is the culprit.
            Self::Query {
                entities: 0 | 1,
                source,
            } if source.disposition() == Disposition::Split => Disposition::SkipEntity,
            Self::Query { source, .. } => source.disposition(),
            Self::Flood { .. } => Disposition::Retry,
            Self::IdentityChanged { .. } | Self::NoIdentity { .. } => Disposition::Permanent,
        }
    }

    /// The class of this failure, for the platform's status.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Soap(source) | Self::Action(source) | Self::Query { source, .. } => source.class(),
            Self::Flood { .. } => ErrorClass::Unreachable,
            Self::IdentityChanged { .. } | Self::NoIdentity { .. } => ErrorClass::Identity,
        }
    }

    /// A word from a closed set for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Soap(source) | Self::Action(source) | Self::Query { source, .. } => source.label(),
            Self::Flood { .. } => "too_large",
            Self::IdentityChanged { .. } | Self::NoIdentity { .. } => "identity",
        }
    }

    /// The answer was larger than it may be: asking for less may help.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::Soap(source) | Self::Action(source) | Self::Query { source, .. } => source.is_too_large(),
            Self::IdentityChanged { .. } | Self::NoIdentity { .. } | Self::Flood { .. } => false,
        }
    }

    /// True where the call of an action may have been done although there is no answer.
    #[must_use]
    pub fn is_answer_lost(&self) -> bool {
        matches!(self, Self::Action(source) if source.is_answer_lost())
    }

    /// The fault, where the server sent one: it may name the entity.
    #[must_use]
    pub fn fault(&self) -> Option<&soap::fault::Fault> {
        match self {
            Self::Soap(source) | Self::Action(source) | Self::Query { source, .. } => source.fault(),
            Self::IdentityChanged { .. } | Self::NoIdentity { .. } | Self::Flood { .. } => None,
        }
    }
}

impl SessionLost for Error {
    fn session_lost(&self) -> bool {
        self.disposition() == Disposition::Relogin
    }

    fn found_in_answer(&self) -> Option<&'static str> {
        match self {
            Self::Soap(source) | Self::Action(source) | Self::Query { source, .. } => {
                source.found_in_answer()
            }
            Self::IdentityChanged { .. } | Self::NoIdentity { .. } | Self::Flood { .. } => None,
        }
    }
}

/// One platform. Clones share its sessions.
#[derive(Debug, Clone)]
pub struct Vsphere {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    page_bytes: usize,
    share: Option<Share>,
    selection: Selection,
    known: tokio::sync::Mutex<Known>,
    host_instances: AtomicUsize,
    vm_instances: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    /// Identity at first contact.
    identity: Option<String>,
    /// What belongs to the newest login.
    login: Option<Arc<Login>>,
    /// When the counters were read.
    read: Option<Instant>,
}

/// What was learned in a login.
#[derive(Debug)]
struct Login {
    generation: u64,
    about: About,
    counters: Arc<Counters>,
    rollups: Option<Arc<Rollups>>,
}

impl Vsphere {
    /// A handle; nothing is sent yet.
    ///
    /// # Errors
    /// When the trust settings cannot be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        Self::with(options, None)
    }

    /// A handle whose readings of the inventory keep within a share of the byte budget: one page at a time has its
    /// permits, and a page larger than the share is asked for in smaller ones. What belongs to a login (the list of
    /// counters) is read beside it, once and bounded by a page.
    ///
    /// # Errors
    /// When the trust settings cannot be used.
    pub fn within(mut options: Options, share: Share) -> Result<Self, Error> {
        options.pool.page_bytes = options.pool.page_bytes.min(share.largest());
        Self::with(options, Some(share))
    }

    fn with(options: Options, share: Option<Share>) -> Result<Self, Error> {
        let instances = InstanceCounts::default();
        Ok(Self {
            inner: Arc::new(Inner {
                page_bytes: options.pool.page_bytes,
                share,
                pool: Pool::new(options.pool)?,
                selection: options.selection,
                known: tokio::sync::Mutex::default(),
                host_instances: AtomicUsize::new(instances.host),
                vm_instances: AtomicUsize::new(instances.vm),
            }),
        })
    }

    /// Logs in where needed and says what the platform is. Later calls log in on their own as well.
    ///
    /// # Errors
    /// When there is no session, or the server is not the one of before.
    pub async fn connect(&self) -> Result<About, Error> {
        self.inner
            .pool
            .with_session(|session| async move { Ok(self.login(&session).await?.about.clone()) })
            .await
    }

    /// The server's clock.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn server_time(&self) -> Result<Stamp, Error> {
        let call = |session| async move { methods::current_time(&session).await.map_err(Error::Soap) };
        self.inner.pool.with_session(call).await
    }

    /// The roles of the account on the root folder: vSphere's own by name, a site's by number.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn roles(&self) -> Result<Vec<String>, Error> {
        let call = |session: Pinned| async move { discovery::roles(&session).await.map_err(Error::Soap) };
        self.inner.pool.with_session(call).await
    }

    /// All hosts and VMs. An answer without any is returned as it is: the caller must not take it for a removal.
    ///
    /// # Errors
    /// When a call fails; a part is never returned.
    pub async fn discover(&self) -> Result<Inventory, Error> {
        let _permit = self.room_for_a_page().await;
        self.inner
            .pool
            .with_session(|session| async move {
                self.login(&session).await?;
                Ok(discovery::discover(&session).await?)
            })
            .await
    }

    /// Reads all objects that an inventory shows and follows them from then on, with `attributes` also the custom
    /// attributes of VMs.
    ///
    /// # Errors
    /// When a call fails; a part is never returned.
    pub async fn track(&self, attributes: bool) -> Result<Tracker, Error> {
        let _permit = self.room_for_a_page().await;
        let started = |session: Pinned| async move {
            self.login(&session).await?;
            Tracker::start(session, self.inner.share.clone(), attributes).await
        };
        self.inner.pool.with_session(started).await
    }

    /// The host of every VM that has one, now.
    ///
    /// # Errors
    /// When a call fails; a part is never returned.
    pub async fn placements(&self) -> Result<HashMap<MoRef, MoRef>, Error> {
        let _permit = self.room_for_a_page().await;
        let call =
            |session: Pinned| async move { discovery::placements(&session).await.map_err(Error::Soap) };
        self.inner.pool.with_session(call).await
    }

    /// Never taken by one who holds another permit: two that wait for each other would wait for ever.
    async fn room_for_a_page(&self) -> Option<Permit> {
        match &self.inner.share {
            Some(share) => Some(share.reserve(self.inner.page_bytes).await),
            None => None,
        }
    }

    /// The counters of the present login, for estimates and to report those that the server lacks.
    ///
    /// # Errors
    /// When they have to be read and cannot.
    pub async fn counters(&self) -> Result<Arc<Counters>, Error> {
        self.inner
            .pool
            .with_session(|session| async move { Ok(Arc::clone(&self.login(&session).await?.counters)) })
            .await
    }

    /// The 300-second roll-ups that the server keeps; `None` where it keeps none.
    ///
    /// # Errors
    /// When the server's lists have to be read and cannot.
    pub async fn rollups(&self) -> Result<Option<Arc<Rollups>>, Error> {
        self.inner
            .pool
            .with_session(|session| async move { Ok(self.login(&session).await?.rollups.clone()) })
            .await
    }

    /// Most series that one query for roll-ups may ask for; `None`: as many as one likes.
    ///
    /// # Errors
    /// When there is no answer. One that does not tell is an answer: then the server's version does.
    pub async fn most_rollup_series(&self) -> Result<Option<usize>, Error> {
        let about = self.connect().await?;
        if about.kind == PlatformKind::Esxi {
            return Ok(None);
        }
        let option = match self.max_query_metrics().await {
            Err(error) if error.fault().is_some() => None,
            option => option?,
        };
        let most = option.unwrap_or_else(|| default_max_query_metrics(&about.version));
        Ok(usize::try_from(most).ok().filter(|most| *most > 0))
    }

    /// Samples of all targets in one request, whatever they may cost.
    ///
    /// # Errors
    /// As [`query_batch`](Self::query_batch).
    pub async fn query(&self, targets: &[Target], interval_seconds: u32) -> Result<Reply, Error> {
        let counters = self.counters().await?;
        let newest = targets
            .iter()
            .map(|target| target.until.unwrap_or(target.after))
            .max();
        let now = newest.unwrap_or(Stamp::from_seconds(0)).plus(LONGEST_WINDOW);
        let estimator = Estimator {
            counters: &counters,
            instances: self.instances(),
            now,
            interval_seconds,
        };
        let cost = estimator.cost_of_all(targets);
        self.query_batch(Batch { targets, cost }, interval_seconds).await
    }

    /// Samples of a batch in one request. An answer larger than the batch's cost is refused, so that what was
    /// reserved for it is never exceeded.
    ///
    /// # Errors
    /// [`Error::Query`]; its disposition says whether to ask for less, to split, or to leave the entity out.
    pub async fn query_batch(&self, batch: Batch<'_>, interval_seconds: u32) -> Result<Reply, Error> {
        let result = self
            .inner
            .pool
            .with_session(|session| async move { self.query_in(&session, batch, interval_seconds).await })
            .await;
        match &result {
            Ok(reply) => {
                self.learn(&reply.counts);
                if reply.counts.unknown_counters > 0 {
                    self.reload_counters().await;
                }
            }
            Err(Error::Query { source, .. }) if source.is_too_large() => self.expect_more(batch),
            Err(_) => {}
        }
        result
    }

    /// Most instances seen so far, for estimates.
    #[must_use]
    pub fn instances(&self) -> InstanceCounts {
        InstanceCounts {
            host: self.inner.host_instances.load(Ordering::Relaxed),
            vm: self.inner.vm_instances.load(Ordering::Relaxed),
        }
    }

    /// `config.vpxd.stats.maxQueryMetrics`: most series of one query for roll-ups. `None` where it is not set or
    /// the server is no vCenter; zero or less means no limit.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn max_query_metrics(&self) -> Result<Option<i32>, Error> {
        let call = |session: Pinned| async move {
            if session.content().setting.is_none()
                || session.content().about.kind() == Some(PlatformKind::Esxi)
            {
                return Ok(None);
            }
            let value = methods::query_option(&session, "config.vpxd.stats.maxQueryMetrics").await?;
            Ok::<_, Error>(value.and_then(|value| value.trim().parse().ok()))
        };
        self.inner.pool.with_session(call).await
    }

    /// What the server serves for an entity.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn provider_summary(&self, kind: EntityKind, moref: &str) -> Result<ProviderSummary, Error> {
        let entity = &Object::new(kind.vim_type(), moref);
        let call = |session| async move {
            methods::perf::provider_summary(&session, entity)
                .await
                .map_err(Error::Soap)
        };
        self.inner.pool.with_session(call).await
    }

    /// Runs an operation in a session, and once more where the server no longer knows that one.
    async fn in_session<T, F, R>(&self, operation: F) -> Result<T, Error>
    where
        T: Send,
        F: FnMut(Pinned) -> R + Send,
        R: Future<Output = Result<T, Error>> + Send,
    {
        self.inner.pool.with_session(operation).await
    }

    /// What the calls have come to.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.pool.stats()
    }

    /// Logs all sessions out and refuses further calls.
    pub async fn close(&self, deadline: Duration) {
        self.inner.pool.close(deadline).await;
    }

    /// Identity and counters of this session's login, read once.
    async fn login(&self, session: &Pinned) -> Result<Arc<Login>, Error> {
        let mut known = self.inner.known.lock().await;
        if let Some(login) = known
            .login
            .as_ref()
            .filter(|login| login.generation >= session.generation())
        {
            return Ok(Arc::clone(login));
        }
        let about = about(session).await?;
        match &known.identity {
            Some(was) if *was != about.identity => {
                return Err(Error::IdentityChanged {
                    was: was.clone(),
                    is: about.identity,
                });
            }
            Some(_) => {}
            None => known.identity = Some(about.identity.clone()),
        }
        let catalog = counters::read(session).await?;
        let counters = Arc::new(Counters::new(&catalog.counters, &self.inner.selection));
        let rollups = Rollups::of(&catalog, &self.inner.selection).map(Arc::new);
        let login = Arc::new(Login {
            generation: session.generation(),
            about,
            counters,
            rollups,
        });
        known.login = Some(Arc::clone(&login));
        known.read = Some(Instant::now());
        Ok(login)
    }

    async fn query_in(
        &self,
        session: &Pinned,
        batch: Batch<'_>,
        interval_seconds: u32,
    ) -> Result<Reply, Error> {
        let login = self.login(session).await?;
        let nothing = Counters::default();
        let counters = match &login.rollups {
            _ if interval_seconds == REALTIME_SECONDS => &*login.counters,
            Some(rollups) => &*rollups.counters,
            None => &nothing,
        };
        let targets = batch.targets;
        // With the sample before: it is stored already, and tells which series have values. Not so of roll-ups: a
        // question that starts before what is kept of them is answered with coarser ones.
        let lead = if interval_seconds == REALTIME_SECONDS {
            Duration::from_secs(u64::from(interval_seconds))
        } else {
            Duration::ZERO
        };
        let specs: Vec<QuerySpec<'_>> = targets
            .iter()
            .filter_map(|target| {
                let kind = target.entity.kind;
                let metric_ids = &counters.of(kind).metric_ids;
                (!metric_ids.is_empty()).then_some(QuerySpec {
                    kind: kind.vim_type(),
                    moref: &target.moref,
                    after: Some(target.after.minus(lead)),
                    until: target.until,
                    metric_ids,
                    interval_seconds,
                })
            })
            .collect();
        let failed = |source| Error::Query {
            entities: targets.len(),
            source,
        };
        match methods::perf::query_perf(session, &specs, batch.cost.reply_bytes)
            .await
            .map_err(failed)?
        {
            Some(reply) => perf::decode_reply(&reply, targets, counters, interval_seconds).map_err(failed),
            // Nothing to ask for: all targets stay unanswered.
            None => Ok(Reply {
                missing: targets.iter().map(|target| target.entity).collect(),
                ..Reply::default()
            }),
        }
    }

    /// An answer was larger than estimated: entities have more instances than assumed. Without this, a host with
    /// many datastores could never be read, however small the batch.
    fn expect_more(&self, batch: Batch<'_>) {
        let double = |place: &AtomicUsize| {
            let doubled = |instances: usize| Some(instances.saturating_mul(2).min(1 << 16));
            // The closure always gives a value, so that this never fails.
            place
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, doubled)
                .unwrap_or_default();
        };
        let has = |kind| batch.targets.iter().any(|target| target.entity.kind == kind);
        if has(EntityKind::Host) {
            double(&self.inner.host_instances);
        }
        if has(EntityKind::Vm) {
            double(&self.inner.vm_instances);
        }
    }

    fn learn(&self, counts: &DecodeCounts) {
        let learn = |place: &AtomicUsize, seen: u64| {
            place.fetch_max(usize::try_from(seen).unwrap_or(usize::MAX), Ordering::Relaxed);
        };
        learn(&self.inner.host_instances, counts.host_instances);
        learn(&self.inner.vm_instances, counts.vm_instances);
    }

    /// An answer named counters that were not asked for: ids may have moved.
    async fn reload_counters(&self) {
        let mut known = self.inner.known.lock().await;
        if known.read.is_some_and(|read| read.elapsed() >= RELOAD_INTERVAL) {
            known.login = None;
        }
    }
}

/// What applies where the option is not set: 6.5 raised it.
fn default_max_query_metrics(version: &str) -> i32 {
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let (major, minor): (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if (major, minor) < (6, 5) { 64 } else { 256 }
}

async fn about(session: &Pinned) -> Result<About, Error> {
    let about = &session.content().about;
    // Checked at login: it is one of the two.
    let kind = about.kind().unwrap_or(PlatformKind::VCenter);
    let (identity, wanted) = match kind {
        PlatformKind::VCenter => (about.instance_uuid.clone(), "about.instanceUuid"),
        PlatformKind::Esxi => (discovery::hardware_uuid(session).await?, "summary.hardware.uuid"),
    };
    Ok(About {
        kind,
        full_name: about.full_name.clone(),
        version: about.version.clone(),
        build: about.build.clone(),
        api_version: about.api_version.clone(),
        identity: identity
            .filter(|identity| !identity.is_empty())
            .ok_or(Error::NoIdentity { wanted })?,
    })
}
