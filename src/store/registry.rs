//! The registry of platforms: which there are, how they are reached, whether they are collected.
//!
//! Owns: the columns of `virt_platform` that people change, and saying on the channel [`CHANNEL`] that something did.
//! The sealed password of a platform is written with its row. Never does: opening a seal; deciding what a collector
//! does about a change.
//!
//! Invariants:
//! - Rows of config.toml (`source = 'config'`) are changed by their configuration alone, by who owns the platform;
//!   maintenance is for both.
//! - A change raises the row's revision and notifies, in its own transaction.
//! - An edit that was based on an older revision is refused.
//! - A platform that is removed keeps its row, objects and samples; adding its name again goes on with them.

use std::path::Path;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::config::{Password, Platform, PlatformKind, Trust};
use crate::model::filter::Filter;
use crate::model::ids::PlatformId;
use crate::model::status::ErrorClass;
use crate::secret::{Place, Sealed, SealedPassword};
use crate::store::connect::{Checkout, Database, Listener, Parameter};
use crate::store::credential;
use crate::store::error::{Error, Refusal};
use crate::store::inventory::{OBJECTS, PARTS};
use crate::store::lease::Lease;
use crate::units::Stamp;

/// Notified with each change; the payload is the platform's name.
pub const CHANNEL: &str = "virt_registry";

const SELECT: &str = "\
SELECT platform.platform_id, platform.name, source, type, host, port, user_name, tls_verify, tls_ca_pem,
       tls_thumbprint, datacenters, include_paths, exclude_paths, is_active, in_maintenance, revision, sync_asked_at,
       synced_at, status, status_class, status_reason, status_since, version, build, api_type, last_success_at,
       identity, credential.sealed,
       (SELECT collector.host_name FROM virt_platform_lease AS lease JOIN virt_collector AS collector USING (owner)
        WHERE lease.platform_id = platform.platform_id AND lease.until > clock_timestamp()),
       (SELECT count(*) FROM virt_host AS host
        WHERE host.platform_id = platform.platform_id AND host.removed_at IS NULL),
       (SELECT count(*) FROM virt_vm AS vm
        WHERE vm.platform_id = platform.platform_id AND vm.removed_at IS NULL)
FROM virt_platform AS platform LEFT JOIN virt_platform_credential AS credential USING (platform_id)
WHERE platform.removed_at IS NULL";

const ADD: &str = "\
WITH added AS (
    INSERT INTO virt_platform AS stored (name, type, host, port, user_name, tls_verify, tls_ca_pem, tls_thumbprint,
                                         datacenters, include_paths, exclude_paths, is_active, source)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'registry')
    ON CONFLICT (name) DO UPDATE SET
        type = excluded.type, host = excluded.host, port = excluded.port, user_name = excluded.user_name,
        tls_verify = excluded.tls_verify, tls_ca_pem = excluded.tls_ca_pem, tls_thumbprint = excluded.tls_thumbprint,
        datacenters = excluded.datacenters, include_paths = excluded.include_paths,
        exclude_paths = excluded.exclude_paths, is_active = excluded.is_active, source = excluded.source,
        revision = stored.revision + 1, removed_at = NULL, in_maintenance = FALSE
    WHERE stored.removed_at IS NOT NULL
    RETURNING platform_id, name
)
SELECT platform_id, pg_notify('virt_registry', name)::text FROM added";

const EDIT: &str = "\
WITH edited AS (
    UPDATE virt_platform SET
        type = $3, host = $4, port = $5, user_name = $6, tls_verify = $7, tls_ca_pem = $8, tls_thumbprint = $9,
        datacenters = $10, include_paths = $11, exclude_paths = $12, revision = revision + 1
    WHERE platform_id = $1 AND revision = $2 AND source = 'registry' AND removed_at IS NULL
    RETURNING name
)
SELECT pg_notify('virt_registry', name)::text FROM edited";

const SET_ACTIVE: &str = "\
WITH changed AS (
    UPDATE virt_platform SET
        is_active = $2, revision = revision + 1, status = CASE WHEN in_maintenance THEN status ELSE 'disconnected' END,
        status_class = NULL, status_reason = NULL, status_since = clock_timestamp()
    WHERE platform_id = $1 AND is_active <> $2 AND source = 'registry' AND removed_at IS NULL
    RETURNING name
)
SELECT pg_notify('virt_registry', name)::text FROM changed";

/// The status of a platform in maintenance is that, whatever a collector that is still stopping says
/// ([`Database::set_status`]).
const SET_MAINTENANCE: &str = "\
WITH changed AS (
    UPDATE virt_platform SET
        in_maintenance = $2, revision = revision + 1, status = CASE WHEN $2 THEN 'maintenance' ELSE 'disconnected' END,
        status_class = NULL, status_reason = NULL, status_since = clock_timestamp()
    WHERE platform_id = $1 AND in_maintenance <> $2 AND removed_at IS NULL
    RETURNING name
)
SELECT pg_notify('virt_registry', name)::text FROM changed";

/// One of config.toml as well, once no running collector has it there any more.
const REMOVE: &str = "\
WITH removed AS (
    UPDATE virt_platform SET
        removed_at = clock_timestamp(), is_active = FALSE, in_maintenance = FALSE, revision = revision + 1,
        status = 'disconnected', status_class = NULL, status_reason = NULL, status_since = clock_timestamp()
    WHERE platform_id = $1 AND removed_at IS NULL
      AND (source = 'registry' OR NOT EXISTS (
          SELECT FROM virt_collector AS collector
          WHERE collector.until > clock_timestamp() AND virt_platform.name = ANY (collector.platforms)))
    RETURNING platform_id, name
), forgotten AS (
    DELETE FROM virt_platform_credential AS credential USING removed
    WHERE credential.platform_id = removed.platform_id
)
SELECT pg_notify('virt_registry', name)::text FROM removed";

const ASK_SYNC: &str = "\
WITH asked AS (
    UPDATE virt_platform SET sync_asked_at = clock_timestamp()
    WHERE platform_id = $1 AND removed_at IS NULL RETURNING name, sync_asked_at
)
SELECT sync_asked_at, pg_notify('virt_registry', name)::text FROM asked";

const PROVISION: &str = "\
WITH added AS (
    INSERT INTO virt_platform (name, type, host, port, source) VALUES ($1, $2, $3, $4, 'config')
    ON CONFLICT (name) DO NOTHING
    RETURNING platform_id, in_maintenance
)
SELECT platform_id, in_maintenance FROM added
UNION ALL
SELECT platform_id, in_maintenance FROM virt_platform WHERE name = $1
LIMIT 1";

/// True in the result: the registry had the platform until now.
const DESCRIBE: &str = "\
WITH before AS (
    SELECT platform_id, source FROM virt_platform WHERE platform_id = $1
), described AS (
    UPDATE virt_platform SET
        type = $2, host = $3, port = $4, user_name = $5, tls_verify = $6, tls_ca_pem = NULL, tls_thumbprint = $7,
        datacenters = $8, include_paths = $9, exclude_paths = $10, source = 'config', is_active = TRUE,
        removed_at = NULL, revision = revision + 1
    WHERE platform_id = $1
      AND (type, host, port, user_name, tls_verify, tls_ca_pem, tls_thumbprint, datacenters, include_paths,
           exclude_paths, source, is_active, removed_at)
        IS DISTINCT FROM ($2, $3, $4, $5, $6, NULL, $7, $8, $9, $10, 'config', TRUE, NULL)
    RETURNING platform_id, name
), forgotten AS (
    DELETE FROM virt_platform_credential AS credential USING described
    WHERE credential.platform_id = described.platform_id
)
SELECT before.source = 'registry', pg_notify('virt_registry', name)::text
FROM described JOIN before USING (platform_id)";

/// Whether it is still to be collected in the form that is known.
const IS_CURRENT: &str = "\
SELECT FROM virt_platform
WHERE platform_id = $1 AND revision = $2 AND source = 'registry' AND removed_at IS NULL AND is_active
  AND NOT in_maintenance";

const FORGET_IDENTITY: &str = "\
WITH changed AS (
    UPDATE virt_platform SET identity = NULL, revision = revision + 1
    WHERE platform_id = $1 AND revision = $2 AND removed_at IS NULL RETURNING name
)
SELECT pg_notify('virt_registry', name)::text FROM changed";

/// An ESXi host is known by its hardware, which a vCenter that manages it shows as well.
const TWINS: &str = "\
SELECT name FROM virt_platform AS platform
WHERE platform_id <> $1 AND removed_at IS NULL AND is_active
  AND (identity = $2 OR EXISTS (
      SELECT FROM virt_host AS host
      WHERE host.platform_id = platform.platform_id AND host.removed_at IS NULL
        AND lower(host.hardware_uuid) = lower($2)))
ORDER BY name";

/// As lists of patterns.
const NONE: &[&str] = &[];
const EVERYTHING: &[&str] = &["/**"];

/// Who keeps a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `[[platform]]` of config.toml.
    Config,
    /// Commands and API.
    Registry,
}

impl Source {
    /// The word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Registry => "registry",
        }
    }
}

/// How a platform is reached and what it contributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// vCenter or ESXi.
    pub kind: PlatformKind,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Which certificate is trusted; never a file, which other collectors would not have.
    pub trust: Trust,
    /// Which of its objects count.
    pub filter: Filter,
}

impl Address {
    /// Of a platform in its configured form.
    #[must_use]
    pub fn of(platform: &Platform) -> Self {
        Self {
            user: platform.user.clone(),
            trust: platform.trust.clone(),
            filter: platform.filter.clone(),
            ..Self::new(platform.kind, &platform.host, platform.port)
        }
    }

    /// Without account and filters, trusting what the system trusts.
    #[must_use]
    pub fn new(kind: PlatformKind, host: &str, port: u16) -> Self {
        Self {
            kind,
            host: host.to_owned(),
            port,
            user: String::new(),
            trust: Trust::System,
            filter: Filter::default(),
        }
    }

    /// In the configured form.
    #[must_use]
    pub fn platform(&self, name: &str, password: Password) -> Platform {
        Platform {
            name: name.to_owned(),
            kind: self.kind,
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            password,
            trust: self.trust.clone(),
            filter: self.filter.clone(),
        }
    }

    /// Where the password of the platform with this key is sealed for, as the database knows the address. Whoever
    /// changes a word of it has no password that opens.
    #[must_use]
    pub fn place(&self, id: PlatformId) -> Place {
        let (verify, ca_pem, thumbprint) = trust_columns(&self.trust);
        Place::password_of(id.0).shown_to(&[
            &self.host,
            &self.port.to_string(),
            if verify { "verified" } else { "not verified" },
            ca_pem.unwrap_or_default(),
            thumbprint.as_deref().unwrap_or_default(),
        ])
    }

    /// The patterns of the filter as they were written.
    fn patterns(&self) -> [Vec<String>; 2] {
        [&self.filter.include, &self.filter.exclude]
            .map(|patterns| patterns.iter().map(ToString::to_string).collect())
    }
}

/// A platform as it stands in the database.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// Its key.
    pub id: PlatformId,
    /// Its name.
    pub name: String,
    /// Who keeps it.
    pub source: Source,
    /// How it is reached.
    pub address: Address,
    /// False: nobody connects.
    pub is_active: bool,
    /// True: a person paused it.
    pub in_maintenance: bool,
    /// Grows with each change.
    pub revision: i64,
    /// When a reading of the inventory was last asked for.
    pub sync_asked_at: Option<Stamp>,
    /// When one was last stored.
    pub synced_at: Option<Stamp>,
    /// How it fares.
    pub status: Status,
    /// The sealed password.
    pub sealed: Option<Vec<u8>>,
}

impl Registered {
    /// Its password, sealed with a key of this key ring.
    #[must_use]
    pub fn password(&self, keys: &Path) -> SealedPassword {
        SealedPassword::new(keys.to_owned(), self.address.place(self.id), self.sealed.clone())
    }
}

/// How a platform fares, as its collector last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `disconnected`, `connected`, `error` or `maintenance`.
    pub state: String,
    /// Of an error.
    pub class: Option<String>,
    /// What is wrong and what to do.
    pub reason: Option<String>,
    /// Since when state and class are what they are.
    pub since: Stamp,
    /// `about.version`.
    pub version: Option<String>,
    /// `about.build`.
    pub build: Option<String>,
    /// `about.apiType`.
    pub api_type: Option<String>,
    /// When it was last reported as connected.
    pub last_success_at: Option<Stamp>,
    /// Of first contact.
    pub identity: Option<String>,
    /// The machine of the collector that holds it.
    pub collector: Option<String>,
    /// Hosts that are there.
    pub n_hosts: i64,
    /// VMs that are there.
    pub n_vms: i64,
}

/// A platform that is being added; dropped without [`Adding::finish`], it never was.
#[derive(Debug)]
pub struct Adding {
    connection: Checkout,
    id: PlatformId,
}

impl Adding {
    /// Its key, which the seal of its password covers.
    #[must_use]
    pub const fn id(&self) -> PlatformId {
        self.id
    }

    /// Stores its sealed password, and with it the platform.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn finish(self, sealed: &Sealed) -> Result<(), Error> {
        credential::put(&self.connection, self.id, sealed).await?;
        self.connection.commit().await
    }
}

impl Database {
    /// Hears of changes of the registry from now on.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn listen_to_registry(&self) -> Result<Listener, Error> {
        self.settings().listen(CHANNEL).await
    }

    /// All platforms that are not removed, by name.
    ///
    /// # Errors
    /// When the database cannot be asked, or holds what this version does not know.
    pub async fn registered_platforms(&self) -> Result<Vec<Registered>, Error> {
        let connection = self.checkout("read the registry of platforms").await?;
        let rows = connection
            .query(&format!("{SELECT} ORDER BY platform.name"), &[])
            .await?;
        let platforms = rows.iter().map(|row| read(&connection, row)).collect();
        connection.done();
        platforms
    }

    /// One platform.
    ///
    /// # Errors
    /// When there is none of this name, or the database cannot be asked.
    pub async fn registered_platform(&self, name: &str) -> Result<Registered, Error> {
        let connection = self.checkout("read a platform").await?;
        let sql = format!("{SELECT} AND platform.name = $1");
        let row = connection.query_opt(&sql, &[(&name, Type::TEXT)]).await?;
        let platform = row.map_or_else(
            || Err(refused(name, Refusal::Absent)),
            |row| read(&connection, &row),
        );
        connection.done();
        platform
    }

    /// One platform by its key; `None` where there is none, or no longer.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn platform_by_key(&self, key: PlatformId) -> Result<Option<Registered>, Error> {
        let connection = self.checkout("read a platform").await?;
        let sql = format!("{SELECT} AND platform.platform_id = $1");
        let row = connection.query_opt(&sql, &[(&key.0, Type::INT4)]).await?;
        let platform = row.map(|row| read(&connection, &row)).transpose();
        connection.done();
        platform
    }

    /// Starts adding a platform: it is there once its password is, too.
    ///
    /// # Errors
    /// When the name is taken, or the database cannot be asked.
    pub async fn add_platform(
        &self,
        name: &str,
        address: &Address,
        is_active: bool,
    ) -> Result<Adding, Error> {
        let connection = self.checkout("add a platform").await?;
        connection.batch("BEGIN").await?;
        let (kind, port) = (address.kind.as_str(), i32::from(address.port));
        let (verify, ca_pem, thumbprint) = trust_columns(&address.trust);
        let [include, exclude] = address.patterns();
        let parameters: [Parameter<'_>; 12] = [
            (&name, Type::TEXT),
            (&kind, Type::TEXT),
            (&address.host, Type::TEXT),
            (&port, Type::INT4),
            (&address.user, Type::TEXT),
            (&verify, Type::BOOL),
            (&ca_pem, Type::TEXT),
            (&thumbprint, Type::TEXT),
            (&address.filter.datacenters, Type::TEXT_ARRAY),
            (&include, Type::TEXT_ARRAY),
            (&exclude, Type::TEXT_ARRAY),
            (&is_active, Type::BOOL),
        ];
        let row = connection.query_opt(ADD, &parameters).await?;
        let row = row.ok_or_else(|| refused(name, Refusal::Exists))?;
        let id = PlatformId(connection.read(&row, 0)?);
        Ok(Adding { connection, id })
    }

    /// Changes how a platform is reached, and its password where one is given.
    ///
    /// # Errors
    /// When it is not the registry's, was changed since `platform` was read, or the database cannot be asked.
    pub async fn edit_platform(
        &self,
        platform: &Registered,
        address: &Address,
        sealed: Option<&Sealed>,
    ) -> Result<(), Error> {
        own(platform)?;
        let connection = self.checkout("change a platform").await?;
        connection.batch("BEGIN").await?;
        let (kind, port) = (address.kind.as_str(), i32::from(address.port));
        let (verify, ca_pem, thumbprint) = trust_columns(&address.trust);
        let [include, exclude] = address.patterns();
        let parameters: [Parameter<'_>; 12] = [
            (&platform.id.0, Type::INT4),
            (&platform.revision, Type::INT8),
            (&kind, Type::TEXT),
            (&address.host, Type::TEXT),
            (&port, Type::INT4),
            (&address.user, Type::TEXT),
            (&verify, Type::BOOL),
            (&ca_pem, Type::TEXT),
            (&thumbprint, Type::TEXT),
            (&address.filter.datacenters, Type::TEXT_ARRAY),
            (&include, Type::TEXT_ARRAY),
            (&exclude, Type::TEXT_ARRAY),
        ];
        if connection.query_opt(EDIT, &parameters).await?.is_none() {
            return Err(refused(&platform.name, Refusal::ChangedMeanwhile));
        }
        if let Some(sealed) = sealed {
            credential::put(&connection, platform.id, sealed).await?;
        }
        connection.commit().await
    }

    /// Has a platform collected, or not any more; its objects and samples stay. Repeating it changes nothing.
    ///
    /// # Errors
    /// When it is not the registry's, or the database cannot be asked.
    pub async fn set_platform_active(&self, platform: &Registered, is_active: bool) -> Result<(), Error> {
        own(platform)?;
        if platform.is_active == is_active {
            return Ok(());
        }
        self.change(platform, SET_ACTIVE, &[(&is_active, Type::BOOL)])
            .await
    }

    /// Pauses a platform, or ends the pause: no polling and no session meanwhile. Repeating it changes nothing.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn set_platform_maintenance(
        &self,
        platform: &Registered,
        in_maintenance: bool,
    ) -> Result<(), Error> {
        if platform.in_maintenance == in_maintenance {
            return Ok(());
        }
        self.change(platform, SET_MAINTENANCE, &[(&in_maintenance, Type::BOOL)])
            .await
    }

    /// Removes a platform and its password; its objects and samples stay.
    ///
    /// # Errors
    /// When a running collector has it in its configuration, or the database cannot be asked.
    pub async fn remove_platform(&self, platform: &Registered) -> Result<(), Error> {
        match self.change(platform, REMOVE, &[]).await {
            Err(Error::Registry { name, .. }) if platform.source == Source::Config => Err(Error::Registry {
                name,
                refusal: Refusal::Provisioned,
            }),
            result => result,
        }
    }

    /// Asks whoever collects the platform for a reading of its inventory now. Returns when that was, in the clock of
    /// the database: a `synced_at` after it is the answer.
    ///
    /// # Errors
    /// When the platform is gone, or the database cannot be asked.
    pub async fn ask_for_sync(&self, platform: &Registered) -> Result<Stamp, Error> {
        let connection = self.checkout("ask for a reading of the inventory").await?;
        let row = connection
            .query_opt(ASK_SYNC, &[(&platform.id.0, Type::INT4)])
            .await?
            .ok_or_else(|| refused(&platform.name, Refusal::Absent))?;
        let asked = connection.read(&row, 0);
        connection.done();
        asked
    }

    /// Other platforms that collect the server of this identity, too, or as one of their hosts.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn twins(&self, platform: PlatformId, identity: &str) -> Result<Vec<String>, Error> {
        let connection = self.checkout("look for a platform twice").await?;
        let parameters: [Parameter<'_>; 2] = [(&platform.0, Type::INT4), (&identity, Type::TEXT)];
        let rows = connection.query(TWINS, &parameters).await?;
        let names = rows.iter().map(|row| connection.read(row, 0)).collect();
        connection.done();
        names
    }

    /// Takes whatever server answers next for a platform that is in error because another one does. Objects of the old
    /// one keep their rows and samples under references that no server uses, unless `keep_objects` says that it is the
    /// same inventory with another identity.
    ///
    /// # Errors
    /// When the server is the one that it was, somebody changed the platform meanwhile, or the database cannot be asked.
    pub async fn accept_identity(&self, platform: &Registered, keep_objects: bool) -> Result<(), Error> {
        if platform.status.class.as_deref() != Some(ErrorClass::Identity.as_str()) {
            return Err(refused(&platform.name, Refusal::SameServer));
        }
        let connection = self.checkout("accept a new identity").await?;
        connection.batch("BEGIN").await?;
        let parameters: [Parameter<'_>; 2] = [(&platform.id.0, Type::INT4), (&platform.revision, Type::INT8)];
        if connection
            .query_opt(FORGET_IDENTITY, &parameters)
            .await?
            .is_none()
        {
            return Err(refused(&platform.name, Refusal::ChangedMeanwhile));
        }
        if !keep_objects {
            // Unique also where the old server comes back and goes again.
            let old = platform.status.identity.as_deref().unwrap_or("unknown");
            let suffix = format!("@{old}#{}", platform.revision);
            let parameters: [Parameter<'_>; 2] = [(&platform.id.0, Type::INT4), (&suffix, Type::TEXT)];
            for table in OBJECTS {
                let sql = format!(
                    "UPDATE {table} SET moref = moref || $2, removed_at = coalesce(removed_at, now()) \
                     WHERE platform_id = $1 AND moref NOT LIKE '%@%'"
                );
                connection.execute(&sql, &parameters).await?;
            }
            for table in PARTS {
                let sql = format!(
                    "UPDATE {table} AS part SET removed_at = now() FROM virt_vm AS vm \
                     WHERE vm.platform_id = $1 AND vm.removed_at = now() AND part.vm_id = vm.vm_id \
                       AND part.removed_at IS NULL"
                );
                connection.execute(&sql, &[(&platform.id.0, Type::INT4)]).await?;
            }
        }
        connection.commit().await
    }

    /// The key of a platform of config.toml, which is made known under its name where it is not; `None` while a person
    /// has it paused.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn provision_platform(
        &self,
        name: &str,
        address: &Address,
    ) -> Result<Option<PlatformId>, Error> {
        let connection = self.checkout("register a platform").await?;
        let (kind, port) = (address.kind.as_str(), i32::from(address.port));
        let parameters: [Parameter<'_>; 4] = [
            (&name, Type::TEXT),
            (&kind, Type::TEXT),
            (&address.host, Type::TEXT),
            (&port, Type::INT4),
        ];
        let row = connection.query_opt(PROVISION, &parameters).await?;
        // Somebody else may have made it known in the same moment: the next attempt finds it.
        let row = row.ok_or_else(|| refused(name, Refusal::ChangedMeanwhile))?;
        let (id, paused): (i32, bool) = (connection.read(&row, 0)?, connection.read(&row, 1)?);
        connection.done();
        Ok((!paused).then_some(PlatformId(id)))
    }

    /// Makes the row of a platform say what config.toml does. True where the registry had the platform until now: its
    /// sealed password is forgotten.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn describe_platform(&self, lease: &Lease, address: &Address) -> Result<bool, Error> {
        let connection = self.checkout("describe a platform").await?;
        connection.begin_fenced(lease).await?;
        let (kind, port) = (address.kind.as_str(), i32::from(address.port));
        let (verify, _, thumbprint) = trust_columns(&address.trust);
        let [include, exclude] = address.patterns();
        let parameters: [Parameter<'_>; 10] = [
            (&lease.platform.0, Type::INT4),
            (&kind, Type::TEXT),
            (&address.host, Type::TEXT),
            (&port, Type::INT4),
            (&address.user, Type::TEXT),
            (&verify, Type::BOOL),
            (&thumbprint, Type::TEXT),
            (&address.filter.datacenters, Type::TEXT_ARRAY),
            (&include, Type::TEXT_ARRAY),
            (&exclude, Type::TEXT_ARRAY),
        ];
        let row = connection.query_opt(DESCRIBE, &parameters).await?;
        let was_registered = row.map_or(Ok(false), |row| connection.read(&row, 0))?;
        connection.commit().await?;
        Ok(was_registered)
    }

    /// Whether a platform of the registry is to be collected still, and in the form of this revision.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn is_current(&self, platform: PlatformId, revision: i64) -> Result<bool, Error> {
        let connection = self.checkout("look at a platform").await?;
        let parameters: [Parameter<'_>; 2] = [(&platform.0, Type::INT4), (&revision, Type::INT8)];
        let row = connection.query_opt(IS_CURRENT, &parameters).await?;
        connection.done();
        Ok(row.is_some())
    }

    async fn change(&self, platform: &Registered, sql: &str, more: &[Parameter<'_>]) -> Result<(), Error> {
        let connection = self.checkout("change a platform").await?;
        let mut parameters: Vec<Parameter<'_>> = vec![(&platform.id.0, Type::INT4)];
        parameters.extend(more.iter().cloned());
        let changed = connection.query_opt(sql, &parameters).await?;
        connection.done();
        match changed {
            Some(_) => Ok(()),
            None => Err(refused(&platform.name, Refusal::ChangedMeanwhile)),
        }
    }
}

fn own(platform: &Registered) -> Result<(), Error> {
    match platform.source {
        Source::Registry => Ok(()),
        Source::Config => Err(refused(&platform.name, Refusal::Provisioned)),
    }
}

fn refused(name: &str, refusal: Refusal) -> Error {
    Error::Registry {
        name: name.to_owned(),
        refusal,
    }
}

/// Whether certificates are verified, by which authorities, or against which thumbprint.
fn trust_columns(trust: &Trust) -> (bool, Option<&str>, Option<String>) {
    match trust {
        // A file is known where it is read; what it says is not the database's.
        Trust::System | Trust::CaFile(_) => (true, None, None),
        Trust::CaPem(pem) => (true, Some(pem), None),
        Trust::Thumbprint(thumbprint) => {
            let digits = thumbprint.iter().map(|byte| format!("{byte:02x}")).collect();
            (true, None, Some(digits))
        }
        Trust::Off => (false, None, None),
    }
}

/// From three columns: whether certificates are verified, the authorities, the thumbprint.
pub(super) fn read_trust(connection: &Checkout, row: &Row, first: usize) -> Result<Trust, Error> {
    let ca_pem: Option<String> = connection.read(row, first + 1)?;
    let thumbprint: Option<&str> = connection.read(row, first + 2)?;
    Ok(match (connection.read(row, first)?, thumbprint, ca_pem) {
        (false, _, _) => Trust::Off,
        // Digits that are none trust nobody.
        (true, Some(digits), _) => Trust::Thumbprint(crate::config::thumbprint(digits).unwrap_or_default()),
        (true, None, Some(pem)) => Trust::CaPem(pem),
        (true, None, None) => Trust::System,
    })
}

pub(super) fn read_port(connection: &Checkout, row: &Row, column: usize) -> Result<u16, Error> {
    Ok(u16::try_from(connection.read::<i32>(row, column)?).unwrap_or(0))
}

fn read(connection: &Checkout, row: &Row) -> Result<Registered, Error> {
    let name: String = connection.read(row, 1)?;
    // CHECK constraints hold both words.
    let source = match connection.read(row, 2)? {
        "config" => Source::Config,
        _ => Source::Registry,
    };
    let kind = match connection.read(row, 3)? {
        "esxi" => PlatformKind::Esxi,
        _ => PlatformKind::VCenter,
    };
    let trust = read_trust(connection, row, 7)?;
    let (include, exclude): (Vec<&str>, Vec<&str>) = (connection.read(row, 11)?, connection.read(row, 12)?);
    // One that nobody can read, written by hand, takes nothing rather than everything.
    let filter = Filter::parse(connection.read(row, 10)?, &include, &exclude)
        .or_else(|_| Filter::parse(Vec::new(), NONE, EVERYTHING))
        .unwrap_or_default();
    Ok(Registered {
        id: PlatformId(connection.read(row, 0)?),
        name,
        source,
        address: Address {
            kind,
            host: connection.read(row, 4)?,
            port: read_port(connection, row, 5)?,
            user: connection.read::<Option<String>>(row, 6)?.unwrap_or_default(),
            trust,
            filter,
        },
        is_active: connection.read(row, 13)?,
        in_maintenance: connection.read(row, 14)?,
        revision: connection.read(row, 15)?,
        sync_asked_at: connection.read(row, 16)?,
        synced_at: connection.read(row, 17)?,
        status: Status {
            state: connection.read(row, 18)?,
            class: connection.read(row, 19)?,
            reason: connection.read(row, 20)?,
            since: connection.read(row, 21)?,
            version: connection.read(row, 22)?,
            build: connection.read(row, 23)?,
            api_type: connection.read(row, 24)?,
            last_success_at: connection.read(row, 25)?,
            identity: connection.read(row, 26)?,
            collector: connection.read(row, 28)?,
            n_hosts: connection.read(row, 29)?,
            n_vms: connection.read(row, 30)?,
        },
        sealed: connection.read(row, 27)?,
    })
}
