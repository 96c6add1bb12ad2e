//! `virt-collector platform`: the registry of platforms.

mod arguments;
mod shown;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use self::arguments::{AcceptIdentity, Add, Command, Edit, Maintenance, Name, Remove, Switch};
use self::shown::{shown, state, trial_json};
use super::check::trial_sentence;
use super::{ConfigFile, Failure, Output, block_on, ready_database};
use crate::clock::{SystemClock, WallClock as _};
use crate::config;
use crate::config::{Config, PlatformKind, Trust};
use crate::error::Chain;
use crate::model::filter::Filter;
use crate::model::ids::PlatformId;
use crate::secret::{Place, Sealed, Secret, key_file};
use crate::store;
use crate::store::Database;
use crate::store::registry::{Address, Registered, Source};
use crate::vsphere;
use crate::vsphere::{Trial, Vsphere};

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
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
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
    #[error("nothing was kept: the trial of platform {name:?} failed [{class}]: {reason}")]
    Trial {
        name: String,
        class: &'static str,
        reason: String,
    },
    #[error("platform {0:?} is not in this config.toml, so that its password is not known here")]
    NotHere(String),
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
                config,
                database,
                output: self.output,
            };
            desk.serve(self.command).await
        })
    }
}

/// Where commands are carried out.
struct Desk {
    config: Config,
    database: Database,
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
        if let Some(message) = config::name_problem(&name) {
            return Err(Failure::usage(Problem::Value { key: "name", message }));
        }
        self.refuse_taken(&name).await?;
        // Before anybody is asked for a password in vain.
        key_file::load(&self.config.keys.file)?;
        let kind = more.kind.map_or(PlatformKind::VCenter, PlatformKind::from);
        let mut address = Address::new(kind, &host, more.port.unwrap_or(443));
        address.user = user;
        more.apply(&mut address)?;
        let password = more
            .password
            .read(&format!("Password of {} at {host}: ", address.user))?;
        let trial = self.trial(&name, &address, &password, more.untested).await?;
        let adding = self.database.add_platform(&name, &address, !inactive).await;
        let adding = adding.map_err(Failure::other)?;
        let sealed = self.seal(adding.id(), &password)?;
        adding.finish(&sealed).await.map_err(Failure::other)?;
        self.told(&name, "added", trial.as_ref(), &address.trust).await
    }

    async fn refuse_taken(&self, name: &str) -> Result<(), Failure> {
        let rows = self
            .database
            .registered_platforms()
            .await
            .map_err(Failure::other)?;
        let taken = rows.iter().any(|row| row.name == name)
            || self.config.platforms.iter().any(|platform| platform.name == name);
        if taken {
            return Err(Failure::other(store::Error::Registry {
                name: name.to_owned(),
                refusal: store::Refusal::Exists,
            }));
        }
        Ok(())
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
        if platform.source == Source::Config {
            return Err(Failure::other(store::Error::Registry {
                name,
                refusal: store::Refusal::Provisioned,
            }));
        }
        let mut address = platform.address.clone();
        if clear_filters {
            address.filter = Filter::default();
        }
        if let Some(kind) = more.kind {
            address.kind = kind.into();
        }
        address.host = host.unwrap_or(address.host);
        address.user = user.unwrap_or(address.user);
        address.port = more.port.unwrap_or(address.port);
        more.apply(&mut address)?;
        let is_new = password || more.password.given();
        let password = if is_new {
            key_file::load(&self.config.keys.file)?;
            let prompt = format!("New password of {} at {}: ", address.user, address.host);
            Some(more.password.read(&prompt)?)
        } else if more.untested {
            None
        } else {
            let stored = platform.password(&self.config.keys.file);
            Some(stored.open().map_err(Failure::other)?)
        };
        let trial = match &password {
            Some(password) => self.trial(&name, &address, password, more.untested).await?,
            None => None,
        };
        let new = password.filter(|_| is_new);
        let sealed = new
            .map(|password| self.seal(platform.id, &password))
            .transpose()?;
        self.database
            .edit_platform(&platform, &address, sealed.as_ref())
            .await
            .map_err(Failure::other)?;
        self.told(&name, "changed", trial.as_ref(), &address.trust).await
    }

    /// With the key that is primary now: a trial may have taken two minutes.
    fn seal(&self, id: PlatformId, password: &Secret) -> Result<Sealed, Failure> {
        let ring = key_file::load(&self.config.keys.file)?;
        ring.seal(Place::password_of(id.0), password)
            .map_err(Failure::other)
    }

    /// Tries the platform; `None` where nobody wants to know.
    async fn trial(
        &self,
        name: &str,
        address: &Address,
        password: &Secret,
        untested: bool,
    ) -> Result<Option<Trial>, Failure> {
        let platform = address.platform(name, config::Password::Given(password.clone()));
        let options = vsphere::Options::new(&platform, &self.config.collection);
        // A CA file that cannot be used is nothing to keep, tried or not.
        Vsphere::new(options).map_err(Failure::other)?;
        if untested {
            return Ok(None);
        }
        match self.try_platform(&platform).await {
            Ok(trial) => Ok(Some(trial)),
            Err(failed) => {
                if self.output == Output::Json {
                    say!("{:#}", failed.json(name));
                    return Err(Failure::Told);
                }
                Err(Failure::other(Problem::Trial {
                    name: name.to_owned(),
                    class: failed.class,
                    reason: failed.reason,
                }))
            }
        }
    }

    async fn try_platform(&self, platform: &config::Platform) -> Result<Trial, FailedTrial> {
        let options = vsphere::Options::new(platform, &self.config.collection);
        let tried = vsphere::try_platform(options, || SystemClock.now());
        match tokio::time::timeout(TRIAL_DEADLINE, tried).await {
            Ok(Ok(trial)) => Ok(trial),
            Ok(Err(error)) => Err(FailedTrial {
                class: error.class().as_str(),
                reason: Chain(&error).to_string(),
            }),
            Err(_elapsed) => Err(FailedTrial {
                class: "timeout",
                reason: format!(
                    "no end after {} s; is the server very slow?",
                    TRIAL_DEADLINE.as_secs()
                ),
            }),
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
        let configured = match platform.source {
            Source::Config => {
                let here = self
                    .config
                    .platforms
                    .iter()
                    .find(|platform| platform.name == name);
                here.cloned()
                    .ok_or_else(|| Failure::other(Problem::NotHere(name.to_owned())))?
            }
            Source::Registry => platform.address.platform(
                name,
                config::Password::Sealed(platform.password(&self.config.keys.file)),
            ),
        };
        let tried = self.try_platform(&configured).await;
        let is_well = tried.is_ok();
        match (self.output, tried) {
            (Output::Text, Ok(trial)) => {
                say!("{name}: ok: {}", trial_sentence(&trial, &configured.trust));
            }
            (Output::Text, Err(failed)) => say!("{name}: FAILED [{}]: {}", failed.class, failed.reason),
            (Output::Json, Ok(trial)) => {
                say!(
                    "{:#}",
                    json!({ "ok": true, "name": name, "trial": trial_json(&trial) })
                );
            }
            (Output::Json, Err(failed)) => say!("{:#}", failed.json(name)),
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
                say!("{:<20} {reason}", "");
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
            say!("{key:<16} {text}");
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

struct FailedTrial {
    class: &'static str,
    reason: String,
}

impl FailedTrial {
    fn json(&self, name: &str) -> Value {
        json!({ "ok": false, "name": name, "class": self.class, "message": self.reason })
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
