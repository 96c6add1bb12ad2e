//! The counters themselves: those that collectors ask for, then fillers that make the table as long
//! and as odd as a real one.
//!
//! Levels, units and aggregate-or-instance follow captures of a vCenter 6.5-era lab. In captures
//! `disk.maxTotalLatency` and `datastore.maxTotalLatency` exist as the aggregate only, the
//! operations and latencies of disks and adapters as instances only.

use super::Offer::{Aggregate as A, Both as B, Instances as I, Nothing as N};
use super::Rollup::{Average, Latest, Maximum, Minimum, None as NoRollup, Summation};
use super::Stats::{Absolute, Delta, Rate};
use super::{Counter, Offer, Rollup, Stats};
use crate::value::Shape::{
    self, Between, Count, CountRare, CpuMs, Fixed, IdleMs, Iops, Latency, Load, Memory, MemoryMb, MemoryRare,
    Mhz, MhzShare, Percent, PercentRare, RateRare, Uptime, WorstLatency,
};

const PERCENT: &str = "percent";
const MHZ: &str = "megaHertz";
const MS: &str = "millisecond";
const US: &str = "microsecond";
const KB: &str = "kiloBytes";
const MB: &str = "megaBytes";
const KBPS: &str = "kiloBytesPerSecond";
const NUMBER: &str = "number";
const SECOND: &str = "second";
const WATT: &str = "watt";
const JOULE: &str = "joule";

#[expect(
    clippy::too_many_arguments,
    reason = "one row of a table, in the table's column order"
)]
const fn c(
    group: &'static str,
    name: &'static str,
    rollup: Rollup,
    stats: Stats,
    unit: &'static str,
    level: u8,
    device_level: u8,
    host: Offer,
    vm: Offer,
    shape: Shape,
) -> Counter {
    Counter {
        group,
        name,
        rollup,
        stats,
        unit,
        level,
        device_level,
        host,
        vm,
        shape,
        tools: false,
    }
}

const fn with_tools(counter: Counter) -> Counter {
    Counter {
        tools: true,
        ..counter
    }
}

/// `group, name, rollup, stats, unit, level, level of instances, host, VM, shape`.
#[rustfmt::skip]
pub(super) const COUNTERS: &[Counter] = &[
    c("cpu", "usage", NoRollup, Rate, PERCENT, 4, 4, N, N, Load),
    c("cpu", "usage", Average, Rate, PERCENT, 1, 3, B, A, Load),
    c("cpu", "usage", Minimum, Rate, PERCENT, 4, 4, N, N, Load),
    c("cpu", "usage", Maximum, Rate, PERCENT, 4, 4, N, N, Load),
    c("cpu", "usagemhz", NoRollup, Rate, MHZ, 4, 4, N, N, Mhz),
    c("cpu", "usagemhz", Average, Rate, MHZ, 1, 3, A, B, Mhz),
    c("cpu", "usagemhz", Minimum, Rate, MHZ, 4, 4, N, N, Mhz),
    c("cpu", "usagemhz", Maximum, Rate, MHZ, 4, 4, N, N, Mhz),
    c("cpu", "reservedCapacity", Average, Absolute, MHZ, 2, 3, A, N, MhzShare(130)),
    c("cpu", "totalCapacity", Average, Absolute, MHZ, 2, 3, A, N, MhzShare(960)),
    c("cpu", "capacity.provisioned", Average, Absolute, MHZ, 4, 4, N, N, MhzShare(1000)),
    c("cpu", "capacity.usage", Average, Rate, MHZ, 4, 4, N, N, Mhz),
    c("cpu", "capacity.demand", Average, Absolute, MHZ, 4, 4, N, N, Mhz),
    c("cpu", "capacity.contention", Average, Rate, PERCENT, 4, 4, N, N, PercentRare(400)),
    c("cpu", "corecount.provisioned", Average, Absolute, NUMBER, 4, 4, N, N, Fixed(8)),
    c("cpu", "corecount.usage", Average, Absolute, NUMBER, 4, 4, N, N, Fixed(4)),
    c("cpu", "utilization", Average, Rate, PERCENT, 2, 3, B, N, Percent(100, 9000)),
    c("cpu", "coreUtilization", Average, Rate, PERCENT, 2, 3, B, N, Percent(150, 9900)),
    c("cpu", "demand", Average, Absolute, MHZ, 2, 3, A, A, Mhz),
    c("cpu", "demandEntitlementRatio", Latest, Absolute, PERCENT, 4, 4, N, A, Percent(10, 4000)),
    c("cpu", "latency", Average, Rate, PERCENT, 2, 3, A, A, Percent(0, 700)),
    c("cpu", "readiness", Average, Rate, PERCENT, 4, 4, A, B, Percent(0, 500)),
    c("cpu", "ready", Summation, Delta, MS, 1, 3, A, B, CpuMs(180)),
    c("cpu", "costop", Summation, Delta, MS, 2, 3, A, B, CpuMs(40)),
    c("cpu", "swapwait", Summation, Delta, MS, 3, 3, A, B, CountRare(240)),
    c("cpu", "maxlimited", Summation, Delta, MS, 2, 3, N, B, CountRare(900)),
    c("cpu", "overlap", Summation, Delta, MS, 3, 3, N, B, CpuMs(5)),
    c("cpu", "run", Summation, Delta, MS, 2, 3, N, B, CpuMs(700)),
    c("cpu", "used", Summation, Delta, MS, 3, 3, I, B, CpuMs(720)),
    c("cpu", "system", Summation, Delta, MS, 3, 3, N, B, CpuMs(10)),
    c("cpu", "wait", Summation, Delta, MS, 3, 3, A, B, IdleMs),
    c("cpu", "idle", Summation, Delta, MS, 2, 3, B, B, IdleMs),
    c("cpu", "entitlement", Latest, Absolute, MHZ, 2, 3, N, A, MhzShare(730)),
    c("cpu", "totalmhz", Average, Rate, MHZ, 1, 3, N, N, MhzShare(1000)),

    c("mem", "usage", NoRollup, Absolute, PERCENT, 4, 4, N, N, Percent(800, 9700)),
    c("mem", "usage", Average, Absolute, PERCENT, 1, 3, A, A, Percent(800, 9700)),
    c("mem", "usage", Minimum, Absolute, PERCENT, 4, 4, N, N, Percent(800, 9700)),
    c("mem", "usage", Maximum, Absolute, PERCENT, 4, 4, N, N, Percent(800, 9700)),
    c("mem", "consumed", NoRollup, Absolute, KB, 4, 4, N, N, Memory(350, 980)),
    c("mem", "consumed", Average, Absolute, KB, 1, 3, A, A, Memory(350, 980)),
    c("mem", "consumed", Minimum, Absolute, KB, 4, 4, N, N, Memory(350, 980)),
    c("mem", "consumed", Maximum, Absolute, KB, 4, 4, N, N, Memory(350, 980)),
    c("mem", "overhead", Average, Absolute, KB, 1, 3, A, A, Memory(3, 12)),
    c("mem", "overheadMax", Average, Absolute, KB, 2, 3, N, A, Memory(12, 14)),
    c("mem", "overheadTouched", Average, Absolute, KB, 4, 4, N, A, Memory(2, 10)),
    c("mem", "vmmemctl", Average, Absolute, KB, 1, 3, A, A, MemoryRare(80)),
    c("mem", "vmmemctltarget", Average, Absolute, KB, 2, 3, N, A, MemoryRare(80)),
    c("mem", "active", Average, Absolute, KB, 2, 3, A, A, Memory(30, 420)),
    c("mem", "activewrite", Average, Absolute, KB, 2, 3, A, A, Memory(10, 200)),
    c("mem", "granted", Average, Absolute, KB, 2, 3, A, A, Memory(400, 990)),
    c("mem", "shared", Average, Absolute, KB, 2, 3, A, A, Memory(0, 120)),
    c("mem", "sharedcommon", Average, Absolute, KB, 2, 3, A, N, Memory(0, 40)),
    c("mem", "zero", Average, Absolute, KB, 2, 3, A, A, Memory(0, 60)),
    c("mem", "compressed", Average, Absolute, KB, 2, 3, A, A, MemoryRare(15)),
    c("mem", "compressionRate", Average, Rate, KBPS, 2, 3, A, A, RateRare(300)),
    c("mem", "decompressionRate", Average, Rate, KBPS, 2, 3, A, A, RateRare(300)),
    c("mem", "zipped", Latest, Absolute, KB, 2, 3, N, A, MemoryRare(12)),
    c("mem", "zipSaved", Latest, Absolute, KB, 2, 3, N, A, MemoryRare(8)),
    c("mem", "swapped", Average, Absolute, KB, 2, 3, N, A, MemoryRare(30)),
    c("mem", "swaptarget", Average, Absolute, KB, 2, 3, N, A, MemoryRare(30)),
    c("mem", "swapused", Average, Absolute, KB, 2, 3, A, N, MemoryRare(20)),
    c("mem", "swapin", Average, Absolute, KB, 2, 3, A, A, MemoryRare(10)),
    c("mem", "swapout", Average, Absolute, KB, 2, 3, A, A, MemoryRare(10)),
    c("mem", "swapinRate", Average, Rate, KBPS, 1, 3, A, A, RateRare(2600)),
    c("mem", "swapoutRate", Average, Rate, KBPS, 1, 3, A, A, RateRare(1900)),
    c("mem", "llSwapUsed", Average, Absolute, KB, 4, 4, A, A, MemoryRare(4)),
    c("mem", "llSwapInRate", Average, Rate, KBPS, 2, 3, A, A, RateRare(100)),
    c("mem", "llSwapOutRate", Average, Rate, KBPS, 2, 3, A, A, RateRare(100)),
    c("mem", "unreserved", Average, Absolute, KB, 2, 3, A, N, Memory(300, 800)),
    c("mem", "sysUsage", Average, Absolute, KB, 2, 3, A, N, Memory(15, 30)),
    c("mem", "heap", Average, Absolute, KB, 2, 3, A, N, Fixed(26_214)),
    c("mem", "heapfree", Average, Absolute, KB, 2, 3, A, N, Fixed(14_001)),
    c("mem", "latency", Average, Absolute, PERCENT, 2, 3, A, A, PercentRare(300)),
    c("mem", "state", Latest, Absolute, NUMBER, 2, 3, A, N, CountRare(3)),
    c("mem", "lowfreethreshold", Average, Absolute, KB, 2, 3, A, N, Memory(9, 10)),
    c("mem", "totalCapacity", Average, Absolute, MB, 2, 3, A, N, MemoryMb),
    c("mem", "reservedCapacity", Average, Absolute, MB, 2, 3, A, N, Between(900, 40_000)),
    c("mem", "entitlement", Average, Absolute, KB, 2, 3, N, A, Memory(700, 990)),
    c("mem", "totalmb", Average, Absolute, MB, 1, 3, N, N, MemoryMb),
    c("mem", "capacity.usage.vm", Average, Absolute, KB, 4, 4, N, N, Memory(300, 900)),
    c("mem", "capacity.contention", Average, Rate, PERCENT, 4, 4, N, N, PercentRare(100)),

    c("disk", "usage", NoRollup, Rate, KBPS, 4, 4, N, N, Shape::Rate(90_000)),
    c("disk", "usage", Average, Rate, KBPS, 1, 3, A, A, Shape::Rate(90_000)),
    c("disk", "usage", Maximum, Rate, KBPS, 4, 4, N, N, Shape::Rate(90_000)),
    c("disk", "read", Average, Rate, KBPS, 2, 3, B, B, Shape::Rate(60_000)),
    c("disk", "write", Average, Rate, KBPS, 2, 3, B, B, Shape::Rate(40_000)),
    c("disk", "numberRead", Summation, Delta, NUMBER, 3, 3, I, I, Count(40_000)),
    c("disk", "numberWrite", Summation, Delta, NUMBER, 3, 3, I, I, Count(30_000)),
    c("disk", "numberReadAveraged", Average, Rate, NUMBER, 1, 3, I, I, Iops(3000)),
    c("disk", "numberWriteAveraged", Average, Rate, NUMBER, 1, 3, I, I, Iops(2200)),
    c("disk", "maxTotalLatency", Latest, Absolute, MS, 1, 3, A, A, WorstLatency(60)),
    c("disk", "deviceLatency", Average, Absolute, MS, 1, 3, I, N, Latency(20)),
    c("disk", "deviceReadLatency", Average, Absolute, MS, 2, 3, I, N, Latency(20)),
    c("disk", "deviceWriteLatency", Average, Absolute, MS, 2, 3, I, N, Latency(24)),
    c("disk", "kernelLatency", Average, Absolute, MS, 2, 3, I, N, CountRare(4)),
    c("disk", "kernelReadLatency", Average, Absolute, MS, 2, 3, I, N, CountRare(4)),
    c("disk", "kernelWriteLatency", Average, Absolute, MS, 2, 3, I, N, CountRare(4)),
    c("disk", "queueLatency", Average, Absolute, MS, 2, 3, I, N, CountRare(6)),
    c("disk", "totalReadLatency", Average, Absolute, MS, 2, 3, I, N, Latency(25)),
    c("disk", "totalWriteLatency", Average, Absolute, MS, 2, 3, I, N, Latency(28)),
    c("disk", "totalLatency", Average, Absolute, MS, 3, 3, I, N, Latency(26)),
    c("disk", "commands", Summation, Delta, NUMBER, 2, 3, I, I, Count(70_000)),
    c("disk", "commandsAveraged", Average, Rate, NUMBER, 2, 3, I, I, Iops(5000)),
    c("disk", "commandsAborted", Summation, Delta, NUMBER, 2, 3, I, I, CountRare(2)),
    c("disk", "busResets", Summation, Delta, NUMBER, 2, 3, I, I, CountRare(1)),
    c("disk", "maxQueueDepth", Average, Absolute, NUMBER, 1, 3, I, N, Fixed(64)),
    c("disk", "used", Latest, Absolute, KB, 1, 1, N, N, Memory(100, 200)),
    c("disk", "provisioned", Latest, Absolute, KB, 1, 1, N, N, Memory(100, 200)),
    c("disk", "capacity", Latest, Absolute, KB, 1, 1, N, N, Memory(100, 200)),
    c("disk", "throughput.usage", Average, Rate, KBPS, 4, 4, N, N, Shape::Rate(1000)),

    c("virtualDisk", "read", Average, Rate, KBPS, 2, 2, N, B, Shape::Rate(50_000)),
    c("virtualDisk", "write", Average, Rate, KBPS, 2, 2, N, B, Shape::Rate(35_000)),
    c("virtualDisk", "numberReadAveraged", Average, Rate, NUMBER, 1, 3, N, I, Iops(2400)),
    c("virtualDisk", "numberWriteAveraged", Average, Rate, NUMBER, 1, 3, N, I, Iops(1600)),
    c("virtualDisk", "totalReadLatency", Average, Absolute, MS, 1, 3, N, I, Latency(40)),
    c("virtualDisk", "totalWriteLatency", Average, Absolute, MS, 1, 3, N, I, Latency(48)),
    c("virtualDisk", "readLatencyUS", Latest, Absolute, US, 4, 4, N, I, Latency(40_000)),
    c("virtualDisk", "writeLatencyUS", Latest, Absolute, US, 4, 4, N, I, Latency(48_000)),
    c("virtualDisk", "readOIO", Latest, Absolute, NUMBER, 2, 2, N, I, CountRare(32)),
    c("virtualDisk", "writeOIO", Latest, Absolute, NUMBER, 2, 2, N, I, CountRare(32)),
    c("virtualDisk", "throughput.usage", Average, Rate, KBPS, 4, 4, N, I, Shape::Rate(80_000)),
    c("virtualDisk", "readLoadMetric", Latest, Absolute, NUMBER, 2, 2, N, I, CountRare(500)),
    c("virtualDisk", "writeLoadMetric", Latest, Absolute, NUMBER, 2, 2, N, I, CountRare(500)),
    c("virtualDisk", "smallSeeks", Latest, Absolute, NUMBER, 4, 4, N, I, Count(900)),
    c("virtualDisk", "mediumSeeks", Latest, Absolute, NUMBER, 4, 4, N, I, Count(700)),
    c("virtualDisk", "largeSeeks", Latest, Absolute, NUMBER, 4, 4, N, I, Count(500)),
    c("virtualDisk", "readIOSize", Latest, Absolute, NUMBER, 4, 4, N, I, Between(4096, 262_144)),
    c("virtualDisk", "writeIOSize", Latest, Absolute, NUMBER, 4, 4, N, I, Between(4096, 262_144)),

    c("datastore", "numberReadAveraged", Average, Rate, NUMBER, 1, 3, I, I, Iops(4000)),
    c("datastore", "numberWriteAveraged", Average, Rate, NUMBER, 1, 3, I, I, Iops(3000)),
    c("datastore", "read", Average, Rate, KBPS, 2, 2, I, I, Shape::Rate(120_000)),
    c("datastore", "write", Average, Rate, KBPS, 2, 2, I, I, Shape::Rate(90_000)),
    c("datastore", "totalReadLatency", Average, Absolute, MS, 1, 3, I, I, Latency(30)),
    c("datastore", "totalWriteLatency", Average, Absolute, MS, 1, 3, I, I, Latency(34)),
    c("datastore", "maxTotalLatency", Latest, Absolute, MS, 3, 3, A, A, WorstLatency(70)),
    c("datastore", "sizeNormalizedDatastoreLatency", Average, Absolute, US, 1, 3, I, N, CountRare(4000)),
    c("datastore", "datastoreVMObservedLatency", Latest, Absolute, US, 1, 3, I, N, Latency(30_000)),
    c("datastore", "datastoreIops", Average, Absolute, NUMBER, 1, 3, I, N, Iops(8000)),

    c("storageAdapter", "numberReadAveraged", Average, Rate, NUMBER, 2, 2, I, N, Iops(9000)),
    c("storageAdapter", "numberWriteAveraged", Average, Rate, NUMBER, 2, 2, I, N, Iops(7000)),
    c("storageAdapter", "commandsAveraged", Average, Rate, NUMBER, 2, 2, I, N, Iops(16_000)),
    c("storageAdapter", "read", Average, Rate, KBPS, 2, 2, I, N, Shape::Rate(300_000)),
    c("storageAdapter", "write", Average, Rate, KBPS, 2, 2, I, N, Shape::Rate(200_000)),
    c("storageAdapter", "totalReadLatency", Average, Absolute, MS, 2, 2, I, N, Latency(24)),
    c("storageAdapter", "totalWriteLatency", Average, Absolute, MS, 2, 2, I, N, Latency(27)),
    c("storageAdapter", "maxTotalLatency", Latest, Absolute, MS, 3, 3, A, N, WorstLatency(50)),

    c("net", "usage", NoRollup, Rate, KBPS, 4, 4, N, N, Shape::Rate(125_000)),
    c("net", "usage", Average, Rate, KBPS, 1, 3, B, B, Shape::Rate(125_000)),
    c("net", "usage", Maximum, Rate, KBPS, 4, 4, N, N, Shape::Rate(125_000)),
    c("net", "bytesRx", Average, Rate, KBPS, 2, 3, B, B, Shape::Rate(80_000)),
    c("net", "bytesTx", Average, Rate, KBPS, 2, 3, B, B, Shape::Rate(60_000)),
    c("net", "received", Average, Rate, KBPS, 2, 3, B, B, Shape::Rate(80_000)),
    c("net", "transmitted", Average, Rate, KBPS, 2, 3, B, B, Shape::Rate(60_000)),
    c("net", "packetsRx", Summation, Delta, NUMBER, 2, 3, B, B, Count(900_000)),
    c("net", "packetsTx", Summation, Delta, NUMBER, 2, 3, B, B, Count(700_000)),
    c("net", "droppedRx", Summation, Delta, NUMBER, 2, 3, B, B, CountRare(90)),
    c("net", "droppedTx", Summation, Delta, NUMBER, 2, 3, B, B, CountRare(50)),
    c("net", "errorsRx", Summation, Delta, NUMBER, 2, 3, B, N, CountRare(9)),
    c("net", "errorsTx", Summation, Delta, NUMBER, 2, 3, B, N, CountRare(5)),
    c("net", "broadcastRx", Summation, Delta, NUMBER, 2, 3, B, B, Count(900)),
    c("net", "broadcastTx", Summation, Delta, NUMBER, 2, 3, B, B, Count(100)),
    c("net", "multicastRx", Summation, Delta, NUMBER, 2, 3, B, B, Count(700)),
    c("net", "multicastTx", Summation, Delta, NUMBER, 2, 3, B, B, Count(90)),
    c("net", "unknownProtos", Summation, Delta, NUMBER, 2, 3, B, N, CountRare(3)),
    c("net", "pnicBytesRx", Average, Rate, KBPS, 4, 4, N, B, Shape::Rate(70_000)),
    c("net", "pnicBytesTx", Average, Rate, KBPS, 4, 4, N, B, Shape::Rate(50_000)),
    c("net", "throughput.usage", Average, Rate, KBPS, 4, 4, N, N, Shape::Rate(125_000)),
    c("net", "throughput.provisioned", Average, Absolute, KBPS, 4, 4, N, N, Fixed(1_250_000)),

    c("power", "power", Average, Rate, WATT, 2, 3, A, A, Between(90, 620)),
    c("power", "powerCap", Average, Absolute, WATT, 3, 3, A, N, Fixed(750)),
    c("power", "energy", Summation, Delta, JOULE, 3, 3, A, A, Between(1800, 12_400)),
    c("power", "capacity.usage", Average, Absolute, WATT, 4, 4, N, N, Between(90, 620)),

    c("sys", "uptime", Latest, Absolute, SECOND, 1, 3, A, A, Uptime),
    with_tools(c("sys", "osUptime", Latest, Absolute, SECOND, 4, 4, N, A, Uptime)),
    with_tools(c("sys", "heartbeat", Latest, Absolute, NUMBER, 4, 4, N, A, Between(0, 40))),
    with_tools(c("sys", "heartbeat", Summation, Delta, NUMBER, 1, 3, N, N, Between(0, 40))),
];

/// About a hundred counters that nobody collects: present in every real table, most of them offered
/// by no host and no VM.
pub(super) fn fillers() -> Vec<Counter> {
    let mut all = Vec::new();
    for name in [
        "numPoweron",
        "numPoweroff",
        "numSuspend",
        "numReset",
        "numRebootGuest",
        "numStandbyGuest",
        "numShutdownGuest",
        "numCreate",
        "numDestroy",
        "numRegister",
        "numUnregister",
        "numReconfigure",
        "numClone",
        "numDeploy",
        "numChangeHost",
        "numChangeDS",
        "numChangeHostDS",
        "numVMotion",
        "numSVMotion",
        "numXVMotion",
    ] {
        all.push(c("vmop", name, Latest, Absolute, NUMBER, 1, 3, N, N, Count(10)));
    }
    for name in [
        "actav1",
        "actav5",
        "actav15",
        "actpk1",
        "actpk5",
        "actpk15",
        "runav1",
        "runav5",
        "runav15",
        "runpk1",
        "runpk5",
        "runpk15",
        "maxLimited1",
        "maxLimited5",
        "maxLimited15",
    ] {
        all.push(c(
            "rescpu",
            name,
            Latest,
            Absolute,
            PERCENT,
            3,
            3,
            A,
            A,
            Percent(0, 9000),
        ));
    }
    for name in ["sampleCount", "samplePeriod"] {
        all.push(c("rescpu", name, Latest, Absolute, NUMBER, 4, 4, A, A, Fixed(60)));
    }
    for name in [
        "resourceCpuUsage",
        "resourceCpuAct1",
        "resourceCpuAct5",
        "resourceCpuRun1",
        "resourceCpuRun5",
        "resourceCpuMaxLimited1",
        "resourceCpuMaxLimited5",
        "resourceCpuAllocMin",
        "resourceCpuAllocMax",
        "resourceCpuAllocShares",
        "resourceMemZero",
        "resourceMemShared",
        "resourceMemSwapped",
        "resourceMemOverhead",
        "resourceMemCow",
        "resourceMemMapped",
        "resourceMemTouched",
        "resourceMemConsumed",
        "resourceFdUsage",
    ] {
        all.push(c("sys", name, Latest, Absolute, NUMBER, 3, 3, N, N, Count(100)));
    }
    for (name, unit) in [
        ("effectivecpu", MHZ),
        ("effectivemem", MB),
        ("failover", NUMBER),
        ("cpufairness", NUMBER),
        ("memfairness", NUMBER),
        ("clusterDrsScore", PERCENT),
        ("vmDrsScore", PERCENT),
    ] {
        all.push(c(
            "clusterServices",
            name,
            Average,
            Rate,
            unit,
            1,
            3,
            N,
            N,
            Count(100),
        ));
    }
    for name in [
        "commandsAveraged",
        "numberReadAveraged",
        "numberWriteAveraged",
        "busResets",
        "commandsAborted",
        "maxTotalLatency",
        "totalReadLatency",
        "totalWriteLatency",
    ] {
        all.push(c(
            "storagePath",
            name,
            Average,
            Absolute,
            NUMBER,
            2,
            2,
            N,
            N,
            Count(100),
        ));
    }
    for name in [
        "throughput.cont",
        "throughput.usage",
        "throughput.read",
        "throughput.write",
    ] {
        all.push(c(
            "storagePath",
            name,
            Average,
            Rate,
            KBPS,
            4,
            4,
            N,
            N,
            Shape::Rate(1000),
        ));
    }
    for name in ["hbrNumVms", "hbrNetRx", "hbrNetTx", "hbrNetLatency"] {
        all.push(c("hbr", name, Average, Rate, NUMBER, 4, 4, N, N, Count(100)));
    }
    for name in ["memUsed", "swapUsed", "swapIn", "swapOut", "cpuUsage"] {
        all.push(c(
            "managementAgent",
            name,
            Average,
            Absolute,
            KB,
            3,
            3,
            N,
            N,
            Count(1000),
        ));
    }
    for (group, name) in [
        ("gpu", "utilization"),
        ("gpu", "mem.used"),
        ("gpu", "mem.reserved"),
        ("gpu", "mem.usage"),
        ("gpu", "temperature"),
        ("pmem", "available.reservation"),
        ("pmem", "drsmanaged.reservation"),
        ("vflashModule", "numActiveVMDKs"),
        ("vsanDomObj", "readIops"),
        ("vsanDomObj", "writeIops"),
        ("vsanDomObj", "readAvgLatency"),
        ("vsanDomObj", "writeAvgLatency"),
        ("vcResources", "virtualmemusage"),
        ("vcResources", "physicalmemusage"),
        ("vcResources", "systemcpuusage"),
        ("vcResources", "processcpuusage"),
        ("vcDebugInfo", "activationlatencystats"),
        ("vcDebugInfo", "hostsynclatencystats"),
    ] {
        all.push(c(group, name, Average, Absolute, NUMBER, 2, 4, N, N, Count(100)));
    }
    all
}
