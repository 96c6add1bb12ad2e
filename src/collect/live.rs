//! The live lane: every poll interval, everything behind each entity's watermark.
//!
//! Invariants: a poll is over when its last row is committed; a poll that is still running at the next tick is
//! counted as skipped, never stacked; while the database is away nobody fetches.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ask::{Answer, Source};
use super::batch_size::BatchSize;
use super::live_set::{LiveSet, seen};
use super::placement::Placements;
use super::window::{live_start, look_back};
use crate::clock::Ticker;
use crate::clock::WallClock;
use crate::error::Chain;
use crate::error::Disposition;
use crate::ingest::chain::Past;
use crate::ingest::chain::SILENT_AFTER;
use crate::ingest::chain::ServerTime;
use crate::ingest::chain::Watermarks;
use crate::ingest::flush::Readiness;
use crate::ingest::queue::Outcome;
use crate::ingest::queue::Queue;
use crate::ingest::queue::Turn;
use crate::ingest::queue::Work;
use crate::model::gap::Reason;
use crate::model::ids::EntityId;
use crate::model::ids::EntityKind;
use crate::model::inventory::KnownInventory;
use crate::store;
use crate::store::Database;
use crate::supervise::trigger::Triggered;
use crate::units::REALTIME_SECONDS;
use crate::units::Stamp;
use crate::vsphere;
use crate::vsphere::Estimator;
use crate::vsphere::Target;

/// The server's clock may run away from ours by this much between two polls; more is a step.
const CLOCK_STEP_MICROS: i64 = 10_000_000;

/// After SIGTERM a running poll may finish for this long.
const DRAIN: Duration = Duration::from_secs(15);

/// The live lane of one platform.
#[derive(Debug)]
pub struct LiveLane {
    /// For logs and the phase of its ticks.
    pub platform: String,
    /// Time between polls.
    pub interval: Duration,
    /// Requests in flight.
    pub parallel_requests: usize,
    /// Most entities per request.
    pub entities_per_request: usize,
    /// Whom to ask.
    pub source: Source,
    /// For entities whose watermark is not known yet.
    pub database: Database,
    /// From where to ask.
    pub watermarks: Arc<Watermarks>,
    /// Where answers go.
    pub queue: Queue,
    /// When asking makes sense.
    pub readiness: watch::Receiver<Readiness>,
    /// Who there is; `None` until the first discovery.
    pub inventory: watch::Receiver<Option<Arc<KnownInventory>>>,
    /// Where VMs run.
    pub placements: Arc<Placements>,
    /// Polls out of turn.
    pub triggered: Triggered<PollReport>,
    /// Told how each poll went.
    pub health: watch::Sender<Health>,
    /// The collector's wall clock, for the skew and the last success.
    pub clock: Arc<dyn WallClock>,
    /// The server's clock at the poll before, to see it step.
    pub last_reading: Mutex<Option<Reading>>,
}

/// The server's clock, and when this process asked for it.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    server: Stamp,
    asked: Instant,
    answered: Instant,
}

impl Reading {
    /// Whether the server's clock has moved otherwise than this process's since an earlier reading. Each was made
    /// somewhere between question and answer.
    fn shows_step_since(self, earlier: Self) -> bool {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let least = micros(self.asked.saturating_duration_since(earlier.answered));
        let most = micros(self.answered.saturating_duration_since(earlier.asked));
        let server = self.server.micros_since(earlier.server);
        server < least.saturating_sub(CLOCK_STEP_MICROS) || server > most.saturating_add(CLOCK_STEP_MICROS)
    }
}

/// What a poll did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PollReport {
    /// Entities asked for.
    pub n_entities: usize,
    /// Rows committed.
    pub n_rows: usize,
    /// Entities that the server refused.
    pub n_skipped: usize,
    /// Why it did not succeed, whole or in part.
    pub error: Option<String>,
    /// When asking makes sense again, where that is known.
    pub retry_after: Option<Duration>,
}

/// How the last poll went, for the platform's status.
#[derive(Debug, Clone, Default)]
pub enum Health {
    /// None yet.
    #[default]
    Unknown,
    /// Well.
    Well,
    /// Not.
    Failed(Arc<vsphere::Error>),
}

/// Why a poll failed.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Source(#[from] vsphere::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the flush failed; its samples will be asked for again")]
    Discarded,
}

impl LiveLane {
    /// Polls until `stopping`.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut ticker = Ticker::new(self.interval, phase(&self.platform));
        let mut live_set = LiveSet::default();
        let mut size = BatchSize::new(self.entities_per_request);
        let triggered = self.triggered.clone();
        // A platform that was down is asked as soon as it may be, not a whole interval later.
        let mut again = None;
        loop {
            let reply = tokio::select! {
                () = stopping.cancelled() => return,
                reply = triggered.asked() => Some(reply),
                () = at(again) => None,
                tick = ticker.tick() => {
                    self.source.metrics.polls_skipped(tick.missed);
                    None
                }
            };
            let inventory = tokio::select! {
                () = stopping.cancelled() => return,
                inventory = self.wait_until_ready() => inventory,
            };
            let Some(inventory) = inventory else { return };
            let report = tokio::select! {
                report = self.poll(&inventory, &mut live_set, &mut size) => report,
                () = drained(&stopping) => return,
            };
            again = report
                .retry_after
                .filter(|wait| *wait < self.interval)
                .map(|wait| Instant::now() + wait);
            if let Some(reply) = reply {
                drop(reply.send(report));
            }
        }
    }

    /// Waits for the first discovery and for a database that takes rows; `None` when the platform is being stopped.
    async fn wait_until_ready(&mut self) -> Option<Arc<KnownInventory>> {
        let inventory = self.inventory.wait_for(Option::is_some).await.ok()?.clone();
        self.readiness.wait_for(|readiness| readiness.ready).await.ok()?;
        inventory
    }

    async fn poll(
        &self,
        inventory: &KnownInventory,
        live_set: &mut LiveSet,
        size: &mut BatchSize,
    ) -> PollReport {
        let started = Instant::now();
        let mut report = PollReport::default();
        let result = self.ask_all(inventory, live_set, size, &mut report).await;
        let metrics = &self.source.metrics;
        metrics.live.polled(result.is_ok(), started.elapsed());
        metrics.batch_size(size.get());
        match result {
            Ok(()) => {
                size.grow();
                metrics.succeeded(self.clock.now());
                self.health.send_replace(Health::Well);
                tracing::debug!(
                    n_entities = report.n_entities,
                    n_rows = report.n_rows,
                    elapsed = ?started.elapsed(),
                    "polled"
                );
            }
            Err(error) => {
                metrics.failed();
                report.error = Some(Chain(&error).to_string());
                match error {
                    PollError::Source(error) => {
                        if let Disposition::RetryAfter(wait) = error.disposition() {
                            report.retry_after = Some(wait);
                        }
                        self.health.send_replace(Health::Failed(Arc::new(error)));
                    }
                    // The flush loop has told.
                    PollError::Discarded => {}
                    PollError::Store(error) => tracing::warn!(error = %Chain(&error), "poll failed"),
                }
            }
        }
        report
    }

    async fn ask_all(
        &self,
        inventory: &KnownInventory,
        live_set: &mut LiveSet,
        size: &mut BatchSize,
        report: &mut PollReport,
    ) -> Result<(), PollError> {
        let generation = self.readiness.borrow().generation;
        let asked = Instant::now();
        let server_now = self.source.vsphere.server_time().await?;
        self.source.metrics.clock(server_now, self.clock.now());
        let at = ServerTime(server_now);
        let turn = Turn {
            generation,
            at,
            started: Instant::now(),
        };
        let reading = Reading {
            server: server_now,
            asked,
            answered: turn.started,
        };
        self.note_what_explains_silence(inventory, reading);
        let hosts = self.source.vsphere.placements().await?;
        self.placements.note(inventory, &hosts, at.0);
        if live_set.is_new() {
            live_set.remember(self.watermarks.since(at.ring_start()));
        }
        let subjects = live_set.next_poll(inventory);
        let n_hosts = subjects
            .iter()
            .filter(|subject| subject.entity.kind == EntityKind::Host)
            .count();
        self.source
            .metrics
            .live_entities(n_hosts, subjects.len() - n_hosts);
        report.n_entities = subjects.len();

        let unknown = self
            .watermarks
            .unknown(subjects.iter().map(|subject| subject.entity));
        if !unknown.is_empty() {
            let stored = self.database.watermarks_unbounded(&unknown).await?;
            let new = unknown.into_iter().map(|entity| (entity, Past::default()));
            let known = stored.into_iter().map(|(entity, stamp)| {
                (
                    entity,
                    Past {
                        watermark: Some(stamp),
                        ..Past::default()
                    },
                )
            });
            self.watermarks.learn(new.chain(known));
        }

        let look_back = look_back(self.interval);
        let newest = |entity| self.watermarks.get(entity).and_then(|past| past.watermark);
        let before: HashMap<EntityId, Option<Stamp>> = subjects
            .iter()
            .map(|subject| (subject.entity, newest(subject.entity)))
            .collect();
        let targets = subjects.into_iter().map(|subject| {
            let watermark = before.get(&subject.entity).copied().flatten();
            let is_followed = live_set.is_followed(subject.entity, at.0.minus(look_back));
            let after = live_start(watermark, is_followed, at, look_back);
            Target {
                entity: subject.entity,
                moref: subject.moref,
                cpus: subject.cpus,
                placement: self.placements.get(subject.entity),
                after,
                until: None,
            }
        });
        let batches = in_batches(targets, size.get());

        let counters = self.source.vsphere.counters().await?;
        let instances = self.source.vsphere.instances();
        let estimator = Estimator {
            counters: &counters,
            instances,
            now: at.0,
            interval_seconds: REALTIME_SECONDS,
        };
        let n_rows = AtomicUsize::new(0);
        let discarded = AtomicUsize::new(0);
        let answered: Mutex<Vec<(EntityId, bool)>> = Mutex::default();
        let store = |answer: Answer| async {
            let Answer {
                targets,
                reply,
                permit,
            } = answer;
            let with_rows: HashSet<EntityId> = reply.windows.iter().map(|window| window.entity).collect();
            match self.queue.push(turn, Work::Live(reply.windows), permit).await {
                Outcome::Stored { n_rows: stored } => {
                    n_rows.fetch_add(stored, Ordering::Relaxed);
                    let named = targets.iter().map(|target| target.entity);
                    let named = named.filter(|entity| !reply.missing.contains(entity));
                    answered
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(named.map(|entity| (entity, with_rows.contains(&entity))));
                }
                Outcome::Discarded => {
                    discarded.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let mut questions = futures_util::stream::iter(batches)
            .map(|targets| self.source.ask(targets, &estimator, store))
            .buffer_unordered(self.parallel_requests);
        let mut failed = None;
        let mut n_answered = 0;
        let mut skipped = Vec::new();
        let mut too_much_alone = Vec::new();
        while let Some(asked) = questions.next().await {
            n_answered += asked.n_answered;
            skipped.extend(asked.skipped);
            too_much_alone.extend(asked.too_much_alone);
            if let Some(n_entities) = asked.too_much {
                size.shrink(n_entities);
            }
            if let Some(error) = asked.failed {
                let hopeless = matches!(error.disposition(), Disposition::Permanent);
                failed = Some(error);
                if hopeless {
                    break;
                }
            }
        }
        drop(questions);
        for (entity, had_rows) in answered.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let has_spoken = newest(entity) > before.get(&entity).copied().flatten();
            // Rows of which none was kept, such as those of a host that is hours ahead, would all come again.
            if has_spoken || !had_rows {
                live_set.note(entity, at.0, has_spoken);
            }
        }
        if n_answered > 0 {
            skipped.append(&mut too_much_alone);
        }
        report.n_skipped = skipped.len();
        self.source.left_out(&skipped);
        let failed = failed.or_else(|| too_much_alone.pop().map(|(_, error)| error));
        report.n_rows = n_rows.load(Ordering::Relaxed);
        match failed {
            Some(error) => Err(error.into()),
            None if discarded.load(Ordering::Relaxed) > 0 => Err(PollError::Discarded),
            None => self.tell_who_is_quiet(turn, live_set).await,
        }
    }

    /// What this poll sees that would explain missing samples: entities that do not run or are gone, and a server
    /// clock that has moved by itself.
    fn note_what_explains_silence(&self, inventory: &KnownInventory, reading: Reading) {
        let known = self.watermarks.entities();
        let before = self
            .last_reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(reading);
        if before.is_some_and(|before| reading.shows_step_since(before)) {
            tracing::warn!("the server's clock was stepped");
            self.watermarks.hint_all(Reason::ClockStep);
        }
        let present: HashMap<EntityId, Option<Reason>> = seen(inventory)
            .map(|seen| (seen.subject.entity, seen.why_silent))
            .collect();
        self.watermarks
            .hint(known.into_iter().filter_map(|entity| match present.get(&entity) {
                Some(why) => Some((entity, (*why)?)),
                None => Some((entity, Reason::Removed)),
            }));
    }

    /// After a whole poll: entities that have delivered nothing for a while may have fallen silent.
    async fn tell_who_is_quiet(&self, turn: Turn, live_set: &LiveSet) -> Result<(), PollError> {
        let since = turn.at.0.minus(SILENT_AFTER);
        let mut quiet = self.watermarks.quiet(since);
        quiet.retain(|entity| !live_set.has_spoken(*entity, since));
        if quiet.is_empty() {
            return Ok(());
        }
        let permit = self.source.share.reserve(1).await;
        match self.queue.push(turn, Work::Quiet(quiet), permit).await {
            Outcome::Stored { .. } => Ok(()),
            Outcome::Discarded => Err(PollError::Discarded),
        }
    }
}

/// Resolves at this time, never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Resolves when a stop has been asked for and its time to drain has passed.
async fn drained(stopping: &CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(DRAIN).await;
}

fn in_batches(targets: impl Iterator<Item = Target>, size: usize) -> Vec<Vec<Target>> {
    let mut batches: Vec<Vec<Target>> = Vec::new();
    for target in targets {
        match batches.last_mut() {
            Some(batch) if batch.len() < size => batch.push(target),
            _ => batches.push(vec![target]),
        }
    }
    batches
}

/// A platform's place within the interval: the same at every start, spread over the platforms.
fn phase(platform: &str) -> Duration {
    // FNV-1a: stable over versions, unlike the standard library's hasher.
    let hash = platform.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Duration::from_millis(hash % 300_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_late_is_no_step_of_the_servers_clock() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let reading = |asked, server, answered| Reading {
            server: Stamp::from_seconds(server),
            asked: after(asked),
            answered: after(answered),
        };
        let first = reading(0, 1_000, 0);
        // Asked a minute later; the answer was under way for 30 s, or for 30 s before the server read its clock.
        assert!(!reading(60, 1_060, 90).shows_step_since(first));
        assert!(!reading(60, 1_090, 90).shows_step_since(first));
        assert!(!reading(120, 1_120, 120).shows_step_since(reading(60, 1_060, 90)));
        for stepped in [1_049, 1_071, 0, 10_000] {
            assert!(reading(60, stepped, 60).shows_step_since(first), "{stepped}");
        }
    }
}
