//! What must not grow: a look now and then, and the slope of what was seen.
//!
//! Owns: the looks and the arithmetic of slopes. Never does: judging.

use std::fmt;
use std::time::Duration;

use crate::usage;

/// Growth per hour, by the median of the slopes of all pairs (Theil and Sen): a peak does not move it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slope {
    /// MiB of resident memory of the collector that lives throughout.
    pub memory: f64,
    /// Its open descriptors that are no connections to the outside, in the quiet looks; `None` where they were never
    /// seen: the collector shows them to root alone.
    pub descriptors: Option<f64>,
    /// Its connections to database and platforms: most in a quiet look.
    pub connections: u64,
    /// Sessions of all collectors in the database: most in a quiet look.
    pub database_sessions: u64,
    /// Their sessions in all vCenters: most in a quiet look.
    pub vcenter_sessions: u64,
    /// Quiet looks, the first ones included.
    pub quiet: usize,
    /// Most resident memory that any collector had, MiB.
    pub memory_max: f64,
    /// Most open descriptors that any collector had.
    pub descriptors_max: u64,
    /// Age of the newest sample of the platform that was furthest behind, s: half of the looks saw less.
    pub lag_median: u64,
    /// The highest while the database was there, the first looks behind the outage included.
    pub lag_max: u64,
    /// Looks behind it.
    pub looks: usize,
}

impl fmt::Display for Slope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "per hour: memory {:+.2} MiB, descriptors that are no connections {}; in quiet at most {} connections of the \
             first collector, {} sessions in the database and {} in the vCenters; most: memory {:.1} MiB, descriptors {}; \
             lag median {} s, most {} s; {} looks, {} of them quiet",
            self.memory,
            self.descriptors.map_or_else(
                || "not seen (root sees them)".to_owned(),
                |slope| format!("{slope:+.2}")
            ),
            self.connections,
            self.database_sessions,
            self.vcenter_sessions,
            self.memory_max,
            self.descriptors_max,
            self.lag_median,
            self.lag_max,
            self.looks,
            self.quiet
        )
    }
}

/// A process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) memory_kib: u64,
    /// `None` where only root may look.
    pub(super) descriptors: Option<u64>,
}

impl Usage {
    /// `None` where it does not run.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self {
            memory_kib: usage::resident_kib(pid).ok()?,
            descriptors: usage::descriptors(pid)
                .ok()
                .and_then(|open| u64::try_from(open).ok()),
        })
    }
}

/// What the database knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) sessions: i64,
    pub(super) lag_seconds: i64,
    pub(super) open_gaps: i64,
    pub(super) breaks: i64,
}

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Duration,
    /// For a while nothing had happened.
    pub(super) is_quiet: bool,
    /// Of the collector that lives throughout, then of the other.
    pub(super) usage: [Option<Usage>; 2],
    /// Of the first, to database and platforms.
    pub(super) connections: u64,
    /// `None` while the database is away.
    pub(super) stored: Option<Stored>,
    pub(super) vcenter_sessions: u64,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = |value: fn(&Usage) -> String| {
            let [first, second] = &self.usage;
            let word = |usage: &Option<Usage>| usage.as_ref().map_or_else(|| "-".to_owned(), value);
            format!("{} and {}", word(first), word(second))
        };
        write!(
            f,
            "{:>4} min: memory {} MiB, descriptors {}, vCenter sessions {}",
            self.at.as_secs() / 60,
            both(|usage| format!("{:.1}", mib(usage.memory_kib))),
            both(|usage| usage
                .descriptors
                .map_or_else(|| "?".to_owned(), |n| n.to_string())),
            self.vcenter_sessions
        )?;
        match self.stored {
            Some(Stored {
                sessions,
                lag_seconds,
                open_gaps,
                breaks,
            }) => write!(
                f,
                ", database sessions {sessions}, lag {lag_seconds} s, open gaps {open_gaps}, breaks {breaks}"
            ),
            None => write!(f, ", no database"),
        }
    }
}

/// The slopes of what was seen after a warm-up.
pub(super) fn slope(looks: &[Look], warm_up: Duration) -> Slope {
    let warm: Vec<&Look> = looks.iter().filter(|look| look.at >= warm_up).collect();
    let first = |look: &Look| {
        let [first, _] = look.usage;
        first
    };
    let quiet = |look: &Look| look.is_quiet.then(|| first(look)).flatten();
    let most = |value: &dyn Fn(&Look) -> u64| {
        let seen = looks.iter().filter(|look| look.is_quiet).map(value);
        seen.max().unwrap_or_default()
    };
    let steep = |value: &dyn Fn(&Look) -> Option<f64>| {
        let points: Vec<(f64, f64)> = warm
            .iter()
            .filter_map(|look| Some((look.at.as_secs_f64() / 3600.0, value(look)?)))
            .collect();
        theil_sen(&points)
    };
    let all = || looks.iter().flat_map(|look| look.usage).flatten();
    let mut lags: Vec<u64> = looks
        .iter()
        .filter_map(|look| u64::try_from(look.stored?.lag_seconds).ok())
        .collect();
    lags.sort_unstable();
    Slope {
        memory: steep(&|look| Some(mib(first(look)?.memory_kib))),
        // Between faults all go up and down with who holds which platform, and with what a kill has left behind: what
        // would grow by one an hour drowns in it.
        descriptors: all().any(|usage| usage.descriptors.is_some()).then(|| {
            steep(&|look| {
                let open = quiet(look)?.descriptors?;
                Some(number(open) - number(look.connections))
            })
        }),
        connections: most(&|look| look.connections),
        database_sessions: most(&|look| {
            look.stored
                .and_then(|stored| u64::try_from(stored.sessions).ok())
                .unwrap_or_default()
        }),
        vcenter_sessions: most(&|look| look.vcenter_sessions),
        quiet: looks.iter().filter(|look| look.is_quiet).count(),
        memory_max: all().map(|usage| mib(usage.memory_kib)).fold(0.0, f64::max),
        descriptors_max: all()
            .filter_map(|usage| usage.descriptors)
            .max()
            .unwrap_or_default(),
        lag_median: lags.get(lags.len() / 2).copied().unwrap_or_default(),
        lag_max: lags.last().copied().unwrap_or_default(),
        looks: looks.len(),
    }
}

/// The median of the slopes of all pairs; 0 of fewer than two points.
fn theil_sen(points: &[(f64, f64)]) -> f64 {
    let mut slopes: Vec<f64> = points
        .iter()
        .enumerate()
        .flat_map(|(index, (x, y))| {
            let later = points.iter().skip(index + 1);
            later.filter_map(move |(other_x, other_y)| {
                let run = other_x - x;
                (run > 0.0).then(|| (other_y - y) / run)
            })
        })
        .collect();
    let middle = slopes.len() / 2;
    if slopes.is_empty() {
        return 0.0;
    }
    *slopes.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn number(value: u64) -> f64 {
    value as f64
}

fn mib(kib: u64) -> f64 {
    number(kib) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(seconds: u64, memory_kib: u64, descriptors: u64) -> Look {
        let usage = Usage {
            memory_kib,
            descriptors: Some(descriptors),
        };
        Look {
            at: Duration::from_secs(seconds),
            is_quiet: seconds.is_multiple_of(600),
            usage: [Some(usage), None],
            connections: 20,
            stored: None,
            vcenter_sessions: 4,
        }
    }

    #[test]
    fn what_grows_by_ten_mib_an_hour_is_told_so_and_a_peak_is_not_growth() {
        let growing: Vec<Look> = (0..120)
            .map(|minute| look(minute * 60, 20_480 + minute * 10_240 / 60, 30))
            .collect();
        let slope_of = |looks: &[Look]| slope(looks, Duration::from_mins(20));
        assert!((slope_of(&growing).memory - 10.0).abs() < 0.1);
        let peaks: Vec<Look> = (0..120)
            .map(|minute| {
                look(
                    minute * 60,
                    if minute % 7 == 0 { 60_000 } else { 20_480 },
                    30 + minute / 30,
                )
            })
            .collect();
        let seen = slope_of(&peaks);
        assert!(seen.memory.abs() < 0.01, "{seen}");
        assert!((seen.memory_max - 58.6).abs() < 0.1, "{seen}");
        // One more each half an hour, in the ten looks of them that are quiet.
        assert!(
            seen.descriptors.is_some_and(|slope| (slope - 2.0).abs() < 0.5),
            "{seen}"
        );
        assert_eq!((seen.connections, seen.vcenter_sessions, seen.quiet), (20, 4, 12));
    }
}
