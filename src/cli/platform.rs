//! `virt-collector platform`: the registry of platforms.

mod arguments;
mod shown;
mod wipe;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use self::arguments::{AcceptIdentity, Add, Command, Edit, Maintenance, Name, Remove, Switch};
use self::shown::{shown, state};
use super::check::trial_sentence;
use super::{COMMON, ConfigFile, Failure, Output, block_on, ready_database};
use crate::config;
use crate::config::{PlatformKind, Trust};
use crate::inventory::Trial;
use crate::plain;
use crate::registrar;
use crate::registrar::{FailedTrial, Registrar, trial_json};
use crate::store::Database;
use crate::store::registry::{Address, Registered};

/// For one trial: login, hosts and VMs, counters.
const TRIAL_DEADLINE: Duration = Duration::from_secs(120);

/// The vCenters and ESXi hosts that are collected.
///
/// The registry is in the database; a running service follows every change within seconds. Platforms that stand in
/// config.toml are shown here, but changed there; only maintenance is for both.
#[derive(Debug, Args)]
pub(super) struct Platform {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Command,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text, help_heading = COMMON, global = true)]
    output: Output,
}

/// What a command cannot be done with.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{key}: {message}")]
    Value { key: &'static str, message: String },
    #[error("cannot read {path}")]
    CaFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} holds no certificate; it must hold at least one in PEM form")]
    NoCertificate(PathBuf),
    #[error("say --yes for platform {0:?}; there is no terminal to ask on")]
    Unasked(String),
    #[error("platform {0:?} was left as it is")]
    Kept(String),
}

impl Platform {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        block_on(async {
            let database = ready_database(&config).await?;
            let desk = Desk {
                registrar: Registrar {
                    database: database.clone(),
                    keys: config.keys.file,
                    collection: config.collection,
                    configured: config.platforms,
                    trial_deadline: TRIAL_DEADLINE,
                },
                database,
                accounts: config.database,
                output: self.output,
            };
            desk.serve(self.command).await
        })
    }
}

/// Where commands are carried out.
struct Desk {
    registrar: Registrar,
    database: Database,
    /// For what the service itself may not do.
    accounts: config::Database,
    output: Output,
}

impl Desk {
    async fn serve(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Add(add) => self.add(add).await,
            Command::List => self.list().await,
            Command::Show(Name { name }) => self.show(&name).await,
            Command::Edit(edit) => self.edit(edit).await,
            Command::Test(Name { name }) => self.test(&name).await,
            Command::Remove(remove) => self.remove(remove).await,
            Command::Activate(Name { name }) => self.set_active(&name, true).await,
            Command::Deactivate(Name { name }) => self.set_active(&name, false).await,
            Command::Maintenance(Maintenance { name, state }) => self.maintenance(&name, state).await,
            Command::AcceptIdentity(accept) => self.accept_identity(accept).await,
            Command::Wipe(asked) => wipe::execute(&self.accounts, &asked, self.output).await,
        }
    }

    async fn find(&self, name: &str) -> Result<Registered, Failure> {
        self.database
            .registered_platform(name)
            .await
            .map_err(Failure::other)
    }

    async fn add(&self, add: Add) -> Result<(), Failure> {
        let Add {
            name,
            host,
            user,
            more,
            inactive,
        } = add;
        self.registrar.check_new(&name).await?;
        let address = Address::new(PlatformKind::VCenter, &host, 443);
        let address = more.change(Some(host), Some(user), false)?.apply(&address)?;
        let password = more
            .password
            .read(&format!("Password of {} at {}: ", address.user, address.host))?;
        let trial = self
            .registrar
            .add(&name, &address, &password, !inactive, more.untested)
            .await;
        let trial = self.unless_told(&name, trial)?;
        self.told(&name, "added", trial.as_ref(), &address.trust).await
    }

    async fn edit(&self, edit: Edit) -> Result<(), Failure> {
        let Edit {
            name,
            host,
            user,
            more,
            password,
            clear_filters,
        } = edit;
        let platform = self.find(&name).await?;
        Registrar::check_own(&platform)?;
        let address = more.change(host, user, clear_filters)?.apply(&platform.address)?;
        let new = if password || more.password.given() {
            self.registrar.check_keys()?;
            let prompt = format!("New password of {} at {}: ", address.user, address.host);
            Some(more.password.read(&prompt)?)
        } else {
            None
        };
        if new.is_none() && address == platform.address {
            // A running service would take it for a change, and start the platform anew.
            match self.output {
                Output::Text => say!("{name}: nothing to change, it is like that already"),
                Output::Json => say!(
                    "{:#}",
                    json!({ "ok": true, "platform": shown(&platform), "trial": null })
                ),
            }
            return Ok(());
        }
        let trial = self
            .registrar
            .edit(&platform, &address, new.as_ref(), more.untested)
            .await;
        let trial = self.unless_told(&name, trial)?;
        self.told(&name, "changed", trial.as_ref(), &address.trust).await
    }

    /// A program is told of a failed trial as of one that went well.
    fn unless_told(
        &self,
        name: &str,
        trial: Result<Option<Trial>, registrar::Error>,
    ) -> Result<Option<Trial>, Failure> {
        match trial {
            Err(registrar::Error::Trial { failed, .. }) if self.output == Output::Json => {
                say!("{:#}", failed_json(&failed, name));
                Err(Failure::Told)
            }
            other => Ok(other?),
        }
    }

    async fn told(
        &self,
        name: &str,
        done: &str,
        trial: Option<&Trial>,
        trust: &Trust,
    ) -> Result<(), Failure> {
        if self.output == Output::Json {
            let platform = self.find(name).await?;
            say!(
                "{:#}",
                json!({ "ok": true, "platform": shown(&platform), "trial": trial.map(trial_json) })
            );
            return Ok(());
        }
        let found = trial.map_or_else(|| "not tried".to_owned(), |trial| trial_sentence(trial, trust));
        say!("{done} {name}: {found}");
        if let Some(trial) = trial {
            let id = self.find(name).await?.id;
            // The platform is kept already: what cannot be looked up is not worth a failure.
            let twins = self
                .database
                .twins(id, &trial.about.identity)
                .await
                .unwrap_or_default();
            if !twins.is_empty() {
                say!(
                    "warning: {} collects this server, too: its objects and samples are stored more than once",
                    twins.join(", ")
                );
            }
        }
        let collectors = self.database.collectors().await.map_err(Failure::other)?;
        if collectors.live.is_empty() {
            say!("no collector runs on this database: start the service to have it collected");
        } else {
            say!("the running service follows within seconds: virt-collector platform show {name}");
        }
        Ok(())
    }

    async fn test(&self, name: &str) -> Result<(), Failure> {
        let platform = self.find(name).await?;
        let configured = self.registrar.with_password(&platform)?;
        let tried = self.registrar.try_platform(&configured).await;
        let is_well = tried.is_ok();
        match (self.output, tried) {
            (Output::Text, Ok(trial)) => {
                say!("{name}: ok: {}", trial_sentence(&trial, &configured.trust));
            }
            (Output::Text, Err(failed)) => {
                say!(
                    "{name}: FAILED [{}]: {}",
                    failed.class,
                    plain::line(&failed.reason)
                );
            }
            (Output::Json, Ok(trial)) => {
                say!(
                    "{:#}",
                    json!({ "ok": true, "name": name, "trial": trial_json(&trial) })
                );
            }
            (Output::Json, Err(failed)) => say!("{:#}", failed_json(&failed, name)),
        }
        if is_well { Ok(()) } else { Err(Failure::Told) }
    }

    async fn list(&self) -> Result<(), Failure> {
        let rows = self
            .database
            .registered_platforms()
            .await
            .map_err(Failure::other)?;
        if self.output == Output::Json {
            say!("{:#}", Value::Array(rows.iter().map(shown).collect()));
            return Ok(());
        }
        if rows.is_empty() {
            say!("no platforms; add one with: virt-collector platform add NAME --host HOST --user USER");
            return Ok(());
        }
        say!(
            "{:<20} {:<8} {:<28} {:<14} {:>6} {:>7}  SINCE",
            "NAME",
            "TYPE",
            "HOST",
            "STATUS",
            "HOSTS",
            "VMS"
        );
        for row in &rows {
            say!(
                "{:<20} {:<8} {:<28} {:<14} {:>6} {:>7}  {}",
                row.name,
                row.address.kind.as_str(),
                row.address.host,
                state(row),
                row.status.n_hosts,
                row.status.n_vms,
                row.status.since,
            );
            if let Some(reason) = &row.status.reason {
                say!("{:<20} {}", "", plain::line(reason));
            }
        }
        Ok(())
    }

    async fn show(&self, name: &str) -> Result<(), Failure> {
        let platform = shown(&self.find(name).await?);
        if self.output == Output::Json {
            say!("{platform:#}");
            return Ok(());
        }
        for (key, value) in platform.as_object().into_iter().flatten() {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                Value::Array(all) if all.is_empty() => continue,
                Value::Array(all) => all
                    .iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
                other => other.to_string(),
            };
            say!("{key:<16} {}", plain::line(&text));
        }
        Ok(())
    }

    async fn remove(&self, remove: Remove) -> Result<(), Failure> {
        let platform = self.find(&remove.name).await?;
        if !remove.yes {
            ask(&platform, "will be collected no longer")?;
        }
        self.database
            .remove_platform(&platform)
            .await
            .map_err(Failure::other)?;
        self.done(&remove.name, "removed; its objects and samples stay");
        Ok(())
    }

    async fn set_active(&self, name: &str, is_active: bool) -> Result<(), Failure> {
        let platform = self.find(name).await?;
        self.database
            .set_platform_active(&platform, is_active)
            .await
            .map_err(Failure::other)?;
        self.done(name, if is_active { "activated" } else { "deactivated" });
        Ok(())
    }

    async fn maintenance(&self, name: &str, state: Switch) -> Result<(), Failure> {
        let platform = self.find(name).await?;
        let on = state == Switch::On;
        self.database
            .set_platform_maintenance(&platform, on)
            .await
            .map_err(Failure::other)?;
        self.done(
            name,
            if on {
                "in maintenance: no polling and no session until `maintenance off`"
            } else {
                "out of maintenance; what was missed is read as far back as the source keeps it"
            },
        );
        Ok(())
    }

    async fn accept_identity(&self, accept: AcceptIdentity) -> Result<(), Failure> {
        let platform = self.find(&accept.name).await?;
        if !accept.keep_objects && !accept.yes {
            ask(&platform, "will end, and those of the new server are new ones")?;
        }
        self.database
            .accept_identity(&platform, accept.keep_objects)
            .await
            .map_err(Failure::other)?;
        self.done(&accept.name, "takes the server that answers next for its own");
        Ok(())
    }

    fn done(&self, name: &str, what: &str) {
        match self.output {
            Output::Text => say!("{name}: {what}"),
            Output::Json => say!("{:#}", json!({ "ok": true, "name": name })),
        }
    }
}

fn failed_json(failed: &FailedTrial, name: &str) -> Value {
    json!({ "ok": false, "name": name, "class": failed.class, "message": failed.reason })
}

impl From<registrar::Error> for Failure {
    fn from(error: registrar::Error) -> Self {
        match error {
            registrar::Error::Value { .. } | registrar::Error::Filter(_) => Self::usage(error),
            registrar::Error::Keys(error) => Self::from(error),
            other => Self::other(other),
        }
    }
}

/// Has a person type the platform's name.
fn ask(platform: &Registered, what: &str) -> Result<(), Failure> {
    let name = || platform.name.clone();
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure::usage(Problem::Unasked(name())));
    }
    print!(
        "{} with {} hosts and {} VMs {what}. Type its name to go on: ",
        platform.name, platform.status.n_hosts, platform.status.n_vms
    );
    std::io::stdout().flush().map_err(Failure::other)?;
    let mut typed = String::new();
    input.lock().read_line(&mut typed).map_err(Failure::other)?;
    if typed.trim() == platform.name {
        Ok(())
    } else {
        Err(Failure::other(Problem::Kept(name())))
    }
}
