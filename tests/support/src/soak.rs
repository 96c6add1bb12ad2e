//! The soak: hours of real time, several platforms, two collectors, a random fault about every minute, and watches on
//! what must not grow.
//!
//! Owns: what happens over the hours, and what is said of it. Never does: knowing more of the daemon than an operator
//! could: its command line, its tables, its process in `/proc`.
//!
//! | part | one job |
//! |---|---|
//! | `stage` | database, platforms, collectors, and their comings and goings |
//! | `faults` | one function per group of faults |
//! | `watch` | memory, descriptors, sessions, lag, breaks of the chain: a look every 15 s, and their slopes |
//!
//! # What is asked
//!
//! The clock is the machine's. Only the one true outage of the database counts as time in which nothing is owed;
//! whatever else happens, each sample has to be stored within ten minutes, which is the promise: a kill, a vCenter
//! that is away for minutes or a restart of the database is no excuse. The first collector lives from the first minute
//! to the last, so that what grows in it can be seen; the other one is the one that is killed.
//!
//! The oracle compares every row every ten minutes, in a snapshot of the running database: rows, gaps and chain have to
//! be right at every moment, not only in the end.
//!
//! Memory must not grow, by the slope of all looks. Descriptors and sessions go up and down with the faults, so that they
//! are counted when for two minutes there were none: then each platform has one session at most, whoever holds it, the
//! database has no more of them than the README says, and descriptors that are no connections are as many as before.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::drill::{Error, Random};
use crate::oracle::Verdict;
use crate::oracle::rollups::Rollups;

mod faults;
mod stage;
mod watch;

use stage::Stage;
pub use watch::Slope;

/// The outage of the database in runs of two hours or more.
const OUTAGE: Duration = Duration::from_mins(50);

/// Runs from here on have the outage.
const LONG: Duration = Duration::from_hours(2);

/// Between two comparisons with the source.
const COMPARED: Duration = Duration::from_mins(10);

/// Slopes of shorter runs are told, not judged: a minute of warm-up weighs too much in them.
const JUDGED: Duration = Duration::from_hours(1);

/// Most that the memory of the collector may grow, MiB per hour.
const MEMORY_SLOPE: f64 = 5.0;

/// Descriptors that are no connections are as many after an hour as before.
const DESCRIPTOR_SLOPE: f64 = 1.0;

/// What the README says of a collector's sessions in the database: four for COPY, eight for all else, two that listen.
const DATABASE_SESSIONS: u64 = 14;

/// Connections to a platform: polls and back-fill side by side, and one that waits for changes of the inventory.
const PLATFORM_CONNECTIONS: u64 = 6;

/// What a soak does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Root of everything that is left to chance.
    pub seed: u64,
    /// How long.
    pub time: Duration,
    /// The private cluster that it uses, alone.
    pub cluster: String,
}

impl Plan {
    /// When the outage begins; `None` in a short run.
    fn outage(&self, dice: &mut Random) -> Option<Duration> {
        (self.time >= LONG).then(|| dice.seconds(20 * 60, 30 * 60))
    }
}

/// What a soak saw. `Display` prints the last lines.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How long it ran.
    pub time: Duration,
    /// Faults that happened.
    pub faults: u32,
    /// Of these, kill -9 of a collector.
    pub kills: u32,
    /// Comparisons with the source, of one platform each.
    pub comparisons: u32,
    /// All findings of all comparisons, and the rows of the last ones.
    pub verdict: Verdict,
    /// Roll-ups in the end.
    pub rollups: Rollups,
    /// The first findings, readable.
    pub details: Vec<String>,
    /// From the end of the outage to a state as before; `None` without one.
    pub outage_recovered: Option<Duration>,
    /// What grows in the collector that lives throughout, and around it.
    pub slope: Slope,
    /// The run is long enough for slopes.
    pub slopes_count: bool,
    /// Platforms, of which each has one session in quiet.
    pub platforms: u64,
}

impl Report {
    /// Nothing lost, nothing grows.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let Slope {
            memory,
            descriptors,
            connections,
            database_sessions,
            vcenter_sessions,
            ..
        } = self.slope;
        let flat = memory < MEMORY_SLOPE && descriptors.unwrap_or_default() < DESCRIPTOR_SLOPE;
        let within = connections <= DATABASE_SESSIONS + self.platforms * PLATFORM_CONNECTIONS
            && database_sessions <= 2 * DATABASE_SESSIONS
            && vcenter_sessions <= self.platforms;
        self.verdict.is_clean()
            && self.verdict.open == 0
            && self.rollups.is_clean()
            && within
            && (flat || !self.slopes_count)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.details.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let reasons: Vec<String> = self
            .verdict
            .reasons
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        writeln!(
            f,
            "stored {}, owed {}, rolled up {}, {} comparisons, gaps explained {} ({})",
            self.verdict.stored,
            self.verdict.owed,
            self.rollups.expected,
            self.comparisons,
            self.verdict.explained,
            reasons.join(", ")
        )?;
        if let Some(took) = self.outage_recovered {
            writeln!(
                f,
                "after {} minutes without database all was read {} s after its return",
                OUTAGE.as_secs() / 60,
                took.as_secs()
            )?;
        }
        writeln!(f, "{}", self.slope)?;
        write!(
            f,
            "soak: hours={:.2} faults={} kills={} missing={} duplicate={} wrong={} unexplained={} open={} \
             memory_slope_mib_per_hour={:.2}",
            self.time.as_secs_f64() / 3600.0,
            self.faults,
            self.kills,
            self.verdict.missing,
            self.verdict.duplicate,
            self.verdict.wrong,
            self.verdict.unexplained,
            self.verdict.open,
            self.slope.memory
        )
    }
}

/// Runs a plan. `say` gets a line for each fault and for each minute.
///
/// # Errors
/// When something cannot be started, or a daemon ends by itself. What the oracle finds is in the report.
pub async fn run(plan: &Plan, say: &mut (dyn FnMut(String) + Send + Sync)) -> Result<Report, Error> {
    let mut stage = Stage::set(plan, say).await?;
    let outcome = play(plan, &mut stage).await;
    let keep = !outcome.as_ref().is_ok_and(|report| report.verdict.is_clean());
    let cleared = stage.clear(keep).await;
    let report = outcome?;
    cleared?;
    Ok(report)
}

async fn play(plan: &Plan, stage: &mut Stage<'_>) -> Result<Report, Error> {
    let dice = &mut Random::new(plan.seed);
    let began = Instant::now();
    let end = began + plan.time.saturating_sub(stage::QUIET);
    let mut report = Report {
        slopes_count: plan.time >= JUDGED,
        platforms: stage.platforms(),
        ..Report::default()
    };
    let mut outage = plan.outage(dice).map(|after| began + after);
    let mut compared = began;
    while Instant::now() < end {
        if outage.is_some_and(|at| at <= Instant::now()) {
            outage = None;
            report.outage_recovered = Some(without_database(stage, dice, &mut report).await?);
        }
        stage.pass(dice.seconds(10, 50)).await?;
        happen(stage, dice, &mut report, faults::Scope::All).await?;
        if compared.elapsed() >= COMPARED {
            compared = Instant::now();
            stage.compare(&mut report).await?;
            stage.quiet().await?;
        }
    }
    stage.quiet().await?;
    stage.compare(&mut report).await?;
    report.verdict.open = stage.open_gaps().await?;
    stage.stop_collectors().await?;
    report.rollups = stage.rollups().await?;
    if !report.rollups.is_clean() {
        report.details.push(report.rollups.to_string());
    }
    report.slope = stage.slope();
    report.time = began.elapsed();
    Ok(report)
}

/// The one true outage: the server is stopped for fifty minutes. Collectors and vCenters have their faults meanwhile.
async fn without_database(
    stage: &mut Stage<'_>,
    dice: &mut Random,
    report: &mut Report,
) -> Result<Duration, Error> {
    let end = Instant::now() + OUTAGE;
    report.faults += 1;
    stage.stop_database().await?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let pause = dice.seconds(30, 90);
        // So that the last of them ends before the server returns.
        if left < pause + faults::LONGEST {
            stage.pass(left).await?;
            break;
        }
        stage.pass(pause).await?;
        happen(stage, dice, report, faults::Scope::WithoutDatabase).await?;
    }
    stage.start_database().await?;
    let back = Instant::now();
    stage.settled().await?;
    stage.say(format!(
        "all is read again, {} s after it",
        back.elapsed().as_secs()
    ));
    Ok(back.elapsed())
}

async fn happen(
    stage: &mut Stage<'_>,
    dice: &mut Random,
    report: &mut Report,
    scope: faults::Scope,
) -> Result<(), Error> {
    let (kind, story) = faults::happen(stage, dice, scope).await?;
    report.faults += 1;
    report.kills += u32::from(kind == faults::Kind::Kill);
    stage.say(format!("fault {}: {story}", report.faults));
    Ok(())
}
