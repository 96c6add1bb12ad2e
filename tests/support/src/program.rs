//! What the programs of this package have in common: lines for a person at a terminal, and an exit status for scripts.
//!
//! Owns: printing, the runtime, a seed where none is given. Never does: knowing what the program is about.

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::process::ExitCode;

use crate::process::chain;

/// Prints a line. A reader who went away is no reason to leave processes behind.
pub fn say(line: impl Display) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .unwrap_or_default();
}

/// Says which program failed and why.
pub fn fail(program: &str, why: impl Display) -> ExitCode {
    // Nobody is left to be told if this fails.
    writeln!(std::io::stderr(), "{program}: {why}").unwrap_or_default();
    ExitCode::FAILURE
}

/// Another one in each process: the hasher's keys are random.
#[must_use]
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(0) % 1_000_000
}

/// Runs something to its end, on two threads.
///
/// # Errors
/// With all causes, when it fails or the threads cannot be started.
pub fn run<T, E: Error>(work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| chain(&error))?;
    runtime.block_on(work).map_err(|error| chain(&error))
}
