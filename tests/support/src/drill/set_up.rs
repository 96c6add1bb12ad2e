//! What every stage begins with: an empty directory, and the way to the server.
//!
//! Owns: both. Never does: starting anything.

use std::path::Path;
use std::str::FromStr as _;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::Error;
use crate::proxy::Endpoint;

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
