//! Waiting between attempts.
//!
//! Owns: [`Backoff`]. Never does: the attempts themselves, or deciding whether one more makes sense; that is the
//! error's [`Disposition`](crate::error::Disposition).

use std::time::Duration;

/// Exponential back-off with full jitter: the n-th wait is uniform in `(0, min(first × 2^n, longest)]`, so that
/// many collectors that failed together do not return together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
    random: u64,
}

impl Backoff {
    /// Waits that grow from `first` to `longest`; `seed` picks the jitter's sequence.
    #[must_use]
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        let first = first.max(Duration::from_millis(1));
        // xorshift must not start at zero.
        Self {
            first,
            longest: longest.max(first),
            attempt: 0,
            random: seed | 1,
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self
            .first
            .saturating_mul(2_u32.saturating_pow(self.attempt))
            .min(self.longest);
        self.attempt = self.attempt.saturating_add(1);
        let millis = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.random() % millis + 1)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// True while nothing has failed since the last success.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.attempt == 0
    }

    /// xorshift64: jitter needs spread, not unpredictability.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_within_bounds_and_start_over_after_a_success(seed: u64, attempts in 1_u32..80) {
            let (first, longest) = (Duration::from_millis(200), Duration::from_secs(30));
            let mut backoff = Backoff::new(first, longest, seed);
            for attempt in 0..attempts {
                let ceiling = first.saturating_mul(2_u32.saturating_pow(attempt)).min(longest);
                let wait = backoff.next_wait();
                prop_assert!(wait > Duration::ZERO && wait <= ceiling, "{wait:?} of {ceiling:?}");
            }
            backoff.reset();
            prop_assert!(backoff.next_wait() <= first);
        }
    }
}
