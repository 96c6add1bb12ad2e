//! `make soak`: hours with a fault about every minute, and watches on what must not grow.
//!
//! Owns: the command line and the printing. What happens is [`support::soak`]'s.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use support::process::chain;
use support::soak::{self, Plan};

/// Runs two real collectors against a real database and five simulated platforms, with a random fault about every
/// minute, compares every row every ten minutes, and watches memory, descriptors, sessions, lag and chain.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long; from 2 on the database is away for fifty minutes of it
    #[arg(long, default_value_t = 2.0)]
    hours: f64,
    /// Root of everything that is left to chance
    #[arg(long)]
    seed: Option<u64>,
    /// The private cluster; nobody else may use it meanwhile
    #[arg(long, default_value = "soak")]
    cluster: String,
}

fn main() -> ExitCode {
    let Arguments { hours, seed, cluster } = Arguments::parse();
    // Different for each process: the hasher's keys are random.
    let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 1_000_000;
    let Ok(time) = Duration::try_from_secs_f64(hours * 3600.0) else {
        return fail("--hours must be a number from 0 on");
    };
    let plan = Plan {
        seed: seed.unwrap_or_else(random),
        time,
        cluster,
    };
    say(format!("soak: SEED={}, {hours} hours", plan.seed));
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime
                .block_on(soak::run(&plan, &mut say))
                .map_err(|error| chain(&error))
        });
    match outcome {
        Ok(report) => {
            say(report.to_string());
            if report.is_good() {
                ExitCode::SUCCESS
            } else {
                fail("something was lost, or grows: see above")
            }
        }
        Err(error) => fail(&error),
    }
}

fn fail(why: &str) -> ExitCode {
    // Nobody is left to be told if this fails.
    writeln!(std::io::stderr(), "soak: {why}").unwrap_or_default();
    ExitCode::FAILURE
}

/// Prints a line with the time. A reader who went away is no reason to leave processes behind.
fn say(line: String) {
    let mut out = std::io::stdout();
    writeln!(out, "{:.0} {line}", jiff::Timestamp::now())
        .and_then(|()| out.flush())
        .unwrap_or_default();
}
