//! From objects that refer to each other to records that say what is meant.
//!
//! Owns: which datacenter, cluster and folder an object is in, which network an adapter is on, what a custom attribute
//! is called, and by that what the platform's filter takes and what it turns away. Never does: I/O.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::filter;
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

/// What objects mean, by all the others.
#[derive(Debug)]
pub struct Resolver<'a> {
    mirror: &'a Mirror,
    filter: &'a Filter,
    /// Names of networks, by what adapters name them by.
    networks: HashMap<&'a str, &'a str>,
    /// Names of those custom attributes that are asked for, by key.
    fields: HashMap<i32, &'a str>,
}

impl<'a> Resolver<'a> {
    /// Of all objects, `filter` takes some, and of their custom attributes only those named in `attributes` count.
    #[must_use]
    pub fn new(mirror: &'a Mirror, filter: &'a Filter, attributes: &[String]) -> Self {
        let (mut networks, mut fields) = (HashMap::new(), HashMap::new());
        for (_, item) in mirror.iter() {
            match (&item.body, &item.name) {
                (Body::Network(Some(key)), Some(name)) => {
                    networks.insert(key.as_str(), name.as_str());
                }
                (Body::Fields(all), _) => {
                    let wanted = all.iter().filter(|(_, name)| attributes.contains(name));
                    fields.extend(wanted.map(|(key, name)| (*key, name.as_str())));
                }
                _ => {}
            }
        }
        Self {
            mirror,
            filter,
            networks,
            fields,
        }
    }

    /// The records of all objects.
    #[must_use]
    pub fn all(&self) -> Found {
        let mut found = Found::default();
        for (moref, item) in self.mirror.iter() {
            self.add(&mut found, moref, item);
        }
        sort(&mut found.inventory);
        found
    }

    /// The records of the objects that changed, and of those that a change of these touches: what is in a folder
    /// that was renamed has another path.
    #[must_use]
    pub fn changed(&self, changes: &Changes) -> Found {
        if changes.moved
            || changes
                .touched
                .iter()
                .any(|moref| is_looked_up(self.mirror, moref))
        {
            return self.all();
        }
        let mut found = Found::default();
        for moref in &changes.touched {
            if let Some(item) = self.mirror.get(moref) {
                self.add(&mut found, moref, item);
            }
        }
        sort(&mut found.inventory);
        found
    }

    fn add(&self, found: &mut Found, moref: &MoRef, item: &Item) {
        let (mirror, filter) = (self.mirror, self.filter);
        if filter.is_open() {
            return self.add_record(&mut found.inventory, moref, item);
        }
        let datacenter = match item.body {
            Body::Datacenter => Some(item),
            _ => datacenter(mirror, item).and_then(|moref| mirror.get(&moref)),
        };
        if takes(mirror, filter, item, datacenter) {
            return self.add_record(&mut found.inventory, moref, item);
        }
        found.inventory.other_hosts |= matches!(item.body, Body::Host(_));
        if datacenter.is_some() {
            found.turned_away.push(moref.clone());
        }
    }

    fn add_record(&self, inventory: &mut Inventory, moref: &MoRef, item: &Item) {
        let mirror = self.mirror;
        match &item.body {
            Body::Folder
            | Body::Compute {
                is_cluster: false, ..
            }
            | Body::Network(_)
            | Body::Fields(_) => {}
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
            Body::Vm(machine) => inventory.vms.push(self.vm(item, machine)),
        }
    }

    fn vm(&self, item: &Item, machine: &Machine) -> Vm {
        let mirror = self.mirror;
        let mut vm = machine.vm.clone();
        let details = Arc::make_mut(&mut vm.details);
        details.datacenter = datacenter(mirror, item);
        details.folder = item.parent.is_some().then(|| path(mirror, item));
        if details.snapshots.is_none() {
            // Unset is how a server says that there is none.
            details.snapshots = Some(Vec::new());
        }
        let known = |(key, value): &(i32, String)| Some(((*self.fields.get(key)?).to_owned(), value.clone()));
        details.attributes = machine.attributes.iter().filter_map(known).collect();
        details.nics = machine.nics.as_ref().map(|nics| {
            let nics = nics.iter().map(|nic| Nic {
                key: nic.key,
                label: nic.label.clone(),
                kind: nic.kind.clone(),
                mac: nic.mac.clone(),
                network: nic
                    .key_of_network
                    .as_deref()
                    .and_then(|key| self.networks.get(key).copied())
                    .or(nic.network.as_deref())
                    .or(nic.key_of_network.as_deref())
                    .map(ToOwned::to_owned),
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

/// How much of a platform a filter takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Hosts that it takes.
    pub n_hosts: usize,
    /// VMs that it takes.
    pub n_vms: usize,
    /// Datacenters that it names and that the server does not show.
    pub unknown: Vec<String>,
    /// Those that the server does show.
    pub shown: Vec<String>,
    /// Patterns that it asks for and that no host and no VM matches.
    pub unmatched: Vec<String>,
    /// The inventory path of a VM, or of a host where there is none: what patterns are compared with.
    pub example: Option<String>,
}

impl Taken {
    /// What `filter` takes of all objects.
    #[must_use]
    pub fn of(mirror: &Mirror, filter: &Filter) -> Self {
        let (unknown, shown) = unknown_datacenters(mirror, filter);
        let owned = |names: Vec<&str>| names.into_iter().map(ToOwned::to_owned).collect();
        let items = || mirror.iter().map(|(_, item)| item);
        let taken = |wanted: fn(&Body) -> bool| {
            let is_taken = |item: &&Item| {
                let datacenter = datacenter(mirror, item).and_then(|moref| mirror.get(&moref));
                takes(mirror, filter, item, datacenter)
            };
            items().filter(|item| wanted(&item.body)).filter(is_taken).count()
        };
        let places = |wanted: fn(&Body) -> bool| -> Vec<Vec<String>> {
            items()
                .filter(|item| wanted(&item.body))
                .map(|item| place(mirror, item))
                .collect()
        };
        let (is_host, is_vm) = (
            |body: &Body| matches!(body, Body::Host(_)),
            |body: &Body| matches!(body, Body::Vm(_)),
        );
        let (hosts, vms) = (places(is_host), places(is_vm));
        let unmatched = filter.include.iter().filter(|pattern| {
            let mut all = vms.iter().chain(&hosts);
            !all.any(|place| pattern.matches(&names(place)))
        });
        let unmatched = unmatched.map(ToString::to_string).collect();
        let example = vms.into_iter().min().or_else(|| hosts.into_iter().min());
        Self {
            n_hosts: taken(is_host),
            n_vms: taken(is_vm),
            unknown: owned(unknown),
            shown: owned(shown),
            unmatched,
            example: example.map(|place| filter::written(&names(&place))),
        }
    }
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

/// Whether records of other objects hold what this one says.
fn is_looked_up(mirror: &Mirror, moref: &MoRef) -> bool {
    mirror
        .get(moref)
        .is_some_and(|item| matches!(item.body, Body::Network(_) | Body::Fields(_)))
}

/// Whether the filter takes an object; `datacenter` is the one that it is in, or itself.
fn takes(mirror: &Mirror, filter: &Filter, item: &Item, datacenter: Option<&Item>) -> bool {
    filter.takes_datacenter(datacenter.and_then(|item| item.name.as_deref()))
        && takes_place(mirror, filter, item)
}

/// Whether the filter takes a host or VM by its path; of other objects only the datacenter counts.
fn takes_place(mirror: &Mirror, filter: &Filter, item: &Item) -> bool {
    if !matches!(item.body, Body::Host(_) | Body::Vm(_)) {
        return true;
    }
    filter.takes_path(&names(&place(mirror, item)))
}

fn names(place: &[String]) -> Vec<&str> {
    place.iter().map(String::as_str).collect()
}

/// The names of the inventory path of a host or VM, from the outside in.
fn place(mirror: &Mirror, item: &Item) -> Vec<String> {
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
    names
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An object as change tracking tells it: kind, reference, and properties as XML.
    fn object(kind: &str, moref: &str, properties: &[(&str, &str)]) -> String {
        let changes: String = properties
            .iter()
            .map(|(name, value)| {
                format!("<changeSet><name>{name}</name><op>assign</op><val>{value}</val></changeSet>")
            })
            .collect();
        format!("<objectSet><kind>enter</kind><obj type=\"{kind}\">{moref}</obj>{changes}</objectSet>")
    }

    fn entity(kind: &str, moref: &str, name: &str, parent: &str) -> String {
        object(kind, moref, &[("name", name), ("parent", parent)])
    }

    /// Two datacenters, one in a folder, each with a cluster, a host, a datastore and a VM in a folder; a VM in a vApp.
    fn world() -> Mirror {
        let mut all = entity("Folder", "group-d2", "Europe", "group-d1");
        for (n, name, above) in [(1, "Berlin", "group-d2"), (2, "Bonn", "group-d1")] {
            all += &entity("Datacenter", &format!("datacenter-{n}"), name, above);
            all += &entity("Folder", &format!("group-v{n}"), "vm", &format!("datacenter-{n}"));
            all += &entity(
                "Folder",
                &format!("group-h{n}"),
                "host",
                &format!("datacenter-{n}"),
            );
            all += &entity(
                "Folder",
                &format!("group-s{n}"),
                "datastore",
                &format!("datacenter-{n}"),
            );
            all += &entity(
                "Folder",
                &format!("group-w{n}"),
                "Web%2f1",
                &format!("group-v{n}"),
            );
            let cluster = format!("domain-c{n}");
            all += &entity(
                "ClusterComputeResource",
                &cluster,
                "Cluster",
                &format!("group-h{n}"),
            );
            all += &entity("ResourcePool", &format!("resgroup-{n}"), "Resources", &cluster);
            all += &entity("HostSystem", &format!("host-{n}"), "esx", &cluster);
            all += &entity(
                "Datastore",
                &format!("datastore-{n}"),
                "store",
                &format!("group-s{n}"),
            );
            all += &entity(
                "VirtualMachine",
                &format!("vm-{n}"),
                "web",
                &format!("group-w{n}"),
            );
        }
        all += &object(
            "VirtualMachine",
            "vm-3",
            &[("name", "in-vapp"), ("runtime.host", "host-1")],
        );
        Mirror::told(&all)
    }

    fn taken(
        mirror: &Mirror,
        datacenters: &[&str],
        include: &[&str],
        exclude: &[&str],
    ) -> (Vec<String>, Found) {
        let datacenters = datacenters.iter().map(ToString::to_string).collect();
        let filter = Filter::parse(datacenters, include, exclude).unwrap();
        let found = Resolver::new(mirror, &filter, &[]).all();
        let mut taken: Vec<String> = references(&found.inventory)
            .into_iter()
            .map(ToString::to_string)
            .collect();
        taken.sort_unstable();
        (taken, found)
    }

    #[test]
    fn a_datacenter_takes_all_that_is_in_it_along() {
        let mirror = world();
        let (taken, found) = taken(&mirror, &["Berlin"], &[], &[]);
        assert_eq!(
            taken,
            [
                "datacenter-1",
                "datastore-1",
                "domain-c1",
                "host-1",
                "resgroup-1",
                "vm-1",
                "vm-3"
            ]
        );
        assert!(found.inventory.shows_hosts() && found.inventory.other_hosts);
        let filter =
            Filter::parse(vec!["Berlin".to_owned(), "Paris".to_owned()], &[""; 0], &[""; 0]).unwrap();
        let (unknown, shown) = unknown_datacenters(&mirror, &filter);
        assert_eq!((unknown, shown), (vec!["Paris"], vec!["Berlin", "Bonn"]));
    }

    #[test]
    fn hosts_and_vms_are_taken_by_the_path_that_clients_show() {
        let mirror = world();
        let of = |include: &[&str], exclude: &[&str]| {
            let (mut taken, _) = taken(&mirror, &[], include, exclude);
            taken.retain(|moref| moref.starts_with("vm-") || moref.starts_with("host-"));
            taken
        };
        assert_eq!(of(&["/Europe/Berlin/vm/Web%2f1/web"], &[]), ["vm-1"]);
        assert_eq!(of(&["/Europe/Berlin/vm/*"], &[]), ["vm-3"], "a VM in a vApp");
        assert_eq!(of(&["/Europe/Berlin/host/Cluster/*"], &[]), ["host-1"]);
        assert_eq!(of(&["**/host/**"], &["/Bonn/**"]), ["host-1"]);
        assert_eq!(of(&[], &["**/web"]), ["host-1", "host-2", "vm-3"]);
    }

    #[test]
    fn of_what_is_nowhere_nobody_says_that_the_filter_turned_it_away() {
        let stray = entity("VirtualMachine", "vm-9", "stray", "group-unknown");
        let mirror = Mirror::told(&stray);
        let (taken, found) = taken(&mirror, &["Berlin"], &[], &[]);
        assert!(taken.is_empty() && found.turned_away.is_empty());
        let filter = Filter::parse(vec!["Bonn".to_owned()], &[""; 0], &[""; 0]).unwrap();
        let mut turned_away = Resolver::new(&world(), &filter, &[]).all().turned_away;
        turned_away.retain(|moref| moref.as_str().starts_with("vm-"));
        turned_away.sort_unstable();
        assert_eq!(turned_away, [MoRef::new("vm-1"), MoRef::new("vm-3")]);
    }

    #[test]
    fn what_a_filter_takes_is_counted_and_what_it_asks_for_in_vain_is_named() {
        let mirror = world();
        let of = |datacenters: &[&str], include: &[&str], exclude: &[&str]| {
            let datacenters = datacenters.iter().map(ToString::to_string).collect();
            Taken::of(&mirror, &Filter::parse(datacenters, include, exclude).unwrap())
        };
        let berlin = of(&["Berlin"], &[], &[]);
        assert_eq!((berlin.n_hosts, berlin.n_vms), (1, 2));
        assert!(berlin.unknown.is_empty() && berlin.unmatched.is_empty());
        let typo = of(&["Berlin", "Bon"], &["**/web", "/Bonn/vn/**"], &["**/nobody"]);
        assert_eq!((typo.n_hosts, typo.n_vms), (0, 1));
        assert_eq!(typo.unknown, ["Bon"]);
        assert_eq!(typo.shown, ["Berlin", "Bonn"]);
        assert_eq!(
            typo.unmatched,
            ["/Bonn/vn/**"],
            "none need be there to be left out"
        );
        // What is named can be written as it stands.
        let example = typo.example.unwrap();
        assert_eq!(example, "/Bonn/vm/Web%2f1/web");
        assert_eq!(of(&[], &[&example], &[]).n_vms, 1);
        let none = of(&[], &[], &["**"]);
        assert_eq!((none.n_hosts, none.n_vms), (0, 0));
    }

    #[test]
    fn an_adapter_has_the_name_of_its_network_whatever_it_names_it_by() {
        let adapter = |key: &str, backing: &str| {
            format!(
                "<VirtualDevice xsi:type=\"VirtualVmxnet3\"><key>{key}</key><backing>{backing}</backing></VirtualDevice>"
            )
        };
        let devices = adapter("4000", "<deviceName>VM Network</deviceName>")
            + &adapter("4001", "<port><portgroupKey>dvportgroup-7</portgroupKey></port>")
            + &adapter(
                "4002",
                "<opaqueNetworkId>a-b-c</opaqueNetworkId><opaqueNetworkType>nsx.LogicalSwitch</opaqueNetworkType>",
            )
            + &adapter("4003", "<opaqueNetworkId>unknown</opaqueNetworkId>");
        let summary = "<network type=\"OpaqueNetwork\">network-o8</network><name>segment</name>\
                       <opaqueNetworkId>a-b-c</opaqueNetworkId><opaqueNetworkType>nsx.LogicalSwitch</opaqueNetworkType>";
        let mirror = Mirror::told(
            &(object(
                "DistributedVirtualPortgroup",
                "dvportgroup-7",
                &[("name", "DMZ%2f1"), ("key", "dvportgroup-7")],
            ) + &object(
                "OpaqueNetwork",
                "network-o8",
                &[("name", "segment"), ("summary", summary)],
            ) + &object("VirtualMachine", "vm-1", &[("config.hardware.device", &devices)])),
        );
        let found = Resolver::new(&mirror, &Filter::default(), &[]).all().inventory;
        let nics = found.vms[0].details.nics.as_deref().unwrap();
        let networks: Vec<Option<&str>> = nics.iter().map(|nic| nic.network.as_deref()).collect();
        assert_eq!(
            networks,
            [
                Some("VM Network"),
                Some("DMZ/1"),
                Some("segment"),
                Some("unknown")
            ]
        );
    }
}
