//! The lanes that fill gaps, oldest first: from the ring, and from roll-ups what the ring no longer holds.
//!
//! Their queue is the table of open gaps, so that it survives a kill: a gap is deleted in the transaction that stores
//! its rows and says what is left of it. No gap is "being worked on"; the platform's lease is the claim.
//!
//! | lane | asks for | how far back | bounded by |
//! |---|---|---|---|
//! | ring | 20-second samples, all counters | 59 minutes | samples of a request |
//! | roll-up | 300-second roll-ups, the counters that the statistics level keeps | as long as the server keeps them | and its `maxQueryMetrics` |
//!
//! What the ring lane leaves of a gap that began before the ring is the roll-up lane's; so a gap is explained as
//! `expired` only after both were asked, or where there are no roll-ups. A gap of an entity that cannot be asked just now,
//! since its host is away or the inventory does not show it, stays the ring lane's until the ring has passed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ask::{Answer, Source};
use super::live_set::{Seen, Subject, seen};
use super::placement::Placements;
use crate::error::Chain;
use crate::ingest::chain::Memory;
use crate::ingest::chain::ServerTime;
use crate::ingest::flush::Bells;
use crate::ingest::flush::Readiness;
use crate::ingest::queue::Found;
use crate::ingest::queue::Outcome;
use crate::ingest::queue::Queue;
use crate::ingest::queue::Turn;
use crate::ingest::queue::Work;
use crate::model::gap::GapLane;
use crate::model::gap::OpenGap;
use crate::model::gap::Reason;
use crate::model::ids::EntityId;
use crate::model::ids::PlatformId;
use crate::model::inventory::KnownInventory;
use crate::model::sample::Window;
use crate::model::status::ErrorClass;
use crate::soap::fault::FaultKind;
use crate::store;
use crate::store::Database;
use crate::supervise::trigger::Triggered;
use crate::telemetry::metrics::LaneMetrics;
use crate::telemetry::seldom::Seldom;
use crate::units::REALTIME_SECONDS;
use crate::units::ROLLUP_SECONDS;
use crate::units::Stamp;
use crate::vsphere;
use crate::vsphere::Counters;
use crate::vsphere::Estimator;
use crate::vsphere::Target;

/// A gap is asked for when its end is this old: what was late has come by then, and what has not will not.
const SETTLED: Duration = Duration::from_secs(120);

/// How often a lane looks for gaps that have settled meanwhile.
const LOOK: Duration = Duration::from_secs(15);

/// Gaps taken from the table at a time.
const GAPS_PER_ROUND: u32 = 500;

/// Samples of all entities in one request: 25 VMs with an hour each make a reply of about a megabyte.
const SAMPLES_PER_REQUEST: usize = 4_500;

/// One such lane of one platform.
#[derive(Debug)]
pub struct BackFill {
    /// Which.
    pub lane: GapLane,
    /// Whose gaps.
    pub platform: PlatformId,
    /// Whom to ask.
    pub source: Source,
    /// Where the gaps are.
    pub database: Database,
    /// Where answers go.
    pub queue: Queue,
    /// When asking makes sense.
    pub readiness: watch::Receiver<Readiness>,
    /// Who there is.
    pub inventory: watch::Receiver<Option<Arc<KnownInventory>>>,
    /// Where VMs run.
    pub placements: Arc<Placements>,
    /// Ring when open gaps were written.
    pub gaps_opened: Arc<Bells>,
    /// Rounds out of turn.
    pub triggered: Triggered<BackFillReport>,
    /// That the platform keeps no roll-ups is told once.
    pub told_of_none: OnceLock<()>,
}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackFillReport {
    /// Gaps answered: filled or explained.
    pub n_gaps: usize,
    /// Rows committed.
    pub n_rows: usize,
    /// Why it did not succeed, whole or in part.
    pub error: Option<String>,
}

/// What a round asks, and how.
struct Asking {
    memory: Memory,
    /// The oldest stamp worth asking for; `None`: the source has nothing at all.
    start: Option<Stamp>,
    counters: Arc<Counters>,
    interval_seconds: u32,
    /// Most series of one request.
    most_series: usize,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Source(#[from] vsphere::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the flush failed; the gaps stay open")]
    Discarded,
}

impl RoundError {
    /// True where a line of the platform's status, or of the database's own loop, says it already.
    fn is_told(&self) -> bool {
        match self {
            Self::Source(error) => matches!(
                error.class(),
                ErrorClass::Unreachable | ErrorClass::Auth | ErrorClass::Tls
            ),
            Self::Store(error) => error.is_outage(),
            Self::Discarded => true,
        }
    }
}

impl BackFill {
    /// Fills gaps until `stopping`.
    pub async fn run(mut self, stopping: CancellationToken) {
        let triggered = self.triggered.clone();
        let mut told = Seldom::default();
        loop {
            let reply = tokio::select! {
                () = stopping.cancelled() => return,
                reply = triggered.asked() => Some(reply),
                () = self.gaps_opened.of(self.lane).notified() => None,
                () = tokio::time::sleep(LOOK) => None,
            };
            let rounds = async {
                self.inventory.wait_for(Option::is_some).await.ok()?;
                self.readiness.wait_for(|readiness| readiness.ready).await.ok()?;
                Some(self.rounds(&mut told).await)
            };
            let report = tokio::select! {
                // Nothing is lost by leaving in the middle: the gaps are still in their table.
                () = stopping.cancelled() => return,
                report = rounds => report,
            };
            let Some(report) = report else { return };
            if let Some(reply) = reply {
                drop(reply.send(report));
            }
        }
    }

    /// Rounds until no settled gap is left.
    async fn rounds(&self, told: &mut Seldom<()>) -> BackFillReport {
        let mut report = BackFillReport::default();
        loop {
            let started = Instant::now();
            let before = report.n_gaps;
            let result = self.round(&mut report).await;
            let metrics = self.metrics();
            match result {
                Ok(0) => return report,
                Ok(n_asked) => {
                    metrics.polled(true, started.elapsed());
                    let n_gaps = report.n_gaps - before;
                    let (lane, n_rows) = (self.lane.as_str(), report.n_rows);
                    tracing::info!(lane, n_gaps, n_rows, elapsed = ?started.elapsed(), "gaps filled or explained");
                    // Nothing but refusals; they are asked again later.
                    if n_gaps == 0 && n_asked > 0 {
                        return report;
                    }
                }
                Err(error) => {
                    metrics.polled(false, started.elapsed());
                    report.error = Some(Chain(&error).to_string());
                    let lane = self.lane.as_str();
                    if error.is_told() {
                        tracing::debug!(lane, error = %Chain(&error), "gaps stay open");
                    } else if let Some(repeated) = told.due((), Instant::now()) {
                        let repeated = (repeated > 0).then_some(repeated);
                        tracing::warn!(lane, error = %Chain(&error), repeated, "gaps stay open");
                    }
                    return report;
                }
            }
        }
    }

    /// Asks for the oldest settled gaps; returns how many there were.
    async fn round(&self, report: &mut BackFillReport) -> Result<usize, RoundError> {
        let generation = self.readiness.borrow().generation;
        let (n_open, oldest) = self.database.count_open_gaps(self.platform).await?;
        self.source.metrics.gaps_open(n_open, oldest);
        // Nobody is asked for the time while there is nothing to ask for.
        if n_open == 0 {
            return Ok(0);
        }
        let at = ServerTime(self.source.vsphere.server_time().await?);
        let turn = Turn {
            generation,
            at,
            started: Instant::now(),
        };
        let mut gaps = self
            .database
            .open_gaps(self.platform, self.lane, GAPS_PER_ROUND, SETTLED, at.0)
            .await?;
        // Without an end: its entity has been silent for longer than that.
        gaps.retain(|gap| gap.step.to.is_none_or(|to| to <= at.0.minus(SETTLED)));
        if gaps.is_empty() {
            return Ok(0);
        }
        let known: HashMap<EntityId, Seen> = {
            let inventory = self.inventory.borrow().clone();
            inventory
                .iter()
                .flat_map(|inventory| seen(inventory))
                .map(|seen| (seen.subject.entity, seen))
                .collect()
        };
        let asking = self.asking(at).await?;
        // A host that is away still holds what it held, and who has left the inventory may come back: their gaps wait for
        // as long as the ring reaches. One without an end is asked for anew when its entity speaks again.
        let may_wait = |gap: &OpenGap| {
            let reaches = |to| asking.start.is_some_and(|start| to > start);
            asking.memory == Memory::Ring && gap.step.to.is_some_and(reaches)
        };
        let nothing = |gap: &OpenGap| {
            let why_silent = known.get(&gap.entity).and_then(|seen| seen.why_silent);
            if why_silent == Some(Reason::HostDisconnected) && may_wait(gap) {
                Found::Refused
            } else {
                Found::nothing(gap)
            }
        };
        let estimator = Estimator {
            counters: &asking.counters,
            instances: self.source.vsphere.instances(),
            now: at.0,
            interval_seconds: asking.interval_seconds,
        };
        let n_gaps = AtomicUsize::new(0);
        let n_rows = AtomicUsize::new(0);
        let discarded = AtomicUsize::new(0);
        let n_found = gaps.len();
        let mut failed = None;
        for batch in in_batches(gaps, at, &asking, &estimator) {
            let by_entity: HashMap<EntityId, OpenGap> = batch.iter().map(|gap| (gap.entity, *gap)).collect();
            let store = |found: Vec<(OpenGap, Found)>, permit| async {
                let n_answered = found.len();
                let work = match asking.memory {
                    Memory::Ring => Work::Ring(found),
                    Memory::Rollups { since } => Work::Rollup { gaps: found, since },
                };
                match self.queue.push(turn, work, permit).await {
                    Outcome::Stored { n_rows: stored } => {
                        n_gaps.fetch_add(n_answered, Ordering::Relaxed);
                        n_rows.fetch_add(stored, Ordering::Relaxed);
                    }
                    Outcome::Discarded => {
                        discarded.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            // An entity that a reply does not name may have been forgotten: only the second time it has nothing.
            let forgotten = Mutex::new(Vec::new());
            let answered = |answer: Answer, last: bool| {
                let Answer {
                    mut targets,
                    reply,
                    permit,
                } = answer;
                if !last && !reply.missing.is_empty() {
                    let (absent, named) = targets
                        .into_iter()
                        .partition(|target| reply.missing.contains(&target.entity));
                    targets = named;
                    let absent: Vec<Target> = absent;
                    let mut forgotten = forgotten.lock().unwrap_or_else(PoisonError::into_inner);
                    forgotten.extend(absent);
                }
                let mut windows: HashMap<EntityId, Window> = reply
                    .windows
                    .into_iter()
                    .map(|window| (window.entity, window))
                    .collect();
                let found = targets
                    .iter()
                    .filter_map(|target| {
                        let gap = *by_entity.get(&target.entity)?;
                        Some((
                            gap,
                            windows
                                .remove(&gap.entity)
                                .map_or_else(|| nothing(&gap), Found::Rows),
                        ))
                    })
                    .collect();
                store(found, permit)
            };
            let mut hopeless = Vec::new();
            let mut targets = Vec::new();
            for gap in &batch {
                let Some(Seen { subject, .. }) = known.get(&gap.entity) else {
                    let found = if may_wait(gap) {
                        Found::Refused
                    } else {
                        Found::Gone(Reason::Removed)
                    };
                    hopeless.push((*gap, found));
                    continue;
                };
                match asking
                    .start
                    .and_then(|start| self.target(gap, subject, start, at))
                {
                    Some(target) => targets.push(target),
                    None => hopeless.push((*gap, Found::nothing(gap))),
                }
            }
            let mut asked = self
                .source
                .ask(targets, &estimator, |answer| answered(answer, false))
                .await;
            let absent = std::mem::take(&mut *forgotten.lock().unwrap_or_else(PoisonError::into_inner));
            if asked.failed.is_none() && !absent.is_empty() {
                let again = self
                    .source
                    .ask(absent, &estimator, |answer| answered(answer, true))
                    .await;
                asked.skipped.extend(again.skipped);
                asked.too_much_alone.extend(again.too_much_alone);
                asked.failed = again.failed;
            }
            // The others' gaps are not to wait for one that is too much.
            asked.skipped.append(&mut asked.too_much_alone);
            self.source.left_out(&asked.skipped);
            for (target, error) in &asked.skipped {
                let gap = by_entity.get(&target.entity).copied();
                let found = why_gone(error).map_or(Found::Refused, Found::Gone);
                hopeless.extend(gap.map(|gap| (gap, found)));
            }
            if !hopeless.is_empty() {
                let permit = self.source.share.reserve(1).await;
                store(hopeless, permit).await;
            }
            failed = asked.failed;
            if failed.is_some() {
                break;
            }
        }
        report.n_gaps += n_gaps.load(Ordering::Relaxed);
        report.n_rows += n_rows.load(Ordering::Relaxed);
        match failed {
            Some(error) => Err(error.into()),
            None if discarded.load(Ordering::Relaxed) > 0 => Err(RoundError::Discarded),
            None => Ok(n_found),
        }
    }

    /// The memory that this lane asks, as the server has it now.
    async fn asking(&self, at: ServerTime) -> Result<Asking, vsphere::Error> {
        let vsphere = &self.source.vsphere;
        let rollups = match self.lane {
            GapLane::Ring => {
                return Ok(Asking {
                    memory: Memory::Ring,
                    start: Some(at.ring_start()),
                    counters: vsphere.counters().await?,
                    interval_seconds: REALTIME_SECONDS,
                    most_series: usize::MAX,
                });
            }
            GapLane::Rollup => vsphere.rollups().await?,
        };
        if rollups.is_none() && self.told_of_none.set(()).is_ok() {
            tracing::warn!(
                "the platform keeps no 5-minute statistics: what is missing for longer than an hour cannot be had"
            );
        }
        let since = rollups.as_ref().map(|rollups| rollups.since(at.0));
        let most_series = match &rollups {
            Some(_) => vsphere.most_rollup_series().await?,
            None => None,
        };
        Ok(Asking {
            memory: Memory::Rollups { since },
            start: since,
            counters: rollups.map_or_else(Arc::default, |rollups| Arc::clone(&rollups.counters)),
            interval_seconds: ROLLUP_SECONDS,
            most_series: most_series.unwrap_or(usize::MAX),
        })
    }

    /// One query over the whole gap, as far back as the memory reaches; `None` where it reaches none of it.
    fn target(&self, gap: &OpenGap, subject: &Subject, start: Stamp, at: ServerTime) -> Option<Target> {
        let end = match self.lane {
            GapLane::Ring => None,
            // Nothing younger is taken, see the chain.
            GapLane::Rollup => Some(at.ring_start()),
        };
        let after = gap.step.from.max(start);
        let until = gap.step.to.or(end);
        until.is_none_or(|until| until > after).then(|| Target {
            entity: gap.entity,
            moref: subject.moref.clone(),
            cpus: subject.cpus,
            placement: self.placements.get(gap.entity),
            after,
            until,
        })
    }

    const fn metrics(&self) -> &LaneMetrics {
        match self.lane {
            GapLane::Ring => &self.source.metrics.ring,
            GapLane::Rollup => &self.source.metrics.rollup,
        }
    }
}

/// Why an entity that the server refuses alone has no samples to be had; `None`: it may yet answer. Also one that the
/// server does not know: a vCenter that starts knows a part of what it has. That it is gone is the inventory's to say.
fn why_gone(error: &vsphere::Error) -> Option<Reason> {
    match error.fault()?.kind {
        FaultKind::NoPermission => Some(Reason::NoPermission),
        _ => None,
    }
}

/// Batches of bounded size with at most one gap of an entity in each: an answer is joined by entity.
fn in_batches(
    gaps: Vec<OpenGap>,
    at: ServerTime,
    asking: &Asking,
    estimator: &Estimator<'_>,
) -> Vec<Vec<OpenGap>> {
    let mut batches: Vec<Vec<OpenGap>> = Vec::new();
    let (mut n_samples, mut n_series) = (0, 0);
    for gap in gaps {
        let start = asking
            .start
            .map_or(gap.step.from, |start| gap.step.from.max(start));
        let expected =
            gap.step.to.unwrap_or(at.0).since(start).as_secs() / u64::from(asking.interval_seconds);
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        let series = estimator.series(gap.entity.kind);
        let fits = n_samples + expected <= SAMPLES_PER_REQUEST && n_series + series <= asking.most_series;
        match batches.last_mut() {
            Some(batch) if fits && batch.iter().all(|other| other.entity != gap.entity) => {
                batch.push(gap);
                n_samples += expected;
                n_series += series;
            }
            _ => {
                batches.push(vec![gap]);
                (n_samples, n_series) = (expected, series);
            }
        }
    }
    batches
}
