//! Accounts that read, for dashboards and people.
//!
//! Owns: making them members of `virt_reader`, and setting them so that a dashboard neither writes nor runs for ever.
//! Never does: passwords; they go from psql to the server as a hash, and through nothing of ours.
//!
//! Invariant: such an account reads what `virt_reader` reads and does nothing else; where it would do more, it is
//! refused.

use std::fmt;

use tokio_postgres::types::Type;

use crate::store::connect::{Settings, bounded};
use crate::store::error::{Cause, Error};
use crate::store::probe;

/// What makes or repairs the account named by the setting `virt.reader`.
const READER_SQL: &str = include_str!("../../sql/reader.sql");

/// What `virt_reader` is granted, for a schema whose grants were lost, in a restore for example. Its owner's to give.
const REPAIR: &str = "\
DO $$
DECLARE
    readable text;
BEGIN
    FOR readable IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname LIKE 'virt\\_%'
          AND NOT relname = ANY (string_to_array(current_setting('virt.unreadable'), ','))
          AND NOT has_table_privilege('virt_reader', oid, 'SELECT')
    LOOP
        EXECUTE format('GRANT SELECT ON %I TO virt_reader', readable);
    END LOOP;
END
$$";

/// What no dashboard reads: sealed passwords, tokens, and who did what.
pub const UNREADABLE: [&str; 5] = [
    "virt_platform_credential",
    "virt_api_token",
    "virt_api_idempotency",
    "virt_audit_log",
    "virt_operation",
];

const READABLE: &str = "\
SELECT count(*) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname LIKE 'virt\\_%'
  AND has_table_privilege($1, oid, 'SELECT')";

/// The name of an account: one that needs no quoting anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// A text that cannot name an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name an account; use 1 to 63 lower-case letters, digits or '_', a letter first")]
pub struct NameError(String);

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// When it would have to be quoted.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let is_good =
            name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 63 && name.chars().all(plain);
        if is_good {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError(name.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a superuser may run instead.
#[must_use]
pub fn sql(name: &Name) -> String {
    format!("SET virt.reader = '{name}';\n{READER_SQL}")
}

/// Makes an account that reads, or repairs it. Returns how many tables and views it may read.
///
/// # Errors
/// When the account of the connection may not create roles, or one of this name does more than read.
pub async fn apply(settings: &Settings, name: &Name) -> Result<i64, Error> {
    const ATTEMPT: &str = "make an account that reads";
    let connection = settings.connect("reader").await?;
    let probe = probe::probe(&connection).await?;
    probe.require()?;
    let refused = |source: tokio_postgres::Error| {
        if source.code().is_some_and(|code| code.code() == "42501") {
            Error::MayNotCreateRoles {
                user: settings.target().into(),
                reader: name.to_string().into(),
                database: probe.database.as_str().into(),
                source: Cause::from(source),
            }
        } else {
            Error::statement(ATTEMPT, source)
        }
    };
    bounded(ATTEMPT, connection.batch_execute("BEGIN")).await?;
    connection.batch_execute(&sql(name)).await.map_err(refused)?;
    let unreadable = format!("SET LOCAL virt.unreadable = '{}'", UNREADABLE.join(","));
    bounded(ATTEMPT, connection.batch_execute(&unreadable)).await?;
    bounded(ATTEMPT, connection.batch_execute(REPAIR)).await?;
    let row = bounded(
        ATTEMPT,
        connection.query_typed_one(READABLE, &[(&name.0, Type::TEXT)]),
    )
    .await?;
    let readable = row
        .try_get(0)
        .map_err(|source| Error::statement(ATTEMPT, source))?;
    bounded(ATTEMPT, connection.batch_execute("COMMIT")).await?;
    Ok(readable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_need_quotes_is_refused() {
        assert!(Name::new("grafana_2").is_ok());
        for bad in ["", "Grafana", "2nd", "a-b", "a'b", "a b", &"a".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }
}
