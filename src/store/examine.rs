//! What an account finds in its database, for `check`: rights, settings that bite later, size.

use tokio_postgres::types::Type;

use crate::store::connect::Database;
use crate::store::error::Error;

/// Tables that collection writes; the account of the service has all of them from its role.
const WRITTEN: &[&str] = &[
    "virt_platform",
    "virt_platform_lease",
    "virt_collector",
    "virt_host",
    "virt_vm",
    "virt_host_metrics",
    "virt_vm_metrics",
    "virt_datastore_metrics",
    "virt_collection_gap",
];

const EXAMINE: &str = "\
SELECT session_user::text,
       (SELECT rolsuper FROM pg_roles WHERE rolname = session_user),
       coalesce((SELECT array_agg(name ORDER BY name) FROM unnest($1) AS name
                 WHERE NOT (has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT'))), '{}'),
       current_setting('max_locks_per_transaction')::int,
       (SELECT count(*) FROM timescaledb_information.chunks),
       pg_database_size(current_database())";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The account.
    pub user: String,
    /// It may do anything.
    pub is_superuser: bool,
    /// Tables that it must write and may not.
    pub missing: Vec<String>,
    /// `max_locks_per_transaction` of the server.
    pub max_locks: i32,
    /// Chunks of all hypertables.
    pub n_chunks: i64,
    /// Of the whole database.
    pub size_bytes: i64,
}

impl Database {
    /// Looks around. The schema must be there.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn examine(&self) -> Result<Examined, Error> {
        let connection = self.checkout("read what the account may do").await?;
        let rows = connection.query(EXAMINE, &[(&WRITTEN, Type::TEXT_ARRAY)]).await?;
        let Some(row) = rows.first() else {
            return Err(Error::Settings {
                problem: "the server answered without a row".to_owned(),
            });
        };
        let examined = Examined {
            user: connection.read(row, 0)?,
            is_superuser: connection.read(row, 1)?,
            missing: connection.read(row, 2)?,
            max_locks: connection.read(row, 3)?,
            n_chunks: connection.read(row, 4)?,
            size_bytes: connection.read(row, 5)?,
        };
        connection.done();
        Ok(examined)
    }
}
