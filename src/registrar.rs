//! Changes of the registry of platforms, as commands and API make them: checked, tried, sealed, stored.
//!
//! Owns: the order of these steps, and what a person may write into a platform's address. Never does: asking a person,
//! deciding who may, or reading a password from anywhere; callers bring it.
//!
//! Invariants:
//! - What cannot work is kept nowhere: an address is checked and its trust is loaded even where nobody wants a trial.
//! - A password is sealed with the key that is primary when it is stored, not when it was typed.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{SystemClock, WallClock as _};
use crate::config;
use crate::config::{Password, PlatformKind, Trust};
use crate::inventory;
use crate::inventory::Trial;
use crate::model::filter;
use crate::model::filter::{Filter, Pattern};
use crate::model::ids::PlatformId;
use crate::secret::{KeyFileError, SealError, Sealed, SealedPasswordError, Secret, key_file};
use crate::store;
use crate::store::registry::{Address, Registered, Source};
use crate::store::{Database, Refusal};
use crate::vsphere;
use crate::vsphere::Vsphere;

/// Characters of a host name, an account, a datacenter or a pattern.
pub const LONGEST_TEXT: usize = 255;

/// Changes the registry.
#[derive(Debug, Clone)]
pub struct Registrar {
    /// The registry.
    pub database: Database,
    /// The key ring that seals passwords.
    pub keys: PathBuf,
    /// How a trial asks.
    pub collection: config::Collection,
    /// Platforms of config.toml: their names are taken, and their passwords are known here alone.
    pub configured: Vec<config::Platform>,
    /// For one trial: login, hosts and VMs, counters.
    pub trial_deadline: Duration,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that makes no sense.
    #[error("{field}: {message}")]
    Value {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Datacenters or patterns that make no sense.
    #[error(transparent)]
    Filter(#[from] filter::Error),
    /// It cannot be collected like this.
    #[error("nothing was kept: the trial of platform {name:?} failed [{}]: {}", failed.class, failed.reason)]
    Trial {
        /// The platform.
        name: String,
        /// Why.
        failed: FailedTrial,
    },
    /// It is another collector's configuration that has it.
    #[error("platform {0:?} is not in this config.toml, so that its password is not known here")]
    NotHere(String),
    /// No key to seal with.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The stored password does not open.
    #[error(transparent)]
    Password(#[from] SealedPasswordError),
    /// The password cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// What is to be trusted cannot be used.
    #[error(transparent)]
    Trust(Box<vsphere::Error>),
    /// The registry refuses, or cannot be asked.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A trial that did not go well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct FailedTrial {
    /// The class that its status would have.
    pub class: &'static str,
    /// What is wrong and what to do.
    pub reason: String,
}

/// What is to be another value than it is; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// vCenter or ESXi.
    pub kind: Option<PlatformKind>,
    /// Host name or address.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// Account.
    pub user: Option<String>,
    /// Which certificate is trusted.
    pub trust: Option<Trust>,
    /// Names of datacenters.
    pub datacenters: Option<Vec<String>>,
    /// Patterns that must match.
    pub include: Option<Vec<String>>,
    /// Patterns that must not.
    pub exclude: Option<Vec<String>>,
}

impl Change {
    /// Checks what the address comes to be.
    ///
    /// # Errors
    /// When a value makes no sense.
    pub fn apply(self, address: &Address) -> Result<Address, Error> {
        let host = self.host.unwrap_or_else(|| address.host.clone());
        if let Some(message) = config::host_problem(&host) {
            return Err(Error::Value {
                field: "host",
                message,
            });
        }
        let user = self.user.unwrap_or_else(|| address.user.clone());
        for (field, text) in [("host", &host), ("user", &user)] {
            check_text(field, text)?;
        }
        let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        let kept = &address.filter;
        let datacenters = self.datacenters.unwrap_or_else(|| kept.datacenters.clone());
        let include = self.include.unwrap_or_else(|| texts(&kept.include));
        let exclude = self.exclude.unwrap_or_else(|| texts(&kept.exclude));
        for (field, list) in [
            ("datacenters", &datacenters),
            ("include", &include),
            ("exclude", &exclude),
        ] {
            list.iter().try_for_each(|text| check_text(field, text))?;
        }
        Ok(Address {
            kind: self.kind.unwrap_or(address.kind),
            host,
            port: self.port.unwrap_or(address.port),
            user,
            trust: self.trust.unwrap_or_else(|| address.trust.clone()),
            filter: Filter::parse(datacenters, &include, &exclude)?,
        })
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), Error> {
    let message = if text.is_empty() {
        "is empty".to_owned()
    } else if text.chars().count() > LONGEST_TEXT {
        format!("is longer than {LONGEST_TEXT} characters")
    } else if text.contains(char::is_control) {
        "holds a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Value { field, message })
}

impl Registrar {
    /// Whether a platform of this name can be added: before anybody is asked for a password in vain.
    ///
    /// # Errors
    /// When the name makes no sense or is taken, or there is no key to seal a password with.
    pub async fn check_new(&self, name: &str) -> Result<(), Error> {
        if let Some(message) = config::name_problem(name) {
            return Err(Error::Value {
                field: "name",
                message,
            });
        }
        let rows = self.database.registered_platforms().await?;
        let taken = rows.iter().any(|row| row.name == name)
            || self.configured.iter().any(|platform| platform.name == name);
        if taken {
            return Err(refused(name, Refusal::Exists));
        }
        self.check_keys()
    }

    /// Whether there is a key to seal a password with.
    ///
    /// # Errors
    /// When there is none.
    pub fn check_keys(&self) -> Result<(), Error> {
        key_file::load(&self.keys)?;
        Ok(())
    }

    /// Whether it may be changed here.
    ///
    /// # Errors
    /// When config.toml has it.
    pub fn check_own(platform: &Registered) -> Result<(), Error> {
        match platform.source {
            Source::Registry => Ok(()),
            Source::Config => Err(refused(&platform.name, Refusal::Provisioned)),
        }
    }

    /// Adds a platform, after trying it unless it is to be taken `untested`.
    ///
    /// # Errors
    /// When it cannot be collected like this, its name is taken, or the database cannot be asked.
    pub async fn add(
        &self,
        name: &str,
        address: &Address,
        password: &Secret,
        is_active: bool,
        untested: bool,
    ) -> Result<Option<Trial>, Error> {
        self.check_new(name).await?;
        let trial = self.trial(name, address, Some(password), untested).await?;
        let adding = self.database.add_platform(name, address, is_active).await?;
        let sealed = self.seal(address, adding.id(), password)?;
        adding.finish(&sealed).await?;
        Ok(trial)
    }

    /// Changes how a platform is reached, and its password where a new one is given.
    ///
    /// # Errors
    /// When it cannot be collected like this, is not the registry's, was changed meanwhile, or the database cannot be
    /// asked.
    pub async fn edit(
        &self,
        platform: &Registered,
        address: &Address,
        new: Option<&Secret>,
        untested: bool,
    ) -> Result<Option<Trial>, Error> {
        Self::check_own(platform)?;
        // The seal is for one server: for another it is made anew, by who may open it.
        let moves =
            address.place(platform.id) != platform.address.place(platform.id) && platform.sealed.is_some();
        let stored = match new {
            None if moves || !untested => Some(platform.password(&self.keys).open()?),
            _ => None,
        };
        let trial = self
            .trial(&platform.name, address, new.or(stored.as_ref()), untested)
            .await?;
        let sealed = new
            .or(stored.as_ref().filter(|_| moves))
            .map(|password| self.seal(address, platform.id, password))
            .transpose()?;
        self.database
            .edit_platform(platform, address, sealed.as_ref())
            .await?;
        Ok(trial)
    }

    /// A platform with what is needed to log in.
    ///
    /// # Errors
    /// When it stands in the configuration of another collector.
    pub fn with_password(&self, platform: &Registered) -> Result<config::Platform, Error> {
        match platform.source {
            Source::Config => {
                let here = self.configured.iter().find(|here| here.name == platform.name);
                here.cloned().ok_or_else(|| Error::NotHere(platform.name.clone()))
            }
            Source::Registry => {
                let password = Password::Sealed(platform.password(&self.keys));
                Ok(platform.address.platform(&platform.name, password))
            }
        }
    }

    /// Logs in and looks around; changes nothing.
    ///
    /// # Errors
    /// When it cannot be collected like this.
    pub async fn try_platform(&self, platform: &config::Platform) -> Result<Trial, FailedTrial> {
        let tried = inventory::try_platform(platform, &self.collection, || SystemClock.now());
        match tokio::time::timeout(self.trial_deadline, tried).await {
            Ok(Ok(trial)) => Ok(trial),
            Ok(Err(error)) => Err(FailedTrial {
                class: error.class().as_str(),
                reason: inventory::trial_reason(&error),
            }),
            Err(_elapsed) => Err(FailedTrial {
                class: "timeout",
                reason: format!(
                    "no end after {} s; is the server very slow?",
                    self.trial_deadline.as_secs()
                ),
            }),
        }
    }

    /// Tries an address before it is kept; `None` where nobody wants to know.
    async fn trial(
        &self,
        name: &str,
        address: &Address,
        password: Option<&Secret>,
        untested: bool,
    ) -> Result<Option<Trial>, Error> {
        let password = password.cloned().unwrap_or_else(|| Secret::new(""));
        let platform = address.platform(name, Password::Given(password));
        let options = vsphere::Options::new(&platform, &self.collection);
        // Authorities that cannot be used are nothing to keep, tried or not.
        Vsphere::new(options).map_err(|error| Error::Trust(Box::new(error)))?;
        if untested {
            return Ok(None);
        }
        match self.try_platform(&platform).await {
            Ok(trial) => Ok(Some(trial)),
            Err(failed) => Err(Error::Trial {
                name: name.to_owned(),
                failed,
            }),
        }
    }

    /// With the key that is primary now: a trial may have taken two minutes.
    fn seal(&self, address: &Address, id: PlatformId, password: &Secret) -> Result<Sealed, Error> {
        let ring = key_file::load(&self.keys)?;
        Ok(ring.seal(address.place(id), password)?)
    }
}

/// What a trial found, as commands and API print it.
#[must_use]
pub fn trial_json(trial: &Trial) -> Value {
    let about = &trial.about;
    json!({
        "server": about.full_name, "version": about.version, "build": about.build,
        "api_type": about.kind.api_type(), "api_version": about.api_version, "identity": about.identity,
        "clock_skew_ms": trial.clock_skew_micros / 1000,
        "roles": trial.roles, "hosts": trial.n_hosts, "vms": trial.n_vms, "vms_powered_on": trial.n_running,
        "taken": trial.taken.as_ref().map(|taken| json!({ "hosts": taken.n_hosts, "vms": taken.n_vms })),
        "unusable_counters": trial.unusable, "warnings": trial.warnings(),
    })
}

fn refused(name: &str, refusal: Refusal) -> Error {
    Error::Store(store::Error::Registry {
        name: name.to_owned(),
        refusal,
    })
}
