//! Configuration: the file's form, and the validated form that the parts receive.
//!
//! Owns: reading and checking `config.toml`. Never does: connecting to anything, or reading passwords; a password
//! file is read when a connection is made, so that a rotated password needs no restart.
//!
//! Each part takes its own section; only `app` and `cli` name the whole [`Config`].

mod network;
mod raw;
mod validate;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::filter::Filter;
use crate::secret::{SealedPassword, Secret};
use crate::units::ByteSize;

pub use network::{Network, NotANetwork};
pub use validate::{Problem, host_problem, name_problem, thumbprint};

/// Everything the daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The byte budget for replies and rows in flight.
    pub memory: ByteSize,
    /// Where samples go.
    pub database: Database,
    /// What seals the passwords in the database.
    pub keys: Keys,
    /// How samples are read.
    pub collection: Collection,
    /// What is kept of hosts and VMs.
    pub inventory: Inventory,
    /// How long samples and roll-ups are kept.
    pub retention: Retention,
    /// The daemon's own HTTP endpoint.
    pub admin: Admin,
    /// The admin API, where it is on.
    pub api: Option<Api>,
    /// Logs.
    pub log: Log,
    /// What is read.
    pub platforms: Vec<Platform>,
}

/// How to reach TimescaleDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The service's own account.
    pub writer: Account,
    /// The account that owns the tables, for `migrate` only; the writer's where none is given.
    pub owner: Option<Account>,
    /// TLS to the server.
    pub tls: DatabaseTls,
}

/// A connection string and where its password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// A PostgreSQL URL or key-value string without a password.
    pub url: String,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
}

/// TLS to the database server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseTls {
    /// Verified where the server is remote, none on a Unix socket or a loopback address.
    Auto {
        /// Roots instead of the system's.
        ca_file: Option<PathBuf>,
    },
    /// Always, certificate and host name verified.
    VerifyFull {
        /// Roots instead of the system's.
        ca_file: Option<PathBuf>,
    },
    /// Never.
    Disable,
}

/// What seals the passwords in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The key ring. Read when it is needed, so that it may be absent where nothing is sealed.
    pub file: PathBuf,
}

/// How samples are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Time between two live polls of a platform.
    pub interval: Duration,
    /// Time between two readings of what changes in the inventory without being told.
    pub discovery_interval: Duration,
    /// Entities in one request at the start; it adapts below this.
    pub entities_per_request: usize,
    /// Requests in flight per platform in the live lane.
    pub parallel_requests: usize,
    /// Sessions per platform.
    pub sessions: usize,
    /// Requests per second per platform, all loops together.
    pub requests_per_second: u32,
    /// Deadline of one request.
    pub request_timeout: Duration,
    /// Which instances give a host's IOPS and disk latency.
    pub host_disk: HostDisk,
    /// Counters not to ask for, host and VM; their columns stay NULL.
    pub skip_host_counters: Vec<String>,
    /// As above, for VMs.
    pub skip_vm_counters: Vec<String>,
}

/// Which instances give a host's IOPS and disk latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostDisk {
    /// Its storage adapters: few instances, local and SAN storage.
    StorageAdapter,
    /// Its datastores: for sites on NFS or vSAN, where the adapters see nothing.
    Datastore,
}

/// What is kept of hosts and VMs beside what is always kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Names of custom attributes of VMs; of no other is anything stored.
    pub custom_attributes: Vec<String>,
}

/// How long samples and roll-ups are kept; no coarser one shorter than a finer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Samples, and the gap rows between them.
    pub raw: Keep,
    /// Roll-ups by 5 minutes.
    pub five_minutes: Keep,
    /// By hour.
    pub hour: Keep,
    /// By day.
    pub day: Keep,
    /// When samples are compressed, where the database can; `Keep::Forever` stands for never.
    pub compress_after: Keep,
}

impl Default for Retention {
    /// What the file says where it says nothing; a test holds the two together.
    fn default() -> Self {
        Self {
            raw: Keep::Days(30),
            five_minutes: Keep::Days(180),
            hour: Keep::Days(730),
            day: Keep::Forever,
            compress_after: Keep::Days(7),
        }
    }
}

/// How long something is kept. A day is 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Days.
    Days(u16),
    /// No end.
    Forever,
}

impl Keep {
    /// `None` for ever.
    #[must_use]
    pub const fn days(self) -> Option<i32> {
        match self {
            Self::Days(days) => Some(days as i32),
            Self::Forever => None,
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Days(days) => write!(f, "{days} days"),
            Self::Forever => f.write_str("for ever"),
        }
    }
}

/// The daemon's own HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Address and port; loopback only.
    pub listen: SocketAddr,
}

/// The admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Address and port.
    pub listen: SocketAddr,
    /// Certificate and key; without them the API is on loopback, or a proxy stands in front.
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// What nobody may exceed.
    pub limits: ApiLimits,
}

/// What a TLS server shows and proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM, the server's certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// Limits of the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Of one address; trusted proxies excepted.
    pub connections_per_address: usize,
    /// Of one token, and of one address.
    pub requests_per_second: u32,
    /// Of one token: power and snapshots.
    pub actions_per_minute: u32,
    /// Actions of one platform that wait or run.
    pub open_operations: u32,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A filter such as `info` or `info,virt_collector::soap=debug`.
    pub level: String,
    /// Form of the lines.
    pub format: LogFormat,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and journald.
    Text,
    /// One JSON object a line.
    Json,
}

/// What kind of server a platform is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformKind {
    /// A vCenter Server.
    VCenter,
    /// A single ESXi host.
    Esxi,
}

impl PlatformKind {
    /// The word in configuration and database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VCenter => "vcenter",
            Self::Esxi => "esxi",
        }
    }
}

impl PlatformKind {
    /// `about.apiType` of such a server.
    #[must_use]
    pub const fn api_type(self) -> &'static str {
        match self {
            Self::VCenter => "VirtualCenter",
            Self::Esxi => "HostAgent",
        }
    }
}

impl fmt::Display for PlatformKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VCenter => "vCenter",
            Self::Esxi => "ESXi",
        })
    }
}

/// One vCenter or ESXi host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Its name here, unique.
    pub name: String,
    /// vCenter or ESXi.
    pub kind: PlatformKind,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Where its password is.
    pub password: Password,
    /// Which certificate is trusted.
    pub trust: Trust,
    /// Which of its objects are stored and polled.
    pub filter: Filter,
}

/// Where a platform's password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// On the first line of a file.
    File(PathBuf),
    /// Sealed in the database.
    Sealed(SealedPassword),
    /// Here: for a trial before it is kept anywhere.
    Given(Secret),
}

/// Which server certificate is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// What the system trusts.
    System,
    /// What the authorities in a PEM file have signed.
    CaFile(PathBuf),
    /// What the authorities in this PEM text have signed.
    CaPem(String),
    /// The one certificate with this SHA-256 thumbprint.
    Thumbprint([u8; 32]),
    /// Any: whoever stands in between reads the password.
    Off,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}; {}", advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not TOML, a key that does not exist, or a value of the wrong type. The message names line and column.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        message: String,
    },
    /// The values do not make sense, all of them listed.
    #[error("{path}:{}", problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Each problem.
        problems: Vec<Problem>,
    },
}

/// What to do about a file that cannot be read.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "this account may not; run this as one that may, or let it",
        io::ErrorKind::IsADirectory => "name the file in it",
        io::ErrorKind::InvalidData => "it must be text in UTF-8",
        _ => "write one, starting from config.example.toml",
    }
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its own directory.
    ///
    /// # Errors
    /// When the file cannot be read, is not what [`raw`] describes, or its values do not make sense.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// As [`Config::load`], of a text that came from `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let raw: raw::File = toml::from_str(text).map_err(|source| Error::Parse {
            path: path.to_owned(),
            message: source.to_string().trim_end().to_owned(),
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        validate::validate(raw, directory).map_err(|problems| Error::Invalid {
            path: path.to_owned(),
            problems,
        })
    }
}
