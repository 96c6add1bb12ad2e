//! What was asked of the admin API and what came of it.
//!
//! Owns: `virt_audit_log`, to which rows are added and in which none is changed: the database grants no more.
//! Never does: deciding what is written down.
//!
//! Invariant: the intent of an action is written in the transaction that makes the action possible, its outcome in
//! the one that ends it.

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::store::connect::{Checkout, Database, Parameter};
use crate::store::error::Error;
use crate::units::Stamp;

const INSERT: &str = "\
INSERT INTO virt_audit_log (entry, actor, client, request_id, action, platform, target, target_name, operation_id,
                            outcome, code, detail, before, after)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::uuid, $10, $11, $12, $13::jsonb, $14::jsonb)";

/// Newest first.
const LIST: &str = "\
SELECT audit_id, at, entry, actor, client, request_id, action, platform, target, target_name, operation_id::text,
       outcome, code, detail, before::text, after::text
FROM virt_audit_log
WHERE ($1::bigint IS NULL OR audit_id < $1)
  AND ($2::text[] IS NULL OR platform = ANY ($2))
  AND ($3::text IS NULL OR platform = $3)
  AND ($4::text IS NULL OR actor = $4)
  AND ($5::text IS NULL OR action = $5)
  AND ($6::text IS NULL OR entry = $6)
  AND ($7::text IS NULL OR operation_id = $7::text::uuid)
  AND ($8::text IS NULL OR request_id = $8)
  AND ($9::timestamptz IS NULL OR at >= $9)
  AND ($10::timestamptz IS NULL OR at < $10)
ORDER BY audit_id DESC LIMIT $11";

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

impl<'a> Entry<'a> {
    /// With who asked for what; the rest is to be filled in.
    #[must_use]
    pub const fn new(kind: Kind, actor: &'a str, request_id: &'a str, action: &'a str) -> Self {
        Self {
            kind,
            actor,
            client: None,
            request_id,
            action,
            platform: None,
            target: None,
            target_name: None,
            operation: None,
            code: None,
            detail: None,
            before: None,
            after: None,
        }
    }
}

/// An entry, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Its number, in order of writing.
    pub id: i64,
    /// When.
    pub at: Stamp,
    /// `intent`, `outcome` or `denied`.
    pub entry: String,
    /// As in [`Entry`].
    pub actor: String,
    /// As in [`Entry`].
    pub client: Option<String>,
    /// As in [`Entry`].
    pub request_id: String,
    /// As in [`Entry`].
    pub action: String,
    /// As in [`Entry`].
    pub platform: Option<String>,
    /// As in [`Entry`].
    pub target: Option<String>,
    /// As in [`Entry`].
    pub target_name: Option<String>,
    /// As in [`Entry`].
    pub operation: Option<Uuid>,
    /// `ok`, `denied`, `error` or `unknown`.
    pub outcome: Option<String>,
    /// As in [`Entry`].
    pub code: Option<String>,
    /// As in [`Entry`].
    pub detail: Option<String>,
    /// As in [`Entry`].
    pub before: Option<Value>,
    /// As in [`Entry`].
    pub after: Option<Value>,
}

/// Which entries are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Those with a smaller number.
    pub below: Option<i64>,
    /// Of these platforms alone; entries without a platform are then left out.
    pub scope: Option<Vec<String>>,
    /// Of this platform.
    pub platform: Option<String>,
    /// Of this token.
    pub actor: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// Of this kind.
    pub entry: Option<String>,
    /// Of this operation.
    pub operation: Option<Uuid>,
    /// Of this request.
    pub request_id: Option<String>,
    /// Not before.
    pub since: Option<Stamp>,
    /// Before.
    pub until: Option<Stamp>,
}

impl Database {
    /// Adds an entry, in a transaction of its own.
    ///
    /// # Errors
    /// When it was not written.
    pub async fn audit(&self, entry: &Entry<'_>) -> Result<(), Error> {
        let connection = self.checkout("write to the audit log").await?;
        insert(&connection, entry).await?;
        connection.done();
        Ok(())
    }

    /// Entries that fit, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn audit_log(&self, filter: &LogFilter, limit: i64) -> Result<Vec<Logged>, Error> {
        let LogFilter {
            below,
            scope,
            platform,
            actor,
            action,
            entry,
            operation,
            request_id,
            since,
            until,
        } = filter;
        let connection = self.checkout("read the audit log").await?;
        let operation = operation.map(|id| id.to_string());
        let rows = connection
            .query(
                LIST,
                &[
                    (below, Type::INT8),
                    (scope, Type::TEXT_ARRAY),
                    (platform, Type::TEXT),
                    (actor, Type::TEXT),
                    (action, Type::TEXT),
                    (entry, Type::TEXT),
                    (&operation, Type::TEXT),
                    (request_id, Type::TEXT),
                    (since, Type::TIMESTAMPTZ),
                    (until, Type::TIMESTAMPTZ),
                    (&limit, Type::INT8),
                ],
            )
            .await?;
        let uuid = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        let logged = rows
            .iter()
            .map(|row| {
                Ok(Logged {
                    id: connection.read(row, 0)?,
                    at: connection.read(row, 1)?,
                    entry: connection.read(row, 2)?,
                    actor: connection.read(row, 3)?,
                    client: connection.read(row, 4)?,
                    request_id: connection.read(row, 5)?,
                    action: connection.read(row, 6)?,
                    platform: connection.read(row, 7)?,
                    target: connection.read(row, 8)?,
                    target_name: connection.read(row, 9)?,
                    operation: uuid(connection.read(row, 10)?),
                    outcome: connection.read(row, 11)?,
                    code: connection.read(row, 12)?,
                    detail: connection.read(row, 13)?,
                    before: json(connection.read(row, 14)?),
                    after: json(connection.read(row, 15)?),
                })
            })
            .collect::<Result<_, Error>>()?;
        connection.done();
        Ok(logged)
    }
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
