//! Where the database is, and connections to it.
//!
//! Owns: [`Settings`], the pool, the task behind each connection, deadlines. Never does: SQL of its own.
//!
//! Tasks: one per connection, `store-connection`, which ends with its connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config;
use crate::error::Chain;
use crate::secret;
use crate::store::error::{Class, Error};
use crate::store::lease::{self, Lease, Owner};
use crate::store::servers::{Servers, Session};

/// Connections of the pool: leases, inventory and gaps of a few dozen platforms, most of it for milliseconds.
const POOL_SIZE: usize = 8;
/// Of these, kept free for what must not come late: while many first inventories are written, or a slow server reads
/// watermarks, for seconds each, leases are renewed all the same.
const KEPT_FREE: usize = 2;
/// One attempt to reach one address of the server. Addresses are tried one after the other: where the first host of
/// several is dead, or the first address of a name leads nowhere, each connection waits this long. A renewal of a lease,
/// which has 8 s, must get past two such addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A whole connection attempt: resolving, several addresses, TLS, password.
const LOGIN_DEADLINE: Duration = Duration::from_secs(20);
/// How long a caller waits for a connection of the pool to become free.
const CHECKOUT_DEADLINE: Duration = Duration::from_secs(10);
/// Between two reasons to look that a listener passes on.
const APART: Duration = Duration::from_millis(100);
/// Sent bytes may stay unacknowledged this long before the kernel gives the connection up.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than the server's `statement_timeout` of 60 s, so that its answer comes first while it lives.
pub(super) const STATEMENT_DEADLINE: Duration = Duration::from_secs(65);
/// What the server is told of each session. A fixed search path, so that nobody's own objects stand in front.
const SESSION_OPTIONS: &str = "-c statement_timeout=60s -c lock_timeout=5s \
    -c idle_in_transaction_session_timeout=30s -c TimeZone=UTC -c search_path=public -c client_min_messages=warning";

/// A watermark moves after COMMIT, and keys that a COMMIT gave out are used from then on. So a COMMIT has to last: where
/// the server, the database or the account says `off`, a crash takes the last ones back. What else they say is kept; it
/// is set all the same, since a session that has set nothing follows when the server's configuration changes.
const DURABLE: &str = "\
SELECT set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), FALSE)";

/// How to reach the database with one account.
#[derive(Clone)]
pub struct Settings {
    config: tokio_postgres::Config,
    servers: Arc<Servers>,
    password_file: Option<PathBuf>,
    tls: Option<MakeRustlsConnect>,
    owner: Owner,
    target: String,
}

impl Settings {
    /// Checks a connection string and prepares TLS. Connects to nothing and reads no password.
    ///
    /// # Errors
    /// When the string cannot be read, holds a password, or names no server; when there are no roots for TLS.
    pub fn new(database: &config::Database, account: &config::Account, owner: &Owner) -> Result<Self, Error> {
        let refuse = |problem: String| Error::Settings { problem };
        let mut config: tokio_postgres::Config =
            account.url.parse().map_err(|source: tokio_postgres::Error| {
                refuse(format!(
                    "{}; write the url as \"postgresql://user@host/database\"",
                    Chain(&source)
                ))
            })?;
        if config.get_password().is_some() {
            return Err(refuse(
                "the url holds a password; put it in a file and name that in password_file".to_owned(),
            ));
        }
        if account.url.contains("sslmode") {
            return Err(refuse(
                "sslmode stands in the url; it is a key of its own, beside url".to_owned(),
            ));
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(refuse(
                "the url names no host; write \"postgresql://user@host/database\", or host=/run/postgresql for a socket"
                    .to_owned(),
            ));
        }
        let tls = match &database.tls {
            config::DatabaseTls::Disable => None,
            config::DatabaseTls::Auto { .. } if is_local(&config) => None,
            config::DatabaseTls::Auto { ca_file } | config::DatabaseTls::VerifyFull { ca_file } => {
                if config
                    .get_hosts()
                    .iter()
                    .any(|host| matches!(host, Host::Unix(_)))
                {
                    return Err(refuse(
                        "TLS does not go over a Unix socket; set sslmode = \"auto\"".to_owned(),
                    ));
                }
                Some(MakeRustlsConnect::new(tls_client(ca_file.as_ref())?))
            }
        };
        let options = match config.get_options() {
            Some(own) => format!("{own} {SESSION_OPTIONS}"),
            None => SESSION_OPTIONS.to_owned(),
        };
        config
            .ssl_mode(if tls.is_some() {
                SslMode::Require
            } else {
                SslMode::Disable
            })
            .options(options)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        if config.get_hosts().len().max(config.get_hostaddrs().len()) > 1 {
            // After a fail-over the first host may be the standby now.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let target = target(&config);
        Ok(Self {
            servers: Arc::new(Servers::of(&config)),
            config,
            password_file: account.password_file.clone(),
            tls,
            owner: owner.clone(),
            target,
        })
    }

    /// The same with more options for each session; they come after the others and win.
    pub(super) fn with_options(&self, more: &str) -> Self {
        let mut settings = self.clone();
        let options = format!("{} {more}", self.config.get_options().unwrap_or_default());
        settings.config.options(options);
        settings.servers = Arc::new(Servers::of(&settings.config));
        settings
    }

    /// The same for who only reads, with more options. The driver takes a session that writes nothing for one of a server
    /// that takes no writes, and would refuse it; of several servers the primary is found all the same.
    pub(super) fn reading(&self, more: &str) -> Self {
        let mut settings = self.with_options(more);
        settings.config.target_session_attrs(TargetSessionAttrs::Any);
        settings.servers = Arc::new(Servers::of(&settings.config));
        settings
    }

    /// Server, database and account, for messages.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How the way to the server is protected.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.tls {
            Some(_) => Transport::Verified,
            None if is_local(&self.config) => Transport::Local,
            None => Transport::Plain,
        }
    }

    /// The collector that connects.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// One dedicated connection.
    pub(super) async fn connect(&self, purpose: &str) -> Result<Dedicated, Error> {
        self.dedicated(purpose, None).await
    }

    /// A dedicated connection that hears what is notified on a channel.
    pub(super) async fn listen(&self, channel: &'static str) -> Result<Listener, Error> {
        let heard = Arc::new(Notify::new());
        let connection = self.dedicated("listen", Some(Arc::clone(&heard))).await?;
        let listen = format!("LISTEN {channel}");
        bounded("listen for changes", connection.batch_execute(&listen)).await?;
        Ok(Listener {
            connection,
            heard,
            next: Mutex::new(Instant::now()),
        })
    }

    async fn dedicated(&self, purpose: &str, listening: Option<Arc<Notify>>) -> Result<Dedicated, Error> {
        match tokio::time::timeout(LOGIN_DEADLINE, self.login(purpose, listening)).await {
            Ok(Ok((client, task))) => Ok(Dedicated { client, task }),
            Ok(Err(source)) => Err(Error::connect(&self.target, self.password_file.is_some(), source)),
            Err(_elapsed) => Err(Error::Deadline {
                attempt: "connect to the database",
                after: LOGIN_DEADLINE,
            }),
        }
    }

    async fn login(
        &self,
        purpose: &str,
        listening: Option<Arc<Notify>>,
    ) -> Result<Session, tokio_postgres::Error> {
        // Large, and rare: not a part of every future that may connect.
        let connecting = self
            .servers
            .connect(|config| self.login_to(config, purpose, listening.clone()));
        Box::pin(connecting).await
    }

    async fn login_to(
        &self,
        mut config: tokio_postgres::Config,
        purpose: &str,
        listening: Option<Arc<Notify>>,
    ) -> Result<Session, tokio_postgres::Error> {
        config.application_name(self.owner.application_name(purpose));
        if let Some(path) = &self.password_file {
            // Read at each connection, so that a rotated password needs no restart.
            match secret::read_file(path) {
                Ok(password) => {
                    config.password(password.expose());
                }
                Err(error) => return refused(io::Error::other(error)).await,
            }
        }
        let (client, task) = match self.tls.clone() {
            Some(tls) => {
                let (client, connection) = config.connect(tls).await?;
                (client, serve(purpose, connection, listening))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, serve(purpose, connection, listening))
            }
        };
        client.query_typed_opt(DURABLE, &[]).await?;
        Ok((client, task))
    }
}

/// How the way to the server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// It does not leave the machine.
    Local,
    /// TLS, certificate and name verified.
    Verified,
    /// In the clear.
    Plain,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("target", &self.target)
            .field("tls", &self.tls.is_some())
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// True where the connection does not leave this machine.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let addresses = config.get_hostaddrs();
    if !addresses.is_empty() {
        return addresses.iter().all(std::net::IpAddr::is_loopback);
    }
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    })
}

fn target(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports
                .get(index)
                .or_else(|| ports.first())
                .copied()
                .unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}/.s.PGSQL.{port}", path.display()),
            }
        })
        .chain(
            config
                .get_hostaddrs()
                .iter()
                .filter(|_| config.get_hosts().is_empty())
                .map(ToString::to_string),
        )
        .collect();
    let mut target = hosts.join(",");
    if let Some(database) = config.get_dbname() {
        target.push_str(&format!(", database {database}"));
    }
    if let Some(user) = config.get_user() {
        target.push_str(&format!(", as {user}"));
    }
    target
}

fn tls_client(ca_file: Option<&PathBuf>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let refuse = |source: Option<Box<dyn std::error::Error + Send + Sync>>| Error::CaFile {
                path: path.clone(),
                source,
            };
            for certificate in
                CertificateDer::pem_file_iter(path).map_err(|source| refuse(Some(Box::new(source))))?
            {
                let certificate = certificate.map_err(|source| refuse(Some(Box::new(source))))?;
                roots
                    .add(certificate)
                    .map_err(|source| refuse(Some(Box::new(source))))?;
            }
            if roots.is_empty() {
                return Err(refuse(None));
            }
        }
        None => {
            let (added, _unusable) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err(Error::Settings {
                    problem: "this system has no root certificates; install ca-certificates or set ca_file"
                        .to_owned(),
                });
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Settings {
            problem: format!("no TLS: {source}"),
        })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Starts the task that moves a connection's bytes; it ends when the client is dropped or the connection lost. Who
/// listens is told of each notification and of the end.
#[expect(
    clippy::disallowed_methods,
    reason = "the connection's own task: it ends with the connection it serves"
)]
fn serve<S, T>(
    purpose: &str,
    mut connection: Connection<S, T>,
    listening: Option<Arc<Notify>>,
) -> JoinHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let purpose = purpose.to_owned();
    tokio::spawn(async move {
        let tell = || listening.as_ref().map_or((), |heard| heard.notify_one());
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(_))) => tell(),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    // Whoever used it tells; what lay idle is replaced without a word.
                    tracing::debug!(task = "store-connection", purpose, error = %Chain(&error), "database connection lost");
                    break;
                }
                None => {
                    tracing::debug!(task = "store-connection", purpose, "database connection closed");
                    break;
                }
            }
        }
        // Who is told looks whether the connection is there: by then it must not be.
        drop(connection);
        tell();
    })
}

/// Our own error in the driver's clothes, since the pool knows no other.
pub(super) async fn refused(error: io::Error) -> Result<Session, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.user("nobody").ssl_mode(SslMode::Disable);
    let (client, connection) = config.connect_raw(Refused(Some(error)), NoTls).await?;
    Ok((client, serve("refused", connection, None)))
}

/// A stream that only fails.
struct Refused(Option<io::Error>);

impl Refused {
    fn fail<T>(&mut self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self
            .0
            .take()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())))
    }
}

impl AsyncRead for Refused {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }
}

impl AsyncWrite for Refused {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.fail()
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fail()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connection outside the pool. Dropping it closes the socket at once, whatever is in flight.
#[derive(Debug)]
pub(super) struct Dedicated {
    client: Client,
    task: JoinHandle<()>,
}

impl Deref for Dedicated {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Dedicated {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection on which the server says when something has changed. What, is for the tables to say: a notification
/// is no more than a reason to look, and one that is lost is made good by looking now and then.
#[derive(Debug)]
pub struct Listener {
    connection: Dedicated,
    heard: Arc<Notify>,
    /// When it may be said again that something was heard.
    next: Mutex<Instant>,
}

impl Listener {
    /// True when the connection is lost.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.connection.is_closed()
    }

    /// Waits for a notification; false when the connection is lost. Those that follow one another closely count as
    /// one: every account of the database may notify, as often as it likes. Cancel safe.
    pub async fn heard(&self) -> bool {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep_until(next).await;
        self.heard.notified().await;
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + APART;
        !self.connection.is_closed()
    }
}

/// The database, for everything but COPY. Clones share one pool.
#[derive(Clone)]
pub struct Database {
    settings: Arc<Settings>,
    pool: Pool,
    /// A permit for each connection that is not kept free.
    unhurried: Arc<Semaphore>,
}

impl Database {
    /// A pool that connects when it is first used.
    ///
    /// # Errors
    /// Never in practice; the pool's builder can refuse what this function does not ask of it.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Self::sized(settings, POOL_SIZE, KEPT_FREE)
    }

    /// As [`Database::new`], with `size` connections at most, of which some are for [`Database::checkout_now`] alone.
    pub(super) fn sized(settings: Settings, size: usize, kept_free: usize) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let manager = Manager::from_connect(
            settings.config.clone(),
            PoolConnect(Arc::clone(&settings)),
            // A connection goes back only after success, so nothing is left to be cleaned.
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CHECKOUT_DEADLINE))
            .create_timeout(Some(LOGIN_DEADLINE))
            .recycle_timeout(Some(CHECKOUT_DEADLINE))
            .build()
            .map_err(|source| Error::Settings {
                problem: source.to_string(),
            })?;
        Ok(Self {
            settings,
            pool,
            unhurried: Arc::new(Semaphore::new(size.saturating_sub(kept_free))),
        })
    }

    /// What the database is reached with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Closes idle connections now and the others when they come back; later use fails.
    pub fn close(&self) {
        self.pool.close();
    }

    /// A connection for `attempt`, which is what messages say was attempted.
    pub(super) async fn checkout(&self, attempt: &'static str) -> Result<Checkout, Error> {
        let unhurried = Arc::clone(&self.unhurried).acquire_owned();
        match tokio::time::timeout(CHECKOUT_DEADLINE, unhurried).await {
            Ok(Ok(permit)) => {
                let mut checkout = self.checkout_now(attempt).await?;
                checkout.permit = Some(permit);
                Ok(checkout)
            }
            Ok(Err(_)) | Err(_) => Err(busy(attempt)),
        }
    }

    /// The same for what takes milliseconds and must not come late: others leave some connections to it.
    pub(super) async fn checkout_now(&self, attempt: &'static str) -> Result<Checkout, Error> {
        match self.pool.get().await {
            Ok(object) => Ok(Checkout {
                attempt,
                object: Some(object),
                permit: None,
            }),
            Err(PoolError::Backend(source)) => Err(Error::connect(
                &self.settings.target,
                self.settings.password_file.is_some(),
                source,
            )),
            Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Create)) => Err(Error::Deadline {
                attempt: "connect to the database",
                after: LOGIN_DEADLINE,
            }),
            Err(_) => Err(busy(attempt)),
        }
    }
}

const fn busy(attempt: &'static str) -> Error {
    Error::Busy {
        attempt,
        after: CHECKOUT_DEADLINE,
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

struct PoolConnect(Arc<Settings>);

/// What the pool's trait asks for.
type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Session, tokio_postgres::Error>> + Send + 'a>>;

impl Connect for PoolConnect {
    fn connect(&self, _: &tokio_postgres::Config) -> Connecting<'_> {
        Box::pin(self.0.login("pool", None))
    }
}

/// A connection of the pool. It goes back only by [`Checkout::done`]; dropped otherwise, after an error or in a
/// cancelled future, it may hold an open transaction and is closed.
#[derive(Debug)]
pub(super) struct Checkout {
    attempt: &'static str,
    object: Option<Object>,
    /// Goes back behind the connection.
    permit: Option<OwnedSemaphorePermit>,
}

/// A parameter and its type, so that a statement needs no round trip to be prepared and is planned for its values:
/// chunks outside the bounds are left out of the plan.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl Checkout {
    pub(super) fn client(&self) -> Result<&Client, Error> {
        // It is there until `done` or `drop` takes it, and both end this value.
        let gone = || Error::Busy {
            attempt: self.attempt,
            after: Duration::ZERO,
        };
        self.object.as_ref().map(|object| &***object).ok_or_else(gone)
    }

    /// Runs a statement for its rows.
    pub(super) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        bounded(self.attempt, self.client()?.query_typed(sql, parameters)).await
    }

    /// Runs a statement that returns at most one row.
    pub(super) async fn query_opt(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<Row>, Error> {
        bounded(self.attempt, self.client()?.query_typed_opt(sql, parameters)).await
    }

    /// Runs a statement for the number of rows it touched.
    pub(super) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, Error> {
        bounded(self.attempt, self.client()?.execute_typed(sql, parameters)).await
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Error> {
        bounded(self.attempt, self.client()?.batch_execute(sql)).await
    }

    /// Reads a column of a row.
    pub(super) fn read<'row, T: FromSql<'row>>(&self, row: &'row Row, column: usize) -> Result<T, Error> {
        row.try_get(column)
            .map_err(|source| Error::statement(self.attempt, source))
    }

    /// Starts a transaction behind the fence.
    pub(super) async fn begin_fenced(&self, lease: &Lease) -> Result<(), Error> {
        lease::begin_fenced(self.attempt, self.client()?, lease).await
    }

    /// Commits, and gives the connection back.
    pub(super) async fn commit(self) -> Result<(), Error> {
        commit(self.client()?).await?;
        self.done();
        Ok(())
    }

    /// Gives the connection back for others to use.
    pub(super) fn done(mut self) {
        drop(self.object.take());
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// Awaits an answer of the server.
pub(super) async fn bounded<T>(
    attempt: &'static str,
    answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(STATEMENT_DEADLINE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::statement(attempt, source)),
        Err(_elapsed) => Err(Error::Deadline {
            attempt,
            after: STATEMENT_DEADLINE,
        }),
    }
}

/// Commits, and tells a refusal from an outcome that nobody knows.
pub(super) async fn commit(client: &Client) -> Result<(), Error> {
    match bounded("commit", client.batch_execute("COMMIT")).await {
        Err(Error::Deadline { .. }) => Err(Error::CommitUnknown { source: None }),
        // Also where the server says that it is ending the session: that may come after the commit was done.
        Err(Error::Statement { source, .. }) if source.class_of_statement() == Class::Connection => {
            Err(Error::CommitUnknown { source: Some(source) })
        }
        other => other,
    }
}
