//! Sealed passwords of platforms.
//!
//! Owns: `virt_platform_credential`. Never does: opening them; to this module they are bytes.
//!
//! Invariant: sealing anew with another key changes nothing but the seal. It replaces a row only while that is still
//! the one that was read, so a password that a person sets meanwhile stays.

use tokio_postgres::types::Type;

use crate::model::ids::PlatformId;
use crate::secret::Sealed;
use crate::store::connect::{Checkout, Database};
use crate::store::error::Error;

const READ: &str = "SELECT sealed FROM virt_platform_credential WHERE platform_id = $1";

const PUT: &str = "\
WITH put AS (
    INSERT INTO virt_platform_credential AS stored (platform_id, key_id, sealed) VALUES ($1, $2, $3)
    ON CONFLICT (platform_id) DO UPDATE
    SET key_id = excluded.key_id, sealed = excluded.sealed, sealed_at = clock_timestamp()
    RETURNING platform_id
), changed AS (
    UPDATE virt_platform SET revision = revision + 1 FROM put WHERE virt_platform.platform_id = put.platform_id
    RETURNING name
)
SELECT pg_notify('virt_registry', name) FROM changed";

const DELETE: &str = "DELETE FROM virt_platform_credential WHERE platform_id = $1";

const ALL: &str = "\
SELECT platform_id, platform.name, sealed
FROM virt_platform_credential JOIN virt_platform AS platform USING (platform_id)
ORDER BY platform.name";

/// No new revision: the password is the same. Collectors hear of it, since they hold the seal.
const RESEAL: &str = "\
WITH resealed AS (
    UPDATE virt_platform_credential SET key_id = $3, sealed = $4, sealed_at = clock_timestamp()
    WHERE platform_id = $1 AND sealed = $2
    RETURNING platform_id
)
SELECT pg_notify('virt_registry', name)::text FROM resealed JOIN virt_platform USING (platform_id)";

/// A row, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose password it is.
    pub platform: PlatformId,
    /// The platform's name.
    pub name: String,
    /// The envelope.
    pub sealed: Vec<u8>,
}

impl Database {
    /// The sealed password of a platform; `None` where it has none here.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn credential(&self, platform: PlatformId) -> Result<Option<Vec<u8>>, Error> {
        let connection = self.checkout("read a sealed password").await?;
        let row = connection.query_opt(READ, &[(&platform.0, Type::INT4)]).await?;
        let sealed = row.map(|row| connection.read(&row, 0)).transpose()?;
        connection.done();
        Ok(sealed)
    }

    /// Stores the sealed password of a platform in place of the one before, and tells the collectors.
    ///
    /// # Errors
    /// When the platform is not registered, or the database cannot be asked.
    pub async fn put_credential(&self, platform: PlatformId, sealed: &Sealed) -> Result<(), Error> {
        let connection = self.checkout("store a sealed password").await?;
        put(&connection, platform, sealed).await?;
        connection.done();
        Ok(())
    }

    /// Removes the sealed password of a platform. True where there was one.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn delete_credential(&self, platform: PlatformId) -> Result<bool, Error> {
        let connection = self.checkout("remove a sealed password").await?;
        let deleted = delete(&connection, platform).await?;
        connection.done();
        Ok(deleted)
    }

    /// Every sealed password, by name of its platform.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn credentials(&self) -> Result<Vec<Credential>, Error> {
        let connection = self.checkout("read the sealed passwords").await?;
        let rows = connection.query(ALL, &[]).await?;
        let credentials = rows
            .iter()
            .map(|row| {
                Ok(Credential {
                    platform: PlatformId(connection.read(row, 0)?),
                    name: connection.read(row, 1)?,
                    sealed: connection.read(row, 2)?,
                })
            })
            .collect::<Result<_, Error>>()?;
        connection.done();
        Ok(credentials)
    }

    /// Stores a new seal of the same password. False, and nothing done, where the row is not any more what was read.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn reseal_credential(&self, read: &Credential, sealed: &Sealed) -> Result<bool, Error> {
        let connection = self.checkout("store a new seal").await?;
        let replaced = connection
            .query_opt(
                RESEAL,
                &[
                    (&read.platform.0, Type::INT4),
                    (&read.sealed, Type::BYTEA),
                    (&sealed.key().to_string(), Type::TEXT),
                    (&sealed.bytes(), Type::BYTEA),
                ],
            )
            .await?;
        connection.done();
        Ok(replaced.is_some())
    }
}

/// As [`Database::put_credential`], on a connection that may be in a transaction.
pub(super) async fn put(connection: &Checkout, platform: PlatformId, sealed: &Sealed) -> Result<(), Error> {
    connection
        .query(
            PUT,
            &[
                (&platform.0, Type::INT4),
                (&sealed.key().to_string(), Type::TEXT),
                (&sealed.bytes(), Type::BYTEA),
            ],
        )
        .await?;
    Ok(())
}

/// As [`Database::delete_credential`], on a connection that may be in a transaction.
pub(super) async fn delete(connection: &Checkout, platform: PlatformId) -> Result<bool, Error> {
    let deleted = connection.execute(DELETE, &[(&platform.0, Type::INT4)]).await?;
    Ok(deleted == 1)
}
