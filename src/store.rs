//! Rows to and from TimescaleDB.
//!
//! Owns: connections, the schema and its migrations, the fence, and every SQL text. Only this module names the
//! database driver; callers pass and receive [`crate::model`] values.
//! Never does: retrying, resending, deciding what is collected, or counting in metrics. Each error says by
//! [`Error::class`] and [`Error::disposition`] what may be done about it; the loops obey.
//!
//! | part | one job |
//! |---|---|
//! | [`Settings`], [`Database`] | where the database is; a pool of connections for everything but COPY |
//! | [`migrate`] | the schema: numbered files, checksums, one transaction each |
//! | [`Probe`] | what the server is: versions, edition, schema |
//! | [`collectors`] | which collectors run, and how they share platforms |
//! | [`registry`] | platforms as people keep them: address, trust, filters, whether they are collected |
//! | [`lease`] | who owns a platform; the fence in front of every write for it |
//! | [`credential`] | sealed passwords of platforms, as bytes |
//! | [`token`] | tokens of the admin API: their rows, and never a token |
//! | [`inventory`] | platforms, their identity and status, hosts and VMs |
//! | [`operation`] | actions on VMs, from the request to their end |
//! | [`audit`] | what was asked of the admin API and what came of it |
//! | [`reading`] | the inventory as the API shows it, page by page |
//! | [`watermark`] | the newest stored sample of each entity |
//! | [`gap`] | gap rows as work of the back-fill lane |
//! | [`overview`] | how everything stands, for `status` |
//! | [`examine`] | what an account may do, for `check` |
//! | [`reader`] | accounts that read, for dashboards and people |
//! | [`retention`] | what is kept how long, what is dropped, what is compressed |
//! | [`wipe`] | everything of one platform, gone |
//! | [`copy`] | samples and gap rows of one platform, in one transaction |
//! | [`rollup`] | samples by 5 minutes, hour and day, and which of them have to be made |
//!
//! Invariants:
//! - Every wait for the server has a deadline, and the server has its own, shorter one.
//! - Every transaction that writes for a platform starts with the fence ([`FENCE_SQL`]).
//! - What is read of a server is believed of no other, and not of the same one started again ([`lease`]).
//! - A connection on which anything failed, or whose future was dropped half-way, is never used again.
//! - No password reaches an error, a log line or `Debug`.

pub mod audit;
pub mod collectors;
mod connect;
pub mod copy;
pub mod credential;
mod error;
mod examine;
pub mod gap;
pub mod inventory;
pub mod lease;
pub mod migrate;
pub mod operation;
pub mod overview;
mod probe;
pub mod reader;
pub mod reading;
pub mod registry;
pub mod retention;
pub mod rollup;
mod servers;
pub mod token;
mod types;
pub mod watermark;
pub mod wipe;

pub use connect::{Database, Listener, Settings, Transport};
pub use copy::{Flush, Writer, Written};
pub use error::{Cause, Class, Error, Refusal};
pub use examine::Examined;
pub use inventory::Pinned;
pub use lease::{FENCE_SQL, LEASE_TTL, Lease, Owner};
pub use probe::{Edition, LEAST_POSTGRES, LEAST_TIMESCALE, Probe, SchemaState};

/// What a superuser runs once in the database that is to hold the samples: roles, ownership, the extension.
pub const BOOTSTRAP_SQL: &str = include_str!("../sql/bootstrap.sql");
