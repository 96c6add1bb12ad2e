//! Gap rows as work of the back-fill lanes.
//!
//! Owns: reading `virt_collection_gap`, for the lanes and for people, and opening explained gaps again on
//! request. Never does: any other change; gap rows change in the transaction that stores the samples around them
//! ([`crate::store::copy`]).

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::model::gap::{GapId, GapLane, OpenGap, Reason, Step};
use crate::model::ids::{EntityId, EntityKind, PlatformId};
use crate::store::connect::Database;
use crate::store::error::Error;
use crate::units::Stamp;

/// Oldest first: the source forgets its oldest samples first.
const OPEN: &str = "\
SELECT gap_id, entity_kind, entity_id, from_time, to_time, is_initial, hint, to_interval_seconds
FROM virt_collection_gap
WHERE platform_id = $1 AND state = 'open' AND lane = $4
  AND (asked_at IS NULL OR asked_at <= clock_timestamp() - make_interval(secs => $3))
  AND (ask_after IS NULL OR ask_after <= $5)
ORDER BY from_time, gap_id
LIMIT $2";

/// By the index of open gaps alone.
const COUNT_OPEN: &str = "\
SELECT count(*), min(from_time) FROM virt_collection_gap WHERE platform_id = $1 AND state = 'open'";

const SILENT: &str = "\
SELECT entity_kind, entity_id, from_time, coalesce(reason, hint)
FROM virt_collection_gap
WHERE platform_id = $1 AND to_time IS NULL";

/// Beyond the ring there are roll-ups only, and none fits into a ragged edge.
const RETRY: &str = "\
UPDATE virt_collection_gap AS gap
SET state = 'open', hint = gap.reason, reason = NULL, explained_at = NULL, asked_at = NULL, ask_after = NULL,
    lane = CASE WHEN coalesce(gap.to_time, 'infinity') > $2 THEN 'ring' ELSE 'rollup' END
FROM virt_platform AS platform
WHERE platform.platform_id = gap.platform_id AND (platform.name = $1 OR $1 IS NULL)
  AND gap.state = 'explained'
  AND (coalesce(gap.to_time, 'infinity') > $2 OR (gap.to_time > $3 AND gap.reason <> 'rollup_edge'))";

const OUTAGES: &str = "\
SELECT platform, state, reason, from_time, to_time, hosts, vms, gaps
FROM virt_collection_gap_summary
WHERE platform = $1 OR $1 IS NULL
ORDER BY from_time DESC, platform LIMIT $2";

const LIST: &str = "\
SELECT platform, kind, name, state, reason, from_time, to_time, attempts
FROM virt_collection_gap_detail
WHERE platform = $1 OR $1 IS NULL
ORDER BY from_time DESC, gap_id DESC LIMIT $2";

const BREAKS: &str = "\
SELECT b.problem, b.entity_kind, coalesce(host.name, vm.name), b.from_time, b.to_time
FROM virt_chain_break() AS b
LEFT JOIN virt_host AS host ON b.entity_kind = 'host' AND host.host_id = b.entity_id
LEFT JOIN virt_vm AS vm ON b.entity_kind = 'vm' AND vm.vm_id = b.entity_id
ORDER BY b.from_time, b.entity_kind, b.entity_id";

/// Gaps of a platform that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// Name of the platform.
    pub platform: String,
    /// `open` or `explained`.
    pub state: String,
    /// Why, once explained.
    pub reason: Option<String>,
    /// Start of the earliest gap.
    pub from: Stamp,
    /// End of the latest; `None` while it lasts.
    pub to: Option<Stamp>,
    /// Hosts touched.
    pub hosts: i64,
    /// VMs touched.
    pub vms: i64,
    /// Gap rows.
    pub gaps: i64,
}

/// One gap row with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapLine {
    /// Name of the platform.
    pub platform: String,
    /// `host` or `vm`.
    pub kind: String,
    /// Name of the host or VM.
    pub name: Option<String>,
    /// `open` or `explained`.
    pub state: String,
    /// Why, or what is known so far.
    pub reason: Option<String>,
    /// Stamp of the row before.
    pub from: Stamp,
    /// Stamp of the row after; `None` while there is none.
    pub to: Option<Stamp>,
    /// How often the source was asked in vain.
    pub attempts: i32,
}

/// A place where the chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainBreak {
    /// What is wrong.
    pub problem: String,
    /// `host` or `vm`.
    pub kind: String,
    /// Name of the host or VM.
    pub name: Option<String>,
    /// Stamp before.
    pub from: Stamp,
    /// Stamp behind.
    pub to: Option<Stamp>,
}

impl Database {
    /// A platform's open gaps for one lane, oldest first, at most `limit`, without those that were asked for within
    /// `asked_before` and those that are to be asked for after `server_now`.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn open_gaps(
        &self,
        platform: PlatformId,
        lane: GapLane,
        limit: u32,
        asked_before: Duration,
        server_now: Stamp,
    ) -> Result<Vec<OpenGap>, Error> {
        let connection = self.checkout("read open gaps").await?;
        let rows = connection
            .query(
                OPEN,
                &[
                    (&platform.0, Type::INT4),
                    (&i64::from(limit), Type::INT8),
                    (&asked_before.as_secs_f64(), Type::FLOAT8),
                    (&lane.as_str(), Type::TEXT),
                    (&server_now, Type::TIMESTAMPTZ),
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
                        to_interval: u16::try_from(connection.read::<i16>(row, 7)?).unwrap_or(0),
                        initial: connection.read(row, 5)?,
                    },
                    hint: reason(connection.read(row, 6)?),
                })
            })
            .collect();
        connection.done();
        gaps
    }

    /// How many gaps of a platform are open, for whichever lane, and where the oldest of them starts.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn count_open_gaps(&self, platform: PlatformId) -> Result<(u64, Option<Stamp>), Error> {
        let connection = self.checkout("count open gaps").await?;
        let row = connection
            .query_opt(COUNT_OPEN, &[(&platform.0, Type::INT4)])
            .await?;
        let (count, oldest): (i64, _) = match row {
            Some(row) => (connection.read(&row, 0)?, connection.read(&row, 1)?),
            None => (0, None),
        };
        connection.done();
        Ok((u64::try_from(count).unwrap_or(0), oldest))
    }

    /// A platform's silent entities: those whose newest gap has no end, with the stamp of their newest row and what
    /// is known of them.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn silent(
        &self,
        platform: PlatformId,
    ) -> Result<Vec<(EntityId, Stamp, Option<Reason>)>, Error> {
        let connection = self.checkout("read which entities are silent").await?;
        let rows = connection.query(SILENT, &[(&platform.0, Type::INT4)]).await?;
        let silent = rows
            .iter()
            .map(|row| {
                let kind = entity_kind(connection.read(row, 0)?);
                let entity = EntityId {
                    kind,
                    id: connection.read(row, 1)?,
                };
                Ok((entity, connection.read(row, 2)?, reason(connection.read(row, 3)?)))
            })
            .collect();
        connection.done();
        silent
    }

    /// Opens explained gaps again whose samples the source may still hold, of one platform or of all: those that end
    /// behind `ring_start` for the ring, those that end behind `rollups_start` for roll-ups. What they were explained
    /// with becomes their hint. Returns how many.
    ///
    /// Not fenced: it adds work for whoever owns the platform, and takes nothing away.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn retry_gaps(
        &self,
        platform: Option<&str>,
        ring_start: Stamp,
        rollups_start: Stamp,
    ) -> Result<u64, Error> {
        let connection = self.checkout("open gaps again").await?;
        let retried = connection
            .execute(
                RETRY,
                &[
                    (&platform, Type::TEXT),
                    (&ring_start, Type::TIMESTAMPTZ),
                    (&rollups_start, Type::TIMESTAMPTZ),
                ],
            )
            .await?;
        connection.done();
        Ok(retried)
    }

    /// Outages, newest first: gaps of a platform with one reason that overlap are one line.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn outages(&self, platform: Option<&str>, limit: u32) -> Result<Vec<Outage>, Error> {
        let connection = self.checkout("read outages").await?;
        let rows = connection
            .query(
                OUTAGES,
                &[(&platform, Type::TEXT), (&i64::from(limit), Type::INT8)],
            )
            .await?;
        let outages = rows
            .iter()
            .map(|row| {
                Ok(Outage {
                    platform: connection.read(row, 0)?,
                    state: connection.read(row, 1)?,
                    reason: connection.read(row, 2)?,
                    from: connection.read(row, 3)?,
                    to: connection.read(row, 4)?,
                    hosts: connection.read(row, 5)?,
                    vms: connection.read(row, 6)?,
                    gaps: connection.read(row, 7)?,
                })
            })
            .collect();
        connection.done();
        outages
    }

    /// Gap rows one by one, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn gap_list(&self, platform: Option<&str>, limit: u32) -> Result<Vec<GapLine>, Error> {
        let connection = self.checkout("list gaps").await?;
        let rows = connection
            .query(LIST, &[(&platform, Type::TEXT), (&i64::from(limit), Type::INT8)])
            .await?;
        let lines = rows
            .iter()
            .map(|row| {
                Ok(GapLine {
                    platform: connection.read(row, 0)?,
                    kind: connection.read(row, 1)?,
                    name: connection.read(row, 2)?,
                    state: connection.read(row, 3)?,
                    reason: connection.read(row, 4)?,
                    from: connection.read(row, 5)?,
                    to: connection.read(row, 6)?,
                    attempts: connection.read(row, 7)?,
                })
            })
            .collect();
        connection.done();
        lines
    }

    /// Where the chain is broken; empty when it holds.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn chain_breaks(&self) -> Result<Vec<ChainBreak>, Error> {
        let connection = self.checkout("verify the chain").await?;
        let rows = connection.query(BREAKS, &[]).await?;
        let breaks = rows
            .iter()
            .map(|row| {
                Ok(ChainBreak {
                    problem: connection.read(row, 0)?,
                    kind: connection.read(row, 1)?,
                    name: connection.read(row, 2)?,
                    from: connection.read(row, 3)?,
                    to: connection.read(row, 4)?,
                })
            })
            .collect();
        connection.done();
        breaks
    }
}

/// From the word in the database; a word of a newer version is no hint.
fn reason(word: Option<&str>) -> Option<Reason> {
    word.and_then(|word| word.parse().ok())
}

/// From the word in the database, which a CHECK limits to the two.
pub(super) fn entity_kind(word: &str) -> EntityKind {
    if word == EntityKind::Host.as_str() {
        EntityKind::Host
    } else {
        EntityKind::Vm
    }
}
