//! Which of the servers that a connection string names is the primary.
//!
//! Owns: the order in which servers are tried, and what is remembered of the one that was found last. Never does: the
//! connection itself.
//!
//! A server that takes writes is not enough: an old primary that comes back after a fail-over takes them, too, and
//! what is written there is lost when it is made a standby. Each promotion begins a new timeline, so of several
//! servers the one with the newest is the primary. Whoever starts asks them all; from then on the last one comes
//! first, and one with an older timeline is refused ([`Stale`]). With one server there is nothing to choose, and
//! nothing is asked.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

/// How long the other servers have, once one that takes writes was found: an old primary answers as fast.
const OTHERS: Duration = Duration::from_secs(1);

/// The cluster's number and the timeline; a restored dump is another cluster and begins with its first timeline.
const HISTORY: &str = "\
SELECT (SELECT system_identifier FROM pg_control_system()),
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8";

/// A connection and the task that serves it.
pub(super) type Session = (Client, JoinHandle<()>);

/// The server takes writes, but another one was promoted since it did rightly.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server is of timeline {timeline}, and timeline {newest} has begun elsewhere: an old primary that came back; \
     stop it and make it a standby of the new one. If it was restored on purpose, restart virt-collector"
)]
pub(super) struct Stale {
    timeline: i64,
    newest: i64,
}

/// What a server that takes writes says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct History {
    system: i64,
    timeline: i64,
}

/// The servers of one connection string.
#[derive(Debug)]
pub(super) struct Servers {
    each: Vec<Config>,
    /// Place of the last one that was found, and its history.
    known: Mutex<Option<(usize, Option<History>)>>,
}

impl Servers {
    pub(super) fn of(config: &Config) -> Self {
        let n = config.get_hosts().len().max(config.get_hostaddrs().len());
        let each = match n {
            0 | 1 => vec![config.clone()],
            _ => (0..n).map(|place| alone(config, place)).collect(),
        };
        Self {
            each,
            known: Mutex::new(None),
        }
    }

    /// Connects to the primary. `open` connects to one server and refuses one that takes no writes.
    pub(super) async fn connect<F>(
        &self,
        open: impl Fn(Config) -> F + Sync,
    ) -> Result<Session, tokio_postgres::Error>
    where
        F: Future<Output = Result<Session, tokio_postgres::Error>>,
    {
        if let [only] = self.each.as_slice() {
            return open(only.clone()).await;
        }
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((last, newest)) = known else {
            return self.newest(open).await;
        };
        let first = self.each.get(last).map(|config| (last, config));
        let others = self.each.iter().enumerate().filter(|(place, _)| *place != last);
        let mut failed = None;
        for (place, config) in first.into_iter().chain(others) {
            let (session, history) = match ask(open(config.clone())).await {
                Ok(answer) => answer,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            match stale(history, newest) {
                None => {
                    self.remember(place, history);
                    return Ok(session);
                }
                Some(stale) => failed = refuse(stale).await.err(),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => nothing().await,
        }
    }

    /// All at once; those that do not answer are not waited for when another has.
    async fn newest<F>(&self, open: impl Fn(Config) -> F) -> Result<Session, tokio_postgres::Error>
    where
        F: Future<Output = Result<Session, tokio_postgres::Error>>,
    {
        let mut asked: FuturesUnordered<_> = self
            .each
            .iter()
            .enumerate()
            .map(|(place, config)| ask(open(config.clone())).map(move |answer| (place, answer)))
            .collect();
        let mut best: Option<(usize, Session, Option<History>)> = None;
        let mut failed = None;
        let mut until: Option<Instant> = None;
        loop {
            let next = match until {
                Some(until) => tokio::time::timeout_at(until, asked.next()).await,
                None => Ok(asked.next().await),
            };
            let Ok(Some((place, answer))) = next else { break };
            match answer {
                Ok((session, history)) => {
                    until.get_or_insert_with(|| Instant::now() + OTHERS);
                    let is_newer = best
                        .as_ref()
                        .is_none_or(|(_, _, best)| stale(*best, history).is_some());
                    if is_newer {
                        best = Some((place, session, history));
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        match (best, failed) {
            (Some((place, session, history)), _) => {
                self.remember(place, history);
                Ok(session)
            }
            (None, Some(error)) => Err(error),
            (None, None) => nothing().await,
        }
    }

    fn remember(&self, place: usize, history: Option<History>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((place, history));
    }
}

/// A session and the server's history; none where it may not be asked.
async fn ask(
    opening: impl Future<Output = Result<Session, tokio_postgres::Error>>,
) -> Result<(Session, Option<History>), tokio_postgres::Error> {
    let session = opening.await?;
    let history = match session.0.query_typed_one(HISTORY, &[]).await {
        Ok(row) => Some(History {
            system: row.try_get(0)?,
            timeline: row.try_get(1)?,
        }),
        // A standby has no log of its own to name.
        Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => return Err(error),
        Err(error) if error.as_db_error().is_some() => None,
        Err(error) => return Err(error),
    };
    Ok((session, history))
}

/// Why a server is not the primary, beside one of this history.
fn stale(history: Option<History>, newest: Option<History>) -> Option<Stale> {
    let (history, newest) = history.zip(newest)?;
    (history.system == newest.system && history.timeline < newest.timeline).then_some(Stale {
        timeline: history.timeline,
        newest: newest.timeline,
    })
}

/// An error of ours in the driver's clothes.
async fn refuse(stale: Stale) -> Result<Session, tokio_postgres::Error> {
    super::connect::refused(io::Error::new(io::ErrorKind::PermissionDenied, stale)).await
}

/// Only where the connection string names no server, which is refused before.
async fn nothing() -> Result<Session, tokio_postgres::Error> {
    super::connect::refused(io::ErrorKind::AddrNotAvailable.into()).await
}

/// The same with one of its servers.
fn alone(config: &Config, place: usize) -> Config {
    let mut one = Config::new();
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    match config.get_hosts().get(place) {
        Some(tokio_postgres::config::Host::Tcp(name)) => {
            one.host(name);
        }
        Some(tokio_postgres::config::Host::Unix(path)) => {
            one.host_path(path);
        }
        None => {}
    }
    if let Some(address) = config.get_hostaddrs().get(place) {
        one.hostaddr(*address);
    }
    let ports = config.get_ports();
    if let Some(port) = ports.get(place).or_else(|| ports.first()) {
        one.port(*port);
    }
    if let Some(time) = config.get_connect_timeout() {
        one.connect_timeout(*time);
    }
    if let Some(time) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*time);
    }
    if let Some(time) = config.get_keepalives_interval() {
        one.keepalives_interval(time);
    }
    if let Some(times) = config.get_keepalives_retries() {
        one.keepalives_retries(times);
    }
    one.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs());
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_servers_the_one_with_the_newest_timeline_is_the_primary() {
        let of = |system, timeline| Some(History { system, timeline });
        assert!(stale(of(7, 1), of(7, 2)).is_some());
        assert!(stale(of(7, 2), of(7, 2)).is_none());
        assert!(stale(of(7, 3), of(7, 2)).is_none());
        // Another cluster, such as a restored dump, has a count of its own.
        assert!(stale(of(8, 1), of(7, 2)).is_none());
        // One that does not tell is taken as it is.
        assert!(stale(None, of(7, 2)).is_none() && stale(of(7, 1), None).is_none());
    }

    #[test]
    fn each_server_keeps_what_the_string_says_of_all_and_of_itself() {
        let config: Config = "host=a,/run/b port=5433,5434 user=u dbname=d options='-c x=1' \
                              target_session_attrs=read-write connect_timeout=7"
            .parse()
            .unwrap();
        let servers = Servers::of(&config);
        let said: Vec<String> = servers.each.iter().map(|one| format!("{one:?}")).collect();
        assert_eq!(said.len(), 2);
        for (one, own) in servers.each.iter().zip([("a", 5433), ("/run/b", 5434)]) {
            let host = match one.get_hosts() {
                [tokio_postgres::config::Host::Tcp(name)] => name.clone(),
                [tokio_postgres::config::Host::Unix(path)] => path.display().to_string(),
                _ => String::new(),
            };
            assert_eq!((host.as_str(), one.get_ports()), (own.0, [own.1].as_slice()));
            assert_eq!((one.get_user(), one.get_dbname()), (Some("u"), Some("d")));
            assert_eq!(one.get_options(), config.get_options());
            assert_eq!(one.get_connect_timeout(), config.get_connect_timeout());
            assert_eq!(one.get_target_session_attrs(), config.get_target_session_attrs());
        }
    }
}
