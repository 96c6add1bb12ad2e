//! Fills a database with the rows that the oracle expects, so that a test can break them one by one.
//!
//! Owns: the schema from the migration files, the inventory and the rows of a truth, and an explained gap row over
//! every step. Never does: anything through the collector.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::SinkExt as _;
use tokio_postgres::Client;
use vsphere_simulator::{Entity, EntityKind, PlatformKind, Truth};

use crate::database::{self, Database, Role};
use crate::oracle::columns::{Columns, Expected, Moment, rules};
use crate::oracle::rows::table;

/// Why the database is not filled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Connection(#[from] database::Error),
    /// The migrations cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A migration fails.
    #[error("{} fails", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The database refuses a row.
    #[error("cannot load rows")]
    Load(#[from] tokio_postgres::Error),
}

/// What was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Key of the platform.
    pub platform: i32,
    /// Rows.
    pub rows: u64,
    /// Gap rows.
    pub gaps: u64,
}

/// Executes the migration files in the order of their names, as the owner.
///
/// # Errors
/// When one cannot be read or fails.
pub async fn schema(database: &Database) -> Result<(), Error> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql/migrations");
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let mut files = std::fs::read_dir(&directory)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(file(&directory))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let owner = database.connect(Role::Owner).await?;
    for path in files {
        let sql = std::fs::read_to_string(&path).map_err(file(&path))?;
        owner
            .batch_execute(&sql)
            .await
            .map_err(|source| Error::Migration { path, source })?;
    }
    Ok(())
}

/// Loads a platform: all hosts and VMs of the truth, their samples with `from <= stamp <= to` (seconds), and an
/// explained gap row over each step between these.
///
/// # Errors
/// When the database refuses.
pub async fn load(
    client: &Client,
    platform_name: &str,
    truth: &Truth,
    from: i64,
    to: i64,
) -> Result<Loaded, Error> {
    let kind = match truth.kind {
        PlatformKind::Vcenter => "vcenter",
        PlatformKind::Esxi => "esxi",
    };
    let platform: i32 = client
        .query_one(
            "INSERT INTO virt_platform (name, type, host, port) VALUES ($1, $2, 'localhost', 443) RETURNING platform_id",
            &[&platform_name, &kind],
        )
        .await?
        .get(0);
    let mut loaded = Loaded {
        platform,
        rows: 0,
        gaps: 0,
    };
    let mut hosts: HashMap<&str, i32> = HashMap::new();
    for kind in [EntityKind::Host, EntityKind::Vm] {
        let mut text = String::new();
        let mut gaps = String::new();
        for entity in truth.entities().filter(|entity| entity.kind() == kind) {
            let key = register(client, platform, entity).await?;
            if kind == EntityKind::Host {
                hosts.insert(entity.moref(), key);
            }
            let columns = Columns::of(entity);
            let mut before = None;
            for sample in entity.samples(from, to) {
                push_row(
                    &mut text,
                    key,
                    &columns,
                    &Moment::of(&sample),
                    (kind == EntityKind::Vm).then(|| hosts.get(sample.host)),
                );
                loaded.rows += 1;
                if let Some(before) = before.filter(|before| sample.stamp - before > 30) {
                    let word = if kind == EntityKind::Host { "host" } else { "vm" };
                    let (from, to) = (time(before), time(sample.stamp));
                    // Writing to a String cannot fail.
                    writeln!(
                        gaps,
                        "{platform}\t{word}\t{key}\t{from}\t{to}\texplained\tnot_published"
                    )
                    .unwrap_or_default();
                    loaded.gaps += 1;
                }
                before = Some(sample.stamp);
            }
        }
        let names = rules(kind)
            .iter()
            .map(|rule| rule.name)
            .collect::<Vec<_>>()
            .join(", ");
        let head = match kind {
            EntityKind::Host => "host_id, collected_at, interval_seconds",
            EntityKind::Vm => "vm_id, collected_at, interval_seconds, host_id, vcpu_count",
        };
        copy(client, &format!("{} ({head}, {names})", table(kind).name), text).await?;
        let gap_columns = "platform_id, entity_kind, entity_id, from_time, to_time, state, reason";
        copy(client, &format!("virt_collection_gap ({gap_columns})"), gaps).await?;
    }
    Ok(loaded)
}

async fn register(client: &Client, platform: i32, entity: Entity<'_>) -> Result<i32, Error> {
    let record = entity.record();
    let newest = record.runs.last();
    let cpus = newest.and_then(|run| i32::try_from(run.vcpus).ok());
    let power = if newest.is_some_and(|run| run.last_stamp.is_none()) {
        "on"
    } else {
        "off"
    };
    let row = match entity.kind() {
        EntityKind::Host => {
            let sql = "INSERT INTO virt_host (platform_id, moref, name, power_state, is_connected, in_maintenance, \
                       thread_count, first_seen_at) VALUES ($1, $2, $3, $4, true, false, $5, now()) RETURNING host_id";
            client
                .query_one(sql, &[&platform, &entity.moref(), &entity.name(), &power, &cpus])
                .await?
        }
        EntityKind::Vm => {
            let sql = "INSERT INTO virt_vm (platform_id, moref, name, power_state, is_connected, vcpu_count, \
                       is_template, first_seen_at) VALUES ($1, $2, $3, $4, true, $5, $6, now()) RETURNING vm_id";
            let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[
                &platform,
                &entity.moref(),
                &entity.name(),
                &power,
                &cpus,
                &record.template,
            ];
            client.query_one(sql, parameters).await?
        }
    };
    Ok(row.get(0))
}

/// One line of a COPY in text form. `placement` is there for VMs.
fn push_row(
    text: &mut String,
    key: i32,
    columns: &Columns<'_>,
    moment: &Moment,
    placement: Option<Option<&i32>>,
) {
    let mut write = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        text.write_fmt(arguments).unwrap_or_default();
    };
    write(format_args!("{key}\t{}\t{}", time(moment.stamp), moment.interval));
    if let Some(host) = placement {
        match host {
            Some(host) => write(format_args!("\t{host}\t{}", moment.cpus)),
            None => write(format_args!("\t\\N\t{}", moment.cpus)),
        }
    }
    for expected in columns.expected(*moment) {
        match expected {
            Expected::Null => write(format_args!("\t\\N")),
            Expected::Exact(_) | Expected::Rounded(_) => write(format_args!("\t{expected}")),
        }
    }
    write(format_args!("\n"));
}

async fn copy(client: &Client, target: &str, text: String) -> Result<(), Error> {
    let sink = client.copy_in(&format!("COPY {target} FROM STDIN")).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(hyper::body::Bytes::from(text)).await?;
    sink.finish().await?;
    Ok(())
}

fn time(stamp: i64) -> String {
    jiff::Timestamp::from_second(stamp)
        .map_or_else(|_out_of_range| "infinity".to_owned(), |time| time.to_string())
}
