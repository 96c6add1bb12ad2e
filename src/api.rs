//! The admin API: what people and scripts may read and do, over HTTP/1.1.
//!
//! | part | one job |
//! |---|---|
//! | [`rights`] | the table: which route needs which right, which role has it |
//! | [`server`] | a request from its header to its answer: request id, limits, deadline, panics, counting |
//! | [`auth`] | whose token it is, and whether it may do this |
//! | [`limit`] | how often somebody may ask |
//! | [`context`] | what routes get: the database, the caller, the audit log |
//! | [`extract`] | paths, queries and bodies, refused in plain words where they are not as they must be |
//! | [`listing`] | what lists may be asked for, and their pages |
//! | [`openapi`] | the document of all of it |
//! | [`problem`] | every answer that is not a success, as RFC 9457 says |
//! | [`routes`] | one file per resource |
//!
//! Owns: HTTP as callers see it. Never does: an action; it writes what is asked for where the collector that has the
//! platform finds it. Connections and their deadlines are [`crate::listen`]'s.
//!
//! Invariants:
//! - Deny by default: a route that does not stand in [`rights::ROUTES`] is not served.
//! - What is not a success is `application/problem+json` with a request id, whatever went wrong.
//! - Without the database nobody gets in: a token is good only if its row was read within [`auth::FRESH`].
//! - Nothing is done without an intent in the audit log.
//! - What is remembered of callers is bounded.
//! - The API's database sessions are its own: no number of requests takes one from collection.
//!
//! Tasks: `api` (accepts), one per connection, `api upkeep` (forgets who has been quiet), `api ends` (hears of
//! operations that end), and one per request that
//! changes something, so that it comes to its end when the caller has gone.

pub mod auth;
pub mod context;
pub mod extract;
pub mod limit;
pub mod listing;
pub mod openapi;
pub mod problem;
pub mod rights;
pub mod routes;
pub mod server;

use tokio::net::TcpListener;

use crate::listen;
use crate::listen::Listening;
use crate::listen::tls::Tls;
use crate::supervise::Tasks;

pub use context::{Context, Parts};

/// Serves until the tasks are asked to stop.
pub fn start(listener: TcpListener, tls: Option<Tls>, context: Context, tasks: &Tasks) {
    let listening = Listening {
        name: "api",
        listener,
        admitted: context.admitted(),
        tls,
    };
    let upkeep = context.clone();
    let stopping = tasks.stopping();
    tasks.spawn("api upkeep", async move {
        while tokio::time::timeout(limit::UPKEEP, stopping.cancelled())
            .await
            .is_err()
        {
            upkeep.forget_the_quiet();
        }
    });
    let ends = context.clone();
    let stopping = tasks.stopping();
    tasks.spawn("api ends", async move { ends.hear_of_ends(stopping).await });
    let server = server::Server::new(context);
    listen::serve(
        listening,
        move |request, peer| server.clone().answer(request, peer),
        tasks,
    );
}
