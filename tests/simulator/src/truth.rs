//! What the simulated source published, and when: the log that an oracle compares a database with.
//!
//! Owns: the life of every entity as ranges (never one entry per sample) and the pure functions over
//! them. The server answers QueryPerf from these same records, so the log cannot differ from what is
//! served, except where a hostile rule falsifies a reply on purpose.
//! Never reads a clock, holds no lock and knows nothing of SOAP: a [`Truth`] is a value that can be
//! sent to another process as JSON.
//!
//! Units: stamps are whole seconds since the epoch and name the END of their 20-second interval;
//! server times are microseconds since the epoch, by the server's clock.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::clock::{ClockStep, StampRange};
use crate::counters::{self, Counter, InstanceClass, Rollup};
use crate::grid::{self, INTERVAL, MICROS, RING};
use crate::spec::PlatformKind;
use crate::value::{self, Moment};

/// What an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// A HostSystem.
    Host,
    /// A VirtualMachine.
    Vm,
}

impl EntityKind {
    /// The managed object type.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Host => "HostSystem",
            Self::Vm => "VirtualMachine",
        }
    }
}

/// A time in which an entity produced a sample for every interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// First stamp.
    pub first_stamp: i64,
    /// Last stamp; `None` = it still runs.
    pub last_stamp: Option<i64>,
    /// MoRef of the host it ran on (a host: its own).
    pub host: String,
    /// vCPUs of a VM, hardware threads of a host.
    pub vcpus: u32,
    /// When it was started (seconds): what uptime counts from.
    pub booted_at: i64,
}

impl Run {
    fn contains(&self, stamp: i64) -> bool {
        self.first_stamp <= stamp && self.last_stamp.is_none_or(|last| stamp <= last)
    }
}

/// Samples that appear later than usual.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// The samples.
    pub stamps: StampRange,
    /// Microseconds on top of the publish delay.
    pub extra: i64,
}

/// Cells that are empty although their sample is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// `group.name.rollup`.
    pub counter: String,
    /// One instance (`""` = the aggregate), or `None` = all.
    pub instance: Option<String>,
    /// The samples.
    pub stamps: StampRange,
    /// Server time at which the cells are filled in; `None` = never.
    pub until: Option<i64>,
}

/// A time in which the entity's samples could not be read (its host was disconnected).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// From this server time.
    pub from: i64,
    /// To this server time; `None` = still.
    pub to: Option<i64>,
}

/// What does not change about an entity and shapes its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// MHz of one vCPU or thread.
    pub mhz: u32,
    /// Memory.
    pub memory_kib: i64,
    /// NICs (`4000`.. or `vmnic0`..).
    pub nics: u32,
    /// Virtual disks (`scsi0:0`..) of a VM, LUNs of a host.
    pub disks: u32,
    /// Storage adapters of a host (`vmhba0`..).
    pub adapters: u32,
    /// Numbers of the datastores it uses.
    pub datastores: Vec<u32>,
    /// VMware Tools run in the guest.
    pub tools: bool,
    /// It has block devices: `disk.*` of a VM does not exist on NFS and vSAN.
    pub block_storage: bool,
}

/// The whole life of one entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityRecord {
    /// Host or VM.
    pub kind: EntityKind,
    /// Managed object reference.
    pub moref: String,
    /// Its name now, as on the wire (`/` is `%2f`).
    pub name: String,
    /// It is a template.
    pub template: bool,
    /// What shapes its values.
    pub profile: Profile,
    /// When it ran, oldest first.
    pub runs: Vec<Run>,
    /// Server times at which its ring was emptied (a vMotion that left the ring behind).
    pub ring_resets: Vec<i64>,
    /// When nothing could be read.
    pub unreachable: Vec<Unreachable>,
    /// Samples that appeared late.
    pub late: Vec<Late>,
    /// Cells that were empty.
    pub withheld: Vec<Withheld>,
    /// Server time of its creation (history: before the simulator's start).
    pub created_at: i64,
    /// Server time of its removal: from then on nothing of it can be read.
    pub removed_at: Option<i64>,
}

/// One sample as the source published it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedSample<'a> {
    /// End of the interval, seconds.
    pub stamp: i64,
    /// Server time from which it could be read.
    pub published_at: i64,
    /// Server time from which it was gone.
    pub evicted_at: i64,
    /// MoRef of the host.
    pub host: &'a str,
    /// vCPUs of a VM, threads of a host.
    pub vcpus: u32,
}

/// Everything that one simulated server published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Truth {
    /// Root of all values.
    pub seed: u64,
    /// vCenter or ESXi.
    pub kind: PlatformKind,
    /// `about.instanceUuid` of a vCenter, the hardware UUID of an ESXi host.
    pub identity: String,
    /// Server time at export.
    pub now: i64,
    /// How far the world had lived at export; differs from `now` only after a step back.
    pub horizon: i64,
    /// Microseconds from a stamp to its publication.
    pub publish_delay: i64,
    /// Seconds that the hosts' clocks are ahead of the server's.
    #[serde(default)]
    pub hosts_ahead: i64,
    /// Additional microseconds for roll-ups.
    pub rollup_delay: i64,
    /// Statistics level of the roll-ups; 0: none are kept. An ESXi host has no levels and keeps every counter.
    pub statistics_level: u8,
    /// Corrections of the server's clock.
    pub clock_steps: Vec<ClockStep>,
    /// Stamps that no entity had.
    pub not_lived: Vec<StampRange>,
    /// Late samples of all entities.
    pub late: Vec<Late>,
    /// Withheld cells of all entities.
    pub withheld: Vec<Withheld>,
    /// Every entity that ever existed: hosts, then VMs and templates.
    pub entities: Vec<EntityRecord>,
    #[serde(skip)]
    pub(crate) index: OnceLock<HashMap<String, usize>>,
}

/// One entity of a [`Truth`].
#[derive(Clone, Copy, Debug)]
pub struct Entity<'a> {
    truth: &'a Truth,
    record: &'a EntityRecord,
    /// The stamps that the clock jumped over: the running server has them in its clock, not here.
    not_lived: &'a [StampRange],
}

/// One series of an entity, resolved once so that many values cost little.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    entity: Entity<'a>,
    counter: &'static Counter,
    name: String,
    instance: String,
    root: u64,
    entity_root: u64,
}

impl Truth {
    /// Every entity that ever existed, also removed ones and templates.
    pub fn entities(&self) -> impl Iterator<Item = Entity<'_>> {
        self.entities.iter().map(|record| Entity {
            truth: self,
            record,
            not_lived: &self.not_lived,
        })
    }

    /// The entity with this MoRef.
    #[must_use]
    pub fn entity(&self, moref: &str) -> Option<Entity<'_>> {
        let index = self.index.get_or_init(|| {
            let morefs = self.entities.iter().map(|e| e.moref.clone());
            morefs.enumerate().map(|(i, m)| (m, i)).collect()
        });
        let record = self.entities.get(*index.get(moref)?)?;
        Some(Entity {
            truth: self,
            record,
            not_lived: &self.not_lived,
        })
    }

    /// The raw value of one cell; `None` if the counter, instance or sample does not exist or the
    /// cell is withheld for good. Withheld cells that are filled in later have their value here; see
    /// [`Truth::cell_available_at`].
    #[must_use]
    pub fn value(&self, moref: &str, counter: &str, instance: &str, stamp: i64) -> Option<i64> {
        self.entity(moref)?.value(counter, instance, stamp)
    }

    /// The instances of a counter at an entity now (`""` = the aggregate, first).
    #[must_use]
    pub fn instances(&self, moref: &str, counter: &str) -> Vec<String> {
        self.entity(moref)
            .map(|entity| entity.instances(counter))
            .unwrap_or_default()
    }

    /// The server time from which a cell of a published sample is filled, `None` = never.
    #[must_use]
    pub fn cell_available_at(&self, moref: &str, counter: &str, instance: &str, stamp: i64) -> Option<i64> {
        let series = self.entity(moref)?.series(counter, instance)?;
        series.available_at(stamp)
    }

    /// Whether roll-ups of a counter of this level are kept.
    pub(crate) fn keeps(&self, level: u8) -> bool {
        match self.kind {
            PlatformKind::Vcenter => level <= self.statistics_level,
            PlatformKind::Esxi => self.statistics_level > 0,
        }
    }

    pub(crate) fn at<'a>(&'a self, index: usize, not_lived: &'a [StampRange]) -> Option<Entity<'a>> {
        self.entities.get(index).map(|record| Entity {
            truth: self,
            record,
            not_lived,
        })
    }

    /// Seconds for which roll-ups of an interval are kept; `None`: there are none.
    #[must_use]
    pub fn retention(&self, interval: i64) -> Option<i64> {
        let rollups: &[(i64, i64)] = match self.kind {
            _ if self.statistics_level == 0 => &[],
            PlatformKind::Vcenter => &grid::ROLLUPS,
            PlatformKind::Esxi => &grid::ESXI_ROLLUPS,
        };
        rollups.iter().find(|r| r.0 == interval).map(|r| r.1)
    }
}

impl<'a> Entity<'a> {
    /// Its record.
    #[must_use]
    pub fn record(&self) -> &'a EntityRecord {
        self.record
    }

    /// Host or VM.
    #[must_use]
    pub fn kind(&self) -> EntityKind {
        self.record.kind
    }

    /// Managed object reference.
    #[must_use]
    pub fn moref(&self) -> &'a str {
        &self.record.moref
    }

    /// Its name now, as on the wire.
    #[must_use]
    pub fn name(&self) -> &'a str {
        &self.record.name
    }

    /// The samples with `from <= stamp <= to` that could be read at some time up to the export, in
    /// ascending order. Samples that were gone before anyone could read them are not published.
    pub fn samples(&self, from: i64, to: i64) -> impl Iterator<Item = PublishedSample<'a>> + use<'a> {
        let this = *self;
        let runs = this.record.runs.iter();
        let newest = this.newest(this.truth.horizon);
        let stamps = runs.flat_map(move |run| {
            let first = grid::ceil(run.first_stamp.max(from), INTERVAL);
            let last = run.last_stamp.unwrap_or(i64::MAX).min(to).min(newest);
            let count = if first <= last {
                (last - first) / INTERVAL + 1
            } else {
                0
            };
            (0..count).map(move |i| (run, first + i * INTERVAL))
        });
        stamps.filter_map(move |(run, stamp)| {
            let (published_at, evicted_at) = this.window(stamp)?;
            (published_at <= this.truth.horizon).then_some(PublishedSample {
                stamp,
                published_at,
                evicted_at,
                host: &run.host,
                vcpus: run.vcpus,
            })
        })
    }

    /// The raw value of one cell; see [`Truth::value`].
    #[must_use]
    pub fn value(&self, counter: &str, instance: &str, stamp: i64) -> Option<i64> {
        self.series(counter, instance)?.value(stamp)
    }

    /// The instances of a counter now (`""` = the aggregate, first).
    #[must_use]
    pub fn instances(&self, counter: &str) -> Vec<String> {
        let threads = self.record.runs.last().map_or(0, |run| run.vcpus);
        let Some(counter) = counters::catalog()
            .find(counter)
            .and_then(|index| counters::catalog().get(index))
        else {
            return Vec::new();
        };
        let mut all = Vec::new();
        if self.has_aggregate(counter) {
            all.push(String::new());
        }
        for number in 0..self.instance_count(counter, threads) {
            let mut name = String::new();
            self.push_instance(&mut name, counter.class(), number);
            all.push(name);
        }
        all
    }

    /// One series, resolved once.
    #[must_use]
    pub fn series(&self, counter: &str, instance: &str) -> Option<Series<'a>> {
        let catalog = counters::catalog();
        let index = catalog.find(counter)?;
        let counter = catalog.get(index)?;
        if instance.is_empty() {
            if !self.has_aggregate(counter) {
                return None;
            }
        } else {
            let most = self.record.runs.iter().map(|r| r.vcpus).max().unwrap_or(0);
            self.parse_instance(counter, instance, most)?;
        }
        let entity_root = value::entity_root(self.truth.seed, &self.record.moref);
        Some(Series {
            entity: *self,
            counter,
            name: catalog.name(index).to_owned(),
            instance: instance.to_owned(),
            root: value::series_root(entity_root, catalog.root(index), instance),
            entity_root,
        })
    }

    /// The run that covers a stamp, if the entity had a sample there.
    #[must_use]
    pub fn run_at(&self, stamp: i64) -> Option<&'a Run> {
        let run = self.record.runs.iter().rev().find(|r| r.contains(stamp))?;
        let skipped = self.not_lived.iter().any(|r| r.contains(stamp));
        (!skipped && stamp % INTERVAL == 0).then_some(run)
    }

    /// From when to when (server time) the sample of a stamp can be read, whether or not that time
    /// has come; `None` = never.
    fn window(&self, stamp: i64) -> Option<(i64, i64)> {
        if self.not_lived.iter().any(|r| r.contains(stamp)) {
            return None;
        }
        let mut published = self.scheduled(stamp);
        let evicted = self.evicted_at(stamp);
        for gap in &self.record.unreachable {
            if gap.from <= published && gap.to.is_none_or(|to| published < to) {
                published = gap.to?;
            }
        }
        (published < evicted).then_some((published, evicted))
    }

    fn scheduled(&self, stamp: i64) -> i64 {
        let late = self.truth.late.iter().chain(&self.record.late);
        let extra = late
            .filter(|late| late.stamps.contains(stamp))
            .map(|late| late.extra)
            .max();
        (stamp - self.truth.hosts_ahead) * MICROS + self.truth.publish_delay + extra.unwrap_or(0)
    }

    /// The newest stamp of its host's clock.
    pub(crate) fn newest(&self, horizon: i64) -> i64 {
        grid::newest_stamp(horizon + self.truth.hosts_ahead * MICROS)
    }

    fn evicted_at(&self, stamp: i64) -> i64 {
        let mut evicted = (stamp - self.truth.hosts_ahead + RING) * MICROS;
        for reset in &self.record.ring_resets {
            if stamp * MICROS <= *reset {
                evicted = evicted.min(*reset);
            }
        }
        evicted.min(self.record.removed_at.unwrap_or(i64::MAX))
    }

    /// Whether a query at `horizon` gets the sample (the entity being reachable).
    pub(crate) fn served(&self, stamp: i64, horizon: i64) -> bool {
        self.scheduled(stamp) <= horizon && horizon < self.evicted_at(stamp)
    }

    /// Whether a query now reaches the entity's host.
    pub(crate) fn reachable(&self) -> bool {
        self.record.unreachable.iter().all(|gap| gap.to.is_some())
    }

    pub(crate) fn moment(&self, stamp: i64, run: &Run, entity_root: u64) -> Moment {
        Moment {
            stamp,
            load: value::load(entity_root, stamp),
            threads: i64::from(run.vcpus),
            mhz: i64::from(self.record.profile.mhz),
            memory_kib: self.record.profile.memory_kib,
            booted_at: run.booted_at,
        }
    }

    fn offers(&self, counter: &Counter) -> bool {
        let profile = &self.record.profile;
        self.record.kind == EntityKind::Host
            || ((profile.tools || !counter.needs_tools())
                && (profile.block_storage || !counter.needs_block_storage()))
    }

    pub(crate) fn has_aggregate(&self, counter: &Counter) -> bool {
        self.offers(counter) && counter.offer(self.truth.kind, self.record.kind).aggregate()
    }

    pub(crate) fn instance_count(&self, counter: &Counter, threads: u32) -> u32 {
        if !self.offers(counter) || !counter.offer(self.truth.kind, self.record.kind).instances() {
            return 0;
        }
        let profile = &self.record.profile;
        match counter.class() {
            InstanceClass::None => 0,
            InstanceClass::Thread => threads,
            InstanceClass::Nic => profile.nics,
            InstanceClass::VirtualDisk => profile.disks,
            InstanceClass::Lun if self.record.kind == EntityKind::Vm => {
                u32::try_from(profile.datastores.len()).unwrap_or(0)
            }
            InstanceClass::Lun => profile.disks,
            InstanceClass::Adapter => profile.adapters,
            InstanceClass::Datastore => u32::try_from(profile.datastores.len()).unwrap_or(0),
        }
    }

    /// Appends the name of an instance.
    pub(crate) fn push_instance(&self, out: &mut String, class: InstanceClass, number: u32) {
        use std::fmt::Write as _;
        let host = self.record.kind == EntityKind::Host;
        let store = || {
            let stores = &self.record.profile.datastores;
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            stores.get(number).copied().unwrap_or(0)
        };
        // Writing to a String cannot fail.
        match class {
            InstanceClass::None => Ok(()),
            InstanceClass::Thread => write!(out, "{number}"),
            InstanceClass::Nic if host => write!(out, "vmnic{number}"),
            InstanceClass::Nic => write!(out, "{}", 4000 + number),
            InstanceClass::VirtualDisk => {
                // Unit 7 is the controller itself; 15 disks fit on one.
                let (controller, unit) = (number / 15, number % 15);
                write!(out, "scsi{controller}:{}", unit + u32::from(unit >= 7))
            }
            InstanceClass::Adapter => write!(out, "vmhba{number}"),
            InstanceClass::Lun if host => push_lun(out, self.truth.seed, number),
            InstanceClass::Lun => push_lun(out, self.truth.seed, store()),
            InstanceClass::Datastore => {
                out.push_str(&datastore_uuid(self.truth.seed, store()));
                Ok(())
            }
        }
        .unwrap_or_default();
    }

    /// The number of a named instance, if the entity has it.
    pub(crate) fn parse_instance(&self, counter: &Counter, name: &str, threads: u32) -> Option<u32> {
        let class = counter.class();
        let count = self.instance_count(counter, threads);
        let mut candidate = String::new();
        (0..count).find(|number| {
            candidate.clear();
            self.push_instance(&mut candidate, class, *number);
            candidate == name
        })
    }

    /// The lists of withheld cells that concern this entity.
    pub(crate) fn withheld(&self) -> impl Iterator<Item = &'a Withheld> + use<'a> {
        self.truth.withheld.iter().chain(&self.record.withheld)
    }
}

impl Series<'_> {
    /// The counter.
    #[must_use]
    pub fn counter(&self) -> &'static Counter {
        self.counter
    }

    /// The raw value at a stamp; see [`Truth::value`].
    #[must_use]
    pub fn value(&self, stamp: i64) -> Option<i64> {
        let raw = self.raw(stamp)?;
        let forever = self
            .entity
            .withheld()
            .any(|w| w.until.is_none() && hides(w, &self.name, &self.instance, stamp));
        (!forever).then_some(raw)
    }

    fn raw(&self, stamp: i64) -> Option<i64> {
        let run = self.entity.run_at(stamp)?;
        if !self.instance.is_empty() && self.counter.class() == InstanceClass::Thread {
            // A vCPU that was added later has no earlier samples.
            self.entity
                .parse_instance(self.counter, &self.instance, run.vcpus)?;
        }
        let moment = self.entity.moment(stamp, run, self.entity_root);
        let aggregate = self.instance.is_empty();
        Some(value::cell(self.counter.shape, self.root, aggregate, &moment))
    }

    /// The server time from which the cell of a published sample is filled, `None` = never.
    #[must_use]
    pub fn available_at(&self, stamp: i64) -> Option<i64> {
        self.raw(stamp)?;
        let (mut available, evicted) = self.entity.window(stamp)?;
        for withheld in self.entity.withheld() {
            if hides(withheld, &self.name, &self.instance, stamp) {
                available = available.max(withheld.until?);
            }
        }
        (available < evicted).then_some(available)
    }

    /// The roll-up over `interval` seconds that ends at `stamp`: the mean of the 20-second samples
    /// for averages and gauges, the sum for summations. `None` if the entity did not run through the
    /// whole interval or the statistics level does not keep the series.
    #[must_use]
    pub fn rollup(&self, interval: i64, stamp: i64) -> Option<i64> {
        let level = if self.instance.is_empty() {
            self.counter.level
        } else {
            self.counter.device_level
        };
        if !self.entity.truth.keeps(level) || interval % INTERVAL != 0 || stamp % interval != 0 {
            return None;
        }
        let count = interval / INTERVAL;
        let first = stamp - interval + INTERVAL;
        let mut values = (0..count).map(|i| self.raw(first + i * INTERVAL));
        match self.counter.rollup {
            Rollup::Maximum => values.try_fold(i64::MIN, |best, v| Some(best.max(v?))),
            Rollup::Minimum => values.try_fold(i64::MAX, |best, v| Some(best.min(v?))),
            Rollup::Summation => values.try_fold(0, |sum: i64, v| Some(sum + v?)),
            Rollup::Average | Rollup::Latest | Rollup::None => values
                .try_fold(0, |sum: i64, v| Some(sum + v?))
                .map(|sum| sum.div_euclid(count)),
        }
    }
}

/// Whether a withheld entry is about this cell.
pub(crate) fn hides(withheld: &Withheld, counter: &str, instance: &str, stamp: i64) -> bool {
    withheld.counter == counter
        && withheld.stamps.contains(stamp)
        && withheld.instance.as_deref().is_none_or(|i| i == instance)
}

/// The VMFS UUID of a datastore: last segment of its url and its instance name.
pub(crate) fn datastore_uuid(seed: u64, number: u32) -> String {
    let a = value::mix(value::mix(seed ^ 0xDA7A) ^ u64::from(number));
    let b = value::mix(a);
    format!(
        "{:08x}-{:08x}-{:04x}-{:012x}",
        a >> 32,
        a & 0xFFFF_FFFF,
        b >> 48,
        b & 0xFFFF_FFFF_FFFF
    )
}

fn push_lun(out: &mut String, seed: u64, number: u32) -> std::fmt::Result {
    use std::fmt::Write as _;
    let a = value::mix(value::mix(seed ^ 0x10B5) ^ u64::from(number));
    write!(out, "naa.6{:015x}{:016x}", a >> 4, value::mix(a))
}
