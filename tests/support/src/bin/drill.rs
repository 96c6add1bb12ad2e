//! `make drill`: faults by the hundred, and the oracle after each.
//!
//! Owns: the command line and the printing. What happens is [`support::drill`]'s.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use support::drill::{self, Kind, Plan};
use support::process::chain;

/// Runs the real collector against a real database and a simulated vCenter, with faults between them, and compares
/// every row after each.
#[derive(Debug, Parser)]
#[command(name = "drill")]
struct Arguments {
    /// Root of everything that is left to chance; the same seed, the same faults
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults
    #[arg(long, default_value_t = 300)]
    faults: u32,
    /// Only these, such as `kill=60,lease=10`, instead of all kinds
    #[arg(long, value_parser = counts)]
    only: Option<Counts>,
    /// Print the kinds of faults with the rows of the catalogue that they stand for and what is asked, and end
    #[arg(long)]
    list: bool,
    /// The private cluster; nobody else may use it meanwhile
    #[arg(long, default_value = "drill")]
    cluster: String,
}

type Counts = std::sync::Arc<[(Kind, u32)]>;

fn counts(text: &str) -> Result<Counts, String> {
    text.split(',')
        .map(|part| {
            let (word, n) = part.split_once('=').unwrap_or((part, "1"));
            let kind = Kind::of(word.trim()).ok_or_else(|| {
                let words: Vec<&str> = Kind::all().map(Kind::word).collect();
                format!("{word:?} is no kind of fault; there are {}", words.join(", "))
            })?;
            let n = n
                .trim()
                .parse()
                .map_err(|_source| format!("{n:?} is no number"))?;
            Ok((kind, n))
        })
        .collect()
}

fn main() -> ExitCode {
    let Arguments {
        seed,
        faults,
        only,
        list,
        cluster,
    } = Arguments::parse();
    if list {
        Kind::all().for_each(|kind| say(described(kind)));
        return ExitCode::SUCCESS;
    }
    // Different for each process: the hasher's keys are random.
    let random = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 1_000_000;
    let seed = seed.unwrap_or_else(random);
    let plan = match only {
        Some(counts) => Plan::with(seed, &cluster, counts.to_vec()),
        None => Plan::of(seed, &cluster, faults),
    };
    say(format!("drill: SEED={seed}, {} faults", plan.faults()));
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime
                .block_on(drill::run(&plan, &mut say))
                .map_err(|error| chain(&error))
        });
    match outcome {
        Ok(report) => {
            say(report.to_string());
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Nobody is left to be told if this fails.
            writeln!(std::io::stderr(), "drill: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

/// A line of the list.
fn described(kind: Kind) -> String {
    let (rows, pass) = kind.criterion();
    let rows: Vec<String> = rows.iter().map(u8::to_string).collect();
    format!("{:<20} {:<8} {pass}", kind.word(), rows.join(", "))
}

/// Prints a line. A reader who went away is no reason to leave processes behind.
fn say(line: String) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .unwrap_or_default();
}
