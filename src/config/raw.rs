//! The file's form: TOML tables as they are written, unknown keys rejected, defaults filled in.
//!
//! `config.example.toml` documents every key and its default; a test holds the two together.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default = "defaults::memory")]
    pub(super) memory: String,
    pub(super) database: Database,
    #[serde(default)]
    pub(super) keys: Keys,
    #[serde(default)]
    pub(super) collection: Collection,
    #[serde(default)]
    pub(super) inventory: Inventory,
    #[serde(default)]
    pub(super) retention: Retention,
    #[serde(default)]
    pub(super) admin: Admin,
    #[serde(default)]
    pub(super) api: Api,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default, rename = "platform", deserialize_with = "platforms")]
    pub(super) platforms: Vec<Platform>,
}

/// As any list is read; who writes `[platform]` is told of the second pair of brackets.
fn platforms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Platform>, D::Error> {
    struct Tables;

    impl<'de> Visitor<'de> for Tables {
        type Value = Vec<Platform>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("tables that begin with [[platform]]")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, tables: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(tables))
        }
    }

    deserializer.deserialize_seq(Tables)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) url: String,
    pub(super) password_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) sslmode: SslMode,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) owner: Option<Account>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    pub(super) url: String,
    pub(super) password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SslMode {
    #[default]
    Auto,
    VerifyFull,
    Disable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Keys {
    pub(super) file: PathBuf,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            file: PathBuf::from("keyring"),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Collection {
    pub(super) interval: String,
    pub(super) discovery_interval: String,
    pub(super) entities_per_request: usize,
    pub(super) parallel_requests: usize,
    pub(super) sessions: usize,
    pub(super) requests_per_second: u32,
    pub(super) request_timeout: String,
    pub(super) host_disk: HostDisk,
    pub(super) skip_host_counters: Vec<String>,
    pub(super) skip_vm_counters: Vec<String>,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            interval: "60s".to_owned(),
            discovery_interval: "5m".to_owned(),
            entities_per_request: 100,
            parallel_requests: 4,
            sessions: 1,
            requests_per_second: 20,
            request_timeout: "60s".to_owned(),
            host_disk: HostDisk::StorageAdapter,
            skip_host_counters: Vec::new(),
            skip_vm_counters: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HostDisk {
    StorageAdapter,
    Datastore,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Inventory {
    pub(super) custom_attributes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retention {
    pub(super) raw: String,
    pub(super) five_minutes: String,
    pub(super) hour: String,
    pub(super) day: String,
    pub(super) compress_after: String,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            raw: "30d".to_owned(),
            five_minutes: "180d".to_owned(),
            hour: "2y".to_owned(),
            day: "forever".to_owned(),
            compress_after: "7d".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    pub(super) listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9273)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Api {
    pub(super) listen: Option<SocketAddr>,
    pub(super) tls_certificate_file: Option<PathBuf>,
    pub(super) tls_key_file: Option<PathBuf>,
    pub(super) behind_proxy: bool,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) connections: usize,
    pub(super) connections_per_address: usize,
    pub(super) requests_per_second: u32,
    pub(super) actions_per_minute: u32,
    pub(super) open_operations: u32,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: None,
            tls_certificate_file: None,
            tls_key_file: None,
            behind_proxy: false,
            trusted_proxies: Vec::new(),
            connections: 256,
            connections_per_address: 64,
            requests_per_second: 100,
            actions_per_minute: 10,
            open_operations: 8,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) level: String,
    pub(super) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Platform {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: PlatformKind,
    pub(super) host: String,
    #[serde(default = "defaults::port")]
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password_file: PathBuf,
    #[serde(default = "defaults::tls_verify")]
    pub(super) tls_verify: bool,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) thumbprint: Option<String>,
    #[serde(default)]
    pub(super) datacenters: Vec<String>,
    #[serde(default)]
    pub(super) include: Vec<String>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PlatformKind {
    VCenter,
    Esxi,
}

mod defaults {
    pub(super) fn memory() -> String {
        "256MiB".to_owned()
    }

    pub(super) const fn port() -> u16 {
        443
    }

    pub(super) const fn tls_verify() -> bool {
        true
    }
}
