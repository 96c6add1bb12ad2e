//! Time as the daemon uses it: wall time for people and logs, monotonic ticks for loops.
//!
//! Owns: [`WallClock`], [`Ticker`]. Never does: data time. Stamps of samples and the bounds of questions come from the
//! source's own clock, leases and how far back stored rows are looked at from the database's; nothing of this module
//! reaches a row or a query.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::units::Stamp;

/// The collector host's wall clock, a trait so that tests can step it.
pub trait WallClock: fmt::Debug + Send + Sync {
    /// Now, UTC.
    fn now(&self) -> Stamp;
}

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> Stamp {
        Stamp::from_micros(jiff::Timestamp::now().as_microsecond())
    }
}

/// Ticks of a loop: the first at once, the following ones on a phase of their own, so that many platforms do not
/// poll in the same second. Of the ticks that pass while the loop is busy the last one is due at once, the others
/// are skipped, never queued.
#[derive(Debug)]
pub struct Ticker {
    interval: tokio::time::Interval,
    period: Duration,
    last: Option<Instant>,
}

/// What a tick found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Ticks that passed unused since the one before, because the loop was busy.
    pub missed: u32,
}

impl Ticker {
    /// Ticks at once, then at `phase` and every `period` after it. `phase` is taken modulo `period`.
    #[must_use]
    pub fn new(period: Duration, phase: Duration) -> Self {
        let start = Instant::now();
        let phase = Duration::from_nanos(
            u64::try_from(phase.as_nanos().checked_rem(period.as_nanos()).unwrap_or(0)).unwrap_or(0),
        );
        // Phase zero is the first tick's own moment.
        let first = if phase.is_zero() { period } else { phase };
        let mut interval = tokio::time::interval_at(start + first, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            interval,
            period,
            last: None,
        }
    }

    /// Waits for the next tick. Cancel safe.
    pub async fn tick(&mut self) -> Tick {
        if self.last.is_some() {
            self.interval.tick().await;
        }
        let now = Instant::now();
        let missed = match self.last {
            // Half a period of slack: the step from the first poll to the phase is shorter than a period.
            Some(last) => {
                let periods = now.duration_since(last).as_secs_f64() / self.period.as_secs_f64();
                let passed = (periods - 0.5).max(0.0).floor();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "floor of a small positive"
                )]
                let passed = passed as u32;
                passed
            }
            None => 0,
        };
        self.last = Some(now);
        Tick { missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_phase_ticks_are_a_period_apart() {
        let start = Instant::now();
        let mut ticker = Ticker::new(Duration::from_secs(60), Duration::ZERO);
        ticker.tick().await;
        ticker.tick().await;
        assert_eq!(start.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_tick_is_at_once_and_busy_ticks_are_counted_not_stacked() {
        let period = Duration::from_secs(60);
        let start = Instant::now();
        let mut ticker = Ticker::new(period, Duration::from_secs(67));
        assert_eq!(ticker.tick().await, Tick { missed: 0 });
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(ticker.tick().await, Tick { missed: 0 });
        assert_eq!(start.elapsed().as_secs(), 7);
        // Busy over two ticks: the late one is due at once, the one before it is lost, and the phase is kept.
        tokio::time::sleep(Duration::from_secs(130)).await;
        assert_eq!(ticker.tick().await, Tick { missed: 1 });
        assert_eq!(start.elapsed().as_secs(), 137);
        assert_eq!(ticker.tick().await, Tick { missed: 0 });
        assert_eq!(start.elapsed().as_secs() % 60, 7);
    }
}
