//! The command line: one file per subcommand.
//!
//! Owns: arguments, what is printed, exit codes (0 well, 64 wrong usage, 78 wrong configuration, 1 anything else).
//! Never does: logs; only `run` sets them up. Passwords never come by argument or environment.

#![expect(clippy::print_stdout, reason = "this module is what talks to the terminal")]

/// Prints a line of a result. Whoever reads it may have gone, as `head` goes: then the rest is for nobody.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::cli::print(format_args!($($part)*))
    };
}

/// Prints a line beside the result, on standard error. Where that cannot be written there is nobody to tell.
macro_rules! tell {
    ($($part:tt)*) => {
        drop(::std::io::Write::write_fmt(&mut ::std::io::stderr(), format_args!("{}\n", format_args!($($part)*))))
    };
}

mod check;
mod completions;
mod gaps;
mod key;
mod memory;
mod migrate;
mod panics;
mod password;
mod platform;
mod run;
mod status;
mod sync;
mod terminal;
mod token;
mod vm;

use std::error::Error;
use std::fmt;
use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config;
use crate::config::Config;
use crate::error::Chain;
use crate::plain;
use crate::secret::KeyFileError;
use crate::store::{Database, Owner, Settings};

/// What many commands take stands behind what is a command's own.
const COMMON: &str = "Common options";

/// Wrong usage (sysexits EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// Wrong configuration (sysexits EX_CONFIG).
const EXIT_CONFIG: u8 = 78;

/// Reads every 20-second sample of hosts and VMs from vCenter and ESXi and stores each exactly once in TimescaleDB.
///
/// First evening: have a superuser run what `migrate --bootstrap-sql` prints in a new database, write config.toml from
/// config.example.toml, then `migrate`, `key init`, `platform add`, `check` until all is well, and `run`.
#[derive(Debug, Parser)]
#[command(name = "virt-collector", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 well, 64 wrong usage, 78 wrong configuration, 1 anything else.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Each says of itself what it does, in its own file.
    Run(run::Run),
    Check(check::Check),
    Gaps(gaps::Gaps),
    Key(key::Key),
    Migrate(migrate::Migrate),
    Platform(Box<platform::Platform>),
    Status(status::Status),
    Sync(sync::Sync),
    Token(token::Token),
    Vm(vm::Vm),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(completions::Manual),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        help_heading = COMMON,
        value_name = "FILE",
        default_value = "/etc/virt-collector/config.toml"
    )]
    config: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config)?)
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why a command did not succeed: what is printed, and the exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The settings cannot work, whatever the other side does.
    #[error(transparent)]
    Settings(Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
    /// What was typed makes no sense.
    #[error(transparent)]
    Usage(Box<dyn Error + Send + Sync>),
    /// Everything has been said already.
    #[error("")]
    Told,
}

impl Failure {
    fn settings(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Settings(Box::new(error))
    }

    fn usage(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Usage(Box::new(error))
    }

    fn other(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(error))
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            // It gets better by trying again, which systemd does not do after a wrong configuration.
            Self::Config(error) if may_pass(error) => ExitCode::FAILURE,
            Self::Settings(error) if may_pass(error.as_ref()) => ExitCode::FAILURE,
            Self::Config(_) | Self::Settings(_) => ExitCode::from(EXIT_CONFIG),
            Self::Usage(_) => ExitCode::from(EXIT_USAGE),
            Self::Other(_) | Self::Told => ExitCode::FAILURE,
        }
    }
}

/// True where the machine was short of something or failed when a file was read, or an address to listen on was another
/// program's or not there yet: found with the configuration, and not its fault.
fn may_pass(error: &(dyn Error + 'static)) -> bool {
    const EIO: i32 = 5;
    const EAGAIN: i32 = 11;
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const EADDRINUSE: i32 = 98;
    const EADDRNOTAVAIL: i32 = 99;
    const ENOBUFS: i32 = 105;
    let mut next = Some(error);
    while let Some(error) = next {
        let code = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if matches!(
            code,
            Some(EIO | EAGAIN | ENOMEM | ENFILE | EMFILE | EADDRINUSE | EADDRNOTAVAIL | ENOBUFS)
        ) {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<KeyFileError> for Failure {
    /// A key ring that cannot be used is a matter of configuration, one that cannot be changed right now is not.
    fn from(error: KeyFileError) -> Self {
        match error {
            KeyFileError::Exists { .. } | KeyFileError::Write { .. } | KeyFileError::Busy { .. } => {
                Self::other(error)
            }
            KeyFileError::Absent { .. }
            | KeyFileError::Read { .. }
            | KeyFileError::NotAFile { .. }
            | KeyFileError::Exposed { .. }
            | KeyFileError::Text { .. } => Self::settings(error),
        }
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    panics::tell();
    if let Err(error) = memory::keep() {
        tell!("virt-collector: cannot keep its memory out of core files: {error}");
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap knows which stream each belongs to.
            let code = if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
            drop(error.print());
            return code;
        }
    };
    let result = match arguments.command {
        Command::Run(command) => command.execute(),
        Command::Check(command) => command.execute(),
        Command::Gaps(command) => command.execute(),
        Command::Key(command) => command.execute(),
        Command::Migrate(command) => command.execute(),
        Command::Platform(command) => command.execute(),
        Command::Status(command) => command.execute(),
        Command::Sync(command) => command.execute(),
        Command::Token(command) => command.execute(),
        Command::Vm(command) => command.execute(),
        Command::Completions(command) => command.execute(),
        Command::Man(command) => command.execute(),
    };
    let unwritten = UNWRITTEN.get();
    if let Some(error) = unwritten {
        tell!("virt-collector: cannot write all of the result to standard output: {error}");
    }
    match result {
        Ok(()) if unwritten.is_some() => ExitCode::FAILURE,
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told) {
                // The exit status tells systemd whether to try again, also where nobody can be told anything.
                let told = Chain(&failure).to_string();
                tell!("virt-collector: {}", plain::lines(&told));
            }
            failure.exit_code()
        }
    }
}

/// The service's own database, with a schema that fits.
async fn ready_database(config: &Config) -> Result<Database, Failure> {
    let settings = Settings::new(&config.database, &config.database.writer, &Owner::random())
        .map_err(Failure::settings)?;
    let database = Database::new(settings).map_err(Failure::other)?;
    database.ready().await.map_err(Failure::other)?;
    Ok(database)
}

/// Why part of a result was not written, the first time. The command goes on all the same: it may be in the middle of
/// something that is not to be left half done.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// As [`println`], which panics for want of a reader, or of space. Names and reasons are the platforms' words: nothing
/// in them steers the terminal.
fn print(line: fmt::Arguments<'_>) {
    let line = line.to_string();
    let line = plain::painted(&line);
    printed(writeln!(io::stdout(), "{line}"));
}

/// Whoever reads it may have gone: then the rest is for nobody. Any other failure is told at the end.
fn printed(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        drop(UNWRITTEN.set(error));
    }
}

/// Runs a command's future on a runtime of its own.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("virt-collector")
        .build()
        .map_err(Failure::other)?;
    let done = runtime.block_on(future);
    // The system's resolver cannot be called back: one that gets no answer would hold up the end for half a minute.
    runtime.shutdown_background();
    done
}

/// `1 gap`, `2 gaps`.
fn counted(n: impl TryInto<u64>, what: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
