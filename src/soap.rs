//! The wire: typed calls of vim25 over HTTPS, for one platform at a time.
//!
//! Owns: TLS trust, HTTP, XML, envelopes, faults, sessions and their pool, the call limiter. The only user of
//! `reqwest`, `quick_xml` and (beside the admin endpoint) `governor`.
//! Never does: knowing what a counter or a virtual machine is to the collector; keeping tasks; logging a body.
//!
//! In reading order:
//! - [`pool`]: what others hold: a platform's sessions ([`Pool`](pool::Pool), [`Pinned`](pool::Pinned));
//! - `methods`: one function per method of vim25;
//! - `session`: what a login is;
//! - `client`: the one function through which every call goes: breaker, limiter, operation id, counts, debug line;
//! - `breaker`: when a platform that is down is tried again, and by whom;
//! - `envelope`, [`xml`], [`fault`]: requests and answers as values, guarded against anything a server may send;
//! - [`transport`], [`tls`]: one HTTP exchange over a channel that is trusted;
//! - [`error`]: what can go wrong, and the table that says what follows.
//!
//! Invariants:
//! 1. Wire bytes cannot panic us: sizes, depth and time are capped, cut documents are errors, never results.
//! 2. The password is in one request only, and no body is ever printed.
//! 3. A refused login is not repeated for five minutes, by whomever; a platform that is down is not called by all.

mod breaker;
mod client;
mod envelope;
pub mod error;
pub mod fault;
#[cfg(test)]
mod fuzz;
pub(crate) mod methods;
pub mod pool;
mod session;
pub mod tls;
pub mod transport;
pub mod xml;

pub use client::Stats;
pub use envelope::Object;
pub(crate) use envelope::Reply;
pub use error::Error;
pub use methods::About;
pub use methods::ServiceContent;
pub use methods::perf::ProviderSummary;
pub use session::Credentials;
pub use session::PasswordResult;
