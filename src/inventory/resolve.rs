//! From objects that refer to each other to records that say what is meant.
//!
//! Owns: which datacenter, cluster and folder an object is in, which network an adapter is on, and by that what the
//! platform's filter takes and what it turns away. Never does: I/O.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::filter::Filter;
use crate::model::ids::MoRef;
use crate::model::inventory::{Datacenter, Inventory, Nic, ResourcePool, Vm};
use crate::vsphere::mirror::{Changes, Mirror};
use crate::vsphere::objects::{Body, Item, Machine};

/// Folders inside one another. Nothing real is deeper; a server that sends a circle is cut here.
const DEPTH_LIMIT: usize = 64;

/// In a path, for an object whose name the server does not tell.
const UNNAMED: &str = "?";

/// What the objects come to.
#[derive(Debug, Default)]
pub struct Found {
    /// The records of those that the filter takes.
    pub inventory: Inventory,
    /// Those that it turns away, as far as their datacenter is known: where it is not, their place is not, either.
    pub turned_away: Vec<MoRef>,
}

/// The records of all objects.
#[must_use]
pub fn all(mirror: &Mirror, filter: &Filter) -> Found {
    let mut found = Found::default();
    for (moref, item) in mirror.iter() {
        found.add(mirror, filter, moref, item);
    }
    sort(&mut found.inventory);
    found
}

/// The names of datacenters that the filter asks for and the server does not show, and those that it does show.
#[must_use]
pub fn unknown_datacenters<'a>(mirror: &'a Mirror, filter: &'a Filter) -> (Vec<&'a str>, Vec<&'a str>) {
    let shown = mirror.iter().filter(|(_, item)| item.body == Body::Datacenter);
    let mut shown: Vec<&str> = shown.filter_map(|(_, item)| item.name.as_deref()).collect();
    shown.sort_unstable();
    let wanted = filter.datacenters.iter().map(String::as_str);
    (wanted.filter(|name| !shown.contains(name)).collect(), shown)
}

/// Keys are given in the order of references, not in that of a hash.
fn sort(inventory: &mut Inventory) {
    inventory
        .datacenters
        .sort_unstable_by(|a, b| order(&a.moref, &b.moref));
    inventory
        .clusters
        .sort_unstable_by(|a, b| order(&a.moref, &b.moref));
    inventory.pools.sort_unstable_by(|a, b| order(&a.moref, &b.moref));
    inventory
        .datastores
        .sort_unstable_by(|a, b| order(&a.moref, &b.moref));
    inventory.hosts.sort_unstable_by(|a, b| order(&a.moref, &b.moref));
    inventory.vms.sort_unstable_by(|a, b| order(&a.moref, &b.moref));
}

fn order(one: &MoRef, other: &MoRef) -> std::cmp::Ordering {
    one.as_str().cmp(other.as_str())
}

/// The records of the objects that changed, and of those that a change of these touches: what is in a folder that
/// was renamed has another path.
#[must_use]
pub fn changed(mirror: &Mirror, filter: &Filter, changes: &Changes) -> Found {
    if changes.touched.iter().any(|moref| is_referred_to(mirror, moref)) {
        return all(mirror, filter);
    }
    let mut found = Found::default();
    for moref in &changes.touched {
        if let Some(item) = mirror.get(moref) {
            found.add(mirror, filter, moref, item);
        }
    }
    sort(&mut found.inventory);
    found
}

/// The references of all records, as they are stored.
#[must_use]
pub fn references(inventory: &Inventory) -> HashSet<&MoRef> {
    let objects = inventory.datacenters.iter().map(|one| &one.moref);
    objects
        .chain(inventory.clusters.iter().map(|one| &one.moref))
        .chain(inventory.pools.iter().map(|one| &one.moref))
        .chain(inventory.datastores.iter().map(|one| &one.moref))
        .chain(inventory.hosts.iter().map(|one| &one.moref))
        .chain(inventory.vms.iter().map(|one| &one.moref))
        .collect()
}

/// Whether records of other objects depend on this one's name or place.
fn is_referred_to(mirror: &Mirror, moref: &MoRef) -> bool {
    mirror.get(moref).is_some_and(|item| {
        matches!(
            item.body,
            Body::Folder
                | Body::Datacenter
                | Body::Compute {
                    is_cluster: false,
                    ..
                }
                | Body::Portgroup(_)
        )
    })
}

impl Found {
    fn add(&mut self, mirror: &Mirror, filter: &Filter, moref: &MoRef, item: &Item) {
        if filter.is_open() {
            return add(&mut self.inventory, mirror, moref, item);
        }
        let datacenter = match item.body {
            Body::Datacenter => Some(item),
            _ => datacenter(mirror, item).and_then(|moref| mirror.get(&moref)),
        };
        if filter.takes_datacenter(datacenter.and_then(|item| item.name.as_deref()))
            && takes_place(mirror, filter, item)
        {
            return add(&mut self.inventory, mirror, moref, item);
        }
        self.inventory.other_hosts |= matches!(item.body, Body::Host(_));
        if datacenter.is_some() {
            self.turned_away.push(moref.clone());
        }
    }
}

/// Whether the filter takes a host or VM by its path; of other objects only the datacenter counts.
fn takes_place(mirror: &Mirror, filter: &Filter, item: &Item) -> bool {
    if !matches!(item.body, Body::Host(_) | Body::Vm(_)) {
        return true;
    }
    let name = |item: &Item| item.name.clone().unwrap_or_else(|| UNNAMED.to_owned());
    let mut names = vec![name(item)];
    if item.parent.is_some() {
        names.extend(above(mirror, item).map(|(_, above)| name(above)));
    } else if let Some(datacenter) = datacenter(mirror, item).and_then(|moref| mirror.get(&moref)) {
        // A VM in a vApp is in no folder.
        names.push("vm".to_owned());
        names.push(name(datacenter));
        names.extend(above(mirror, datacenter).map(|(_, above)| name(above)));
    }
    names.reverse();
    let path: Vec<&str> = names.iter().map(String::as_str).collect();
    filter.takes_path(&path)
}

fn add(inventory: &mut Inventory, mirror: &Mirror, moref: &MoRef, item: &Item) {
    match &item.body {
        Body::Folder
        | Body::Compute {
            is_cluster: false, ..
        }
        | Body::Portgroup(_) => {}
        Body::Datacenter => inventory.datacenters.push(Datacenter {
            moref: moref.clone(),
            name: item.name.clone(),
        }),
        Body::Compute { cluster, .. } => {
            let mut cluster = (**cluster).clone();
            cluster.datacenter = datacenter(mirror, item);
            inventory.clusters.push(cluster);
        }
        Body::Pool => inventory.pools.push(ResourcePool {
            moref: moref.clone(),
            name: item.name.clone(),
            cluster: above(mirror, item)
                .find(|(_, above)| is_cluster(above))
                .map(|(moref, _)| moref.clone()),
            parent: item
                .parent
                .clone()
                .filter(|parent| mirror.get(parent).is_some_and(|above| above.body == Body::Pool)),
        }),
        Body::Datastore(datastore) => {
            let mut datastore = (**datastore).clone();
            datastore.datacenter = datacenter(mirror, item);
            inventory.datastores.push(datastore);
        }
        Body::Host(host) => {
            let mut host = (**host).clone();
            let details = Arc::make_mut(&mut host.details);
            details.cluster = item
                .parent
                .clone()
                .filter(|parent| mirror.get(parent).is_some_and(is_cluster));
            details.datacenter = datacenter(mirror, item);
            inventory.hosts.push(host);
        }
        Body::Vm(machine) => inventory.vms.push(vm(mirror, item, machine)),
    }
}

fn vm(mirror: &Mirror, item: &Item, machine: &Machine) -> Vm {
    let mut vm = machine.vm.clone();
    let details = Arc::make_mut(&mut vm.details);
    details.datacenter = datacenter(mirror, item);
    details.folder = item.parent.is_some().then(|| path(mirror, item));
    if details.snapshots.is_none() {
        // Unset is how a server says that there is none.
        details.snapshots = Some(Vec::new());
    }
    details.nics = machine.nics.as_ref().map(|nics| {
        let nics = nics.iter().map(|nic| Nic {
            key: nic.key,
            label: nic.label.clone(),
            kind: nic.kind.clone(),
            mac: nic.mac.clone(),
            network: nic
                .portgroup
                .as_ref()
                .and_then(|key| portgroup(mirror, key))
                .or_else(|| nic.network.clone())
                .or_else(|| nic.portgroup.clone()),
            connected: nic.connected,
            addresses: machine
                .guest_nets
                .iter()
                .filter(|net| net.key == nic.key)
                .flat_map(|net| net.addresses.iter().cloned())
                .collect(),
        });
        nics.collect()
    });
    vm
}

/// The name of a distributed port group. Its key is its reference but for imported ones.
fn portgroup(mirror: &Mirror, key: &str) -> Option<String> {
    let is_it = |item: &&Item| matches!(&item.body, Body::Portgroup(Some(own)) if own == key);
    let by_reference = mirror.get(&MoRef::new(key)).filter(is_it);
    let found = by_reference.or_else(|| mirror.iter().map(|(_, item)| item).find(is_it));
    found?.name.clone()
}

fn is_cluster(item: &Item) -> bool {
    matches!(item.body, Body::Compute { is_cluster: true, .. })
}

/// What an object is in, from the inside out.
fn above<'a>(mirror: &'a Mirror, item: &'a Item) -> impl Iterator<Item = (&'a MoRef, &'a Item)> {
    let parent = move |item: &'a Item| {
        let moref = item.parent.as_ref()?;
        Some((moref, mirror.get(moref)?))
    };
    std::iter::successors(parent(item), move |(_, item)| parent(item)).take(DEPTH_LIMIT)
}

fn datacenter(mirror: &Mirror, item: &Item) -> Option<MoRef> {
    let find = |item| above(mirror, item).find(|(_, above)| above.body == Body::Datacenter);
    // A VM in a vApp has no parent; the host that it is on is in the same datacenter.
    let found = find(item).or_else(|| match &item.body {
        Body::Vm(machine) => find(mirror.get(machine.vm.host.as_ref()?)?),
        _ => None,
    });
    found.map(|(moref, _)| moref.clone())
}

/// Names of datacenter and folders above, as in `/DC-1/Team/Web`, without the one right below the datacenter: it is
/// always `vm`, and no client shows it.
fn path(mirror: &Mirror, item: &Item) -> String {
    let above: Vec<&Item> = above(mirror, item).map(|(_, item)| item).collect();
    let mut names = Vec::new();
    for (place, item) in above.iter().enumerate() {
        let is_system = above
            .get(place + 1)
            .is_some_and(|outer| outer.body == Body::Datacenter);
        if !is_system || item.body == Body::Datacenter {
            names.push(item.name.as_deref().unwrap_or(UNNAMED));
        }
    }
    names.reverse();
    format!("/{}", names.join("/"))
}
