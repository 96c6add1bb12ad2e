//! Starts and stops everything, and hands out the handles.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::calls::Calls;
use crate::clock::Clock;
use crate::control;
use crate::counters;
use crate::methods::Service;
use crate::rules::Rules;
use crate::server::{self, Door, Port};
use crate::session::Sessions;
use crate::spec::{Spec, TlsMode};
use crate::tls::{self, Tls, TlsError};
use crate::truth::Truth;
use crate::world::World;

/// Why a simulator can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address could not be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No certificate.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
}

/// What the control port needs too.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) service: Arc<Service>,
    pub(crate) address: SocketAddr,
    /// As at the start.
    pub(crate) tls: Option<Tls>,
    pub(crate) door: watch::Sender<Door>,
    pub(crate) up: watch::Sender<bool>,
    pub(crate) accepted: Arc<AtomicU64>,
}

impl Shared {
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/sdk", self.address)
    }

    pub(crate) fn thumbprint(&self, separator: &str) -> Option<String> {
        let tls = self.tls.as_ref()?;
        Some(tls::hex(&tls.thumbprint, separator))
    }

    pub(crate) fn trust_pem(&self) -> Option<&str> {
        self.tls.as_ref().map(|tls| &*tls.trust_pem)
    }

    /// The first certificate where the mode is that of the start, else a new one.
    pub(crate) fn show(&self, mode: TlsMode) -> Result<(), TlsError> {
        let config = match &self.tls {
            _ if mode == TlsMode::Plain => None,
            Some(tls) if mode == self.service.spec.tls => Some(Arc::clone(&tls.config)),
            Some(tls) => Some(tls.another(mode, &self.service.spec)?),
            None => None,
        };
        self.door.send_replace(Door {
            mode,
            tls: config.map(TlsAcceptor::from),
        });
        Ok(())
    }
}

/// A running simulator. Stops when dropped; [`Simulator::shutdown`] also waits for it.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    control: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Simulator {
    /// Builds the world, binds both ports and serves.
    ///
    /// # Errors
    /// A port is taken, or no certificate could be made.
    pub async fn start(spec: Spec) -> Result<Self, Error> {
        let tls = tls::build(&spec)?;
        let (listener, address) = bind(spec.listen).await?;
        let (control_listener, control_address) = bind(spec.control).await?;
        let world = World::new(&spec, Clock::new(spec.clock));
        let service = Arc::new(Service {
            sessions: Sessions::new(&spec),
            world,
            rules: Rules::default(),
            calls: Calls::default(),
            prepared: OnceLock::new(),
            spec,
        });
        let (door, door_seen) = watch::channel(Door {
            mode: service.spec.tls,
            tls: tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.config))),
        });
        let (up, up_seen) = watch::channel(true);
        let shared = Arc::new(Shared {
            service: Arc::clone(&service),
            address,
            tls,
            door,
            up,
            accepted: Arc::new(AtomicU64::new(0)),
        });
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let port = Port {
            service,
            door: door_seen,
            address,
            up: up_seen,
            accepted: Arc::clone(&shared.accepted),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(server::serve(port, listener));
        tasks.spawn(control::serve(
            Arc::clone(&shared),
            control_listener,
            stop.clone(),
            tasks.clone(),
        ));
        Ok(Self {
            shared,
            control: control_address,
            stop,
            tasks,
        })
    }

    /// Address of the SDK port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// `https://127.0.0.1:PORT/sdk`.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.url()
    }

    /// Address of the control port.
    #[must_use]
    pub fn control_addr(&self) -> SocketAddr {
        self.control
    }

    /// The certificate to trust: the test CA's, or the self-signed leaf; `None` without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.shared.trust_pem()
    }

    /// SHA-256 of the leaf certificate: upper-case hex with colons. `None` without TLS.
    #[must_use]
    pub fn leaf_sha256_thumbprint(&self) -> Option<String> {
        self.shared.thumbprint(":")
    }

    /// The same without colons.
    #[must_use]
    pub fn leaf_sha256_plain(&self) -> Option<String> {
        self.shared.thumbprint("")
    }

    /// User and password that may log in.
    #[must_use]
    pub fn credentials(&self) -> (&str, &str) {
        let spec = &self.shared.service.spec;
        (&spec.user, &spec.password)
    }

    /// The world and its events.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.shared.service.world
    }

    /// The server's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.shared.service.world.clock()
    }

    /// The hostile rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.shared.service.rules
    }

    /// What was called.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.shared.service.calls
    }

    /// Who is logged in.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        let sessions = &self.shared.service.sessions;
        sessions.sweep(self.clock().read());
        sessions
    }

    /// Everything published so far.
    #[must_use]
    pub fn truth(&self) -> Truth {
        self.world().truth()
    }

    /// Writes the real-time cells of these counters (`group.name.rollup`, aggregates and instances) before they are
    /// asked for, from an hour ago until `ahead` of now, for a bench that does not want to measure the simulator. Takes
    /// some 5 bytes of text and 4 of index per cell. Counters that it does not know are left out.
    pub fn prepare(&self, counters: &[&str], ahead: Duration) {
        let indices: Vec<usize> = counters
            .iter()
            .filter_map(|name| counters::catalog().find(name))
            .collect();
        let ahead = i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX);
        self.shared.service.prepare(&indices, ahead);
    }

    /// `false`: connections to the SDK port are refused and open ones are closed. `true`: back again
    /// on the same port.
    pub fn set_network(&self, up: bool) {
        self.shared.up.send_replace(up);
    }

    /// Meets new connections in another way: with an expired certificate, for example. The mode of the start brings the
    /// first certificate back. Open connections stay, see [`Simulator::set_network`]. One that was started without TLS
    /// stays without.
    ///
    /// # Errors
    /// No certificate could be made.
    pub fn set_tls(&self, mode: TlsMode) -> Result<(), Error> {
        Ok(self.shared.show(mode)?)
    }

    /// TCP connections accepted on the SDK port so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Stops serving, closes all connections and waits until every task has ended.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let listen = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok((listener, bound))
}
