//! What the daemon says about itself: metrics and logs.
//!
//! Owns: every metric name and label ([`metrics`]), the set-up of logs
//! ([`logging`]) and their way out (`lines`), how often a line is repeated ([`seldom`]). Never does: deciding what is
//! worth reporting; callers hold handles and count.

mod lines;
pub mod logging;
pub mod metrics;
pub mod seldom;
