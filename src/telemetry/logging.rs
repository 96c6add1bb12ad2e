//! Log set-up. Lines go to standard output, where journald or a container runtime reads them.
//!
//! Fields have fixed names: `platform`, `entity`, `lane`, `n_rows`, `elapsed`, `error`. ERROR: data is lost or an
//! operator must act. WARN: something failed and is being repeated. INFO: the story of the service. DEBUG: one line
//! per cycle.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not understood.
    #[error("log.level {level:?} is not a filter such as \"info\"")]
    Filter {
        /// As configured.
        level: String,
        /// What is wrong.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something set up logs before.
    #[error("logs are set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Sets up logs for the whole process. Under systemd the journal stamps the lines itself.
///
/// # Errors
/// When the filter is not understood, or logs are set up already.
pub fn init(log: &Log) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&log.level).map_err(|source| Error::Filter {
        level: log.level.clone(),
        source,
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("NO_COLOR").is_none();
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match (log.format, journal) {
        (LogFormat::Json, _) => registry.with(fmt::layer().json().flatten_event(true)).try_init(),
        (LogFormat::Text, true) => registry
            .with(fmt::layer().with_ansi(false).with_target(false).without_time())
            .try_init(),
        (LogFormat::Text, false) => registry
            .with(fmt::layer().with_ansi(ansi).with_target(false))
            .try_init(),
    }
    .map_err(Error::Twice)
}
