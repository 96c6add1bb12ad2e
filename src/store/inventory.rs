//! Platforms and their objects as rows.
//!
//! Owns: `virt_platform` and the tables of the inventory; `rows` makes the statements, `tables` knows the columns.
//! Never does: deciding who is polled, or when an object counts as gone.
//!
//! Invariants:
//! - Only changed rows are written: a sync of 10,000 unchanged VMs writes nothing.
//! - Objects that vanish get `removed_at`, never a DELETE; an empty answer removes nothing.
//! - A property that an answer leaves out keeps its stored value. States and placement do not: of those, no answer
//!   means not known.
//! - A VM's row and the history of its placements change in one transaction.

mod rows;
mod tables;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use tokio_postgres::types::Type;

use crate::model::ids::{HostId, MoRef, PlatformId, VmId};
use crate::model::inventory::{Host, Inventory, KnownHost, KnownInventory, KnownVm, Vm};
use crate::model::status::PlatformStatus;
use crate::plain;
use crate::store::connect::{Checkout, Database, Parameter};
use crate::store::error::Error;
use crate::store::lease::Lease;
use crate::store::rollup::Touched;
use crate::units::Stamp;

pub(in crate::store) use tables::{OBJECTS, PARTS};

const PIN: &str = "UPDATE virt_platform SET identity = $2 WHERE platform_id = $1 AND identity IS NULL";

const IDENTITY: &str = "SELECT identity FROM virt_platform WHERE platform_id = $1";

/// `status_since` tells since when state and class are what they are, not when they were last reported. What a person
/// paused stays `maintenance` until a person ends it.
const STATUS: &str = "\
UPDATE virt_platform
SET status_since = CASE
        WHEN status = $2 AND status_class IS NOT DISTINCT FROM $3 THEN status_since ELSE clock_timestamp()
    END,
    status = $2,
    status_class = $3,
    status_reason = $4,
    version = coalesce($5, version),
    build = coalesce($6, build),
    api_type = coalesce($7, api_type),
    last_success_at = CASE WHEN $2 = 'connected' THEN clock_timestamp() ELSE last_success_at END
WHERE platform_id = $1 AND NOT in_maintenance";

const SYNCED: &str = "UPDATE virt_platform SET synced_at = $2 WHERE platform_id = $1";

const VMS: &str = "\
SELECT vm_id, moref, host_id, host_since, vcpu_count FROM virt_vm
WHERE platform_id = $1 AND removed_at IS NULL AND moref = ANY($2)";

const THREADS: &str = "\
SELECT moref, thread_count FROM virt_host
WHERE platform_id = $1 AND removed_at IS NULL AND thread_count IS NOT NULL";

const CLOSE_PLACEMENTS: &str = "\
UPDATE virt_vm_placement AS placement SET to_time = greatest($2, placement.from_time)
FROM virt_vm AS vm
WHERE vm.platform_id = $1 AND placement.vm_id = vm.vm_id AND placement.to_time IS NULL
  AND (vm.removed_at IS NOT NULL
       OR (placement.host_id, placement.from_time) IS DISTINCT FROM (vm.host_id, vm.host_since))";

/// A second placement from the same instant would be no placement.
const OPEN_PLACEMENTS: &str = "\
INSERT INTO virt_vm_placement (vm_id, host_id, from_time)
SELECT vm_id, host_id, host_since FROM virt_vm AS vm
WHERE platform_id = $1 AND removed_at IS NULL AND host_id IS NOT NULL AND host_since IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM virt_vm_placement AS placement
      WHERE placement.vm_id = vm.vm_id AND (placement.to_time IS NULL OR placement.from_time = vm.host_since))";

/// A second reading within one instant of the platform's clock is the same one.
const CAPACITY: &str = "\
INSERT INTO virt_datastore_metrics (collected_at, datastore_id, capacity_bytes, free_bytes, uncommitted_bytes)
SELECT $2, datastore_id, capacity_bytes, free_bytes, uncommitted_bytes FROM virt_datastore AS datastore
WHERE platform_id = $1 AND removed_at IS NULL AND is_accessible
  AND NOT EXISTS (
      SELECT FROM virt_datastore_metrics AS metrics
      WHERE metrics.datastore_id = datastore.datastore_id AND metrics.collected_at = $2)";

/// Until their first ANALYZE the planner takes the tables for small, and would compare every object of the reading
/// with every stored one: six seconds for 10,000 VMs instead of a fraction of one.
const HASH_JOINS: &str = "SET LOCAL enable_nestloop = off";

/// What the stored identity of a platform says about the server that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinned {
    /// First contact: it is stored now.
    First,
    /// The same server as ever.
    Same,
    /// Another server, whose references may be reused for other objects: nothing may be written. Holds the stored
    /// identity.
    Other(String),
}

impl Database {
    /// Stores the server's identity at first contact, and compares it with the stored one later.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn pin_identity(&self, lease: &Lease, identity: &str) -> Result<Pinned, Error> {
        let connection = self.checkout("compare a platform's identity").await?;
        connection.begin_fenced(lease).await?;
        let platform = (&lease.platform.0 as _, Type::INT4);
        let pinned = connection
            .execute(PIN, &[platform.clone(), (&identity, Type::TEXT)])
            .await?;
        let stored = match connection.query_opt(IDENTITY, &[platform]).await? {
            Some(row) => connection.read::<Option<String>>(&row, 0)?.unwrap_or_default(),
            None => {
                return Err(Error::UnknownPlatform {
                    platform: lease.platform,
                });
            }
        };
        connection.commit().await?;
        Ok(match (pinned, stored) {
            (1, _) => Pinned::First,
            (_, stored) if stored == identity => Pinned::Same,
            (_, stored) => Pinned::Other(stored),
        })
    }

    /// Stores how a platform fares. `connected` also moves `last_success_at`, so it is worth repeating.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn set_status(&self, lease: &Lease, status: &PlatformStatus) -> Result<(), Error> {
        let connection = self.checkout("store a platform's status").await?;
        connection.begin_fenced(lease).await?;
        let class = status
            .state
            .error_class()
            .map(crate::model::status::ErrorClass::as_str);
        // What a server says of itself is in it.
        let reason = status.reason.as_deref().map(plain::line);
        let [version, build, api_type] =
            [&status.version, &status.build, &status.api_type].map(|t| clean(t.as_deref()));
        connection
            .execute(
                STATUS,
                &[
                    (&lease.platform.0, Type::INT4),
                    (&status.state.as_str(), Type::TEXT),
                    (&class, Type::TEXT),
                    (&reason, Type::TEXT),
                    (&version, Type::TEXT),
                    (&build, Type::TEXT),
                    (&api_type, Type::TEXT),
                ],
            )
            .await?;
        connection.commit().await
    }

    /// Brings the stored objects of a platform in line with a complete reading, and returns hosts and VMs with their
    /// keys and placements. `server_now` is the source's clock at the time of the reading: a placement that is new
    /// counts from then.
    ///
    /// An empty reading changes nothing and returns nothing: the caller keeps what it had. A reading without any
    /// host removes nothing.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked; then nothing is changed.
    pub async fn sync_inventory(
        &self,
        lease: &Lease,
        inventory: &Inventory,
        server_now: Stamp,
    ) -> Result<KnownInventory, Error> {
        if inventory.is_empty() {
            return Ok(KnownInventory::default());
        }
        let connection = self.checkout("store an inventory").await?;
        connection.begin_fenced(lease).await?;
        let known = write(&connection, lease.platform, inventory, server_now).await?;
        let platform = (&lease.platform.0 as _, Type::INT4);
        let now = (&server_now as _, Type::TIMESTAMPTZ);
        for (table, present) in tables::present(inventory) {
            if !inventory.shows_hosts() {
                break;
            }
            let sql = format!(
                "UPDATE {table} AS stored SET removed_at = $2 WHERE platform_id = $1 AND removed_at IS NULL \
                 AND NOT EXISTS (SELECT FROM unnest($3) AS seen (moref) WHERE seen.moref = stored.moref)"
            );
            let present = (&present as _, Type::TEXT_ARRAY);
            connection
                .execute(&sql, &[platform.clone(), now.clone(), present])
                .await?;
        }
        settle(&connection, &platform, &now).await?;
        connection.commit().await?;
        Ok(known)
    }

    /// Stores objects that changed and notes others as gone, and returns the hosts and VMs among those that changed
    /// with their keys and placements. Objects that are neither are left as they are.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked; then nothing is changed.
    pub async fn store_changes(
        &self,
        lease: &Lease,
        changed: &Inventory,
        gone: &[MoRef],
        server_now: Stamp,
    ) -> Result<KnownInventory, Error> {
        let connection = self.checkout("store changes of an inventory").await?;
        connection.begin_fenced(lease).await?;
        let known = write(&connection, lease.platform, changed, server_now).await?;
        let platform = (&lease.platform.0 as _, Type::INT4);
        let now = (&server_now as _, Type::TIMESTAMPTZ);
        if !gone.is_empty() {
            let gone: Vec<&str> = gone.iter().map(MoRef::as_str).collect();
            for table in tables::OBJECTS {
                let sql = format!(
                    "UPDATE {table} SET removed_at = $2 \
                     WHERE platform_id = $1 AND removed_at IS NULL AND moref = ANY($3)"
                );
                let gone = (&gone as _, Type::TEXT_ARRAY);
                connection
                    .execute(&sql, &[platform.clone(), now.clone(), gone])
                    .await?;
            }
        }
        settle(&connection, &platform, &now).await?;
        connection.commit().await?;
        Ok(known)
    }

    /// The references of a platform's objects that are stored as present.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn stored_objects(&self, platform: PlatformId) -> Result<HashSet<MoRef>, Error> {
        let connection = self.checkout("read an inventory").await?;
        let all: Vec<String> = tables::OBJECTS
            .iter()
            .map(|table| format!("SELECT moref FROM {table} WHERE platform_id = $1 AND removed_at IS NULL"))
            .collect();
        let rows = connection
            .query(&all.join(" UNION ALL "), &[(&platform.0, Type::INT4)])
            .await?;
        let found = rows
            .iter()
            .map(|row| Ok(MoRef::new(connection.read::<&str>(row, 0)?)))
            .collect();
        connection.done();
        found
    }

    /// The database's clock.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn clock(&self) -> Result<Stamp, Error> {
        let connection = self.checkout("ask the database for the time").await?;
        let row = connection.query_opt("SELECT clock_timestamp()", &[]).await?;
        let now = row.map_or(Ok(Stamp::from_micros(0)), |row| connection.read(&row, 0))?;
        connection.done();
        Ok(now)
    }

    /// Stores the capacity of all datastores that can be reached, as of `server_now`, and that a reading of the
    /// inventory that began at `begun` of the database's clock is stored.
    ///
    /// # Errors
    /// When this collector does not own the platform, or the database cannot be asked.
    pub async fn store_capacity(&self, lease: &Lease, server_now: Stamp, begun: Stamp) -> Result<(), Error> {
        let connection = self.checkout("store the capacity of datastores").await?;
        connection.begin_fenced(lease).await?;
        let parameters = [
            (&lease.platform.0 as _, Type::INT4),
            (&server_now as _, Type::TIMESTAMPTZ),
        ];
        if connection.execute(CAPACITY, &parameters).await? > 0 {
            let touched = Touched::by_datastores(server_now);
            touched.note(&connection, lease.platform.0).await?;
        }
        connection
            .execute(
                SYNCED,
                &[(&lease.platform.0, Type::INT4), (&begun, Type::TIMESTAMPTZ)],
            )
            .await?;
        connection.commit().await
    }
}

/// Writes what a reading holds, table by table: what others refer to comes first.
async fn write(
    connection: &Checkout,
    platform: PlatformId,
    inventory: &Inventory,
    server_now: Stamp,
) -> Result<KnownInventory, Error> {
    // A page boundary that moved during a reading can show an object twice; the later one counts.
    let hosts = last_of_each(&inventory.hosts, |host| &host.moref);
    let vms = last_of_each(&inventory.vms, |vm| &vm.moref);
    let platform = (&platform.0 as _, Type::INT4);
    let now = (&server_now as _, Type::TIMESTAMPTZ);
    connection.batch(HASH_JOINS).await?;
    let store = async |reading: rows::Reading<'_>| reading.write(connection, &platform, &now).await;

    if !inventory.datacenters.is_empty() {
        store(tables::datacenters(&inventory.datacenters)).await?;
    }
    let datacenters = keys(connection, &platform, "virt_datacenter", "datacenter_id").await?;
    if !inventory.clusters.is_empty() {
        store(tables::clusters(&inventory.clusters, &datacenters)).await?;
    }
    let clusters = keys(connection, &platform, "virt_cluster", "cluster_id").await?;
    if !inventory.pools.is_empty() {
        // Twice, where there are new ones: a pool may be below one that has no key yet.
        for _ in 0..2 {
            let pools = keys(connection, &platform, "virt_resource_pool", "resource_pool_id").await?;
            store(tables::pools(&inventory.pools, &clusters, &pools)).await?;
        }
    }
    if !hosts.is_empty() {
        store(tables::hosts(&hosts, &clusters, &datacenters)).await?;
    }
    let host_keys = keys(connection, &platform, "virt_host", "host_id").await?;
    if !inventory.datastores.is_empty() {
        store(tables::datastores(
            &inventory.datastores,
            &datacenters,
            &host_keys,
        ))
        .await?;
    }
    let threads = if hosts.iter().all(|host| host.threads.is_some()) {
        HashMap::new()
    } else {
        threads(connection, &platform).await?
    };
    let mut known = KnownInventory {
        hosts: hosts
            .into_iter()
            .filter_map(|host| {
                Some(KnownHost {
                    id: HostId(*host_keys.get(&host.moref)?),
                    host: Host {
                        threads: host.threads.or_else(|| threads.get(&host.moref).copied()),
                        ..host.clone()
                    },
                })
            })
            .collect(),
        vms: Vec::new(),
    };
    if vms.is_empty() {
        return Ok(known);
    }
    let pools = keys(connection, &platform, "virt_resource_pool", "resource_pool_id").await?;
    store(tables::vms(&vms, &host_keys, &datacenters, &pools)).await?;
    let placed = placed(connection, &platform, &vms).await?;
    for part in tables::parts(&vms, &placed) {
        if part.owners.is_empty() {
            continue;
        }
        store(part.reading).await?;
        let owners = (&part.owners as _, Type::INT4_ARRAY);
        let (of, keys) = (&part.present.0 as _, part.present.1.parameter());
        let gone = [
            platform.clone(),
            now.clone(),
            owners,
            (of, Type::INT4_ARRAY),
            keys,
        ];
        connection.execute(part.remove, &gone).await?;
    }
    known.vms = vms
        .into_iter()
        .filter_map(|vm| {
            let (id, placement, vcpus) = *placed.get(&vm.moref)?;
            Some(KnownVm {
                id,
                vm: Vm {
                    vcpus: vm.vcpus.or(vcpus),
                    ..vm.clone()
                },
                placement,
            })
        })
        .collect();
    Ok(known)
}

/// After rows of VMs have changed: their placements follow, and with a VM its parts are gone.
async fn settle(connection: &Checkout, platform: &Parameter<'_>, now: &Parameter<'_>) -> Result<(), Error> {
    let parameters = [platform.clone(), now.clone()];
    for sql in [CLOSE_PLACEMENTS, OPEN_PLACEMENTS] {
        connection.execute(sql, &parameters).await?;
    }
    for table in tables::PARTS {
        let sql = format!(
            "UPDATE {table} AS part SET removed_at = $2 FROM virt_vm AS vm \
             WHERE vm.platform_id = $1 AND vm.removed_at = $2 AND part.vm_id = vm.vm_id AND part.removed_at IS NULL"
        );
        connection.execute(&sql, &parameters).await?;
    }
    Ok(())
}

async fn keys(
    connection: &Checkout,
    platform: &Parameter<'_>,
    table: &str,
    key: &str,
) -> Result<HashMap<MoRef, i32>, Error> {
    let sql = format!("SELECT moref, {key} FROM {table} WHERE platform_id = $1 AND removed_at IS NULL");
    let rows = connection.query(&sql, std::slice::from_ref(platform)).await?;
    rows.iter()
        .map(|row| {
            Ok((
                MoRef::new(connection.read::<&str>(row, 0)?),
                connection.read(row, 1)?,
            ))
        })
        .collect()
}

/// The threads of the hosts whose number was ever told.
async fn threads(connection: &Checkout, platform: &Parameter<'_>) -> Result<HashMap<MoRef, u16>, Error> {
    let rows = connection.query(THREADS, std::slice::from_ref(platform)).await?;
    let mut threads = HashMap::with_capacity(rows.len());
    for row in &rows {
        if let Ok(n) = u16::try_from(connection.read::<i32>(row, 1)?) {
            threads.insert(MoRef::new(connection.read::<&str>(row, 0)?), n);
        }
    }
    Ok(threads)
}

/// Key, placement and vCPUs of a VM as they are stored.
type Placed = (VmId, Option<(HostId, Stamp)>, Option<u16>);

async fn placed(
    connection: &Checkout,
    platform: &Parameter<'_>,
    vms: &[&Vm],
) -> Result<HashMap<MoRef, Placed>, Error> {
    let morefs: Vec<&str> = vms.iter().map(|vm| vm.moref.as_str()).collect();
    let parameters = [platform.clone(), (&morefs as _, Type::TEXT_ARRAY)];
    let rows = connection.query(VMS, &parameters).await?;
    rows.iter()
        .map(|row| {
            let host = connection.read::<Option<i32>>(row, 2)?.map(HostId);
            let since = connection.read::<Option<Stamp>>(row, 3)?;
            let vcpus = connection.read::<Option<i32>>(row, 4)?;
            let vcpus = vcpus.and_then(|vcpus| u16::try_from(vcpus).ok());
            Ok((
                MoRef::new(connection.read::<&str>(row, 1)?),
                (VmId(connection.read(row, 0)?), host.zip(since), vcpus),
            ))
        })
        .collect()
}

fn last_of_each<T>(objects: &[T], moref: impl Fn(&T) -> &MoRef) -> Vec<&T> {
    let mut seen = HashSet::new();
    let mut kept: Vec<&T> = objects
        .iter()
        .rev()
        .filter(|object| seen.insert(moref(object).as_str()))
        .collect();
    kept.reverse();
    kept
}

/// The one character that XML readers may pass on and PostgreSQL refuses in a text.
fn clean(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(|text| {
        if text.contains('\0') {
            Cow::Owned(text.replace('\0', ""))
        } else {
            Cow::Borrowed(text)
        }
    })
}
