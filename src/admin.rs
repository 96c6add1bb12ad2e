//! The daemon's own HTTP endpoint, HTTP/1.1 on loopback.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process answers |
//! | `/readyz` | 200 while the database answers and its schema fits, else 503 with the reason; a platform that is down never fails it |
//! | `/metrics` | Prometheus text |
//!
//! Owns: its routes. Never does: work on behalf of a caller; everything it shows is state that others keep, but for what
//! the process takes, which is read when it is asked for. Connections and their limits are [`crate::listen`]'s.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_service::Service as _;

use crate::listen;
use crate::listen::{Admitted, Limits, Listening};
pub use crate::model::status::DatabaseHealth;
use crate::supervise::Tasks;
use crate::telemetry::metrics::Handle;
use crate::telemetry::metrics::look_at_process;

/// All of them may come from one address: who asks is on this machine.
const ADMITTED: Admitted = Admitted {
    limits: Limits {
        connections: 64,
        per_address: 64,
    },
    proxies: Vec::new(),
};

/// Histograms and summaries grow until they are drained.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the endpoint shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The database's health.
    pub database: watch::Receiver<DatabaseHealth>,
    /// Renders the metrics.
    pub metrics: Handle,
}

/// Serves until the tasks are asked to stop.
pub fn start(listener: TcpListener, shown: Shown, tasks: &Tasks) {
    let stopping = tasks.stopping();
    let metrics = shown.metrics.clone();
    tasks.spawn("metrics upkeep", async move {
        while tokio::time::timeout(UPKEEP, stopping.cancelled()).await.is_err() {
            metrics.run_upkeep();
        }
    });
    let routes = routes(shown);
    let listening = Listening {
        name: "admin",
        listener,
        admitted: watch::Sender::new(ADMITTED).subscribe(),
        tls: None,
    };
    let answer = move |request, _peer| {
        let mut routes = routes.clone();
        async move {
            match routes.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    listen::serve(listening, answer, tasks);
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
    look_at_process();
    Ok(([(header::CONTENT_TYPE, TEXT)], shown.metrics.render()).into_response())
}
