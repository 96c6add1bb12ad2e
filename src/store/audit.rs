//! What was asked of the admin API and what came of it.
//!
//! Owns: `virt_audit_log`, to which rows are added and in which none is changed: the database grants no more.
//! Never does: deciding what is written down.
//!
//! Invariant: the intent of an action is written in the transaction that makes the action possible, its outcome in
//! the one that ends it.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::store::connect::{Checkout, Parameter};
use crate::store::error::Error;

const INSERT: &str = "\
INSERT INTO virt_audit_log (entry, actor, client, request_id, action, platform, target, target_name, operation_id,
                            outcome, code, detail, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::uuid, $10, $11, $12, $13::jsonb, $14::jsonb)";

/// What a row of the log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something is about to be done.
    Intent,
    /// It ended.
    Outcome(Outcome),
    /// It was not allowed.
    Denied,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// Not done.
    Error,
    /// Nobody knows.
    Unknown,
}

impl Kind {
    /// The words in the columns `entry` and `outcome`.
    const fn columns(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Intent => ("intent", None),
            Self::Outcome(Outcome::Ok) => ("outcome", Some("ok")),
            Self::Outcome(Outcome::Error) => ("outcome", Some("error")),
            Self::Outcome(Outcome::Unknown) => ("outcome", Some("unknown")),
            Self::Denied => ("denied", Some("denied")),
        }
    }
}

/// A row to be added.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// What it is about.
    pub kind: Kind,
    /// Name of the token.
    pub actor: &'a str,
    /// Where the request came from.
    pub client: Option<&'a str>,
    /// The request.
    pub request_id: &'a str,
    /// What was asked for.
    pub action: &'a str,
    /// Name of the platform.
    pub platform: Option<&'a str>,
    /// moref of the VM.
    pub target: Option<&'a str>,
    /// Name of the VM.
    pub target_name: Option<&'a str>,
    /// The operation.
    pub operation: Option<Uuid>,
    /// Kind of failure.
    pub code: Option<&'a str>,
    /// Why.
    pub detail: Option<&'a str>,
    /// What was there before, as JSON.
    pub before: Option<String>,
    /// What was asked for or is there after, as JSON.
    pub after: Option<String>,
}

/// Adds a row, in the connection's transaction where it has one.
pub(super) async fn insert(connection: &Checkout, entry: &Entry<'_>) -> Result<(), Error> {
    let (kind, outcome) = entry.kind.columns();
    let operation = entry.operation.map(|id| id.to_string());
    let parameters: [Parameter<'_>; 14] = [
        (&kind, Type::TEXT),
        (&entry.actor, Type::TEXT),
        (&entry.client, Type::TEXT),
        (&entry.request_id, Type::TEXT),
        (&entry.action, Type::TEXT),
        (&entry.platform, Type::TEXT),
        (&entry.target, Type::TEXT),
        (&entry.target_name, Type::TEXT),
        (&operation, Type::TEXT),
        (&outcome, Type::TEXT),
        (&entry.code, Type::TEXT),
        (&entry.detail, Type::TEXT),
        (&entry.before, Type::TEXT),
        (&entry.after, Type::TEXT),
    ];
    connection.execute(INSERT, &parameters).await?;
    Ok(())
}
