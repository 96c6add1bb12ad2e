//! The admin API through its sockets: the daemon in this process, a database with two platforms that no collector
//! has, so that what is asked for stays in the queue, and a client that is no better than it must be.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly and have no supervisor"
)]

mod attack;
mod input;
mod inventory;
mod limits;
mod matrix;
mod operations;
mod platforms;
mod tls;
mod tokens;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use support::database::{Database, Role};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use virt_collector::api::rights::BASE;
use virt_collector::app::App;
use virt_collector::config::{ApiLimits, Config};
use virt_collector::secret::{Grant, KeyRing, Token, key_file};
use virt_collector::store;
use virt_collector::store::token::NewToken;
use virt_collector::units::Stamp;

use crate::rig::recorder;

pub(crate) use tls::connector;

/// For what should come at once, on a machine as slow as it likes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Two platforms with 300 VMs each.
const WORLD: &str = "\
INSERT INTO virt_platform (name, type, host, port) VALUES ('east', 'vcenter', 'e', 443), ('west', 'vcenter', 'w', 443);
INSERT INTO virt_vm (platform_id, moref, name, instance_uuid, power_state, is_connected, is_template, first_seen_at)
    SELECT platform_id, 'vm-' || n, platform.name || '-' || n, platform.name || '-uuid-' || n, 'off', true, false, now()
    FROM virt_platform platform, generate_series(1, 300) n ORDER BY 1, n;
INSERT INTO virt_cluster (platform_id, moref, name, first_seen_at)
    SELECT platform_id, 'domain-c1', 'C of ' || name, now() FROM virt_platform;
INSERT INTO virt_host (platform_id, moref, name, power_state, is_connected, in_maintenance, cluster_id, first_seen_at)
    SELECT platform_id, 'host-1', 'esx of ' || platform.name, 'on', true, false, cluster_id, now()
    FROM virt_platform platform JOIN virt_cluster USING (platform_id);
INSERT INTO virt_datastore (platform_id, moref, name, first_seen_at)
    SELECT platform_id, 'datastore-1', 'store of ' || name, now() FROM virt_platform;
INSERT INTO virt_vm_snapshot (vm_id, moref, parent_moref, name, created_at, power_state, is_current, first_seen_at)
    SELECT vm_id, 'snapshot-' || n, CASE n WHEN 2 THEN 'snapshot-1' END, 'before ' || n, now(), 'off', n = 2, now()
    FROM virt_vm, generate_series(1, 2) n WHERE moref = 'vm-1';";

struct Api {
    app: App,
    database: Database,
    store: store::Database,
    sql: tokio_postgres::Client,
    directory: tempfile::TempDir,
    /// VMs of `east` that nothing was asked of yet.
    next_vm: AtomicU32,
}

impl Api {
    async fn new() -> Self {
        Self::with("", |_| {}).await
    }

    /// `more` stands in `[api]`; `change` has the last word.
    async fn with(more: &str, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
        let text = format!(
            "[database]\nurl = \"{}\"\n[database.owner]\nurl = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [api]\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n{more}\n",
            database.url(Role::Writer),
            database.url(Role::Owner)
        );
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let mut config = Config::load(&path).unwrap();
        if let Some(api) = &mut config.api {
            api.limits = ApiLimits {
                requests_per_second: 10_000,
                actions_per_minute: 10_000,
                open_operations: 1_000,
                ..api.limits
            };
        }
        change(&mut config);
        let settings =
            |account| store::Settings::new(&config.database, account, &store::Owner::random()).unwrap();
        store::migrate::apply(&settings(config.database.owner.as_ref().unwrap()))
            .await
            .unwrap();
        key_file::create(&config.keys.file, &KeyRing::generate().unwrap()).unwrap();
        let sql = database.connect(Role::Superuser).await.unwrap();
        sql.batch_execute(WORLD).await.unwrap();
        let store = store::Database::new(settings(&config.database.writer)).unwrap();
        let app = App::start(config, recorder()).await.unwrap();
        Self {
            app,
            database,
            store,
            sql,
            directory,
            next_vm: AtomicU32::new(2),
        }
    }

    fn address(&self) -> SocketAddr {
        self.app.api_address().unwrap()
    }

    fn ring(&self) -> KeyRing {
        key_file::load(&self.directory.path().join("keyring")).unwrap()
    }

    async fn token(&self, name: &str, role: &str, platforms: Option<&[&str]>) -> String {
        token(&self.store, &self.ring(), name, role, platforms).await
    }

    /// Key of a VM of `east` that nothing was asked of yet.
    async fn vm(&self) -> i32 {
        let n = self.next_vm.fetch_add(1, Ordering::Relaxed);
        self.vm_named(&format!("east-{n}")).await
    }

    async fn vm_named(&self, name: &str) -> i32 {
        let row = self
            .sql
            .query_one("SELECT vm_id FROM virt_vm WHERE name = $1", &[&name])
            .await;
        row.unwrap().get(0)
    }

    async fn name_of(&self, vm: i32) -> String {
        let row = self
            .sql
            .query_one("SELECT name FROM virt_vm WHERE vm_id = $1", &[&vm])
            .await;
        row.unwrap().get(0)
    }

    async fn count(&self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Sends a request on a connection of its own and holds its answer against what every answer must have.
    async fn ask(&self, ask: Ask) -> Answer {
        let answer = self.ask_loosely(ask).await;
        answer.check();
        answer
    }

    async fn ask_loosely(&self, ask: Ask) -> Answer {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        exchange(stream, &ask.bytes()).await
    }

    async fn stop(self) {
        self.app.stop().await.unwrap();
    }
}

/// A token that is good for an hour.
pub(crate) async fn token(
    store: &store::Database,
    ring: &KeyRing,
    name: &str,
    role: &str,
    platforms: Option<&[&str]>,
) -> String {
    token_until(store, ring, name, role, platforms, None).await
}

/// As [`token`], until another moment than an hour from now.
async fn token_until(
    store: &store::Database,
    ring: &KeyRing,
    name: &str,
    role: &str,
    platforms: Option<&[&str]>,
    until: Option<Stamp>,
) -> String {
    let (id, in_an_hour) = store.draw_token(3600).await.unwrap();
    let expires_at = until.unwrap_or(in_an_hour);
    let token = Token::generate(id).unwrap();
    let platforms: Option<Vec<String>> =
        platforms.map(|platforms| platforms.iter().map(|name| (*name).to_owned()).collect());
    let mac = ring.sign_token(
        &token,
        &Grant {
            name,
            role,
            platforms: platforms.as_deref(),
            expires_at: expires_at.micros(),
        },
    );
    let row = NewToken {
        id,
        name: name.to_owned(),
        role: role.to_owned(),
        platforms,
        key: mac.key.to_string(),
        mac: mac.mac.to_vec(),
        expires_at,
    };
    assert!(store.add_token(&row).await.unwrap());
    token.text().expose().to_owned()
}

/// A request.
#[derive(Debug, Clone)]
struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Ask {
    /// Below the base, where the path does not start with a slash.
    fn new(method: &str, path: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let target = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{BASE}/{path}")
        };
        // From an address of its own, so that no limit is in the way that is not meant.
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let client = format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
        Self {
            method: method.to_owned(),
            target,
            headers: vec![("x-forwarded-for".to_owned(), client)],
            body: None,
        }
    }

    fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    fn by(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    fn from(mut self, client: &str) -> Self {
        self.headers.retain(|(name, _)| name != "x-forwarded-for");
        self.header("x-forwarded-for", client)
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n",
            self.method, self.target
        );
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

/// An answer.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// What came behind it.
    rest: Vec<u8>,
}

impl Answer {
    /// The first answer among what a server wrote.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let body = &bytes[end + 4..];
        let length: usize = headers
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let length = length.min(body.len());
        Some(Self {
            status,
            headers,
            body: body[..length].to_vec(),
            rest: body[length..].to_vec(),
        })
    }

    fn value(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn code(&self) -> String {
        self.value()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// What every answer must have, whatever it says.
    #[track_caller]
    fn check(&self) {
        assert!(!self.header("x-request-id").is_empty(), "{self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{self:?}");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{self:?}");
        if self.status == 204 {
            assert!(self.body.is_empty(), "{self:?}");
            return;
        }
        if self.status < 400 {
            assert_eq!(self.header("content-type"), "application/json", "{self:?}");
            return;
        }
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.value();
        assert_eq!(problem["type"], "about:blank", "{problem}");
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{problem}");
        for key in ["title", "code", "detail"] {
            assert!(
                problem[key].as_str().is_some_and(|text| !text.is_empty()),
                "{problem}"
            );
        }
        assert_eq!(problem.as_object().unwrap().len(), 6, "{problem}");
        let needs = match self.status {
            401 => "www-authenticate",
            405 => "allow",
            429 | 503 => "retry-after",
            _ => return,
        };
        assert!(!self.header(needs).is_empty(), "{needs} of {self:?}");
    }
}

/// Writes as far as the other side takes it, then reads to the end of the connection.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bytes: &[u8]) -> Answer {
    let exchanged = async {
        // A server that answers early closes early; its answer is there all the same.
        drop(stream.write_all(bytes).await);
        read_all(&mut stream).await
    };
    let received = tokio::time::timeout(DEADLINE, exchanged)
        .await
        .expect("the server closes");
    Answer::parse(&received).unwrap_or_else(|| {
        panic!(
            "no answer to {:?}: {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(300)]),
            String::from_utf8_lossy(&received)
        )
    })
}

/// Whatever comes until the connection ends, in whichever way.
async fn read_all<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut received = Vec::new();
    let mut part = [0; 4096];
    while let Ok(n) = stream.read(&mut part).await {
        if n == 0 {
            break;
        }
        received.extend_from_slice(&part[..n]);
    }
    received
}
