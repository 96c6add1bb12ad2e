//! `make drill`: faults by the hundred, and the oracle after each.
//!
//! Owns: the command line. What happens is [`support::drill`]'s.

use std::process::ExitCode;

use clap::Parser;
use support::drill::{self, Kind, Plan};
use support::program::{self, fail, say};

const NAME: &str = "drill";

/// Runs the real collector against a real database and a simulated vCenter, with faults between them, and compares
/// every row after each.
#[derive(Debug, Parser)]
#[command(name = NAME)]
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
    let seed = seed.unwrap_or_else(program::random_seed);
    let plan = match only {
        Some(counts) => Plan::with(seed, &cluster, counts.to_vec()),
        None => Plan::of(seed, &cluster, faults),
    };
    say(format!("drill: SEED={seed}, {} faults", plan.faults()));
    match program::run(drill::run(&plan, &mut |line| say(line))) {
        Ok(report) => {
            say(report);
            ExitCode::SUCCESS
        }
        Err(error) => fail(NAME, error),
    }
}

/// A line of the list.
fn described(kind: Kind) -> String {
    let (rows, pass) = kind.criterion();
    let rows: Vec<String> = rows.iter().map(u8::to_string).collect();
    format!("{:<20} {:<8} {pass}", kind.word(), rows.join(", "))
}
