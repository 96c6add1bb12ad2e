//! `virt-collector migrate`: brings the schema to this version.

use clap::Args;

use super::terminal::Progress;
use super::{ConfigFile, Failure, block_on};
use crate::store;
use crate::store::Owner;
use crate::store::Settings;
use crate::store::migrate;
use crate::store::migrate::{Done, Step};
use crate::store::reader;

/// Bring the database's schema to this version.
///
/// Connects with the account of [database.owner], which must own the tables or be a member of virt_owner. Each
/// migration is one transaction; an interrupted run is continued by the next.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    file: ConfigFile,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the SQL that a superuser runs once in a new database: roles, ownership, the extension. Connects to
    /// nothing.
    #[arg(long, conflicts_with = "dry_run")]
    bootstrap_sql: bool,
    /// Make an account that reads, for Grafana and people, or repair it: everything for dashboards, no password, token
    /// or audit log, and nothing to be written. Needs an account that may create roles.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dry_run", "bootstrap_sql"])]
    reader: Option<String>,
    /// With --reader: print the SQL for a superuser instead. Connects to nothing.
    #[arg(long, requires = "reader")]
    print_sql: bool,
}

impl Migrate {
    pub(super) fn execute(self) -> Result<(), Failure> {
        if self.bootstrap_sql {
            say!("{}", store::BOOTSTRAP_SQL.trim_end());
            return Ok(());
        }
        if let (Some(name), true) = (&self.reader, self.print_sql) {
            let name = reader::Name::new(name).map_err(Failure::usage)?;
            say!("{}", reader::sql(&name).trim_end());
            return Ok(());
        }
        let database = self.file.load()?.database;
        let account = database.owner.as_ref().unwrap_or(&database.writer);
        let settings = Settings::new(&database, account, &Owner::random()).map_err(Failure::settings)?;
        block_on(async {
            if let Some(name) = &self.reader {
                let name = reader::Name::new(name).map_err(Failure::usage)?;
                let readable = reader::apply(&settings, &name).await.map_err(Failure::other)?;
                say!("{name} may read {readable} tables and views, and write nothing");
                say!("if it has no password yet, give it one in psql: \\password {name}");
                return Ok(());
            }
            if self.dry_run {
                let plan = migrate::plan(&settings).await.map_err(Failure::other)?;
                say!("schema version {} in {}", plan.version, settings.target());
                if plan.pending.is_empty() {
                    say!("nothing to do");
                }
                for migration in plan.pending {
                    say!("would apply {:04} {}", migration.version, migration.name);
                }
                return Ok(());
            }
            let mut progress = Progress::new("migrating", 0);
            let tell = |step: Step<'_>| match step {
                Step::Pending(n_steps) => progress = Progress::new("migrating", n_steps),
                Step::Begins(migration) => progress.at(migration.name),
                Step::Done(done) => {
                    let Done { migration, took } = done;
                    progress.line(&format!(
                        "applied {:04} {} in {took:.1?}",
                        migration.version, migration.name
                    ));
                    progress.step("");
                }
            };
            let done = migrate::apply_telling(&settings, tell)
                .await
                .map_err(Failure::other)?;
            drop(progress);
            if done.is_empty() {
                say!("schema version {} is current, nothing to do", migrate::newest());
            }
            Ok(())
        })
    }
}
