//! Quantities that cross module borders, and how vSphere scales what it publishes.
//!
//! Owns: [`Stamp`], [`ByteSize`] and the [`Conversion`]s from a published integer to a stored number.
//! Never does: I/O, formatting for people beyond `Display`, anything that needs to know a column.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The interval of real-time samples: ESXi takes one every 20 seconds.
pub const REALTIME_SECONDS: u32 = 20;

/// The interval of the finest roll-ups: vCenter keeps them for a day.
pub const ROLLUP_SECONDS: u32 = 300;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// An instant as a server stated it: microseconds since the Unix epoch, UTC.
///
/// A sample's stamp is the END of its interval. Stamps of real servers lie on whole seconds; microseconds are
/// what PostgreSQL keeps, so nothing is lost on the way to the row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(i64);

impl Stamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds since the Unix epoch.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(MICROS_PER_SECOND))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, for metrics.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a Prometheus gauge is a double; 53 bits hold this to 2255"
    )]
    pub fn as_seconds_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This instant moved forward.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(duration_micros(by)))
    }

    /// This instant moved back.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(duration_micros(by)))
    }

    /// Microseconds from `earlier` to this instant; negative when `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time from `earlier` to this instant, zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.micros_since(earlier)).unwrap_or(0))
    }
}

fn duration_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with `Z`, a fraction only where there is one: what vSphere accepts and people read.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            // Outside the years -9999..9999: no server means it, but a log line must still be possible.
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// As it is displayed.
impl serde::Serialize for Stamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an XML Schema dateTime with a zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time with a zone: {0:?}")]
pub struct StampError(String);

/// Accepts what servers send: fractions of any length, `Z` or an offset.
impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        text.parse::<jiff::Timestamp>()
            .map(|timestamp| Self(timestamp.as_microsecond()))
            .map_err(|_source| StampError(text.chars().take(64).collect()))
    }
}

/// What turns a published integer into the stored number. The source of each rule is the counter's unit and
/// statistics type in `PerfCounterInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// The published integer is the value: MHz, KB (1,024 bytes), KB/s, operations per second, watts, seconds,
    /// milliseconds.
    AsIs,
    /// Unit `percent` counts hundredths of a percent: 1414 is 14.14 %. May pass 100 % (turbo), so no clamp.
    Hundredths,
    /// Unit `megaBytes` stored as KiB: times 1,024.
    MebibytesToKibibytes,
    /// A `summation` of events over the sample's own interval, as a rate per second.
    PerSecond,
    /// A `summation` of milliseconds over the sample's own interval, as a mean percentage per CPU:
    /// 1,000 ms in 20 s on one vCPU is 5 %. The aggregate sums all vCPUs, hence the division by their number.
    PercentOfTimePerCpu,
}

impl Conversion {
    /// The stored number for `raw`, published for an interval of `interval_seconds` on `cpus` vCPUs (VM) or
    /// threads (host). `None` where the number cannot be known: no interval, or the count of CPUs is not known.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "published counters stay far below 2^53"
    )]
    pub fn apply(self, raw: i64, interval_seconds: u32, cpus: u32) -> Option<f64> {
        let raw = raw as f64;
        let interval = f64::from(interval_seconds);
        match self {
            Self::AsIs => Some(raw),
            Self::Hundredths => Some(raw / 100.0),
            Self::MebibytesToKibibytes => Some(raw * 1024.0),
            Self::PerSecond => (interval_seconds > 0).then(|| raw / interval),
            Self::PercentOfTimePerCpu => (interval_seconds > 0 && cpus > 0)
                .then(|| raw / (interval * 1000.0 * f64::from(cpus)) * 100.0),
        }
    }
}

/// A number of bytes, written in configuration as `"512MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// From a number of bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// From a number of mebibytes.
    #[must_use]
    pub const fn mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes.saturating_mul(1024 * 1024))
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (factor, unit) in UNITS {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a size: {0:?}; write a whole number with B, KiB, MiB or GiB, such as \"256MiB\"")]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let factor: u64 = match unit.trim_start() {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(ByteSizeError(text.to_owned())),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| ByteSizeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_what_servers_write_and_writes_what_they_accept() {
        let plain: Stamp = "2026-01-31T10:00:20Z".parse().unwrap();
        assert_eq!(plain.to_string(), "2026-01-31T10:00:20Z");
        assert_eq!("2026-01-31T12:00:20+02:00".parse::<Stamp>().unwrap(), plain);
        assert_eq!(
            "2026-01-31T10:00:20.123456789Z"
                .parse::<Stamp>()
                .unwrap()
                .micros()
                - plain.micros(),
            123_456
        );
        // A leap second is the one before it: the next minute begins on the grid as ever.
        let leap: Stamp = "2016-12-31T23:59:60Z".parse().unwrap();
        assert_eq!(leap.to_string(), "2016-12-31T23:59:59Z");
        assert!("2026-01-31T10:00:20".parse::<Stamp>().is_err());
        assert!("".parse::<Stamp>().is_err());
    }

    #[test]
    fn conversions_give_what_the_vsphere_client_shows() {
        assert_eq!(Conversion::Hundredths.apply(1414, 20, 4), Some(14.14));
        // VMware KB 2002181: 1,000 ms of ready in 20 s on one vCPU is 5 %; on four vCPUs 1.25 % each.
        assert_eq!(Conversion::PercentOfTimePerCpu.apply(1000, 20, 1), Some(5.0));
        assert_eq!(Conversion::PercentOfTimePerCpu.apply(1000, 20, 4), Some(1.25));
        assert_eq!(Conversion::PercentOfTimePerCpu.apply(30_000, 300, 1), Some(10.0));
        assert_eq!(Conversion::PercentOfTimePerCpu.apply(1000, 20, 0), None);
        assert_eq!(Conversion::PerSecond.apply(90, 20, 1), Some(4.5));
        assert_eq!(Conversion::PerSecond.apply(90, 0, 1), None);
        assert_eq!(Conversion::MebibytesToKibibytes.apply(3, 20, 1), Some(3072.0));
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        assert_eq!("256MiB".parse::<ByteSize>().unwrap(), ByteSize::mebibytes(256));
        assert_eq!("1 GiB".parse::<ByteSize>().unwrap().to_string(), "1GiB");
        for wrong in ["", "12", "MiB", "1MB", "-1MiB", "99999999999GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }
}
