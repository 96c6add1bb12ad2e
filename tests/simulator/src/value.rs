//! The value of every cell: a pure function of seed, entity, counter, instance and stamp.
//!
//! Owns: the hash and the shape of each counter's numbers, in vSphere's raw units. Never knows
//! whether a sample was published, or who asks. Integers only, so that two processes agree.
//!
//! The shapes contain what catches a wrong conversion: percentages above 100 (turbo), ready time
//! that only makes sense after division by the vCPU count, memory totals whose KiB do not fit 31
//! bits, aggregates that are NOT the sum of their instances, disks whose latency is high where their
//! IOPS are low, and real zeros.

/// What a counter's numbers look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// CPU load in 1/100 %; above 10000 now and then.
    Load,
    /// 1/100 % between two bounds, following the load.
    Percent(i64, i64),
    /// 1/100 %, mostly zero.
    PercentRare(i64),
    /// MHz in use.
    Mhz,
    /// A fixed share (permille) of the entity's MHz.
    MhzShare(i64),
    /// Milliseconds in the interval, up to so many permille of each thread's time.
    CpuMs(i64),
    /// Milliseconds in the interval that threads were idle.
    IdleMs,
    /// KiB between two permilles of the entity's memory.
    Memory(i64, i64),
    /// KiB, mostly zero, up to a permille of the entity's memory.
    MemoryRare(i64),
    /// The entity's memory in MB.
    MemoryMb,
    /// A rate following the load.
    Rate(i64),
    /// A rate, mostly zero.
    RateRare(i64),
    /// A count in the interval following the load.
    Count(i64),
    /// A count in the interval, mostly zero.
    CountRare(i64),
    /// Operations per second; each instance has its own weight.
    Iops(i64),
    /// A latency; busy instances are fast, idle ones slow.
    Latency(i64),
    /// The worst of several latencies.
    WorstLatency(i64),
    /// Between two bounds, following the load.
    Between(i64, i64),
    /// Seconds since the entity was started.
    Uptime,
    /// Always this.
    Fixed(i64),
}

/// One entity at one stamp: everything a value depends on beside counter and instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// End of the interval.
    pub(crate) stamp: i64,
    /// Load in permille.
    pub(crate) load: i64,
    /// vCPUs of a VM, hardware threads of a host.
    pub(crate) threads: i64,
    /// MHz of one of them.
    pub(crate) mhz: i64,
    /// Memory in KiB.
    pub(crate) memory_kib: i64,
    /// When the entity was started, seconds.
    pub(crate) booted_at: i64,
}

/// The finalizer of splitmix64.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// FNV-1a.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// A number in `0..limit` from a hash.
pub(crate) fn below(n: u64, limit: i64) -> i64 {
    let limit = u64::try_from(limit).unwrap_or(1).max(1);
    i64::try_from(n % limit).unwrap_or(0)
}

fn at(root: u64, stamp: i64) -> u64 {
    mix(root ^ stamp.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The root of an entity's values.
pub(crate) fn entity_root(seed: u64, moref: &str) -> u64 {
    mix(mix(seed) ^ hash(moref))
}

/// The root of a series' values; the aggregate is the instance "".
pub(crate) fn series_root(entity: u64, counter: u64, instance: &str) -> u64 {
    mix(entity ^ mix(counter ^ hash(instance).rotate_left(23)))
}

/// How busy an entity is, in permille: its own level, a daily wave, slow and fast noise.
pub(crate) fn load(entity: u64, stamp: i64) -> i64 {
    const DAY: i64 = 86_400;
    const LATTICE: i64 = 300;
    let level = 60 + below(entity, 600);
    let phase = (stamp + below(entity >> 20, DAY)).rem_euclid(DAY);
    let wave = (phase - DAY / 2).abs() * 240 / (DAY / 2) - 120;
    let cell = stamp.div_euclid(LATTICE);
    let before = below(at(entity ^ 0x51, cell), 201) - 100;
    let after = below(at(entity ^ 0x51, cell + 1), 201) - 100;
    let slow = before + (after - before) * stamp.rem_euclid(LATTICE) / LATTICE;
    let fast = below(at(entity ^ 0xF5, stamp), 61) - 30;
    (level + wave + slow + fast).clamp(0, 1000)
}

/// The value of one cell.
pub(crate) fn cell(shape: Shape, series: u64, aggregate: bool, moment: &Moment) -> i64 {
    let n = at(series, moment.stamp);
    let load = moment.load;
    let threads = if aggregate { moment.threads } else { 1 };
    let interval_ms = crate::grid::INTERVAL * 1000;
    match shape {
        Shape::Load => match n % 61 {
            // Turbo: more than the nominal frequency.
            0 => 10_000 + below(n >> 8, 1800),
            1 => 0,
            _ => (load * 10 + below(n >> 8, 301) - 150).max(0),
        },
        Shape::Percent(low, high) => low + (high - low) * ((load + below(n, 200)) / 2) / 600,
        Shape::PercentRare(limit) => rare(n, limit),
        Shape::Mhz => threads * moment.mhz * load / 1000 + below(n, 37),
        Shape::MhzShare(permille) => threads * moment.mhz * permille / 1000,
        Shape::CpuMs(permille) => {
            if n.is_multiple_of(9) {
                0
            } else {
                let share = below(n >> 8, permille + 1) * (200 + load) / 1200;
                threads * interval_ms * share / 1000 + below(n >> 40, threads * 7 + 1)
            }
        }
        Shape::IdleMs => (threads * interval_ms * (1000 - load) / 1000 - below(n, 40)).max(0),
        Shape::Memory(low, high) => {
            // Memory moves slowly: 30 minutes per step, and a little noise.
            let slow = below(at(series, moment.stamp.div_euclid(1800)), 1001);
            moment.memory_kib * (low * 1000 + (high - low) * slow) / 1_000_000 + below(n, 4096)
        }
        Shape::MemoryRare(permille) => rare(n, moment.memory_kib * permille / 1000),
        Shape::MemoryMb => moment.memory_kib / 1024,
        Shape::Rate(limit) => {
            if n.is_multiple_of(23) {
                0
            } else {
                limit * load / 1000 * (500 + below(n >> 8, 1000)) / 1500 + below(n >> 32, 50)
            }
        }
        Shape::Count(limit) => limit * load / 1000 + below(n, limit / 10 + 2),
        Shape::RateRare(limit) | Shape::CountRare(limit) => rare(n, limit),
        Shape::Iops(limit) => {
            let weight = weight(series);
            if n.is_multiple_of(29) {
                0
            } else {
                limit * weight * (100 + load) / 1100 / 32 + below(n >> 8, weight * 4 + 2)
            }
        }
        Shape::Latency(limit) => {
            // The reverse weight of the sibling counters is not known here; any spread between the
            // instances makes a weighted mean differ from a plain one.
            let weight = weight(series);
            limit * (33 - weight) / 32 * (50 + below(n >> 8, 100)) / 150 + below(n >> 32, 3)
        }
        Shape::WorstLatency(limit) => 1 + below(n >> 8, limit) * (100 + load) / 1100,
        Shape::Between(low, high) => low + (high - low) * load / 1000 + below(n, 5),
        Shape::Uptime => (moment.stamp - moment.booted_at).max(0),
        Shape::Fixed(value) => value,
    }
}

/// 1, 2, 4, ... 32: what share of the work an instance does.
fn weight(series: u64) -> i64 {
    1 << ((series >> 7) % 6)
}

/// Zero in four of five cells.
fn rare(n: u64, limit: i64) -> i64 {
    if n.is_multiple_of(5) {
        below(n >> 8, limit + 1)
    } else {
        0
    }
}
