//! Tokens of the admin API.
//!
//! Owns: `virt_api_token`. Never does: seeing a token, or saying whether one is good; its rows hold a MAC, and the
//! clock that says whether one has ended is the database's.

use tokio_postgres::types::Type;

use crate::store::connect::Database;
use crate::store::error::{Class, Error};
use crate::units::Stamp;

const ALL: &str = "\
SELECT token_id, name, role, platforms, key_id, mac, created_at, expires_at, revoked_at, last_used_at,
       expires_at <= clock_timestamp(), coalesce(last_used_at > clock_timestamp() - interval '1 minute', FALSE)
FROM virt_api_token ORDER BY token_id";

const DRAW: &str = "\
SELECT nextval('virt_api_token_token_id_seq')::integer, clock_timestamp() + $1 * interval '1 second'";

const ADD: &str = "\
INSERT INTO virt_api_token (token_id, name, role, platforms, key_id, mac, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

const UNKNOWN_PLATFORMS: &str = "\
SELECT name FROM unnest($1::text[]) AS name
WHERE name NOT IN (SELECT name FROM virt_platform WHERE removed_at IS NULL) ORDER BY name";

const REVOKE: &str = "\
UPDATE virt_api_token SET revoked_at = clock_timestamp() WHERE name = $1 AND revoked_at IS NULL";

const USED: &str = "\
UPDATE virt_api_token SET last_used_at = date_trunc('minute', clock_timestamp())
WHERE token_id = $1 AND last_used_at IS DISTINCT FROM date_trunc('minute', clock_timestamp())";

/// What stands in a new row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Its number, which was drawn.
    pub id: i32,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// The platforms that it is limited to; `None` for all.
    pub platforms: Option<Vec<String>>,
    /// The key of the MAC.
    pub key: String,
    /// The MAC.
    pub mac: Vec<u8>,
    /// When it ends.
    pub expires_at: Stamp,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// What was written when it was made.
    pub made: NewToken,
    /// When that was.
    pub created_at: Stamp,
    /// When it was revoked.
    pub revoked_at: Option<Stamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Stamp>,
    /// True where its end had come when the row was read.
    pub is_expired: bool,
    /// True where it was used within a minute before the row was read.
    pub is_in_use: bool,
}

impl TokenRow {
    /// True where it could be used when the row was read.
    #[must_use]
    pub const fn is_valid(&self) -> bool {
        !self.is_expired && self.revoked_at.is_none()
    }
}

impl Database {
    /// Every token that there ever was, oldest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Error> {
        let connection = self.checkout("read the tokens").await?;
        let rows = connection.query(ALL, &[]).await?;
        let tokens = rows
            .iter()
            .map(|row| {
                Ok(TokenRow {
                    made: NewToken {
                        id: connection.read(row, 0)?,
                        name: connection.read(row, 1)?,
                        role: connection.read(row, 2)?,
                        platforms: connection.read(row, 3)?,
                        key: connection.read(row, 4)?,
                        mac: connection.read(row, 5)?,
                        expires_at: connection.read(row, 7)?,
                    },
                    created_at: connection.read(row, 6)?,
                    revoked_at: connection.read(row, 8)?,
                    last_used_at: connection.read(row, 9)?,
                    is_expired: connection.read(row, 10)?,
                    is_in_use: connection.read(row, 11)?,
                })
            })
            .collect::<Result<_, Error>>()?;
        connection.done();
        Ok(tokens)
    }

    /// A number for a new token, and the instant that is so many seconds away.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn draw_token(&self, seconds: i64) -> Result<(i32, Stamp), Error> {
        let connection = self.checkout("draw the number of a token").await?;
        #[expect(clippy::cast_precision_loss, reason = "seconds of at most some years")]
        let seconds = seconds as f64;
        let drawn = match connection.query_opt(DRAW, &[(&seconds, Type::FLOAT8)]).await? {
            Some(row) => (connection.read(&row, 0)?, connection.read(&row, 1)?),
            None => (0, Stamp::from_micros(0)),
        };
        connection.done();
        Ok(drawn)
    }

    /// Stores a token. False, and nothing done, where the name was given before.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn add_token(&self, token: &NewToken) -> Result<bool, Error> {
        let connection = self.checkout("store a token").await?;
        let NewToken {
            id,
            name,
            role,
            platforms,
            key,
            mac,
            expires_at,
        } = token;
        let added = connection
            .execute(
                ADD,
                &[
                    (id, Type::INT4),
                    (name, Type::TEXT),
                    (role, Type::TEXT),
                    (platforms, Type::TEXT_ARRAY),
                    (key, Type::TEXT),
                    (mac, Type::BYTEA),
                    (expires_at, Type::TIMESTAMPTZ),
                ],
            )
            .await;
        match added {
            Ok(_) => {
                connection.done();
                Ok(true)
            }
            Err(error) if error.class() == Class::Duplicate => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Those of the names that are no platform's.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn unknown_platforms(&self, names: &[String]) -> Result<Vec<String>, Error> {
        let connection = self.checkout("read the platforms").await?;
        let rows = connection
            .query(UNKNOWN_PLATFORMS, &[(&names, Type::TEXT_ARRAY)])
            .await?;
        let unknown = rows
            .iter()
            .map(|row| connection.read(row, 0))
            .collect::<Result<_, Error>>()?;
        connection.done();
        Ok(unknown)
    }

    /// Revokes a token. False where there is none of this name that is not revoked.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn revoke_token(&self, name: &str) -> Result<bool, Error> {
        let connection = self.checkout("revoke a token").await?;
        let revoked = connection.execute(REVOKE, &[(&name, Type::TEXT)]).await?;
        connection.done();
        Ok(revoked > 0)
    }

    /// Notes that a token is in use.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn token_used(&self, id: i32) -> Result<(), Error> {
        let connection = self.checkout("note the use of a token").await?;
        connection.execute(USED, &[(&id, Type::INT4)]).await?;
        connection.done();
        Ok(())
    }
}
