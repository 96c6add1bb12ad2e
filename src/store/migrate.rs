//! The schema, in numbered steps.
//!
//! Owns: [`MIGRATIONS`] and `virt_schema_migration`. Never does: going back, or what an edition or version of the
//! extension may add; that is probed and reconciled, since it can change under a fixed schema version.
//!
//! Invariants:
//! - Each file is one transaction, and its row of `virt_schema_migration` is part of it.
//! - One run at a time: an advisory lock of the session, free again when the session ends, however it ends.
//! - A released file never changes: its checksum is stored, and pinned by a test.
//! - Everything belongs to `virt_owner`, whoever runs it.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_postgres::types::Type;

use crate::store::connect::{Dedicated, Settings, bounded};
use crate::store::error::{Cause, Error};
use crate::store::probe::{self, Applied, SchemaState};

/// One step of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Counts from 1 without holes.
    pub version: i32,
    /// What it brings.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

impl Migration {
    /// Checksum of the text, as stored with it.
    #[must_use]
    pub fn sha256(&self) -> String {
        Sha256::digest(self.sql.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// All steps in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "first",
        sql: include_str!("../../sql/migrations/0001_first.sql"),
    },
    Migration {
        version: 2,
        name: "gap_hint",
        sql: include_str!("../../sql/migrations/0002_gap_hint.sql"),
    },
    Migration {
        version: 3,
        name: "collectors",
        sql: include_str!("../../sql/migrations/0003_collectors.sql"),
    },
    Migration {
        version: 4,
        name: "inventory",
        sql: include_str!("../../sql/migrations/0004_inventory.sql"),
    },
    Migration {
        version: 5,
        name: "registry",
        sql: include_str!("../../sql/migrations/0005_registry.sql"),
    },
    Migration {
        version: 6,
        name: "admin_api",
        sql: include_str!("../../sql/migrations/0006_admin_api.sql"),
    },
    Migration {
        version: 7,
        name: "rollups",
        sql: include_str!("../../sql/migrations/0007_rollups.sql"),
    },
    Migration {
        version: 8,
        name: "rollup_lane",
        sql: include_str!("../../sql/migrations/0008_rollup_lane.sql"),
    },
    Migration {
        version: 9,
        name: "views",
        sql: include_str!("../../sql/migrations/0009_views.sql"),
    },
];

/// The roles that `sql/bootstrap.sql` makes.
const ROLES: [&str; 3] = ["virt_owner", "virt_writer", "virt_reader"];

/// "virtmigr" as a number: any constant that nobody else uses in this database.
const LOCK_KEY: i64 = 0x7669_7274_6d69_6772;

/// How long to wait for another run.
const LOCK_WAIT: &str = "SET lock_timeout = '60s'";

/// A migration waits little for locks, so that nobody queues behind it, and works as long as it needs.
const WORK: &str = "SET lock_timeout = '5s'; SET statement_timeout = 0; SET ROLE virt_owner";

/// One file may rewrite a table.
const WORK_DEADLINE: Duration = Duration::from_secs(3600);

const BOOK: &str = "\
INSERT INTO public.virt_schema_migration (version, name, sha256, took_ms) VALUES ($1, $2, $3, $4)";

/// What a migration of a database would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The database's version; 0 without tables.
    pub version: i32,
    /// Steps that are to be applied, in order.
    pub pending: Vec<&'static Migration>,
}

/// A step that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The step.
    pub migration: &'static Migration,
    /// How long it took.
    pub took: Duration,
}

/// The version this build brings a database to.
#[must_use]
pub fn newest() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// What a migration would do; changes nothing.
///
/// # Errors
/// As [`apply`], as far as that can be known before.
pub async fn plan(settings: &Settings) -> Result<Plan, Error> {
    let connection = settings.connect("migrate").await?;
    examine(&connection).await
}

/// Brings the schema to the newest version. Does nothing where it is there already.
///
/// # Errors
/// When the server cannot be worked with, roles are missing, the account may not act as owner, the schema is newer
/// than this build or was made from other texts, another run is under way, or a step fails. Steps before a failed
/// one stay.
pub async fn apply(settings: &Settings) -> Result<Vec<Done>, Error> {
    apply_telling(settings, |_| {}).await
}

/// What is told of a run.
#[derive(Debug)]
pub enum Step<'a> {
    /// So many steps are to be applied.
    Pending(usize),
    /// This one begins.
    Begins(&'static Migration),
    /// This one is applied.
    Done(&'a Done),
}

/// As [`apply`], telling of each step as it begins and ends.
///
/// # Errors
/// As [`apply`].
pub async fn apply_telling(settings: &Settings, mut tell: impl FnMut(Step<'_>)) -> Result<Vec<Done>, Error> {
    let connection = settings.connect("migrate").await?;
    // Before the lock too: an account that may not migrate gets its answer at once.
    examine(&connection).await?;
    lock(&connection).await?;
    // Again behind the lock: another run may just have ended.
    let plan = examine(&connection).await?;
    bounded("act as virt_owner", connection.batch_execute(WORK)).await?;
    tell(Step::Pending(plan.pending.len()));
    let mut done = Vec::new();
    for migration in plan.pending {
        tell(Step::Begins(migration));
        let applied = step(&connection, migration).await?;
        tell(Step::Done(&applied));
        done.push(applied);
    }
    Ok(done)
}

async fn examine(connection: &Dedicated) -> Result<Plan, Error> {
    const ATTEMPT: &str = "read roles and applied migrations";
    let probe = probe::probe(connection).await?;
    probe.require_server()?;
    let version = match &probe.schema {
        SchemaState::Missing => 0,
        SchemaState::Older(version) => *version,
        SchemaState::Current => newest(),
        SchemaState::Newer(_) | SchemaState::Altered(..) => {
            return Err(probe.require().err().unwrap_or(Error::MigrationRunning));
        }
    };
    for role in ROLES {
        let there = bounded(
            ATTEMPT,
            connection.query_typed_opt(
                "SELECT 1 FROM pg_roles WHERE rolname = $1",
                &[(&role, Type::TEXT)],
            ),
        )
        .await?;
        if there.is_none() {
            return Err(Error::MissingRole { role });
        }
    }
    let member = bounded(
        ATTEMPT,
        connection.query_typed_one(
            "SELECT pg_has_role('virt_owner', 'MEMBER'), session_user::text",
            &[],
        ),
    )
    .await?;
    let read = |source| Error::statement(ATTEMPT, source);
    if !member.try_get::<_, bool>(0).map_err(read)? {
        return Err(Error::NotOwner {
            user: member.try_get(1).map_err(read)?,
        });
    }
    let pending: Vec<_> = MIGRATIONS
        .iter()
        .filter(|migration| migration.version > version)
        .collect();
    if !pending.is_empty() {
        let prepared = bounded(
            ATTEMPT,
            connection.query_typed_one(
                "SELECT has_schema_privilege('virt_owner', 'public', 'CREATE'), current_database()::text",
                &[],
            ),
        )
        .await?;
        if !prepared.try_get::<_, bool>(0).map_err(read)? {
            return Err(Error::NotPrepared {
                database: prepared.try_get(1).map_err(read)?,
            });
        }
    }
    Ok(Plan { version, pending })
}

async fn lock(connection: &Dedicated) -> Result<(), Error> {
    const ATTEMPT: &str = "lock the schema against another migration";
    bounded(ATTEMPT, connection.batch_execute(LOCK_WAIT)).await?;
    let locked = bounded(
        ATTEMPT,
        connection.query_typed("SELECT pg_advisory_lock($1)", &[(&LOCK_KEY, Type::INT8)]),
    )
    .await;
    match locked {
        Ok(_) => Ok(()),
        Err(Error::Statement { source, .. }) if matches!(source.sqlstate(), Some("55P03" | "57014")) => {
            Err(Error::MigrationRunning)
        }
        Err(error) => Err(error),
    }
}

async fn step(connection: &Dedicated, migration: &'static Migration) -> Result<Done, Error> {
    let failed = |source| Error::Migration {
        version: migration.version,
        name: migration.name,
        source: Cause::from(source),
    };
    let start = Instant::now();
    let work = async {
        connection.batch_execute("BEGIN").await?;
        connection.batch_execute(migration.sql).await?;
        let took = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
        connection
            .execute_typed(
                BOOK,
                &[
                    (&migration.version, Type::INT4),
                    (&migration.name, Type::TEXT),
                    (&migration.sha256(), Type::TEXT),
                    (&took, Type::INT8),
                ],
            )
            .await?;
        connection.batch_execute("COMMIT").await
    };
    match tokio::time::timeout(WORK_DEADLINE, work).await {
        Ok(Ok(())) => Ok(Done {
            migration,
            took: start.elapsed(),
        }),
        Ok(Err(source)) => Err(failed(source)),
        Err(_elapsed) => Err(Error::Deadline {
            attempt: "apply a migration",
            after: WORK_DEADLINE,
        }),
    }
}

/// Compares what was applied with what this build holds.
pub(super) fn state(applied: &[Applied]) -> SchemaState {
    for row in applied {
        let Some(known) = MIGRATIONS
            .iter()
            .find(|migration| migration.version == row.version)
        else {
            return SchemaState::Newer(applied.last().map_or(row.version, |last| last.version));
        };
        if known.sha256() != row.sha256 {
            return SchemaState::Altered(row.version, row.name.clone());
        }
    }
    match applied.last().map(|last| last.version) {
        Some(version) if version == newest() => SchemaState::Current,
        Some(version) => SchemaState::Older(version),
        None => SchemaState::Older(0),
    }
}
