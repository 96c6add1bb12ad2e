//! One call: the only way from the rest of the crate to the wire.
//!
//! Owns: the call limiter, the circuit breaker, operation ids, counting and the debug line of each call. Never does:
//! repeating a call, or anything about sessions beyond sending the cookie it is given.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use governor::DefaultDirectRateLimiter;
use governor::Quota;
use governor::RateLimiter;
use reqwest::header::HeaderValue;
use tokio::time::Instant;

use crate::config::Trust;
use crate::error::Chain;
use crate::soap::breaker::Breaker;
use crate::soap::breaker::Pass;
use crate::soap::breaker::Trouble;
use crate::soap::breaker::Verdict;
use crate::soap::envelope::Reply;
use crate::soap::envelope::Request;
use crate::soap::error::Error;
use crate::soap::error::OperationId;
use crate::soap::transport;
use crate::soap::transport::Limits;
use crate::soap::transport::Outgoing;
use crate::soap::transport::Transport;
use crate::telemetry::metrics::CallResult;
use crate::telemetry::metrics::PlatformMetrics;

/// What a platform's calls have come to since its pool was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests sent.
    pub requests: u64,
    /// Of these, requests without a result: refused, broken, too late or unreadable at the transport.
    pub failures: u64,
    /// Bytes of answers, after gunzip.
    pub reply_bytes: u64,
    /// Time spent in requests, all added up.
    pub busy: Duration,
    /// Successful logins.
    pub logins: u64,
    /// Of these, logins because a session was lost.
    pub relogins: u64,
    /// Logins that the server refused.
    pub refusals: u64,
    /// Sessions ended by us.
    pub logouts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
    reply_bytes: AtomicU64,
    busy_micros: AtomicU64,
    pub(crate) logins: AtomicU64,
    pub(crate) relogins: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) logouts: AtomicU64,
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counts {
    pub(crate) fn snapshot(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            requests: get(&self.requests),
            failures: get(&self.failures),
            reply_bytes: get(&self.reply_bytes),
            busy: Duration::from_micros(get(&self.busy_micros)),
            logins: get(&self.logins),
            relogins: get(&self.relogins),
            refusals: get(&self.refusals),
            logouts: get(&self.logouts),
        }
    }
}

/// The way to one platform.
#[derive(Debug)]
pub(crate) struct Client {
    platform: String,
    transport: Transport,
    limiter: DefaultDirectRateLimiter,
    breaker: Breaker,
    pub(crate) counts: Counts,
    pub(crate) metrics: PlatformMetrics,
}

impl Client {
    pub(crate) fn new(
        platform: String,
        host: &str,
        port: u16,
        trust: &Trust,
        requests_per_second: u32,
    ) -> Result<Self, Error> {
        let rate = NonZeroU32::new(requests_per_second).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            metrics: PlatformMetrics::new(&platform),
            platform,
            transport: Transport::new(host, port, trust)?,
            breaker: Breaker::new(RandomState::new().hash_one(host)),
            limiter: RateLimiter::direct(Quota::per_second(rate)),
            counts: Counts::default(),
        })
    }

    /// Sends one request and returns its answer, with a session cookie where the server set one.
    ///
    /// # Errors
    /// [`Error::Transport`] below SOAP, [`Error::Fault`] where the server refuses, [`Error::Down`] where nothing was
    /// sent because the platform is down.
    pub(crate) async fn call(
        &self,
        request: &Request,
        action: &str,
        cookie: Option<&HeaderValue>,
        limits: Limits,
    ) -> Result<(Reply, Option<HeaderValue>), Error> {
        let method = request.method();
        let operation = OperationId::random();
        let pass = self.admit()?;
        self.limiter.until_ready().await;
        let started = Instant::now();
        let outgoing = Outgoing {
            body: request.envelope(&operation),
            action,
            cookie,
        };
        let answer = self.transport.post(outgoing, limits).await;
        self.judge(pass, answer.as_ref().err());
        let bytes = answer.as_ref().map_or(0, |answer| answer.body.len());
        self.count(started, bytes);
        let result = match answer {
            Ok(answer) => {
                let reply = Reply {
                    method,
                    operation: operation.clone(),
                    body: answer.body,
                };
                if answer.success {
                    Ok((reply, answer.cookie))
                } else {
                    Err(refusal(&reply))
                }
            }
            Err(source) => Err(Error::Transport {
                method,
                operation: operation.clone(),
                source: Box::new(source),
            }),
        };
        if result.is_err() {
            add(&self.counts.failures, 1);
        }
        let outcome = match &result {
            Ok(_) => CallResult::Ok,
            Err(Error::Fault { .. }) => CallResult::Fault,
            Err(_) => CallResult::Error,
        };
        self.metrics.called(method, outcome, started.elapsed(), bytes);
        if let Err(error) = &result {
            self.metrics.call_failed(error.label());
        }
        tracing::debug!(
            platform = %self.platform,
            method,
            operation = %operation,
            elapsed = ?started.elapsed(),
            bytes = result.as_ref().map_or(0, |(reply, _)| reply.body.len()),
            outcome = result.as_ref().map_or_else(|error| error.label(), |_| "ok"),
            "vSphere call"
        );
        result
    }

    /// Reads the server's list of API versions.
    pub(crate) async fn versions(&self, limits: Limits) -> Result<Option<String>, Error> {
        const METHOD: &str = "vimServiceVersions.xml";
        let pass = self.admit()?;
        self.limiter.until_ready().await;
        let started = Instant::now();
        let result = self.transport.versions(limits).await;
        self.judge(pass, result.as_ref().err());
        self.count(started, 0);
        let outcome = if result.is_ok() {
            CallResult::Ok
        } else {
            CallResult::Error
        };
        self.metrics.called(METHOD, outcome, started.elapsed(), 0);
        result.map_err(|source: transport::Error| {
            add(&self.counts.failures, 1);
            self.metrics.call_failed(source.label());
            Error::Transport {
                method: METHOD,
                operation: OperationId::random(),
                source: Box::new(source),
            }
        })
    }

    /// Leave to send a request.
    fn admit(&self) -> Result<Pass<'_>, Error> {
        let admitted = self.breaker.admit(Instant::now());
        self.metrics.circuit(self.breaker.circuit() as u8);
        admitted.map_err(|held| {
            let error = Error::Down {
                class: held.trouble.class,
                why: held.trouble.why,
                wait: held.wait,
            };
            self.metrics.call_failed(error.label());
            error
        })
    }

    fn judge(&self, pass: Pass<'_>, failure: Option<&transport::Error>) {
        let verdict = match failure.filter(|error| error.is_outage()) {
            None => Verdict::Answered,
            Some(error) => Verdict::Down(Trouble {
                class: error.class(),
                why: Chain(error).to_string(),
            }),
        };
        pass.ended(Instant::now(), verdict);
        self.metrics.circuit(self.breaker.circuit() as u8);
    }

    fn count(&self, started: Instant, bytes: usize) {
        add(&self.counts.requests, 1);
        add(&self.counts.reply_bytes, u64::try_from(bytes).unwrap_or(u64::MAX));
        add(
            &self.counts.busy_micros,
            u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
    }
}

/// The error in an HTTP 500 with an XML body: a fault, or a body that is none.
fn refusal(reply: &Reply) -> Error {
    match reply.read(|_xml| Ok(())) {
        Err(error) => error,
        Ok(()) => Error::Malformed {
            method: reply.method,
            operation: reply.operation.clone(),
            source: Box::new(crate::soap::xml::Error::Missing("Fault")),
        },
    }
}
