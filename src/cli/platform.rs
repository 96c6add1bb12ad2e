//! `virt-collector platform`: the registry of platforms.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::check::trial_sentence;
use super::password::PasswordArgs;
use super::{ConfigFile, Failure, Output, block_on};
use crate::clock::{SystemClock, WallClock as _};
use crate::config;
use crate::config::{Config, PlatformKind, Trust};
use crate::error::Chain;
use crate::model::filter::{Filter, Pattern};
use crate::model::ids::PlatformId;
use crate::secret::{KeyRing, Place, Sealed, Secret, key_file};
use crate::store;
use crate::store::registry::{Address, Registered, Source};
use crate::store::{Database, Owner, Settings};
use crate::units::Stamp;
use crate::vsphere;
use crate::vsphere::Trial;

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

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a vCenter or ESXi host, after trying it.
    ///
    /// The password is asked for without echo, or read from standard input or a file; never from an argument or the
    /// environment. It is sealed with the primary key of the key ring: `virt-collector key init` makes one.
    #[command(after_help = "Examples:\n  \
        virt-collector platform add berlin --host vcenter.example.com --user virt-collector@vsphere.local\n  \
        virt-collector platform add esx7 --type esxi --host esx7.example.com --user root --thumbprint AB:CD:...\n  \
        pass show berlin | virt-collector platform add berlin --host vc --user u --password-stdin")]
    Add(Add),
    /// All platforms, a line each: how they fare, since when, and which collector has them
    List,
    /// Everything about one platform
    Show(Name),
    /// Change a platform; what is not given stays. Tried before it is kept
    Edit(Edit),
    /// Try to log in and look around, with the stored password; changes nothing
    Test(Name),
    /// Remove a platform and its password. Its objects and samples stay; adding the name again goes on with them
    Remove(Remove),
    /// Have a platform collected again
    Activate(Name),
    /// Stop collecting a platform until it is activated; it keeps its settings
    Deactivate(Name),
    /// Pause a platform, or end the pause: no polling and no session. A pause of up to 50 minutes is filled afterwards
    Maintenance(Maintenance),
    /// Collect from the server that answers now, although it is not the one whose objects are stored
    AcceptIdentity(AcceptIdentity),
}

#[derive(Debug, Args)]
struct Name {
    /// The platform.
    name: String,
}

#[derive(Debug, Args)]
struct Add {
    /// Its name in tables, metrics and logs: letters, digits, '-', '_' and '.'.
    name: String,
    /// Host name or address.
    #[arg(long)]
    host: String,
    /// Account; Read-only on the root folder, propagating, is enough.
    #[arg(long)]
    user: String,
    #[command(flatten)]
    more: More,
    /// Keep it without collecting it.
    #[arg(long)]
    inactive: bool,
}

#[derive(Debug, Args)]
struct Edit {
    /// The platform.
    name: String,
    /// Host name or address.
    #[arg(long)]
    host: Option<String>,
    /// Account.
    #[arg(long)]
    user: Option<String>,
    #[command(flatten)]
    more: More,
    /// Ask for a new password.
    #[arg(long, conflicts_with_all = ["password_stdin", "password_file"])]
    password: bool,
    /// Drop datacenters and patterns; those given beside it take their place.
    #[arg(long)]
    clear_filters: bool,
}

/// What adding and editing share.
#[derive(Debug, Args)]
struct More {
    /// What it is [default of add: vcenter].
    #[arg(long = "type", value_enum)]
    kind: Option<Kind>,
    /// TCP port [default of add: 443].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Trust what the authorities in this PEM file have signed; its text is kept in the registry.
    #[arg(long, value_name = "FILE", group = "trust")]
    ca_file: Option<PathBuf>,
    /// Trust the one certificate with this SHA-256 thumbprint; a failed trial prints the server's.
    #[arg(long, value_name = "HEX", group = "trust")]
    thumbprint: Option<String>,
    /// `true`: what the system trusts. `false`: any, so that whoever stands in between reads the password.
    #[arg(long, value_name = "BOOL", group = "trust")]
    tls_verify: Option<bool>,
    /// Only this datacenter; may be repeated.
    #[arg(long = "datacenter", value_name = "NAME")]
    datacenters: Vec<String>,
    /// Only hosts and VMs whose inventory path matches, such as '/Berlin/vm/Production/**'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// No host or VM whose inventory path matches; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    #[command(flatten)]
    password: PasswordArgs,
    /// Keep it although it was not tried.
    #[arg(long)]
    untested: bool,
}

#[derive(Debug, Args)]
struct Remove {
    /// The platform.
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Maintenance {
    /// The platform.
    name: String,
    /// Whether it is to be paused.
    state: Switch,
}

#[derive(Debug, Args)]
struct AcceptIdentity {
    /// The platform.
    name: String,
    /// It is the same inventory with another identity, restored for example: its objects go on. Without this they end,
    /// and those of the new server are new ones.
    #[arg(long)]
    keep_objects: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Vcenter,
    Esxi,
}

impl From<Kind> for PlatformKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Vcenter => Self::VCenter,
            Kind::Esxi => Self::Esxi,
        }
    }
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
    #[error("say --yes to remove platform {0:?}; there is no terminal to ask on")]
    Unasked(String),
    #[error("platform {0:?} was not removed")]
    Kept(String),
}

impl Platform {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        let settings = Settings::new(&config.database, &config.database.writer, &Owner::random())
            .map_err(Failure::settings)?;
        block_on(async {
            let database = Database::new(settings).map_err(Failure::other)?;
            database.ready().await.map_err(Failure::other)?;
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
        let ring = key_file::load(&self.config.keys.file).map_err(Failure::other)?;
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
        let sealed = seal(&ring, adding.id(), &password)?;
        adding
            .finish(&sealed.key().to_string(), sealed.bytes())
            .await
            .map_err(Failure::other)?;
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
        let ring = key_file::load(&self.config.keys.file).map_err(Failure::other)?;
        let is_new = password || more.password.given();
        let password = if is_new {
            let prompt = format!("New password of {} at {}: ", address.user, address.host);
            more.password.read(&prompt)?
        } else {
            let sealed = platform.sealed.as_deref().unwrap_or_default();
            ring.open(Place::password_of(platform.id.0), sealed)
                .map_err(Failure::other)?
        };
        let trial = self.trial(&name, &address, &password, more.untested).await?;
        let sealed = is_new.then(|| seal(&ring, platform.id, &password)).transpose()?;
        let key = sealed.as_ref().map(|sealed| sealed.key().to_string());
        let sealed = key.as_deref().zip(sealed.as_ref().map(Sealed::bytes));
        self.database
            .edit_platform(&platform, &address, sealed)
            .await
            .map_err(Failure::other)?;
        self.told(&name, "changed", trial.as_ref(), &address.trust).await
    }

    /// Tries the platform; `None` where nobody wants to know.
    async fn trial(
        &self,
        name: &str,
        address: &Address,
        password: &Secret,
        untested: bool,
    ) -> Result<Option<Trial>, Failure> {
        if untested {
            return Ok(None);
        }
        let platform = address.platform(name, config::Password::Given(password.clone()));
        match self.try_platform(&platform).await {
            Ok(trial) => Ok(Some(trial)),
            Err(failed) => {
                if self.output == Output::Json {
                    println!("{:#}", failed.json(name));
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
            println!(
                "{:#}",
                json!({ "ok": true, "platform": shown(&platform), "trial": trial.map(trial_json) })
            );
            return Ok(());
        }
        let found = trial.map_or_else(|| "not tried".to_owned(), |trial| trial_sentence(trial, trust));
        println!("{done} {name}: {found}");
        let collectors = self.database.collectors().await.map_err(Failure::other)?;
        if collectors.live.is_empty() {
            println!("no collector runs on this database: start the service to have it collected");
        } else {
            println!("the running service follows within seconds: virt-collector platform show {name}");
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
                config::Password::Sealed {
                    keys: self.config.keys.file.clone(),
                    platform: platform.id,
                    envelope: platform.sealed.clone(),
                },
            ),
        };
        let tried = self.try_platform(&configured).await;
        let is_well = tried.is_ok();
        match (self.output, tried) {
            (Output::Text, Ok(trial)) => {
                println!("{name}: ok: {}", trial_sentence(&trial, &configured.trust));
            }
            (Output::Text, Err(failed)) => println!("{name}: FAILED [{}]: {}", failed.class, failed.reason),
            (Output::Json, Ok(trial)) => {
                println!(
                    "{:#}",
                    json!({ "ok": true, "name": name, "trial": trial_json(&trial) })
                );
            }
            (Output::Json, Err(failed)) => println!("{:#}", failed.json(name)),
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
            println!("{:#}", Value::Array(rows.iter().map(shown).collect()));
            return Ok(());
        }
        if rows.is_empty() {
            println!("no platforms; add one with: virt-collector platform add NAME --host HOST --user USER");
            return Ok(());
        }
        println!(
            "{:<20} {:<8} {:<28} {:<14} {:>6} {:>7}  SINCE",
            "NAME", "TYPE", "HOST", "STATUS", "HOSTS", "VMS"
        );
        for row in &rows {
            println!(
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
                println!("{:<20} {reason}", "");
            }
        }
        Ok(())
    }

    async fn show(&self, name: &str) -> Result<(), Failure> {
        let platform = shown(&self.find(name).await?);
        if self.output == Output::Json {
            println!("{platform:#}");
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
            println!("{key:<16} {text}");
        }
        Ok(())
    }

    async fn remove(&self, remove: Remove) -> Result<(), Failure> {
        let platform = self.find(&remove.name).await?;
        if !remove.yes {
            ask(&platform)?;
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
        self.database
            .accept_identity(&platform, accept.keep_objects)
            .await
            .map_err(Failure::other)?;
        self.done(&accept.name, "takes the server that answers next for its own");
        Ok(())
    }

    fn done(&self, name: &str, what: &str) {
        match self.output {
            Output::Text => println!("{name}: {what}"),
            Output::Json => println!("{:#}", json!({ "ok": true, "name": name })),
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

impl More {
    /// Checks what is given and puts it in place.
    fn apply(&self, address: &mut Address) -> Result<(), Failure> {
        let refuse = |key, message: String| Failure::usage(Problem::Value { key, message });
        if let Some(message) = config::host_problem(&address.host) {
            return Err(refuse("host", message));
        }
        if address.user.is_empty() {
            return Err(refuse("user", "is empty".to_owned()));
        }
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read_to_string(path).map_err(|source| {
                Failure::other(Problem::CaFile {
                    path: path.clone(),
                    source,
                })
            })?;
            address.trust = Trust::CaPem(pem);
        }
        if let Some(digits) = &self.thumbprint {
            let thumbprint = config::thumbprint(digits).ok_or_else(|| {
                refuse(
                    "thumbprint",
                    "is not a SHA-256 thumbprint of 64 hexadecimal digits".to_owned(),
                )
            })?;
            address.trust = Trust::Thumbprint(thumbprint);
        }
        match self.tls_verify {
            Some(true) => address.trust = Trust::System,
            Some(false) => address.trust = Trust::Off,
            None => {}
        }
        let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        let either =
            |given: &Vec<String>, kept: Vec<String>| if given.is_empty() { kept } else { given.clone() };
        let kept = &address.filter;
        address.filter = Filter::parse(
            either(&self.datacenters, kept.datacenters.clone()),
            &either(&self.include, texts(&kept.include)),
            &either(&self.exclude, texts(&kept.exclude)),
        )
        .map_err(Failure::usage)?;
        Ok(())
    }
}

fn seal(ring: &KeyRing, id: PlatformId, password: &Secret) -> Result<Sealed, Failure> {
    ring.seal(Place::password_of(id.0), password)
        .map_err(Failure::other)
}

/// Has a person type the platform's name.
fn ask(platform: &Registered) -> Result<(), Failure> {
    let name = || platform.name.clone();
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Failure::usage(Problem::Unasked(name())));
    }
    print!(
        "{} with {} hosts and {} VMs will be collected no longer. Type its name to remove it: ",
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

/// The status in one word, or the word that explains why there is none.
fn state(platform: &Registered) -> String {
    match &platform.status.class {
        _ if !platform.is_active => "inactive".to_owned(),
        Some(class) => format!("error:{class}"),
        None => platform.status.state.clone(),
    }
}

fn trial_json(trial: &Trial) -> Value {
    let about = &trial.about;
    json!({
        "server": about.full_name, "version": about.version, "build": about.build,
        "api_type": about.kind.api_type(), "api_version": about.api_version, "identity": about.identity,
        "clock_skew_ms": trial.clock_skew_micros / 1000,
        "hosts": trial.n_hosts, "vms": trial.n_vms, "vms_powered_on": trial.n_running,
        "unusable_counters": trial.unusable, "warnings": trial.warnings(),
    })
}

/// A platform as it is printed: everything but its password.
fn shown(platform: &Registered) -> Value {
    let Registered {
        id,
        name,
        source,
        address,
        is_active,
        in_maintenance,
        revision: _,
        sync_asked_at: _,
        synced_at,
        status,
        sealed,
    } = platform;
    let (trust, thumbprint) = match &address.trust {
        Trust::System | Trust::CaFile(_) => ("system", None),
        Trust::CaPem(_) => ("ca", None),
        Trust::Thumbprint(bytes) => (
            "thumbprint",
            Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        ),
        Trust::Off => ("off", None),
    };
    let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
    let time = |stamp: Option<Stamp>| stamp.map(|stamp| stamp.to_string());
    json!({
        "name": name, "id": id.0, "type": address.kind.as_str(), "host": address.host, "port": address.port,
        "user": address.user, "source": source.as_str(), "trust": trust, "tls_verify": address.trust != Trust::Off,
        "thumbprint": thumbprint, "datacenters": address.filter.datacenters,
        "include": texts(&address.filter.include), "exclude": texts(&address.filter.exclude), "active": is_active, "maintenance": in_maintenance,
        "status": status.state, "class": status.class, "reason": status.reason,
        "since": time(Some(status.since)), "last_success": time(status.last_success_at),
        "last_sync": time(*synced_at), "version": status.version, "build": status.build,
        "api_type": status.api_type, "identity": status.identity, "collector": status.collector,
        "hosts": status.n_hosts, "vms": status.n_vms,
        "password": if *source == Source::Config || sealed.is_some() { "set" } else { "missing" },
    })
}
