//! The stored columns: which counter feeds each one, how, and as which SQL type.
//!
//! These two tables are the only place that ties a counter to a column. Requests are built from them
//! (`vsphere::counters`), replies are converted by them (`vsphere::perf`), rows are encoded by them
//! (`store::copy`), and a test holds them against the database's own catalogue and comments.
//!
//! Order is that of the table in the database: 8-byte columns first, then 4-byte ones, so that PostgreSQL pads
//! nothing. Units: KB of vSphere is 1,024 bytes, hence KiB here.

use crate::model::ids::EntityKind;
use crate::units::Conversion;

/// The SQL type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlType {
    /// `bigint`: anything that can pass 2^31, all of it exact.
    BigInt,
    /// `integer`: exact.
    Integer,
    /// `real`: every quotient, percent and weighted mean, rounded to 24 bits.
    Real,
}

impl SqlType {
    /// The name PostgreSQL's catalogue gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BigInt => "bigint",
            Self::Integer => "integer",
            Self::Real => "real",
        }
    }
}

/// Which instances of a counter make the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instances {
    /// The aggregate, instance `""`.
    Aggregate,
    /// The sum over all instances but the aggregate: counters that have none.
    Sum,
    /// The mean over all instances, weighted by the operations per second of each, which the counter named here
    /// publishes. Where no instance had any operation, the plain mean.
    MeanWeightedBy(&'static str),
}

/// A stored column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name in the hypertable; it carries the unit.
    pub name: &'static str,
    /// Its type.
    pub sql_type: SqlType,
    /// `group.name.rollup` of the counter.
    pub counter: &'static str,
    /// Which instances.
    pub instances: Instances,
    /// From the published integer to the stored number.
    pub conversion: Conversion,
}

impl Column {
    /// The columns of a kind, in table order.
    #[must_use]
    pub const fn of(kind: EntityKind) -> &'static [Self] {
        match kind {
            EntityKind::Host => HOST_COLUMNS,
            EntityKind::Vm => VM_COLUMNS,
        }
    }

    /// All counters that this column needs.
    pub fn counters(&self) -> impl Iterator<Item = &'static str> {
        let weight = match self.instances {
            Instances::MeanWeightedBy(weight) => Some(weight),
            Instances::Aggregate | Instances::Sum => None,
        };
        std::iter::once(self.counter).chain(weight)
    }
}

const fn aggregate(
    name: &'static str,
    sql_type: SqlType,
    counter: &'static str,
    conversion: Conversion,
) -> Column {
    Column {
        name,
        sql_type,
        counter,
        instances: Instances::Aggregate,
        conversion,
    }
}

const fn sum(name: &'static str, counter: &'static str) -> Column {
    Column {
        name,
        sql_type: SqlType::Integer,
        counter,
        instances: Instances::Sum,
        conversion: Conversion::AsIs,
    }
}

const fn weighted(name: &'static str, counter: &'static str, weight: &'static str) -> Column {
    Column {
        name,
        sql_type: SqlType::Real,
        counter,
        instances: Instances::MeanWeightedBy(weight),
        conversion: Conversion::AsIs,
    }
}

use Conversion::{AsIs, Hundredths, MebibytesToKibibytes, PerSecond, PercentOfTimePerCpu};
use SqlType::{BigInt, Integer, Real};

/// `virt_host_metrics`.
///
/// Rates of a host come from its aggregates; IOPS and latency have instances only and come from the storage
/// adapters, which are few.
pub const HOST_COLUMNS: &[Column] = &[
    aggregate("memory_active_kib", BigInt, "mem.active.average", AsIs),
    aggregate("memory_balloon_kib", BigInt, "mem.vmmemctl.average", AsIs),
    aggregate(
        "memory_capacity_kib",
        BigInt,
        "mem.totalCapacity.average",
        MebibytesToKibibytes,
    ),
    aggregate("memory_compressed_kib", BigInt, "mem.compressed.average", AsIs),
    aggregate("memory_consumed_kib", BigInt, "mem.consumed.average", AsIs),
    aggregate("memory_granted_kib", BigInt, "mem.granted.average", AsIs),
    aggregate("memory_overhead_kib", BigInt, "mem.overhead.average", AsIs),
    aggregate("memory_shared_kib", BigInt, "mem.shared.average", AsIs),
    aggregate("memory_swap_used_kib", BigInt, "mem.swapused.average", AsIs),
    aggregate("cpu_capacity_mhz", Integer, "cpu.totalCapacity.average", AsIs),
    aggregate("cpu_demand_mhz", Integer, "cpu.demand.average", AsIs),
    aggregate("cpu_usage_mhz", Integer, "cpu.usagemhz.average", AsIs),
    aggregate(
        "disk_max_latency_ms",
        Integer,
        "disk.maxTotalLatency.latest",
        AsIs,
    ),
    sum("disk_read_iops", "storageAdapter.numberReadAveraged.average"),
    aggregate("disk_read_kibps", Integer, "disk.read.average", AsIs),
    sum("disk_write_iops", "storageAdapter.numberWriteAveraged.average"),
    aggregate("disk_write_kibps", Integer, "disk.write.average", AsIs),
    aggregate("memory_swap_in_kibps", Integer, "mem.swapinRate.average", AsIs),
    aggregate("memory_swap_out_kibps", Integer, "mem.swapoutRate.average", AsIs),
    aggregate("network_rx_kibps", Integer, "net.bytesRx.average", AsIs),
    aggregate("network_tx_kibps", Integer, "net.bytesTx.average", AsIs),
    aggregate("power_watts", Integer, "power.power.average", AsIs),
    aggregate("uptime_seconds", Integer, "sys.uptime.latest", AsIs),
    aggregate(
        "cpu_costop_percent",
        Real,
        "cpu.costop.summation",
        PercentOfTimePerCpu,
    ),
    aggregate("cpu_latency_percent", Real, "cpu.latency.average", Hundredths),
    aggregate(
        "cpu_ready_percent",
        Real,
        "cpu.ready.summation",
        PercentOfTimePerCpu,
    ),
    aggregate("cpu_usage_percent", Real, "cpu.usage.average", Hundredths),
    aggregate(
        "cpu_utilization_percent",
        Real,
        "cpu.utilization.average",
        Hundredths,
    ),
    weighted(
        "disk_read_latency_ms",
        "storageAdapter.totalReadLatency.average",
        "storageAdapter.numberReadAveraged.average",
    ),
    weighted(
        "disk_write_latency_ms",
        "storageAdapter.totalWriteLatency.average",
        "storageAdapter.numberWriteAveraged.average",
    ),
    aggregate("memory_latency_percent", Real, "mem.latency.average", Hundredths),
    aggregate("memory_usage_percent", Real, "mem.usage.average", Hundredths),
    aggregate(
        "network_rx_dropped_per_second",
        Real,
        "net.droppedRx.summation",
        PerSecond,
    ),
    aggregate(
        "network_rx_errors_per_second",
        Real,
        "net.errorsRx.summation",
        PerSecond,
    ),
    aggregate(
        "network_rx_packets_per_second",
        Real,
        "net.packetsRx.summation",
        PerSecond,
    ),
    aggregate(
        "network_tx_dropped_per_second",
        Real,
        "net.droppedTx.summation",
        PerSecond,
    ),
    aggregate(
        "network_tx_errors_per_second",
        Real,
        "net.errorsTx.summation",
        PerSecond,
    ),
    aggregate(
        "network_tx_packets_per_second",
        Real,
        "net.packetsTx.summation",
        PerSecond,
    ),
];

/// `virt_vm_metrics`.
///
/// Disk columns of a VM come from `virtualDisk`, which covers every kind of datastore; `disk.read` of a VM sees
/// block storage only.
pub const VM_COLUMNS: &[Column] = &[
    aggregate("memory_active_kib", BigInt, "mem.active.average", AsIs),
    aggregate("memory_balloon_kib", BigInt, "mem.vmmemctl.average", AsIs),
    aggregate("memory_compressed_kib", BigInt, "mem.compressed.average", AsIs),
    aggregate("memory_consumed_kib", BigInt, "mem.consumed.average", AsIs),
    aggregate("memory_granted_kib", BigInt, "mem.granted.average", AsIs),
    aggregate("memory_overhead_kib", BigInt, "mem.overhead.average", AsIs),
    aggregate("memory_shared_kib", BigInt, "mem.shared.average", AsIs),
    aggregate("memory_swapped_kib", BigInt, "mem.swapped.average", AsIs),
    aggregate("cpu_demand_mhz", Integer, "cpu.demand.average", AsIs),
    aggregate("cpu_usage_mhz", Integer, "cpu.usagemhz.average", AsIs),
    aggregate(
        "disk_max_latency_ms",
        Integer,
        "disk.maxTotalLatency.latest",
        AsIs,
    ),
    sum("disk_read_iops", "virtualDisk.numberReadAveraged.average"),
    aggregate("disk_read_kibps", Integer, "virtualDisk.read.average", AsIs),
    sum("disk_write_iops", "virtualDisk.numberWriteAveraged.average"),
    aggregate("disk_write_kibps", Integer, "virtualDisk.write.average", AsIs),
    aggregate("memory_swap_in_kibps", Integer, "mem.swapinRate.average", AsIs),
    aggregate("memory_swap_out_kibps", Integer, "mem.swapoutRate.average", AsIs),
    aggregate("network_rx_kibps", Integer, "net.bytesRx.average", AsIs),
    aggregate("network_tx_kibps", Integer, "net.bytesTx.average", AsIs),
    aggregate("power_watts", Integer, "power.power.average", AsIs),
    aggregate("uptime_seconds", Integer, "sys.uptime.latest", AsIs),
    aggregate(
        "cpu_costop_percent",
        Real,
        "cpu.costop.summation",
        PercentOfTimePerCpu,
    ),
    aggregate("cpu_latency_percent", Real, "cpu.latency.average", Hundredths),
    aggregate(
        "cpu_ready_percent",
        Real,
        "cpu.ready.summation",
        PercentOfTimePerCpu,
    ),
    aggregate("cpu_usage_percent", Real, "cpu.usage.average", Hundredths),
    weighted(
        "disk_read_latency_ms",
        "virtualDisk.totalReadLatency.average",
        "virtualDisk.numberReadAveraged.average",
    ),
    weighted(
        "disk_write_latency_ms",
        "virtualDisk.totalWriteLatency.average",
        "virtualDisk.numberWriteAveraged.average",
    ),
    aggregate("memory_latency_percent", Real, "mem.latency.average", Hundredths),
    aggregate("memory_usage_percent", Real, "mem.usage.average", Hundredths),
    aggregate(
        "network_rx_dropped_per_second",
        Real,
        "net.droppedRx.summation",
        PerSecond,
    ),
    aggregate(
        "network_rx_packets_per_second",
        Real,
        "net.packetsRx.summation",
        PerSecond,
    ),
    aggregate(
        "network_tx_dropped_per_second",
        Real,
        "net.droppedTx.summation",
        PerSecond,
    ),
    aggregate(
        "network_tx_packets_per_second",
        Real,
        "net.packetsTx.summation",
        PerSecond,
    ),
];
