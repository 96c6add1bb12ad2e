//! `virt-collector token`: who may use the admin API.
//!
//! Never does: showing a token but once, when it is made; nor keeping it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{COMMON, ConfigFile, Failure, Output, block_on, ready_database};
use crate::api::rights::Role;
use crate::config;
use crate::secret::{Grant, Token as Secret, key_file};
use crate::store::Database;
use crate::store::token::{NewToken, TokenRow};

/// No token is good for longer.
const LONGEST: Duration = Duration::from_secs(3660 * 24 * 3600);

/// Nobody can use one that is good for less.
const SHORTEST: Duration = Duration::from_secs(60);

/// Who may use the admin API.
///
/// A token has a role: a viewer reads, an operator acts on VMs as well, an admin does everything, an auditor reads
/// and sees the audit log. It can be limited to some platforms, and it ends. It is shown once, when it is made; the
/// database keeps a MAC of it and its rights, made with the primary key of the key ring.
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Command,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text, help_heading = COMMON, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token, and print it. It is not shown again.
    Create(Create),
    /// Show all tokens, but not the tokens themselves.
    List,
    /// Revoke a token: running services refuse it within a second.
    Revoke {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// Who it is for; it stands in the audit log. A name is never given twice.
    name: String,
    /// What it may do.
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::as_str)))]
    role: String,
    /// Limit it to this platform. Can be given several times.
    #[arg(long = "platform", value_name = "NAME")]
    platforms: Vec<String>,
    /// When it ends, from now: a number and d, h or m, such as 90d.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = duration)]
    expires: Duration,
    /// Write the token to this new file, for its owner alone, and do not print it.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

/// What a command cannot be done with.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("name {name:?}: {message}")]
    Name { name: String, message: String },
    #[error("there is no platform {}; `virt-collector platform list` shows those that there are", .0.join(", "))]
    Platforms(Vec<String>),
    #[error("a token {0:?} was made before; names are never given twice, take another")]
    Exists(String),
    #[error("there is no token {0:?} that is not revoked; `virt-collector token list` shows all")]
    Absent(String),
    #[error("cannot write the token to {path}; the file must not exist yet. No token was made")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write the token to {path}; revoke it: virt-collector token revoke {name}")]
    Lost {
        path: PathBuf,
        name: String,
        #[source]
        source: std::io::Error,
    },
}

/// A number and its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = || {
        let unit = text.chars().next_back()?;
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        let seconds = match unit {
            'd' => 24 * 3600,
            'h' => 3600,
            'm' => 60,
            _ => return None,
        };
        number.checked_mul(seconds).map(Duration::from_secs)
    };
    match parsed() {
        None => Err("write it as a number and d, h or m, such as 90d".to_owned()),
        Some(duration) if (SHORTEST..=LONGEST).contains(&duration) => Ok(duration),
        Some(_) => Err("must be 1m to 3660d".to_owned()),
    }
}

impl Token {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        block_on(async {
            match &self.command {
                Command::Create(create) => {
                    let ring = key_file::load(&config.keys.file)?;
                    create.check()?;
                    let database = ready_database(&config).await?;
                    create.execute(&database, &ring, self.output).await
                }
                Command::List => {
                    let database = ready_database(&config).await?;
                    list(&database.tokens().await.map_err(Failure::other)?, self.output);
                    Ok(())
                }
                Command::Revoke { name } => {
                    let database = ready_database(&config).await?;
                    if !database.revoke_token(name).await.map_err(Failure::other)? {
                        return Err(Failure::other(Problem::Absent(name.clone())));
                    }
                    match self.output {
                        Output::Text => say!("{name}: revoked; running services refuse it within a second"),
                        Output::Json => say!("{:#}", json!({ "name": name, "revoked": true })),
                    }
                    Ok(())
                }
            }
        })
    }
}

impl Create {
    fn check(&self) -> Result<(), Failure> {
        match config::name_problem(&self.name) {
            None => Ok(()),
            Some(message) => Err(Failure::usage(Problem::Name {
                name: self.name.clone(),
                message,
            })),
        }
    }

    async fn execute(
        &self,
        database: &Database,
        ring: &crate::secret::KeyRing,
        output: Output,
    ) -> Result<(), Failure> {
        let unknown = database
            .unknown_platforms(&self.platforms)
            .await
            .map_err(Failure::other)?;
        if !unknown.is_empty() {
            return Err(Failure::other(Problem::Platforms(unknown)));
        }
        let mut file = self.output_file.as_deref().map(new_file).transpose()?;
        let made = self.make(database, ring).await;
        if made.is_err()
            && let Some(path) = &self.output_file
        {
            // It is empty, and this run made it.
            drop(std::fs::remove_file(path));
        }
        let (token, row) = made?;
        let text = token.text();
        if let (Some(file), Some(path)) = (&mut file, &self.output_file) {
            writeln!(file, "{}", text.expose())
                .and_then(|()| file.sync_all())
                .map_err(|source| {
                    Failure::other(Problem::Lost {
                        path: path.clone(),
                        name: self.name.clone(),
                        source,
                    })
                })?;
        }
        match output {
            Output::Text => {
                tell!(
                    "{}: {}{}, until {}",
                    row.name,
                    row.role,
                    limited(row.platforms.as_deref()),
                    row.expires_at
                );
                match &self.output_file {
                    Some(path) => tell!("The token is in {}; it is not shown again.", path.display()),
                    None => {
                        tell!("This is the token; it is not shown again:");
                        say!("{}", text.expose());
                    }
                }
            }
            Output::Json => {
                let mut shown = json!({
                    "name": row.name, "role": row.role, "platforms": row.platforms, "expires_at": row.expires_at,
                });
                if let (Some(shown), None) = (shown.as_object_mut(), &self.output_file) {
                    shown.insert("token".to_owned(), Value::from(text.expose()));
                }
                say!("{shown:#}");
            }
        }
        Ok(())
    }

    async fn make(
        &self,
        database: &Database,
        ring: &crate::secret::KeyRing,
    ) -> Result<(Secret, NewToken), Failure> {
        let seconds = i64::try_from(self.expires.as_secs()).unwrap_or(i64::MAX);
        let (id, expires_at) = database.draw_token(seconds).await.map_err(Failure::other)?;
        let token = Secret::generate(id).map_err(Failure::other)?;
        let platforms = (!self.platforms.is_empty()).then(|| self.platforms.clone());
        let mac = ring.sign_token(
            &token,
            &Grant {
                name: &self.name,
                role: &self.role,
                platforms: platforms.as_deref(),
                expires_at: expires_at.micros(),
            },
        );
        let row = NewToken {
            id,
            name: self.name.clone(),
            role: self.role.clone(),
            platforms,
            key: mac.key.to_string(),
            mac: mac.mac.to_vec(),
            expires_at,
        };
        if database.add_token(&row).await.map_err(Failure::other)? {
            Ok((token, row))
        } else {
            Err(Failure::other(Problem::Exists(self.name.clone())))
        }
    }
}

fn new_file(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| {
            Failure::other(Problem::File {
                path: path.to_owned(),
                source,
            })
        })
}

fn limited(platforms: Option<&[String]>) -> String {
    platforms.map_or_else(String::new, |platforms| format!(" of {}", platforms.join(", ")))
}

fn state(row: &TokenRow) -> &'static str {
    if row.revoked_at.is_some() {
        "revoked"
    } else if row.is_expired {
        "expired"
    } else {
        "valid"
    }
}

fn list(rows: &[TokenRow], output: Output) {
    if output == Output::Json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.made.name, "role": row.made.role, "platforms": row.made.platforms,
                    "state": state(row), "key": row.made.key, "created_at": row.created_at,
                    "expires_at": row.made.expires_at, "revoked_at": row.revoked_at,
                    "last_used_at": row.last_used_at,
                })
            })
            .collect();
        say!("{:#}", json!({ "tokens": rows }));
        return;
    }
    if rows.is_empty() {
        say!("there is no token; virt-collector token create makes one");
    }
    for row in rows {
        let used = row
            .last_used_at
            .map_or_else(|| "never used".to_owned(), |at| format!("last used {at}"));
        say!(
            "{:<24} {:<8} {:<8} until {}  key {}  {used}{}",
            row.made.name,
            row.made.role,
            state(row),
            row.made.expires_at,
            row.made.key,
            row.made
                .platforms
                .as_ref()
                .map_or_else(String::new, |platforms| format!(
                    "  only {}",
                    platforms.join(", ")
                ))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_its_unit() {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        for (text, time) in [
            ("90d", days(90)),
            ("12h", days(1) / 2),
            ("1m", SHORTEST),
            ("3660d", LONGEST),
        ] {
            assert_eq!(duration(text), Ok(time), "{text}");
        }
        for text in [
            "",
            "d",
            "90",
            "90 d",
            "-1d",
            "0d",
            "59s",
            "3661d",
            "99999999999999999999d",
            "1.5d",
            "9\u{e4}",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
