//! Roll-ups against the source: what each bucket must hold, computed from what was published for the samples that are
//! stored.
//!
//! Owns: the oracle's own measures, its own cut of buckets and its own arithmetic. It knows the roll-ups by the tables
//! and views that people read and by nothing else. That every owed sample is stored is the other comparison's business
//! ([`super::check`]); here every stored sample must be in its three buckets, with the value that the source published,
//! and nothing else may be in them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fmt::Write as _;

use tokio_postgres::Client;
use vsphere_simulator::{EntityKind, Truth};

use super::columns::{Columns, Expected, Moment, rules};
use super::rows::{self, Row};
use super::{Error, INTERVAL, MICROS, SETTLE, inventory, micros, platform_id, published, rolled_up, time};

/// Findings that are kept as readable lines.
const DETAILS: usize = 10;

/// Stored numbers of single precision may be the neighbour of the exact one; sums of them are off by as much.
const NEAR: f64 = 1e-6;

/// Suffix of tables and views, and width in seconds.
const LEVELS: [(&str, i64); 3] = [("5m", 300), ("1h", 3_600), ("1d", 86_400)];

/// A measure and the columns of samples that it is the greatest of.
type Measure = (&'static str, &'static [&'static str]);

const HOST: &[Measure] = &[
    ("cpu_usage_percent", &["cpu_usage_percent"]),
    ("cpu_usage_mhz", &["cpu_usage_mhz"]),
    ("cpu_ready_percent", &["cpu_ready_percent"]),
    ("memory_usage_percent", &["memory_usage_percent"]),
    ("memory_consumed_kib", &["memory_consumed_kib"]),
    ("memory_active_kib", &["memory_active_kib"]),
    ("disk_read_kibps", &["disk_read_kibps"]),
    ("disk_write_kibps", &["disk_write_kibps"]),
    (
        "disk_latency_ms",
        &["disk_read_latency_ms", "disk_write_latency_ms"],
    ),
    ("network_rx_kibps", &["network_rx_kibps"]),
    ("network_tx_kibps", &["network_tx_kibps"]),
    ("power_watts", &["power_watts"]),
];

const VM: &[Measure] = &[
    ("cpu_usage_percent", &["cpu_usage_percent"]),
    ("cpu_usage_mhz", &["cpu_usage_mhz"]),
    ("cpu_ready_percent", &["cpu_ready_percent"]),
    ("cpu_costop_percent", &["cpu_costop_percent"]),
    ("memory_usage_percent", &["memory_usage_percent"]),
    ("memory_consumed_kib", &["memory_consumed_kib"]),
    ("memory_active_kib", &["memory_active_kib"]),
    ("disk_read_kibps", &["disk_read_kibps"]),
    ("disk_write_kibps", &["disk_write_kibps"]),
    (
        "disk_latency_ms",
        &["disk_read_latency_ms", "disk_write_latency_ms"],
    ),
    ("network_rx_kibps", &["network_rx_kibps"]),
    ("network_tx_kibps", &["network_tx_kibps"]),
];

const fn measures(kind: EntityKind) -> &'static [Measure] {
    match kind {
        EntityKind::Host => HOST,
        EntityKind::Vm => VM,
    }
}

/// What the comparison found. `Display` prints it with the first findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollups {
    /// Buckets that must be there.
    pub expected: u64,
    /// Of these, how many 5-minute buckets samples cover without a hole.
    pub whole: u64,
    /// Seconds of all 5-minute buckets that 300-second samples cover.
    pub coarse_seconds: u64,
    /// Buckets that are not there.
    pub missing: u64,
    /// Buckets that are there without any sample.
    pub spare: u64,
    /// Buckets that say something else than the source did.
    pub wrong: u64,
    /// Buckets left out, because they are noted as yet to be made.
    pub pending: u64,
    /// The first findings, readable.
    pub details: Vec<String>,
}

impl Rollups {
    /// Nothing missing, spare or wrong.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.missing == 0 && self.spare == 0 && self.wrong == 0
    }

    fn note(&mut self, detail: impl FnOnce() -> String) {
        if self.details.len() < DETAILS {
            self.details.push(detail());
        }
    }
}

impl fmt::Display for Rollups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rollups={} whole={} missing={} spare={} wrong={} pending={}",
            self.expected, self.whole, self.missing, self.spare, self.wrong, self.pending
        )?;
        self.details.iter().try_for_each(|detail| write!(f, "\n{detail}"))
    }
}

/// One measure of one bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    value: f64,
    seconds: i64,
    most: Option<f64>,
}

/// One bucket.
#[derive(Clone, Debug, Default)]
struct Bucket {
    covered: i64,
    coarse: i64,
    sums: Vec<Sum>,
}

/// Level, key of the entity, end in microseconds.
type Key = (usize, i64, i64);

/// Compares all roll-ups of hosts and VMs of a platform with what its source published. Buckets that are noted as yet
/// to be made are left out.
///
/// # Errors
/// When the database cannot be read, or has no such platform.
pub async fn check(client: &Client, platform_name: &str, truth: &Truth) -> Result<Rollups, Error> {
    let platform = platform_id(client, platform_name).await?;
    let mut found = Rollups::default();
    for kind in [EntityKind::Host, EntityKind::Vm] {
        let entities = inventory(client, kind, platform).await?;
        // Before the rows are read: what is noted later was not to be seen here.
        let pending = pending(client, kind, platform).await?;
        let mut keys: Vec<i64> = entities.keys().copied().collect();
        keys.sort_unstable();
        let mut wanted: BTreeMap<Key, Bucket> = BTreeMap::new();
        rows::each_entity(client, kind, &keys, |key, rows| {
            let moref = entities.get(&key).map_or("", String::as_str);
            let entity = truth.entity(moref).filter(|entity| entity.kind() == kind);
            let columns = entity.map(Columns::of);
            for row in rows {
                let values = columns
                    .as_ref()
                    .map(|columns| values(kind, columns, truth, moref, row));
                add(&mut wanted, kind, key, row, values.unwrap_or_default());
            }
        })
        .await?;
        let again = self::pending(client, kind, platform).await?;
        let left_out = |(level, _, end): &Key| {
            let noted = (*level, *end);
            pending.contains(&noted) || again.contains(&noted)
        };
        for (level, (suffix, _)) in LEVELS.into_iter().enumerate() {
            for (key, stored) in stored(client, kind, level, suffix, &keys).await? {
                let name = || {
                    let moref = entities.get(&key.1).map_or("?", String::as_str);
                    format!("{moref} {suffix} {}", time(key.2))
                };
                match wanted.get(&key) {
                    _ if left_out(&key) => {}
                    None => {
                        found.spare += 1;
                        found.note(|| format!("{}: there is no sample of it", name()));
                    }
                    Some(bucket) => {
                        if let Some(fault) = fault(kind, bucket, &stored) {
                            found.wrong += 1;
                            found.note(|| format!("{}: {fault}", name()));
                        }
                    }
                }
                if let Some(bucket) = wanted.remove(&key) {
                    found.see(&key, &bucket, left_out(&key));
                }
            }
        }
        for (key, bucket) in &wanted {
            found.see(key, bucket, left_out(key));
            if !left_out(key) {
                found.missing += 1;
                let moref = entities.get(&key.1).map_or("?", String::as_str);
                let suffix = LEVELS.get(key.0).map_or("?", |(suffix, _)| suffix);
                found.note(|| format!("{moref} {suffix} {}: not made", time(key.2)));
            }
        }
    }
    Ok(found)
}

impl Rollups {
    fn see(&mut self, (level, ..): &Key, bucket: &Bucket, left_out: bool) {
        if left_out {
            self.pending += 1;
            return;
        }
        self.expected += 1;
        if *level == 0 {
            self.whole += u64::from(bucket.covered == 300);
            self.coarse_seconds += u64::try_from(bucket.coarse).unwrap_or(0);
        }
    }
}

/// What the source published for a stored row, by measure.
fn values(
    kind: EntityKind,
    columns: &Columns<'_>,
    truth: &Truth,
    moref: &str,
    row: &Row,
) -> Vec<Option<f64>> {
    let interval = row.interval.unwrap_or(INTERVAL);
    let stamp = row.at.div_euclid(MICROS);
    let sample = truth.entity(moref).and_then(|entity| {
        if interval == INTERVAL {
            published(entity, stamp)
        } else {
            rolled_up(entity, stamp)
        }
    });
    let Some(sample) = sample else {
        return Vec::new();
    };
    let moment = Moment {
        interval,
        ..Moment::of(&sample)
    };
    let early = Moment {
        seen_until: Some(sample.published_at.max(stamp * MICROS + micros(SETTLE))),
        ..moment
    };
    let cell = |name: &str| {
        let index = rules(kind).iter().position(|rule| rule.name == name)?;
        let late = columns.one(index, moment);
        // A cell that was filled in after its sample had settled may be stored as it was before.
        let stored = row.cells.get(index).copied().flatten();
        let expected = if late.accepts(stored) {
            late
        } else {
            columns.one(index, early)
        };
        number(expected)
    };
    let greatest = |columns: &&[&str]| columns.iter().filter_map(|name| cell(name)).reduce(f64::max);
    measures(kind)
        .iter()
        .map(|(_, columns)| greatest(columns))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "published integers stay far below 2^53"
)]
const fn number(expected: Expected) -> Option<f64> {
    match expected {
        Expected::Null => None,
        Expected::Exact(value) => Some(value as f64),
        Expected::Rounded(value) => Some(value),
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds of an interval")]
fn add(wanted: &mut BTreeMap<Key, Bucket>, kind: EntityKind, key: i64, row: &Row, values: Vec<Option<f64>>) {
    let seconds = row.interval.unwrap_or(INTERVAL);
    for (level, (_, width)) in LEVELS.into_iter().enumerate() {
        let width = width * MICROS;
        // A stamp on the edge belongs to the bucket that ends there.
        let end = (row.at - 1).div_euclid(width) * width + width;
        let bucket = wanted.entry((level, key, end)).or_default();
        bucket.sums.resize(measures(kind).len(), Sum::default());
        bucket.covered += seconds;
        if seconds == 300 {
            bucket.coarse += seconds;
        }
        for (sum, value) in bucket.sums.iter_mut().zip(&values) {
            if let Some(value) = value {
                sum.value += value * seconds as f64;
                sum.seconds += seconds;
                sum.most = Some(sum.most.map_or(*value, |most| most.max(*value)));
            }
        }
    }
}

/// What a table and its view say of a bucket. The view's averages become sums again.
#[expect(clippy::cast_precision_loss, reason = "seconds of a day")]
async fn stored(
    client: &Client,
    kind: EntityKind,
    level: usize,
    suffix: &str,
    keys: &[i64],
) -> Result<Vec<(Key, Bucket)>, Error> {
    let (name, key) = match kind {
        EntityKind::Host => ("host", "host_id"),
        EntityKind::Vm => ("vm", "vm_id"),
    };
    let mut sql = format!(
        "SELECT shown.{key}::int8, (extract(epoch FROM shown.collected_at) * 1000000)::int8, \
                shown.covered_seconds::int8, shown.coarse_seconds::int8"
    );
    for (measure, _) in measures(kind) {
        write!(
            sql,
            ", shown.{measure}::float8, kept.{measure}_seconds::int8, shown.{measure}_max::float8"
        )
        .unwrap_or_default();
    }
    write!(
        sql,
        " FROM virt_{name}_{suffix} AS shown JOIN virt_{name}_metrics_{suffix} AS kept USING ({key}, collected_at) \
         WHERE shown.{key} = ANY ($1)"
    )
    .unwrap_or_default();
    // The joined column has no table of its own.
    let sql = sql
        .replace(&format!("shown.{key}"), key)
        .replace("shown.collected_at", "collected_at");
    let keys: Vec<i32> = keys.iter().filter_map(|key| i32::try_from(*key).ok()).collect();
    let rows = client.query(&sql, &[&keys]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let sums = (0..measures(kind).len()).map(|index| {
                let column = 4 + index * 3;
                let (average, seconds): (Option<f64>, i64) = (row.get(column), row.get(column + 1));
                Sum {
                    value: average.map_or(0.0, |average| average * seconds as f64),
                    seconds,
                    most: row.get(column + 2),
                }
            });
            let bucket = Bucket {
                covered: row.get(2),
                coarse: row.get(3),
                sums: sums.collect(),
            };
            ((level, row.get(0), row.get(1)), bucket)
        })
        .collect())
}

fn fault(kind: EntityKind, wanted: &Bucket, stored: &Bucket) -> Option<String> {
    if (wanted.covered, wanted.coarse) != (stored.covered, stored.coarse) {
        return Some(format!(
            "covers {} s, {} of them coarse; {} and {} are stored as samples",
            stored.covered, stored.coarse, wanted.covered, wanted.coarse
        ));
    }
    let near = |a: f64, b: f64| (a - b).abs() <= NEAR * a.abs().max(b.abs());
    measures(kind)
        .iter()
        .zip(wanted.sums.iter().zip(&stored.sums))
        .find_map(|((measure, _), (wanted, stored))| {
            let most = match (wanted.most, stored.most) {
                (Some(a), Some(b)) => near(a, b),
                (a, b) => a.is_none() && b.is_none(),
            };
            let same = wanted.seconds == stored.seconds && near(wanted.value, stored.value) && most;
            (!same).then(|| format!("{measure} is {stored:?}, published was {wanted:?}"))
        })
}

/// Level and end of the buckets that are noted.
async fn pending(client: &Client, kind: EntityKind, platform: i64) -> Result<HashSet<(usize, i64)>, Error> {
    const SQL: &str = "\
        SELECT level::text, (extract(epoch FROM bucket) * 1000000)::int8 FROM virt_rollup_pending \
        WHERE platform_id = ($1::int8)::int4 AND kind = $2";
    let word = match kind {
        EntityKind::Host => "host",
        EntityKind::Vm => "vm",
    };
    let mut pending = HashSet::new();
    for row in client.query(SQL, &[&platform, &word]).await? {
        let (noted, end): (&str, i64) = (row.get(0), row.get(1));
        // What is made from a bucket has to wait for it.
        let from = LEVELS
            .iter()
            .position(|(suffix, _)| *suffix == noted)
            .unwrap_or(0);
        for (level, (_, width)) in LEVELS.into_iter().enumerate().skip(from) {
            let width = width * MICROS;
            pending.insert((level, (end - 1).div_euclid(width) * width + width));
        }
    }
    Ok(pending)
}
