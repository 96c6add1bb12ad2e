//! The performance counters that the simulated servers know.
//!
//! Owns: identity (`group.name.rollup`), unit, level, who has them as aggregate or per instance, and
//! the numbering. Numbers differ between vCenter and ESXi and change with the epoch: after a
//! renumbering an old number means ANOTHER counter, as on a real server after an upgrade.
//! Never computes a value.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::spec::PlatformKind;
use crate::truth::EntityKind;
use crate::value::{self, Shape};

mod table;

/// How the samples of an interval are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rollup {
    /// Mean.
    Average,
    /// Newest reading.
    Latest,
    /// Sum.
    Summation,
    /// Largest.
    Maximum,
    /// Smallest.
    Minimum,
    /// Not combined.
    None,
}

impl Rollup {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Average => "average",
            Self::Latest => "latest",
            Self::Summation => "summation",
            Self::Maximum => "maximum",
            Self::Minimum => "minimum",
            Self::None => "none",
        }
    }
}

/// What a value says about its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stats {
    /// A level.
    Absolute,
    /// A change over the interval.
    Delta,
    /// A change per second.
    Rate,
}

impl Stats {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absolute => "absolute",
            Self::Delta => "delta",
            Self::Rate => "rate",
        }
    }
}

/// For which instances an entity kind has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Not at all.
    Nothing,
    /// The aggregate `""` only.
    Aggregate,
    /// Instances only.
    Instances,
    /// Both.
    Both,
}

impl Offer {
    pub(crate) const fn aggregate(self) -> bool {
        matches!(self, Self::Aggregate | Self::Both)
    }

    pub(crate) const fn instances(self) -> bool {
        matches!(self, Self::Instances | Self::Both)
    }
}

/// What the instances of a counter are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstanceClass {
    None,
    Thread,
    Nic,
    VirtualDisk,
    Adapter,
    Lun,
    Datastore,
}

/// One performance counter.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// `groupInfo.key`.
    pub group: &'static str,
    /// `nameInfo.key`; may contain dots.
    pub name: &'static str,
    /// How an interval's samples are combined.
    pub rollup: Rollup,
    /// What a value says about its interval.
    pub stats: Stats,
    /// `unitInfo.key`.
    pub unit: &'static str,
    /// Statistics level from which vCenter keeps the aggregate's roll-ups.
    pub level: u8,
    /// The same for instances.
    pub device_level: u8,
    host: Offer,
    vm: Offer,
    pub(crate) shape: Shape,
    /// Needs VMware Tools in the guest.
    tools: bool,
}

impl Counter {
    /// `group.name.rollup`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}.{}", self.group, self.name, self.rollup.name())
    }

    /// For which instances a kind of entity has it on a kind of server.
    #[must_use]
    pub fn offer(&self, platform: PlatformKind, entity: EntityKind) -> Offer {
        match entity {
            // The one counter in the captures whose aggregate an ESXi host does not offer.
            EntityKind::Host
                if platform == PlatformKind::Esxi
                    && self.group == "cpu"
                    && self.name == "coreUtilization" =>
            {
                Offer::Instances
            }
            EntityKind::Host => self.host,
            EntityKind::Vm => self.vm,
        }
    }

    pub(crate) const fn needs_tools(&self) -> bool {
        self.tools
    }

    /// `disk.*` of a VM counts block devices: absent on NFS and vSAN.
    pub(crate) fn needs_block_storage(&self) -> bool {
        self.group == "disk"
    }

    pub(crate) fn class(&self) -> InstanceClass {
        match self.group {
            "cpu" => InstanceClass::Thread,
            "net" => InstanceClass::Nic,
            "virtualDisk" => InstanceClass::VirtualDisk,
            "storageAdapter" => InstanceClass::Adapter,
            "disk" => InstanceClass::Lun,
            "datastore" => InstanceClass::Datastore,
            _ => InstanceClass::None,
        }
    }
}

/// All counters in a fixed order that is independent of any numbering.
#[derive(Debug)]
pub(crate) struct Catalog {
    counters: Vec<Counter>,
    names: Vec<String>,
    roots: Vec<u64>,
    by_name: HashMap<String, usize>,
}

static CATALOG: LazyLock<Catalog> = LazyLock::new(Catalog::build);

/// The catalogue of this library version.
pub(crate) fn catalog() -> &'static Catalog {
    &CATALOG
}

/// Every counter that a simulated server lists.
#[must_use]
pub fn all() -> &'static [Counter] {
    &catalog().counters
}

impl Catalog {
    fn build() -> Self {
        let mut counters = table::COUNTERS.to_vec();
        counters.extend(table::fillers());
        let names: Vec<String> = counters.iter().map(Counter::full_name).collect();
        let roots = names.iter().map(|name| value::hash(name)).collect();
        let by_name = names.iter().cloned().enumerate().map(|(i, n)| (n, i)).collect();
        Self {
            counters,
            names,
            roots,
            by_name,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.counters.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Counter> {
        self.counters.get(index)
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    pub(crate) fn root(&self, index: usize) -> u64 {
        self.roots.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn find(&self, full_name: &str) -> Option<usize> {
        self.by_name.get(full_name).copied()
    }
}

/// The numbers of one server in one epoch.
#[derive(Clone, Debug)]
pub(crate) struct Numbering {
    keys: Vec<i32>,
    by_key: HashMap<i32, usize>,
}

impl Numbering {
    pub(crate) fn new(kind: PlatformKind, epoch: u32) -> Self {
        /// A prime above the number of counters: any stride gives distinct keys.
        const RANGE: i64 = 1009;
        /// The same for the counters of one group.
        const GROUP_RANGE: i64 = 257;
        let epoch = i64::from(epoch % 1000);
        let mut groups: Vec<&str> = Vec::new();
        let mut in_group: HashMap<&str, i64> = HashMap::new();
        let mut keys = Vec::with_capacity(catalog().len());
        for (index, counter) in catalog().counters.iter().enumerate() {
            let index = i64::try_from(index).unwrap_or_default();
            let key = match kind {
                PlatformKind::Vcenter => 1 + (index * 7 + epoch * 14) % RANGE,
                PlatformKind::Esxi => {
                    let group = groups.iter().position(|g| *g == counter.group);
                    let group = group.unwrap_or_else(|| {
                        groups.push(counter.group);
                        groups.len() - 1
                    });
                    let seen = in_group.entry(counter.group).or_default();
                    *seen += 1;
                    let group = i64::try_from(group).unwrap_or_default();
                    group * 65_536 + (*seen * 3 + epoch * 6) % GROUP_RANGE
                }
            };
            keys.push(i32::try_from(key).unwrap_or_default());
        }
        let by_key = keys.iter().enumerate().map(|(i, k)| (*k, i)).collect();
        Self { keys, by_key }
    }

    pub(crate) fn key(&self, index: usize) -> i32 {
        self.keys.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn index(&self, key: i32) -> Option<usize> {
        self.by_key.get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique() {
        let catalog = catalog();
        assert!(catalog.len() > 250, "{}", catalog.len());
        assert!(catalog.len() < 1009);
        assert_eq!(catalog.by_name.len(), catalog.len());
        for kind in [PlatformKind::Vcenter, PlatformKind::Esxi] {
            for epoch in 0..4 {
                let numbering = Numbering::new(kind, epoch);
                assert_eq!(numbering.by_key.len(), catalog.len(), "{kind:?} {epoch}");
            }
        }
    }

    #[test]
    fn a_renumbering_reuses_numbers_for_other_counters() {
        for kind in [PlatformKind::Vcenter, PlatformKind::Esxi] {
            let (before, after) = (Numbering::new(kind, 0), Numbering::new(kind, 1));
            let usage = catalog().find("cpu.usage.average").expect("known");
            assert_ne!(before.key(usage), after.key(usage));
            let other = after.index(before.key(usage));
            assert_ne!(other, Some(usage));
            let reused = (0..catalog().len())
                .filter(|i| after.index(before.key(*i)).is_some())
                .count();
            assert!(reused > 100, "{kind:?}: {reused}");
        }
        assert_ne!(
            Numbering::new(PlatformKind::Vcenter, 0).keys,
            Numbering::new(PlatformKind::Esxi, 0).keys
        );
    }
}
