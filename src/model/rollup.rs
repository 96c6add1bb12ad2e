//! Roll-ups: what is kept of samples by 5 minutes, hour and day, and how buckets are cut.
//!
//! The tables of measures are the only place that says which columns are rolled up and how each follows from a row of
//! samples. The statements of `store::rollup` are built from them, and a test holds them against the catalogue: the
//! tables, the views that show averages, and the functions that join samples and roll-ups under one name.
//!
//! A bucket is named by its end and holds the samples whose stamp lies in `(end - width, end]`: a stamp is the end of
//! an interval, so the bucket of 10:05 covers what happened from 10:00 to 10:05. Days are those of UTC.

use crate::model::columns::SqlType;
use crate::model::ids::EntityKind;
use crate::units::Stamp;

/// What has samples that are rolled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Hosts.
    Host,
    /// VMs.
    Vm,
    /// Datastores.
    Datastore,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Host, Self::Vm, Self::Datastore];

    /// The word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vm => "vm",
            Self::Datastore => "datastore",
        }
    }

    /// From the word in the database.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What is measured, in the order of the tables.
    #[must_use]
    pub const fn measures(self) -> &'static [Measure] {
        match self {
            Self::Host => HOST_MEASURES,
            Self::Vm => VM_MEASURES,
            Self::Datastore => DATASTORE_MEASURES,
        }
    }

    /// True where a sample counts by the seconds that it covers; a reading of a datastore covers none and counts as
    /// one.
    #[must_use]
    pub const fn is_timed(self) -> bool {
        !matches!(self, Self::Datastore)
    }
}

impl From<EntityKind> for Kind {
    fn from(kind: EntityKind) -> Self {
        match kind {
            EntityKind::Host => Self::Host,
            EntityKind::Vm => Self::Vm,
        }
    }
}

/// How wide buckets are. Each level is made from the one below it, the lowest from samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// From samples.
    FiveMinutes,
    /// From buckets of 5 minutes.
    Hour,
    /// From buckets of an hour.
    Day,
}

impl Level {
    /// Finest first.
    pub const ALL: [Self; 3] = [Self::FiveMinutes, Self::Hour, Self::Day];

    /// The word in the database, and the end of the names of tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    /// From the word in the database.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    /// Width of a bucket.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        match self {
            Self::FiveMinutes => 300,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    /// What it is made from; `None` for samples.
    #[must_use]
    pub const fn finer(self) -> Option<Self> {
        match self {
            Self::FiveMinutes => None,
            Self::Hour => Some(Self::FiveMinutes),
            Self::Day => Some(Self::Hour),
        }
    }

    /// What is made from it.
    #[must_use]
    pub const fn coarser(self) -> Option<Self> {
        match self {
            Self::FiveMinutes => Some(Self::Hour),
            Self::Hour => Some(Self::Day),
            Self::Day => None,
        }
    }

    /// End of the bucket that a stamp belongs to.
    #[must_use]
    pub const fn bucket(self, stamp: Stamp) -> Stamp {
        let width = self.seconds() * 1_000_000;
        let into = stamp.micros().rem_euclid(width);
        Stamp::from_micros(if into == 0 {
            stamp.micros()
        } else {
            stamp.micros().saturating_add(width - into)
        })
    }
}

/// Something that is rolled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Its name: that of the average in the views, and the stem of the columns of the tables.
    pub name: &'static str,
    /// Type of the maximum: that of the value itself.
    pub sql_type: SqlType,
    /// The value in a row of samples.
    pub expression: &'static str,
}

const fn column(name: &'static str, sql_type: SqlType) -> Measure {
    Measure {
        name,
        sql_type,
        expression: name,
    }
}

const fn derived(name: &'static str, sql_type: SqlType, expression: &'static str) -> Measure {
    Measure {
        name,
        sql_type,
        expression,
    }
}

use SqlType::{BigInt, Integer, Real};

/// The worse of reading and writing; where only one of them is known, that one.
const DISK_LATENCY: Measure = derived(
    "disk_latency_ms",
    Real,
    "greatest(disk_read_latency_ms, disk_write_latency_ms)",
);

/// `virt_host_metrics_5m` and what is made from it.
pub const HOST_MEASURES: &[Measure] = &[
    column("cpu_usage_percent", Real),
    column("cpu_usage_mhz", Integer),
    column("cpu_ready_percent", Real),
    column("memory_usage_percent", Real),
    column("memory_consumed_kib", BigInt),
    column("memory_active_kib", BigInt),
    column("disk_read_kibps", Integer),
    column("disk_write_kibps", Integer),
    DISK_LATENCY,
    column("network_rx_kibps", Integer),
    column("network_tx_kibps", Integer),
    column("power_watts", Integer),
];

/// `virt_vm_metrics_5m` and what is made from it.
pub const VM_MEASURES: &[Measure] = &[
    column("cpu_usage_percent", Real),
    column("cpu_usage_mhz", Integer),
    column("cpu_ready_percent", Real),
    column("cpu_costop_percent", Real),
    column("memory_usage_percent", Real),
    column("memory_consumed_kib", BigInt),
    column("memory_active_kib", BigInt),
    column("disk_read_kibps", Integer),
    column("disk_write_kibps", Integer),
    DISK_LATENCY,
    column("network_rx_kibps", Integer),
    column("network_tx_kibps", Integer),
];

/// `virt_datastore_metrics_5m` and what is made from it.
pub const DATASTORE_MEASURES: &[Measure] = &[
    column("capacity_bytes", BigInt),
    derived("used_bytes", BigInt, "capacity_bytes - free_bytes"),
    column("uncommitted_bytes", BigInt),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_its_last_sample_ends() {
        let at = |level: Level, seconds: i64| level.bucket(Stamp::from_seconds(seconds)).micros() / 1_000_000;
        let midnight = 1_769_817_600;
        for (level, width) in [
            (Level::FiveMinutes, 300),
            (Level::Hour, 3_600),
            (Level::Day, 86_400),
        ] {
            assert_eq!(level.seconds(), width);
            assert_eq!(at(level, midnight), midnight, "the end belongs to it");
            assert_eq!(at(level, midnight + 20), midnight + width, "the start does not");
            assert_eq!(at(level, midnight + width), midnight + width);
            assert_eq!(at(level, -20), 0, "also before 1970");
        }
        let just_after = Level::FiveMinutes.bucket(Stamp::from_micros(1));
        assert_eq!(just_after, Stamp::from_seconds(300));
    }

    #[test]
    fn levels_are_made_from_one_another() {
        for level in Level::ALL {
            assert_eq!(Level::from_word(level.as_str()), Some(level));
            if let Some(coarser) = level.coarser() {
                assert_eq!(coarser.finer(), Some(level));
                assert_eq!(coarser.seconds() % level.seconds(), 0);
            }
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.as_str()), Some(kind));
            assert!(kind.measures().len() <= 12, "{kind:?}");
        }
    }
}
