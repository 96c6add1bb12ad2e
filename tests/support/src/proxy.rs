//! A fault proxy: stands between a client and a server and makes the network as bad as told.
//!
//! Owns: a listening socket (a port of the loopback address, or a Unix socket), the connections through it, and what
//! happens to them: latency, stall, throttle, reset, refusal, a cut after N bytes, and for PostgreSQL a cut around a
//! COMMIT, so that the client cannot know its outcome. Never does: changing a byte, or holding more than half a
//! megabyte per direction of a connection.
//!
//! Task: one that accepts, and one per connection that it owns; all end when the [`Proxy`] is dropped.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

mod accept;
mod inspect;
mod pump;
mod socket;

pub use inspect::Protocol;

/// The name that PostgreSQL clients look for in a directory of sockets.
const POSTGRES_SOCKET: &str = ".s.PGSQL.5432";

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be had.
    #[error("a proxy cannot listen on {endpoint}")]
    Listen {
        /// Where.
        endpoint: Endpoint,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The socket of the PostgreSQL server whose sockets are in this directory.
    #[must_use]
    pub fn postgres(directory: &Path) -> Self {
        Self::Unix(directory.join(POSTGRES_SOCKET))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What the network is like for all connections until told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Added on the way to the server.
    pub latency_up: Duration,
    /// Added on the way to the client.
    pub latency_down: Duration,
    /// Bytes per second and direction of each connection; `None` as fast as it goes.
    pub throttle: Option<u32>,
    /// Nothing moves, connections stay open.
    pub stalled: bool,
}

/// How a COMMIT is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitCut {
    /// The server gets the COMMIT and answers; the client never gets the answer.
    Reply,
    /// The server never gets the COMMIT.
    Request,
}

/// What the proxy did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections that could not be led on, because the server was away.
    pub unreachable: u64,
    /// Connections that [`Proxy::reset_all`] reset.
    pub reset: u64,
    /// Connections cut after N bytes.
    pub cut_bytes: u64,
    /// Connections cut at a COMMIT.
    pub cut_commits: u64,
    /// Connections that stand still since their COPY began.
    pub held_copies: u64,
    /// COMMITs seen.
    pub commits: u64,
    /// COPYs seen.
    pub copies: u64,
    /// Bytes led to the server.
    pub bytes_up: u64,
    /// Bytes led to the client.
    pub bytes_down: u64,
}

/// What is waiting for its moment. Each acts on the first connection that gets there.
#[derive(Debug, Default)]
struct Traps {
    /// Tells a trap from the one before it, for those that count.
    number: u64,
    bytes: Option<(Direction, u64)>,
    commit: Option<(CommitCut, bool)>,
    copy: bool,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicU64,
    open: AtomicU64,
    unreachable: AtomicU64,
    reset: AtomicU64,
    cut_bytes: AtomicU64,
    cut_commits: AtomicU64,
    held_copies: AtomicU64,
    commits: AtomicU64,
    copies: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

/// What the handle and all connections share.
#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    target: Mutex<Endpoint>,
    traps: Mutex<Traps>,
    weather: watch::Sender<Weather>,
    refusing: watch::Sender<bool>,
    /// Counts the resets; a connection ends when it changes.
    resets: watch::Sender<u64>,
    /// Counts the releases; a COPY that is held goes on when it changes.
    releases: watch::Sender<u64>,
    tally: Tally,
}

impl Shared {
    fn target(&self) -> Endpoint {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn traps(&self) -> MutexGuard<'_, Traps> {
        self.traps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running proxy. Dropping it ends its connections and frees its socket.
#[derive(Debug)]
pub struct Proxy {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback address.
    ///
    /// # Errors
    /// When there is none.
    pub fn tcp(protocol: Protocol, target: Endpoint) -> Result<Self, Error> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::listen(protocol, &Endpoint::Tcp(any), target)
    }

    /// Listens on a Unix socket in a directory, under the name that PostgreSQL clients look for.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn unix(directory: &Path, target: Endpoint) -> Result<Self, Error> {
        Self::listen(Protocol::Postgres, &Endpoint::postgres(directory), target)
    }

    fn listen(protocol: Protocol, endpoint: &Endpoint, target: Endpoint) -> Result<Self, Error> {
        let refused = |source| Error::Listen {
            endpoint: endpoint.clone(),
            source,
        };
        let (door, listener, endpoint) = accept::Door::open(endpoint).map_err(refused)?;
        let shared = Arc::new(Shared {
            protocol,
            target: Mutex::new(target),
            traps: Mutex::default(),
            weather: watch::Sender::default(),
            refusing: watch::Sender::default(),
            resets: watch::Sender::default(),
            releases: watch::Sender::default(),
            tally: Tally::default(),
        });
        let acceptor = tokio::spawn(accept::run(door, listener, Arc::clone(&shared)));
        Ok(Self {
            endpoint,
            shared,
            acceptor,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The port it listens on, if it is one.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self.endpoint {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) => None,
        }
    }

    /// Leads new connections to another server.
    pub fn set_target(&self, target: Endpoint) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Changes the weather, for open connections too.
    pub fn set_weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// The weather now.
    #[must_use]
    pub fn weather(&self) -> Weather {
        *self.shared.weather.borrow()
    }

    /// Refuses new connections, or takes them again. Open ones stay.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.send_replace(refusing);
    }

    /// Resets every open connection, on both sides (RST over TCP).
    pub fn reset_all(&self) {
        self.shared.resets.send_modify(|number| *number += 1);
    }

    /// Cuts the first connection that has carried so many bytes in this direction from now on: exactly these arrive,
    /// then both sides are reset.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        let mut traps = self.shared.traps();
        traps.number += 1;
        traps.bytes = Some((direction, bytes));
    }

    /// Cuts the next connection that commits; with `rows`, the next that commits a COPY.
    pub fn cut_commit(&self, cut: CommitCut, rows: bool) {
        self.shared.traps().commit = Some((cut, rows));
    }

    /// Lets the next COPY begin and its first bytes arrive; then nothing more goes to the server, until one side
    /// goes away, the connection is reset, or [`Proxy::release_copies`].
    pub fn hold_copy(&self) {
        self.shared.traps().copy = true;
    }

    /// Lets the COPYs that stand still go on.
    pub fn release_copies(&self) {
        self.shared.releases.send_modify(|number| *number += 1);
    }

    /// Takes away what waits for its moment.
    pub fn disarm(&self) {
        let mut traps = self.shared.traps();
        traps.bytes = None;
        traps.commit = None;
        traps.copy = false;
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let tally = &self.shared.tally;
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counts {
            accepted: read(&tally.accepted),
            open: read(&tally.open),
            unreachable: read(&tally.unreachable),
            reset: read(&tally.reset),
            cut_bytes: read(&tally.cut_bytes),
            cut_commits: read(&tally.cut_commits),
            held_copies: read(&tally.held_copies),
            commits: read(&tally.commits),
            copies: read(&tally.copies),
            bytes_up: read(&tally.bytes_up),
            bytes_down: read(&tally.bytes_down),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns those of the connections, which end with it.
        self.acceptor.abort();
        if let Endpoint::Unix(path) = &self.endpoint {
            // Gone with its directory perhaps.
            std::fs::remove_file(path).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
