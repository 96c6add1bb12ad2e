//! Takes connections, or refuses them, and owns the task of each.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::task::JoinSet;

use super::pump;
use super::socket::Socket;
use super::{Endpoint, Shared};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// Before the next try when the system has no socket to give.
const PAUSE: Duration = Duration::from_millis(20);

/// A place to listen that stays ours while nobody is let in.
#[derive(Debug)]
pub(super) enum Door {
    /// The reserve is bound to the same port and never listens: while the other socket is closed, connections are
    /// refused and the port is not given to anyone else.
    Tcp {
        address: SocketAddr,
        _reserve: TcpSocket,
    },
    /// A path.
    Unix(PathBuf),
}

/// Somebody to let clients in.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    /// Opens it; a port 0 becomes a free one.
    pub(super) fn open(endpoint: &Endpoint) -> io::Result<(Self, Listener, Endpoint)> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let reserve = shared_port(*address)?;
                let address = reserve.local_addr()?;
                let door = Self::Tcp {
                    address,
                    _reserve: reserve,
                };
                let listener = door.listen()?;
                Ok((door, listener, Endpoint::Tcp(address)))
            }
            Endpoint::Unix(path) => {
                let door = Self::Unix(path.clone());
                let listener = door.listen()?;
                Ok((door, listener, endpoint.clone()))
            }
        }
    }

    fn listen(&self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp { address, .. } => Listener::Tcp(shared_port(*address)?.listen(BACKLOG)?),
            Self::Unix(path) => {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                Listener::Unix(UnixListener::bind(path)?)
            }
        })
    }
}

fn shared_port(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept().await?.0),
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        })
    }
}

/// Until it is aborted.
pub(super) async fn run(door: Door, listener: Listener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut refusing = shared.refusing.subscribe();
    let mut listener = Some(listener);
    loop {
        // Those that have ended need not be kept.
        while connections.try_join_next().is_some() {}
        if *refusing.borrow_and_update() {
            listener = None;
            if refusing.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => match door.listen() {
                Ok(open) => open,
                Err(_not_now) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let accepted = tokio::select! {
            accepted = open.accept() => Some(accepted),
            changed = refusing.changed() => match changed {
                Ok(()) => None,
                Err(_gone) => return,
            },
            Some(_ended) = connections.join_next() => None,
        };
        listener = Some(open);
        match accepted {
            Some(Ok(client)) => {
                shared.tally.accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(pump::converse(client, Arc::clone(&shared)));
            }
            Some(Err(_not_now)) => tokio::time::sleep(PAUSE).await,
            None => {}
        }
    }
}
