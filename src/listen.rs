//! Connections of HTTP/1.1: accepted, encrypted where asked for, limited, and closed in time.
//!
//! Owns: hyper; every deadline and limit of a connection. Never does: paths, rights, answers; those come from whoever
//! listens. What does not even parse as HTTP is answered here, with a bare status, and closed.
//!
//! | limit | value |
//! |---|---|
//! | TLS handshake | [`HANDSHAKE_DEADLINE`] |
//! | the whole header, from accept, and from the end of an answer to the end of the next header | [`HEADER_DEADLINE`] |
//! | size of the header, number of fields | [`HEADER_BYTES`], [`HEADERS`]: 431 |
//! | an answer that its receiver does not take | [`WRITE_DEADLINE`] without progress |
//! | a connection as a whole | [`LIFETIME`], then the request in progress may end within [`LAST_REQUEST`] |
//! | a connection when all stops | the request in progress may end within [`FAREWELL`] |
//! | connections, of all and of one address, which in IPv6 is its /64 | [`Limits`] |
//!
//! Tasks: one accept loop per listener, one task per connection.

pub mod crowd;
mod patient;
pub mod tls;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
pub use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Network;
use crate::error::Chain;
use crate::supervise::Tasks;
use crate::telemetry::metrics::ConnectionMetrics;
use crate::telemetry::seldom::Seldom;

use crowd::{Crowd, Member};
use patient::Patient;
use tls::Tls;

/// From accept to the end of the TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// From accept or the end of an answer to the end of the next header.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// An answer that its receiver does not take makes no progress for this long.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// A connection takes no new request after this.
pub const LIFETIME: Duration = Duration::from_secs(120);

/// What a request in progress gets when the lifetime is over; more than the longest request takes.
pub const LAST_REQUEST: Duration = Duration::from_secs(90);

/// What a request in progress gets when all stops. Who asked for something learns what became of it.
pub const FAREWELL: Duration = Duration::from_secs(10);

/// The whole header of a request.
pub const HEADER_BYTES: usize = 16 * 1024;

/// Fields of a header.
pub const HEADERS: usize = 64;

/// After a failed accept, usually for want of file descriptors: trying again at once would only spin.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At a time; more wait in the kernel's backlog.
    pub connections: usize,
    /// Of one address; more are closed at once.
    pub per_address: usize,
}

/// Who may connect; may change while it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// How many connections.
    pub limits: Limits,
    /// Where all connections come from a few proxies, the limit per address is not for those.
    pub proxies: Vec<Network>,
}

/// Nobody can listen there.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; choose another {key}")]
pub struct ListenError {
    address: SocketAddr,
    /// The key of the configuration.
    key: &'static str,
    #[source]
    source: std::io::Error,
}

/// Binds the address that a key of the configuration names.
///
/// # Errors
/// When it is in use or not this machine's.
pub async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, key, source })
}

/// What a listener is told.
#[derive(Debug)]
pub struct Listening {
    /// Name of the endpoint, for tasks, logs and metrics.
    pub name: &'static str,
    /// The socket.
    pub listener: TcpListener,
    /// Who may connect.
    pub admitted: watch::Receiver<Admitted>,
    /// TLS, where it is spoken.
    pub tls: Option<Tls>,
}

/// Serves until the tasks are asked to stop. `answer` gets each request with the address of the other side.
pub fn serve<A, F, B>(listening: Listening, answer: A, tasks: &Tasks)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connections = tasks.clone();
    tasks.spawn(listening.name, accept(listening, answer, connections));
}

async fn accept<A, F, B>(listening: Listening, answer: A, tasks: Tasks)
where
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Listening {
        name,
        listener,
        mut admitted,
        tls,
    } = listening;
    let metrics = ConnectionMetrics::new(name);
    let mut now = admitted.borrow_and_update().clone();
    let mut places = Arc::new(Semaphore::new(now.limits.connections));
    let addresses = Crowd::default();
    let mut told = Seldom::default();
    let stopping = tasks.stopping();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            // Connections that stand are counted by the number of places that they came under.
            Ok(()) = admitted.changed() => {
                let before = std::mem::replace(&mut now, admitted.borrow_and_update().clone());
                if before.limits.connections != now.limits.connections {
                    places = Arc::new(Semaphore::new(now.limits.connections));
                }
                continue;
            }
            accepted = next(&places, &listener) => accepted,
        };
        let (place, stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(repeated) = told.due((), Instant::now()) {
                    let repeated = (repeated > 0).then_some(repeated);
                    tracing::warn!(endpoint = name, error = %Chain(&error), repeated, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let address = peer.ip().to_canonical();
        let most = if now.proxies.iter().any(|proxy| proxy.contains(address)) {
            now.limits.connections
        } else {
            now.limits.per_address
        };
        let Some(counted) = enter(&addresses, address, most) else {
            metrics.refused("address");
            continue;
        };
        let open = metrics.opened();
        let tls = tls.clone();
        let answer = answer.clone();
        let metrics = metrics.clone();
        let stopping = stopping.clone();
        // A moment more than the connection gives itself.
        tasks.spawn_for_a_while("connection", FAREWELL + WRITE_DEADLINE, async move {
            match tls {
                None => converse(stream, peer, answer, &stopping).await,
                Some(tls) => match tls.accept(stream, HANDSHAKE_DEADLINE).await {
                    Some(stream) => converse(stream, peer, answer, &stopping).await,
                    None => metrics.refused("tls"),
                },
            }
            drop((place, counted, open));
        });
    }
}

/// A place for a connection, then a connection.
async fn next(
    places: &Arc<Semaphore>,
    listener: &TcpListener,
) -> std::io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((place, stream, peer))
}

/// One connection, to its end.
async fn converse<S, A, F, B>(stream: S, peer: SocketAddr, answer: A, stopping: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(move |request| {
        let answering = answer(request, peer);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .max_buf_size(HEADER_BYTES)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(Patient::new(stream, WRITE_DEADLINE)), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => Ok(ended),
        () = stopping.cancelled() => Err(FAREWELL),
        () = tokio::time::sleep(LIFETIME) => Err(LAST_REQUEST),
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(last) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = until_over(last, stopping) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client = %peer, error = %Chain(&error), "connection ended");
    }
}

/// Whom an address is counted as: in IPv6, one that gets a network gets 2^64 addresses.
#[must_use]
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(std::net::Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
        address @ IpAddr::V4(_) => address,
    }
}

/// A time, cut short when all stops.
async fn until_over(last: Duration, stopping: &CancellationToken) {
    let stopped = async {
        stopping.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        () = tokio::time::sleep(last) => {}
        () = stopped => {}
    }
}

/// One more connection of an address, or rather of its [`neighbourhood`].
fn enter(addresses: &Crowd<IpAddr>, address: IpAddr, most: usize) -> Option<Member<IpAddr>> {
    addresses.enter(neighbourhood(address), most)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn neighbours_count_as_one_in_ipv6_alone() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    /// Who has a network of IPv6 connects from each of its addresses once.
    #[test]
    fn a_network_of_ipv6_gets_as_many_connections_as_one_address() {
        let addresses = Crowd::default();
        let enter = |text: &str| enter(&addresses, text.parse().unwrap(), 2);
        let kept = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(kept.0.is_some() && kept.1.is_some());
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::3").is_some() && enter("192.0.2.1").is_some());
        drop(kept);
        assert!(enter("2001:db8::3").is_some());
    }

    /// How long a connection lives whose other side sends this, stays, and reads nothing of an answer of so many bytes.
    async fn life(sent: &[u8], answer: usize) -> Duration {
        let (mut ours, theirs) = tokio::io::duplex(1024);
        ours.write_all(sent).await.unwrap();
        let started = Instant::now();
        let peer = SocketAddr::from(([192, 0, 2, 1], 4711));
        let answer =
            move |_request, _peer| async move { Response::new(Full::new(Bytes::from(vec![b' '; answer]))) };
        converse(theirs, peer, answer, &CancellationToken::new()).await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_stops_a_request_in_progress_is_answered_and_who_asks_nothing_is_let_go() {
        for (sent, answered) in [(&b""[..], false), (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", true)] {
            let (mut ours, theirs) = tokio::io::duplex(1024);
            ours.write_all(sent).await.unwrap();
            let stopping = CancellationToken::new();
            let peer = SocketAddr::from(([192, 0, 2, 1], 4711));
            let answer = |_request, _peer| async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                Response::new(Full::new(Bytes::from_static(b"done")))
            };
            let started = Instant::now();
            let stop = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stopping.cancel();
            };
            tokio::join!(converse(theirs, peer, answer, &stopping), stop);
            assert_eq!(started.elapsed().as_secs(), if answered { 3 } else { 1 });
            let mut read = String::new();
            ours.read_to_string(&mut read).await.unwrap();
            assert_eq!(read.ends_with("done"), answered, "{read}");
        }
    }

    /// The clock stands still and jumps to the next deadline: what is measured does not depend on the machine.
    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_its_deadlines() {
        const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        for (sent, answer, deadline) in [
            (&b""[..], 0, HEADER_DEADLINE),
            (b"GET / HTTP/1.1\r\nhost: x\r\n", 0, HEADER_DEADLINE),
            (WHOLE, 1, HEADER_DEADLINE),
            (WHOLE, 100_000, WRITE_DEADLINE),
        ] {
            let life = life(sent, answer).await;
            assert_eq!(life.as_secs(), deadline.as_secs(), "{sent:?} {answer}");
        }
    }
}
