//! The flush loop of one platform: batches in, one transaction at a time, watermarks forward.
//!
//! Owns: the order of things. Never does: keeping rows for a second try. Whatever goes wrong, it throws away what is
//! queued or in flight, counts it as `requeried`, waits as long as [`policy`] says, reads the watermarks again, and
//! only then lets the lanes ask the source again ([`Readiness`]). The one exception is a flush that the server refuses
//! for the sake of a row: what can be stored of it is stored, the row is counted as `poison` (`salvage`).
//!
//! Invariants: one flush at a time; an entity's window is never split over transactions, except around a refused row;
//! a watermark moves only after COMMIT; a batch that was asked for before the watermarks were read again is never
//! stored.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::chain::{Past, Unkept, Watermarks};
use super::joined::Joined;
use super::policy::{Policy, Tell, Told, Troubles, policy};
use super::queue::{Batch, Outcome};
use super::salvage::{self, Salvaged, salvage};
use super::writers::Writers;
use crate::error::Chain;
use crate::model::gap::GapLane;
use crate::model::ids::EntityId;
use crate::model::ids::EntityKind;
use crate::store::Class;
use crate::store::Database;
use crate::store::Error;
use crate::store::copy::Flush;
use crate::store::lease::Lease;
use crate::telemetry::metrics::{DatabaseMetrics, Dropped, FlushResult, PlatformMetrics};
use crate::units::Stamp;

/// Rows worth a transaction of their own: above this the cost per row no longer falls (measured: 5,000 rows cost as
/// much per row as 360,000).
const ENOUGH_ROWS: usize = 8_000;

/// How long a small flush waits for company. Batches of one poll arrive within this of one another.
const GATHER: Duration = Duration::from_millis(100);

/// Refused rows that are remembered. When there are more, the oldest trouble may be told and counted a second time.
const MOST_REMEMBERED: usize = 4_096;

/// Whether the lanes may ask the source, and under which reading of the watermarks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Counts the readings of the watermarks.
    pub generation: u64,
    /// False while the watermarks are in doubt or the database is away: nobody fetches what cannot be stored.
    pub ready: bool,
}

/// One bell for each lane that fills gaps.
#[derive(Debug, Default)]
pub struct Bells {
    ring: Notify,
    rollup: Notify,
}

impl Bells {
    /// The bell of a lane: it rings when there is new work for it in the table of gaps.
    #[must_use]
    pub const fn of(&self, lane: GapLane) -> &Notify {
        match lane {
            GapLane::Ring => &self.ring,
            GapLane::Rollup => &self.rollup,
        }
    }
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
    /// Ring when open gaps were written.
    pub gaps_opened: Arc<Bells>,
    /// Cancelled when the platform turns out to be another collector's.
    pub lost: CancellationToken,
    /// Counts.
    pub metrics: PlatformMetrics,
    /// Counts.
    pub database_metrics: DatabaseMetrics,
}

/// A batch on its way, ready to be answered.
struct Waiting {
    receipt: tokio::sync::oneshot::Sender<Outcome>,
    /// Its answers among those of the flush.
    marks: Range<usize>,
    n_rows: usize,
    _permit: crate::budget::Permit,
}

/// Rows that were refused. A newest row is asked for again until another follows it: it is counted and told once.
type Poison = HashSet<(EntityId, Stamp)>;

impl FlushLoop {
    /// Runs until the lanes have ended and what they sent is flushed. `stopping` ends the waits for a database that
    /// is away.
    pub async fn run(mut self, stopping: CancellationToken) {
        let mut troubles = Troubles::new(u64::try_from(self.lease.platform.0).unwrap_or(1));
        let mut poison = Poison::new();
        loop {
            if !self.readiness.borrow().ready {
                let reading = tokio::select! {
                    () = stopping.cancelled() => return,
                    reading = self.read_watermarks() => reading,
                };
                if let Err(error) = reading {
                    let again = self.recover(&mut troubles, &error, "cannot read watermarks", &stopping);
                    if again.await {
                        continue;
                    }
                    return;
                }
            }
            // The lanes hold the other end: it closes when they have ended, so that nothing they sent is left.
            let Some(first) = self.batches.recv().await else {
                return;
            };
            let batches = self.gather(first).await;
            match self.flush(batches, &mut poison).await {
                // Nothing to write says nothing about the database.
                Ok(0) => {}
                Ok(_) => {
                    if troubles.over() {
                        tracing::info!("samples are stored again");
                    }
                }
                Err(error) => {
                    if !self
                        .recover(&mut troubles, &error, "flush failed", &stopping)
                        .await
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Tells of a failure and waits as the policy says; false where there is nothing more to do.
    async fn recover(
        &mut self,
        troubles: &mut Troubles,
        error: &Error,
        what: &'static str,
        stopping: &CancellationToken,
    ) -> bool {
        self.database_metrics.failed(error.class().as_str());
        let policy = policy(error.class());
        let (wait, told) = troubles.came(policy);
        tell(policy, told, error, what);
        let Some(wait) = wait else {
            self.lost.cancel();
            stopping.cancelled().await;
            return false;
        };
        let end = Instant::now() + wait;
        loop {
            let late = tokio::select! {
                () = stopping.cancelled() => return false,
                () = tokio::time::sleep_until(end) => return true,
                late = self.batches.recv() => late,
            };
            // What was under way when it happened must not hold its lane and its part of the budget meanwhile.
            let Some(late) = late else { return false };
            self.metrics.dropped(Dropped::Requeried, late.work.n_rows());
            answer(late.receipt, Outcome::Discarded);
        }
    }

    /// Reads the watermarks and lets the lanes ask.
    async fn read_watermarks(&mut self) -> Result<(), Error> {
        let platform = self.lease.platform;
        self.writers.end_doubtful(platform).await?;
        let now = self.database.clock().await?;
        let marks = self.database.watermarks(platform, now).await?;
        let silent = self.database.silent(platform).await?;
        let newest = marks.iter().map(|(_, stamp)| *stamp).max();
        tracing::info!(
            n_entities = marks.len(),
            newest = newest.map(tracing::field::display),
            "watermarks read"
        );
        if let Some(newest) = newest {
            self.metrics.newest_sample(newest);
        }
        // A silent entity's gap starts at its newest row, however old that is.
        let silent = silent.into_iter().map(|(entity, watermark, hint)| {
            (
                entity,
                Past {
                    watermark: Some(watermark),
                    silent: true,
                    hint,
                },
            )
        });
        let speaking = marks.into_iter().map(|(entity, stamp)| {
            (
                entity,
                Past {
                    watermark: Some(stamp),
                    ..Past::default()
                },
            )
        });
        self.watermarks.replace(speaking.chain(silent));
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

    /// Returns how many transactions it took.
    async fn flush(&mut self, batches: Vec<Batch>, poison: &mut Poison) -> Result<usize, Error> {
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
            let first_mark = joined.marks.len();
            let n_rows = joined.add(work, turn, &self.watermarks);
            waiting.push(Waiting {
                receipt,
                marks: first_mark..joined.marks.len(),
                n_rows,
                _permit: permit,
            });
        }
        self.count_unkept(joined.unkept);
        let started = Instant::now();
        let mut transactions = Transactions {
            flush: self,
            poison,
            n_committed: 0,
        };
        let stored = transactions.store(&mut joined).await;
        let n_transactions = transactions.n_committed;
        let Salvaged { n_lost, failed } = stored;
        for waiting in &mut waiting {
            let lost = n_lost.get(waiting.marks.clone()).unwrap_or_default();
            waiting.n_rows = waiting.n_rows.saturating_sub(lost.iter().sum());
        }
        if let Some(error) = failed {
            self.discard(waiting, n_lost.iter().sum());
            return Err(error);
        }
        let Joined {
            pasts,
            live,
            n_recovered,
            explained,
            opened,
            ..
        } = joined;
        self.metrics.recovered(n_recovered);
        for (reason, n) in explained {
            self.metrics.gaps_explained(reason, n);
        }
        for (turn, stamp) in live {
            self.metrics.sample_age(turn.age(stamp));
        }
        if let Some(newest) = pasts.values().filter_map(|past| past.watermark).max() {
            self.metrics.newest_sample(newest);
        }
        let n_rows: usize = waiting.iter().map(|waiting| waiting.n_rows).sum();
        tracing::debug!(n_rows, n_transactions, elapsed = ?started.elapsed(), "flushed");
        self.watermarks.commit(pasts);
        for lane in opened {
            self.gaps_opened.of(lane).notify_one();
        }
        for Waiting { receipt, n_rows, .. } in waiting {
            answer(receipt, Outcome::Stored { n_rows });
        }
        Ok(n_transactions)
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
    fn discard(&mut self, failed: Vec<Waiting>, mut n_rows: usize) {
        self.readiness.send_modify(|readiness| readiness.ready = false);
        for Waiting { receipt, .. } in failed {
            answer(receipt, Outcome::Discarded);
        }
        while let Ok(batch) = self.batches.try_recv() {
            n_rows += batch.work.n_rows();
            answer(batch.receipt, Outcome::Discarded);
        }
        self.metrics.dropped(Dropped::Requeried, n_rows);
    }
}

/// The transactions of one flush: one, unless a row of it is refused.
struct Transactions<'a> {
    flush: &'a FlushLoop,
    poison: &'a mut Poison,
    n_committed: usize,
}

impl Transactions<'_> {
    async fn store(&mut self, joined: &mut Joined) -> Salvaged<Error> {
        let nothing_lost = Salvaged {
            n_lost: Vec::new(),
            failed: None,
        };
        if joined.flush.is_empty() {
            return nothing_lost;
        }
        match salvage::Store::write(self, &joined.flush).await {
            Ok(()) => nothing_lost,
            Err(error) if <Self as salvage::Store>::refuses_rows(&error) => {
                tracing::debug!(error = %Chain(&error), "a flush is refused for the sake of a row");
                Box::pin(salvage(self, joined)).await
            }
            Err(error) => Salvaged {
                n_lost: joined.marks.iter().map(|mark| mark.n_rows).collect(),
                failed: Some(error),
            },
        }
    }
}

impl salvage::Store for Transactions<'_> {
    type Error = Error;

    async fn write(&mut self, flush: &Flush) -> Result<(), Error> {
        let FlushLoop {
            writers,
            lease,
            metrics,
            ..
        } = self.flush;
        let started = Instant::now();
        let written = writers.write(lease, flush).await;
        let result = match written.as_ref().map_err(Error::class) {
            Ok(_) => FlushResult::Ok,
            Err(Class::Fenced) => FlushResult::Fenced,
            Err(Class::Unknown) => FlushResult::Unknown,
            Err(_) => FlushResult::Error,
        };
        metrics.flushed(result, started.elapsed());
        let written = written?;
        metrics.rows_written(EntityKind::Host, written.host_rows);
        metrics.rows_written(EntityKind::Vm, written.vm_rows);
        metrics.rows_duplicate(written.duplicates);
        self.n_committed += 1;
        Ok(())
    }

    fn refuses_rows(error: &Error) -> bool {
        matches!(error.class(), Class::Data | Class::Duplicate)
    }

    fn left_out(&mut self, entity: EntityId, stamp: Stamp, error: &Error) {
        if self.poison.len() >= MOST_REMEMBERED {
            self.poison.clear();
        }
        if self.poison.insert((entity, stamp)) {
            self.flush.metrics.dropped(Dropped::Poison, 1);
            tracing::error!(%entity, %stamp, error = %Chain(error), "the database refuses a row; it is left out");
        }
    }
}

fn tell(policy: &Policy, told: Told, error: &Error, what: &'static str) {
    let (error, advice) = (Chain(error), policy.advice);
    let Told::Aloud { untold } = told else {
        tracing::debug!(%error, "{what}; {advice}");
        return;
    };
    let repeated = (untold > 0).then_some(untold);
    match policy.tell {
        Tell::Warn => tracing::warn!(%error, repeated, "{what}; {advice}"),
        Tell::Error | Tell::ErrorOnce => tracing::error!(%error, repeated, "{what}; {advice}"),
    }
}

/// A lane that has gone away does not want to know.
fn answer(receipt: tokio::sync::oneshot::Sender<Outcome>, outcome: Outcome) {
    receipt.send(outcome).ok();
}
