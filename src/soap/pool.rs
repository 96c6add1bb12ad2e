//! The sessions of one platform, shared by all its loops.
//!
//! Owns: who logs in, when, and never twice for the same reason.
//! Never does: running on its own. It has no task; a login happens inside the call that needs it.
//!
//! Invariants:
//! - one login at a time per platform; whoever waited for it uses its session (a session is known by its
//!   generation, so a late NotAuthenticated of an older one does no harm);
//! - an operation logs in again at most once;
//! - after a refused login no request is sent for [`REFUSAL_WAIT`]: the accounts of vCenter lock after five
//!   failures within 180 s. Another password than the refused one is tried at once: a person has mended it;
//! - every session that was opened is logged out, by [`Pool::close`] or when it is replaced. A login under way belongs
//!   to the pool: a caller that is dropped leaves it to the next one, or to [`Pool::close`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::SystemClock;
use crate::clock::WallClock;
use crate::config;
use crate::config::PlatformKind;
use crate::config::Trust;
use crate::soap::client::Client;
use crate::soap::client::Stats;
use crate::soap::client::add;
use crate::soap::envelope::Reply;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::error::SessionLost;
use crate::soap::fault::Fault;
use crate::soap::fault::FaultKind;
use crate::soap::methods::ServiceContent;
use crate::soap::methods::properties::PAGE_BYTES;
use crate::soap::session;
use crate::soap::session::Credentials;
use crate::soap::session::Session;
use crate::soap::transport::Limits;
use crate::telemetry::metrics::LoginResult;
use crate::units::Stamp;

/// Time after a refused login in which none is tried.
pub const REFUSAL_WAIT: Duration = Duration::from_secs(5 * 60);

/// Longest time for ending a session that was lost: it is mostly gone already.
const LOST_LOGOUT_DEADLINE: Duration = Duration::from_secs(5);

/// How to reach a platform and how much to ask of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name, for logs.
    pub platform: String,
    /// What it must be.
    pub kind: PlatformKind,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Which certificate is trusted.
    pub trust: Trust,
    /// The account.
    pub credentials: Credentials,
    /// Most sessions at once.
    pub sessions: usize,
    /// Most requests per second, all sessions together.
    pub requests_per_second: u32,
    /// Deadline of one request.
    pub request_timeout: Duration,
    /// Most bytes of a page of properties.
    pub page_bytes: usize,
    /// Time after a refused login in which none is tried.
    pub refusal_wait: Duration,
}

impl Options {
    /// From the configuration.
    #[must_use]
    pub fn new(platform: &config::Platform, collection: &config::Collection) -> Self {
        Self {
            platform: platform.name.clone(),
            kind: platform.kind,
            host: platform.host.clone(),
            port: platform.port,
            trust: platform.trust.clone(),
            credentials: Credentials::of(platform.user.clone(), platform.password.clone()),
            sessions: collection.sessions,
            requests_per_second: collection.requests_per_second,
            request_timeout: collection.request_timeout,
            page_bytes: PAGE_BYTES,
            refusal_wait: REFUSAL_WAIT,
        }
    }
}

/// The sessions of one platform. Clones share them.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Arc<Client>,
    options: Options,
    slots: Vec<Mutex<Slot>>,
    next_slot: AtomicUsize,
    generations: AtomicU64,
    /// Held by the one who logs in.
    login: tokio::sync::Mutex<Option<Login>>,
    refusal: Mutex<Option<Refusal>>,
    closed: AtomicBool,
}

/// A login under way.
struct Login {
    slot: usize,
    session: Pin<Box<dyn Future<Output = Result<Session, Error>> + Send>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

/// A place for one session.
#[derive(Debug, Default)]
struct Slot {
    current: Option<Arc<Session>>,
    /// The session before, which the server says it has forgotten.
    lost: Option<Arc<Session>>,
    /// There was a session here before.
    used: bool,
}

/// A refused login, kept for those who ask meanwhile.
#[derive(Debug, Clone)]
struct Refusal {
    fault: Fault,
    until: Instant,
    next_try: Stamp,
    /// What was refused, see [`Credentials::mark`].
    mark: Option<u64>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves a session or none: both are whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool without any session yet; nothing is sent.
    ///
    /// # Errors
    /// When the trust settings cannot be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        if options.trust == Trust::Off {
            tracing::warn!(
                platform = %options.platform,
                "the certificate of {} is not verified: whoever stands in between can read the password; pin it \
                 with thumbprint instead",
                options.host
            );
        }
        let client = Arc::new(Client::new(
            options.platform.clone(),
            &options.host,
            options.port,
            &options.trust,
            options.requests_per_second,
        )?);
        let slots = (0..options.sessions.max(1)).map(|_| Mutex::default()).collect();
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                options,
                slots,
                next_slot: AtomicUsize::new(0),
                generations: AtomicU64::new(0),
                login: tokio::sync::Mutex::default(),
                refusal: Mutex::new(None),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// One session for several calls that belong together, because they share a view or a page token. Logs in
    /// where needed.
    ///
    /// # Errors
    /// When no session can be had.
    pub async fn pin(&self) -> Result<Pinned, Error> {
        let slot = self.inner.next_slot.fetch_add(1, Ordering::Relaxed) % self.inner.slots.len().max(1);
        let session = self.inner.session(slot).await?;
        Ok(Pinned {
            inner: Arc::clone(&self.inner),
            slot,
            session,
        })
    }

    /// Runs an operation in a pinned session, and once more from its start in a new session when the server no
    /// longer knows the first one.
    ///
    /// # Errors
    /// When no session can be had, or what the operation returned.
    pub async fn with_session<T, E, F, R>(&self, mut operation: F) -> Result<T, E>
    where
        T: Send,
        E: From<Error> + SessionLost + Send,
        F: FnMut(Pinned) -> R + Send,
        R: Future<Output = Result<T, E>> + Send,
    {
        let pinned = self.pin().await?;
        match self.counted(operation(pinned.clone()).await) {
            Err(error) if error.session_lost() => pinned.lost(),
            result => return result,
        }
        let session = self.inner.session(pinned.slot).await?;
        self.counted(operation(Pinned { session, ..pinned }).await)
    }

    fn counted<T, E: SessionLost>(&self, result: Result<T, E>) -> Result<T, E> {
        if let Some(label) = result.as_ref().err().and_then(SessionLost::found_in_answer) {
            self.inner.client.metrics.call_failed(label);
        }
        result
    }

    /// What the calls have come to.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.client.counts.snapshot()
    }

    /// The deadline of one request.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.inner.options.request_timeout
    }

    /// Logs all sessions out within `deadline` and refuses further calls. Cancelling it may leave sessions to
    /// the server's idle time.
    pub async fn close(&self, deadline: Duration) {
        self.inner.closed.store(true, Ordering::Release);
        let end = Instant::now() + deadline;
        let logouts = async {
            // A login under way is waited for, also one that nobody waits for any more: its session has to be ended.
            let mut login = self.inner.login.lock().await;
            if let Some(Err(error)) = self.inner.finish(&mut login).await {
                tracing::debug!(error = %crate::error::Chain(&error), "the last login was in vain");
            }
            for slot in &self.inner.slots {
                let slot = std::mem::take(&mut *locked(slot));
                for session in [slot.current, slot.lost].into_iter().flatten() {
                    let left = end.saturating_duration_since(Instant::now());
                    end_session(&self.inner.client, &session, left).await;
                }
            }
        };
        if tokio::time::timeout_at(end, logouts).await.is_err() {
            tracing::warn!(platform = %self.inner.options.platform, "could not log out of vSphere in time");
        }
    }
}

impl Inner {
    fn current(&self, slot: usize) -> Option<Arc<Session>> {
        locked(self.slots.get(slot)?).current.clone()
    }

    fn open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// The slot's session, logging in where there is none.
    async fn session(&self, slot: usize) -> Result<Arc<Session>, Error> {
        self.open()?;
        if let Some(session) = self.current(slot) {
            return Ok(session);
        }
        let mut login = self.login.lock().await;
        self.open()?;
        // One that its caller has left may be for this slot, or its refusal may be news.
        self.finish(&mut login).await.transpose()?;
        if let Some(session) = self.current(slot) {
            return Ok(session);
        }
        self.check_refusal()?;
        let lost = self.slots.get(slot).and_then(|slot| locked(slot).lost.take());
        let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::clone(&self.client);
        let options = self.options.clone();
        *login = Some(Login {
            slot,
            session: Box::pin(async move {
                if let Some(lost) = &lost {
                    end_session(&client, lost, LOST_LOGOUT_DEADLINE).await;
                }
                session::login(
                    &client,
                    options.kind,
                    &options.credentials,
                    options.request_timeout,
                    generation,
                )
                .await
            }),
        });
        self.finish(&mut login).await.transpose()?;
        self.current(slot).ok_or(Error::Closed)
    }

    /// Waits for the login under way, if there is one, and keeps its session. Dropped half-way, it is still under way.
    async fn finish(&self, login: &mut Option<Login>) -> Option<Result<(), Error>> {
        let Login { slot, session } = login.as_mut()?;
        let (slot, result) = (*slot, session.await);
        *login = None;
        Some(result.map_or_else(
            |error| {
                let error = self.remember_refusal(error);
                let refused = matches!(error, Error::LoginRefused { .. });
                self.client.metrics.logged_in(if refused {
                    LoginResult::Refused
                } else {
                    LoginResult::Error
                });
                Err(error)
            },
            |session| {
                self.keep(slot, session);
                Ok(())
            },
        ))
    }

    fn keep(&self, slot: usize, session: Session) {
        let generation = session.generation;
        add(&self.client.counts.logins, 1);
        self.client.metrics.logged_in(LoginResult::Ok);
        if let Some(slot) = self.slots.get(slot) {
            let mut slot = locked(slot);
            slot.current = Some(Arc::new(session));
            if std::mem::replace(&mut slot.used, true) {
                add(&self.client.counts.relogins, 1);
            }
        }
        tracing::debug!(platform = %self.options.platform, generation, "logged in to vSphere");
    }

    fn check_refusal(&self) -> Result<(), Error> {
        let mut stored = locked(&self.refusal);
        match &*stored {
            Some(refusal) if Instant::now() < refusal.until && !self.is_mended(refusal) => {
                Err(self.refused(refusal))
            }
            _ => {
                *stored = None;
                Ok(())
            }
        }
    }

    fn is_mended(&self, refusal: &Refusal) -> bool {
        // A file that is just being written has none.
        let mark = self.options.credentials.mark();
        mark.is_some() && mark != refusal.mark
    }

    /// Turns a refused login into one that keeps everybody away for a while. Other failures pass.
    fn remember_refusal(&self, error: Error) -> Error {
        let Error::Fault {
            method: "Login",
            fault,
            ..
        } = &error
        else {
            return error;
        };
        if !matches!(
            fault.kind,
            FaultKind::InvalidLogin
                | FaultKind::PasswordExpired
                | FaultKind::NoPermission
                | FaultKind::InvalidLocale
        ) {
            return error;
        }
        add(&self.client.counts.refusals, 1);
        let wait = self.options.refusal_wait;
        let refusal = Refusal {
            fault: (**fault).clone(),
            until: Instant::now() + wait,
            next_try: SystemClock.now().plus(wait),
            mark: self.options.credentials.mark(),
        };
        let refused = self.refused(&refusal);
        *locked(&self.refusal) = Some(refusal);
        refused
    }

    fn refused(&self, refusal: &Refusal) -> Error {
        Error::LoginRefused {
            user: self.options.credentials.user.clone(),
            fault: Box::new(refusal.fault.clone()),
            next_try: refusal.next_try,
            wait: refusal.until.saturating_duration_since(Instant::now()),
        }
    }
}

async fn end_session(client: &Client, session: &Session, deadline: Duration) {
    match session::logout(client, session, deadline).await {
        Ok(()) => add(&client.counts.logouts, 1),
        // Lost sessions are mostly gone; the rest ends by the server's idle time.
        Err(error) => tracing::debug!(
            generation = session.generation,
            error = %crate::error::Chain(&error),
            "could not log out of vSphere"
        ),
    }
}

/// A session held over several calls. Calls through it never log in again: what depends on the session would be
/// gone. Clones hold the same session.
#[derive(Debug, Clone)]
pub struct Pinned {
    inner: Arc<Inner>,
    slot: usize,
    session: Arc<Session>,
}

impl Pinned {
    /// Which login this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.session.generation
    }

    /// The server and its managers.
    #[must_use]
    pub fn content(&self) -> &ServiceContent {
        &self.session.content
    }

    /// Most bytes of a page of properties.
    pub(crate) fn page_bytes(&self) -> usize {
        self.inner.options.page_bytes
    }

    /// Says that the server no longer knows this session. Whoever asks next logs in.
    pub(crate) fn lost(&self) {
        let Some(slot) = self.inner.slots.get(self.slot) else {
            return;
        };
        let mut slot = locked(slot);
        if slot
            .current
            .as_ref()
            .is_some_and(|current| current.generation == self.session.generation)
        {
            slot.lost = slot.current.take();
        }
    }

    /// Calls a method whose answer has at most `bytes`.
    pub(crate) async fn call(&self, request: &Request, bytes: usize) -> Result<Reply, Error> {
        self.call_and_wait(request, bytes, Duration::ZERO).await
    }

    /// As [`Pinned::call`], where the server may take its time for an answer before the usual deadline begins.
    pub(crate) async fn call_and_wait(
        &self,
        request: &Request,
        bytes: usize,
        wait: Duration,
    ) -> Result<Reply, Error> {
        let limits = Limits {
            bytes,
            deadline: self.inner.options.request_timeout.saturating_add(wait),
        };
        let (reply, _) = self
            .inner
            .client
            .call(request, &self.session.action, Some(self.session.cookie()), limits)
            .await?;
        Ok(reply)
    }
}
