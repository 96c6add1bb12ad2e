//! What every stage stands on: a server with an empty database, and directories of its own.
//!
//! Owns: making them, the superuser's way in, and their end. Never does: starting a collector.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use super::Error;
use crate::cluster::{Cluster, Mode};
use crate::database::{Database, Role};
use crate::process;
use crate::proxy::Endpoint;

/// A server that runs, with a database and with directories.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The collector's program.
    pub(crate) program: PathBuf,
    /// For files and logs, which stay.
    pub(crate) directory: PathBuf,
    /// The server that takes writes.
    pub(crate) cluster: Cluster,
    /// The way to the database there.
    pub(crate) superuser: Config,
    sockets: tempfile::TempDir,
    database: Database,
    is_kept: bool,
    /// The cluster that was started first.
    first: String,
}

impl Ground {
    /// Starts a cluster and makes a database in it, which nobody else may use meanwhile. Files go to
    /// `target/KIND/CLUSTER`, where those of the run before are removed.
    pub(crate) async fn prepare(kind: &str, cluster: &str, database: &str) -> Result<Self, Error> {
        let program = process::find("virt-collector")?;
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target")
            .join(kind)
            .join(cluster);
        fresh(&directory)?;
        let sockets = tempfile::tempdir().map_err(|source| Error::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let cluster = Cluster::named(cluster);
        let url = cluster.start().await?;
        Database::remove(&url, database).await?;
        let database = Database::create_on(&url, database).await?;
        Ok(Self {
            program,
            directory,
            superuser: config(&url, database.name())?,
            first: cluster.name().to_owned(),
            cluster,
            sockets,
            database,
            is_kept: false,
        })
    }

    /// For sockets, which go in the end.
    pub(crate) fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// The owner's way to the database, past the proxies.
    pub(crate) fn owner(&self) -> String {
        self.database.url(Role::Owner)
    }

    /// A superuser's connection, past the proxies.
    pub(crate) async fn client(&self) -> Result<Client, Error> {
        connect(&self.superuser).await
    }

    /// Where the server listens.
    pub(crate) fn socket(&self) -> Result<Endpoint, Error> {
        socket(&self.superuser)
    }

    /// Starts the server again. It may listen elsewhere now.
    pub(crate) async fn start(&mut self) -> Result<Endpoint, Error> {
        self.superuser = config(&self.cluster.start().await?, self.database.name())?;
        self.socket()
    }

    /// Leaves the database for somebody to look at; it is there again at the next start of the server.
    pub(crate) fn keep_database(&mut self) {
        self.database.keep();
        self.is_kept = true;
    }

    /// Drops the database unless it is kept, and stops the server, unless whoever started this run has started it and
    /// will stop it.
    pub(crate) async fn clear(mut self) -> Result<(), Error> {
        // The server may be at another place by now than where the database was created.
        self.database.keep();
        if !self.is_kept {
            Database::remove(&self.cluster.start().await?, self.database.name()).await?;
        }
        let is_first = self.cluster.name() == self.first;
        if is_first && std::env::var("VIRT_CLUSTER").is_ok_and(|name| name == self.first) {
            return Ok(());
        }
        Ok(self.cluster.stop(Mode::Fast).await?)
    }
}

/// An empty directory.
pub(crate) fn fresh(directory: &Path) -> Result<(), Error> {
    let file = |source| Error::File {
        path: directory.to_owned(),
        source,
    };
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    std::fs::create_dir_all(directory).map_err(file)
}

/// The superuser's way to a database of the server.
pub(crate) fn config(url: &str, database: &str) -> Result<Config, Error> {
    let mut config = Config::from_str(url)?;
    config.dbname(database);
    Ok(config)
}

/// A connection that ends with the client.
pub(crate) async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    drop(tokio::spawn(connection));
    Ok(client)
}

/// The server's socket.
pub(crate) fn socket(superuser: &Config) -> Result<Endpoint, Error> {
    let directory = superuser.get_hosts().iter().find_map(|host| match host {
        Host::Unix(path) => Some(path),
        Host::Tcp(_) => None,
    });
    Ok(Endpoint::postgres(
        directory.ok_or(Error::Nothing("socket of the server"))?,
    ))
}
