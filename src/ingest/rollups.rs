//! The loop that keeps a platform's roll-ups up to date.
//!
//! Owns: when the store is asked to make them, and what is done when that fails. Never does: deciding which; notes in
//! the database say so, each written by the transaction that stored the samples ([`crate::store::rollup`]). So nothing
//! is lost with this loop, and whoever owns the platform next goes on where it ended.
//!
//! It stands beside the flush loop because it is the second half of the same way, from rows to what is made of them,
//! and because the same classes of failure are waited for in the same way ([`policy`](super::policy)).
//!
//! Tasks: one per platform, under its lease. Buckets of all platforms are due at the same time, every five minutes: so
//! that they leave connections and processors to those who store samples, only [`AT_A_TIME`] platforms make theirs at a
//! time ([`Turns`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::policy::{Tell, Told, Troubles, policy};
use crate::error::Chain;
use crate::store::Class;
use crate::store::Database;
use crate::store::Error;
use crate::store::lease::Lease;
use crate::store::rollup::Due;
use crate::store::rollup::Made;
use crate::supervise::trigger::Triggered;
use crate::telemetry::metrics::{DatabaseMetrics, RollupMetrics};

/// How often the loop looks for what is due.
const LOOK: Duration = Duration::from_secs(20);

/// Platforms that make roll-ups at a time.
const AT_A_TIME: usize = 2;

/// What is under way when the loop is to stop may take this long. Dropped, it is undone and done again by whoever is
/// next, who would first have to wait for the server to notice.
const LAST_TRANSACTION: Duration = Duration::from_secs(10);

/// Taking turns among the platforms of a collector.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

/// One platform's loop.
#[derive(Debug)]
pub struct Rollups {
    /// The fence of everything it writes.
    pub lease: Lease,
    /// Where samples, notes and roll-ups are.
    pub database: Database,
    /// Shared by all platforms.
    pub turns: Turns,
    /// Turns out of turn, which also make what is not due.
    pub triggered: Triggered<RollupReport>,
    /// Cancelled when the platform turns out to be another collector's.
    pub lost: CancellationToken,
    /// Counts.
    pub metrics: RollupMetrics,
    /// Counts.
    pub database_metrics: DatabaseMetrics,
}

/// What a turn did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollupReport {
    /// What was made and committed.
    pub made: Made,
    /// Why there may be more to be made.
    pub error: Option<String>,
}

impl Rollups {
    /// Makes what is due until `stopping`.
    pub async fn run(self, stopping: CancellationToken) {
        self.make(stopping).await;
        // What is left is for the platform's next owner to say.
        self.metrics.pending(0, None);
    }

    async fn make(&self, stopping: CancellationToken) {
        let mut troubles = Troubles::new(u64::try_from(self.lease.platform.0).unwrap_or(1));
        // At once: notes may have waited for an owner.
        let mut wait = Duration::ZERO;
        loop {
            let reply = tokio::select! {
                () = stopping.cancelled() => return,
                reply = self.triggered.asked() => Some(reply),
                () = tokio::time::sleep(wait) => None,
            };
            let due = reply.as_ref().map_or(Due::Now, |_| Due::Whenever);
            let mut report = RollupReport::default();
            let turn = self.turn(due, &mut report.made, &stopping);
            let result = tokio::select! {
                result = turn => result,
                () = late(&stopping) => return,
            };
            wait = match result {
                Ok(()) => {
                    if troubles.over() {
                        tracing::info!("roll-ups are made again");
                    }
                    LOOK
                }
                Err(error) => {
                    report.error = Some(Chain(&error).to_string());
                    let Some(wait) = self.failed(&mut troubles, &error) else {
                        stopping.cancelled().await;
                        return;
                    };
                    wait
                }
            };
            if let Some(reply) = reply {
                drop(reply.send(report));
            }
        }
    }

    /// One transaction after the other, until nothing is left, or stopping.
    async fn turn(&self, due: Due, made: &mut Made, stopping: &CancellationToken) -> Result<(), Error> {
        while !stopping.is_cancelled() {
            let pending = self.database.rollups_pending(&self.lease).await?;
            self.metrics.pending(pending.notes, pending.first_due);
            let is_wanted = pending.is_due || (due == Due::Whenever && pending.notes > 0);
            if !is_wanted {
                return Ok(());
            }
            // Closed never, so that there is a permit in the end.
            let _permit = tokio::select! {
                () = stopping.cancelled() => return Ok(()),
                permit = self.turns.0.acquire() => permit.ok(),
            };
            let started = Instant::now();
            let more = self.database.roll_up(&self.lease, due).await?;
            self.metrics.made(more.buckets, more.rows, started.elapsed());
            tracing::debug!(n_buckets = ?more.buckets, n_rows = more.rows, elapsed = ?started.elapsed(), "roll-ups made");
            made.add(&more);
        }
        Ok(())
    }

    /// How long to wait; `None` where the lease is no good any more.
    fn failed(&self, troubles: &mut Troubles, error: &Error) -> Option<Duration> {
        const WHAT: &str = "roll-ups have to wait; nothing is lost, they are made once this is over";
        self.database_metrics.failed(error.class().as_str());
        if error.class().ends_term() {
            self.lost.cancel();
            return None;
        }
        let policy = policy(error.class());
        let (wait, told) = troubles.came(policy);
        // The database's own loop tells when it is away, and when it is back.
        let is_away = matches!(
            error.class(),
            Class::Connection | Class::Unknown | Class::NotWritable
        );
        let error = Chain(error);
        match (told, policy.tell) {
            (Told::Quietly, _) => tracing::debug!(%error, "{WHAT}"),
            (Told::Aloud { .. }, _) if is_away => tracing::debug!(%error, "{WHAT}"),
            (Told::Aloud { untold }, Tell::Warn) => tracing::warn!(%error, repeated = untold, "{WHAT}"),
            (Told::Aloud { untold }, Tell::Error | Tell::ErrorOnce) => {
                tracing::error!(%error, repeated = untold, "{WHAT}");
            }
        }
        wait
    }
}

async fn late(stopping: &CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(LAST_TRANSACTION).await;
}
