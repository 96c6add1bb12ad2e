//! The oracle: compares a database with what the simulated source published, and when.
//!
//! Owns: what `missing`, `duplicate`, `wrong` and `unexplained` mean. Its columns, conversions and chain rule are
//! its own; it knows the collector by the tables it fills and by nothing else.
//! Never does: writing, or believing a gap row: a sample that could be had is missing, whatever explains it.
//!
//! - **missing**: readable at the source, without interruption, for the grace period while collector and database
//!   were healthy, but there is no 20-second row for it. A 300-second row over it does not count. Likewise a roll-up
//!   that could be read, that lies whole inside an explained gap, and for which there is no row, where the gap was older
//!   than the ring when all became healthy.
//! - **duplicate**: two rows of an entity with one `collected_at`, or a row that overlaps the one before it by more
//!   than half an interval.
//! - **wrong**: a row for a sample that the source never published; a value that differs; NULL where a value was
//!   published or a value where none was; another `interval_seconds` or `vcpu_count`; a `host_id` that is neither
//!   NULL nor the placement at that time; a row of an entity that no source has. One finding per row.
//! - **unexplained**: two rows of an entity that do not touch and have no gap row of exactly these bounds; a gap
//!   row without such a step; a second one for the same step. Allowed besides: one open initial gap row up to the
//!   first row, and one without end behind the last.
//!
//! A cell that the source filled in later than [`SETTLE`] after its stamp may be stored as it was before.

mod chain;
pub(crate) mod columns;
pub mod rollups;
pub(crate) mod rows;
mod verdict;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::time::Duration;

use tokio_postgres::Client;
use vsphere_simulator::{Entity, EntityKind, PublishedSample, Truth};

use chain::{Break, Gap, Link};
use columns::{Columns, Expected, Moment, rules};
use rows::Row;
pub use verdict::{Kind, Verdict};

/// Age from which a sample may be stored although some of its cells are still empty at the source.
pub const SETTLE: Duration = Duration::from_secs(60);

/// The interval of the samples that are owed.
const INTERVAL: i64 = 20;
/// The interval of the roll-ups that are owed.
const ROLLUP: i64 = 300;
const MICROS: i64 = 1_000_000;
/// Seconds that a source keeps its samples at most.
const RING: i64 = 3600;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database did not answer.
    #[error("the oracle cannot read the database")]
    Database(#[from] tokio_postgres::Error),
    /// There is no such platform.
    #[error("no platform named {0:?} in virt_platform")]
    Platform(String),
    /// Table and oracle disagree on the columns.
    #[error("{table} and the oracle's own table of columns differ: {column}")]
    Columns {
        /// The table.
        table: &'static str,
        /// The column that only one of them has.
        column: String,
    },
    /// The COPY has another form than expected.
    #[error("the oracle cannot decode a binary COPY: {0}")]
    Copy(&'static str),
}

/// Compares what is stored for a platform with what its source published.
///
/// `healthy` lists when collector and database were both healthy, in server time (microseconds since the epoch; the
/// part after the truth's own export does not count). A sample is owed when one of these windows and the time in
/// which it could be read share `grace` without interruption. No window: nothing is owed, the rest is checked.
///
/// # Errors
/// When the database cannot be read, has no such platform, or has columns that the oracle does not know.
pub async fn check(
    client: &Client,
    platform_name: &str,
    truth: &Truth,
    healthy: &[Range<i64>],
    grace: Duration,
) -> Result<Verdict, Error> {
    let platform = platform_id(client, platform_name).await?;
    let hosts = inventory(client, EntityKind::Host, platform).await?;
    let vms = inventory(client, EntityKind::Vm, platform).await?;
    let mut verdict = Verdict::default();
    let mut gaps = gaps(client, platform, &mut verdict).await?;

    for kind in [EntityKind::Host, EntityKind::Vm] {
        rows::check_columns(client, kind).await?;
        let known = match kind {
            EntityKind::Host => &hosts,
            EntityKind::Vm => &vms,
        };
        let mut keys: Vec<i64> = known.keys().copied().collect();
        keys.sort_unstable();
        let mut judge = Judge {
            truth,
            healthy,
            grace: micros(grace),
            hosts: &hosts,
            verdict: &mut verdict,
        };
        let mut with_rows = HashSet::new();
        rows::each_entity(client, kind, &keys, |key, rows| {
            with_rows.insert(key);
            let gaps = gaps.remove(&(kind, key)).unwrap_or_default();
            let moref = known.get(&key).map_or("", String::as_str);
            judge.entity(kind, moref, rows, &gaps);
        })
        .await?;
        for (key, moref) in known.iter().filter(|(key, _)| !with_rows.contains(*key)) {
            let gaps = gaps.remove(&(kind, *key)).unwrap_or_default();
            judge.entity(kind, moref, &[], &gaps);
        }
        let inventoried: HashSet<&str> = known.values().map(String::as_str).collect();
        for entity in truth.entities().filter(|entity| entity.kind() == kind) {
            if !inventoried.contains(entity.moref()) {
                judge.entity(kind, entity.moref(), &[], &[]);
            }
        }
        orphans(client, kind, &mut verdict).await?;
    }
    for ((kind, key), left) in gaps {
        for gap in left {
            verdict.note(Kind::Unexplained, || {
                format!(
                    "a gap row from {} of {} {key}, which is not in the inventory",
                    time(gap.from),
                    kind.type_name()
                )
            });
        }
    }
    verdict.lag_seconds = verdict
        .newest
        .map(|newest| (truth.now - newest).div_euclid(MICROS));
    Ok(verdict)
}

/// The part of a comparison that needs no database.
struct Judge<'a> {
    truth: &'a Truth,
    healthy: &'a [Range<i64>],
    grace: i64,
    hosts: &'a HashMap<i64, String>,
    verdict: &'a mut Verdict,
}

impl Judge<'_> {
    fn entity(&mut self, kind: EntityKind, moref: &str, rows: &[Row], gaps: &[Gap]) {
        self.verdict.stored += count(rows.len());
        if let Some(last) = rows.last() {
            self.verdict.newest = self.verdict.newest.max(Some(last.at));
            match kind {
                EntityKind::Host => self.verdict.hosts += 1,
                EntityKind::Vm => self.verdict.vms += 1,
            }
        }
        self.chain(moref, rows, gaps);
        match self.truth.entity(moref).filter(|entity| entity.kind() == kind) {
            Some(entity) => {
                let columns = Columns::of(entity);
                for row in rows {
                    self.row(entity, &columns, row);
                }
                self.missing(entity, &columns, rows);
                self.missing_rollups(entity, &columns, rows, gaps);
            }
            None => {
                for row in rows {
                    self.verdict.note(Kind::Wrong, || {
                        format!(
                            "{moref} {}: the source never had such a {}",
                            time(row.at),
                            kind.type_name()
                        )
                    });
                }
            }
        }
    }

    fn chain(&mut self, moref: &str, rows: &[Row], gaps: &[Gap]) {
        let links: Vec<Link> = rows
            .iter()
            .map(|row| Link {
                at: row.at,
                interval: row.interval.unwrap_or(INTERVAL).saturating_mul(MICROS),
            })
            .collect();
        let findings = chain::check(&links, gaps);
        for at in findings.duplicates {
            self.verdict.note(Kind::Duplicate, || {
                format!("{moref} {}: repeats or overlaps the row before", time(at))
            });
        }
        for found in findings.breaks {
            self.verdict.note(Kind::Unexplained, || match found {
                Break::Step { from, to } => {
                    format!("{moref}: no gap row from {} to {}", time(from), time(to))
                }
                Break::SecondGap(gap) => {
                    format!("{moref}: {} overlaps another or has wrong bounds", bounds(gap))
                }
                Break::Dangling(gap) => format!("{moref}: {} spans no step", bounds(gap)),
            });
        }
    }

    fn row(&mut self, entity: Entity<'_>, columns: &Columns<'_>, row: &Row) {
        let moref = entity.moref();
        let interval = row.interval.unwrap_or_default();
        let stamp = (row.at % MICROS == 0).then_some(row.at / MICROS);
        let sample = stamp.and_then(|stamp| {
            if interval == ROLLUP {
                rolled_up(entity, stamp)
            } else {
                published(entity, stamp)
            }
        });
        let fault = match sample {
            None => Some("the source never published this sample".to_owned()),
            Some(_) if interval != INTERVAL && interval != ROLLUP => {
                Some(format!("interval_seconds is {interval}"))
            }
            Some(sample) => {
                let moment = Moment {
                    interval,
                    ..Moment::of(&sample)
                };
                self.head_fault(entity.kind(), &sample, row)
                    .or_else(|| cell_fault(entity.kind(), columns, &sample, moment, row))
            }
        };
        if let Some(fault) = fault {
            self.verdict
                .note(Kind::Wrong, || format!("{moref} {}: {fault}", time(row.at)));
        }
    }

    fn head_fault(&self, kind: EntityKind, sample: &PublishedSample<'_>, row: &Row) -> Option<String> {
        if kind == EntityKind::Host {
            return None;
        }
        if row.vcpus != Some(i64::from(sample.vcpus)) {
            return Some(format!(
                "vcpu_count is {}, the VM had {}",
                shown(row.vcpus),
                sample.vcpus
            ));
        }
        let host = row.host?;
        let moref = self.hosts.get(&host).map(String::as_str);
        (moref != Some(sample.host)).then(|| {
            format!(
                "host_id {host} is {}, the VM ran on {}",
                moref.unwrap_or("no host of this platform"),
                sample.host
            )
        })
    }

    fn missing(&mut self, entity: Entity<'_>, columns: &Columns<'_>, rows: &[Row]) {
        let Some(start) = self.healthy.iter().map(|window| window.start).min() else {
            return;
        };
        let stored: HashSet<i64> = rows
            .iter()
            .filter(|row| row.interval == Some(INTERVAL))
            .map(|row| row.at)
            .collect();
        let oldest = start.div_euclid(MICROS) - RING;
        for sample in entity.samples(oldest, i64::MAX) {
            if !self.owed(entity, &sample) {
                continue;
            }
            // The source would have answered with nothing but empty cells, which are no sample.
            let empty = || {
                columns
                    .expected(Moment::of(&sample))
                    .all(|expected| expected == Expected::Null)
            };
            let here = stored.contains(&(sample.stamp * MICROS));
            if !here && empty() {
                continue;
            }
            self.verdict.owed += 1;
            if !here {
                self.verdict.note(Kind::Missing, || {
                    format!(
                        "{} {}: could be read from {} to {}",
                        entity.moref(),
                        time(sample.stamp * MICROS),
                        time(sample.published_at),
                        time(sample.evicted_at)
                    )
                });
            }
        }
    }

    fn missing_rollups(&mut self, entity: Entity<'_>, columns: &Columns<'_>, rows: &[Row], gaps: &[Gap]) {
        /// How close to its neighbours a row may start or end.
        const SLACK: i64 = 10 * MICROS;
        /// The collector does not count on the last minute of the ring.
        const COUNTED_ON: i64 = (RING - 60) * MICROS;
        let Some(retention) = self.truth.retention(ROLLUP) else {
            return;
        };
        let removed_at = entity.record().removed_at.unwrap_or(i64::MAX);
        for gap in gaps.iter().filter(|gap| !gap.open && !gap.initial) {
            let end = match gap.to {
                Some(to) => {
                    let row = rows.iter().find(|row| row.at == to);
                    let interval = row.and_then(|row| row.interval).unwrap_or(INTERVAL);
                    to.saturating_sub(interval.saturating_mul(MICROS))
                }
                // Nobody knows yet what the entity will publish behind it.
                None => self.truth.horizon - RING * MICROS,
            };
            let back = self
                .returned_after(gap.from)
                .filter(|window| gap.from < window.start - COUNTED_ON);
            let start = gap.from - SLACK;
            let first = -(-start).div_euclid(ROLLUP * MICROS) * ROLLUP + ROLLUP;
            let mut stamp = first;
            while stamp * MICROS <= end + SLACK {
                let published_at = stamp * MICROS + self.truth.publish_delay + self.truth.rollup_delay;
                // The collector does not count on the oldest one either.
                let gone_at = ((stamp + retention - ROLLUP) * MICROS)
                    .min(self.truth.horizon)
                    .min(removed_at);
                let owed = back.as_ref().is_some_and(|window| {
                    let shared = gone_at
                        .min(window.end)
                        .saturating_sub(published_at.max(window.start));
                    shared >= self.grace && shared > 0
                });
                let moment = Moment {
                    stamp,
                    interval: ROLLUP,
                    cpus: entity.run_at(stamp).map_or(0, |run| run.vcpus),
                    seen_until: None,
                };
                let is_empty = || {
                    let mut cells = columns.expected(moment);
                    cells.all(|expected| expected == Expected::Null)
                };
                if owed && !is_empty() {
                    self.verdict.owed += 1;
                    self.verdict.note(Kind::Missing, || {
                        format!(
                            "{} {}: the roll-up could be read from {} to {}",
                            entity.moref(),
                            time(stamp * MICROS),
                            time(published_at),
                            time(gone_at)
                        )
                    });
                }
                stamp += ROLLUP;
            }
        }
    }

    /// The healthy time behind the outage with which a gap began. What was missing in the middle of a healthy time was
    /// asked for while the ring still held it.
    fn returned_after(&self, from: i64) -> Option<Range<i64>> {
        /// From the last row to the outage.
        const LEAD: i64 = 300 * MICROS;
        let ends = self.healthy.iter().map(|window| window.end);
        let before = std::iter::once(None).chain(ends.map(Some));
        let mut pairs = before.zip(self.healthy);
        let (end, window) = pairs.find(|(_, window)| window.start > from)?;
        end.is_none_or(|end| (end - from).abs() <= LEAD)
            .then(|| window.clone())
    }

    /// Whether a sample could be read for the grace period, without interruption, while all was healthy.
    fn owed(&self, entity: Entity<'_>, sample: &PublishedSample<'_>) -> bool {
        let end = sample.evicted_at.min(self.truth.horizon);
        let mut readable: Vec<Range<i64>> = Vec::from([Range {
            start: sample.published_at,
            end,
        }]);
        for cut in &entity.record().unreachable {
            readable = readable
                .into_iter()
                .flat_map(|part| {
                    let behind = cut.to.unwrap_or(i64::MAX);
                    [
                        part.start..part.end.min(cut.from),
                        part.start.max(behind)..part.end,
                    ]
                })
                .filter(|part| part.start < part.end)
                .collect();
        }
        readable.iter().any(|part| {
            self.healthy.iter().any(|window| {
                let shared = part
                    .end
                    .min(window.end)
                    .saturating_sub(part.start.max(window.start));
                shared >= self.grace && shared > 0
            })
        })
    }
}

/// The sample of a stamp, if it was ever published.
fn published(entity: Entity<'_>, stamp: i64) -> Option<PublishedSample<'_>> {
    entity.samples(stamp, stamp).next()
}

/// The roll-up of a stamp, with the placement at its end. vCenter keeps roll-ups whatever became of the ring.
fn rolled_up(entity: Entity<'_>, stamp: i64) -> Option<PublishedSample<'_>> {
    let run = entity.run_at(stamp)?;
    let published_at = stamp * MICROS;
    Some(PublishedSample {
        stamp,
        published_at,
        evicted_at: i64::MAX,
        host: &run.host,
        vcpus: run.vcpus,
    })
}

fn cell_fault(
    kind: EntityKind,
    columns: &Columns<'_>,
    sample: &PublishedSample<'_>,
    moment: Moment,
    row: &Row,
) -> Option<String> {
    let settled = sample
        .published_at
        .max((sample.stamp * MICROS).saturating_add(micros(SETTLE)));
    let early = Moment {
        seen_until: Some(settled),
        ..moment
    };
    for (index, expected) in columns.expected(moment).enumerate() {
        let stored = row.cells.get(index).copied().flatten();
        if !expected.accepts(stored) && !columns.one(index, early).accepts(stored) {
            let name = rules(kind).get(index).map_or("?", |rule| rule.name);
            return Some(format!("{name} is {}, published was {expected}", shown(stored)));
        }
    }
    None
}

async fn platform_id(client: &Client, name: &str) -> Result<i64, Error> {
    let row = client
        .query_opt(
            "SELECT platform_id::int8 FROM virt_platform WHERE name = $1",
            &[&name],
        )
        .await?;
    row.map(|row| row.get(0))
        .ok_or_else(|| Error::Platform(name.to_owned()))
}

/// Key to moref, of the objects of a platform that have ever been seen.
async fn inventory(client: &Client, kind: EntityKind, platform: i64) -> Result<HashMap<i64, String>, Error> {
    let sql = match kind {
        EntityKind::Host => "SELECT host_id::int8, moref FROM virt_host WHERE platform_id = ($1::int8)::int4",
        EntityKind::Vm => "SELECT vm_id::int8, moref FROM virt_vm WHERE platform_id = ($1::int8)::int4",
    };
    let rows = client.query(sql, &[&platform]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Rows that belong to no object at all: nobody's platform, so everybody's fault.
async fn orphans(client: &Client, kind: EntityKind, verdict: &mut Verdict) -> Result<(), Error> {
    let sql = match kind {
        EntityKind::Host => {
            "SELECT host_id::int8, count(*) FROM virt_host_metrics AS sample \
             WHERE NOT EXISTS (SELECT FROM virt_host WHERE virt_host.host_id = sample.host_id) GROUP BY 1"
        }
        EntityKind::Vm => {
            "SELECT vm_id::int8, count(*) FROM virt_vm_metrics AS sample \
             WHERE NOT EXISTS (SELECT FROM virt_vm WHERE virt_vm.vm_id = sample.vm_id) GROUP BY 1"
        }
    };
    for row in client.query(sql, &[]).await? {
        let (key, rows): (i64, i64) = (row.get(0), row.get(1));
        for _ in 0..rows {
            verdict.note(Kind::Wrong, || {
                format!("{rows} rows of {} {key}, which does not exist", kind.type_name())
            });
        }
    }
    Ok(())
}

async fn gaps(
    client: &Client,
    platform: i64,
    verdict: &mut Verdict,
) -> Result<HashMap<(EntityKind, i64), Vec<Gap>>, Error> {
    const SQL: &str = "\
        SELECT entity_kind::text, entity_id::int8, (extract(epoch FROM from_time) * 1000000)::int8, \
               (extract(epoch FROM to_time) * 1000000)::int8, is_initial, state::text, reason::text \
        FROM virt_collection_gap WHERE platform_id = ($1::int8)::int4";
    let mut gaps: HashMap<_, Vec<Gap>> = HashMap::new();
    for row in client.query(SQL, &[&platform]).await? {
        let kind: &str = row.get(0);
        let kind = if kind == "host" {
            EntityKind::Host
        } else {
            EntityKind::Vm
        };
        let state: &str = row.get(5);
        let open = state == "open";
        if open {
            verdict.open += 1;
        } else {
            let reason: Option<&str> = row.get(6);
            verdict.explained += 1;
            *verdict
                .reasons
                .entry(reason.unwrap_or("without reason").to_owned())
                .or_default() += 1;
        }
        let gap = Gap {
            from: row.get(2),
            to: row.get(3),
            open,
            initial: row.get(4),
        };
        gaps.entry((kind, row.get(1))).or_default().push(gap);
    }
    Ok(gaps)
}

fn bounds(gap: Gap) -> String {
    let to = gap.to.map_or_else(|| "now on".to_owned(), time);
    format!(
        "the {} gap row from {} to {to}",
        if gap.open { "open" } else { "explained" },
        time(gap.from)
    )
}

fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_out_of_range| format!("{micros}us"), |time| time.to_string())
}

fn shown<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
