//! Who is logged in.
//!
//! Owns: sessions with their cookies, idle expiry, views and page tokens; the lock-out after failed
//! log-ins; the counters that tests look at. Goes by steady time: a corrected clock expires nobody.
//! Never knows what a view contains or a token continues.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::{self, Reading};
use crate::grid::MICROS;
use crate::methods::TaskCollector;
use crate::properties::{Collector, Continuation, View};
use crate::spec::Spec;
use crate::value::mix;

/// Failed log-ins within [`LOCK_WINDOW`] that lock the account, as vCenter's SSO does.
const LOCK_FAILURES: usize = 5;
const LOCK_WINDOW: i64 = 180 * MICROS;
/// How long the account stays locked.
const LOCK_TIME: i64 = 300 * MICROS;
/// Views of expired sessions that are remembered.
const GHOSTS: usize = 64;

/// What happened to sessions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStats {
    /// Open now.
    pub open: usize,
    /// Most that were open at the same time.
    pub max_open: usize,
    /// Successful log-ins.
    pub logins: u64,
    /// Refused log-ins.
    pub failed_logins: u64,
    /// Log-outs.
    pub logouts: u64,
    /// Sessions that expired.
    pub expired: u64,
    /// The account is locked.
    pub locked: bool,
}

/// A handle on the sessions of a simulator.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    seed: u64,
    user: String,
    password: String,
    timeout: i64,
    limit: usize,
    next: u64,
    open: HashMap<String, Session>,
    ghosts: VecDeque<(String, Arc<View>)>,
    failures: VecDeque<i64>,
    locked_until: Option<i64>,
    stats: SessionStats,
    cookies: Vec<String>,
    steady: i64,
}

#[derive(Debug)]
struct Session {
    info: SessionInfo,
    used: i64,
    views: HashMap<String, Arc<View>>,
    tokens: HashMap<String, Continuation>,
    collectors: HashMap<String, Arc<Mutex<Collector>>>,
    histories: HashMap<String, Arc<Mutex<TaskCollector>>>,
}

/// What `UserSession` says.
#[derive(Clone, Debug)]
pub(crate) struct SessionInfo {
    pub(crate) key: String,
    pub(crate) user: String,
    pub(crate) login_time: i64,
    pub(crate) active_time: i64,
    pub(crate) user_agent: String,
    pub(crate) call_count: u64,
}

/// Why a log-in is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Wrong user or password, account locked, or logged in already: one fault for all.
    InvalidLogin,
    /// Too many sessions.
    Full,
}

impl Sessions {
    pub(crate) fn new(spec: &Spec) -> Self {
        Self(Arc::new(Mutex::new(Table {
            seed: spec.seed,
            user: spec.user.clone(),
            password: spec.password.clone(),
            timeout: clock::micros(spec.session_timeout),
            limit: spec.max_sessions,
            next: 0,
            open: HashMap::new(),
            ghosts: VecDeque::new(),
            failures: VecDeque::new(),
            locked_until: None,
            stats: SessionStats::default(),
            cookies: Vec::new(),
            steady: i64::MIN,
        })))
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        let table = self.table();
        SessionStats {
            open: table.open.len(),
            locked: table.locked_until.is_some(),
            ..table.stats
        }
    }

    /// The cookies of all sessions that there ever were, to look for where they must not be.
    #[must_use]
    pub fn cookies(&self) -> Vec<String> {
        self.table().cookies.clone()
    }

    /// Ends all sessions at once, as a restart of the server or an administrator does.
    pub fn expire_all(&self) {
        let mut table = self.table();
        let cookies: Vec<String> = table.open.keys().cloned().collect();
        for cookie in cookies {
            table.expire(&cookie);
        }
    }

    /// Changes the password (and forgets failed log-ins); open sessions stay.
    pub fn set_password(&self, password: &str) {
        let mut table = self.table();
        password.clone_into(&mut table.password);
        table.failures.clear();
        table.locked_until = None;
    }

    /// Changes the idle time-out, also of open sessions.
    pub fn set_timeout(&self, timeout: std::time::Duration) {
        self.table().timeout = clock::micros(timeout);
    }

    /// Ends idle sessions.
    pub(crate) fn sweep(&self, reading: Reading) {
        self.table().sweep(reading.steady);
    }

    /// Counts a call of a session; `false` = there is no such session.
    pub(crate) fn touch(&self, cookie: &str, reading: Reading) -> bool {
        let mut table = self.table();
        table.sweep(reading.steady);
        let Some(session) = table.open.get_mut(cookie) else {
            return false;
        };
        session.used = reading.steady;
        session.info.active_time = reading.now;
        session.info.call_count += 1;
        true
    }

    /// Opens a session; answers its cookie.
    pub(crate) fn login(
        &self,
        user: &str,
        password: &str,
        user_agent: &str,
        current: Option<&str>,
        reading: Reading,
    ) -> Result<(String, SessionInfo), Refused> {
        let mut table = self.table();
        let now = reading.steady;
        table.sweep(now);
        if current.is_some_and(|cookie| table.open.contains_key(cookie)) {
            table.stats.failed_logins += 1;
            return Err(Refused::InvalidLogin);
        }
        if table.locked_until.is_some() {
            table.stats.failed_logins += 1;
            return Err(Refused::InvalidLogin);
        }
        if user != table.user || password != table.password {
            table.stats.failed_logins += 1;
            table.failures.push_back(now);
            while table.failures.front().is_some_and(|at| *at <= now - LOCK_WINDOW) {
                table.failures.pop_front();
            }
            if table.failures.len() >= LOCK_FAILURES {
                table.locked_until = Some(now + LOCK_TIME);
            }
            return Err(Refused::InvalidLogin);
        }
        if table.open.len() >= table.limit {
            return Err(Refused::Full);
        }
        table.failures.clear();
        table.next += 1;
        let root = mix(mix(table.seed ^ 0x5E55) ^ table.next);
        let mut cookie = String::new();
        let mut key = String::from("52");
        // Writing to a String cannot fail.
        write!(cookie, "{root:016x}{:016x}{:08x}", mix(root), mix(root ^ 1) >> 32).unwrap_or_default();
        write!(key, "{:06x}-{:04x}", root >> 40, mix(root ^ 2) >> 48).unwrap_or_default();
        let info = SessionInfo {
            key,
            user: user.to_owned(),
            login_time: reading.now,
            active_time: reading.now,
            user_agent: user_agent.to_owned(),
            call_count: 0,
        };
        table.cookies.push(cookie.clone());
        table.open.insert(
            cookie.clone(),
            Session {
                info: info.clone(),
                used: now,
                views: HashMap::new(),
                tokens: HashMap::new(),
                collectors: HashMap::new(),
                histories: HashMap::new(),
            },
        );
        table.stats.logins += 1;
        table.stats.max_open = table.stats.max_open.max(table.open.len());
        Ok((cookie, info))
    }

    pub(crate) fn logout(&self, cookie: &str) {
        let mut table = self.table();
        if table.open.remove(cookie).is_some() {
            table.stats.logouts += 1;
        }
    }

    pub(crate) fn info(&self, cookie: &str) -> Option<SessionInfo> {
        self.table().open.get(cookie).map(|s| s.info.clone())
    }

    /// Stores a view, made from its MoRef; answers the MoRef.
    pub(crate) fn add_view(&self, cookie: &str, view: impl FnOnce(String) -> View) -> Option<String> {
        let mut table = self.table();
        table.next += 1;
        let number = mix(table.seed ^ table.next.rotate_left(17));
        let session = table.open.get_mut(cookie)?;
        let moref = format!("session[{}]52{:014x}", session.info.key, number >> 8);
        session.views.insert(moref.clone(), Arc::new(view(moref.clone())));
        Some(moref)
    }

    pub(crate) fn view(&self, cookie: &str, moref: &str) -> Option<Arc<View>> {
        let table = self.table();
        table.open.get(cookie)?.views.get(moref).cloned()
    }

    /// A view of a session that has expired.
    pub(crate) fn ghost_view(&self, moref: &str) -> Option<Arc<View>> {
        let table = self.table();
        let ghost = table.ghosts.iter().find(|(name, _)| name == moref)?;
        Some(Arc::clone(&ghost.1))
    }

    pub(crate) fn remove_view(&self, cookie: &str, moref: &str) -> bool {
        let mut table = self.table();
        let session = table.open.get_mut(cookie);
        session.is_some_and(|s| s.views.remove(moref).is_some())
    }

    /// Makes a property collector of the session's own; answers its MoRef.
    pub(crate) fn add_collector(&self, cookie: &str) -> Option<String> {
        let mut table = self.table();
        table.next += 1;
        let number = mix(table.seed ^ table.next.rotate_left(23));
        let session = table.open.get_mut(cookie)?;
        let moref = format!("session[{}]52{:014x}", session.info.key, number >> 8);
        session.collectors.insert(moref.clone(), Arc::default());
        Some(moref)
    }

    /// A property collector of the session's own, or the session's state of the server's one, `shared`.
    pub(crate) fn collector(&self, cookie: &str, moref: &str, shared: &str) -> Option<Arc<Mutex<Collector>>> {
        let mut table = self.table();
        let collectors = &mut table.open.get_mut(cookie)?.collectors;
        if moref == shared {
            collectors.entry(moref.to_owned()).or_default();
        }
        collectors.get(moref).cloned()
    }

    /// Every property collector of a session that has been used.
    pub(crate) fn collectors(&self, cookie: &str) -> Vec<Arc<Mutex<Collector>>> {
        let table = self.table();
        let session = table.open.get(cookie);
        session.map_or_else(Vec::new, |session| session.collectors.values().cloned().collect())
    }

    pub(crate) fn remove_collector(&self, cookie: &str, moref: &str) -> bool {
        let mut table = self.table();
        let session = table.open.get_mut(cookie);
        session.is_some_and(|s| s.collectors.remove(moref).is_some())
    }

    /// Stores a task collector; answers its MoRef, or `None` where the session has so many already.
    pub(crate) fn add_history(&self, cookie: &str, made: TaskCollector, most: usize) -> Option<String> {
        let mut table = self.table();
        table.next += 1;
        let number = mix(table.seed ^ table.next.rotate_left(29));
        let session = table.open.get_mut(cookie)?;
        if session.histories.len() >= most {
            return None;
        }
        let moref = format!("session[{}]52{:014x}", session.info.key, number >> 8);
        session
            .histories
            .insert(moref.clone(), Arc::new(Mutex::new(made)));
        Some(moref)
    }

    pub(crate) fn history(&self, cookie: &str, moref: &str) -> Option<Arc<Mutex<TaskCollector>>> {
        self.table().open.get(cookie)?.histories.get(moref).cloned()
    }

    pub(crate) fn remove_history(&self, cookie: &str, moref: &str) -> bool {
        let mut table = self.table();
        let session = table.open.get_mut(cookie);
        session.is_some_and(|s| s.histories.remove(moref).is_some())
    }

    /// Stores the rest of a result; answers its page token.
    pub(crate) fn add_token(&self, cookie: &str, rest: Continuation) -> Option<String> {
        let mut table = self.table();
        table.next += 1;
        let token = table.next.to_string();
        let session = table.open.get_mut(cookie)?;
        session.tokens.insert(token.clone(), rest);
        Some(token)
    }

    /// Takes a page token: it can be used once, by its own session.
    pub(crate) fn take_token(&self, cookie: &str, token: &str) -> Option<Continuation> {
        self.table().open.get_mut(cookie)?.tokens.remove(token)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn sweep(&mut self, steady: i64) {
        self.steady = steady;
        if self.locked_until.is_some_and(|until| until <= steady) {
            self.locked_until = None;
            self.failures.clear();
        }
        let idle: Vec<String> = self
            .open
            .iter()
            .filter(|(_, session)| steady - session.used >= self.timeout)
            .map(|(cookie, _)| cookie.clone())
            .collect();
        for cookie in idle {
            self.expire(&cookie);
        }
    }

    fn expire(&mut self, cookie: &str) {
        if let Some(session) = self.open.remove(cookie) {
            self.stats.expired += 1;
            self.ghosts.extend(session.views);
            while self.ghosts.len() > GHOSTS {
                self.ghosts.pop_front();
            }
        }
    }
}
