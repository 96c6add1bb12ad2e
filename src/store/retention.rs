//! What is too old, and how it goes.
//!
//! Owns: `virt_retention`; calling the two functions that the owner of the tables lends to the service,
//! `virt_drop_chunks` and `virt_compress_after`; the end of explained gap rows; and having made what platforms that
//! nobody collects had left to be rolled up. Never does: dropping by itself, for which the service has no right, or
//! deciding what is kept.
//!
//! Invariants:
//! - One collector at a time: an advisory lock of the session, free again when the session ends, however it ends.
//! - The oldest chunk first, each in a transaction of its own that waits little for those who read it.
//! - A gap row ends when the sample behind it has: until then it explains a step between two samples.
//! - Compression follows edition and version of the extension as they are now, whatever they were.

use std::fmt;

use tokio_postgres::types::Type;

use crate::config::{Keep, Retention};
use crate::model::ids::PlatformId;
use crate::store::connect::{Database, Dedicated, bounded};
use crate::store::error::Error;
use crate::store::lease::Owner;
use crate::store::rollup::Due;
use crate::units::Stamp;

/// "virtkeep" as a number: any constant that nobody else uses in this database.
const LOCK_KEY: i64 = 0x7669_7274_6b65_6570;

/// Gap rows in one transaction.
const GAPS_AT_ONCE: i64 = 10_000;

/// Every table of samples and roll-ups: those of a kind from fine to coarse.
pub const RELATIONS: [&str; 12] = [
    "virt_host_metrics",
    "virt_host_metrics_5m",
    "virt_host_metrics_1h",
    "virt_host_metrics_1d",
    "virt_vm_metrics",
    "virt_vm_metrics_5m",
    "virt_vm_metrics_1h",
    "virt_vm_metrics_1d",
    "virt_datastore_metrics",
    "virt_datastore_metrics_5m",
    "virt_datastore_metrics_1h",
    "virt_datastore_metrics_1d",
];

/// How long each of [`RELATIONS`] is kept.
fn kept(retention: &Retention) -> impl Iterator<Item = (&'static str, Keep)> {
    let levels = [
        retention.raw,
        retention.five_minutes,
        retention.hour,
        retention.day,
    ];
    RELATIONS.into_iter().zip(levels.into_iter().cycle())
}

/// What is in force, for those who ask how far back they can look.
const TELL: &str = "\
INSERT INTO virt_retention (relation, keep)
SELECT relation, make_interval(days => days)
FROM unnest($1::text[], $2::int[]) AS told (relation, days)
ON CONFLICT (relation) DO UPDATE SET keep = excluded.keep
WHERE virt_retention.keep IS DISTINCT FROM excluded.keep";

const COMPRESS: &str = "SELECT virt_compress_after(make_interval(days => $1))";

const DROP: &str = "\
WITH oldest AS (
    SELECT chunk_end, pending FROM virt_drop_chunks($1, make_interval(days => $2))
), noted AS (
    UPDATE virt_retention SET dropped_before = oldest.chunk_end
    FROM oldest
    WHERE relation = $1 AND oldest.pending = 0
)
SELECT chunk_end, pending FROM oldest";

const CHECKED: &str = "UPDATE virt_retention SET checked_at = clock_timestamp() WHERE relation = ANY ($1)";

/// Open-ended ones of what was removed, too: nobody will speak any more.
const END_GAPS: &str = "\
DELETE FROM virt_collection_gap
WHERE state = 'explained' AND gap_id = ANY (ARRAY(
    SELECT gap.gap_id
    FROM virt_collection_gap AS gap
    JOIN virt_retention AS retention ON retention.relation = 'virt_' || gap.entity_kind || '_metrics'
    WHERE gap.state = 'explained'
      AND (gap.to_time <= retention.dropped_before
           OR (gap.to_time IS NULL AND gap.from_time <= retention.dropped_before AND CASE gap.entity_kind
               WHEN 'host' THEN (SELECT removed_at FROM virt_host WHERE host_id = gap.entity_id)
               ELSE (SELECT removed_at FROM virt_vm WHERE vm_id = gap.entity_id)
               END <= retention.dropped_before))
    LIMIT $1))";

/// What has been due for long, of platforms that nobody owns: paused ones, and those that were removed.
const ABANDONED: &str = "\
SELECT DISTINCT platform_id
FROM virt_rollup_pending AS pending JOIN virt_platform AS platform USING (platform_id)
WHERE due_at < clock_timestamp() - INTERVAL '10 minutes'
  AND NOT EXISTS (SELECT FROM virt_platform_lease AS lease
                  WHERE lease.platform_id = pending.platform_id AND lease.until > clock_timestamp())";

const IN_FORCE: &str = "\
SELECT relation, extract(epoch FROM keep)::bigint / 86400
FROM virt_retention ORDER BY relation";

const COMPRESSED: &str = "\
SELECT min((config ->> 'compress_after')::interval)::text
FROM timescaledb_information.jobs
WHERE hypertable_schema = 'public' AND hypertable_name IN ('virt_host_metrics', 'virt_vm_metrics')
  AND proc_name = 'policy_compression'";

/// How compression of samples stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The database compresses what is older than is configured.
    On,
    /// It could, and is not to.
    Off,
    /// The edition does not have it.
    Edition,
    /// The version loses rows with it.
    Version,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "samples are compressed",
            Self::Off => "samples are not compressed: compress_after is \"never\"",
            Self::Edition => {
                "samples are not compressed: this is the Apache-2 edition of TimescaleDB, only the Community edition does"
            }
            Self::Version => "samples are not compressed: TimescaleDB does it without losing rows from 2.18.1 on",
        })
    }
}

/// Chunks of a relation that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The relation.
    pub relation: &'static str,
    /// How many.
    pub chunks: u64,
    /// What is left begins here.
    pub before: Stamp,
}

/// A chunk that is too old and stays for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBack {
    /// The relation.
    pub relation: &'static str,
    /// Its end.
    pub until: Stamp,
    /// Buckets of roll-ups that need it and are yet to be made.
    pub pending: i64,
}

/// What came of a turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// What went.
    pub dropped: Vec<Dropped>,
    /// What is yet to be rolled up.
    pub kept_back: Vec<KeptBack>,
    /// What somebody was reading; it goes at a later turn.
    pub delayed: Vec<(&'static str, Error)>,
    /// Gap rows that ended.
    pub gaps: u64,
}

/// What the database does, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Days of each relation; `None` for ever. A relation that is missing was never told of.
    pub days: Vec<(String, Option<i64>)>,
    /// After how long samples are compressed, as the database says it.
    pub compress_after: Option<String>,
}

impl InForce {
    /// Whether the database was told just this.
    #[must_use]
    pub fn is(&self, retention: &Retention) -> bool {
        kept(retention).all(|(relation, keep)| {
            self.days
                .iter()
                .any(|(told, days)| told == relation && *days == keep.days().map(i64::from))
        })
    }
}

impl Database {
    /// Writes down what is kept, and brings compression to what is wanted. Cheap where nothing is new.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn set_retention(&self, retention: &Retention) -> Result<Compression, Error> {
        let connection = self.checkout("set what is kept how long").await?;
        let (relations, days): (Vec<&str>, Vec<Option<i32>>) = kept(retention)
            .map(|(relation, keep)| (relation, keep.days()))
            .unzip();
        connection
            .execute(TELL, &[(&relations, Type::TEXT_ARRAY), (&days, Type::INT4_ARRAY)])
            .await?;
        let row = connection
            .query_opt(COMPRESS, &[(&retention.compress_after.days(), Type::INT4)])
            .await?;
        let said: Option<String> = row.map(|row| connection.read(&row, 0)).transpose()?;
        connection.done();
        Ok(match said.as_deref() {
            Some("on") => Compression::On,
            Some("edition") => Compression::Edition,
            Some("version") => Compression::Version,
            _ => Compression::Off,
        })
    }

    /// Drops what is older than is kept; `None` where another collector is at it. Dropped half-way, the connection is
    /// closed, and the next turn goes on.
    ///
    /// # Errors
    /// When the database cannot be asked. What went until then is gone.
    pub async fn drop_expired(&self, retention: &Retention) -> Result<Option<Turn>, Error> {
        let connection = self.settings().connect("retention").await?;
        if !lock(&connection).await? {
            return Ok(None);
        }
        self.roll_up_abandoned().await?;
        let mut turn = Turn::default();
        let mut checked = Vec::new();
        for (relation, keep) in kept(retention) {
            let Some(days) = keep.days() else { continue };
            match relation_expired(&connection, relation, days, &mut turn).await {
                Ok(()) => checked.push(relation),
                // Somebody reads it: its time comes.
                Err(error @ Error::Statement { .. }) if is_delay(&error) => {
                    turn.delayed.push((relation, error))
                }
                Err(error) => return Err(error),
            }
        }
        bounded(
            "note that retention was looked at",
            connection.execute_typed(CHECKED, &[(&checked, Type::TEXT_ARRAY)]),
        )
        .await?;
        loop {
            let ended = bounded(
                "end gap rows that are too old",
                connection.execute_typed(END_GAPS, &[(&GAPS_AT_ONCE, Type::INT8)]),
            )
            .await?;
            turn.gaps += ended;
            if ended < GAPS_AT_ONCE.unsigned_abs() {
                return Ok(Some(turn));
            }
        }
    }

    /// Makes the roll-ups that platforms had left when their collection ended: what is yet to be rolled up keeps chunks
    /// back, and nobody else would do it. Under their leases, like all roll-ups.
    async fn roll_up_abandoned(&self) -> Result<(), Error> {
        let connection = self.checkout("look for roll-ups that nobody makes").await?;
        let rows = connection.query(ABANDONED, &[]).await?;
        let platforms = rows
            .iter()
            .map(|row| connection.read(row, 0))
            .collect::<Result<Vec<i32>, Error>>()?;
        connection.done();
        let owner = Owner::random();
        for platform in platforms {
            let Some(lease) = self.acquire_lease(PlatformId(platform), &owner).await? else {
                continue;
            };
            while !self.roll_up(&lease, Due::Now).await?.is_nothing() {
                self.renew_lease(&lease).await?;
            }
            self.release_lease(&lease).await?;
        }
        Ok(())
    }

    /// What the database was last told, and what it does.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn retention_in_force(&self) -> Result<InForce, Error> {
        let connection = self.checkout("read what is kept how long").await?;
        let rows = connection.query(IN_FORCE, &[]).await?;
        let days = rows
            .iter()
            .map(|row| Ok((connection.read(row, 0)?, connection.read(row, 1)?)))
            .collect::<Result<_, Error>>()?;
        let row = connection.query_opt(COMPRESSED, &[]).await?;
        let compress_after = row.map(|row| connection.read(&row, 0)).transpose()?.flatten();
        connection.done();
        Ok(InForce { days, compress_after })
    }
}

async fn lock(connection: &Dedicated) -> Result<bool, Error> {
    const ATTEMPT: &str = "take the turn to drop what is too old";
    let row = bounded(
        ATTEMPT,
        connection.query_typed_one("SELECT pg_try_advisory_lock($1)", &[(&LOCK_KEY, Type::INT8)]),
    )
    .await?;
    row.try_get(0).map_err(|source| Error::statement(ATTEMPT, source))
}

async fn relation_expired(
    connection: &Dedicated,
    relation: &'static str,
    days: i32,
    turn: &mut Turn,
) -> Result<(), Error> {
    const ATTEMPT: &str = "drop a chunk that is too old";
    loop {
        let oldest = bounded(
            ATTEMPT,
            connection.query_typed_opt(DROP, &[(&relation, Type::TEXT), (&days, Type::INT4)]),
        )
        .await?;
        let Some(row) = oldest else { return Ok(()) };
        let read = |source| Error::statement(ATTEMPT, source);
        let (end, pending) = (row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
        if pending > 0 {
            turn.kept_back.push(KeptBack {
                relation,
                until: end,
                pending,
            });
            return Ok(());
        }
        match turn
            .dropped
            .last_mut()
            .filter(|dropped| dropped.relation == relation)
        {
            Some(dropped) => {
                dropped.chunks += 1;
                dropped.before = end;
            }
            None => turn.dropped.push(Dropped {
                relation,
                chunks: 1,
                before: end,
            }),
        }
    }
}

/// A lock that was not to be had in time.
fn is_delay(error: &Error) -> bool {
    matches!(error, Error::Statement { source, .. } if source.sqlstate() == Some("55P03"))
}
