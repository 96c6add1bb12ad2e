//! From the file's form to the validated form. Every struct is taken apart exhaustively, so that a new key does
//! not compile until it is handled; all problems are reported at once.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::{
    Account, Admin, Api, ApiLimits, Collection, Config, Database, DatabaseTls, HostDisk, Inventory, Keep,
    Keys, Log, LogFormat, Network, Password, Platform, PlatformKind, Retention, TlsFiles, Trust, raw,
};
use crate::model::columns::Column;
use crate::model::filter::Filter;
use crate::model::ids::EntityKind;
use crate::units::ByteSize;

/// How far back samples may still arrive.
const BACKFILL_HOURS: u16 = 25;

/// Longer than that, in whole days; the database holds to it as well.
const LEAST_KEPT_DAYS: u16 = 2;

/// One value that does not make sense, and what would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    key: String,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

struct Check<'a> {
    directory: &'a Path,
    problems: Vec<Problem>,
}

pub(super) fn validate(raw: raw::File, directory: &Path) -> Result<Config, Vec<Problem>> {
    let mut check = Check {
        directory,
        problems: Vec::new(),
    };
    let raw::File {
        memory,
        database,
        keys,
        collection,
        inventory,
        retention,
        admin,
        api,
        log,
        platforms,
    } = raw;
    let config = Config {
        memory: check.memory(&memory),
        database: check.database(database),
        keys: check.keys(keys),
        collection: check.collection(collection),
        inventory: check.inventory(inventory),
        retention: check.retention(&retention),
        admin: check.admin(&admin),
        api: check.api(api),
        log: check.log(log),
        platforms: check.platforms(platforms),
    };
    if config
        .api
        .as_ref()
        .is_some_and(|api| api.listen == config.admin.listen && api.listen.port() != 0)
    {
        check.problem(
            "api.listen",
            format!(
                "{} is that of admin.listen; each needs one of its own",
                config.admin.listen
            ),
        );
    }
    if check.problems.is_empty() {
        Ok(config)
    } else {
        Err(check.problems)
    }
}

impl Check<'_> {
    fn problem(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            key: key.into(),
            message: message.into(),
        });
    }

    fn path(&self, path: PathBuf) -> PathBuf {
        self.directory.join(path)
    }

    fn memory(&mut self, text: &str) -> ByteSize {
        let least = ByteSize::mebibytes(32);
        match ByteSize::from_str(text) {
            Ok(size) if size >= least => size,
            Ok(size) => {
                self.problem(
                    "memory",
                    format!("{size} is too little to hold one reply; at least {least}"),
                );
                least
            }
            Err(error) => {
                self.problem("memory", error.to_string());
                least
            }
        }
    }

    fn duration(&mut self, key: &str, text: &str, least: Duration, most: Duration) -> Duration {
        let parsed = text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .filter(|_| !text.trim().is_empty());
        match parsed {
            Some(duration) if (least..=most).contains(&duration) => duration,
            Some(_) => {
                self.problem(
                    key,
                    format!("{text:?} is outside {}s to {}s", least.as_secs(), most.as_secs()),
                );
                least
            }
            None => {
                self.problem(
                    key,
                    format!("not a duration: {text:?}; write it as \"60s\" or \"5m\""),
                );
                least
            }
        }
    }

    fn database(&mut self, raw: raw::Database) -> Database {
        let raw::Database {
            url,
            password_file,
            sslmode,
            ca_file,
            owner,
        } = raw;
        let ca_file = ca_file.map(|path| self.path(path));
        let tls = match sslmode {
            raw::SslMode::Auto => DatabaseTls::Auto { ca_file },
            raw::SslMode::VerifyFull => DatabaseTls::VerifyFull { ca_file },
            raw::SslMode::Disable => {
                if ca_file.is_some() {
                    self.problem(
                        "database.ca_file",
                        "means nothing with sslmode = \"disable\"; remove one of them",
                    );
                }
                DatabaseTls::Disable
            }
        };
        let writer = self.account("database", url, password_file);
        let owner = owner
            .map(|raw::Account { url, password_file }| self.account("database.owner", url, password_file));
        Database { writer, owner, tls }
    }

    fn account(&mut self, key: &str, url: String, password_file: Option<PathBuf>) -> Account {
        if url.trim().is_empty() {
            self.problem(
                format!("{key}.url"),
                "is empty; write it as \"postgresql://user@host/database\"",
            );
        }
        Account {
            url,
            password_file: password_file.map(|path| self.path(path)),
        }
    }

    fn keys(&mut self, raw: raw::Keys) -> Keys {
        let raw::Keys { file } = raw;
        if file.as_os_str().is_empty() {
            self.problem("keys.file", "is empty; name the file of the key ring");
        }
        Keys {
            file: self.path(file),
        }
    }

    fn collection(&mut self, raw: raw::Collection) -> Collection {
        let raw::Collection {
            interval,
            discovery_interval,
            entities_per_request,
            parallel_requests,
            sessions,
            requests_per_second,
            request_timeout,
            host_disk,
            skip_host_counters,
            skip_vm_counters,
        } = raw;
        let seconds = Duration::from_secs;
        self.known_counters(
            "collection.skip_host_counters",
            EntityKind::Host,
            &skip_host_counters,
        );
        self.known_counters("collection.skip_vm_counters", EntityKind::Vm, &skip_vm_counters);
        Collection {
            interval: self.duration("collection.interval", &interval, seconds(20), seconds(300)),
            discovery_interval: self.duration(
                "collection.discovery_interval",
                &discovery_interval,
                seconds(20),
                seconds(3600),
            ),
            entities_per_request: self.number(
                "collection.entities_per_request",
                entities_per_request,
                1,
                1000,
            ),
            parallel_requests: self.number("collection.parallel_requests", parallel_requests, 1, 16),
            sessions: self.number("collection.sessions", sessions, 1, 8),
            requests_per_second: self.number("collection.requests_per_second", requests_per_second, 1, 1000),
            request_timeout: self.duration(
                "collection.request_timeout",
                &request_timeout,
                seconds(5),
                seconds(300),
            ),
            host_disk: match host_disk {
                raw::HostDisk::StorageAdapter => HostDisk::StorageAdapter,
                raw::HostDisk::Datastore => HostDisk::Datastore,
            },
            skip_host_counters,
            skip_vm_counters,
        }
    }

    fn number<N: PartialOrd + fmt::Display + Copy>(&mut self, key: &str, value: N, least: N, most: N) -> N {
        if value < least || value > most {
            self.problem(key, format!("{value} is outside {least} to {most}"));
        }
        value
    }

    /// Only counters of the column tables can be left out; a name with a typing error would silently do nothing.
    fn known_counters(&mut self, key: &str, kind: EntityKind, names: &[String]) {
        let known: BTreeSet<&str> = Column::of(kind).iter().flat_map(Column::counters).collect();
        for name in names {
            if known.contains(name.as_str()) {
                continue;
            }
            let group = name.split('.').next().unwrap_or_default();
            let alike: Vec<&str> = known
                .iter()
                .copied()
                .filter(|known| known.split('.').next() == Some(group))
                .collect();
            let choice = if alike.is_empty() {
                known.into_iter().collect()
            } else {
                alike
            };
            self.problem(
                key,
                format!(
                    "{name:?} is no counter that {kind} columns are made of; there are {}",
                    choice.join(", ")
                ),
            );
            return;
        }
    }

    fn inventory(&mut self, raw: raw::Inventory) -> Inventory {
        let raw::Inventory { custom_attributes } = raw;
        if custom_attributes.iter().any(|name| name.trim().is_empty()) {
            self.problem(
                "inventory.custom_attributes",
                "a name is empty; write names as the vSphere Client shows them, such as \"Owner\"",
            );
        }
        Inventory { custom_attributes }
    }

    fn retention(&mut self, raw: &raw::Retention) -> Retention {
        let raw::Retention {
            raw,
            five_minutes,
            hour,
            day,
            compress_after,
        } = raw;
        let compress_after = match compress_after.trim() {
            "never" => Keep::Forever,
            text => self.keep("retention.compress_after", text, "never"),
        };
        let retention = Retention {
            raw: self.keep("retention.raw", raw, "forever"),
            five_minutes: self.keep("retention.five_minutes", five_minutes, "forever"),
            hour: self.keep("retention.hour", hour, "forever"),
            day: self.keep("retention.day", day, "forever"),
            compress_after,
        };
        let finer = [
            ("raw", retention.raw),
            ("five_minutes", retention.five_minutes),
            ("hour", retention.hour),
        ];
        let coarser = [
            ("five_minutes", retention.five_minutes),
            ("hour", retention.hour),
            ("day", retention.day),
        ];
        for ((fine, kept_fine), (coarse, kept_coarse)) in finer.into_iter().zip(coarser) {
            if kept_coarse < kept_fine {
                self.problem(
                    format!("retention.{coarse}"),
                    format!(
                        "{kept_coarse} is shorter than {kept_fine} of {fine}, which it is made from and outlives; \
                         raise it or lower {fine}"
                    ),
                );
            }
        }
        retention
    }

    /// A number of days, weeks or years, or the word for no end.
    fn keep(&mut self, key: &str, text: &str, endless: &str) -> Keep {
        if endless == "forever" && text.trim() == endless {
            return Keep::Forever;
        }
        let text = text.trim();
        let days = [("d", 1), ("w", 7), ("y", 365)]
            .into_iter()
            .find_map(|(unit, days)| Some((text.strip_suffix(unit)?.trim(), days)))
            .and_then(|(number, days)| number.parse::<u16>().ok()?.checked_mul(days));
        match days {
            Some(days) if days >= LEAST_KEPT_DAYS => Keep::Days(days),
            Some(_) => {
                self.problem(
                    key,
                    format!(
                        "{text:?} is too short: gaps of up to {BACKFILL_HOURS} hours are filled afterwards, and what they \
                         are filled with must find its place; at least \"{LEAST_KEPT_DAYS}d\""
                    ),
                );
                Keep::Days(LEAST_KEPT_DAYS)
            }
            None => {
                self.problem(
                    key,
                    format!("{text:?} is no span of days, weeks or years; write it as \"30d\", \"26w\", \"2y\" or \"{endless}\""),
                );
                Keep::Days(LEAST_KEPT_DAYS)
            }
        }
    }

    fn admin(&mut self, raw: &raw::Admin) -> Admin {
        let raw::Admin { listen } = *raw;
        if !listen.ip().is_loopback() {
            self.problem(
                "admin.listen",
                format!(
                    "{listen} is not a loopback address; the endpoint has no TLS, put a proxy in front of it"
                ),
            );
        }
        Admin { listen }
    }

    fn api(&mut self, raw: raw::Api) -> Option<Api> {
        let raw::Api {
            listen,
            tls_certificate_file,
            tls_key_file,
            behind_proxy,
            trusted_proxies,
            connections,
            connections_per_address,
            requests_per_second,
            actions_per_minute,
            open_operations,
        } = raw;
        let tls = match (tls_certificate_file, tls_key_file) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: self.path(certificate),
                key: self.path(key),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.problem(
                    "api.tls_key_file",
                    "is missing; it belongs to tls_certificate_file",
                );
                None
            }
            (None, Some(_)) => {
                self.problem(
                    "api.tls_certificate_file",
                    "is missing; it belongs to tls_key_file",
                );
                None
            }
        };
        let mut networks: Vec<Network> = Vec::new();
        for proxy in trusted_proxies {
            match proxy.parse() {
                Ok(network) => networks.push(network),
                Err(error) => self.problem("api.trusted_proxies", format!("{proxy:?} is {error}")),
            }
        }
        let limits = ApiLimits {
            connections: self.number("api.connections", connections, 1, 4096),
            connections_per_address: self.number(
                "api.connections_per_address",
                connections_per_address,
                1,
                4096,
            ),
            requests_per_second: self.number("api.requests_per_second", requests_per_second, 1, 10_000),
            actions_per_minute: self.number("api.actions_per_minute", actions_per_minute, 1, 10_000),
            open_operations: self.number("api.open_operations", open_operations, 1, 1000),
        };
        let listen = listen?;
        if !listen.ip().is_loopback() && tls.is_none() && !behind_proxy {
            self.problem(
                "api.listen",
                format!(
                    "{listen} is not a loopback address, and tokens would cross the network in the clear: set \
                     tls_certificate_file and tls_key_file, or behind_proxy = true where a proxy that ends TLS stands \
                     in front"
                ),
            );
        }
        Some(Api {
            listen,
            tls,
            trusted_proxies: networks,
            limits,
        })
    }

    fn log(&mut self, raw: raw::Log) -> Log {
        let raw::Log { level, format } = raw;
        if let Err(source) = level.parse::<Targets>() {
            self.problem(
                "log.level",
                format!("{level:?} is no filter such as \"info\": {source}"),
            );
        } else if let Some(word) = level.split(',').find(|part| is_no_level(part)) {
            self.problem(
                "log.level",
                format!(
                    "{word:?} is no level; there are error, warn, info, debug, trace and off, and one for a module is \
                     written \"virt_collector::soap=debug\""
                ),
            );
        }
        Log {
            level,
            format: match format {
                raw::LogFormat::Text => LogFormat::Text,
                raw::LogFormat::Json => LogFormat::Json,
            },
        }
    }

    fn platforms(&mut self, raw: Vec<raw::Platform>) -> Vec<Platform> {
        let mut names = BTreeSet::new();
        raw.into_iter()
            .map(|platform| {
                if !names.insert(platform.name.clone()) {
                    self.problem(
                        "platform.name",
                        format!("{:?} stands twice; names are unique", platform.name),
                    );
                }
                self.platform(platform)
            })
            .collect()
    }

    fn platform(&mut self, raw: raw::Platform) -> Platform {
        let raw::Platform {
            name,
            kind,
            host,
            port,
            user,
            password_file,
            tls_verify,
            ca_file,
            thumbprint,
            datacenters,
            include,
            exclude,
        } = raw;
        let key = |field: &str| format!("platform {name:?}: {field}");
        if let Some(problem) = name_problem(&name) {
            self.problem(key("name"), problem);
        }
        if let Some(problem) = host_problem(&host) {
            self.problem(key("host"), problem);
        }
        if user.is_empty() {
            self.problem(key("user"), "is empty");
        }
        let trust = match (tls_verify, ca_file, thumbprint) {
            (true, None, None) => Trust::System,
            (true, Some(path), None) => Trust::CaFile(self.path(path)),
            (true, None, Some(text)) => Trust::Thumbprint(self.thumbprint(&key("thumbprint"), &text)),
            (false, None, None) => Trust::Off,
            _ => {
                self.problem(
                    key("tls"),
                    "give only one of ca_file, thumbprint and tls_verify = false",
                );
                Trust::System
            }
        };
        let filter = Filter::parse(datacenters, &include, &exclude).unwrap_or_else(|error| {
            self.problem(key("filter"), error.to_string());
            Filter::default()
        });
        Platform {
            kind: match kind {
                raw::PlatformKind::VCenter => PlatformKind::VCenter,
                raw::PlatformKind::Esxi => PlatformKind::Esxi,
            },
            password: Password::File(self.path(password_file)),
            name,
            host,
            port,
            user,
            trust,
            filter,
        }
    }

    fn thumbprint(&mut self, key: &str, text: &str) -> [u8; 32] {
        thumbprint(text).unwrap_or_else(|| {
            self.problem(
                key,
                "is not a SHA-256 thumbprint of 64 hexadecimal digits; `virt-collector check` prints the server's",
            );
            [0; 32]
        })
    }
}

/// A filter takes any other word for a module, all of whose lines are wanted, and leaves out those of the rest: a level
/// with a typing error, or a space in front, would silence the log.
fn is_no_level(part: &str) -> bool {
    part.is_empty()
        || part.contains(char::is_whitespace)
        || (!part.contains('=') && part.parse::<LevelFilter>().is_err())
}

/// What is wrong with a platform's name.
#[must_use]
pub fn name_problem(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_good = !name.is_empty() && name.len() <= 63 && name.chars().all(plain);
    (!is_good).then(|| {
        "use 1 to 63 letters, digits, '-', '_' or '.': the name is a label of metrics and logs".to_owned()
    })
}

/// What is wrong with a platform's host.
#[must_use]
pub fn host_problem(host: &str) -> Option<String> {
    let is_bad = host.is_empty() || host.contains(['/', '@', '?', '#', ' ']);
    if is_bad {
        return Some(format!(
            "{host:?} is not a host name or address; no scheme, path or account here"
        ));
    }
    // Of what a name may hold, a colon stands in addresses of IPv6 alone.
    let is_bad = host.contains(':') && host.parse::<Ipv6Addr>().is_err();
    is_bad.then(|| {
        format!(
            "{host:?} is not a host name or address; a port is given as port, and an address of IPv6 without brackets"
        )
    })
}

/// Reads a SHA-256 thumbprint: 64 hexadecimal digits, with or without colons.
#[must_use]
pub fn thumbprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    bytes.filter(|_| digits.len() == 64)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[database]\nurl = \"postgresql://virt_writer@localhost/virt\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/virt-collector/config.toml")).map_err(|error| error.to_string())
    }

    fn platform(more: &str) -> String {
        format!(
            "{LEAST}[[platform]]\nname = \"lab\"\ntype = \"vcenter\"\nhost = \"vc\"\nuser = \"u\"\n\
             password_file = \"lab.password\"\n{more}"
        )
    }

    #[test]
    fn defaults_are_filled_in_and_paths_are_relative_to_the_file() {
        let config = parse(&platform("")).unwrap();
        assert_eq!(config.collection.interval, Duration::from_secs(60));
        assert_eq!(config.keys.file, Path::new("/etc/virt-collector/keyring"));
        assert_eq!(config.platforms[0].port, 443);
        assert_eq!(config.platforms[0].trust, Trust::System);
        assert_eq!(
            config.platforms[0].password,
            Password::File("/etc/virt-collector/lab.password".into())
        );
    }

    #[test]
    fn an_unknown_key_is_rejected_with_its_line() {
        let error = parse(&format!("{LEAST}\n[collection]\nintervall = \"60s\"\n")).unwrap_err();
        assert!(
            error.contains("line 5") && error.contains("intervall") && error.contains("`interval`"),
            "{error}"
        );
    }

    #[test]
    fn values_that_make_no_sense_are_all_named() {
        let text = "memory = \"1MiB\"\n".to_owned()
            + &platform("thumbprint = \"AB:CD\"\n")
            + "[collection]\ninterval = \"5s\"\nrequest_timeout = \"soon\"\nskip_vm_counters = [\"cpu.redy.summation\"]\n\
               [admin]\nlisten = \"0.0.0.0:9273\"\n";
        let error = parse(&text).unwrap_err();
        for part in [
            "memory: 1MiB is too little",
            "collection.interval: \"5s\" is outside 20s to 300s",
            "collection.request_timeout: not a duration: \"soon\"",
            "\"cpu.redy.summation\" is no counter that vm columns are made of; there are cpu.costop.summation",
            "not a loopback address",
            "is not a SHA-256 thumbprint",
        ] {
            assert!(error.contains(part), "{part}\n{error}");
        }
    }

    #[test]
    fn a_retention_that_loses_what_is_needed_is_refused_with_the_reason() {
        let retention = |text: &str| parse(&format!("{LEAST}\n[retention]\n{text}\n"));
        assert_eq!(parse(LEAST).unwrap().retention, Retention::default());
        let kept =
            retention("raw = \"1w\"\nfive_minutes = \"1y\"\nhour = \"forever\"\ncompress_after = \"never\"")
                .unwrap()
                .retention;
        assert_eq!(
            (
                kept.raw,
                kept.five_minutes,
                kept.hour,
                kept.day,
                kept.compress_after
            ),
            (
                Keep::Days(7),
                Keep::Days(365),
                Keep::Forever,
                Keep::Forever,
                Keep::Forever
            )
        );
        for (text, part) in [
            (
                "raw = \"1d\"",
                "retention.raw: \"1d\" is too short: gaps of up to 25 hours are filled afterwards",
            ),
            (
                "compress_after = \"1d\"",
                "retention.compress_after: \"1d\" is too short",
            ),
            (
                "raw = \"200d\"",
                "retention.five_minutes: 180 days is shorter than 200 days of raw",
            ),
            (
                "five_minutes = \"forever\"",
                "retention.hour: 730 days is shorter than for ever of five_minutes",
            ),
            (
                "day = \"1y\"",
                "retention.day: 365 days is shorter than 730 days of hour",
            ),
            (
                "raw = \"24h\"",
                "write it as \"30d\", \"26w\", \"2y\" or \"forever\"",
            ),
            (
                "raw = \"never\"",
                "write it as \"30d\", \"26w\", \"2y\" or \"forever\"",
            ),
            ("compress_after = \"forever\"", "\"2y\" or \"never\""),
        ] {
            let error = retention(text).unwrap_err();
            assert!(error.contains(part), "{part}\n{error}");
        }
    }

    #[test]
    fn a_filter_is_read_and_a_bad_one_is_refused_with_the_platform() {
        let text = platform("datacenters = [\"Berlin\"]\ninclude = [\"/*/vm/**\"]\nexclude = [\"**/old-*\"]");
        let filter = &parse(&text).unwrap().platforms[0].filter;
        assert_eq!(filter.datacenters, ["Berlin"]);
        assert!(
            filter.takes_path(&["Berlin", "vm", "web"]) && !filter.takes_path(&["Berlin", "vm", "old-1"])
        );
        let error = parse(&platform("exclude = [\"old\"]")).unwrap_err();
        assert!(
            error.contains("platform \"lab\": filter: exclude: bad pattern \"old\": begin with /"),
            "{error}"
        );
    }

    #[test]
    fn a_level_that_is_none_is_refused_since_a_filter_would_silence_the_log() {
        let log = |level: &str| parse(&format!("{LEAST}\n[log]\nlevel = \"{level}\"\n"));
        for level in [
            "info",
            "WARN",
            "off",
            "info,virt_collector::soap=debug",
            "h2=warn,debug",
        ] {
            assert_eq!(log(level).unwrap().log.level, level);
        }
        for (level, part) in [
            (
                "warning",
                "log.level: \"warning\" is no level; there are error, warn, info",
            ),
            ("info,virt_collector", "\"virt_collector\" is no level"),
            ("info,", "\"\" is no level"),
            ("h2=warn, debug", "\" debug\" is no level"),
            ("", "\"\" is no level"),
            ("info,virt_collector=loud", "is no filter such as \"info\""),
        ] {
            let error = log(level).unwrap_err();
            assert!(error.contains(part), "{part}\n{error}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_beside() {
        for host in ["vc", "vcenter.example.com", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(host_problem(host), None);
        }
        for (host, part) in [
            ("", "no scheme, path or account here"),
            ("https://vc", "no scheme"),
            ("vc/sdk", "no scheme, path"),
            ("vc:443", "a port is given as port"),
            ("[2001:db8::1]", "without brackets"),
            ("[2001:db8::1]:443", "a port is given as port"),
        ] {
            let problem = host_problem(host).unwrap();
            assert!(problem.contains(part), "{part}\n{problem}");
        }
    }

    #[test]
    fn a_platform_in_single_brackets_is_told_of_the_second_pair() {
        let error = parse(&platform("").replace("[[platform]]", "[platform]")).unwrap_err();
        assert!(
            error.contains("expected tables that begin with [[platform]]") && error.contains("line 3"),
            "{error}"
        );
    }

    #[test]
    fn two_servers_on_one_address_are_refused_before_either_listens() {
        let error = parse(&format!("{LEAST}\n[api]\nlisten = \"127.0.0.1:9273\"\n")).unwrap_err();
        assert!(
            error.contains("api.listen: 127.0.0.1:9273 is that of admin.listen"),
            "{error}"
        );
    }

    #[test]
    fn only_one_kind_of_trust_is_taken() {
        let print = "ab".repeat(32);
        let config = parse(&platform(&format!("thumbprint = \"{print}\""))).unwrap();
        assert_eq!(config.platforms[0].trust, Trust::Thumbprint([0xab; 32]));
        assert_eq!(
            parse(&platform("tls_verify = false")).unwrap().platforms[0].trust,
            Trust::Off
        );
        assert!(parse(&platform("tls_verify = false\nca_file = \"ca.pem\"")).is_err());
    }
}
