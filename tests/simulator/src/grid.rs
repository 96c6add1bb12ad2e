//! The 20-second grid and the two time units of the simulator.
//!
//! Owns: the constants of the real-time statistics, conversions between stamps (whole seconds since
//! the epoch, always on a grid) and server time (microseconds since the epoch), and the `dateTime`
//! text forms. Never reads a clock.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Seconds between two real-time samples.
pub const INTERVAL: i64 = 20;
/// Seconds of real-time samples that a host keeps: 180 samples.
pub const RING: i64 = 3600;
/// Microseconds in a second.
pub const MICROS: i64 = 1_000_000;

/// The roll-up intervals of a vCenter with their retention, in seconds.
pub const ROLLUPS: [(i64, i64); 4] = [
    (300, 86_400),
    (1800, 604_800),
    (7200, 2_592_000),
    (86_400, 31_536_000),
];
/// The only roll-up interval of an ESXi host with its retention, in seconds.
pub const ESXI_ROLLUPS: [(i64, i64); 1] = [(300, 129_600)];

/// The newest stamp of a grid of `step` seconds that is not after `seconds`.
#[must_use]
pub const fn floor(seconds: i64, step: i64) -> i64 {
    seconds.div_euclid(step) * step
}

/// The oldest stamp of a grid of `step` seconds that is not before `seconds`.
#[must_use]
pub const fn ceil(seconds: i64, step: i64) -> i64 {
    -floor(-seconds, step)
}

/// Whole seconds of a server time, rounded down.
#[must_use]
pub const fn seconds(micros: i64) -> i64 {
    micros.div_euclid(MICROS)
}

/// The newest 20-second stamp at server time `micros`.
#[must_use]
pub const fn newest_stamp(micros: i64) -> i64 {
    floor(seconds(micros), INTERVAL)
}

/// The stamp of the first whole interval that starts at or after server time `micros`.
#[must_use]
pub const fn first_whole_interval(micros: i64) -> i64 {
    let second = -((-micros).div_euclid(MICROS));
    ceil(second, INTERVAL) + INTERVAL
}

/// Appends a stamp as `2026-01-31T10:00:20Z`.
pub(crate) fn push_stamp(out: &mut String, stamp: i64) {
    if let Ok(time) = Timestamp::from_second(stamp) {
        // Writing to a String cannot fail.
        write!(out, "{time}").unwrap_or_default();
    }
}

/// Server time as a `dateTime` with microseconds, the way vCenter prints the current time.
pub(crate) fn push_micros(out: &mut String, micros: i64) {
    if let Ok(time) = Timestamp::from_microsecond(micros) {
        write!(out, "{time:.6}").unwrap_or_default();
    }
}

/// Reads a `dateTime`: any fraction, any offset; without an offset it is UTC.
pub(crate) fn parse_micros(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_microsecond());
    }
    let civil: DateTime = text.parse().ok()?;
    let zoned = civil.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_intervals_start_on_the_grid() {
        assert_eq!(first_whole_interval(100 * MICROS), 120);
        assert_eq!(first_whole_interval(100 * MICROS + 1), 140);
        assert_eq!(newest_stamp(119_999_999), 100);
        assert_eq!(ceil(101, 20), 120);
        assert_eq!(ceil(100, 20), 100);
    }

    #[test]
    fn date_times_are_read_in_all_forms() {
        for text in [
            "2026-01-31T10:00:20Z",
            "2026-01-31T12:00:20+02:00",
            "2026-01-31T10:00:20",
            "2026-01-31T10:00:20.000000Z",
        ] {
            assert_eq!(parse_micros(text), Some(1_769_853_620 * MICROS), "{text}");
        }
        assert_eq!(parse_micros("yesterday"), None);
        let mut out = String::new();
        push_stamp(&mut out, 1_769_853_620);
        assert_eq!(out, "2026-01-31T10:00:20Z");
    }
}
