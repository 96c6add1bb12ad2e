//! The newest stored sample of each entity: from where the source is asked next.
//!
//! Owns: reading it from the data. Never does: keeping it; nothing is stored beside the samples themselves, so
//! rows and watermark can never disagree, also after a fail-over that lost commits.

use tokio_postgres::types::Type;

use crate::model::ids::{EntityId, EntityKind, PlatformId};
use crate::store::connect::Database;
use crate::store::error::Error;
use crate::units::Stamp;
use std::time::Duration;

/// How far back [`Database::watermarks`] looks: a day of roll-ups and one hour of ring. Chunks before it are left
/// out of the plan.
pub const LOOK_BACK: Duration = Duration::from_secs(25 * 3600);

/// One descent of the unique index per entity. Objects that were gone before the bound have no sample after it.
pub const BOUNDED_SQL: &str = "\
SELECT 'host', entity.host_id, newest.collected_at
FROM virt_host AS entity
CROSS JOIN LATERAL (
    SELECT collected_at FROM virt_host_metrics AS sample
    WHERE sample.host_id = entity.host_id AND sample.collected_at > $2 AND sample.interval_seconds = 20
    ORDER BY collected_at DESC LIMIT 1
) AS newest
WHERE entity.platform_id = $1 AND (entity.removed_at IS NULL OR entity.removed_at > $2)
UNION ALL
SELECT 'vm', entity.vm_id, newest.collected_at
FROM virt_vm AS entity
CROSS JOIN LATERAL (
    SELECT collected_at FROM virt_vm_metrics AS sample
    WHERE sample.vm_id = entity.vm_id AND sample.collected_at > $2 AND sample.interval_seconds = 20
    ORDER BY collected_at DESC LIMIT 1
) AS newest
WHERE entity.platform_id = $1 AND (entity.removed_at IS NULL OR entity.removed_at > $2)";

const UNBOUNDED: &str = "\
SELECT 'host', entity.host_id, newest.collected_at
FROM unnest($1) AS entity (host_id)
CROSS JOIN LATERAL (
    SELECT collected_at FROM virt_host_metrics AS sample
    WHERE sample.host_id = entity.host_id AND sample.interval_seconds = 20
    ORDER BY collected_at DESC LIMIT 1
) AS newest
UNION ALL
SELECT 'vm', entity.vm_id, newest.collected_at
FROM unnest($2) AS entity (vm_id)
CROSS JOIN LATERAL (
    SELECT collected_at FROM virt_vm_metrics AS sample
    WHERE sample.vm_id = entity.vm_id AND sample.interval_seconds = 20
    ORDER BY collected_at DESC LIMIT 1
) AS newest";

impl Database {
    /// The newest 20-second sample of each of a platform's entities, where there is one within [`LOOK_BACK`] of `now`,
    /// which is the database's clock: that of this machine may be wrong by more.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn watermarks(
        &self,
        platform: PlatformId,
        now: Stamp,
    ) -> Result<Vec<(EntityId, Stamp)>, Error> {
        let bound = now.minus(LOOK_BACK);
        self.newest(
            BOUNDED_SQL,
            &[(&platform.0, Type::INT4), (&bound, Type::TIMESTAMPTZ)],
        )
        .await
    }

    /// As [`Database::watermarks`] without a bound, for entities that it had nothing for and that are seen alive.
    /// Looks into every chunk: not for whole platforms in steady state.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn watermarks_unbounded(&self, entities: &[EntityId]) -> Result<Vec<(EntityId, Stamp)>, Error> {
        let of = |kind| {
            entities
                .iter()
                .filter(|e| e.kind == kind)
                .map(|e| e.id)
                .collect::<Vec<i32>>()
        };
        let (hosts, vms) = (of(EntityKind::Host), of(EntityKind::Vm));
        self.newest(UNBOUNDED, &[(&hosts, Type::INT4_ARRAY), (&vms, Type::INT4_ARRAY)])
            .await
    }

    async fn newest(
        &self,
        sql: &str,
        parameters: &[crate::store::connect::Parameter<'_>],
    ) -> Result<Vec<(EntityId, Stamp)>, Error> {
        let connection = self.checkout("read the newest stored samples").await?;
        let rows = connection.query(sql, parameters).await?;
        let newest = rows
            .iter()
            .map(|row| {
                let kind: &str = connection.read(row, 0)?;
                let entity = EntityId {
                    kind: super::gap::entity_kind(kind),
                    id: connection.read(row, 1)?,
                };
                Ok((entity, connection.read(row, 2)?))
            })
            .collect();
        connection.done();
        newest
    }
}
