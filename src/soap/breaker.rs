//! The circuit breaker of one platform: a platform that is down is knocked at by one caller at a time, ever less
//! often, and not by every lane at once.
//!
//! Owns: counting failures in a row, and who may try next and when. Never does: waiting, looking at a clock (the
//! callers say what time it is), or deciding which failures mean that a platform is down.
//!
//! Closed: everybody calls. After [`FAILURES`] failures in a row it is open: nobody calls for a while, uniform in
//! zero to a bound that doubles up to [`LONGEST`]. Then one caller probes; its answer, of any kind, closes the
//! circuit, its failure starts the next, longer wait. A probe that is given up lets the next caller probe.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::status::ErrorClass;
use crate::retry::Backoff;

/// One broken connection of several in flight is no outage.
const FAILURES: u32 = 3;

/// Bound of the first wait.
const FIRST: Duration = Duration::from_secs(1);

/// Bound of all waits: a platform that is back is found within this time.
const LONGEST: Duration = Duration::from_secs(30);

/// For those who come while somebody probes.
const WHILE_PROBED: Duration = Duration::from_secs(1);

/// What a call said about the platform.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// It answered, if only with a refusal.
    Answered,
    /// It did not.
    Down(Trouble),
}

/// Why the circuit is open.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) class: ErrorClass,
    pub(super) why: String,
}

/// The circuit is open.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) trouble: Trouble,
    pub(super) wait: Duration,
}

/// Whether calls pass, as the metric says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circuit {
    Closed = 0,
    Probing = 1,
    Open = 2,
}

#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug)]
struct State {
    failures: u32,
    open: Option<Open>,
    backoff: Backoff,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    probing: bool,
    trouble: Trouble,
}

impl Breaker {
    /// A closed circuit; `seed` picks the jitter's sequence.
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(State {
            failures: 0,
            open: None,
            backoff: Backoff::new(FIRST, LONGEST, seed),
        }))
    }

    /// Leave to call now.
    pub(super) fn admit(&self, now: Instant) -> Result<Pass<'_>, Held> {
        let mut state = self.state();
        let Some(open) = &mut state.open else {
            return Ok(Pass {
                breaker: self,
                probe: false,
            });
        };
        let wait = if open.probing {
            WHILE_PROBED
        } else {
            open.until.saturating_duration_since(now)
        };
        if wait > Duration::ZERO {
            return Err(Held {
                trouble: open.trouble.clone(),
                wait,
            });
        }
        open.probing = true;
        Ok(Pass {
            breaker: self,
            probe: true,
        })
    }

    pub(super) fn circuit(&self) -> Circuit {
        match &self.state().open {
            None => Circuit::Closed,
            Some(open) if open.probing => Circuit::Probing,
            Some(_) => Circuit::Open,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a state that is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to make one call.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Pass<'_> {
    /// Says how the call ended.
    pub(super) fn ended(mut self, now: Instant, verdict: Verdict) {
        let probe = std::mem::replace(&mut self.probe, false);
        let mut state = self.breaker.state();
        match verdict {
            Verdict::Answered => {
                state.failures = 0;
                state.open = None;
                state.backoff.reset();
            }
            // Calls that were under way when the circuit opened say nothing new.
            Verdict::Down(_) if state.open.is_some() && !probe => {}
            Verdict::Down(trouble) => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= FAILURES {
                    let until = now + state.backoff.next_wait();
                    state.open = Some(Open {
                        until,
                        probing: false,
                        trouble,
                    });
                }
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(open) = &mut self.breaker.state().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn down() -> Verdict {
        Verdict::Down(Trouble {
            class: ErrorClass::Unreachable,
            why: "refused".to_owned(),
        })
    }

    fn opened(breaker: &Breaker, now: Instant) {
        for _ in 0..FAILURES {
            assert_eq!(breaker.circuit(), Circuit::Closed);
            breaker.admit(now).unwrap().ended(now, down());
        }
        assert_eq!(breaker.circuit(), Circuit::Open);
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_in_between_does_not_count_as_one() {
        let (breaker, now) = (Breaker::new(7), Instant::now());
        for verdict in [down(), down(), Verdict::Answered, down(), down()] {
            breaker.admit(now).unwrap().ended(now, verdict);
        }
        assert_eq!(breaker.circuit(), Circuit::Closed);
        breaker.admit(now).unwrap().ended(now, down());
        let held = breaker.admit(now).unwrap_err();
        assert!(held.wait > Duration::ZERO && held.wait <= FIRST, "{held:?}");
        assert_eq!(held.trouble.why, "refused");
    }

    #[test]
    fn one_caller_probes_and_its_answer_lets_all_through() {
        let (breaker, mut now) = (Breaker::new(7), Instant::now());
        opened(&breaker, now);
        now += FIRST;
        let probe = breaker.admit(now).unwrap();
        assert_eq!(breaker.circuit(), Circuit::Probing);
        assert_eq!(breaker.admit(now).unwrap_err().wait, WHILE_PROBED);
        // Given up, for a stop or a deadline: the next one probes.
        drop(probe);
        let probe = breaker.admit(now).unwrap();
        probe.ended(now, down());
        assert_eq!(breaker.circuit(), Circuit::Open, "one failure is enough now");
        now += LONGEST;
        breaker.admit(now).unwrap().ended(now, Verdict::Answered);
        assert_eq!(breaker.circuit(), Circuit::Closed);
        // It starts over.
        opened(&breaker, now);
        assert!(breaker.admit(now).unwrap_err().wait <= FIRST);
    }

    #[test]
    fn late_failures_of_before_do_not_make_the_wait_longer() {
        let (breaker, now) = (Breaker::new(7), Instant::now());
        let late: Vec<Pass<'_>> = (0..5).map(|_| breaker.admit(now).unwrap()).collect();
        opened(&breaker, now);
        let wait = breaker.admit(now).unwrap_err().wait;
        for pass in late {
            pass.ended(now, down());
        }
        assert_eq!(breaker.admit(now).unwrap_err().wait, wait);
    }

    proptest! {
        /// However long it lasts: probes are far apart, and the platform is found within half a minute of its return.
        #[test]
        fn an_hour_of_outage_costs_few_probes_and_no_long_wait(seed: u64) {
            let (breaker, start) = (Breaker::new(seed), Instant::now());
            let mut now = start;
            opened(&breaker, now);
            let mut probes = 0;
            while now < start + Duration::from_secs(3600) {
                match breaker.admit(now) {
                    Ok(pass) => {
                        pass.ended(now, down());
                        probes += 1;
                    }
                    Err(held) => {
                        prop_assert!(held.wait <= LONGEST);
                        now += held.wait;
                    }
                }
            }
            // One every fifteen seconds on average.
            prop_assert!((160..400).contains(&probes), "{probes}");
        }
    }
}
