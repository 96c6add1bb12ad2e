//! The private TimescaleDB clusters of `tests/support/cluster`, from Rust.
//!
//! Owns: calling that script. Never does: touching a server in another way.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::process::Command;

/// How `stop` and `restart` end the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sessions are ended, all is written: what an administrator does.
    Fast,
    /// As in a crash: the next start recovers.
    Immediate,
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// Why the cluster is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The script cannot be run.
    #[error("cannot run {0}")]
    Run(PathBuf, #[source] std::io::Error),
    /// The script says no.
    #[error("{0}")]
    Refused(String),
}

/// A private cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    script: PathBuf,
    name: String,
}

impl Cluster {
    /// The cluster of this name in the checkout that this program was built in.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
        Self {
            script,
            name: name.to_owned(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target/cluster")
            .join(&self.name)
            .join("data")
    }

    /// Starts it if it is not running and returns the superuser's connection string.
    ///
    /// # Errors
    /// When the set-up was not run or the server does not start; the text says what to do.
    pub async fn start(&self) -> Result<String, Error> {
        self.call("start", None).await
    }

    /// The connection string of the running cluster.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn url(&self) -> Result<String, Error> {
        self.call("url", None).await
    }

    /// Stops it. The data stay.
    ///
    /// # Errors
    /// When the script fails.
    pub async fn stop(&self, mode: Mode) -> Result<(), Error> {
        self.call("stop", Some(mode)).await.map(drop)
    }

    /// Stops and starts it at the same socket.
    ///
    /// # Errors
    /// When the server does not start again.
    pub async fn restart(&self, mode: Mode) -> Result<(), Error> {
        self.call("restart", Some(mode)).await.map(drop)
    }

    /// Makes this one anew as a streaming standby of a running cluster, and returns the superuser's connection string.
    ///
    /// # Errors
    /// When the other one is not running or cannot be copied.
    pub async fn follow(&self, primary: &Self) -> Result<String, Error> {
        self.call_with("standby", &[&self.name, &primary.name]).await
    }

    /// Makes a standby take writes, and waits until it does.
    ///
    /// # Errors
    /// When it is not one, or is not running.
    pub async fn promote(&self) -> Result<String, Error> {
        self.call("promote", None).await
    }

    async fn call(&self, verb: &str, mode: Option<Mode>) -> Result<String, Error> {
        match mode {
            Some(mode) => self.call_with(verb, &["-m", mode.word(), &self.name]).await,
            None => self.call_with(verb, &[&self.name]).await,
        }
    }

    async fn call_with(&self, verb: &str, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new(&self.script);
        // A group of its own: Ctrl-C at the terminal must not stop half of a start or stop.
        command
            .arg(verb)
            .args(arguments)
            .stdin(Stdio::null())
            .process_group(0);
        let Output {
            status,
            stdout,
            stderr,
        } = command
            .output()
            .await
            .map_err(|source| Error::Run(self.script.clone(), source))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&stderr).trim().to_owned();
        Err(Error::Refused(if said.is_empty() {
            format!("{} {verb}: {status}", self.script.display())
        } else {
            said
        }))
    }
}
