//! A request from its header to its answer.
//!
//! Here is what holds for every request, whatever its route: its id, the address it comes from, how many there may be,
//! that a panic is an answer, that what is not a success is a problem, and what is counted and logged.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower_service::Service as _;
use tracing::Instrument as _;

use crate::api::auth;
use crate::api::context::{Context, RequestId};
use crate::api::problem::{Problem, Unwritten};
use crate::api::rights;
use crate::api::routes;
use crate::listen;
use crate::listen::neighbourhood;
use crate::telemetry::metrics::{ApiMetrics, Denied};
use crate::telemetry::seldom::Seldom;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The label of requests without a route.
const NO_ROUTE: &str = "other";

/// When to come back where there is too much to do: requests take milliseconds.
const OVERLOADED_RETRY: Duration = Duration::from_secs(1);

/// For an answer that says that the service stops.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Answers requests. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Server {
    context: Context,
    routes: Router,
    /// Failures that have been logged lately, by code.
    told: Arc<Mutex<Seldom<&'static str>>>,
}

/// Where a request comes from and what it is called; every request has it in its extensions.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    pub(super) client: IpAddr,
    pub(super) request_id: RequestId,
}

/// The route that answered, as the table has it; in the extensions of the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label(pub(super) &'static str);

impl Server {
    pub(super) fn new(context: Context) -> Self {
        let admit = middleware::from_fn_with_state(context.clone(), auth::admit);
        Self {
            routes: routes::all()
                .layer(admit)
                .fallback(async || Problem::of_status(StatusCode::NOT_FOUND))
                .with_state(context.clone()),
            context,
            told: Arc::default(),
        }
    }

    /// The whole answer to a request.
    pub(super) async fn answer(
        self,
        request: axum::http::Request<listen::Incoming>,
        peer: SocketAddr,
    ) -> Response {
        let arrived = Instant::now();
        let request = request.map(Body::new);
        let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let incoming = Incoming {
            client: client_address(request.headers(), peer.ip(), |address| {
                self.context.is_proxy(address)
            }),
            request_id: RequestId::of(given),
        };
        let span = tracing::debug_span!("request", request_id = incoming.request_id.as_str());
        // Where its end depends on who reads it, a request is the last one of its connection: nothing that stands
        // behind it can be taken for another.
        let is_last = request.headers().contains_key(header::TRANSFER_ENCODING);
        let counted = self.context.metrics().entered();
        let response = self.work(request, incoming.clone()).instrument(span).await;
        let response = self.finish(response, &incoming, arrived, is_last);
        drop(counted);
        response
    }

    async fn work(&self, mut request: Request, incoming: Incoming) -> Response {
        let limits = self.context.limits();
        if let Err(wait) = limits.of_address.take(neighbourhood(incoming.client)) {
            self.context.metrics().denied(Denied::RateLimited);
            let detail = "Too many requests come from this address.";
            return Problem::too_many("rate_limited", detail, wait).into_response();
        }
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
            let detail = "The header Host must stand once.";
            return Problem::bad_request("bad_host", detail).closing().into_response();
        }
        let Some(place) = self.context.place() else {
            self.context.metrics().denied(Denied::Overloaded);
            let detail = "More is asked for at once than can be answered.";
            return Problem::unavailable("overloaded", detail, OVERLOADED_RETRY).into_response();
        };
        if let Some(uri) = with_slash(request.uri()) {
            *request.uri_mut() = uri;
        }
        let changes = *request.method() != Method::GET && *request.method() != Method::HEAD;
        request.extensions_mut().insert(incoming);
        request.extensions_mut().insert(place.clone());
        let mut routes = self.routes.clone();
        let metrics = self.context.metrics().clone();
        let working = async move {
            let answered = unbroken(async move { routes.call(request).await }, &metrics).await;
            place.give_up();
            answered
        };
        if !changes {
            return working.await;
        }
        // Comes to its end also when the caller goes away meanwhile.
        let (reply, answer) = oneshot::channel();
        let span = tracing::Span::current();
        let tasks = self.context.tasks();
        // When all stops it has a little less time than its connection, so that the caller is told.
        let farewell = listen::FAREWELL.saturating_sub(TOLD_WITHIN);
        tasks.spawn_for_a_while("api request", farewell, async move {
            // Nobody waits where the caller has gone.
            drop(reply.send(working.instrument(span).await));
        });
        answer.await.unwrap_or_else(|_stopped| {
            let detail = "The service is stopping; what was asked for may still be done.";
            Problem::unavailable("stopping", detail, Duration::from_secs(5)).into_response()
        })
    }

    /// What every answer has.
    fn finish(
        &self,
        mut response: Response,
        incoming: &Incoming,
        arrived: Instant,
        is_last: bool,
    ) -> Response {
        let route = response
            .extensions()
            .get::<Label>()
            .map_or(NO_ROUTE, |label| label.0);
        let request_id = incoming.request_id.as_str();
        if let Some(Unwritten(problem)) = response.extensions_mut().remove::<Unwritten>() {
            if problem.status().is_server_error() {
                self.tell(&problem, request_id, route);
            }
            response = problem.write(request_id);
        } else if response.status().is_client_error() || response.status().is_server_error() {
            response = Problem::of_status(response.status()).write(request_id);
        }
        let status = response.status();
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if is_last {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let took = arrived.elapsed();
        self.context.metrics().answered(route, status.as_u16(), took);
        tracing::debug!(request_id, route, status = status.as_u16(), client = %incoming.client, elapsed = ?took, "answered");
        response
    }

    fn tell(&self, problem: &Problem, request_id: &str, route: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repeated) = told.due(problem.code(), Instant::now()) {
            let error = problem.cause().unwrap_or(problem.detail());
            tracing::warn!(
                request_id,
                route,
                code = problem.code(),
                error,
                repeated = (repeated > 0).then_some(repeated),
                "a request failed"
            );
        }
    }
}

/// A panic is an answer, too: without details, and counted.
async fn unbroken(
    answering: impl Future<Output = Result<Response, Infallible>>,
    metrics: &ApiMetrics,
) -> Response {
    match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_panic) => {
            metrics.panicked();
            Problem::internal("a panic, whose message is on standard error").into_response()
        }
    }
}

/// Under the base, a path is the same with and without a slash at its end.
fn with_slash(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if path.ends_with('/') || !path.starts_with(rights::BASE) {
        return None;
    }
    let with_query = match uri.query() {
        Some(query) => format!("{path}/?{query}"),
        None => format!("{path}/"),
    };
    with_query.parse().ok()
}

/// Who is behind the proxies that are trusted: the last address that none of them has. What a stranger writes into the
/// header stands further left.
fn client_address(headers: &HeaderMap, peer: IpAddr, is_proxy: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer.to_canonical();
    let told: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .collect();
    for address in told.into_iter().rev() {
        if !is_proxy(client) {
            break;
        }
        match address.parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        let proxies: Vec<Network> = ["127.0.0.1", "10.1.0.0/16"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        for (peer, forwarded, client) in [
            ("192.0.2.7", &["203.0.113.9"][..], "192.0.2.7"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:127.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            ("127.0.0.1", &["6.6.6.6", "203.0.113.9, 10.1.2.3"], "203.0.113.9"),
            ("127.0.0.1", &["10.1.9.9"], "10.1.9.9"),
            ("127.0.0.1", &["203.0.113.9, nonsense"], "127.0.0.1"),
            ("127.0.0.1", &["2001:db8::1"], "2001:db8::1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let is_proxy = |address| proxies.iter().any(|proxy| proxy.contains(address));
            let found = client_address(&headers, peer.parse().unwrap(), is_proxy);
            assert_eq!(found.to_string(), client, "{peer} {forwarded:?}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_without_details() {
        let broken = async {
            assert_eq!(1, 2, "a detail that is nobody's business");
            Ok(Response::new(Body::empty()))
        };
        let response = unbroken(broken, &ApiMetrics::new()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let Unwritten(problem) = response.extensions().get().unwrap();
        assert!(!format!("{problem:?}").contains("business"), "{problem:?}");
    }

    #[test]
    fn a_path_under_the_base_gets_its_slash_and_no_other_does() {
        for (given, with) in [
            ("/api/virt-center/vms", Some("/api/virt-center/vms/")),
            (
                "/api/virt-center/vms?name=a%2Fb",
                Some("/api/virt-center/vms/?name=a%2Fb"),
            ),
            ("/api/virt-center/vms/", None),
            ("/livez", None),
            ("*", None),
        ] {
            let uri: Uri = given.parse().unwrap();
            assert_eq!(
                with_slash(&uri).map(|uri| uri.to_string()).as_deref(),
                with,
                "{given}"
            );
        }
    }
}
