//! The server's clock.
//!
//! Owns: what time it is on the server, how far its world has lived, and the difference between time
//! that passes ([`Clock::advance`]) and a clock that is corrected ([`Clock::step`]). Never sleeps and
//! never wakes anyone: everything the server does is computed from the time it is asked at.
//!
//! Three readings, all in microseconds:
//! - **now**: what `CurrentTime` answers;
//! - **horizon**: the newest `now` ever reached. The world publishes and evicts by it, so after a
//!   step back nothing is published twice or un-published: the source pauses until its clock has
//!   caught up;
//! - **steady**: never corrected. Session time-outs and log-in lock-outs go by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::grid::{self, INTERVAL};
use crate::spec::ClockMode;

/// Stamps that no entity ever had, because the clock jumped over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampRange {
    /// First stamp.
    pub first: i64,
    /// Last stamp.
    pub last: i64,
}

impl StampRange {
    pub(crate) const fn contains(&self, stamp: i64) -> bool {
        self.first <= stamp && stamp <= self.last
    }
}

/// One correction of the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStep {
    /// Server time just before.
    pub before: i64,
    /// Server time just after.
    pub after: i64,
}

/// The three readings at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) now: i64,
    pub(crate) horizon: i64,
    pub(crate) steady: i64,
}

/// The readings, and how the clock came there.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) reading: Reading,
    pub(crate) steps: Vec<ClockStep>,
    /// The stamps that were jumped over.
    pub(crate) not_lived: Vec<StampRange>,
}

/// A handle on the server's clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    mode: ClockMode,
    /// Sum of all steps.
    skew: i64,
    high_water: i64,
    steps: Vec<ClockStep>,
    not_lived: Vec<StampRange>,
}

impl Clock {
    pub(crate) fn new(mode: ClockMode) -> Self {
        Self(Arc::new(Mutex::new(State {
            mode,
            skew: 0,
            high_water: i64::MIN,
            steps: Vec::new(),
            not_lived: Vec::new(),
        })))
    }

    /// Server time, microseconds since the epoch.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.read().now
    }

    /// How far the world has lived: `now`, or what it was before a step back.
    #[must_use]
    pub fn horizon(&self) -> i64 {
        self.read().horizon
    }

    /// Lets time pass at once: all samples of the time are published, old ones evicted, idle
    /// sessions expire.
    pub fn advance(&self, by: Duration) {
        let by = micros(by);
        match &mut self.state().mode {
            ClockMode::Wall { offset } => *offset = offset.saturating_add(by),
            ClockMode::Frozen { at } => *at = at.saturating_add(by),
        }
    }

    /// Corrects the clock by so many microseconds, like an operator or NTP would. Forward: the
    /// stamps in between never existed (though the ring moves on). Back: publication pauses until
    /// the clock has caught up with what is already published.
    pub fn step(&self, by: i64) {
        let mut state = self.state();
        let before = state.reading();
        state.high_water = before.horizon;
        state.skew = state.skew.saturating_add(by);
        let after = state.reading();
        state.steps.push(ClockStep {
            before: before.now,
            after: after.now,
        });
        let first = grid::newest_stamp(before.horizon) + INTERVAL;
        let last = grid::newest_stamp(after.horizon);
        if first <= last {
            state.not_lived.push(StampRange { first, last });
        }
    }

    pub(crate) fn read(&self) -> Reading {
        self.state().reading()
    }

    pub(crate) fn history(&self) -> History {
        let state = self.state();
        History {
            reading: state.reading(),
            steps: state.steps.clone(),
            not_lived: state.not_lived.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reading(&self) -> Reading {
        let steady = match self.mode {
            ClockMode::Wall { offset } => wall().saturating_add(offset),
            ClockMode::Frozen { at } => at,
        };
        let now = steady.saturating_add(self.skew);
        Reading {
            now,
            horizon: now.max(self.high_water),
            steady,
        }
    }
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the simulator is the other side: its own clock is what is simulated"
)]
fn wall() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(micros)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid::MICROS;

    #[test]
    fn a_step_back_pauses_the_world_and_a_step_forward_skips_stamps() {
        let clock = Clock::new(ClockMode::Frozen { at: 1000 * MICROS });
        clock.step(-100 * MICROS);
        assert_eq!(clock.now(), 900 * MICROS);
        assert_eq!(clock.horizon(), 1000 * MICROS);
        clock.advance(Duration::from_secs(150));
        assert_eq!(clock.now(), 1050 * MICROS);
        assert_eq!(clock.horizon(), 1050 * MICROS);
        assert!(clock.history().not_lived.is_empty());
        clock.step(55 * MICROS);
        assert_eq!(
            clock.history().not_lived,
            [StampRange {
                first: 1060,
                last: 1100
            }]
        );
        assert_eq!(clock.read().steady, 1150 * MICROS);
    }
}
