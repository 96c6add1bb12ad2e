//! The control port: the truth, the world's events and the hostile rules over plain HTTP and JSON,
//! for a test or an oracle in another process.
//!
//! Owns: its routes. Never does anything that the library's API can't do too.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::grid::MICROS;
use crate::rules::Rule;
use crate::server::{self, Reply};
use crate::simulator::Shared;
use crate::spec::TlsMode;
use crate::world::Event;

/// Largest command.
const MAX_COMMAND: usize = 1024 * 1024;

/// What `GET /` says.
pub(crate) const HELP: &str = "\
GET  /truth              everything published so far: what an oracle needs (JSON)
GET  /status             addresses, clock, sessions, calls, rules (JSON)
GET  /calls              the last calls one by one (JSON)
GET  /operations         what clients made the world do, call by call (JSON)
GET  /ca.pem             certificate to trust
POST /event              a world event, for example {\"event\":\"power-off\",\"vm\":\"vm-10001\"}
                         events: power-on power-off suspend create-vm delete-vm rename move-vm
                         create-snapshot remove-snapshot ask answer set-method set-status
                         set-vcpus host-link maintenance host-reboot renumber-counters late withhold
                         re-register load late-rollups
POST /clock              {\"advance\":3000} seconds pass; {\"step\":-90} the clock is corrected
POST /network            {\"up\":false} connections are refused; {\"up\":true}
POST /sessions/expire    ends all sessions
POST /tls                {\"tls\":\"expired\"} another certificate from now on; {\"tls\":\"test-ca\"} the first one again
POST /password           {\"password\":\"new\"}
GET  /rules              hostile rules and how often they acted (JSON)
POST /rules              adds one, for example
                         {\"method\":\"QueryPerf\",\"skip\":2,\"times\":1,\"action\":\"fault\",\"fault\":\"SystemError\"}
                         actions: delay{millis} fault{fault,message} status{code,body} body{text}
                         truncate{at} cut{at} reset{at} descending minus-one{counter}
                         empty-cells{counter} omit-entity lose hold{millis} zone{minutes,change}
                         of operations: task-time{queued,millis,steps} task-stuck task-fault{fault,message}
                         task-asks task-gone{millis,forgotten} refuse{by} guest{millis,away}
DELETE /rules            removes all; DELETE /rules/ID removes one
";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockCommand {
    #[serde(default)]
    advance: Option<f64>,
    #[serde(default)]
    step: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkCommand {
    up: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsCommand {
    tls: TlsMode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordCommand {
    password: String,
}

/// Accepts connections until stopped.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        let stop = stop.clone();
        tasks.spawn(async move {
            let answer = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { answer(&shared, request).await }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            tokio::select! {
                // A client that goes away is no error.
                result = connection => result.unwrap_or_default(),
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_COMMAND).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let path = head.uri.path();
    match (&head.method, path) {
        (&Method::GET, "/") => server::plain(StatusCode::OK, "text/plain", HELP.to_owned()),
        (&Method::GET, "/truth") => json_reply(&shared.service.world.truth()),
        (&Method::GET, "/status") => json_reply(&status(shared)),
        (&Method::GET, "/calls") => json_reply(&shared.service.calls.recent()),
        (&Method::GET, "/operations") => json_reply(&shared.service.world.operations()),
        (&Method::GET, "/rules") => json_reply(&shared.service.rules.status()),
        (&Method::GET, "/ca.pem") => match shared.trust_pem() {
            Some(pem) => server::plain(StatusCode::OK, "application/x-pem-file", pem.to_owned()),
            None => refuse(StatusCode::NOT_FOUND, "the SDK port has no TLS"),
        },
        (&Method::POST, "/event") => match serde_json::from_slice::<Event>(&body) {
            Ok(event) => match shared.service.world.apply(event) {
                Ok(moref) => json_reply(&json!({ "moref": moref })),
                Err(error) => refuse(StatusCode::CONFLICT, &error.to_string()),
            },
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::POST, "/clock") => match serde_json::from_slice::<ClockCommand>(&body) {
            Ok(command) => clock(shared, &command),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::POST, "/network") => match serde_json::from_slice::<NetworkCommand>(&body) {
            Ok(command) => {
                shared.up.send_replace(command.up);
                json_reply(&json!({ "up": command.up }))
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::POST, "/sessions/expire") => {
            shared.service.sessions.expire_all();
            json_reply(&shared.service.sessions.stats())
        }
        (&Method::POST, "/password") => match serde_json::from_slice::<PasswordCommand>(&body) {
            Ok(command) => {
                shared.service.sessions.set_password(&command.password);
                json_reply(&json!({}))
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::POST, "/tls") => match serde_json::from_slice::<TlsCommand>(&body) {
            Ok(command) => match shared.show(command.tls) {
                Ok(()) => json_reply(&json!({ "tls": command.tls })),
                Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            },
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::POST, "/rules") => match Rule::from_json(&body) {
            Ok(rule) => json_reply(&json!({ "id": shared.service.rules.add(rule) })),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        (&Method::DELETE, "/rules") => {
            shared.service.rules.clear();
            json_reply(&json!({}))
        }
        (&Method::DELETE, _) => match path.strip_prefix("/rules/").map(str::parse) {
            Some(Ok(id)) => {
                shared.service.rules.remove(id);
                json_reply(&json!({}))
            }
            _ => refuse(StatusCode::NOT_FOUND, "no such path; see GET /"),
        },
        _ => refuse(StatusCode::NOT_FOUND, "no such path; see GET /"),
    }
}

fn clock(shared: &Shared, command: &ClockCommand) -> Result<Response<Reply>, Infallible> {
    let clock = shared.service.world.clock();
    if let Some(seconds) = command.advance {
        match Duration::try_from_secs_f64(seconds) {
            Ok(by) => clock.advance(by),
            Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
    if let Some(seconds) = command.step {
        let Ok(by) = Duration::try_from_secs_f64(seconds.abs()) else {
            return refuse(StatusCode::BAD_REQUEST, "not a number of seconds");
        };
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        clock.step(if seconds < 0.0 { -by } else { by });
    }
    json_reply(&json!({ "now": clock.now(), "horizon": clock.horizon() }))
}

fn status(shared: &Shared) -> Value {
    let service = &shared.service;
    let clock = service.world.clock();
    service.sessions.sweep(clock.read());
    let counter_epoch = service.world.read().epoch;
    json!({
        "kind": service.spec.kind,
        "sdk": shared.url(),
        "thumbprint": shared.thumbprint(":"),
        "now": clock.now(),
        "now_seconds": clock.now() / MICROS,
        "horizon": clock.horizon(),
        "vms": service.world.vms().len(),
        "hosts": service.world.hosts().len(),
        "counter_epoch": counter_epoch,
        "connections": shared.accepted.load(Ordering::Relaxed),
        "network_up": *shared.up.borrow(),
        "sessions": service.sessions.stats(),
        "calls": service.calls.methods(),
        "rules": service.rules.status(),
    })
}

fn json_reply<T: serde::Serialize>(value: &T) -> Result<Response<Reply>, Infallible> {
    match serde_json::to_string(value) {
        Ok(text) => server::plain(StatusCode::OK, "application/json", text),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(status: StatusCode, message: &str) -> Result<Response<Reply>, Infallible> {
    let text = json!({ "error": message }).to_string();
    server::plain(status, "application/json", text)
}
