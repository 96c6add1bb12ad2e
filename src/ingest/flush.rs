//! The flush loop of one platform: batches in, one transaction at a time, watermarks forward.
//!
//! Owns: the order of things. Never does: keeping rows for a second try. Whatever goes wrong, it throws away what is
//! queued or in flight, counts it as `requeried`, reads the watermarks again, and only then lets the lanes ask the
//! source again ([`Readiness`]).
//!
//! Invariants: one flush at a time; an entity's window is never split over transactions; a watermark moves only
//! after COMMIT; a batch that was asked for before the watermarks were read again is never stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chain::{self, Mark, Unkept, Watermarks};
use super::queue::{Batch, Found, Outcome, Turn, Work};
use super::writers::Writers;
use crate::clock::WallClock;
use crate::error::Chain;
use crate::model::gap::OpenGap;
use crate::model::gap::Reason;
use crate::model::ids::{EntityId, EntityKind};
use crate::model::sample::Window;
use crate::retry::Backoff;
use crate::store::Class;
use crate::store::Database;
use crate::store::Error;
use crate::store::copy::Flush;
use crate::store::copy::Written;
use crate::store::lease::Lease;
use crate::telemetry::metrics::{DatabaseMetrics, Dropped, FlushResult, PlatformMetrics};
use crate::units::Stamp;

/// Rows worth a transaction of their own: above this the cost per row no longer falls (measured: 5,000 rows cost as
/// much per row as 360,000).
const ENOUGH_ROWS: usize = 8_000;

/// How long a small flush waits for company. Batches of one poll arrive within this of one another.
const GATHER: Duration = Duration::from_millis(100);

/// Whether the lanes may ask the source, and under which reading of the watermarks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Counts the readings of the watermarks.
    pub generation: u64,
    /// False while the watermarks are in doubt or the database is away: nobody fetches what cannot be stored.
    pub ready: bool,
}

/// One platform's flush loop.
#[derive(Debug)]
pub struct FlushLoop {
    /// The fence of everything it writes.
    pub lease: Lease,
    /// For reading watermarks.
    pub database: Database,
    /// For writing.
    pub writers: Writers,
    /// What it moves.
    pub watermarks: Arc<Watermarks>,
    /// Batches from the lanes.
    pub batches: mpsc::Receiver<Batch>,
    /// Tells the lanes.
    pub readiness: watch::Sender<Readiness>,
    /// Rings when open gaps were written.
    pub gaps_opened: Arc<tokio::sync::Notify>,
    /// Cancelled when the platform turns out to be another collector's.
    pub lost: CancellationToken,
    /// Wall clock, for the bound of the watermark search only.
    pub clock: Arc<dyn WallClock>,
    /// Counts.
    pub metrics: PlatformMetrics,
    /// Counts.
    pub database_metrics: DatabaseMetrics,
}

/// A batch on its way, ready to be answered.
struct Waiting {
    receipt: tokio::sync::oneshot::Sender<Outcome>,
    n_rows: usize,
    _permit: crate::budget::Permit,
}

impl FlushLoop {
    /// Runs until the lanes have ended and what they sent is flushed. `stopping` ends the waits for a database that
    /// is away.
    pub async fn run(mut self, stopping: CancellationToken) {
        let seed = u64::try_from(self.lease.platform.0).unwrap_or(1);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30), seed);
        loop {
            if !self.readiness.borrow().ready {
                let reading = tokio::select! {
                    () = stopping.cancelled() => return,
                    reading = self.read_watermarks() => reading,
                };
                if let Err(error) = reading {
                    self.report(&error, "cannot read watermarks; trying again");
                    let wait = backoff.next_wait();
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                    continue;
                }
            }
            // The lanes hold the other end: it closes when they have ended, so that nothing they sent is left.
            let Some(first) = self.batches.recv().await else {
                return;
            };
            let batches = self.gather(first).await;
            match self.flush(batches).await {
                Ok(()) => backoff.reset(),
                Err(error) if error.class() == Class::Fenced => {
                    tracing::warn!(error = %Chain(&error), "another collector owns the platform now");
                    self.lost.cancel();
                    stopping.cancelled().await;
                    return;
                }
                Err(error) => {
                    self.report(&error, "flush failed; its samples will be asked for again");
                    let wait = backoff.next_wait();
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    fn report(&self, error: &Error, what: &'static str) {
        self.database_metrics.failed(error.class().as_str());
        tracing::warn!(error = %Chain(error), "{what}");
    }

    /// Reads the watermarks and lets the lanes ask.
    async fn read_watermarks(&mut self) -> Result<(), Error> {
        let marks = self
            .database
            .watermarks(self.lease.platform, self.clock.now())
            .await?;
        let newest = marks.iter().map(|(_, stamp)| *stamp).max();
        tracing::info!(
            n_entities = marks.len(),
            newest = newest.map(tracing::field::display),
            "watermarks read"
        );
        if let Some(newest) = newest {
            self.metrics.newest_sample(newest);
        }
        self.watermarks.replace(
            marks
                .into_iter()
                .map(|(entity, stamp)| (entity, Mark::Stored(stamp))),
        );
        self.readiness.send_modify(|readiness| {
            readiness.generation += 1;
            readiness.ready = true;
        });
        Ok(())
    }

    /// The first batch and those that come within a moment of it, up to a worthwhile transaction.
    async fn gather(&mut self, first: Batch) -> Vec<Batch> {
        let mut n_rows = first.work.n_rows();
        let mut batches = vec![first];
        let deadline = Instant::now() + GATHER;
        while n_rows < ENOUGH_ROWS {
            match tokio::time::timeout_at(deadline, self.batches.recv()).await {
                Ok(Some(batch)) => {
                    n_rows += batch.work.n_rows();
                    batches.push(batch);
                }
                Ok(None) | Err(_) => break,
            }
        }
        batches
    }

    async fn flush(&mut self, batches: Vec<Batch>) -> Result<(), Error> {
        let generation = self.readiness.borrow().generation;
        let mut joined = Joined::default();
        let mut waiting = Vec::with_capacity(batches.len());
        for batch in batches {
            let Batch {
                turn,
                work,
                permit,
                receipt,
            } = batch;
            if turn.generation != generation {
                self.metrics.dropped(Dropped::Requeried, work.n_rows());
                answer(receipt, Outcome::Discarded);
                continue;
            }
            let n_rows = match work {
                Work::Live(windows) => joined.extend(windows, turn, &self.watermarks),
                Work::Ring(gaps) => joined.fill(gaps, turn.at),
            };
            waiting.push(Waiting {
                receipt,
                n_rows,
                _permit: permit,
            });
        }
        let Joined {
            flush,
            watermarks,
            unkept,
            live,
            n_recovered,
            explained,
            opened,
        } = joined;
        self.count_unkept(unkept);
        let n_rows: usize = waiting.iter().map(|waiting| waiting.n_rows).sum();
        let started = Instant::now();
        let result = if flush.is_empty() {
            Ok(Written::default())
        } else {
            self.writers.write(&self.lease, &flush).await
        };
        let written = match result {
            Ok(written) => written,
            Err(error) => {
                let result = match error.class() {
                    Class::Fenced => FlushResult::Fenced,
                    Class::Unknown => FlushResult::Unknown,
                    _ => FlushResult::Error,
                };
                self.metrics.flushed(result, started.elapsed());
                self.discard(waiting);
                return Err(error);
            }
        };
        self.metrics.flushed(FlushResult::Ok, started.elapsed());
        self.metrics.rows_written(EntityKind::Host, written.host_rows);
        self.metrics.rows_written(EntityKind::Vm, written.vm_rows);
        self.metrics.recovered(n_recovered);
        for (reason, n) in explained {
            self.metrics.gaps_explained(reason, n);
        }
        for (turn, stamp) in live {
            self.metrics.sample_age(turn.age(stamp));
        }
        if let Some(newest) = watermarks.values().max() {
            self.metrics.newest_sample(*newest);
        }
        tracing::debug!(n_rows, elapsed = ?started.elapsed(), "flushed");
        self.watermarks.advance(watermarks);
        if opened {
            self.gaps_opened.notify_one();
        }
        for Waiting {
            receipt,
            n_rows,
            _permit,
        } in waiting
        {
            answer(receipt, Outcome::Stored { n_rows });
        }
        Ok(())
    }

    fn count_unkept(&self, unkept: Unkept) {
        let Unkept {
            known,
            overlap,
            held,
            refused,
        } = unkept;
        for (reason, n) in [
            (Dropped::Known, known),
            (Dropped::Overlap, overlap),
            (Dropped::Held, held),
            (Dropped::Refused, refused),
        ] {
            self.metrics.dropped(reason, n);
        }
    }

    /// Throws away what failed and what waits behind it; the watermarks are in doubt from here on.
    fn discard(&mut self, failed: Vec<Waiting>) {
        self.readiness.send_modify(|readiness| readiness.ready = false);
        let mut n_rows = 0;
        for Waiting {
            receipt,
            n_rows: rows,
            _permit,
        } in failed
        {
            n_rows += rows;
            answer(receipt, Outcome::Discarded);
        }
        while let Ok(batch) = self.batches.try_recv() {
            n_rows += batch.work.n_rows();
            answer(batch.receipt, Outcome::Discarded);
        }
        self.metrics.dropped(Dropped::Requeried, n_rows);
    }
}

/// A lane that has gone away does not want to know.
fn answer(receipt: tokio::sync::oneshot::Sender<Outcome>, outcome: Outcome) {
    receipt.send(outcome).ok();
}

/// Batches joined to one flush, the chain kept across them.
#[derive(Default)]
struct Joined {
    flush: Flush,
    watermarks: HashMap<EntityId, Stamp>,
    unkept: Unkept,
    live: Vec<(Turn, Stamp)>,
    n_recovered: usize,
    explained: HashMap<Reason, usize>,
    opened: bool,
}

impl Joined {
    fn extend(&mut self, windows: Vec<Window>, turn: Turn, watermarks: &Watermarks) -> usize {
        let mut n_rows = 0;
        for mut window in windows {
            let entity = window.entity;
            let before = self
                .watermarks
                .get(&entity)
                .copied()
                .or_else(|| match watermarks.get(entity) {
                    Some(Mark::Stored(stamp)) => Some(stamp),
                    Some(Mark::New) | None => None,
                });
            let extension = chain::extend(before, &mut window, turn.at);
            self.unkept.add(extension.unkept);
            self.opened |= !extension.gaps.is_empty();
            self.flush.gaps_new.extend(extension.gaps);
            if window.is_empty() {
                continue;
            }
            if let Some(watermark) = extension.watermark {
                self.watermarks.insert(entity, watermark);
            }
            n_rows += window.len();
            self.live
                .extend(window.heads().iter().map(|head| (turn, head.stamp)));
            self.flush.windows.push(window);
        }
        n_rows
    }

    fn fill(&mut self, gaps: Vec<(OpenGap, Found)>, at: chain::ServerTime) -> usize {
        let mut n_rows = 0;
        for (gap, found) in gaps {
            let residue = match found {
                Found::Rows(mut window) => {
                    let residue = chain::fill(&gap, &mut window, at);
                    n_rows += window.len();
                    if !window.is_empty() {
                        self.flush.windows.push(window);
                    }
                    residue
                }
                Found::Gone(reason) => chain::give_up(&gap, reason),
                Found::Refused => {
                    self.flush.gaps_asked.push(gap.id);
                    continue;
                }
            };
            self.unkept.add(residue.unkept);
            for reason in residue.gaps.iter().filter_map(|gap| gap.reason) {
                *self.explained.entry(reason).or_default() += 1;
            }
            self.flush.gaps_done.push(gap.id);
            self.flush.gaps_new.extend(residue.gaps);
        }
        self.n_recovered += n_rows;
        n_rows
    }
}
