//! How often somebody may ask.
//!
//! Each limit remembers a bounded number of callers. When there are more, those that are not remembered share one
//! place: a flood of addresses slows itself, not those that are known.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

/// How often callers that have been quiet are forgotten.
pub const UPKEEP: Duration = Duration::from_secs(60);

/// After this, every limit here is as if its caller had never asked.
const QUIET: Duration = Duration::from_secs(60);

/// Callers that a limit remembers.
const MOST: usize = 10_000;

/// So many at once, and how they come back.
#[derive(Debug)]
pub struct Limit<K>(Mutex<Counting<K>>);

#[derive(Debug)]
struct Counting<K> {
    quota: Quota,
    callers: HashMap<K, Caller>,
    others: DefaultDirectRateLimiter,
}

impl<K> Counting<K> {
    fn new(quota: Quota) -> Self {
        Self {
            quota,
            callers: HashMap::new(),
            others: RateLimiter::direct(quota),
        }
    }
}

#[derive(Debug)]
struct Caller {
    limiter: DefaultDirectRateLimiter,
    last: Instant,
}

impl<K: Hash + Eq> Limit<K> {
    /// `n` a second, twice as many at once.
    #[must_use]
    pub fn per_second(n: u32) -> Self {
        Self(Mutex::new(Counting::new(quota_per_second(n))))
    }

    /// `n` a minute, all of them at once if need be.
    #[must_use]
    pub fn per_minute(n: u32) -> Self {
        Self(Mutex::new(Counting::new(Quota::per_minute(at_least_one(n)))))
    }

    /// Another limit from now on; everybody starts anew.
    pub fn change_to_per_second(&self, n: u32) {
        *self.locked() = Counting::new(quota_per_second(n));
    }

    /// As above, a minute.
    pub fn change_to_per_minute(&self, n: u32) {
        *self.locked() = Counting::new(Quota::per_minute(at_least_one(n)));
    }

    fn locked(&self) -> MutexGuard<'_, Counting<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one.
    ///
    /// # Errors
    /// With the time to wait, where there were too many.
    pub fn take(&self, key: K) -> Result<(), Duration> {
        let mut counting = self.locked();
        let Counting {
            quota,
            callers,
            others,
        } = &mut *counting;
        let last = Instant::now();
        if callers.len() >= MOST && !callers.contains_key(&key) {
            return check(others);
        }
        let caller = callers.entry(key).or_insert_with(|| Caller {
            limiter: RateLimiter::direct(*quota),
            last,
        });
        caller.last = last;
        check(&caller.limiter)
    }

    /// Forgets whoever may ask as often as one that never did.
    pub fn forget_the_quiet(&self) {
        let callers = &mut self.locked().callers;
        callers.retain(|_, caller| caller.last.elapsed() < QUIET);
        callers.shrink_to_fit();
    }
}

fn check(limiter: &DefaultDirectRateLimiter) -> Result<(), Duration> {
    limiter
        .check()
        .map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
}

/// `n` a second, twice as many at once.
fn quota_per_second(n: u32) -> Quota {
    Quota::per_second(at_least_one(n)).allow_burst(at_least_one(n.saturating_mul(2)))
}

fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_and_is_told_when_to_come_back() {
        let limit = Limit::per_minute(5);
        for _ in 0..5 {
            assert_eq!(limit.take("one"), Ok(()));
        }
        let wait = limit.take("one").unwrap_err();
        assert!(!wait.is_zero() && wait <= Duration::from_secs(12), "{wait:?}");
        assert_eq!(limit.take("other"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_callers_is_remembered_as_one_until_it_is_over() {
        let limit = Limit::per_minute(5);
        limit.take(0).unwrap();
        let refused = (1..3 * MOST).filter(|n| limit.take(*n).is_err()).count();
        assert_eq!(limit.locked().callers.len(), MOST);
        assert!(refused >= 2 * MOST - 10, "{refused}");
        assert_eq!(
            limit.take(0),
            Ok(()),
            "one that is known is not counted with the flood"
        );
        tokio::time::advance(QUIET).await;
        limit.take(1).unwrap();
        limit.forget_the_quiet();
        assert_eq!(limit.locked().callers.len(), 1);
    }
}
