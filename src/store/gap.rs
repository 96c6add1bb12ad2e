//! Gap rows as work of the back-fill lane.
//!
//! Owns: reading `virt_collection_gap`. Never does: writing it; gap rows change only in the transaction that
//! stores the samples around them ([`crate::store::copy`]).

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::model::gap::{GapId, OpenGap, Step};
use crate::model::ids::{EntityId, EntityKind, PlatformId};
use crate::store::connect::Database;
use crate::store::error::Error;
use crate::units::Stamp;

/// Oldest first: the source's ring forgets its oldest samples first. A gap without an end is closed by the live
/// lane and is no work for this one.
const OPEN: &str = "\
SELECT gap_id, entity_kind, entity_id, from_time, to_time, is_initial
FROM virt_collection_gap
WHERE platform_id = $1 AND state = 'open' AND to_time IS NOT NULL
  AND (asked_at IS NULL OR asked_at <= clock_timestamp() - make_interval(secs => $3))
ORDER BY from_time, gap_id
LIMIT $2";

const COUNT: &str = "\
SELECT platform_id, count(*) FILTER (WHERE state = 'open'), count(*) FILTER (WHERE state = 'explained'),
       min(from_time) FILTER (WHERE state = 'open')
FROM virt_collection_gap
GROUP BY platform_id
ORDER BY platform_id";

/// How many gap rows a platform has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapCount {
    /// The platform.
    pub platform: PlatformId,
    /// Yet to be asked for.
    pub open: u64,
    /// Explained for good.
    pub explained: u64,
    /// Start of the oldest open one.
    pub oldest_open: Option<Stamp>,
}

impl Database {
    /// A platform's open gaps, oldest first, at most `limit`, without those that were asked for within
    /// `asked_before`.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn open_gaps(
        &self,
        platform: PlatformId,
        limit: u32,
        asked_before: Duration,
    ) -> Result<Vec<OpenGap>, Error> {
        let connection = self.checkout("read open gaps").await?;
        let rows = connection
            .query(
                OPEN,
                &[
                    (&platform.0, Type::INT4),
                    (&i64::from(limit), Type::INT8),
                    (&asked_before.as_secs_f64(), Type::FLOAT8),
                ],
            )
            .await?;
        let gaps = rows
            .iter()
            .map(|row| {
                Ok(OpenGap {
                    id: GapId(connection.read(row, 0)?),
                    entity: EntityId {
                        kind: entity_kind(connection.read(row, 1)?),
                        id: connection.read(row, 2)?,
                    },
                    step: Step {
                        from: connection.read(row, 3)?,
                        to: connection.read(row, 4)?,
                        initial: connection.read(row, 5)?,
                    },
                })
            })
            .collect();
        connection.done();
        gaps
    }

    /// Gap rows by platform; platforms without any are left out.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn gap_counts(&self) -> Result<Vec<GapCount>, Error> {
        let connection = self.checkout("count gaps").await?;
        let rows = connection.query(COUNT, &[]).await?;
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        let counts = rows
            .iter()
            .map(|row| {
                Ok(GapCount {
                    platform: PlatformId(connection.read(row, 0)?),
                    open: count(connection.read(row, 1)?),
                    explained: count(connection.read(row, 2)?),
                    oldest_open: connection.read(row, 3)?,
                })
            })
            .collect();
        connection.done();
        counts
    }
}

/// From the word in the database, which a CHECK limits to the two.
pub(super) fn entity_kind(word: &str) -> EntityKind {
    if word == EntityKind::Host.as_str() {
        EntityKind::Host
    } else {
        EntityKind::Vm
    }
}
