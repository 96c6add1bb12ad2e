//! The fault drill: the real daemon, a real database and a simulated vCenter, with faults by the hundred between
//! them, and the oracle after each.
//!
//! Owns: what happens when ([`Plan`]), the stage on which it happens, and the judgement. Never does: knowing more of
//! the daemon than an operator could: its command line, its tables, `/metrics`.
//!
//! | part | one job |
//! |---|---|
//! | `plan` | which faults, how often, in which order |
//! | `random` | dice from the seed |
//! | `set_up` | what every stage stands on: a server with an empty database, directories |
//! | `stage` | database, vCenter, collectors, and their comings and goings |
//! | `slot` | one collector, with its ways to database and vCenter |
//! | `lease` | who holds the platform, and who takes it |
//! | `machine` | what systemd and the kernel do to a process: its socket, limits, name spaces |
//! | `looks` | what can be seen of a collector from outside |
//! | `judge` | waits until the daemon has recovered; asks the oracle |
//! | `standby` | the second server of the database |
//! | `figures` | what a kind is asked beyond a clean verdict: figures of daemon, vCenter and database |
//! | `faults` | one function per kind of fault |
//!
//! # Time
//!
//! The vCenter's clock stands still unless the drill moves it. So the daemon's waits cost real seconds only where
//! they are the daemon's own, and whether a sample was owed does not depend on the speed of the machine.
//!
//! - Time that passes while everything is well is *healthy*.
//! - Time that passes while collector, database or the way to the vCenter is away is not.
//! - A fault while the clock stands still takes no time of the vCenter: it makes no window unhealthy, and after it
//!   the daemon has to have every sample that it could have had without it.
//!
//! After each fault the drill waits for the newest sample of every entity and for the last open gap to be gone, and
//! the oracle must find nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::oracle::rollups::Rollups;
use crate::oracle::{self, Verdict};
use crate::{cluster, database, http, process, proxy};

mod faults;
mod figures;
mod judge;
mod lease;
mod looks;
mod machine;
mod plan;
mod random;
mod set_up;
mod slot;
mod stage;
mod standby;

pub use plan::{Kind, Plan};
pub(crate) use random::Random;
pub(crate) use set_up::Ground;

use stage::Stage;

/// Why a drill ended early. What is said names the fault and what was seen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A proxy.
    #[error(transparent)]
    Proxy(#[from] proxy::Error),
    /// The simulator cannot start.
    #[error("the simulated vCenter cannot start")]
    Simulator(#[from] vsphere_simulator::Error),
    /// The simulated world refuses an event: the drill's own mistake.
    #[error("the simulated vCenter refuses what the drill wants")]
    World(#[from] vsphere_simulator::WorldError),
    /// The database does not answer the drill.
    #[error("the drill cannot read the database")]
    Query(#[from] tokio_postgres::Error),
    /// The oracle does not answer.
    #[error(transparent)]
    Oracle(#[from] oracle::Error),
    /// A file or directory.
    #[error("cannot use {}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Something that must be there is not: the drill's own mistake.
    #[error("the drill finds no {0}")]
    Nothing(&'static str),
    /// The take-over came too late.
    #[error("the take-over took {} s, more than {} s", took.as_secs(), limit.as_secs())]
    TakeOver {
        /// From the fault to the new epoch.
        took: Duration,
        /// What is promised.
        limit: Duration,
    },
    /// What is asked of the kind beyond a clean verdict.
    #[error("what is asked beyond a clean verdict is not so: {0}")]
    Criterion(String),
    /// This machine does not allow it: nothing was done, and nothing is proved.
    #[error("not run: {0}")]
    NotRun(String),
    /// The collector does not answer on a port.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The oracle found something, or a gap is open.
    #[error("the oracle says\n{}", .0.report())]
    Verdict(Box<Verdict>),
    /// Roll-ups are not what the source published.
    #[error("the oracle says\n{0}")]
    Rollups(Rollups),
    /// The product's own check of the chain and the oracle's disagree.
    #[error("virt_chain_break() finds {breaks} breaks, the oracle {unexplained}")]
    ChainBreak {
        /// By the product.
        breaks: i64,
        /// By the oracle.
        unexplained: u64,
    },
    /// One of the faults went wrong.
    #[error(
        "seed {seed}, fault {number} of {of} ({kind}): {}\nwhat was done:\n  {journal}\nlogs: {}, the database is kept",
        process::chain(source.as_ref()),
        logs.display()
    )]
    Fault {
        /// The plan's.
        seed: u64,
        /// From 1.
        number: usize,
        /// Faults in the plan.
        of: usize,
        /// Which.
        kind: Kind,
        /// Where the logs are.
        logs: PathBuf,
        /// What was done.
        journal: String,
        /// What was seen.
        source: Box<Error>,
    },
}

impl Error {
    fn criterion(asked: &'static str, seen: impl fmt::Display) -> Self {
        Self::Criterion(format!("asked was {asked}; seen was {seen}"))
    }
}

/// What became of the faults of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// How many there were.
    pub faults: u32,
    /// The longest wait for the daemon to recover from one.
    pub recovery: Duration,
    /// The longest time from a start of the daemon to READY.
    pub ready: Duration,
}

/// What a drill saw. `Display` prints a line for each kind of fault and the last line.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Faults that happened.
    pub faults: BTreeMap<Kind, Outcome>,
    /// Faults that this machine does not allow, and why.
    pub not_run: BTreeMap<Kind, (u32, String)>,
    /// The last verdict; all before it were clean.
    pub verdict: Verdict,
    /// Roll-ups in the end, all as the vCenter published.
    pub rollups: Rollups,
    /// From a fault of the holder to the new owner's epoch, the longest.
    pub takeover_max: Duration,
    /// Most memory that a collector ever had.
    pub rss_max_kib: u64,
    /// Time that the vCenter's clock passed.
    pub simulated: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = 0;
        for (kind, outcome) in &self.faults {
            all += outcome.faults;
            writeln!(
                f,
                "{kind:<20} {:>4}   slowest recovery {:>5.1} s, slowest start {:>4.2} s",
                outcome.faults,
                outcome.recovery.as_secs_f64(),
                outcome.ready.as_secs_f64()
            )?;
        }
        for (kind, (n, why)) in &self.not_run {
            writeln!(f, "{kind:<20} {n:>4}   not run: {why}")?;
        }
        let Verdict {
            owed,
            stored,
            missing,
            duplicate,
            wrong,
            unexplained,
            open,
            explained,
            reasons,
            ..
        } = &self.verdict;
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        writeln!(
            f,
            "simulated {:.1} h, stored {stored}, owed {owed}, rolled up {}, gaps explained {explained} ({})",
            self.simulated.as_secs_f64() / 3600.0,
            self.rollups.expected,
            reasons.join(", ")
        )?;
        write!(
            f,
            "drill: faults={all} missing={missing} duplicate={duplicate} wrong={wrong} unexplained={unexplained} \
             open={open} takeover_max_seconds={} rss_max_mib={}",
            self.takeover_max.as_secs_f64().ceil(),
            self.rss_max_kib.div_ceil(1024)
        )
    }
}

/// Runs a plan. `say` gets a line for each fault.
///
/// # Errors
/// When something cannot be started, and as soon as a fault leaves more than nothing behind.
pub async fn run(plan: &Plan, say: &mut (dyn FnMut(String) + Send)) -> Result<Report, Error> {
    let mut stage = Stage::set(plan).await?;
    let outcome = play(plan, &mut stage, say).await;
    if outcome.is_err() {
        stage.ground.keep_database();
    }
    let cleared = stage.clear().await;
    let report = outcome?;
    cleared?;
    Ok(report)
}

async fn play(plan: &Plan, stage: &mut Stage, say: &mut (dyn FnMut(String) + Send)) -> Result<Report, Error> {
    let mut report = Report::default();
    let sequence = plan.sequence();
    let of = sequence.len();
    let born = stage.lived();
    for (index, kind) in sequence.into_iter().enumerate() {
        let number = index + 1;
        let dice = random::Random::split(plan.seed, u64::try_from(number).unwrap_or_default());
        let started = tokio::time::Instant::now();
        stage.take_recovery();
        stage.take_ready();
        stage.take_journal();
        let judged = async {
            let story = faults::happen(stage, kind, dice).await?;
            let verdict = stage.judge(faults::is_proven(kind)).await?;
            Ok((story, verdict))
        };
        let (story, verdict) = match judged.await {
            Ok(judged) => judged,
            Err(Error::NotRun(why)) => {
                say(format!("{number:>4} {kind:<20} not run: {why}"));
                report.not_run.entry(kind).or_insert((0, why)).0 += 1;
                continue;
            }
            Err(source) => {
                return Err(Error::Fault {
                    seed: plan.seed,
                    number,
                    of,
                    kind,
                    logs: stage.directory().to_owned(),
                    journal: stage.take_journal().join("\n  "),
                    source: Box::new(source),
                });
            }
        };
        let recovered = stage.take_recovery();
        say(format!(
            "{number:>4} {kind:<20} {:>5.1} s, recovered in {:>4.1} s, stored {:>6}: {story}",
            started.elapsed().as_secs_f64(),
            recovered.as_secs_f64(),
            verdict.stored
        ));
        let outcome = report.faults.entry(kind).or_default();
        outcome.faults += 1;
        outcome.recovery = outcome.recovery.max(recovered);
        outcome.ready = outcome.ready.max(stage.take_ready());
        report.verdict = verdict;
    }
    let ended = async {
        let verdict = stage.last_judgement().await?;
        stage.stop_collectors().await?;
        Ok::<_, Error>(verdict)
    };
    (report.verdict, report.rollups) = ended.await?;
    report.takeover_max = stage.takeover_max();
    report.rss_max_kib = stage.rss_max_kib();
    report.simulated = stage.lived().saturating_sub(born);
    Ok(report)
}
