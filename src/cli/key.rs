//! `virt-collector key`: the key ring, and the passwords in the database that it seals.
//!
//! Never does: printing a key or a password, whatever happens.

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::terminal::Progress;
use super::{COMMON, ConfigFile, Failure, Output, block_on, counted, ready_database};
use crate::config::Config;
use crate::secret;
use crate::secret::key_file;
use crate::secret::{KeyId, KeyRing, OpenError};
use crate::store::Database;
use crate::store::credential::Credential;
use crate::store::token::TokenRow;

/// The keys that seal the passwords of platforms in the database.
///
/// The passwords of platforms that were added by command are in the database, sealed with a key that is not: it is in
/// the key ring, a file that only its owner may open (section keys of the configuration). Whoever has the file and the
/// database has the passwords; without the file they are lost. Keep a copy of it, apart from the database's backups.
///
/// To replace a key, and lose no sample: `key add`; give the file to every collector; `key promote`;
/// `key rewrap`; `key retire`, and give the file to every collector once more.
#[derive(Debug, Args)]
pub(super) struct Key {
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
    /// Make a key ring with one key.
    ///
    /// A file that exists is left alone. It belongs to whom runs this command: the service must be able to read it, or
    /// systemd must hand it over (LoadCredential in the unit).
    Init,
    /// Show the keys, which of them seals, and how many passwords and tokens each has to do with.
    List,
    /// Add a new key, which does not seal yet.
    ///
    /// Until it seals, collectors that do not have it yet miss nothing: give them the file now. It is read at
    /// each login; who gets it from systemd has to restart, and loses nothing.
    Add,
    /// Let a key seal from now on.
    ///
    /// The key that sealed before stays, and opens what it sealed.
    Promote {
        /// Its name, as `key list` shows it.
        key: KeyId,
    },
    /// Seal every password anew that another key than the primary one has sealed.
    ///
    /// A password that somebody sets meanwhile stays as it is. Can be run again at any time. Exits with 1 where a
    /// password was left with another key.
    Rewrap,
    /// Remove a key for ever.
    ///
    /// Refused for the primary key, and while a password in the database is sealed with it or a token of the admin API
    /// that can be used is tied to its rights with it.
    Retire {
        /// Its name, as `key list` shows it.
        key: KeyId,
    },
    /// Open every password in the database, and say which do not open and why.
    ///
    /// Shows none of them. Exits with 1 where one does not open.
    Verify,
}

/// Why a key was not retired.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "key {key} still seals {}: run virt-collector key rewrap first; a password that it leaves behind must be set \
         anew",
        passwords_of(platforms)
    )]
    InUse { key: KeyId, platforms: Vec<String> },
    #[error(
        "key {key} still ties {} of the admin API: revoke what is not needed any more, make the others anew, and \
         revoke the old ones",
        tokens_of(tokens)
    )]
    Ties { key: KeyId, tokens: Vec<String> },
}

fn tokens_of(tokens: &[String]) -> String {
    match tokens {
        [one] => format!("the token {one}"),
        several => format!("the tokens {}", several.join(", ")),
    }
}

fn passwords_of(platforms: &[String]) -> String {
    match platforms {
        [one] => format!("the password of {one}"),
        several => format!("the passwords of {}", several.join(", ")),
    }
}

impl Key {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        let file = config.keys.file.as_path();
        match self.command {
            Command::Init => self.init(file),
            Command::Add => self.add(file),
            Command::Promote { key } => self.promote(file, key),
            Command::List => {
                let ring = key_file::load(file)?;
                let (credentials, tokens) = block_on(sealed_and_tied(&config))?;
                self.list(&ring, &credentials, &tokens);
                Ok(())
            }
            Command::Rewrap => {
                let ring = key_file::load(file)?;
                let (rewrapped, left) = block_on(rewrap(&config, &ring))?;
                self.rewrapped(&ring, &rewrapped, &left)
            }
            Command::Retire { key } => {
                let (credentials, tokens) = block_on(sealed_and_tied(&config))?;
                self.retire(file, key, &credentials, &tokens)
            }
            Command::Verify => {
                let ring = key_file::load(file)?;
                let (_, credentials) = block_on(credentials(&config))?;
                self.verify(&ring, &credentials)
            }
        }
    }

    fn init(&self, file: &Path) -> Result<(), Failure> {
        let ring = KeyRing::generate().map_err(Failure::other)?;
        key_file::create(file, &ring)?;
        let key = ring.primary();
        let path = file.display();
        self.say(
            &serde_json::json!({ "file": path.to_string(), "primary": key.to_string() }),
            &format!(
                "made {path} with key {key}\n\
                 Keep a copy of it, but not where the database's backups are: without it the passwords are lost.\n\
                 The service must be able to read it: see [keys] in config.example.toml."
            ),
        );
        Ok(())
    }

    fn add(&self, file: &Path) -> Result<(), Failure> {
        let key = key_file::edit(file, |ring| ring.add().map_err(Failure::other))?;
        self.say(
            &serde_json::json!({ "file": file.display().to_string(), "added": key.to_string() }),
            &format!(
                "added key {key}, which does not seal yet\n\
                 Next: give {} to every collector of this database, then run\n\
                 virt-collector key promote {key}",
                file.display()
            ),
        );
        Ok(())
    }

    fn promote(&self, file: &Path, key: KeyId) -> Result<(), Failure> {
        key_file::edit(file, |ring| ring.promote(key).map_err(Failure::other))?;
        self.say(
            &serde_json::json!({ "file": file.display().to_string(), "primary": key.to_string() }),
            &format!("key {key} seals from now on\nNext: virt-collector key rewrap"),
        );
        Ok(())
    }

    fn list(&self, ring: &KeyRing, credentials: &[Credential], tokens: &[TokenRow]) {
        let key_of = |credential: &Credential| secret::key_of(&credential.sealed);
        let keys: Vec<Listed> = ring
            .ids()
            .map(|key| Listed {
                key: key.to_string(),
                primary: key == ring.primary(),
                passwords: credentials
                    .iter()
                    .filter(|credential| key_of(credential) == Ok(key))
                    .count(),
                tokens: tied(tokens, key).len(),
            })
            .collect();
        // Whatever no key of the ring can open.
        let lost: Vec<String> = credentials
            .iter()
            .filter(|credential| !key_of(credential).is_ok_and(|key| ring.ids().any(|id| id == key)))
            .map(|credential| credential.name.clone())
            .collect();
        let mut text: Vec<String> = keys
            .iter()
            .map(
                |Listed {
                     key,
                     primary,
                     passwords,
                     tokens,
                 }| {
                    let state = if *primary { "primary" } else { "secondary" };
                    let passwords = counted(*passwords, "password");
                    format!("{key}  {state:<9}  {passwords}, {}", counted(*tokens, "token"))
                },
            )
            .collect();
        if !lost.is_empty() {
            text.push(format!(
                "none of them has sealed {}; virt-collector key verify says more",
                passwords_of(&lost)
            ));
        }
        self.say(
            &serde_json::json!({ "keys": keys, "without_key": lost }),
            &text.join("\n"),
        );
    }

    fn rewrapped(&self, ring: &KeyRing, rewrapped: &[String], left: &[Left]) -> Result<(), Failure> {
        let mut text: Vec<String> = left
            .iter()
            .map(|Left { platform, reason }| format!("{platform}: left as it is: {reason}"))
            .collect();
        text.push(format!(
            "sealed {} anew with key {}",
            counted(rewrapped.len(), "password"),
            ring.primary()
        ));
        if left.is_empty() {
            let others = ring.ids().filter(|key| *key != ring.primary());
            text.extend(others.map(|key| format!("Next: virt-collector key retire {key}")));
        }
        self.say(
            &serde_json::json!({
                "primary": ring.primary().to_string(), "rewrapped": rewrapped, "left": left,
            }),
            &text.join("\n"),
        );
        if left.is_empty() {
            Ok(())
        } else {
            Err(Failure::Told)
        }
    }

    fn retire(
        &self,
        file: &Path,
        key: KeyId,
        credentials: &[Credential],
        tokens: &[TokenRow],
    ) -> Result<(), Failure> {
        key_file::edit(file, |ring| {
            ring.retire(key).map_err(Failure::other)?;
            let platforms: Vec<String> = credentials
                .iter()
                .filter(|credential| secret::key_of(&credential.sealed) == Ok(key))
                .map(|credential| credential.name.clone())
                .collect();
            if !platforms.is_empty() {
                return Err(Failure::other(Refused::InUse { key, platforms }));
            }
            let tokens = tied(tokens, key);
            if !tokens.is_empty() {
                return Err(Failure::other(Refused::Ties { key, tokens }));
            }
            Ok(())
        })?;
        self.say(
            &serde_json::json!({ "file": file.display().to_string(), "retired": key.to_string() }),
            &format!(
                "retired key {key}\nNext: give {} to every collector of this database",
                file.display()
            ),
        );
        Ok(())
    }

    fn verify(&self, ring: &KeyRing, credentials: &[Credential]) -> Result<(), Failure> {
        let verified: Vec<Verified<'_>> = credentials
            .iter()
            .map(|credential| Verified::new(ring, credential))
            .collect();
        let ok = verified.iter().all(|verified| verified.ok);
        let mut text: Vec<String> = verified
            .iter()
            .map(
                |Verified {
                     platform,
                     ok,
                     message,
                     ..
                 }| {
                    format!(
                        "{platform:<16} {:<6}  {message}",
                        if *ok { "ok" } else { "FAILED" }
                    )
                },
            )
            .collect();
        if verified.is_empty() {
            text.push("no password is in the database".to_owned());
        }
        self.say(
            &serde_json::json!({ "ok": ok, "passwords": verified }),
            &text.join("\n"),
        );
        if ok { Ok(()) } else { Err(Failure::Told) }
    }

    fn say(&self, json: &serde_json::Value, text: &str) {
        match self.output {
            Output::Text => say!("{text}"),
            Output::Json => say!("{json:#}"),
        }
    }
}

/// A key, as `list` shows it.
#[derive(Debug, Serialize)]
struct Listed {
    key: String,
    primary: bool,
    passwords: usize,
    /// Those that can be used.
    tokens: usize,
}

/// A password that `rewrap` left as it is.
#[derive(Debug, Serialize)]
struct Left {
    platform: String,
    reason: String,
}

/// A password, as `verify` found it.
#[derive(Debug, Serialize)]
struct Verified<'a> {
    platform: &'a str,
    /// The key that it asks for, where that can be told.
    key: Option<String>,
    ok: bool,
    message: String,
}

impl<'a> Verified<'a> {
    fn new(ring: &KeyRing, credential: &'a Credential) -> Self {
        let key = secret::key_of(&credential.sealed);
        let opened = open(ring, credential).map(drop);
        let message = match (&opened, &key) {
            (Ok(()), Ok(key)) if *key == ring.primary() => format!("opens with key {key}"),
            (Ok(()), Ok(key)) => format!("opens with key {key}, which is not the primary one"),
            (Ok(()), Err(error)) | (Err(error), _) => error.to_string(),
        };
        Self {
            platform: &credential.name,
            key: key.ok().map(|key| key.to_string()),
            ok: opened.is_ok(),
            message,
        }
    }
}

fn open(ring: &KeyRing, credential: &Credential) -> Result<secret::Secret, OpenError> {
    ring.open(credential.place, &credential.sealed)
}

/// Names of the tokens that can be used and that the key ties to their rights.
fn tied(tokens: &[TokenRow], key: KeyId) -> Vec<String> {
    let key = key.to_string();
    tokens
        .iter()
        .filter(|token| token.is_valid() && token.made.key == key)
        .map(|token| token.made.name.clone())
        .collect()
}

async fn sealed_and_tied(config: &Config) -> Result<(Vec<Credential>, Vec<TokenRow>), Failure> {
    let (database, credentials) = credentials(config).await?;
    let tokens = database.tokens().await.map_err(Failure::other)?;
    Ok((credentials, tokens))
}

async fn credentials(config: &Config) -> Result<(Database, Vec<Credential>), Failure> {
    let database = ready_database(config).await?;
    let credentials = database.credentials().await.map_err(Failure::other)?;
    Ok((database, credentials))
}

/// Names of the platforms whose password is sealed anew now, because it was not with the primary key or not for its
/// server alone, and what was left.
async fn rewrap(config: &Config, ring: &KeyRing) -> Result<(Vec<String>, Vec<Left>), Failure> {
    let (database, credentials) = credentials(config).await?;
    let (mut rewrapped, mut left) = (Vec::new(), Vec::new());
    let mut progress = Progress::new("sealing anew", credentials.len());
    for credential in credentials {
        progress.step(&credential.name);
        if ring.is_newest(&credential.sealed) {
            continue;
        }
        let reason = match open(ring, &credential) {
            Err(error) => error.to_string(),
            Ok(password) => {
                let sealed = ring.seal(credential.place, &password).map_err(Failure::other)?;
                if database
                    .reseal_credential(&credential, &sealed)
                    .await
                    .map_err(Failure::other)?
                {
                    rewrapped.push(credential.name);
                    continue;
                }
                "it was changed meanwhile; run virt-collector key rewrap again".to_owned()
            }
        };
        left.push(Left {
            platform: credential.name,
            reason,
        });
    }
    Ok((rewrapped, left))
}
