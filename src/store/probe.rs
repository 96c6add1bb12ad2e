//! What the server is: versions, edition, schema.
//!
//! Owns: [`Probe`] and the judgement whether this version can work with it. Asked at start, by `check`, and by each
//! new COPY connection, since an upgrade of server, extension or schema happens between two connections.

use std::fmt;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::store::connect::{Database, bounded};
use crate::store::error::Error;
use crate::store::migrate;

/// Oldest supported PostgreSQL.
pub const LEAST_POSTGRES: u32 = 14;
/// Oldest supported TimescaleDB.
pub const LEAST_TIMESCALE: &str = "2.13";
const LEAST_TIMESCALE_PARTS: (u32, u32) = (2, 13);

const ATTEMPT: &str = "read the versions of server, extension and schema";

/// The licence counts only where the extension is created: the setting exists wherever the library is loaded.
const SERVER: &str = "\
SELECT current_database()::text,
       current_setting('server_version_num')::int,
       current_setting('server_version'),
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'),
       current_setting('timescaledb.license', true),
       pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool,
       to_regclass('public.virt_schema_migration') IS NOT NULL";

const APPLIED: &str = "SELECT version, name, sha256 FROM public.virt_schema_migration ORDER BY version";

/// Which TimescaleDB it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edition {
    /// Apache-2 only: all that is needed.
    Apache,
    /// Timescale licence, which adds columnstore compression.
    Community,
}

impl Edition {
    /// The word in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apache => "apache",
            Self::Community => "community",
        }
    }
}

impl fmt::Display for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apache => "Apache-2 edition",
            Self::Community => "Community edition (Timescale License)",
        })
    }
}

/// The schema against the one this version holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaState {
    /// No tables yet.
    Missing,
    /// Migrations are pending; holds the database's version.
    Older(i32),
    /// As this version needs it.
    Current,
    /// Migrated by a newer version; holds the database's version.
    Newer(i32),
    /// A migration was applied from another text; holds its version and name.
    Altered(i32, String),
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The database.
    pub database: String,
    /// Such as 15.20.
    pub postgres: String,
    /// The extension's version, where it is created in the database.
    pub timescale: Option<String>,
    /// The version that could be created.
    pub timescale_available: Option<String>,
    /// Apache or Community.
    pub edition: Edition,
    /// False on a standby.
    pub writable: bool,
    /// The schema.
    pub schema: SchemaState,
    postgres_number: i32,
}

impl Probe {
    /// Whether the server and the extension can be worked with, whatever the schema.
    ///
    /// # Errors
    /// One sentence with what to do, where not.
    pub fn require_server(&self) -> Result<(), Error> {
        if u32::try_from(self.postgres_number / 10_000).unwrap_or(0) < LEAST_POSTGRES {
            return Err(Error::PostgresTooOld {
                found: self.postgres.clone(),
            });
        }
        match (&self.timescale, &self.timescale_available) {
            (Some(found), _) if is_too_old(found) => Err(Error::TimescaleTooOld { found: found.clone() }),
            (Some(_), _) => Ok(()),
            (None, Some(available)) => Err(Error::ExtensionNotCreated {
                database: self.database.clone(),
                available: available.clone(),
            }),
            (None, None) => Err(Error::ExtensionNotInstalled {
                database: self.database.clone(),
            }),
        }
    }

    /// Whether this version can work with the database as it is.
    ///
    /// # Errors
    /// One sentence with what to do, where not.
    pub fn require(&self) -> Result<(), Error> {
        self.require_server()?;
        let newest = migrate::newest();
        match &self.schema {
            SchemaState::Current => Ok(()),
            SchemaState::Missing => Err(Error::SchemaMissing {
                database: self.database.clone(),
            }),
            SchemaState::Older(found) => Err(Error::SchemaOlder {
                found: *found,
                needed: newest,
            }),
            SchemaState::Newer(found) => Err(Error::SchemaNewer {
                found: *found,
                known: newest,
            }),
            SchemaState::Altered(version, name) => Err(Error::Checksum {
                version: *version,
                name: name.clone(),
            }),
        }
    }
}

/// One line for people.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.postgres)?;
        match &self.timescale {
            Some(version) => write!(f, ", TimescaleDB {version} ({})", self.edition)?,
            None => f.write_str(", no TimescaleDB")?,
        }
        match &self.schema {
            SchemaState::Missing => f.write_str(", no schema"),
            SchemaState::Current => write!(f, ", schema {}", migrate::newest()),
            SchemaState::Older(version) | SchemaState::Newer(version) | SchemaState::Altered(version, _) => {
                write!(f, ", schema {version}")
            }
        }
    }
}

/// A version whose first two numbers cannot be read is a build of its own, and taken for new.
fn is_too_old(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < LEAST_TIMESCALE_PARTS,
        _ => false,
    }
}

impl Database {
    /// Asks the server what it is.
    ///
    /// # Errors
    /// When it cannot be asked. What it answers is judged by [`Probe::require`].
    pub async fn probe(&self) -> Result<Probe, Error> {
        let connection = self.checkout(ATTEMPT).await?;
        let probe = probe(connection.client()?).await?;
        connection.done();
        Ok(probe)
    }

    /// As [`Database::probe`], and an error where this version cannot work with what it found.
    ///
    /// # Errors
    /// One sentence with what to do.
    pub async fn ready(&self) -> Result<Probe, Error> {
        let probe = self.probe().await?;
        probe.require()?;
        Ok(probe)
    }
}

pub(super) async fn probe(client: &Client) -> Result<Probe, Error> {
    let refused = |source| Error::statement(ATTEMPT, source);
    let row = bounded(ATTEMPT, client.query_typed_one(SERVER, &[])).await?;
    let timescale: Option<String> = row.try_get(3).map_err(refused)?;
    let licence: Option<String> = row.try_get(5).map_err(refused)?;
    let has_schema: bool = row.try_get(7).map_err(refused)?;
    let read_only: bool = row.try_get(6).map_err(refused)?;
    let schema = if has_schema {
        migrate::state(&applied(client).await?)
    } else {
        SchemaState::Missing
    };
    Ok(Probe {
        database: row.try_get(0).map_err(refused)?,
        postgres: row.try_get(2).map_err(refused)?,
        timescale_available: row.try_get(4).map_err(refused)?,
        edition: if timescale.is_some() && licence.as_deref() == Some("timescale") {
            Edition::Community
        } else {
            Edition::Apache
        },
        timescale,
        writable: !read_only,
        schema,
        postgres_number: row.try_get(1).map_err(refused)?,
    })
}

/// A migration as the database remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) version: i32,
    pub(super) name: String,
    pub(super) sha256: String,
}

pub(super) async fn applied(client: &Client) -> Result<Vec<Applied>, Error> {
    let no_types: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 0] = [];
    let rows = bounded(ATTEMPT, client.query_typed(APPLIED, &no_types)).await?;
    let read = |row: &Row| {
        Ok(Applied {
            version: row.try_get(0)?,
            name: row.try_get(1)?,
            sha256: row.try_get(2)?,
        })
    };
    rows.iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::statement(ATTEMPT, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Probe {
        Probe {
            database: "virt".to_owned(),
            postgres: "15.20".to_owned(),
            timescale: Some("2.19.3".to_owned()),
            timescale_available: Some("2.19.3".to_owned()),
            edition: Edition::Apache,
            writable: true,
            schema: SchemaState::Current,
            postgres_number: 150_020,
        }
    }

    #[test]
    fn what_cannot_be_worked_with_is_one_sentence_with_the_fix() {
        assert!(found().require().is_ok());
        let none = Probe {
            timescale: None,
            ..found()
        };
        for (probe, part) in [
            (
                Probe {
                    postgres: "13.9".to_owned(),
                    postgres_number: 130_009,
                    ..found()
                },
                "PostgreSQL 14 or newer",
            ),
            (
                Probe {
                    timescale: Some("2.9.1".to_owned()),
                    ..found()
                },
                "ALTER EXTENSION timescaledb UPDATE",
            ),
            (
                none.clone(),
                "2.19.3 is available but not created in database \"virt\": run CREATE EXTENSION",
            ),
            (
                Probe {
                    timescale_available: None,
                    ..none
                },
                "not installed on the server",
            ),
            (
                Probe {
                    schema: SchemaState::Missing,
                    ..found()
                },
                "run virt-collector migrate",
            ),
            (
                Probe {
                    schema: SchemaState::Older(0),
                    ..found()
                },
                "run virt-collector migrate",
            ),
            (
                Probe {
                    schema: SchemaState::Newer(99),
                    ..found()
                },
                "version 99, this virt-collector knows only",
            ),
            (
                Probe {
                    schema: SchemaState::Altered(1, "x".to_owned()),
                    ..found()
                },
                "migration 1 (x)",
            ),
        ] {
            let error = probe.require().unwrap_err().to_string();
            assert!(error.contains(part), "{part}\n{error}");
        }
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (version, old) in [
            ("2.9.3", true),
            ("2.13.0", false),
            ("2.20.0-dev", false),
            ("3.0", false),
            ("x", false),
        ] {
            assert_eq!(is_too_old(version), old, "{version}");
        }
    }
}
