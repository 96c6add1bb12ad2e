//! What routes get: the database, the caller, the audit log.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts as RequestParts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::api::auth::Tokens;
use crate::api::limit::Limit;
use crate::api::problem::Problem;
use crate::api::rights::{Role, Route};
use crate::config;
use crate::error::Chain;
use crate::listen;
use crate::listen::Admitted;
use crate::listen::crowd::{Crowd, Member};
use crate::model::status::DatabaseHealth;
use crate::registrar::Registrar;
use crate::store::Database;
use crate::store::audit::{Entry, Kind};
use crate::store::operation::{Submission, Submitted};
use crate::store::reading::Reader;
use crate::supervise::Tasks;
use crate::telemetry::metrics::{ApiMetrics, Denied};

/// Requests that are worked on at a time. More are told to come back.
const AT_WORK: usize = 64;

/// Those of one token among them, so that none keeps out all others.
const AT_WORK_OF_TOKEN: usize = AT_WORK / 2;

/// Requests that wait for the end of an action. More are answered at once.
const WAITING: usize = 64;

/// Failed attempts of an address to be somebody.
const FAILURES_PER_MINUTE: u32 = 5;

/// Entries of the audit log about denied requests, of all callers. The audit log has no end, and whoever may not do
/// anything must not be able to fill it.
const DENIALS_PER_MINUTE: u32 = 60;

/// Characters of the path of a denied request that are written down: more than any route has, so that not even 60 a
/// minute add up.
const LONGEST_PATH: usize = 256;

/// After a lost connection.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// What the API is made with.
#[derive(Debug)]
pub struct Parts {
    /// Sessions of its own.
    pub database: Database,
    /// For the inventory, with sessions of its own, too.
    pub reader: Reader,
    /// The key ring that tokens are tied with.
    pub keys: PathBuf,
    /// The database's health.
    pub health: watch::Receiver<DatabaseHealth>,
    /// Whoever waits for the end of requests that change something.
    pub tasks: Tasks,
}

/// What every request is answered with. Clones share it.
#[derive(Debug, Clone)]
pub struct Context(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: Parts,
    /// What a new configuration may change.
    current: RwLock<Current>,
    /// Who may connect.
    admitted: watch::Sender<Admitted>,
    tokens: Tokens,
    metrics: ApiMetrics,
    limits: Limits,
    at_work: Arc<Semaphore>,
    /// By token.
    at_work_of: Crowd<i32>,
    waiting: Arc<Semaphore>,
    /// Grows with each operation that ends.
    ends: watch::Sender<u64>,
}

#[derive(Debug)]
struct Current {
    registrar: Arc<Registrar>,
    limits: config::ApiLimits,
}

fn admitted(limits: &config::ApiLimits, proxies: &[config::Network]) -> Admitted {
    Admitted {
        limits: listen::Limits {
            connections: limits.connections,
            per_address: limits.connections_per_address,
        },
        proxies: proxies.to_vec(),
    }
}

/// Each limit with whom it counts.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) of_address: Limit<IpAddr>,
    pub(super) of_token: Limit<i32>,
    pub(super) failures: Limit<IpAddr>,
    pub(super) actions: Limit<i32>,
    pub(super) denials: Limit<()>,
}

impl Context {
    /// From its parts.
    #[must_use]
    pub fn new(parts: Parts, api: &config::Api, registrar: Registrar) -> Self {
        let config::Api {
            limits: configured,
            trusted_proxies,
            ..
        } = api;
        let limits = Limits {
            of_address: Limit::per_second(configured.requests_per_second),
            of_token: Limit::per_second(configured.requests_per_second),
            failures: Limit::per_minute(FAILURES_PER_MINUTE),
            actions: Limit::per_minute(configured.actions_per_minute),
            denials: Limit::per_minute(DENIALS_PER_MINUTE),
        };
        let tokens = Tokens::new(parts.database.clone(), parts.keys.clone());
        Self(Arc::new(Shared {
            parts,
            current: RwLock::new(Current {
                registrar: Arc::new(registrar),
                limits: *configured,
            }),
            admitted: watch::Sender::new(admitted(configured, trusted_proxies)),
            tokens,
            metrics: ApiMetrics::new(),
            limits,
            at_work: Arc::new(Semaphore::new(AT_WORK)),
            at_work_of: Crowd::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            ends: watch::Sender::new(0),
        }))
    }

    /// Takes over what a new configuration changes, for requests and connections from now on. Whoever has asked too
    /// often starts anew under another limit.
    pub fn take_over(
        &self,
        api: &config::Api,
        platforms: &[config::Platform],
        collection: &config::Collection,
    ) {
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        current.registrar = Arc::new(Registrar {
            collection: collection.clone(),
            configured: platforms.to_vec(),
            ..Registrar::clone(&current.registrar)
        });
        let before = std::mem::replace(&mut current.limits, api.limits);
        drop(current);
        if before.requests_per_second != api.limits.requests_per_second {
            self.0
                .limits
                .of_address
                .change_to_per_second(api.limits.requests_per_second);
            self.0
                .limits
                .of_token
                .change_to_per_second(api.limits.requests_per_second);
        }
        if before.actions_per_minute != api.limits.actions_per_minute {
            self.0
                .limits
                .actions
                .change_to_per_minute(api.limits.actions_per_minute);
        }
        let new = admitted(&api.limits, &api.trusted_proxies);
        self.0.admitted.send_if_modified(|now| {
            let is_new = *now != new;
            *now = new;
            is_new
        });
    }

    pub(super) fn admitted(&self) -> watch::Receiver<Admitted> {
        self.0.admitted.subscribe()
    }

    fn current<T>(&self, read: impl FnOnce(&Current) -> T) -> T {
        read(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The database, for what writes and for what is read before.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.0.parts.database
    }

    /// Reads the inventory.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.0.parts.reader
    }

    /// The database's health, as it was last looked at.
    #[must_use]
    pub fn health(&self) -> DatabaseHealth {
        self.0.parts.health.borrow().clone()
    }

    /// Changes platforms.
    #[must_use]
    pub fn registrar(&self) -> Arc<Registrar> {
        self.current(|current| Arc::clone(&current.registrar))
    }

    /// The key ring's file.
    #[must_use]
    pub fn keys(&self) -> &std::path::Path {
        &self.0.parts.keys
    }

    /// Limits of the configuration.
    #[must_use]
    pub fn configured(&self) -> config::ApiLimits {
        self.current(|current| current.limits)
    }

    /// What the API counts.
    #[must_use]
    pub fn metrics(&self) -> &ApiMetrics {
        &self.0.metrics
    }

    /// True for a proxy whose word about addresses is taken.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        let admitted = self.0.admitted.borrow();
        admitted.proxies.iter().any(|proxy| proxy.contains(address))
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.0.parts.tasks
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// A place for a request, where there is one.
    pub(super) fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.0.at_work).try_acquire_owned().ok()?;
        Some(Place(Arc::new(Mutex::new(Some((permit, None))))))
    }

    /// Notes that a request with a place is of this token; false where the token has as many as it may have.
    pub(super) fn is_room_for(&self, token: i32, place: &Place) -> bool {
        match self.0.at_work_of.enter(token, AT_WORK_OF_TOKEN) {
            Some(member) => {
                if let Some((_, of)) = &mut *place.locked() {
                    *of = Some(member);
                }
                true
            }
            None => false,
        }
    }

    pub(super) fn waiting(&self) -> &Arc<Semaphore> {
        &self.0.waiting
    }

    pub(super) fn forget_the_quiet(&self) {
        let limits = self.limits();
        limits.of_address.forget_the_quiet();
        limits.of_token.forget_the_quiet();
        limits.failures.forget_the_quiet();
        limits.actions.forget_the_quiet();
    }

    /// Takes an action into the queue, and counts where its intent cannot be written down.
    ///
    /// # Errors
    /// When the database cannot be asked: then nothing is done, unless it is said that this is not known.
    pub async fn submit(&self, submission: &Submission<'_>) -> Result<Submitted, Problem> {
        match self.database().submit_operation(submission).await {
            Ok(submitted) => Ok(submitted),
            Err(error) => {
                self.metrics().audit_failed();
                Err(error.into())
            }
        }
    }

    /// Changes whenever an operation has ended somewhere.
    #[must_use]
    pub(super) fn ends(&self) -> watch::Receiver<u64> {
        let mut ends = self.0.ends.subscribe();
        ends.mark_unchanged();
        ends
    }

    /// Hears of the ends of operations until it is asked to stop.
    pub(super) async fn hear_of_ends(&self, stopping: CancellationToken) {
        loop {
            let listener = tokio::select! {
                () = stopping.cancelled() => return,
                listener = self.database().listen_to_ends_of_operations() => listener,
            };
            match listener {
                Ok(listener) => loop {
                    let heard = tokio::select! {
                        () = stopping.cancelled() => return,
                        heard = listener.heard() => heard,
                    };
                    if !heard {
                        break;
                    }
                    self.0.ends.send_modify(|n| *n = n.wrapping_add(1));
                },
                // Whoever waits looks now and then by itself; the database's own loop tells of its trouble.
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "cannot hear of the ends of operations")
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LISTEN_AGAIN) => {}
            }
        }
    }

    /// Writes to the audit log, and counts where that fails.
    ///
    /// # Errors
    /// When the entry was not written: then nothing may be done.
    pub async fn audit(&self, entry: &Entry<'_>) -> Result<(), Problem> {
        match self.database().audit(entry).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.metrics().audit_failed();
                Err(error.into())
            }
        }
    }

    /// Counts a denial and writes it down, up to a number of them in a minute. A denial that cannot be written is a
    /// denial nevertheless.
    pub(super) async fn denied(&self, why: Denied, who: &Asker<'_>, problem: &Problem) {
        self.metrics().denied(why);
        if self.limits().denials.take(()).is_err() {
            self.metrics().audit_skipped();
            return;
        }
        let client = who.client.to_string();
        let path: String = who.path.chars().take(LONGEST_PATH).collect();
        let mut entry = Entry::new(Kind::Denied, who.actor, who.request_id, who.action);
        entry.client = Some(&client);
        entry.code = Some(problem.code());
        entry.detail = Some(problem.detail());
        entry.target = Some(&path);
        if let Err(error) = self.database().audit(&entry).await {
            self.metrics().audit_failed();
            tracing::warn!(request_id = who.request_id, error = %Chain(&error), "a denied request is not in the audit log");
        }
    }
}

/// Who was denied what.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) actor: &'a str,
    pub(super) client: IpAddr,
    pub(super) request_id: &'a str,
    pub(super) action: &'a str,
    pub(super) path: &'a str,
}

/// The platforms that a token may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those of these names.
    Named(BTreeSet<String>),
}

impl Scope {
    /// True for a platform of this name.
    #[must_use]
    pub fn includes(&self, platform: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(platform),
        }
    }

    /// For queries: the names, or `None` for all.
    #[must_use]
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Named(names) => Some(names.iter().cloned().collect()),
        }
    }
}

/// Who asks, once it is known and may. Routes get it as an argument; without one there is no answer.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's row.
    pub token: i32,
    /// The token's name, which stands in the audit log.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its platforms.
    pub scope: Scope,
    /// Where the request comes from.
    pub client: IpAddr,
    /// The request.
    pub request_id: RequestId,
    /// What it asks for.
    pub route: &'static Route,
}

impl Caller {
    /// An entry of the audit log about this request.
    #[must_use]
    pub fn entry<'a>(&'a self, kind: Kind, client: &'a str) -> Entry<'a> {
        let mut entry = Entry::new(kind, &self.name, self.request_id.as_str(), self.route.action);
        entry.client = Some(client);
        entry
    }

    /// # Errors
    /// 404, as for one that does not exist, where the platform is not among those of the token.
    pub async fn may_see(
        &self,
        context: &Context,
        platform: &str,
        what: impl fmt::Display,
    ) -> Result<(), Problem> {
        if self.scope.includes(platform) {
            return Ok(());
        }
        Err(self
            .out_of_scope(context, platform, Problem::not_found(what))
            .await)
    }

    /// # Errors
    /// 403 where a new platform of this name would not be among those of the token.
    pub async fn may_add(&self, context: &Context, platform: &str) -> Result<(), Problem> {
        if self.scope.includes(platform) {
            return Ok(());
        }
        let problem = Problem::forbidden(format!(
            "This token is limited to some platforms, and {platform:?} is not one of them."
        ));
        Err(self.out_of_scope(context, platform, problem).await)
    }

    /// Counts and writes down that a platform is not among those of the token.
    async fn out_of_scope(&self, context: &Context, platform: &str, problem: Problem) -> Problem {
        let who = Asker {
            actor: &self.name,
            client: self.client,
            request_id: self.request_id.as_str(),
            action: self.route.action,
            path: platform,
        };
        context.denied(Denied::OutOfScope, &who, &problem).await;
        problem
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut RequestParts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::internal("a route asked for its caller, and none was admitted"))
    }
}

/// What a request is called, in its answer, in logs and in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Longest that a caller may choose.
    pub const LONGEST: usize = 64;

    /// The caller's own, where it is short and plain; else a new one.
    pub(super) fn of(given: Option<&str>) -> Self {
        let is_plain = |text: &&str| {
            (1..=Self::LONGEST).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
        };
        match given.filter(is_plain) {
            Some(text) => Self(text.into()),
            None => Self(uuid::Uuid::now_v7().to_string().into()),
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The place of a request among those that are worked on. One that waits for somebody else gives it up.
#[derive(Debug, Clone)]
pub struct Place(Arc<Mutex<Option<Held>>>);

/// One of all places, and one of its token's once that is known; both are free when this is dropped.
type Held = (OwnedSemaphorePermit, Option<Member<i32>>);

impl Place {
    fn locked(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::api) fn give_up(&self) {
        drop(self.locked().take());
    }
}
