//! Roll-ups, made anew from what is stored, and the queue of those that have to be.
//!
//! Owns: `virt_rollup_pending` and the tables of roll-ups; when a bucket is due. Never does: deciding when to look, or
//! adding to what a bucket holds. A bucket is always computed as a whole, so that live, late and back-filled samples,
//! and a refresh that was killed, are one path.
//!
//! Invariants:
//! - The transaction that stores samples also notes their buckets ([`Touched`]).
//! - A refresh is one READ COMMITTED transaction behind the fence. It first takes the notes away and then, with a later
//!   snapshot, reads the samples. So a note that it took is of samples that it sees, and samples that are committed
//!   while it computes leave a note that it did not take: the bucket is made again. Killed, it leaves all its notes.
//! - Samples are only ever added. A bucket that would come to cover less than it does is left as it is: then samples
//!   are gone that it was made from, dropped by their retention.
//! - Only one collector refreshes a platform, and an entity belongs to one platform: no two transactions ever make the
//!   same bucket.
//!
//! When a bucket is due follows from the source's clock alone, as its samples show it: [`due_in`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_postgres::types::Type;

use crate::model::rollup::{Kind, Level};
use crate::model::sample::Window;
use crate::store::connect::{Checkout, Database, Parameter};
use crate::store::error::Error;
use crate::store::lease::Lease;
use crate::units::Stamp;

/// Entities that a note names; where there are more it stands for all of the platform.
const FEW: usize = 64;

/// Buckets made in one transaction at most: at 10,000 VMs some three seconds' work. A take-over waits five.
const BUCKETS_PER_TRANSACTION: i64 = 6;

/// How soon a bucket is made whose end has long passed: what touches it usually comes in several transactions.
const SOON: Duration = Duration::from_secs(60);

const ROLL_UP: &str = "make roll-ups";

/// As parameters: platform, levels, kinds, buckets, seconds until they are due, and entities as texts of arrays, which
/// unlike arrays of arrays may differ in length.
pub(super) const NOTE: &str = "\
INSERT INTO virt_rollup_pending (bucket, due_at, platform_id, kind, level, entity_ids)
SELECT bucket, clock_timestamp() + make_interval(secs => seconds), $1, kind, level, entities::integer[]
FROM unnest($2, $3, $4, $5, $6) AS touched (level, kind, bucket, seconds, entities)";

/// Types of the parameters of [`NOTE`].
pub(super) const NOTE_TYPES: [Type; 6] = [
    Type::INT4,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::FLOAT8_ARRAY,
    Type::TEXT_ARRAY,
];

/// The oldest buckets, with all notes of them, also those that are not due: their samples are seen, too.
const TAKE: &str = "\
WITH chosen AS (
    SELECT level, bucket, kind FROM virt_rollup_pending
    WHERE platform_id = $1 AND ($2 OR due_at <= statement_timestamp())
    GROUP BY level, bucket, kind
    ORDER BY min(due_at), bucket, kind
    LIMIT $3
), taken AS (
    DELETE FROM virt_rollup_pending AS pending USING chosen
    WHERE pending.platform_id = $1 AND pending.level = chosen.level AND pending.bucket = chosen.bucket
      AND pending.kind = chosen.kind
    RETURNING pending.level, pending.bucket, pending.kind, pending.entity_ids
)
SELECT level, bucket, kind, bool_or(entity_ids IS NULL),
       coalesce(array_agg(DISTINCT id) FILTER (WHERE id IS NOT NULL), '{}')
FROM taken LEFT JOIN LATERAL unnest(entity_ids) AS entity (id) ON true
GROUP BY level, bucket, kind";

const NEWEST: &str = "SELECT max(bucket) FROM virt_rollup_pending WHERE platform_id = $1 AND level = '5m'";

const PENDING: &str = "\
SELECT count(*), min(due_at), coalesce(min(due_at) <= statement_timestamp(), false)
FROM virt_rollup_pending WHERE platform_id = $1";

/// How long until a bucket is made, when the source's clock shows `newest`: once it has been over for so long that its
/// samples have come, so that it is made once. Buckets that are long over wait for what comes beside what touched them.
///
/// Of the collector's and the database's clock only the pace counts: a source whose clock is wrong has its buckets
/// made as often as any.
fn due_in(level: Level, bucket: Stamp, newest: Stamp) -> Duration {
    // A sample is held back for a minute and asked for every minute. `newest` may be ahead by a bucket of 5 minutes,
    // where it is known from notes only, and the finer buckets take as long themselves.
    let settled = Duration::from_secs(match level {
        Level::FiveMinutes => 180,
        Level::Hour => 600,
        Level::Day => 1_200,
    });
    bucket.plus(settled).since(newest).max(SOON)
}

/// Whose buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entities {
    These(BTreeSet<i32>),
    All,
}

impl Entities {
    const fn none() -> Self {
        Self::These(BTreeSet::new())
    }

    fn add(&mut self, others: &Self) {
        match (&mut *self, others) {
            (Self::These(ids), Self::These(others)) => ids.extend(others),
            _ => *self = Self::All,
        }
    }

    /// As a note holds them.
    fn noted(&self) -> Option<String> {
        match self {
            Self::These(ids) if ids.len() <= FEW => {
                let ids: Vec<String> = ids.iter().map(i32::to_string).collect();
                Some(format!("{{{}}}", ids.join(",")))
            }
            Self::These(_) | Self::All => None,
        }
    }
}

/// A bucket of all entities of a kind. Finer ones come first.
type Bucket = (Level, Stamp, Kind);

/// Buckets that have to be made, as the columns of their notes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Touched {
    levels: Vec<&'static str>,
    kinds: Vec<&'static str>,
    buckets: Vec<Stamp>,
    seconds: Vec<f64>,
    entities: Vec<Option<String>>,
}

impl Touched {
    /// The buckets of 5 minutes that samples belong to.
    pub(super) fn by(windows: &[Window]) -> Self {
        let newest = windows
            .iter()
            .flat_map(Window::heads)
            .map(|head| head.stamp)
            .max();
        let Some(newest) = newest else {
            return Self::default();
        };
        let mut touched: BTreeMap<Bucket, Entities> = BTreeMap::new();
        for window in windows {
            let mut last = None;
            for head in window.heads() {
                let bucket = Level::FiveMinutes.bucket(head.stamp);
                // Rows ascend.
                if last.replace(bucket) == Some(bucket) {
                    continue;
                }
                let key = (Level::FiveMinutes, bucket, Kind::from(window.entity.kind));
                match touched.entry(key).or_insert_with(Entities::none) {
                    Entities::These(ids) if ids.len() <= FEW => {
                        ids.insert(window.entity.id);
                    }
                    more => *more = Entities::All,
                }
            }
        }
        Self::of(&touched, newest)
    }

    /// The bucket of a reading of all datastores.
    pub(super) fn by_datastores(read_at: Stamp) -> Self {
        let bucket = (
            Level::FiveMinutes,
            Level::FiveMinutes.bucket(read_at),
            Kind::Datastore,
        );
        Self::of(&BTreeMap::from([(bucket, Entities::All)]), read_at)
    }

    fn of(touched: &BTreeMap<Bucket, Entities>, newest: Stamp) -> Self {
        let mut notes = Self::default();
        for ((level, bucket, kind), entities) in touched {
            notes.levels.push(level.as_str());
            notes.kinds.push(kind.as_str());
            notes.buckets.push(*bucket);
            notes.seconds.push(due_in(*level, *bucket, newest).as_secs_f64());
            notes.entities.push(entities.noted());
        }
        notes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The parameters of [`NOTE`].
    pub(super) fn parameters<'a>(
        &'a self,
        platform: &'a i32,
    ) -> [&'a (dyn tokio_postgres::types::ToSql + Sync); 6] {
        [
            platform,
            &self.levels,
            &self.kinds,
            &self.buckets,
            &self.seconds,
            &self.entities,
        ]
    }

    /// Adds the notes on a connection of the pool.
    pub(super) async fn note(&self, connection: &Checkout, platform: i32) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let parameters: Vec<Parameter<'_>> = self.parameters(&platform).into_iter().zip(NOTE_TYPES).collect();
        connection.execute(NOTE, &parameters).await.map(drop)
    }
}

/// Which notes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Those that are due.
    Now,
    /// All there are.
    Whenever,
}

/// What one transaction made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Buckets of hosts, VMs or datastores, by level, finest first.
    pub buckets: [u64; Level::ALL.len()],
    /// Rows written.
    pub rows: u64,
}

impl Made {
    /// True where there was nothing to make.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.buckets.iter().all(|n| *n == 0)
    }

    /// Both together.
    pub fn add(&mut self, more: &Self) {
        for (n, more) in self.buckets.iter_mut().zip(more.buckets) {
            *n += more;
        }
        self.rows += more.rows;
    }
}

/// The notes of a platform.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// How many.
    pub notes: u64,
    /// When the first of them is due, by the database's clock.
    pub first_due: Option<Stamp>,
    /// Whether that has passed.
    pub is_due: bool,
}

impl Database {
    /// What of a platform is yet to be rolled up.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn rollups_pending(&self, lease: &Lease) -> Result<Pending, Error> {
        let connection = self.checkout("read what is to be rolled up").await?;
        let row = connection
            .query_opt(PENDING, &[(&lease.platform.0, Type::INT4)])
            .await?;
        let pending = match row {
            Some(row) => Pending {
                notes: u64::try_from(connection.read::<i64>(&row, 0)?).unwrap_or(0),
                first_due: connection.read(&row, 1)?,
                is_due: connection.read(&row, 2)?,
            },
            None => Pending::default(),
        };
        connection.done();
        Ok(pending)
    }

    /// Makes the oldest buckets that are noted, a few, in one transaction. Nothing is made where nothing is noted.
    ///
    /// Dropped half-way, nothing is made and nothing is forgotten.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked; then nothing is changed.
    pub async fn roll_up(&self, lease: &Lease, due: Due) -> Result<Made, Error> {
        let connection = self.checkout(ROLL_UP).await?;
        connection.begin_fenced(lease).await?;
        let platform = lease.platform.0;
        let mut work = take(&connection, platform, due).await?;
        let finest = work.keys().map(|(_, bucket, _)| *bucket);
        let Some(newest) = finest.max() else {
            connection.commit().await?;
            return Ok(Made::default());
        };
        let mut made = Made::default();
        let mut parents: BTreeMap<Bucket, Entities> = BTreeMap::new();
        while let Some((bucket, entities)) = work.pop_first() {
            let rows = make(&connection, platform, bucket, &entities).await?;
            let (level, end, kind) = bucket;
            if let Some(n) = made.buckets.get_mut(level as usize) {
                *n += 1;
            }
            made.rows += rows;
            let Some(coarser) = level.coarser().filter(|_| rows > 0) else {
                continue;
            };
            // A parent that is under way is made after this one, and sees it.
            let parent = (coarser, coarser.bucket(end), kind);
            let parent = match work.get_mut(&parent) {
                Some(under_way) => under_way,
                None => parents.entry(parent).or_insert_with(Entities::none),
            };
            parent.add(&entities);
        }
        if !parents.is_empty() {
            let row = connection.query_opt(NEWEST, &[(&platform, Type::INT4)]).await?;
            let noted = row.map_or(Ok(None), |row| connection.read::<Option<Stamp>>(&row, 0))?;
            let newest = noted.map_or(newest, |noted| noted.max(newest));
            Touched::of(&parents, newest).note(&connection, platform).await?;
        }
        connection.commit().await?;
        Ok(made)
    }
}

async fn take(connection: &Checkout, platform: i32, due: Due) -> Result<BTreeMap<Bucket, Entities>, Error> {
    let whenever = due == Due::Whenever;
    let parameters: [Parameter<'_>; 3] = [
        (&platform, Type::INT4),
        (&whenever, Type::BOOL),
        (&BUCKETS_PER_TRANSACTION, Type::INT8),
    ];
    let mut work = BTreeMap::new();
    for row in connection.query(TAKE, &parameters).await? {
        let level = Level::from_word(connection.read(&row, 0)?);
        let kind = Kind::from_word(connection.read(&row, 2)?);
        // A CHECK limits the words to those that are known.
        let (Some(level), Some(kind)) = (level, kind) else {
            continue;
        };
        let entities = if connection.read(&row, 3)? {
            Entities::All
        } else {
            Entities::These(connection.read::<Vec<i32>>(&row, 4)?.into_iter().collect())
        };
        work.insert((level, connection.read(&row, 1)?, kind), entities);
    }
    Ok(work)
}

/// Computes a bucket and stores it; returns how many rows that wrote.
async fn make(
    connection: &Checkout,
    platform: i32,
    (level, end, kind): Bucket,
    entities: &Entities,
) -> Result<u64, Error> {
    let width = Duration::from_secs(u64::try_from(level.seconds()).unwrap_or(0));
    let start = end.minus(width);
    let (all, ids) = match entities {
        Entities::All => (true, Vec::new()),
        Entities::These(ids) => (false, ids.iter().copied().collect()),
    };
    let parameters: [Parameter<'_>; 5] = [
        (&platform, Type::INT4),
        (&start, Type::TIMESTAMPTZ),
        (&end, Type::TIMESTAMPTZ),
        (&all, Type::BOOL),
        (&ids, Type::INT4_ARRAY),
    ];
    connection.execute(&make_sql(kind, level), &parameters).await
}

/// Tables and columns of a kind.
struct Names {
    entity: &'static str,
    key: &'static str,
    samples: &'static str,
    /// What a bucket covers; it only ever grows.
    covered: &'static str,
    /// End of the name of a measure's weight.
    weight: &'static str,
}

const fn names(kind: Kind) -> Names {
    match kind {
        Kind::Host => Names {
            entity: "virt_host",
            key: "host_id",
            samples: "virt_host_metrics",
            covered: "covered_seconds",
            weight: "seconds",
        },
        Kind::Vm => Names {
            entity: "virt_vm",
            key: "vm_id",
            samples: "virt_vm_metrics",
            covered: "covered_seconds",
            weight: "seconds",
        },
        Kind::Datastore => Names {
            entity: "virt_datastore",
            key: "datastore_id",
            samples: "virt_datastore_metrics",
            covered: "sample_count",
            weight: "samples",
        },
    }
}

/// The statement that makes a bucket of some or all entities of a platform. Parameters: platform, start, end, whether
/// all are meant, and who else.
///
/// Entity by entity through the key's index: that costs the same whatever other platforms have stored meanwhile, in
/// which order the rows lie, and what the planner believes of a chunk that is minutes old (0.6 s of CPU for 10,000 VMs,
/// as much as one pass over their rows by time). Bounds are constants, so that other chunks are left out of the plan.
fn make_sql(kind: Kind, level: Level) -> String {
    let Names {
        entity,
        key,
        samples,
        covered,
        weight,
    } = names(kind);
    let source = level.finer().map_or_else(
        || samples.to_owned(),
        |finer| format!("{samples}_{}", finer.as_str()),
    );
    // Column and value.
    let mut cells: Vec<(String, String)> = Vec::new();
    let whole = |sum: &str| format!("coalesce({sum}, 0)::integer");
    match (level, kind.is_timed()) {
        (Level::FiveMinutes, true) => {
            cells.push((covered.to_owned(), whole("sum(interval_seconds)")));
            let coarse = "sum(interval_seconds) FILTER (WHERE interval_seconds = 300)";
            cells.push(("coarse_seconds".to_owned(), whole(coarse)));
        }
        (Level::FiveMinutes, false) => cells.push((covered.to_owned(), whole("count(*)"))),
        (Level::Hour | Level::Day, timed) => {
            cells.push((covered.to_owned(), whole(&format!("sum({covered})"))));
            if timed {
                cells.push(("coarse_seconds".to_owned(), whole("sum(coarse_seconds)")));
            }
        }
    }
    for measure in kind.measures() {
        let (name, value) = (measure.name, measure.expression);
        let (sum, weighed, most) = match (level, kind.is_timed()) {
            (Level::FiveMinutes, true) => (
                format!("sum(({value})::double precision * interval_seconds)"),
                format!("sum(interval_seconds) FILTER (WHERE {value} IS NOT NULL)"),
                format!("max({value})"),
            ),
            (Level::FiveMinutes, false) => (
                format!("sum(({value})::double precision)"),
                format!("count({value})"),
                format!("max({value})"),
            ),
            (Level::Hour | Level::Day, _) => (
                format!("sum({name}_sum)"),
                format!("sum({name}_{weight})"),
                format!("max({name}_max)"),
            ),
        };
        cells.push((format!("{name}_sum"), sum));
        cells.push((format!("{name}_{weight}"), whole(&weighed)));
        cells.push((format!("{name}_max"), most));
    }
    let columns: Vec<&str> = cells.iter().map(|(column, _)| column.as_str()).collect();
    let values: Vec<&str> = cells.iter().map(|(_, value)| value.as_str()).collect();
    let updates: Vec<String> = columns
        .iter()
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    format!(
        "INSERT INTO {samples}_{level} AS kept (collected_at, {key}, {columns})
SELECT $3, entity.{key}, made.*
FROM {entity} AS entity
CROSS JOIN LATERAL (
    SELECT {values}
    FROM {source} AS source
    WHERE source.{key} = entity.{key} AND source.collected_at > $2 AND source.collected_at <= $3
    HAVING count(*) > 0
) AS made
WHERE entity.platform_id = $1 AND ($4 OR entity.{key} = ANY ($5))
  AND (entity.removed_at IS NULL OR entity.removed_at > $2 - INTERVAL '1 day')
ON CONFLICT ({key}, collected_at) DO UPDATE SET {updates}
WHERE excluded.{covered} >= kept.{covered}",
        level = level.as_str(),
        columns = columns.join(", "),
        values = values.join(", "),
        updates = updates.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::columns::Column;
    use crate::model::ids::{EntityId, EntityKind, VmId};
    use crate::model::sample::{Cell, RowHead};

    /// 2026-01-31T10:00:00Z.
    const TEN: i64 = 1_769_853_600;

    fn window(vm: i32, stamps: impl IntoIterator<Item = i64>) -> Window {
        let mut window = Window::with_capacity(EntityId::from(VmId(vm)), 8);
        for seconds in stamps {
            let head = RowHead {
                stamp: Stamp::from_seconds(TEN + seconds),
                interval_seconds: 20,
                host: None,
                cpus: 1,
                complete: true,
            };
            assert!(window.push(head, &vec![Cell::NULL; Column::of(EntityKind::Vm).len()]));
        }
        window
    }

    #[test]
    fn a_flush_notes_the_buckets_of_its_rows_and_names_a_few_entities() {
        let touched = Touched::by(&[window(7, [280, 300]), window(5, [300, 320, 340])]);
        let ends: Vec<i64> = touched
            .buckets
            .iter()
            .map(|end| end.micros() / 1_000_000 - TEN)
            .collect();
        assert_eq!(ends, [300, 600], "the end of a bucket belongs to it");
        assert_eq!(
            touched.entities,
            [Some("{5,7}".to_owned()), Some("{5}".to_owned())]
        );
        // The source's clock shows 340: 140 s and 440 s until three minutes have passed since their ends.
        assert_eq!(touched.seconds, [140.0, 440.0]);
        assert_eq!((touched.levels[0], touched.kinds[0]), ("5m", "vm"));
        assert_eq!(Touched::by(&[]), Touched::default());

        let few: Vec<Window> = (1..=64).map(|vm| window(vm, [20])).collect();
        assert!(Touched::by(&few).entities[0].is_some());
        let many: Vec<Window> = (1..=65).map(|vm| window(vm, [20])).collect();
        assert_eq!(Touched::by(&many).entities, [None]);
        let very_many: Vec<Window> = (1..=500).map(|vm| window(vm, [20])).collect();
        assert_eq!(Touched::by(&very_many).entities, [None]);
    }

    #[test]
    fn what_is_long_over_is_due_soon_and_what_is_not_waits_for_its_end() {
        let due = |level, bucket, newest| {
            due_in(level, Stamp::from_seconds(bucket), Stamp::from_seconds(newest)).as_secs()
        };
        assert_eq!(due(Level::FiveMinutes, TEN, TEN - 280), 280 + 180);
        assert_eq!(due(Level::FiveMinutes, TEN, TEN + 100), 80);
        assert_eq!(due(Level::FiveMinutes, TEN, TEN + 3000), 60);
        assert_eq!(due(Level::Hour, TEN + 3600, TEN + 300), 3300 + 600);
        assert_eq!(due(Level::Day, TEN, TEN + 86_400), 60);
    }
}
