//! The inventory as the API shows it: platforms, hosts, VMs, datastores, clusters, snapshots, newest samples.
//!
//! Owns: a small pool of sessions that the server itself keeps from writing, and the SQL of these reads. Never does:
//! deciding who may read what; the caller brings the [`Scope`]. Nor showing a password: no query here names one.
//!
//! Invariants:
//! - A page follows the key, not a count: rows that come or go between two pages neither repeat nor hide others.
//! - Newest samples are looked up entity by entity on the unique index, in the chunks of the last minutes.
//! - Values reach the server as parameters only.
//! - Each read has a deadline, and the server a shorter one; reads hold [`SESSIONS`] connections at most.

mod newest;
mod record;
mod rows;
mod snapshots;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio_postgres::types::Type;

use crate::model::ids::EntityKind;
use crate::model::inventory::PowerState;
use crate::store::connect::{Database, Parameter, Settings};
use crate::store::error::Error;

pub use newest::{NEWEST_MINUTES, Newest, Number, newest_sql};
pub use record::{Field, Kind, Record};
pub use rows::{Attributes, Cluster, Datastore, Disk, Host, Nic, Platform, Vm};
pub use snapshots::{Snapshot, SnapshotNode};

/// Reads at a time; more wait for their turn.
pub const SESSIONS: usize = 4;

/// A read, its wait for a connection included.
const DEADLINE: Duration = Duration::from_secs(8);

/// What the server is told: it ends a read that takes too long, and refuses a statement that writes.
const OPTIONS: &str = "-c statement_timeout=4s -c default_transaction_read_only=on";

/// Which platforms may be seen: their names, or all.
pub type Scope = Option<Vec<String>>;

/// What is asked for. What a kind of object does not have is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// What may be seen.
    pub scope: Scope,
    /// Of these platforms; empty for all.
    pub platforms: Vec<i32>,
    /// Exactly this name.
    pub name: Option<String>,
    /// This text in the name, in any case.
    pub name_contains: Option<String>,
    /// Hosts and VMs in this state.
    pub power_state: Option<PowerState>,
    /// In this cluster.
    pub cluster: Option<i32>,
    /// On this host; of datastores, mounted by it.
    pub host: Option<i32>,
    /// With a disk on this datastore; of hosts, with it mounted.
    pub datastore: Option<i32>,
    /// Those that are gone, instead of those that are there.
    pub removed: bool,
}

/// Part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Behind this key; 0 from the start.
    pub after: i32,
    /// Rows at most.
    pub limit: u16,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The rows, by key.
    pub rows: Vec<T>,
    /// The key that the next page comes after; `None` where this is the last one.
    pub next: Option<i32>,
}

/// Reads the inventory. Clones share the sessions.
#[derive(Debug, Clone)]
pub struct Reader {
    database: Database,
}

impl Reader {
    /// Sessions of its own, opened when they are first used.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            database: Database::sized(settings.reading(OPTIONS), SESSIONS, 0)?,
        })
    }

    /// Closes the sessions; later use fails.
    pub fn close(&self) {
        self.database.close();
    }

    /// A page of the objects of one kind, by key.
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn list<T: Record>(&self, filter: &Filter, page: Page) -> Result<Listed<T>, Error> {
        let limit = i64::from(page.limit);
        let more = limit + 1;
        let power = filter.power_state.map(PowerState::as_str);
        let parameters: [Parameter<'_>; 11] = [
            (&filter.scope, Type::TEXT_ARRAY),
            (&filter.platforms, Type::INT4_ARRAY),
            (&filter.name, Type::TEXT),
            (&filter.name_contains, Type::TEXT),
            (&power, Type::TEXT),
            (&filter.cluster, Type::INT4),
            (&filter.host, Type::INT4),
            (&filter.datastore, Type::INT4),
            (&filter.removed, Type::BOOL),
            (&page.after, Type::INT4),
            (&more, Type::INT8),
        ];
        let mut rows = self.read_all(&record::list_sql::<T>(), &parameters).await?;
        let next = if rows.len() > usize::from(page.limit) {
            rows.truncate(usize::from(page.limit));
            rows.last().map(Record::key)
        } else {
            None
        };
        Ok(Listed { rows, next })
    }

    /// One object by its key, also one that is gone; `None` where there is none within the scope.
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn find<T: Record>(&self, scope: &Scope, key: i32) -> Result<Option<T>, Error> {
        let parameters: [Parameter<'_>; 2] = [(scope, Type::TEXT_ARRAY), (&key, Type::INT4)];
        let rows = self.read_all(&record::find_sql::<T>(), &parameters).await?;
        Ok(rows.into_iter().next())
    }

    /// Disks of a VM that are there.
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn disks(&self, vm: i32) -> Result<Vec<Disk>, Error> {
        self.read_all(&record::parts_sql::<Disk>(), &[(&vm, Type::INT4)])
            .await
    }

    /// Network adapters of a VM that are there.
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn nics(&self, vm: i32) -> Result<Vec<Nic>, Error> {
        self.read_all(&record::parts_sql::<Nic>(), &[(&vm, Type::INT4)])
            .await
    }

    /// The snapshots of a VM that are there, as trees.
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn snapshots(&self, vm: i32) -> Result<Vec<SnapshotNode>, Error> {
        let rows = self
            .read_all(&record::parts_sql::<Snapshot>(), &[(&vm, Type::INT4)])
            .await?;
        Ok(snapshots::trees(rows))
    }

    /// The newest sample of each of these entities, where there is one of the last [`NEWEST_MINUTES`].
    ///
    /// # Errors
    /// When the database cannot be asked in time.
    pub async fn newest(&self, kind: EntityKind, entities: &[i32]) -> Result<HashMap<i32, Newest>, Error> {
        let attempt = "read the newest samples";
        in_time(attempt, async {
            let connection = self.database.checkout(attempt).await?;
            let rows = connection
                .query(newest_sql(kind), &[(&entities, Type::INT4_ARRAY)])
                .await?;
            let samples = rows
                .iter()
                .map(|row| newest::read(&connection, kind, row))
                .collect();
            connection.done();
            samples
        })
        .await
    }

    async fn read_all<T: Record>(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<T>, Error> {
        in_time(T::ATTEMPT, async {
            let connection = self.database.checkout(T::ATTEMPT).await?;
            let rows = connection.query(sql, parameters).await?;
            let records = rows.iter().map(|row| record::read(&connection, row)).collect();
            connection.done();
            records
        })
        .await
    }
}

async fn in_time<T>(attempt: &'static str, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(DEADLINE, read)
        .await
        .unwrap_or(Err(Error::Deadline {
            attempt,
            after: DEADLINE,
        }))
}
