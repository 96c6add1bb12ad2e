//! Sealed passwords of platforms.
//!
//! Owns: `virt_platform_credential`. Never does: opening them; to this module they are bytes. Nor telling collectors of
//! a new password; that is the [registry's](crate::store::registry), in the same transaction.
//!
//! Invariant: sealing anew with another key changes nothing but the seal. It replaces a row only while that is still
//! the one that was read, so a password that a person sets meanwhile stays.

use tokio_postgres::types::Type;

use crate::config::PlatformKind;
use crate::model::ids::PlatformId;
use crate::secret::{Place, Sealed};
use crate::store::connect::{Checkout, Database, Parameter};
use crate::store::error::Error;
use crate::store::registry;
use crate::store::registry::Address;

const PUT: &str = "\
INSERT INTO virt_platform_credential (platform_id, key_id, sealed) VALUES ($1, $2, $3)
ON CONFLICT (platform_id) DO UPDATE
SET key_id = excluded.key_id, sealed = excluded.sealed, sealed_at = clock_timestamp()";

const ALL: &str = "\
SELECT platform_id, platform.name, sealed, host, port, tls_verify, tls_ca_pem, tls_thumbprint
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
    /// What it is sealed for.
    pub place: Place,
}

impl Database {
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
                let platform = PlatformId(connection.read(row, 0)?);
                // Of an address, what a seal covers.
                let address = Address {
                    trust: registry::read_trust(&connection, row, 5)?,
                    ..Address::new(
                        PlatformKind::VCenter,
                        connection.read(row, 3)?,
                        registry::read_port(&connection, row, 4)?,
                    )
                };
                Ok(Credential {
                    platform,
                    name: connection.read(row, 1)?,
                    sealed: connection.read(row, 2)?,
                    place: address.place(platform),
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

/// Stores the sealed password of a platform in place of the one before, on a connection that is in a transaction.
pub(super) async fn put(connection: &Checkout, platform: PlatformId, sealed: &Sealed) -> Result<(), Error> {
    let parameters: [Parameter<'_>; 3] = [
        (&platform.0, Type::INT4),
        (&sealed.key().to_string(), Type::TEXT),
        (&sealed.bytes(), Type::BYTEA),
    ];
    connection.execute(PUT, &parameters).await?;
    Ok(())
}
