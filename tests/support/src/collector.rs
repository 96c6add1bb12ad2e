//! A configured `virt-collector`: its files, its runs, its end.
//!
//! Owns: writing `config.toml` and password files, and the command lines. Never does: anything that an operator
//! could not do by hand.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use vsphere_simulator::{PlatformKind, Simulator};

use crate::database::{Database, Role};
use crate::process::{self, Error, Process, Signal};

/// What the daemon is called in messages.
const DAEMON: &str = "virt-collector";

/// Lines of the log of one that did not end well.
const LAST_LINES: usize = 20;

/// Starts a program with variables of its own.
const ENV: &str = "/usr/bin/env";

/// Longest time for a one-shot command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Which certificate of a platform is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// What this authority has signed.
    CaPem(String),
    /// The one certificate with this SHA-256 thumbprint.
    Thumbprint(String),
    /// Any.
    Off,
}

/// A `[[platform]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its name in the configuration.
    pub name: String,
    /// `vcenter` or `esxi`.
    pub kind: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Which certificate is trusted.
    pub trust: Trust,
}

impl Platform {
    /// A simulator of this process.
    #[must_use]
    pub fn simulated(name: &str, simulator: &Simulator) -> Self {
        let (user, password) = simulator.credentials();
        Self {
            name: name.to_owned(),
            kind: match simulator.truth().kind {
                PlatformKind::Vcenter => "vcenter",
                PlatformKind::Esxi => "esxi",
            },
            address: simulator.addr(),
            user: user.to_owned(),
            password: password.to_owned(),
            trust: simulator
                .ca_pem()
                .map_or(Trust::Off, |pem| Trust::CaPem(pem.to_owned())),
        }
    }
}

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connection string of the writer.
    pub database: String,
    /// Connection string of the owner.
    pub owner: String,
    /// Time between two polls.
    pub interval: Duration,
    /// Time between two discoveries.
    pub discovery_interval: Duration,
    /// Address of the admin port.
    pub listen: SocketAddr,
    /// Lines in front of everything else: top-level keys.
    pub top: String,
    /// Lines behind everything else: more tables.
    pub more: String,
    /// What is read.
    pub platforms: Vec<Platform>,
}

impl Settings {
    /// A poll a minute and a discovery each five, at a free port and on the shortest way to a database.
    ///
    /// # Errors
    /// When no port is free.
    pub fn on(database: &Database, platforms: Vec<Platform>) -> Result<Self, Error> {
        Ok(Self {
            database: database.url(Role::Writer),
            owner: database.url(Role::Owner),
            interval: Duration::from_mins(1),
            discovery_interval: Duration::from_mins(5),
            listen: process::free_address()?,
            top: String::new(),
            more: String::new(),
            platforms,
        })
    }
}

/// A `virt-collector` with its files in a directory. Dropping it kills a running daemon.
#[derive(Debug)]
pub struct Collector {
    program: PathBuf,
    directory: PathBuf,
    listen: SocketAddr,
    /// `TZ` of the daemon.
    zone: Option<&'static str>,
    daemon: Option<Process>,
}

impl Collector {
    /// Writes `config.toml`, password files and certificates into a directory.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn prepare(program: &Path, directory: &Path, settings: &Settings) -> Result<Self, Error> {
        let file = |source| Error::File {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(file)?;
        let collector = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            listen: settings.listen,
            zone: None,
            daemon: None,
        };
        collector.configure(settings)?;
        Ok(collector)
    }

    /// Writes the files anew; whoever runs does not know of it before it reads them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn configure(&self, settings: &Settings) -> Result<(), Error> {
        for (index, platform) in settings.platforms.iter().enumerate() {
            write_private(
                &self.directory.join(format!("platform-{index}.password")),
                &platform.password,
            )?;
            if let Trust::CaPem(pem) = &platform.trust {
                write_private(&self.directory.join(format!("platform-{index}.pem")), pem)?;
            }
        }
        write_private(&self.config_file(), &config(settings))
    }

    /// Changes the text of the configuration file.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn amend(&self, change: impl FnOnce(&str) -> String) -> Result<(), Error> {
        let path = self.config_file();
        let text = std::fs::read_to_string(&path).map_err(|source| Error::File {
            path: path.clone(),
            source,
        })?;
        write_private(&path, &change(&text))
    }

    /// Writes another password into the file of a platform, by its place.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn give_password(&self, platform: usize, password: &str) -> Result<(), Error> {
        let file = format!("platform-{platform}.password");
        write_private(&self.directory.join(file), password)
    }

    /// The time zone of the daemon from its next start on; `None`: the machine's.
    pub const fn set_zone(&mut self, zone: Option<&'static str>) {
        self.zone = zone;
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// Changes the text of the configuration file, as an operator does; whoever runs does not know of it before it
    /// reads it. Returns the text before.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn edit(&self, edited: impl FnOnce(&str) -> String) -> Result<String, Error> {
        let path = self.config_file();
        let before = std::fs::read_to_string(&path).map_err(|source| Error::File {
            path: path.clone(),
            source,
        })?;
        write_private(&path, &edited(&before))?;
        Ok(before)
    }

    /// The daemon's log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join("virt-collector.log")
    }

    /// Address of the admin port.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.listen
    }

    /// Runs a subcommand with this configuration to its end and returns what it wrote.
    ///
    /// # Errors
    /// When it does not succeed.
    pub async fn command(&self, words: &[&str]) -> Result<String, Error> {
        let config = self.config_file().display().to_string();
        let arguments = words.iter().copied().chain(["--config", config.as_str()]);
        process::run(&self.program, arguments, COMMAND_DEADLINE).await
    }

    /// `virt-collector migrate`, as the owner.
    ///
    /// # Errors
    /// When it does not succeed.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.command(&["migrate"]).await.map(drop)
    }

    /// Starts `virt-collector run`. One that runs is killed first.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(&mut self) -> Result<(), Error> {
        self.start_by(&[]).await
    }

    /// As [`Collector::start`], by a program that becomes it, such as `env` or `prlimit`, with its arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_by(&mut self, by: &[String]) -> Result<(), Error> {
        self.kill().await?;
        let config = self.config_file();
        let zone = self.zone.map(|zone| format!("TZ={zone}"));
        let zoned: Vec<&OsStr> = match &zone {
            Some(zone) => vec![ENV.as_ref(), zone.as_ref()],
            None => Vec::new(),
        };
        let run: [&OsStr; 4] = [
            self.program.as_os_str(),
            "run".as_ref(),
            "--config".as_ref(),
            config.as_os_str(),
        ];
        let mut words = by.iter().map(AsRef::as_ref).chain(zoned).chain(run);
        let program = Path::new(words.next().unwrap_or(self.program.as_os_str()));
        let log = self.log();
        self.daemon = Some(Process::start(DAEMON, program, words, &log)?);
        Ok(())
    }

    /// The running daemon.
    pub const fn daemon(&mut self) -> Option<&mut Process> {
        self.daemon.as_mut()
    }

    /// Its number, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().and_then(Process::id)
    }

    /// Sends a signal to the daemon.
    ///
    /// # Errors
    /// When none runs.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(daemon) = &self.daemon else {
            return Err(Error::Child {
                verb: "signal",
                name: DAEMON.to_owned(),
                source: std::io::Error::new(std::io::ErrorKind::NotFound, "it was not started"),
            });
        };
        daemon.signal(signal)
    }

    /// Nothing while the daemon runs.
    ///
    /// # Errors
    /// With its last log lines once it has ended.
    pub fn must_run(&mut self) -> Result<(), Error> {
        self.daemon.as_mut().map_or(Ok(()), Process::must_run)
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// With the last answer, or the last log lines if the daemon ended.
    pub async fn ready(&mut self, deadline: Duration) -> Result<(), Error> {
        let listen = self.listen;
        let waited = process::until("virt-collector to be ready", deadline, || {
            let ended = self.must_run();
            async move {
                if let Err(error) = ended {
                    return Ok(Err(error));
                }
                match crate::http::get(listen, "/readyz").await {
                    Ok((status, _)) if status.is_success() => Ok(Ok(())),
                    Ok((status, body)) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
                    Err(error) => Err(process::chain(&error)),
                }
            }
        });
        waited.await?
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn metrics(&self) -> Result<String, crate::http::Error> {
        let (_, body) = crate::http::get(self.listen, "/metrics").await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn kill(&mut self) -> Result<(), Error> {
        match self.daemon.take() {
            Some(mut daemon) => daemon.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM, and how it ended. `None` where nothing ran.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self, deadline: Duration) -> Result<Option<ExitStatus>, Error> {
        let Some(daemon) = self.daemon.as_mut() else {
            return Ok(None);
        };
        let status = daemon.terminate(deadline).await?;
        self.daemon = None;
        Ok(Some(status))
    }

    /// As [`Collector::stop`], of one that must end well.
    ///
    /// # Errors
    /// When it does not end in time, or not with 0: then with its last log lines.
    pub async fn end(&mut self, deadline: Duration) -> Result<(), Error> {
        match self.stop(deadline).await? {
            Some(status) if !status.success() => {
                let log = self.log();
                Err(Error::Stopped {
                    name: DAEMON.to_owned(),
                    status,
                    last_words: process::tail(&log, LAST_LINES),
                    log,
                })
            }
            _ => Ok(()),
        }
    }
}

fn config(settings: &Settings) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        writeln!(text, "{words}").unwrap_or_default();
    };
    if !settings.top.is_empty() {
        line(format_args!("{}\n", settings.top.trim_end()));
    }
    line(format_args!("[database]\nurl = {}\n", toml(&settings.database)));
    line(format_args!(
        "[database.owner]\nurl = {}\n",
        toml(&settings.owner)
    ));
    line(format_args!(
        "[collection]\ninterval = \"{}s\"\ndiscovery_interval = \"{}s\"\n",
        settings.interval.as_secs(),
        settings.discovery_interval.as_secs()
    ));
    line(format_args!("[admin]\nlisten = \"{}\"", settings.listen));
    for (index, platform) in settings.platforms.iter().enumerate() {
        line(format_args!(
            "\n[[platform]]\nname = {}\ntype = \"{}\"\nhost = \"{}\"\nport = {}\nuser = {}\npassword_file = \"platform-{index}.password\"",
            toml(&platform.name),
            platform.kind,
            platform.address.ip(),
            platform.address.port(),
            toml(&platform.user),
        ));
        match &platform.trust {
            Trust::CaPem(_) => line(format_args!("ca_file = \"platform-{index}.pem\"")),
            Trust::Thumbprint(thumbprint) => line(format_args!("thumbprint = {}", toml(thumbprint))),
            Trust::Off => line(format_args!("tls_verify = false")),
        }
    }
    if !settings.more.is_empty() {
        line(format_args!("\n{}", settings.more.trim_end()));
    }
    text
}

fn toml(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Readable by this user only.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_what_an_operator_would_write() {
        let settings = Settings {
            database: "host=/tmp/db user=virt_writer dbname=demo".to_owned(),
            owner: "host='/tmp/\\'db' user=virt_owner dbname=demo".to_owned(),
            interval: Duration::from_secs(20),
            discovery_interval: Duration::from_secs(60),
            listen: SocketAddr::from(([127, 0, 0, 1], 9273)),
            top: "memory = \"64MiB\"".to_owned(),
            more: "[log]\nlevel = \"debug\"".to_owned(),
            platforms: vec![Platform {
                name: "demo".to_owned(),
                kind: "vcenter",
                address: SocketAddr::from(([127, 0, 0, 1], 8989)),
                user: "monitor@vsphere.local".to_owned(),
                password: "monitor".to_owned(),
                trust: Trust::CaPem("pem".to_owned()),
            }],
        };
        let expected = r#"memory = "64MiB"

[database]
url = "host=/tmp/db user=virt_writer dbname=demo"

[database.owner]
url = "host='/tmp/\\'db' user=virt_owner dbname=demo"

[collection]
interval = "20s"
discovery_interval = "60s"

[admin]
listen = "127.0.0.1:9273"

[[platform]]
name = "demo"
type = "vcenter"
host = "127.0.0.1"
port = 8989
user = "monitor@vsphere.local"
password_file = "platform-0.password"
ca_file = "platform-0.pem"

[log]
level = "debug"
"#;
        assert_eq!(config(&settings), expected);
    }
}
