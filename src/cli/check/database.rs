//! The database: connection, way to it, versions, schema, rights of the account, settings that bite later.

use std::path::Path;

use super::{Report, Tried};
use crate::config;
use crate::config::{Config, Keep, Password};
use crate::error::Chain;
use crate::store;
use crate::store::credential::Credential;
use crate::store::migrate;
use crate::store::registry::{Registered, Source};
use crate::store::retention::{Compression, InForce};
use crate::store::{Database, Edition, Examined, Owner, SchemaState, Settings, Transport};

const NAME: &str = "database";

/// PostgreSQL's default of 64 is too few for tables with many chunks.
const LEAST_LOCKS: i32 = 128;

/// What others go on with; nothing where the database cannot be used.
#[derive(Debug, Default)]
pub(super) struct Found {
    rows: Vec<Registered>,
    /// The database was read, and knows none.
    pub(super) has_no_platform: bool,
    pub(super) credentials: Vec<Credential>,
}

impl Found {
    /// Platforms of the registry that are to be collected.
    pub(super) fn registered(&self, keys: &Path) -> Vec<config::Platform> {
        let rows = self
            .rows
            .iter()
            .filter(|row| row.source == Source::Registry && row.is_active && !row.in_maintenance);
        rows.map(|row| {
            row.address
                .platform(&row.name, Password::Sealed(row.password(keys)))
        })
        .collect()
    }
}

pub(super) async fn examine(config: &Config, settings: Settings, report: &mut Report) -> Found {
    match look(config, settings, report).await {
        Ok(found) => found,
        Err((thing, error)) => {
            report.add(Tried::failed(NAME, thing, Chain(&error).to_string()));
            Found::default()
        }
    }
}

async fn look(
    config: &Config,
    settings: Settings,
    report: &mut Report,
) -> Result<Found, (&'static str, store::Error)> {
    let at = |thing: &'static str| move |error| (thing, error);
    let target = settings.target().to_owned();
    let transport = settings.transport();
    let database = Database::new(settings).map_err(at("connection"))?;
    let probe = database.probe().await.map_err(at("connection"))?;
    report.add(Tried::well(NAME, "connection", target));
    report.add(match transport {
        Transport::Local => Tried::well(NAME, "tls", "not needed: the way does not leave this machine"),
        Transport::Verified => Tried::well(NAME, "tls", "certificate and name of the server are verified"),
        Transport::Plain => Tried::note(
            NAME,
            "tls",
            "none: passwords and samples cross the network in the clear; remove sslmode = \"disable\"",
        ),
    });
    probe.require_server().map_err(at("version"))?;
    let timescale = probe.timescale.as_deref().unwrap_or_default();
    report.add(Tried::well(
        NAME,
        "version",
        format!(
            "PostgreSQL {}, TimescaleDB {timescale} ({})",
            probe.postgres, probe.edition
        ),
    ));
    if !probe.writable {
        report.add(Tried::failed(
            NAME,
            "writable",
            "the server is a standby or read-only: name the primary in url, or all servers of the cluster",
        ));
    }
    if let Some(owner) = &config.database.owner
        && probe.schema != SchemaState::Current
    {
        // Whether `migrate`, which is what is to be done next, will be let in.
        let settings = Settings::new(&config.database, owner, &Owner::random());
        let plan = async {
            migrate::plan(&settings.map_err(at("owner"))?)
                .await
                .map_err(at("owner"))
        };
        let plan = plan.await?;
        report.add(Tried::well(
            NAME,
            "owner",
            format!(
                "may migrate, {} to apply",
                crate::cli::counted(plan.pending.len(), "step")
            ),
        ));
    }
    probe.require().map_err(at("schema"))?;
    report.add(Tried::well(
        NAME,
        "schema",
        format!("version {}, current", migrate::newest()),
    ));
    let examined = database.examine().await.map_err(at("rights"))?;
    report.add(rights(&examined));
    if !examined.missing.is_empty() {
        return Ok(Found::default());
    }
    report.add(locks(&examined));
    let in_force = database.retention_in_force().await.map_err(at("retention"))?;
    report.add(retention(&config.retention, &in_force, probe.edition));
    let rows = database.registered_platforms().await.map_err(at("registry"))?;
    Ok(Found {
        has_no_platform: rows.is_empty(),
        rows,
        credentials: database.credentials().await.map_err(at("registry"))?,
    })
}

fn rights(examined: &Examined) -> Tried {
    let Examined {
        user,
        is_superuser,
        missing,
        ..
    } = examined;
    match missing.as_slice() {
        [] if *is_superuser => Tried::note(
            NAME,
            "rights",
            format!("{user} is a superuser; the service needs no more than the role virt_writer"),
        ),
        [] => Tried::well(NAME, "rights", format!("{user} may write what is collected")),
        tables => Tried::failed(
            NAME,
            "rights",
            format!(
                "{user} may not write {}: connect as virt_writer, or run GRANT virt_writer TO {user}",
                tables.join(", ")
            ),
        ),
    }
}

fn locks(examined: &Examined) -> Tried {
    let Examined {
        max_locks,
        n_chunks,
        size_bytes,
        ..
    } = examined;
    let size = format!("{:.1} GB in {n_chunks} chunks", *size_bytes as f64 / 1e9);
    if *max_locks < LEAST_LOCKS {
        Tried::note(
            NAME,
            "size",
            format!(
                "{size}; max_locks_per_transaction is {max_locks}: set it to 256 and restart the server before there \
                 are hundreds of chunks, or reading many of them ends in \"out of shared memory\""
            ),
        )
    } else {
        Tried::well(NAME, "size", size)
    }
}

/// What is kept by this file, and whether the database was told so.
fn retention(kept: &config::Retention, in_force: &InForce, edition: Edition) -> Tried {
    let config::Retention {
        raw,
        five_minutes,
        hour,
        day,
        compress_after,
    } = kept;
    let mut message =
        format!("samples {raw}, roll-ups by 5 minutes {five_minutes}, by hour {hour}, by day {day}");
    if in_force.days.is_empty() {
        message.push_str("; in force once the service runs");
    } else if !in_force.is(kept) {
        message.push_str("; the service has others: reload or start it");
    }
    message.push_str("; ");
    match (edition, &in_force.compress_after, compress_after) {
        (Edition::Apache, ..) => message.push_str(&Compression::Edition.to_string()),
        (_, Some(age), _) => message.push_str(&format!("samples are compressed after {age}")),
        (_, None, Keep::Forever) => message.push_str(&Compression::Off.to_string()),
        (_, None, Keep::Days(_)) => message.push_str(
            "samples are not compressed yet: the service turns it on at its next start, with TimescaleDB 2.18.1 or newer",
        ),
    }
    Tried::well(NAME, "retention", message)
}
