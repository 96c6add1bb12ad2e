//! Everything of one platform, gone.
//!
//! Owns: in which order, and in which steps. Never does: touching a row of another platform, or of the audit log.
//!
//! Invariants:
//! - Only what nobody collects is wiped: a platform that was removed, or that is in maintenance. The lease is held
//!   meanwhile, and each step is a transaction behind the fence, as every write for a platform is.
//! - Samples go first and objects last, so that what is left is always found again: after a kill the next run goes on.
//! - A step touches a chunk and a few entities, through the key index, and is short.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::model::ids::PlatformId;
use crate::store::audit::{self, Entry, Kind, Outcome};
use crate::store::connect::{Checkout, Database, Settings};
use crate::store::error::{Error, Refusal};
use crate::store::lease::Lease;
use crate::store::retention::RELATIONS;
use crate::units::Stamp;

const ATTEMPT: &str = "wipe a platform";

/// A day of 50 VMs is 216,000 samples, deleted in a few seconds.
const ENTITIES_OF_SAMPLES: usize = 50;

/// Roll-ups are a fifteenth of that and less.
const ENTITIES_OF_ROLLUPS: usize = 500;

/// Rows of tables that are no hypertables.
const ROWS_AT_ONCE: i64 = 1_000;

const MAY: &str = "SELECT pg_has_role('virt_owner', 'MEMBER'), session_user::text";

/// Also what was removed, which the registry does not show.
const FIND: &str = "\
SELECT platform_id, removed_at IS NOT NULL OR in_maintenance FROM virt_platform WHERE name = $1";

/// That nobody is to collect it, until the end of the transaction.
const STILL: &str = "\
SELECT 1 FROM virt_platform
WHERE platform_id = $1 AND (removed_at IS NOT NULL OR in_maintenance) FOR SHARE";

/// Compressed chunks are opened for a delete; how much of them at once is limited for those who do not mean it.
const NO_LIMIT: &str = "\
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name = 'timescaledb.max_tuples_decompressed_per_dml_transaction'";

const CHUNKS: &str = "\
SELECT range_start, range_end FROM timescaledb_information.chunks
WHERE hypertable_schema = 'public' AND hypertable_name = $1 ORDER BY range_start";

const OF_VMS: &str = "vm_id IN (SELECT vm_id FROM virt_vm WHERE platform_id = $1)";
const OF_PLATFORM: &str = "platform_id = $1";

/// Tables that are no hypertables, those that name others first, and which of their rows are the platform's.
const TABLES: [(&str, &str); 15] = [
    ("virt_rollup_pending", OF_PLATFORM),
    ("virt_collection_gap", OF_PLATFORM),
    (
        "virt_api_idempotency",
        "operation_id IN (SELECT operation_id FROM virt_operation WHERE platform_id = $1)",
    ),
    ("virt_operation", OF_PLATFORM),
    ("virt_vm_disk", OF_VMS),
    ("virt_vm_nic", OF_VMS),
    ("virt_vm_snapshot", OF_VMS),
    ("virt_vm_placement", OF_VMS),
    ("virt_vm", OF_PLATFORM),
    ("virt_host", OF_PLATFORM),
    ("virt_datastore", OF_PLATFORM),
    // Those that others lie in come later.
    (
        "virt_resource_pool",
        "platform_id = $1 AND NOT EXISTS (SELECT FROM virt_resource_pool AS inner_pool \
         WHERE inner_pool.parent_id = virt_resource_pool.resource_pool_id)",
    ),
    ("virt_cluster", OF_PLATFORM),
    ("virt_datacenter", OF_PLATFORM),
    (
        "virt_platform_credential",
        "platform_id IN (SELECT platform_id FROM virt_platform WHERE platform_id = $1 AND removed_at IS NOT NULL)",
    ),
];

/// One that was removed goes, and its lease with it; of one in maintenance, what was found out of its server.
const END: &str = "\
WITH gone AS (
    DELETE FROM virt_platform WHERE platform_id = $1 AND removed_at IS NOT NULL RETURNING platform_id
), unleased AS (
    DELETE FROM virt_platform_lease AS lease USING gone WHERE lease.platform_id = gone.platform_id
), forgotten AS (
    UPDATE virt_platform
    SET identity = NULL, version = NULL, build = NULL, api_type = NULL, last_success_at = NULL, synced_at = NULL,
        revision = revision + 1
    WHERE platform_id = $1 AND removed_at IS NULL
)
SELECT count(*) > 0 FROM gone";

/// A part that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The table.
    pub table: &'static str,
    /// Start of the chunk, where the table has chunks.
    pub chunk: Option<Stamp>,
    /// Rows deleted.
    pub rows: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(chunk) = self.chunk {
            write!(f, " from {chunk}")?;
        }
        write!(f, ": {} rows", self.rows)
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Rows of each table that had some.
    pub rows: BTreeMap<&'static str, u64>,
    /// The platform itself is gone, too.
    pub is_gone: bool,
}

/// Deletes everything of a platform. `tell` hears of each part.
///
/// # Errors
/// When the account may not act as owner, the platform is collected or may be, or the database fails. What was deleted
/// until then is gone; the next run goes on.
pub async fn wipe(
    settings: &Settings,
    name: &str,
    tell: impl Fn(&Step) + Send + Sync,
) -> Result<Done, Error> {
    may(settings).await?;
    let database = Database::new(settings.with_options("-c role=virt_owner"))?;
    database.ready().await?;
    let platform = find(&database, name).await?;
    let Some(lease) = database.acquire_lease(platform, settings.owner()).await? else {
        return Err(Error::StillHeld {
            name: name.to_owned(),
        });
    };
    let request = Uuid::new_v4().to_string();
    let entry = |kind| Entry {
        platform: Some(name),
        ..Entry::new(kind, "command", &request, "platform.wipe")
    };
    let work = async {
        database.audit(&entry(Kind::Intent)).await?;
        let mut wiping = Wiping {
            database: &database,
            lease: &lease,
            name,
            rows: BTreeMap::new(),
            tell: &tell,
        };
        for relation in RELATIONS {
            wiping.hypertable(relation).await?;
        }
        for (table, condition) in TABLES {
            wiping.table(table, condition).await?;
        }
        let is_gone = wiping.end(entry(Kind::Outcome(Outcome::Ok))).await?;
        Ok(Done {
            rows: wiping.rows,
            is_gone,
        })
    };
    let result: Result<Done, Error> = work.await;
    match &result {
        Ok(Done { is_gone: true, .. }) => {}
        Ok(_) => database.release_lease(&lease).await?,
        Err(error) => {
            // What went wrong is what is told; these two are for whoever looks later, and run out by themselves.
            let detail = error.to_string();
            let outcome = Entry {
                detail: Some(&detail),
                ..entry(Kind::Outcome(Outcome::Error))
            };
            drop(database.audit(&outcome).await);
            drop(database.release_lease(&lease).await);
        }
    }
    database.close();
    result
}

fn collected(name: &str) -> Error {
    Error::StillCollected {
        name: name.to_owned(),
    }
}

/// Before anything is done in the name of the owner.
async fn may(settings: &Settings) -> Result<(), Error> {
    let database = Database::new(settings.clone())?;
    let connection = database.checkout(ATTEMPT).await?;
    if let Some(row) = connection.query_opt(MAY, &[]).await?
        && !connection.read::<bool>(&row, 0)?
    {
        return Err(Error::NotOwner {
            user: connection.read(&row, 1)?,
        });
    }
    connection.done();
    database.close();
    Ok(())
}

async fn find(database: &Database, name: &str) -> Result<PlatformId, Error> {
    let connection = database.checkout(ATTEMPT).await?;
    let row = connection
        .query_opt(FIND, &[(&name, Type::TEXT)])
        .await?
        .ok_or_else(|| Error::Registry {
            name: name.to_owned(),
            refusal: Refusal::Absent,
        })?;
    let (id, is_idle): (i32, bool) = (connection.read(&row, 0)?, connection.read(&row, 1)?);
    connection.done();
    if is_idle {
        Ok(PlatformId(id))
    } else {
        Err(collected(name))
    }
}

/// A platform that is being wiped.
struct Wiping<'a, T> {
    database: &'a Database,
    lease: &'a Lease,
    name: &'a str,
    rows: BTreeMap<&'static str, u64>,
    tell: &'a T,
}

impl<T: Fn(&Step) + Send + Sync> Wiping<'_, T> {
    /// A transaction of this platform, which nobody is to collect.
    async fn begin(&self) -> Result<Checkout, Error> {
        self.database.renew_lease(self.lease).await?;
        let connection = self.database.checkout(ATTEMPT).await?;
        connection.begin_fenced(self.lease).await?;
        let still = connection
            .query_opt(STILL, &[(&self.lease.platform.0, Type::INT4)])
            .await?;
        match still {
            Some(_) => Ok(connection),
            None => Err(collected(self.name)),
        }
    }

    fn count(&mut self, step: &Step) {
        if step.rows > 0 {
            *self.rows.entry(step.table).or_default() += step.rows;
            (self.tell)(step);
        }
    }

    /// Chunk by chunk, a few entities at a time.
    async fn hypertable(&mut self, relation: &'static str) -> Result<(), Error> {
        let kind = relation.split('_').nth(1).unwrap_or_default();
        let at_once = if relation.ends_with("_metrics") {
            ENTITIES_OF_SAMPLES
        } else {
            ENTITIES_OF_ROLLUPS
        };
        let delete = format!(
            "DELETE FROM {relation} WHERE {kind}_id = ANY ($1) AND collected_at >= $2 AND collected_at < $3"
        );
        let (entities, chunks) = self.extent(relation, kind).await?;
        for (start, end) in chunks {
            let mut step = Step {
                table: relation,
                chunk: Some(start),
                rows: 0,
            };
            for some in entities.chunks(at_once) {
                let connection = self.begin().await?;
                connection.query(NO_LIMIT, &[]).await?;
                step.rows += connection
                    .execute(
                        &delete,
                        &[
                            (&some, Type::INT4_ARRAY),
                            (&start, Type::TIMESTAMPTZ),
                            (&end, Type::TIMESTAMPTZ),
                        ],
                    )
                    .await?;
                connection.commit().await?;
            }
            self.count(&step);
        }
        Ok(())
    }

    /// The entities of a kind, and the chunks of a relation.
    async fn extent(&self, relation: &str, kind: &str) -> Result<(Vec<i32>, Vec<(Stamp, Stamp)>), Error> {
        let connection = self.database.checkout(ATTEMPT).await?;
        let sql = format!("SELECT {kind}_id FROM virt_{kind} WHERE platform_id = $1 ORDER BY 1");
        let rows = connection
            .query(&sql, &[(&self.lease.platform.0, Type::INT4)])
            .await?;
        let entities = rows
            .iter()
            .map(|row| connection.read(row, 0))
            .collect::<Result<_, Error>>()?;
        let rows = connection.query(CHUNKS, &[(&relation, Type::TEXT)]).await?;
        let chunks = rows
            .iter()
            .map(|row| Ok((connection.read(row, 0)?, connection.read(row, 1)?)))
            .collect::<Result<_, Error>>()?;
        connection.done();
        Ok((entities, chunks))
    }

    /// Some rows at a time.
    async fn table(&mut self, table: &'static str, condition: &str) -> Result<(), Error> {
        let delete = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {condition} LIMIT $2))"
        );
        let mut step = Step {
            table,
            chunk: None,
            rows: 0,
        };
        loop {
            let connection = self.begin().await?;
            let deleted = connection
                .execute(
                    &delete,
                    &[(&self.lease.platform.0, Type::INT4), (&ROWS_AT_ONCE, Type::INT8)],
                )
                .await?;
            connection.commit().await?;
            step.rows += deleted;
            if deleted == 0 {
                self.count(&step);
                return Ok(());
            }
        }
    }

    /// The platform itself, and what the audit log says of it. True where it is gone.
    async fn end(&mut self, outcome: Entry<'_>) -> Result<bool, Error> {
        let connection = self.begin().await?;
        let row = connection
            .query_opt(END, &[(&self.lease.platform.0, Type::INT4)])
            .await?;
        let is_gone = row.map_or(Ok(false), |row| connection.read(&row, 0))?;
        let entry = Entry {
            after: Some(json!({ "deleted": self.rows, "gone": is_gone }).to_string()),
            ..outcome
        };
        audit::insert(&connection, &entry).await?;
        connection.commit().await?;
        Ok(is_gone)
    }
}
