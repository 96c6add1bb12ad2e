//! The byte budget: a ceiling for replies and rows in flight over all platforms.
//!
//! Owns: [`Budget`], [`Share`], [`Permit`]. Never does: estimating; who asks for a reply knows its worst size.
//!
//! Invariants: the permits of all platforms never pass the total; those of one platform never pass a quarter of it,
//! so that a slow or flooding platform leaves room for the others. A permit is kept until the rows it stands for are
//! committed or dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::telemetry::metrics::BudgetMetrics;
use crate::units::ByteSize;

/// Permits count in KiB: a semaphore holds at most 2^61, a permit at most 2^32.
const UNIT: usize = 1024;

/// A platform's part of the total.
const SHARES: usize = 4;

/// The whole budget.
#[derive(Debug, Clone)]
pub struct Budget {
    total: Arc<Semaphore>,
    units: usize,
    metrics: BudgetMetrics,
}

impl Budget {
    /// A budget of this size.
    #[must_use]
    pub fn new(size: ByteSize) -> Self {
        let bytes = usize::try_from(size.get()).unwrap_or(usize::MAX);
        let units = (bytes / UNIT).clamp(SHARES, u32::MAX as usize);
        Self {
            total: Arc::new(Semaphore::new(units)),
            units,
            metrics: BudgetMetrics::new(units * UNIT),
        }
    }

    /// A platform's share, at most a quarter in use at any time.
    #[must_use]
    pub fn share(&self) -> Share {
        let units = self.units / SHARES;
        Share {
            budget: self.clone(),
            own: Arc::new(Semaphore::new(units)),
            units,
        }
    }
}

/// One platform's share of the budget.
#[derive(Debug, Clone)]
pub struct Share {
    budget: Budget,
    own: Arc<Semaphore>,
    units: usize,
}

impl Share {
    /// The most that one permit can hold.
    #[must_use]
    pub const fn largest(&self) -> usize {
        self.units * UNIT
    }

    /// Waits until `bytes` are free. More than [`Share::largest`] is cut to it: callers cap their reply by what the
    /// permit says. Cancel safe. First come, first served, first within the platform, then among platforms.
    pub async fn reserve(&self, bytes: usize) -> Permit {
        let units = bytes.div_ceil(UNIT).clamp(1, self.units);
        let n_permits = u32::try_from(units).unwrap_or(u32::MAX);
        // The semaphores are never closed, so that acquiring cannot fail; a closed one would mean "no limit".
        let own = Arc::clone(&self.own).acquire_many_owned(n_permits).await.ok();
        let total = Arc::clone(&self.budget.total)
            .acquire_many_owned(n_permits)
            .await
            .ok();
        self.budget.metrics.took(units * UNIT);
        Permit {
            _own: own,
            _total: total,
            bytes: units * UNIT,
            metrics: self.budget.metrics.clone(),
        }
    }
}

/// Bytes taken from the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _own: Option<OwnedSemaphorePermit>,
    _total: Option<OwnedSemaphorePermit>,
    bytes: usize,
    metrics: BudgetMetrics,
}

impl Permit {
    /// How many bytes it stands for.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.metrics.gave_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_platform_takes_at_most_a_quarter_and_waits_for_its_own_permits() {
        let budget = Budget::new(ByteSize::mebibytes(4));
        let (greedy, modest) = (budget.share(), budget.share());
        let all = greedy.reserve(usize::MAX).await;
        assert_eq!(all.bytes(), 1024 * 1024);
        let blocked = tokio::time::timeout(Duration::from_secs(5), greedy.reserve(1)).await;
        assert!(
            blocked.is_err(),
            "a platform with its whole share in use has to wait"
        );
        let other = modest.reserve(512 * 1024).await;
        assert_eq!(other.bytes(), 512 * 1024);
        drop(all);
        assert_eq!(greedy.reserve(1).await.bytes(), 1024);
    }
}
