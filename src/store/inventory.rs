//! Platforms, hosts and VMs as rows.
//!
//! Owns: `virt_platform`, `virt_host`, `virt_vm`. Never does: deciding who is polled.
//!
//! Invariants:
//! - Only changed rows are written: a sync of 10,000 unchanged VMs writes nothing. For the same reason there is no
//!   `ON CONFLICT` here: it would lock every row and use up an identity value per row and sync.
//! - Objects that vanish get `removed_at`, never a DELETE; an empty answer removes nothing.
//! - A property that an answer leaves out keeps its stored value. States and placement do not: of those, no answer
//!   means not known.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use tokio_postgres::types::Type;

use crate::config::PlatformKind;
use crate::model::ids::{HostId, MoRef, PlatformId, VmId};
use crate::model::inventory::{Host, Inventory, KnownHost, KnownInventory, KnownVm, Vm};
use crate::model::status::PlatformStatus;
use crate::store::connect::{Checkout, Database};
use crate::store::error::Error;
use crate::store::lease::Lease;
use crate::units::Stamp;

const REGISTER: &str = "\
INSERT INTO virt_platform AS stored (name, type, host, port) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET type = excluded.type, host = excluded.host, port = excluded.port
RETURNING platform_id";

const PIN: &str = "UPDATE virt_platform SET identity = $2 WHERE platform_id = $1 AND identity IS NULL";

const IDENTITY: &str = "SELECT identity FROM virt_platform WHERE platform_id = $1";

/// `status_since` tells since when state and class are what they are, not when they were last reported.
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
WHERE platform_id = $1";

const UPDATE_HOSTS: &str = "\
UPDATE virt_host AS stored
SET name = coalesce(seen.name, stored.name),
    hardware_uuid = coalesce(seen.hardware_uuid, stored.hardware_uuid),
    power_state = seen.power_state,
    is_connected = seen.is_connected,
    in_maintenance = seen.in_maintenance,
    thread_count = coalesce(seen.thread_count, stored.thread_count),
    removed_at = NULL
FROM unnest($2, $3, $4, $5, $6, $7, $8)
    AS seen (moref, name, hardware_uuid, power_state, is_connected, in_maintenance, thread_count)
WHERE stored.platform_id = $1 AND stored.moref = seen.moref
  AND (stored.name, stored.hardware_uuid, stored.power_state, stored.is_connected, stored.in_maintenance,
       stored.thread_count, stored.removed_at)
      IS DISTINCT FROM
      (coalesce(seen.name, stored.name), coalesce(seen.hardware_uuid, stored.hardware_uuid), seen.power_state,
       seen.is_connected, seen.in_maintenance, coalesce(seen.thread_count, stored.thread_count), NULL::timestamptz)";

const INSERT_HOSTS: &str = "\
INSERT INTO virt_host (platform_id, moref, name, hardware_uuid, power_state, is_connected, in_maintenance,
                       thread_count, first_seen_at)
SELECT $1, seen.*, $9
FROM unnest($2, $3, $4, $5, $6, $7, $8)
    AS seen (moref, name, hardware_uuid, power_state, is_connected, in_maintenance, thread_count)
WHERE NOT EXISTS (SELECT FROM virt_host AS stored WHERE stored.platform_id = $1 AND stored.moref = seen.moref)";

const REMOVE_HOSTS: &str = "\
UPDATE virt_host AS stored SET removed_at = $3
WHERE platform_id = $1 AND removed_at IS NULL
  AND NOT EXISTS (SELECT FROM unnest($2) AS seen (moref) WHERE seen.moref = stored.moref)";

const HOSTS: &str = "SELECT host_id, moref FROM virt_host WHERE platform_id = $1 AND removed_at IS NULL";

/// A VM that was gone may have run elsewhere meanwhile, so its placement starts anew.
const UPDATE_VMS: &str = "\
UPDATE virt_vm AS stored
SET name = coalesce(seen.name, stored.name),
    instance_uuid = coalesce(seen.instance_uuid, stored.instance_uuid),
    bios_uuid = coalesce(seen.bios_uuid, stored.bios_uuid),
    power_state = seen.power_state,
    is_connected = seen.is_connected,
    host_since = CASE
        WHEN seen.host_id IS NULL THEN NULL
        WHEN seen.host_id = stored.host_id AND stored.removed_at IS NULL THEN stored.host_since
        ELSE $12
    END,
    host_id = seen.host_id,
    vcpu_count = coalesce(seen.vcpu_count, stored.vcpu_count),
    memory_mib = coalesce(seen.memory_mib, stored.memory_mib),
    is_template = seen.is_template,
    removed_at = NULL
FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    AS seen (moref, name, instance_uuid, bios_uuid, power_state, is_connected, host_id, vcpu_count, memory_mib,
             is_template)
WHERE stored.platform_id = $1 AND stored.moref = seen.moref
  AND (stored.name, stored.instance_uuid, stored.bios_uuid, stored.power_state, stored.is_connected,
       stored.host_id, stored.vcpu_count, stored.memory_mib, stored.is_template, stored.removed_at)
      IS DISTINCT FROM
      (coalesce(seen.name, stored.name), coalesce(seen.instance_uuid, stored.instance_uuid),
       coalesce(seen.bios_uuid, stored.bios_uuid), seen.power_state, seen.is_connected, seen.host_id,
       coalesce(seen.vcpu_count, stored.vcpu_count), coalesce(seen.memory_mib, stored.memory_mib),
       seen.is_template, NULL::timestamptz)";

const INSERT_VMS: &str = "\
INSERT INTO virt_vm (platform_id, moref, name, instance_uuid, bios_uuid, power_state, is_connected, host_id,
                     vcpu_count, memory_mib, is_template, host_since, first_seen_at)
SELECT $1, seen.*, CASE WHEN seen.host_id IS NOT NULL THEN $12 END, $12
FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    AS seen (moref, name, instance_uuid, bios_uuid, power_state, is_connected, host_id, vcpu_count, memory_mib,
             is_template)
WHERE NOT EXISTS (SELECT FROM virt_vm AS stored WHERE stored.platform_id = $1 AND stored.moref = seen.moref)";

const REMOVE_VMS: &str = "\
UPDATE virt_vm AS stored SET removed_at = $3
WHERE platform_id = $1 AND removed_at IS NULL
  AND NOT EXISTS (SELECT FROM unnest($2) AS seen (moref) WHERE seen.moref = stored.moref)";

const VMS: &str =
    "SELECT vm_id, moref, host_id, host_since FROM virt_vm WHERE platform_id = $1 AND removed_at IS NULL";

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
    /// Makes a platform known under its name, and returns its key. Its address and kind become those given.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn register_platform(
        &self,
        name: &str,
        kind: PlatformKind,
        host: &str,
        port: u16,
    ) -> Result<PlatformId, Error> {
        let connection = self.checkout("register a platform").await?;
        let row = connection
            .query_opt(
                REGISTER,
                &[
                    (&name, Type::TEXT),
                    (&kind.as_str(), Type::TEXT),
                    (&host, Type::TEXT),
                    (&i32::from(port), Type::INT4),
                ],
            )
            .await?;
        // An upsert returns its row always.
        let key = row.map_or(Ok(0), |row| connection.read(&row, 0))?;
        connection.done();
        Ok(PlatformId(key))
    }

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
        let reason = clean(status.reason.as_deref());
        let [version, build, api_type] =
            [&status.version, &status.build, &status.api_type].map(|t| clean(t.as_deref()));
        let touched = connection
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
        if touched == 0 {
            return Err(Error::UnknownPlatform {
                platform: lease.platform,
            });
        }
        connection.commit().await
    }

    /// Brings the stored hosts and VMs of a platform in line with a complete reading, and returns them with their
    /// keys and placements. `server_now` is the source's clock at the time of the reading: a placement that is new
    /// counts from then.
    ///
    /// An empty reading changes nothing and returns nothing: the caller keeps what it had. A reading without any
    /// host removes no host.
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
        // A page boundary that moved during the reading can show an object twice; the later one counts.
        let hosts = last_of_each(&inventory.hosts, |host| &host.moref);
        let vms = last_of_each(&inventory.vms, |vm| &vm.moref);

        let connection = self.checkout("store an inventory").await?;
        connection.begin_fenced(lease).await?;
        connection.batch(HASH_JOINS).await?;
        let host_keys = sync_hosts(&connection, lease.platform, &hosts, server_now).await?;
        let vm_keys = sync_vms(&connection, lease.platform, &vms, &host_keys, server_now).await?;
        connection.commit().await?;

        Ok(KnownInventory {
            hosts: hosts
                .into_iter()
                .filter_map(|host| {
                    Some(KnownHost {
                        id: *host_keys.get(&host.moref)?,
                        host: host.clone(),
                    })
                })
                .collect(),
            vms: vms
                .into_iter()
                .filter_map(|vm| {
                    let (id, placement) = *vm_keys.get(&vm.moref)?;
                    Some(KnownVm {
                        id,
                        vm: vm.clone(),
                        placement,
                    })
                })
                .collect(),
        })
    }
}

async fn sync_hosts(
    connection: &Checkout,
    platform: PlatformId,
    hosts: &[&Host],
    server_now: Stamp,
) -> Result<HashMap<MoRef, HostId>, Error> {
    let moref: Vec<&str> = hosts.iter().map(|host| host.moref.as_str()).collect();
    let name: Vec<_> = hosts.iter().map(|host| clean(host.name.as_deref())).collect();
    let uuid: Vec<_> = hosts.iter().map(|host| clean(host.uuid.as_deref())).collect();
    let power: Vec<&str> = hosts.iter().map(|host| host.power.as_str()).collect();
    let connected: Vec<bool> = hosts.iter().map(|host| host.connected).collect();
    let maintenance: Vec<bool> = hosts.iter().map(|host| host.maintenance).collect();
    let threads: Vec<Option<i32>> = hosts.iter().map(|host| host.threads.map(i32::from)).collect();
    let seen = [
        (&platform.0 as _, Type::INT4),
        (&moref as _, Type::TEXT_ARRAY),
        (&name as _, Type::TEXT_ARRAY),
        (&uuid as _, Type::TEXT_ARRAY),
        (&power as _, Type::TEXT_ARRAY),
        (&connected as _, Type::BOOL_ARRAY),
        (&maintenance as _, Type::BOOL_ARRAY),
        (&threads as _, Type::INT4_ARRAY),
        (&server_now as _, Type::TIMESTAMPTZ),
    ];
    let [platform_parameter, moref_parameter, .., now_parameter] = &seen;
    let [update @ .., _] = &seen;
    connection.execute(UPDATE_HOSTS, update).await?;
    connection.execute(INSERT_HOSTS, &seen).await?;
    if !hosts.is_empty() {
        let remove = [
            platform_parameter.clone(),
            moref_parameter.clone(),
            now_parameter.clone(),
        ];
        connection.execute(REMOVE_HOSTS, &remove).await?;
    }
    let rows = connection
        .query(HOSTS, std::slice::from_ref(platform_parameter))
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                MoRef::new(connection.read::<&str>(row, 1)?),
                HostId(connection.read(row, 0)?),
            ))
        })
        .collect()
}

type Placed = (VmId, Option<(HostId, Stamp)>);

async fn sync_vms(
    connection: &Checkout,
    platform: PlatformId,
    vms: &[&Vm],
    host_keys: &HashMap<MoRef, HostId>,
    server_now: Stamp,
) -> Result<HashMap<MoRef, Placed>, Error> {
    let moref: Vec<&str> = vms.iter().map(|vm| vm.moref.as_str()).collect();
    let name: Vec<_> = vms.iter().map(|vm| clean(vm.name.as_deref())).collect();
    let instance_uuid: Vec<_> = vms.iter().map(|vm| clean(vm.instance_uuid.as_deref())).collect();
    let bios_uuid: Vec<_> = vms.iter().map(|vm| clean(vm.bios_uuid.as_deref())).collect();
    let power: Vec<&str> = vms.iter().map(|vm| vm.power.as_str()).collect();
    let connected: Vec<bool> = vms.iter().map(|vm| vm.connected).collect();
    let host: Vec<Option<i32>> = vms
        .iter()
        .map(|vm| {
            vm.host
                .as_ref()
                .and_then(|moref| host_keys.get(moref))
                .map(|id| id.0)
        })
        .collect();
    let vcpus: Vec<Option<i32>> = vms.iter().map(|vm| vm.vcpus.map(i32::from)).collect();
    let memory: Vec<Option<i64>> = vms.iter().map(|vm| vm.memory_mib).collect();
    let template: Vec<bool> = vms.iter().map(|vm| vm.template).collect();
    let seen = [
        (&platform.0 as _, Type::INT4),
        (&moref as _, Type::TEXT_ARRAY),
        (&name as _, Type::TEXT_ARRAY),
        (&instance_uuid as _, Type::TEXT_ARRAY),
        (&bios_uuid as _, Type::TEXT_ARRAY),
        (&power as _, Type::TEXT_ARRAY),
        (&connected as _, Type::BOOL_ARRAY),
        (&host as _, Type::INT4_ARRAY),
        (&vcpus as _, Type::INT4_ARRAY),
        (&memory as _, Type::INT8_ARRAY),
        (&template as _, Type::BOOL_ARRAY),
        (&server_now as _, Type::TIMESTAMPTZ),
    ];
    let [platform_parameter, moref_parameter, .., now_parameter] = &seen;
    connection.execute(UPDATE_VMS, &seen).await?;
    connection.execute(INSERT_VMS, &seen).await?;
    let remove = [
        platform_parameter.clone(),
        moref_parameter.clone(),
        now_parameter.clone(),
    ];
    connection.execute(REMOVE_VMS, &remove).await?;
    let rows = connection
        .query(VMS, std::slice::from_ref(platform_parameter))
        .await?;
    rows.iter()
        .map(|row| {
            let host = connection.read::<Option<i32>>(row, 2)?.map(HostId);
            let since = connection.read::<Option<Stamp>>(row, 3)?;
            Ok((
                MoRef::new(connection.read::<&str>(row, 1)?),
                (VmId(connection.read(row, 0)?), host.zip(since)),
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
