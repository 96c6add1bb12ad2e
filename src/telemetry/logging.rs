//! Log set-up. Lines go to standard output, where journald or a container runtime reads them; nobody waits for that
//! (`lines`).
//!
//! | level | for |
//! |---|---|
//! | ERROR | data is lost, or somebody must act |
//! | WARN | something failed and is being repeated, or is not as it should be |
//! | INFO | the story of the service |
//! | DEBUG | one line per cycle, and repeats of what was told |
//!
//! Fields have fixed names; the README lists them, and a test holds its list against the code. Under systemd each line
//! begins with its priority (`<3>` to `<7>`), which the journal takes off and keeps: `journalctl -p warning` works; the
//! journal stamps lines itself.

use std::fmt as std_fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Log, LogFormat};
use crate::telemetry::lines::Lines;

/// For the last lines, when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);

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
    /// There is nothing to write to.
    #[error("standard output cannot be written")]
    Output(#[source] io::Error),
    /// Something set up logs before.
    #[error("logs are set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// What is logged; can be changed while the process runs.
#[derive(Debug, Clone)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: Lines,
}

/// A filter that was understood.
#[derive(Debug)]
pub struct Understood(EnvFilter);

impl Logs {
    /// Reads a filter; changes nothing.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn understand(log: &Log) -> Result<Understood, Error> {
        filter(log).map(Understood)
    }

    /// From now on, lines that pass this filter.
    pub fn filter_by(&self, Understood(filter): Understood) {
        if let Err(error) = self.filter.reload(filter) {
            // Its layer has gone: nothing logs any more, this line included.
            tracing::debug!(%error, "logs have ended");
        }
    }

    /// Waits a moment for what was logged to be written, before the process ends.
    pub fn farewell(&self) {
        self.lines.written(FAREWELL);
    }
}

/// Sets up logs for the whole process.
///
/// # Errors
/// When the filter is not understood, there is no standard output, or logs are set up already.
pub fn init(log: &Log) -> Result<Logs, Error> {
    // Unbuffered: what was written is gone, and what was not is not kept for later.
    let output = io::stdout().as_fd().try_clone_to_owned();
    let lines = output
        .and_then(|output| Lines::to(File::from(output)))
        .map_err(Error::Output)?;
    let writer = lines.clone();
    let writer = move || writer.clone();
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let registry = tracing_subscriber::registry().with(filter);
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let has_colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match (log.format, is_journal()) {
        (LogFormat::Json, journal) => {
            let format = fmt::format().json().flatten_event(true);
            let layer = fmt::layer()
                .json()
                .event_format(Line { journal, format })
                .with_writer(writer);
            registry.with(layer).try_init()
        }
        (LogFormat::Text, true) => {
            let format = fmt::format().with_ansi(false).with_target(false).without_time();
            let line = Line {
                journal: true,
                format,
            };
            let layer = fmt::layer()
                .with_ansi(false)
                .event_format(line)
                .with_writer(writer);
            registry.with(layer).try_init()
        }
        (LogFormat::Text, false) => registry
            .with(
                fmt::layer()
                    .with_ansi(has_colours)
                    .with_target(false)
                    .with_writer(writer),
            )
            .try_init(),
    }
    .map_err(Error::Twice)?;
    Ok(Logs {
        filter: handle,
        lines,
    })
}

/// What the pool of connections says of each of them when the database goes away is told once, by who uses it.
const QUIET: &str = "deadpool=error,deadpool_postgres=error";

fn filter(log: &Log) -> Result<EnvFilter, Error> {
    // Named by the operator, it is as the operator wants it.
    let filter = if log.level.contains("deadpool") {
        log.level.clone()
    } else {
        format!("{},{QUIET}", log.level)
    };
    EnvFilter::try_new(filter).map_err(|source| Error::Filter {
        level: log.level.clone(),
        source,
    })
}

/// Whether standard output itself goes to the journal. The variable alone does not say: it is inherited by whatever
/// the service, or a shell below it, starts.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/1")
        .is_ok_and(|output| stream == format!("{}:{}", output.dev(), output.ino()))
}

/// A line, with its priority in front where the journal reads it.
struct Line<F> {
    journal: bool,
    format: F,
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std_fmt::Result {
        if self.journal {
            writer.write_str(priority(*event.metadata().level()))?;
        }
        self.format.format_event(context, writer, event)
    }
}

/// As sd-daemon(3) has it.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_for_the_journal_begins_with_its_priority() {
        let written = Written::default();
        let writer = written.clone();
        let format = fmt::format().with_ansi(false).with_target(false).without_time();
        let layer = fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Line {
                journal: true,
                format,
            });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(platform = "lab", "lost");
            tracing::info!("started");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].starts_with("<3>") && lines[0].contains("lost platform=\"lab\""),
            "{text}"
        );
        assert!(
            lines[1].starts_with("<6>") && lines[1].ends_with("started"),
            "{text}"
        );
    }
}
