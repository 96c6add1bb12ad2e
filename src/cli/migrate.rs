//! `virt-collector migrate`: brings the schema to this version.

use clap::Args;

use super::terminal::Progress;
use super::{ConfigFile, Failure, block_on};
use crate::store;
use crate::store::Owner;
use crate::store::Settings;
use crate::store::migrate;
use crate::store::migrate::{Done, Step};

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
}

impl Migrate {
    pub(super) fn execute(self) -> Result<(), Failure> {
        if self.bootstrap_sql {
            say!("{}", store::BOOTSTRAP_SQL.trim_end());
            return Ok(());
        }
        let database = self.file.load()?.database;
        let account = database.owner.as_ref().unwrap_or(&database.writer);
        let settings = Settings::new(&database, account, &Owner::random()).map_err(Failure::settings)?;
        block_on(async {
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
