//! What is too old goes.
//!
//! Owns: when it is looked for. Never does: dropping; that is [`crate::store::retention`].
//!
//! Tasks: `retention`, of each collector; they take turns. At each connect, and every hour, the database is told what is
//! kept, and compression is brought to what its edition and version can do.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::DatabaseHealth;
use crate::clock::{SystemClock, WallClock as _};
use crate::config;
use crate::error::Chain;
use crate::store::Database;
use crate::store::retention::{Compression, RELATIONS, Turn};
use crate::telemetry::metrics::RetentionMetrics;

/// Between two turns.
const INTERVAL: Duration = Duration::from_secs(3600);

/// After the start: samples come first.
const FIRST: Duration = Duration::from_secs(300);

/// After one that failed, or that readers delayed.
const AGAIN: Duration = Duration::from_secs(600);

/// The task and what it knows.
#[derive(Debug)]
pub(super) struct Retention {
    /// Changes when the configuration is read again.
    pub(super) kept: watch::Receiver<config::Retention>,
    pub(super) database: Database,
    pub(super) health: watch::Receiver<DatabaseHealth>,
    pub(super) metrics: RetentionMetrics,
}

impl Retention {
    /// Drops what is too old until it is asked to stop. Dropped half-way, a turn leaves whole chunks.
    pub(super) async fn keep(mut self, stopping: CancellationToken) {
        let work = async {
            let mut next = Instant::now() + FIRST;
            let mut told = None;
            loop {
                // What is seen here is no news below.
                let up = self.health.wait_for(|health| *health == DatabaseHealth::Up);
                if up.await.is_err() {
                    // The task that looks at the database has ended: so does everything.
                    return;
                }
                self.tell(&mut told).await;
                let is_time = tokio::select! {
                    () = tokio::time::sleep_until(next) => true,
                    Ok(()) = self.kept.changed() => {
                        // Time to mend what was not meant.
                        next = next.max(Instant::now() + FIRST);
                        told = None;
                        false
                    }
                    // Down and up again, or another edition or version.
                    told_anew = self.health.changed() => {
                        if told_anew.is_err() {
                            return;
                        }
                        false
                    }
                };
                if is_time {
                    next = Instant::now() + self.turn().await;
                }
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = work => stopping.cancelled().await,
        }
    }

    /// Says how compression stands, once for each change.
    async fn tell(&self, told: &mut Option<Compression>) {
        let kept = *self.kept.borrow();
        match self.database.set_retention(&kept).await {
            Ok(compression) if *told == Some(compression) => {}
            Ok(compression) => {
                *told = Some(compression);
                let config::Retention {
                    raw,
                    five_minutes,
                    hour,
                    day,
                    compress_after,
                } = kept;
                if compression == Compression::On {
                    tracing::info!(%raw, %five_minutes, %hour, %day, %compress_after, "kept; {compression}");
                } else {
                    tracing::info!(%raw, %five_minutes, %hour, %day, "kept; {compression}");
                }
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "cannot set what is kept how long"),
        }
    }

    /// One turn; how long until the next.
    async fn turn(&self) -> Duration {
        let kept = *self.kept.borrow();
        match self.database.drop_expired(&kept).await {
            Ok(Some(turn)) => {
                self.count(&turn);
                if turn.delayed.is_empty() { INTERVAL } else { AGAIN }
            }
            Ok(None) => {
                tracing::debug!("another collector drops what is too old");
                INTERVAL
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot drop what is too old; trying again");
                AGAIN
            }
        }
    }

    fn count(&self, turn: &Turn) {
        for dropped in &turn.dropped {
            self.metrics.dropped(dropped.relation, dropped.chunks);
            tracing::info!(
                relation = dropped.relation, n_chunks = dropped.chunks, before = %dropped.before, "dropped what is too old"
            );
        }
        for relation in RELATIONS {
            let kept_back = turn.kept_back.iter().find(|kept| kept.relation == relation);
            self.metrics.kept_back(relation, kept_back.is_some());
            if let Some(kept) = kept_back {
                tracing::warn!(
                    relation, until = %kept.until, n_buckets = kept.pending,
                    "too old, and kept: it is yet to be rolled up. Are roll-ups made? Look at \
                     virt_collector_rollup_pending"
                );
            }
        }
        for (relation, error) in &turn.delayed {
            tracing::info!(relation, error = %Chain(error), "too old, and in use; trying again later");
        }
        if turn.gaps > 0 {
            tracing::info!(n_gaps = turn.gaps, "gap rows ended with the samples around them");
        }
        if turn.delayed.is_empty() && turn.kept_back.is_empty() {
            self.metrics.succeeded(SystemClock.now());
        }
    }
}
