//! The daemon's own HTTP endpoint, HTTP/1.1 on loopback.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process answers |
//! | `/readyz` | 200 while the database answers and its schema fits, else 503 with the reason; a platform that is down never fails it |
//! | `/metrics` | Prometheus text |
//!
//! Owns: the listener and its limits. Never does: work on behalf of a caller; everything it shows is state that
//! others keep. Tasks: one accept loop, one task per connection, at most [`CONNECTIONS`]; a connection that sends
//! its header too slowly is closed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower_service::Service as _;

use crate::error::Chain;
use crate::supervise::Tasks;
use crate::telemetry::metrics::Handle;

/// Connections at a time; more wait in the kernel's backlog.
const CONNECTIONS: usize = 64;

/// From the first byte of a connection, or the end of an answer, to the end of the next header.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// A connection may not live longer: scrapers open new ones.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(120);

/// Histograms and summaries grow until they are drained.
const UPKEEP: Duration = Duration::from_secs(5);

/// Whether the database can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseHealth {
    /// It answers and its schema fits.
    Up,
    /// It does not, and why.
    Down(String),
}

/// What the endpoint shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The database's health.
    pub database: watch::Receiver<DatabaseHealth>,
    /// Renders the metrics.
    pub metrics: Handle,
}

/// The endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; choose another admin.listen")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Binds the address.
///
/// # Errors
/// When it is in use or not this machine's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Serves until the tasks are asked to stop.
pub fn start(listener: TcpListener, shown: Shown, tasks: &Tasks) {
    let stopping = tasks.stopping();
    let metrics = shown.metrics.clone();
    let upkeep = stopping.clone();
    tasks.spawn("metrics upkeep", async move {
        while tokio::time::timeout(UPKEEP, upkeep.cancelled()).await.is_err() {
            metrics.run_upkeep();
        }
    });
    let connections = tasks.clone();
    let routes = routes(shown);
    tasks.spawn("admin", async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _peer)) => {
                    let routes = routes.clone();
                    connections.spawn_transient("admin connection", async move {
                        serve(stream, routes).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Usually out of file descriptors: trying again at once would only spin.
                    tracing::warn!(error = %Chain(&error), "cannot accept a connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
}

async fn serve(stream: TcpStream, routes: Router) {
    let service = service_fn(move |request| {
        let mut routes = routes.clone();
        async move { routes.call(request).await }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_DEADLINE, connection).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(error = %Chain(&error), "connection ended"),
    }
}

fn routes(shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let health = shown.database.borrow().clone();
    match health {
        DatabaseHealth::Up => "ok\n".into_response(),
        DatabaseHealth::Down(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("database: {reason}\n")).into_response()
        }
    }
}

async fn metrics(State(shown): State<Shown>) -> Result<Response, Infallible> {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, TEXT)], shown.metrics.render()).into_response())
}
