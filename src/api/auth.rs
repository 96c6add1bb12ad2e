//! Whose token it is, and whether it may do this.
//!
//! The rows of all tokens are read together, at most [`FRESH`] before they are used and never more often than each
//! [`APART`]: a revoked token is refused within a second, and guessing costs the database nothing. A token whose row
//! is not known is refused only by rows that were read after it came. Nothing of a token but its row's number is
//! looked up; it is compared in [`crate::secret`], in constant time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body::Body as _;
use tokio::time::Instant;

use crate::api::context::{Asker, Caller, Context, Place, Scope};
use crate::api::extract::Prefer;
use crate::api::problem::Problem;
use crate::api::rights;
use crate::api::rights::{Lookup, Right, Role, Route};
use crate::api::server::{Incoming, Label};
use crate::error::Chain;
use crate::listen::neighbourhood;
use crate::secret::{Grant, KeyRing, Token, key_file};
use crate::store;
use crate::store::Database;
use crate::store::token::TokenRow;
use crate::telemetry::metrics::Denied;

/// How old the rows may be that a request is let in by.
pub const FRESH: Duration = Duration::from_secs(1);

/// Time between two readings of the rows.
pub const APART: Duration = Duration::from_millis(100);

/// When to come back where a token has too many requests at work.
const ONE_ENDS: Duration = Duration::from_secs(1);

/// The tokens as they were last read.
#[derive(Debug)]
pub(super) struct Tokens {
    database: Database,
    keys: PathBuf,
    last: RwLock<Option<Arc<Reading>>>,
    reading: tokio::sync::Mutex<()>,
    /// When the use of each was last noted.
    noted: Mutex<HashMap<i32, Instant>>,
}

#[derive(Debug)]
struct Reading {
    /// Before the database was asked.
    at: Instant,
    rows: HashMap<i32, TokenRow>,
    ring: Result<KeyRing, String>,
}

/// Whose token it is.
#[derive(Debug)]
struct Known {
    id: i32,
    name: String,
    role: Role,
    scope: Scope,
}

/// Why a token is no good.
#[derive(Debug)]
struct Refused {
    /// For the audit log. The caller is not told which it is.
    code: &'static str,
    /// Where the token was a real one.
    name: Option<String>,
}

#[derive(Debug)]
enum Failure {
    Refused(Refused),
    Unavailable(Problem),
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl Tokens {
    pub(super) fn new(database: Database, keys: PathBuf) -> Self {
        Self {
            database,
            keys,
            last: RwLock::new(None),
            reading: tokio::sync::Mutex::new(()),
            noted: Mutex::default(),
        }
    }

    /// Rows that were asked for at `least` or later.
    async fn read_since(&self, least: Instant) -> Result<Arc<Reading>, store::Error> {
        let last = || self.last.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_fresh = |reading: &Arc<Reading>| reading.at >= least;
        if let Some(reading) = last().filter(is_fresh) {
            return Ok(reading);
        }
        let turn = self.reading.lock().await;
        if let Some(reading) = last() {
            if is_fresh(&reading) {
                return Ok(reading);
            }
            tokio::time::sleep_until(reading.at + APART).await;
        }
        let at = Instant::now();
        let rows = self.database.tokens().await?;
        let reading = Arc::new(Reading {
            at,
            rows: rows.into_iter().map(|row| (row.made.id, row)).collect(),
            ring: key_file::load(&self.keys).map_err(|error| Chain(&error).to_string()),
        });
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&reading));
        drop(turn);
        Ok(reading)
    }

    async fn recognise(&self, text: &str) -> Result<Known, Failure> {
        let refused = |code, name: Option<&str>| {
            let name = name.map(str::to_owned);
            Err(Failure::Refused(Refused { code, name }))
        };
        let arrived = Instant::now();
        let Some(token) = Token::parse(text) else {
            return refused("malformed", None);
        };
        let mut reading = self
            .read_since(arrived.checked_sub(FRESH).unwrap_or(arrived))
            .await?;
        if !reading.rows.contains_key(&token.row()) {
            reading = self.read_since(arrived).await?;
        }
        let Some(row) = reading.rows.get(&token.row()) else {
            return refused("unknown", None);
        };
        let ring = match &reading.ring {
            Ok(ring) => ring,
            Err(cause) => {
                let problem = Problem::unavailable(
                    "keys_unavailable",
                    "Tokens cannot be checked just now: the key ring cannot be read.",
                    Duration::from_secs(30),
                );
                return Err(Failure::Unavailable(problem.because(cause)));
            }
        };
        if !belongs(ring, &token, row) {
            return refused("mismatch", None);
        }
        let name = row.made.name.as_str();
        if row.revoked_at.is_some() {
            return refused("revoked", Some(name));
        }
        if row.is_expired {
            return refused("expired", Some(name));
        }
        let Some(role) = Role::from_name(&row.made.role) else {
            return refused("mismatch", Some(name));
        };
        self.note_use(row).await?;
        Ok(Known {
            id: token.row(),
            name: name.to_owned(),
            role,
            scope: row
                .made
                .platforms
                .as_ref()
                .map_or(Scope::All, |names| Scope::Named(names.iter().cloned().collect())),
        })
    }

    /// To the minute: once a minute is enough.
    async fn note_use(&self, row: &TokenRow) -> Result<(), store::Error> {
        let (id, now) = (row.made.id, Instant::now());
        let is_due = {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = noted
                .get(&id)
                .is_none_or(|last| now.duration_since(*last) >= Duration::from_secs(60));
            if is_due {
                noted.insert(id, now);
            }
            is_due
        };
        if is_due && !row.is_in_use {
            self.database.token_used(id).await?;
        }
        Ok(())
    }
}

fn belongs(ring: &KeyRing, token: &Token, row: &TokenRow) -> bool {
    let grant = Grant {
        name: &row.made.name,
        role: &row.made.role,
        platforms: row.made.platforms.as_deref(),
        expires_at: row.made.expires_at.micros(),
    };
    let Ok(key) = row.made.key.parse() else {
        return false;
    };
    // Without its key a token is no good; `token list` names the key of each.
    ring.verify_token(token, &grant, key, &row.made.mac)
        .unwrap_or(false)
}

/// What stands in front of every route.
pub(super) async fn admit(State(context): State<Context>, mut request: Request, next: Next) -> Response {
    let route = match look_up(&request) {
        Ok(route) => route,
        Err(problem) => return problem.into_response(),
    };
    let mut response = match Box::pin(check(&context, route, &mut request)).await {
        Err(problem) => problem.into_response(),
        Ok(()) => {
            let deadline = route.deadline() + Prefer::of(request.headers()).wait;
            match tokio::time::timeout(deadline, next.run(request)).await {
                Ok(response) => response,
                Err(_elapsed) => Problem::unavailable(
                    "too_slow",
                    format!(
                        "There was no answer within {} s; what was asked for may still be done.",
                        deadline.as_secs()
                    ),
                    Duration::from_secs(5),
                )
                .into_response(),
            }
        }
    };
    response.extensions_mut().insert(Label(route.path));
    response
}

fn look_up(request: &Request) -> Result<&'static Route, Problem> {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    match rights::find(request.method(), path.unwrap_or_default()) {
        Lookup::Found(route) => Ok(route),
        Lookup::NoPath => Err(Problem::of_status(StatusCode::NOT_FOUND)),
        Lookup::NoMethod(allowed) => {
            let problem = Problem::of_status(StatusCode::METHOD_NOT_ALLOWED);
            Err(match HeaderValue::from_str(&allowed) {
                Ok(allowed) => problem.with_header(header::ALLOW, allowed),
                Err(_) => problem,
            })
        }
    }
}

/// Lets a request in, or says why not.
async fn check(context: &Context, route: &'static Route, request: &mut Request) -> Result<(), Problem> {
    let Some(Incoming { client, request_id }) = request.extensions().get::<Incoming>().cloned() else {
        return Err(Problem::internal("a request without a sender"));
    };
    if route.right != Right::Open {
        let path = request.uri().path().to_owned();
        let who = |actor| Asker {
            actor,
            client,
            request_id: request_id.as_str(),
            action: route.action,
            path: &path,
        };
        let known = match authenticate(context, request.headers()).await {
            Ok(known) => known,
            Err(Failure::Unavailable(problem)) => return Err(problem),
            Err(Failure::Refused(Refused { code, name })) => {
                let written =
                    Problem::new(StatusCode::UNAUTHORIZED, code, "No token, or none that is valid.");
                context
                    .denied(
                        Denied::Unauthenticated,
                        &who(name.as_deref().unwrap_or_default()),
                        &written,
                    )
                    .await;
                return Err(unauthenticated(context, client, code));
            }
        };
        if let Err(wait) = context.limits().of_token.take(known.id) {
            context.metrics().denied(Denied::RateLimited);
            return Err(Problem::too_many(
                "rate_limited",
                "This token asks too often.",
                wait,
            ));
        }
        let place = request.extensions().get::<Place>();
        if !place.is_some_and(|place| context.is_room_for(known.id, place)) {
            context.metrics().denied(Denied::RateLimited);
            return Err(Problem::too_many(
                "rate_limited",
                "This token has as many requests at work as it may have at once.",
                ONE_ENDS,
            ));
        }
        if !known.role.has(route.right) {
            let problem = Problem::forbidden(format!("The role {} may not do this.", known.role));
            context
                .denied(Denied::Forbidden, &who(&known.name), &problem)
                .await;
            return Err(problem);
        }
        if route.right.is_action()
            && let Err(wait) = context.limits().actions.take(known.id)
        {
            context.metrics().denied(Denied::RateLimited);
            return Err(Problem::too_many(
                "rate_limited",
                format!(
                    "This token asks for more than {} actions a minute.",
                    context.configured().actions_per_minute
                ),
                wait,
            ));
        }
        let Known {
            id,
            name,
            role,
            scope,
        } = known;
        request.extensions_mut().insert(Caller {
            token: id,
            name,
            role,
            scope,
            client,
            request_id,
            route,
        });
    }
    acceptable(request.headers())?;
    if route.method == Method::GET && !request.body().is_end_stream() {
        return Err(Problem::bad_request("unexpected_body", "A GET request has no body.").closing());
    }
    Ok(())
}

async fn authenticate(context: &Context, headers: &HeaderMap) -> Result<Known, Failure> {
    let refused = |code| Failure::Refused(Refused { code, name: None });
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(refused("missing"));
    };
    if values.next().is_some() {
        return Err(refused("malformed"));
    }
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token)
        .ok_or_else(|| refused("malformed"))?;
    context.tokens().recognise(token).await
}

/// The answer to who is not known. Without a token it costs nothing to say so; with a wrong one, an address may try
/// a few a minute.
fn unauthenticated(context: &Context, client: std::net::IpAddr, code: &'static str) -> Problem {
    let challenge = if code == "missing" {
        "Bearer realm=\"virt-collector\""
    } else {
        if let Err(wait) = context.limits().failures.take(neighbourhood(client)) {
            context.metrics().denied(Denied::RateLimited);
            return Problem::too_many(
                "rate_limited",
                "Too many wrong tokens came from this address.",
                wait,
            );
        }
        "Bearer realm=\"virt-collector\", error=\"invalid_token\""
    };
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthenticated",
        "This needs a valid token, as `Authorization: Bearer TOKEN`; `virt-collector token create` makes one.",
    )
    .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// Everything here is JSON.
fn acceptable(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    let takes_json = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|part| {
            part.strip_prefix("q=")
                .and_then(|q| q.parse::<f32>().ok())
                .is_some_and(|q| q <= 0.0)
        });
        !is_refused && matches!(kind.as_str(), "*/*" | "application/*" | "application/json")
    };
    if values.peek().is_none()
        || values.any(|value| value.to_str().is_ok_and(|value| value.split(',').any(takes_json)))
    {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_acceptable",
        "Answers are application/json; the header Accept does not take that.",
    ))
}
