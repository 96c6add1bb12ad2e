//! What can go wrong with the database, and what may be done about it.
//!
//! Decisions are taken from SQLSTATE and error types, never from the text of a message.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::{Severity, SqlState};

use crate::error::{Chain, Disposition};
use crate::model::ids::PlatformId;
use crate::secret;
use crate::store::probe::{LEAST_POSTGRES, LEAST_TIMESCALE};
use crate::store::servers::Stale;

/// How long to wait before the next try where only a person can help: an account, a password, a schema.
const WAIT_FOR_A_PERSON: Duration = Duration::from_secs(60);
/// How long a full disk is left alone. A failed COPY leaves dead pages, so eager retries fill it further.
const WAIT_FOR_SPACE: Duration = Duration::from_secs(30);

/// The kinds of failure that callers treat alike. A closed set: also a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The server cannot be reached, or the connection was lost: reconnect, then re-read the watermarks.
    Connection,
    /// The connection was lost between COMMIT and its reply: whether the rows are stored is known only after
    /// the watermarks were read again.
    Unknown,
    /// The server is a read-only one: reconnect, the primary may be elsewhere now.
    NotWritable,
    /// The server's disk is full.
    Full,
    /// Passing trouble inside the server: deadlock, lock or statement time-out.
    Retry,
    /// A row is already stored.
    Duplicate,
    /// The server refused a value of a row: the same rows will be refused again.
    Data,
    /// The server refused the account or its password.
    Auth,
    /// This collector no longer owns the platform.
    Fenced,
    /// The server is not the one that gave the lease, or was started again since: what is known of it may be of
    /// another history, so everything is read anew, the lease included.
    Moved,
    /// The schema, the extension or the server is not what this version needs.
    Schema,
    /// Anything else that repeating will not change.
    Permanent,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 12] = [
        Self::Connection,
        Self::Unknown,
        Self::NotWritable,
        Self::Full,
        Self::Retry,
        Self::Duplicate,
        Self::Data,
        Self::Auth,
        Self::Fenced,
        Self::Moved,
        Self::Schema,
        Self::Permanent,
    ];

    /// The word in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Unknown => "unknown",
            Self::NotWritable => "not_writable",
            Self::Full => "full",
            Self::Retry => "retry",
            Self::Duplicate => "duplicate",
            Self::Data => "data",
            Self::Auth => "auth",
            Self::Fenced => "fenced",
            Self::Moved => "moved",
            Self::Schema => "schema",
            Self::Permanent => "permanent",
        }
    }

    /// True where the lease is no good any more.
    #[must_use]
    pub const fn ends_term(self) -> bool {
        matches!(self, Self::Fenced | Self::Moved)
    }

    /// From the server's own code; its first two characters are the group.
    fn of(code: &SqlState) -> Self {
        let text = code.code();
        match text {
            // Too many connections; administrator's or crash shutdown, starting up; a session ended by time-out.
            "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => Self::Connection,
            // The extension's library was replaced under a running session: a new session loads the new one.
            "58P01" => Self::Connection,
            "25006" => Self::NotWritable,
            "53100" => Self::Full,
            "57014" | "55P03" | "25P02" => Self::Retry,
            "23505" => Self::Duplicate,
            // A table, column or function that is not there.
            "42P01" | "42703" | "42883" => Self::Schema,
            _ => match text.get(..2) {
                Some("08") => Self::Connection,
                Some("28") => Self::Auth,
                Some("40" | "53" | "58" | "XX") => Self::Retry,
                Some("22" | "23") => Self::Data,
                _ => Self::Permanent,
            },
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the server or the driver said, as one line.
#[derive(Debug, Clone)]
pub struct Cause {
    message: Box<str>,
    code: Option<SqlState>,
    /// The server has closed the session with it.
    is_fatal: bool,
}

impl Cause {
    /// The five characters of the server's error code; `None` where no answer came.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.code.as_ref().map(SqlState::code)
    }

    pub(super) fn class(&self) -> Class {
        // Without an answer of the server the connection is not to be trusted, whatever broke it.
        self.code.as_ref().map_or(Class::Connection, Class::of)
    }

    /// The same of a statement. What ends the session under it is not the statement's fault, so that a new session may do
    /// it: an update of the extension ends sessions that have the library of the version before, with 42710.
    pub(super) fn class_of_statement(&self) -> Class {
        match self.class() {
            Class::Permanent if self.is_fatal => Class::Connection,
            class => class,
        }
    }
}

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            return Self {
                message: Chain(&error).to_string().into_boxed_str(),
                code: None,
                is_fatal: false,
            };
        };
        let mut message = answer.message().to_owned();
        for more in [answer.detail(), answer.hint(), answer.where_()]
            .into_iter()
            .flatten()
        {
            message.push_str("; ");
            message.push_str(more);
        }
        let mut message: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
        message.push_str(&format!(" (SQLSTATE {})", answer.code().code()));
        Self {
            message: message.into_boxed_str(),
            code: Some(answer.code().clone()),
            is_fatal: matches!(answer.parsed_severity(), Some(Severity::Fatal | Severity::Panic)),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Cause {}

/// Why the registry of platforms does not do as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The name is taken.
    Exists,
    /// There is none of this name.
    Absent,
    /// It is the configuration's.
    Provisioned,
    /// Somebody else changed it between reading and writing.
    ChangedMeanwhile,
    /// It answers as the server that it was.
    SameServer,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exists => {
                "exists already; names are unique, take another or change that one with `platform edit`"
            }
            Self::Absent => "does not exist; `virt-collector platform list` shows those that do",
            Self::Provisioned => "is provisioned from config.toml; change it there and reload the service",
            Self::SameServer => "is not in error for its identity; there is nothing to accept",
            Self::ChangedMeanwhile => {
                "was changed by somebody else at the same time; look at it and try again"
            }
        })
    }
}

/// A failure of the database, or of the way to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection string or what belongs to it makes no sense.
    #[error("the database settings cannot be used: {problem}")]
    Settings {
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The roots for the server's certificate cannot be read.
    #[error("cannot read certificates from {path}; it must be a PEM file with at least one certificate")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
    /// The password file cannot be used.
    #[error("cannot read the database password: {problem}")]
    Password {
        /// What is wrong with the file; never its content.
        problem: String,
    },
    /// No connection.
    #[error("cannot connect to the database at {target}; {advice}")]
    Connect {
        /// Server, database and account.
        target: String,
        /// What to look at.
        advice: &'static str,
        /// What happened.
        #[source]
        source: Cause,
    },
    /// The only server that takes writes is an old primary.
    #[error("there is no primary at {target}: {problem}")]
    Stale {
        /// Servers, database and account.
        target: String,
        /// What was found.
        problem: String,
    },
    /// No answer in time.
    #[error("cannot {attempt}: the database gave no answer within {} s", after.as_secs())]
    Deadline {
        /// What was attempted.
        attempt: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// All connections of the pool that were to be had for it are in use.
    #[error("cannot {attempt}: no database connection was free for {} s", after.as_secs())]
    Busy {
        /// What was attempted.
        attempt: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The server refused a statement, or the connection was lost during it. Nothing of the transaction is stored.
    #[error("cannot {attempt}{}", lacking(source))]
    Statement {
        /// What was attempted.
        attempt: &'static str,
        /// What happened.
        #[source]
        source: Cause,
    },
    /// The connection was lost between COMMIT and its reply.
    #[error("no reply to COMMIT; whether it was done is known only by reading the watermarks again")]
    CommitUnknown {
        /// What happened; `None` where the deadline passed.
        #[source]
        source: Option<Cause>,
    },
    /// The platform has another owner, or the lease ran out.
    #[error("platform {platform} is no longer owned by this collector; nothing was written")]
    Fenced {
        /// The platform.
        platform: PlatformId,
    },
    /// The server is not the one that gave the lease.
    #[error(
        "platform {platform} was taken on another database server, or on this one before it was started again; nothing \
         was written"
    )]
    Moved {
        /// The platform.
        platform: PlatformId,
    },
    /// COPY took another number of rows than were sent.
    #[error("{table} took {stored} of {sent} rows; the transaction was rolled back")]
    RowCount {
        /// The table.
        table: &'static str,
        /// Rows sent.
        sent: u64,
        /// Rows that the server counted.
        stored: u64,
    },
    /// Gap rows that a flush worked on are not there any more.
    #[error("{found} of {expected} gap rows of the flush still exist; the transaction was rolled back")]
    GapsChanged {
        /// Rows the flush names.
        expected: u64,
        /// Rows found.
        found: u64,
    },
    /// The platform is not registered.
    #[error("platform {platform} is not in the database")]
    UnknownPlatform {
        /// The platform.
        platform: PlatformId,
    },
    /// An operation that was written in this transaction is not there.
    #[error("operation {id} is not in the database")]
    NoOperation {
        /// Its key.
        id: uuid::Uuid,
    },
    /// An operation that only another version can read.
    #[error("operation {id} cannot be read by this version; was it asked for through a newer one?")]
    Operation {
        /// Its key.
        id: uuid::Uuid,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// What the registry of platforms refuses.
    #[error("platform {name:?} {refusal}")]
    Registry {
        /// The platform.
        name: String,
        /// Why.
        refusal: Refusal,
    },
    /// What may be collected is not wiped.
    #[error(
        "platform {name:?} is collected, or about to be: remove it (virt-collector platform remove {name}) or pause it \
         (virt-collector platform maintenance {name} on), then wipe it"
    )]
    StillCollected {
        /// The platform.
        name: String,
    },
    /// What somebody holds is not wiped.
    #[error(
        "platform {name:?} is still held, by a collector that is stopping or by another run of this command; try again \
         in half a minute"
    )]
    StillHeld {
        /// The platform.
        name: String,
    },
    /// The extension is installed on the server but not created in the database.
    #[error(
        "TimescaleDB {available} is available but not created in database {database:?}: run CREATE EXTENSION \
         timescaledb; in it as a superuser, as the SQL of virt-collector migrate --bootstrap-sql does"
    )]
    ExtensionNotCreated {
        /// The database.
        database: String,
        /// The version that would be created.
        available: String,
    },
    /// The server has no TimescaleDB at all.
    #[error(
        "TimescaleDB is not installed on the server of database {database:?}: install the package of TimescaleDB \
         {LEAST_TIMESCALE} or newer for its PostgreSQL, add timescaledb to shared_preload_libraries, restart it, \
         then run the SQL of virt-collector migrate --bootstrap-sql as a superuser"
    )]
    ExtensionNotInstalled {
        /// The database.
        database: String,
    },
    /// The server is too old.
    #[error("PostgreSQL {found} is too old; PostgreSQL {LEAST_POSTGRES} or newer is needed")]
    PostgresTooOld {
        /// The server's version.
        found: String,
    },
    /// The extension is too old.
    #[error(
        "TimescaleDB {found} is too old; install {LEAST_TIMESCALE} or newer, then run ALTER EXTENSION timescaledb \
         UPDATE; as the first command of a new psql -X session"
    )]
    TimescaleTooOld {
        /// The extension's version.
        found: String,
    },
    /// No tables yet.
    #[error("database {database:?} has no tables of virt-collector yet: run virt-collector migrate")]
    SchemaMissing {
        /// The database.
        database: String,
    },
    /// The tables are of an older version.
    #[error(
        "the database schema is version {found}, this virt-collector needs {needed}: run virt-collector migrate"
    )]
    SchemaOlder {
        /// Version of the database.
        found: i32,
        /// Version of the binary.
        needed: i32,
    },
    /// The tables are of a newer version.
    #[error(
        "the database schema is version {found}, this virt-collector knows only {known}: install the version that \
         migrated it, or a newer one"
    )]
    SchemaNewer {
        /// Version of the database.
        found: i32,
        /// Version of the binary.
        known: i32,
    },
    /// A migration was applied in another form.
    #[error(
        "migration {version} ({name}) was applied from another text than this virt-collector holds: it comes from \
         a build that was never released, or the row in virt_schema_migration was edited; restore the database \
         or run the build that made it"
    )]
    Checksum {
        /// Version of the migration.
        version: i32,
        /// Its name in the database.
        name: String,
    },
    /// The roles were never made.
    #[error(
        "the role {role} does not exist: run the SQL of virt-collector migrate --bootstrap-sql in this database as a \
         superuser, once"
    )]
    MissingRole {
        /// The role.
        role: &'static str,
    },
    /// The roles are there, as those of the whole server; the rights in this database are not.
    #[error(
        "virt_owner may not make tables in database {database:?}: run the SQL of virt-collector migrate \
         --bootstrap-sql in it as a superuser, once"
    )]
    NotPrepared {
        /// The database.
        database: String,
    },
    /// The account cannot act as the owner of the tables.
    #[error(
        "{user} may not act as virt_owner, which owns the tables: migrate with an account that may (section \
         [database.owner]), or run GRANT virt_owner TO {user}; as a superuser"
    )]
    NotOwner {
        /// The account.
        user: String,
    },
    /// The account cannot make accounts.
    #[error(
        "the account that connects ({user}) may not create accounts: name one that may in [database.owner], or have a \
         superuser run: virt-collector migrate --reader {reader} --print-sql | psql -d {database}"
    )]
    MayNotCreateRoles {
        /// Server, database and account.
        user: Box<str>,
        /// The account that was to be made.
        reader: Box<str>,
        /// The database.
        database: Box<str>,
        /// What the server said.
        #[source]
        source: Cause,
    },
    /// A migration failed; its transaction was rolled back.
    #[error("migration {version} ({name}) failed and was rolled back")]
    Migration {
        /// Version of the migration.
        version: i32,
        /// Its name.
        name: &'static str,
        /// What the server said.
        #[source]
        source: Cause,
    },
    /// Another migration run holds the lock.
    #[error(
        "another migration of this database is running; wait for it, then run virt-collector migrate again"
    )]
    MigrationRunning,
}

impl Error {
    pub(super) fn statement(attempt: &'static str, source: tokio_postgres::Error) -> Self {
        Self::Statement {
            attempt,
            source: Cause::from(source),
        }
    }

    /// Reads what a failed connection attempt was about.
    pub(super) fn connect(target: &str, has_password_file: bool, source: tokio_postgres::Error) -> Self {
        if let Some(problem) = find_source::<secret::FileError>(&source) {
            return Self::Password {
                problem: Chain(problem).to_string(),
            };
        }
        if let Some(stale) = find_source::<Stale>(&source) {
            return Self::Stale {
                target: target.to_owned(),
                problem: stale.to_string(),
            };
        }
        let advice = match source.code().map(SqlState::code) {
            Some("28P01") => "check the account and the password in password_file",
            Some(code) if code.starts_with("28") => {
                "the server does not let this account in from here; is there such a role, and a line for it in \
                 pg_hba.conf?"
            }
            Some("3D000") => {
                "create the database, then run the SQL of virt-collector migrate --bootstrap-sql in it as a superuser"
            }
            Some("53300") => "the server's max_connections is used up",
            Some("57P03") => "the server is starting up or shutting down",
            Some(_) => "the server refused the connection",
            None => unanswered(has_password_file, &source),
        };
        Self::Connect {
            target: target.to_owned(),
            advice,
            source: Cause::from(source),
        }
    }

    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Statement { source, .. } | Self::Migration { source, .. } => source.class_of_statement(),
            Self::Connect { source, .. } => source.class(),
            Self::Deadline { .. } | Self::Busy { .. } => Class::Connection,
            Self::CommitUnknown { .. } => Class::Unknown,
            Self::Stale { .. } => Class::NotWritable,
            Self::Fenced { .. } => Class::Fenced,
            Self::Moved { .. } => Class::Moved,
            Self::RowCount { .. } | Self::GapsChanged { .. } | Self::MigrationRunning => Class::Retry,
            Self::Password { .. } => Class::Auth,
            Self::ExtensionNotCreated { .. }
            | Self::ExtensionNotInstalled { .. }
            | Self::PostgresTooOld { .. }
            | Self::TimescaleTooOld { .. }
            | Self::SchemaMissing { .. }
            | Self::SchemaOlder { .. }
            | Self::SchemaNewer { .. }
            | Self::Checksum { .. }
            | Self::NotPrepared { .. }
            | Self::MissingRole { .. } => Class::Schema,
            Self::Settings { .. }
            | Self::CaFile { .. }
            | Self::UnknownPlatform { .. }
            | Self::NoOperation { .. }
            | Self::Operation { .. }
            | Self::Registry { .. }
            | Self::StillCollected { .. }
            | Self::StillHeld { .. }
            | Self::MayNotCreateRoles { .. }
            | Self::NotOwner { .. } => Class::Permanent,
        }
    }

    /// What the caller should do.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self.class() {
            Class::Connection | Class::Unknown | Class::NotWritable | Class::Retry => Disposition::Retry,
            Class::Full => Disposition::RetryAfter(WAIT_FOR_SPACE),
            Class::Duplicate | Class::Data => Disposition::Split,
            Class::Auth | Class::Schema => Disposition::RetryAfter(WAIT_FOR_A_PERSON),
            Class::Fenced | Class::Moved | Class::Permanent => Disposition::Permanent,
        }
    }

    /// True where there is no connection at all. The loop that looks at the database tells of that once, for everybody.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Stale { .. } | Self::Password { .. }
        )
    }

    /// True where it is certain that nothing of the transaction was stored.
    #[must_use]
    pub const fn is_rolled_back(&self) -> bool {
        !matches!(self, Self::CommitUnknown { .. })
    }
}

/// What to do where the account itself is the matter.
fn lacking(source: &Cause) -> &'static str {
    match source.sqlstate() {
        Some("42501") => {
            "; the account must be a member of virt_writer, and that of [database.owner] of virt_owner"
        }
        _ => "",
    }
}

/// Finds an error of one type among the sources. An `io::Error` does not name the error it wraps as its source,
/// so it is opened.
fn find_source<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(found) = error
            .downcast_ref::<io::Error>()
            .and_then(|io| io.get_ref()?.downcast_ref::<T>())
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Advice where the server never answered: refused, no such socket, no such name, TLS.
fn unanswered(has_password_file: bool, error: &tokio_postgres::Error) -> &'static str {
    if let Some(error) = find_source::<rustls::Error>(error) {
        return tls(error);
    }
    if let Some(error) = find_source::<io::Error>(error) {
        return network(error);
    }
    if has_password_file {
        "the server did not complete the connection; if it has no TLS, look at sslmode"
    } else {
        "if the server asks for a password, set password_file; if it has no TLS, look at sslmode"
    }
}

fn network(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: is the server running, are host and port right?"
        }
        io::ErrorKind::NotFound => "there is no such socket: is the server running, is the directory right?",
        io::ErrorKind::PermissionDenied => "the socket is not open to this user, or the server is read-only",
        io::ErrorKind::TimedOut => "no answer: look at host, port and firewalls",
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the server closed the connection: is this a PostgreSQL port?"
        }
        // From the driver, of an answer that cannot be read.
        io::ErrorKind::Other => "what answers there is no PostgreSQL: are host and port right?",
        // What the resolver says carries no code of the operating system.
        _ if error.raw_os_error().is_none() => "check the host name: it could not be resolved",
        _ => "check host, port and the network in between",
    }
}

fn tls(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate is not trusted: set ca_file to the authority that signed it"
        }
        rustls::Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "its certificate is for another name: use the name in it as host",
        rustls::Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        _ => "the TLS handshake failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_codes_fall_into_their_classes() {
        for (codes, class) in [
            (
                &["08006", "57P01", "57P02", "57P03", "53300", "25P03"][..],
                Class::Connection,
            ),
            (&["25006"], Class::NotWritable),
            (&["53100"], Class::Full),
            (&["40001", "40P01", "55P03", "57014", "53200"], Class::Retry),
            (&["23505"], Class::Duplicate),
            (&["22008", "23502", "23514"], Class::Data),
            (&["28000", "28P01"], Class::Auth),
            (&["42P01", "42703"], Class::Schema),
            (&["42501", "42601"], Class::Permanent),
        ] {
            for code in codes {
                assert_eq!(Class::of(&SqlState::from_code(code)), class, "{code}");
            }
        }
    }

    #[test]
    fn what_ends_the_session_is_no_fault_of_the_statement_and_of_a_login_what_it_says() {
        let cause = |code, is_fatal| Cause {
            message: Box::default(),
            code: Some(SqlState::from_code(code)),
            is_fatal,
        };
        let statement = |source| Error::Statement { attempt: "", source };
        assert_eq!(statement(cause("42710", true)).class(), Class::Connection);
        assert_eq!(statement(cause("42710", false)).class(), Class::Permanent);
        let login = Error::Connect {
            target: String::new(),
            advice: "",
            source: cause("28P01", true),
        };
        assert_eq!(login.class(), Class::Auth);
    }
}
