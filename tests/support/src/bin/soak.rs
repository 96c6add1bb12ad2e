//! `make soak`: hours with a fault about every minute, and watches on what must not grow.
//!
//! Owns: the command line. What happens is [`support::soak`]'s.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use support::program::{self, fail};
use support::soak::{self, Plan};

const NAME: &str = "soak";

/// Runs two real collectors against a real database and five simulated platforms, with a random fault about every
/// minute, compares every row every ten minutes, and watches memory, descriptors, sessions, lag and chain.
#[derive(Debug, Parser)]
#[command(name = NAME)]
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
    let Ok(time) = Duration::try_from_secs_f64(hours * 3600.0) else {
        return fail(NAME, "--hours must be a number from 0 on");
    };
    let plan = Plan {
        seed: seed.unwrap_or_else(program::random_seed),
        time,
        cluster,
    };
    say(format!("soak: SEED={}, {hours} hours", plan.seed));
    match program::run(soak::run(&plan, &mut say)) {
        Ok(report) => {
            say(report.to_string());
            if report.is_good() {
                ExitCode::SUCCESS
            } else {
                fail(NAME, "something was lost, or grows: see above")
            }
        }
        Err(error) => fail(NAME, error),
    }
}

/// Prints a line with the time.
fn say(line: String) {
    program::say(format_args!("{:.0} {line}", jiff::Timestamp::now()));
}
