//! A fresh TimescaleDB database with the three roles, gone when dropped.
//!
//! Owns: creating and dropping databases on the server that `VIRT_TEST_DATABASE_URL` names, set up by the same
//! `sql/bootstrap.sql` that an administrator runs. Never does: tables; these come from the migrations.

use std::str::FromStr as _;
use std::time::Duration;

use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

/// Names the superuser connection to a server with TimescaleDB.
pub const VARIABLE: &str = "VIRT_TEST_DATABASE_URL";

/// What an administrator runs once in a new database.
const BOOTSTRAP: &str = include_str!("../../../sql/bootstrap.sql");

/// Longest wait for the server when a database is dropped.
const DROP_DEADLINE: Duration = Duration::from_secs(20);

/// As whom to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The superuser of `VIRT_TEST_DATABASE_URL`.
    Superuser,
    /// `virt_owner`: migrations.
    Owner,
    /// `virt_writer`: the service.
    Writer,
    /// `virt_reader`: people and dashboards.
    Reader,
}

impl Role {
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Superuser => None,
            Self::Owner => Some("virt_owner"),
            Self::Writer => Some("virt_writer"),
            Self::Reader => Some("virt_reader"),
        }
    }
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody said which server.
    #[error("run `make test`, or name a TimescaleDB superuser connection in {VARIABLE}")]
    Variable,
    /// The variable's text cannot be understood.
    #[error("{VARIABLE} is no PostgreSQL connection string")]
    Url(#[source] tokio_postgres::Error),
    /// The server refused something.
    #[error("cannot {attempt}")]
    Server {
        /// What was tried.
        attempt: String,
        /// Why not.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server has no TimescaleDB.
    #[error("the server in {VARIABLE} has no TimescaleDB extension: run `make setup`, or install it there")]
    Extension(#[source] tokio_postgres::Error),
    /// A name that would need quoting.
    #[error("{0:?} cannot name a database: use a-z, 0-9 and _")]
    Name(String),
}

fn server(attempt: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Error {
    move |source| Error::Server {
        attempt: attempt.into(),
        source,
    }
}

/// A database of its own. Dropping the value drops the database, with force.
#[derive(Debug)]
pub struct Database {
    name: String,
    superuser: Config,
    kept: bool,
}

impl Database {
    /// Creates `virt_test_<random>` on the server that `VIRT_TEST_DATABASE_URL` names.
    ///
    /// # Errors
    /// When the variable is absent, or the server cannot be reached or has no TimescaleDB.
    pub async fn create() -> Result<Self, Error> {
        Self::create_on(&superuser_url()?, &random_name()).await
    }

    /// A name for a database on that server which somebody else creates; dropped like one of its own.
    ///
    /// # Errors
    /// When the variable is absent.
    pub fn unmade() -> Result<Self, Error> {
        Ok(Self {
            name: random_name(),
            superuser: Config::from_str(&superuser_url()?).map_err(Error::Url)?,
            kept: false,
        })
    }

    /// Creates a database of this name on the server that a superuser's connection string names.
    ///
    /// # Errors
    /// As [`Database::create`], and when there is such a database already.
    pub async fn create_on(superuser_url: &str, name: &str) -> Result<Self, Error> {
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            return Err(Error::Name(name.to_owned()));
        }
        let superuser = Config::from_str(superuser_url).map_err(Error::Url)?;
        let client = connect(&superuser)
            .await
            .map_err(server("connect to the database server as superuser"))?;
        // Sessions in template1 would be in the way; nobody can connect to template0.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        client
            .batch_execute(&create)
            .await
            .map_err(server(format!("create database {name}")))?;
        let database = Self {
            name: name.to_owned(),
            superuser,
            kept: false,
        };
        let inside = database.connect(Role::Superuser).await?;
        inside
            .batch_execute(BOOTSTRAP)
            .await
            .map_err(|source| match source.code() {
                Some(&SqlState::UNDEFINED_FILE | &SqlState::FEATURE_NOT_SUPPORTED) => {
                    Error::Extension(source)
                }
                _ => server("run sql/bootstrap.sql")(source),
            })?;
        Ok(database)
    }

    /// Drops a database of this name if there is one, for those who use the same name again.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn remove(superuser_url: &str, name: &str) -> Result<(), Error> {
        drop_database(&Config::from_str(superuser_url).map_err(Error::Url)?, name)
            .await
            .map_err(server(format!("drop database {name}")))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connection string for a role: key-value form, without password.
    #[must_use]
    pub fn url(&self, role: Role) -> String {
        let mut parts = Vec::new();
        let hosts: Vec<String> = self
            .superuser
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        if !hosts.is_empty() {
            parts.push(format!("host={}", quoted(&hosts.join(","))));
        }
        let ports: Vec<String> = self.superuser.get_ports().iter().map(u16::to_string).collect();
        if !ports.is_empty() {
            parts.push(format!("port={}", ports.join(",")));
        }
        if let Some(user) = role.name().or(self.superuser.get_user()) {
            parts.push(format!("user={}", quoted(user)));
        }
        parts.push(format!("dbname={}", self.name));
        parts.join(" ")
    }

    /// A connection for a role.
    ///
    /// # Errors
    /// When the server does not let the role in.
    pub async fn connect(&self, role: Role) -> Result<Client, Error> {
        let mut config = self.superuser.clone();
        config.dbname(&self.name);
        if let Some(user) = role.name() {
            config.user(user);
        }
        connect(&config)
            .await
            .map_err(server(format!("connect to {} as {role:?}", self.name)))
    }

    /// Drops the database now and says whether that worked.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn drop_now(mut self) -> Result<(), Error> {
        self.kept = true;
        drop_database(&self.superuser, &self.name)
            .await
            .map_err(server(format!("drop database {}", self.name)))
    }

    /// Leaves the database where it is, to be looked at after a failure.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Database {
    /// Best effort: an unreachable server has no database to be dropped.
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (superuser, name) = (self.superuser.clone(), self.name.clone());
        // A thread of its own: the caller's runtime may be at its end or have this thread only.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(async {
                tokio::time::timeout(DROP_DEADLINE, drop_database(&superuser, &name))
                    .await
                    .ok()
            })
        });
        drop(dropping.join());
    }
}

fn superuser_url() -> Result<String, Error> {
    let url = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
    url.ok_or(Error::Variable)
}

/// Different for each process and call: the hasher's keys are random.
fn random_name() -> String {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    format!("virt_test_{random:016x}")
}

async fn connect(config: &Config) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    drop(tokio::spawn(connection));
    Ok(client)
}

/// TimescaleDB's background workers hold connections to every database, hence the force.
async fn drop_database(superuser: &Config, name: &str) -> Result<(), tokio_postgres::Error> {
    let client = connect(superuser).await?;
    client
        .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        .await
}

fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ',' | ':');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_urls_name_the_server_and_no_password() {
        let superuser =
            Config::from_str("host='/tmp/a dir' port=5433 user=postgres password=secret").unwrap();
        let mut database = Database {
            name: "virt_test_1".to_owned(),
            superuser,
            kept: true,
        };
        assert_eq!(
            database.url(Role::Writer),
            "host='/tmp/a dir' port=5433 user=virt_writer dbname=virt_test_1"
        );
        assert_eq!(
            database.url(Role::Superuser),
            "host='/tmp/a dir' port=5433 user=postgres dbname=virt_test_1"
        );
        database.superuser = Config::from_str("postgresql://admin@db.example.com/postgres").unwrap();
        assert_eq!(
            database.url(Role::Owner),
            "host=db.example.com port=5432 user=virt_owner dbname=virt_test_1"
        );
        let parsed = Config::from_str(&database.url(Role::Reader)).unwrap();
        assert_eq!(parsed.get_user(), Some("virt_reader"));
    }
}
