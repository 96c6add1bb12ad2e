//! The expected columns: from raw published integers to the number that has to be stored.
//!
//! Owns: the oracle's own table of columns, written from the counter reference and not from the collector's code,
//! and the arithmetic behind it. Never does: I/O, or asking the collector how it converts.

use vsphere_simulator::{Entity, EntityKind, PublishedSample, Series};

/// How a column follows from published integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Formula {
    /// The aggregate as it is.
    Plain(&'static str),
    /// The aggregate, published in hundredths of a percent.
    Percent(&'static str),
    /// The aggregate, published in MB.
    KibFromMb(&'static str),
    /// The aggregate's events of the interval, per second.
    EachSecond(&'static str),
    /// The aggregate's milliseconds of the interval, as percent of the time of one CPU.
    CpuTime(&'static str),
    /// All instances together.
    Total(&'static str),
    /// The mean of the first counter's instances, each weighing what the second says.
    WeightedMean(&'static str, &'static str),
}

/// One column and what belongs into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// The column's name.
    pub(crate) name: &'static str,
    formula: Formula,
}

const fn rule(name: &'static str, formula: Formula) -> Rule {
    Rule { name, formula }
}

use Formula::{CpuTime, EachSecond, KibFromMb, Percent, Plain, Total, WeightedMean};

const HOST: &[Rule] = &[
    rule("cpu_usage_percent", Percent("cpu.usage.average")),
    rule("cpu_utilization_percent", Percent("cpu.utilization.average")),
    rule("cpu_latency_percent", Percent("cpu.latency.average")),
    rule("cpu_ready_percent", CpuTime("cpu.ready.summation")),
    rule("cpu_costop_percent", CpuTime("cpu.costop.summation")),
    rule("cpu_usage_mhz", Plain("cpu.usagemhz.average")),
    rule("cpu_demand_mhz", Plain("cpu.demand.average")),
    rule("cpu_capacity_mhz", Plain("cpu.totalCapacity.average")),
    rule("memory_usage_percent", Percent("mem.usage.average")),
    rule("memory_latency_percent", Percent("mem.latency.average")),
    rule("memory_consumed_kib", Plain("mem.consumed.average")),
    rule("memory_active_kib", Plain("mem.active.average")),
    rule("memory_granted_kib", Plain("mem.granted.average")),
    rule("memory_shared_kib", Plain("mem.shared.average")),
    rule("memory_overhead_kib", Plain("mem.overhead.average")),
    rule("memory_balloon_kib", Plain("mem.vmmemctl.average")),
    rule("memory_compressed_kib", Plain("mem.compressed.average")),
    rule("memory_swap_used_kib", Plain("mem.swapused.average")),
    rule("memory_capacity_kib", KibFromMb("mem.totalCapacity.average")),
    rule("memory_swap_in_kibps", Plain("mem.swapinRate.average")),
    rule("memory_swap_out_kibps", Plain("mem.swapoutRate.average")),
    rule("disk_read_kibps", Plain("disk.read.average")),
    rule("disk_write_kibps", Plain("disk.write.average")),
    rule("disk_max_latency_ms", Plain("disk.maxTotalLatency.latest")),
    rule(
        "disk_read_iops",
        Total("storageAdapter.numberReadAveraged.average"),
    ),
    rule(
        "disk_write_iops",
        Total("storageAdapter.numberWriteAveraged.average"),
    ),
    rule(
        "disk_read_latency_ms",
        WeightedMean(
            "storageAdapter.totalReadLatency.average",
            "storageAdapter.numberReadAveraged.average",
        ),
    ),
    rule(
        "disk_write_latency_ms",
        WeightedMean(
            "storageAdapter.totalWriteLatency.average",
            "storageAdapter.numberWriteAveraged.average",
        ),
    ),
    rule("network_rx_kibps", Plain("net.bytesRx.average")),
    rule("network_tx_kibps", Plain("net.bytesTx.average")),
    rule(
        "network_rx_packets_per_second",
        EachSecond("net.packetsRx.summation"),
    ),
    rule(
        "network_tx_packets_per_second",
        EachSecond("net.packetsTx.summation"),
    ),
    rule(
        "network_rx_dropped_per_second",
        EachSecond("net.droppedRx.summation"),
    ),
    rule(
        "network_tx_dropped_per_second",
        EachSecond("net.droppedTx.summation"),
    ),
    rule(
        "network_rx_errors_per_second",
        EachSecond("net.errorsRx.summation"),
    ),
    rule(
        "network_tx_errors_per_second",
        EachSecond("net.errorsTx.summation"),
    ),
    rule("power_watts", Plain("power.power.average")),
    rule("uptime_seconds", Plain("sys.uptime.latest")),
];

const VM: &[Rule] = &[
    rule("cpu_usage_percent", Percent("cpu.usage.average")),
    rule("cpu_latency_percent", Percent("cpu.latency.average")),
    rule("cpu_ready_percent", CpuTime("cpu.ready.summation")),
    rule("cpu_costop_percent", CpuTime("cpu.costop.summation")),
    rule("cpu_usage_mhz", Plain("cpu.usagemhz.average")),
    rule("cpu_demand_mhz", Plain("cpu.demand.average")),
    rule("memory_usage_percent", Percent("mem.usage.average")),
    rule("memory_latency_percent", Percent("mem.latency.average")),
    rule("memory_consumed_kib", Plain("mem.consumed.average")),
    rule("memory_active_kib", Plain("mem.active.average")),
    rule("memory_granted_kib", Plain("mem.granted.average")),
    rule("memory_shared_kib", Plain("mem.shared.average")),
    rule("memory_overhead_kib", Plain("mem.overhead.average")),
    rule("memory_balloon_kib", Plain("mem.vmmemctl.average")),
    rule("memory_compressed_kib", Plain("mem.compressed.average")),
    rule("memory_swapped_kib", Plain("mem.swapped.average")),
    rule("memory_swap_in_kibps", Plain("mem.swapinRate.average")),
    rule("memory_swap_out_kibps", Plain("mem.swapoutRate.average")),
    rule("disk_read_kibps", Plain("virtualDisk.read.average")),
    rule("disk_write_kibps", Plain("virtualDisk.write.average")),
    rule("disk_max_latency_ms", Plain("disk.maxTotalLatency.latest")),
    rule("disk_read_iops", Total("virtualDisk.numberReadAveraged.average")),
    rule(
        "disk_write_iops",
        Total("virtualDisk.numberWriteAveraged.average"),
    ),
    rule(
        "disk_read_latency_ms",
        WeightedMean(
            "virtualDisk.totalReadLatency.average",
            "virtualDisk.numberReadAveraged.average",
        ),
    ),
    rule(
        "disk_write_latency_ms",
        WeightedMean(
            "virtualDisk.totalWriteLatency.average",
            "virtualDisk.numberWriteAveraged.average",
        ),
    ),
    rule("network_rx_kibps", Plain("net.bytesRx.average")),
    rule("network_tx_kibps", Plain("net.bytesTx.average")),
    rule(
        "network_rx_packets_per_second",
        EachSecond("net.packetsRx.summation"),
    ),
    rule(
        "network_tx_packets_per_second",
        EachSecond("net.packetsTx.summation"),
    ),
    rule(
        "network_rx_dropped_per_second",
        EachSecond("net.droppedRx.summation"),
    ),
    rule(
        "network_tx_dropped_per_second",
        EachSecond("net.droppedTx.summation"),
    ),
    rule("power_watts", Plain("power.power.average")),
    rule("uptime_seconds", Plain("sys.uptime.latest")),
];

/// The columns of a kind of entity.
pub(crate) const fn rules(kind: EntityKind) -> &'static [Rule] {
    match kind {
        EntityKind::Host => HOST,
        EntityKind::Vm => VM,
    }
}

/// What belongs into a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expected {
    /// Nothing was published.
    Null,
    /// This integer, exactly.
    Exact(i64),
    /// This number, rounded to single precision.
    Rounded(f64),
}

impl Expected {
    /// Whether a stored number is this.
    pub(crate) fn accepts(self, stored: Option<f64>) -> bool {
        match (self, stored) {
            (Self::Null, None) => true,
            (Self::Null, Some(_)) | (Self::Exact(_) | Self::Rounded(_), None) => false,
            #[expect(
                clippy::float_cmp,
                clippy::cast_precision_loss,
                reason = "integers below 2^53, compared exactly"
            )]
            (Self::Exact(wanted), Some(stored)) => stored == wanted as f64,
            (Self::Rounded(wanted), Some(stored)) => near(single(wanted), single(stored)),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Exact(value) => write!(f, "{value}"),
            Self::Rounded(value) => write!(f, "{}", single(*value)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to what the column holds is the point"
)]
fn single(value: f64) -> f32 {
    value as f32
}

/// Two neighbours of single precision more or less: the order of a sum is not prescribed.
fn near(a: f32, b: f32) -> bool {
    const NEIGHBOURS: u32 = 2;
    // The bits of floats of one sign are in the order of their values. Adding zero makes a positive zero of each.
    let (a, b) = (a + 0.0, b + 0.0);
    a.is_sign_positive() == b.is_sign_positive() && a.to_bits().abs_diff(b.to_bits()) <= NEIGHBOURS
}

/// The interval and CPUs of one sample, and at which of the source's values one looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// End of the interval, seconds.
    pub(crate) stamp: i64,
    /// Length of the interval.
    pub(crate) interval: i64,
    /// vCPUs or threads.
    pub(crate) cpus: u32,
    /// Cells that were empty until after this server time do not count; `None`: all that were ever published.
    pub(crate) seen_until: Option<i64>,
}

impl Moment {
    /// Of a sample, with all that was ever published for it.
    pub(crate) const fn of(sample: &PublishedSample<'_>) -> Self {
        Self {
            stamp: sample.stamp,
            interval: 20,
            cpus: sample.vcpus,
            seen_until: None,
        }
    }
}

/// The series behind a column of one entity.
#[derive(Debug)]
enum Source<'a> {
    Aggregate(Option<Series<'a>>),
    Instances(Vec<Series<'a>>),
    Weighted(Vec<(Series<'a>, Option<Series<'a>>)>),
}

/// The columns of one entity with their series looked up.
#[derive(Debug)]
pub(crate) struct Columns<'a>(Vec<(Rule, Source<'a>)>);

impl<'a> Columns<'a> {
    /// Looks up all series of an entity.
    pub(crate) fn of(entity: Entity<'a>) -> Self {
        let source = |rule: Rule| match rule.formula {
            Plain(counter) | Percent(counter) | KibFromMb(counter) | EachSecond(counter)
            | CpuTime(counter) => Source::Aggregate(entity.series(counter, "")),
            Total(counter) => Source::Instances(instances(entity, counter).collect()),
            WeightedMean(value, weight) => Source::Weighted(
                named_instances(entity, value)
                    .filter_map(|name| Some((entity.series(value, &name)?, entity.series(weight, &name))))
                    .collect(),
            ),
        };
        Self(
            rules(entity.kind())
                .iter()
                .map(|rule| (*rule, source(*rule)))
                .collect(),
        )
    }

    /// What belongs into each column, in the order of [`rules`].
    pub(crate) fn expected(&self, moment: Moment) -> impl Iterator<Item = Expected> {
        self.0
            .iter()
            .map(move |(rule, source)| expected(rule.formula, source, moment))
    }

    /// What belongs into the column with this number.
    pub(crate) fn one(&self, index: usize, moment: Moment) -> Expected {
        self.0.get(index).map_or(Expected::Null, |(rule, source)| {
            expected(rule.formula, source, moment)
        })
    }
}

fn named_instances(entity: Entity<'_>, counter: &str) -> impl Iterator<Item = String> + use<> {
    entity
        .instances(counter)
        .into_iter()
        .filter(|name| !name.is_empty())
}

fn instances<'a>(entity: Entity<'a>, counter: &'static str) -> impl Iterator<Item = Series<'a>> {
    named_instances(entity, counter).filter_map(move |name| entity.series(counter, &name))
}

fn raw(series: &Series<'_>, moment: Moment) -> Option<i64> {
    if moment.interval != 20 {
        return series.rollup(moment.interval, moment.stamp);
    }
    if let Some(seen_until) = moment.seen_until {
        series.available_at(moment.stamp).filter(|at| *at <= seen_until)?;
    }
    series.value(moment.stamp)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "published integers stay far below 2^53"
)]
fn expected(formula: Formula, source: &Source<'_>, moment: Moment) -> Expected {
    let interval = moment.interval as f64;
    let quotient = |numerator: f64, denominator: f64| {
        if denominator > 0.0 {
            Expected::Rounded(numerator / denominator)
        } else {
            Expected::Null
        }
    };
    match source {
        Source::Aggregate(series) => {
            let Some(value) = series.as_ref().and_then(|series| raw(series, moment)) else {
                return Expected::Null;
            };
            match formula {
                Percent(_) => quotient(value as f64, 100.0),
                KibFromMb(_) => Expected::Exact(value * 1024),
                EachSecond(_) => quotient(value as f64, interval),
                CpuTime(_) => quotient(value as f64 * 100.0, interval * 1000.0 * f64::from(moment.cpus)),
                Plain(_) | Total(_) | WeightedMean(..) => Expected::Exact(value),
            }
        }
        Source::Instances(all) => all
            .iter()
            .filter_map(|series| raw(series, moment))
            .reduce(|a, b| a + b)
            .map_or(Expected::Null, Expected::Exact),
        Source::Weighted(all) => {
            let (mut count, mut plain, mut weights, mut weighted) = (0.0, 0.0, 0.0, 0.0);
            for (series, weight) in all {
                let Some(value) = raw(series, moment) else {
                    continue;
                };
                let weight = weight
                    .as_ref()
                    .and_then(|series| raw(series, moment))
                    .unwrap_or(0) as f64;
                count += 1.0;
                plain += value as f64;
                weights += weight;
                weighted += value as f64 * weight;
            }
            if weights > 0.0 {
                quotient(weighted, weights)
            } else {
                quotient(plain, count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_and_quotients_are_single_precision() {
        assert!(Expected::Exact(16_777_217).accepts(Some(16_777_217.0)));
        assert!(!Expected::Exact(16_777_217).accepts(Some(16_777_216.0)));
        assert!(Expected::Rounded(1.0 / 3.0).accepts(Some(f64::from(1.0_f32 / 3.0))));
        assert!(!Expected::Rounded(14.14).accepts(Some(14.1401)));
        assert!(!Expected::Rounded(0.0).accepts(Some(0.001)));
        assert!(Expected::Null.accepts(None));
        assert!(!Expected::Null.accepts(Some(0.0)));
        assert!(!Expected::Exact(0).accepts(None));
    }

    #[test]
    fn every_column_has_one_rule() {
        for kind in [EntityKind::Host, EntityKind::Vm] {
            let mut names: Vec<_> = rules(kind).iter().map(|rule| rule.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rules(kind).len(), "{kind:?}");
        }
        assert_eq!((HOST.len(), VM.len()), (38, 33));
    }
}
