//! `virt-collector check`: tries everything that the configuration names, one line per thing, a fix for each failure.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{ConfigFile, Failure, Output, block_on, counted};
use crate::clock::SystemClock;
use crate::clock::WallClock as _;
use crate::config;
use crate::config::Config;
use crate::config::{Password, Trust};
use crate::error::Chain;
use crate::model::columns::Column;
use crate::model::ids::EntityKind;
use crate::store;
use crate::store::Database;
use crate::store::Owner;
use crate::store::Settings;
use crate::store::registry::Source;
use crate::vsphere;
use crate::vsphere::Trial;

/// For one platform: login, hosts and VMs, counters.
const PLATFORM_DEADLINE: Duration = Duration::from_secs(120);

/// Try the configuration: database, schema, and each platform with its password and certificate.
///
/// Changes nothing. Prints one line per thing; a failure says what to do. Exits with 0 when all is well, 78 when the
/// configuration itself is wrong, 1 otherwise.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Tried {
    /// `config`, `database`, or a platform's name.
    name: String,
    ok: bool,
    /// What was found, or what is wrong and what to do.
    message: String,
    /// For a platform in error: unreachable, tls, auth, permission, timeout or identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    /// For a platform: what it keeps for outages longer than an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    five_minute_statistics: Option<FiveMinutes>,
}

/// The 5-minute statistics of a platform.
#[derive(Debug, Serialize)]
struct FiveMinutes {
    enabled: bool,
    /// Unset where there are no levels.
    level: Option<u8>,
    kept_seconds: u64,
    columns: Vec<Columns>,
}

/// What they hold of one table.
#[derive(Debug, Serialize)]
struct Columns {
    /// `host` or `vm`.
    kind: &'static str,
    /// Columns of samples.
    of: usize,
    kept: Vec<&'static str>,
    added_by_level_2: Vec<&'static str>,
}

impl FiveMinutes {
    fn of(trial: &Trial) -> Self {
        let Some(rollups) = &trial.rollups else {
            return Self {
                enabled: false,
                level: None,
                kept_seconds: 0,
                columns: Vec::new(),
            };
        };
        let columns = EntityKind::ALL.into_iter().rev().map(|kind| {
            let added = rollups.added_by_level_two.iter();
            Columns {
                kind: kind.as_str(),
                of: Column::of(kind).len(),
                kept: rollups.counters.columns(kind),
                added_by_level_2: added
                    .filter(|(of, _)| *of == kind)
                    .map(|(_, column)| *column)
                    .collect(),
            }
        });
        Self {
            enabled: true,
            level: rollups.level,
            kept_seconds: rollups.kept.as_secs(),
            columns: columns.collect(),
        }
    }

    /// For people, one line for each table.
    fn lines(&self) -> Vec<String> {
        if !self.enabled {
            return vec![
                "5-minute statistics are disabled: what is missing for longer than an hour cannot be had; \
                 enable them in vCenter's general settings, Statistics"
                    .to_owned(),
            ];
        }
        let level = self
            .level
            .map_or_else(|| "no levels".to_owned(), |level| format!("level {level}"));
        let days = self.kept_seconds / 86_400;
        let kept = if self.kept_seconds.is_multiple_of(86_400) {
            counted(usize::try_from(days).unwrap_or(usize::MAX), "day")
        } else {
            format!("{} hours", self.kept_seconds / 3_600)
        };
        let mut lines = Vec::new();
        for Columns {
            kind,
            of,
            kept: columns,
            added_by_level_2,
        } in &self.columns
        {
            let table = if *kind == EntityKind::Vm.as_str() {
                "VM"
            } else {
                kind
            };
            let which = if columns.len() == *of {
                format!("all {of} {table} columns")
            } else {
                let names = columns.join(", ");
                format!("{} of {of} {table} columns: {names}", columns.len())
            };
            lines.push(format!("5-minute statistics: {level}, kept {kept}: {which}"));
            if !added_by_level_2.is_empty() {
                lines.push(format!("level 2 would add: {}", added_by_level_2.join(", ")));
            }
        }
        lines
    }
}

impl Tried {
    fn well(name: &str, message: String) -> Self {
        Self {
            name: name.to_owned(),
            ok: true,
            message,
            class: None,
            five_minute_statistics: None,
        }
    }

    fn failed(name: &str, message: String) -> Self {
        Self {
            name: name.to_owned(),
            ok: false,
            message,
            class: None,
            five_minute_statistics: None,
        }
    }
}

impl Check {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        let settings = Settings::new(&config.database, &config.database.writer, &Owner::random())
            .map_err(Failure::settings)?;
        let path = self.file.config.display().to_string();
        block_on(async {
            let mut tried = vec![Tried::well(
                "config",
                format!("{path}: {}", counted(config.platforms.len(), "platform")),
            )];
            self.show(&tried);
            let (database, registered) = database(settings, &config.keys.file).await;
            self.show(std::slice::from_ref(&database));
            tried.push(database);
            let is_configured = |name: &str| config.platforms.iter().any(|platform| platform.name == name);
            let registered = registered
                .iter()
                .filter(|platform| !is_configured(&platform.name));
            for platform in config.platforms.iter().chain(registered) {
                let result = tokio::time::timeout(PLATFORM_DEADLINE, self::platform(platform, &config))
                    .await
                    .unwrap_or_else(|_elapsed| {
                        let message = format!(
                            "no end after {} s; is the server very slow?",
                            PLATFORM_DEADLINE.as_secs()
                        );
                        Tried {
                            class: Some("timeout"),
                            ..Tried::failed(&platform.name, message)
                        }
                    });
                self.show(std::slice::from_ref(&result));
                tried.push(result);
            }
            let ok = tried.iter().all(|tried| tried.ok);
            if self.output == Output::Json {
                let document = serde_json::json!({ "ok": ok, "checks": tried });
                say!("{document:#}");
            }
            if ok { Ok(()) } else { Err(Failure::Told) }
        })
    }

    /// Line by line as things are tried; JSON comes whole at the end.
    fn show(&self, tried: &[Tried]) {
        if self.output == Output::Text {
            for Tried {
                name,
                ok,
                message,
                five_minute_statistics,
                ..
            } in tried
            {
                say!("{name:<16} {:<6}  {message}", if *ok { "ok" } else { "FAILED" });
                for line in five_minute_statistics.iter().flat_map(FiveMinutes::lines) {
                    say!("{:<16} {:<6}  {line}", "", "");
                }
            }
        }
    }
}

/// The database, and the platforms of its registry that are to be collected.
async fn database(settings: Settings, keys: &Path) -> (Tried, Vec<config::Platform>) {
    const NAME: &str = "database";
    let target = settings.target().to_owned();
    let probed = async {
        let database = Database::new(settings)?;
        let probe = database.probe().await?;
        probe.require()?;
        Ok::<_, store::Error>((probe, database.registered_platforms().await?))
    };
    match probed.await {
        Ok((probe, rows)) => {
            let registered = rows
                .iter()
                .filter(|row| row.source == Source::Registry && row.is_active && !row.in_maintenance)
                .map(|row| {
                    let password = Password::Sealed(row.password(keys));
                    row.address.platform(&row.name, password)
                });
            (
                Tried::well(NAME, format!("{target}: {probe}")),
                registered.collect(),
            )
        }
        Err(error) => (Tried::failed(NAME, Chain(&error).to_string()), Vec::new()),
    }
}

async fn platform(platform: &config::Platform, config: &Config) -> Tried {
    let options = vsphere::Options::new(platform, &config.collection);
    let name = &platform.name;
    match vsphere::try_platform(options, || SystemClock.now()).await {
        Ok(trial) => Tried {
            five_minute_statistics: Some(FiveMinutes::of(&trial)),
            ..Tried::well(name, trial_sentence(&trial, &platform.trust))
        },
        Err(error) => Tried {
            class: Some(error.class().as_str()),
            ..Tried::failed(name, Chain(&error).to_string())
        },
    }
}

/// What a trial found, in one line.
pub(super) fn trial_sentence(trial: &Trial, trust: &Trust) -> String {
    let mut message = format!(
        "{}: {}, {} ({} powered on)",
        trial.about.full_name,
        counted(trial.n_hosts, "host"),
        counted(trial.n_vms, "VM"),
        trial.n_running,
    );
    if !trial.roles.is_empty() {
        message.push_str(&format!("; as {}", trial.roles.join(", ")));
    }
    for warning in trial.warnings() {
        message.push_str("; ");
        message.push_str(&warning);
    }
    if *trust == Trust::Off {
        message.push_str("; its certificate is not verified: whoever stands in between reads the password");
    }
    message
}
