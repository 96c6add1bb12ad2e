//! Which counter ids feed which columns on this server.
//!
//! Owns: [`Counters`], made from the server's own list and the tables of [`crate::model::columns`]: all of them for
//! samples, those that the statistics level keeps for roll-ups.
//! Never does: assuming an id. Ids differ between servers and may change with an upgrade; they are read once per
//! login and belong to that login.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;

use crate::config::HostDisk;
use crate::model::columns::Column;
use crate::model::columns::Instances;
use crate::model::ids::EntityKind;
use crate::soap::Error;
use crate::soap::Object;
use crate::soap::methods::perf::MetricIds;
use crate::soap::methods::properties;
use crate::soap::methods::properties::Visit;
use crate::soap::methods::properties::Wanted;
use crate::soap::pool::Pinned;
use crate::soap::xml;
use crate::soap::xml::Element;
use crate::soap::xml::Reader;
use crate::units::Conversion;
use crate::vsphere::rollups::Interval;

/// What the operator decided about counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Which instances give a host's IOPS and disk latency.
    pub host_disk: HostDisk,
    /// Counters of hosts not to ask for, as named in the column table.
    pub skip_host: Vec<String>,
    /// Counters of VMs not to ask for.
    pub skip_vm: Vec<String>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            host_disk: HostDisk::StorageAdapter,
            skip_host: Vec::new(),
            skip_vm: Vec::new(),
        }
    }
}

impl Selection {
    /// The counter asked for in place of the table's: `None` where it is skipped.
    fn actual(&self, kind: EntityKind, counter: &'static str) -> Option<String> {
        let skipped = match kind {
            EntityKind::Host => &self.skip_host,
            EntityKind::Vm => &self.skip_vm,
        };
        if skipped.iter().any(|name| name == counter) {
            return None;
        }
        // The datastore group has the same four names as the storage adapters.
        match (kind, self.host_disk, counter.strip_prefix("storageAdapter.")) {
            (EntityKind::Host, HostDisk::Datastore, Some(name)) => Some(format!("datastore.{name}")),
            _ => Some(counter.to_owned()),
        }
    }
}

/// A counter as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterInfo {
    /// The server's id.
    pub id: i32,
    /// `group.name.rollup`; the name may hold dots itself.
    pub name: String,
    /// `percent`, `kiloBytes`, ...
    pub unit: String,
    /// The statistics level from which the server keeps roll-ups of its aggregate; unset on ESXi.
    pub level: Option<u8>,
    /// The same for its instances.
    pub per_device_level: Option<u8>,
}

impl CounterInfo {
    /// Whether a server at this statistics level keeps roll-ups of the counter; without a level it keeps what it has.
    fn is_kept_at(&self, level: Option<u8>, instances: bool) -> bool {
        let from = if instances {
            self.per_device_level
        } else {
            self.level
        };
        level.zip(from).is_none_or(|(level, from)| from <= level)
    }
}

/// A counter whose columns stay NULL on this server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unusable {
    /// For hosts or VMs.
    pub kind: EntityKind,
    /// The counter.
    pub counter: String,
    /// The unit in which the server has it, if it has it at all.
    pub unit: Option<String>,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unit {
            None => write!(f, "{} {} (not offered)", self.kind, self.counter),
            Some(unit) => write!(
                f,
                "{} {} (in {unit}, another unit than its column)",
                self.kind, self.counter
            ),
        }
    }
}

/// How a column is made of the series of an entity. The numbers are places in [`KindCounters::feeds`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// Always NULL.
    Absent,
    /// The aggregate of a counter.
    Aggregate(usize),
    /// The sum over the instances of a counter.
    Sum(usize),
    /// The mean over the instances, weighted by those of another counter.
    Mean(usize, Option<usize>),
}

/// A counter that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feed {
    pub(crate) id: i32,
    pub(crate) aggregate: bool,
    pub(crate) instances: bool,
}

/// The counters of one kind of entity.
#[derive(Debug, Clone, Default)]
pub(crate) struct KindCounters {
    /// What is asked for, ascending by id: forty entries are found by six comparisons, once per series. A table
    /// indexed by id would need millions of places, since ESXi composes ids of group and number.
    feeds: Vec<Feed>,
    /// One per column, in table order.
    pub(crate) recipes: Vec<Recipe>,
    /// The request's part for each entity of this kind.
    pub(crate) metric_ids: MetricIds,
}

impl KindCounters {
    /// The place of a counter that was asked for.
    pub(crate) fn feed(&self, id: i32) -> Option<(usize, Feed)> {
        let place = self.feeds.binary_search_by_key(&id, |feed| feed.id).ok()?;
        Some((place, *self.feeds.get(place)?))
    }

    /// Series of an entity that has this many instances of each counter.
    pub(crate) fn series(&self, instances: usize) -> usize {
        self.feeds
            .iter()
            .map(|feed| usize::from(feed.aggregate) + if feed.instances { instances + 1 } else { 0 })
            .sum()
    }
}

/// The counters of one login.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    host: KindCounters,
    vm: KindCounters,
    unusable: Vec<Unusable>,
}

impl Counters {
    /// From the server's list.
    #[must_use]
    pub fn new(catalog: &[CounterInfo], selection: &Selection) -> Self {
        Self::of_those(catalog, selection, &|_, _| true)
    }

    /// Those of them whose roll-ups a server keeps at a statistics level.
    #[must_use]
    pub fn kept_at(catalog: &[CounterInfo], selection: &Selection, level: Option<u8>) -> Self {
        Self::of_those(catalog, selection, &|counter, instances| {
            counter.is_kept_at(level, instances)
        })
    }

    fn of_those(catalog: &[CounterInfo], selection: &Selection, wanted: &Wants<'_>) -> Self {
        let mut known: HashMap<&str, &CounterInfo> = HashMap::with_capacity(catalog.len());
        for counter in catalog {
            known.entry(&counter.name).or_insert(counter);
        }
        let mut unusable = BTreeSet::new();
        let host = kind_counters(EntityKind::Host, &known, selection, wanted, &mut unusable);
        let vm = kind_counters(EntityKind::Vm, &known, selection, wanted, &mut unusable);
        Self {
            host,
            vm,
            unusable: unusable.into_iter().collect(),
        }
    }

    /// Counters of the column tables that this server does not have: their columns stay NULL.
    #[must_use]
    pub fn unusable(&self) -> &[Unusable] {
        &self.unusable
    }

    /// Names of the columns that are asked for, in table order.
    #[must_use]
    pub fn columns(&self, kind: EntityKind) -> Vec<&'static str> {
        let recipes = &self.of(kind).recipes;
        Column::of(kind)
            .iter()
            .zip(recipes)
            .filter(|(_, recipe)| **recipe != Recipe::Absent)
            .map(|(column, _)| column.name)
            .collect()
    }

    pub(crate) const fn of(&self, kind: EntityKind) -> &KindCounters {
        match kind {
            EntityKind::Host => &self.host,
            EntityKind::Vm => &self.vm,
        }
    }
}

/// Whether a counter is to be asked for: its aggregate, or its instances.
type Wants<'a> = dyn Fn(&CounterInfo, bool) -> bool + 'a;

fn kind_counters(
    kind: EntityKind,
    known: &HashMap<&str, &CounterInfo>,
    selection: &Selection,
    wanted: &Wants<'_>,
    unusable: &mut BTreeSet<Unusable>,
) -> KindCounters {
    let mut find = |counter: &'static str, unit: &str, instances: bool| {
        let name = selection.actual(kind, counter)?;
        match known.get(name.as_str()) {
            Some(info) if info.unit == unit => wanted(info, instances).then_some(info.id),
            found => {
                let unit = found.map(|info| info.unit.clone());
                unusable.insert(Unusable {
                    kind,
                    counter: name,
                    unit,
                });
                None
            }
        }
    };
    let mut feeds: Vec<Feed> = Vec::new();
    let mut ask = |id: i32, instances: bool| match feeds.iter_mut().find(|feed| feed.id == id) {
        Some(feed) => {
            feed.aggregate |= !instances;
            feed.instances |= instances;
        }
        None => feeds.push(Feed {
            id,
            aggregate: !instances,
            instances,
        }),
    };
    // The ids of each column first; their places are known only when all are.
    let columns: Vec<(Option<i32>, Option<i32>)> = Column::of(kind)
        .iter()
        .map(|column| {
            let instances = column.instances != Instances::Aggregate;
            let value = find(column.counter, unit(column), instances);
            let weight = match column.instances {
                Instances::MeanWeightedBy(weight) if value.is_some() => find(weight, "number", instances),
                _ => None,
            };
            for id in [value, weight].into_iter().flatten() {
                ask(id, instances);
            }
            (value, weight)
        })
        .collect();
    feeds.sort_unstable_by_key(|feed| feed.id);
    let place = |id: i32| feeds.binary_search_by_key(&id, |feed| feed.id).ok();
    let recipes = Column::of(kind)
        .iter()
        .zip(columns)
        .map(
            |(column, (value, weight))| match (value.and_then(place), column.instances) {
                (None, _) => Recipe::Absent,
                (Some(value), Instances::Aggregate) => Recipe::Aggregate(value),
                (Some(value), Instances::Sum) => Recipe::Sum(value),
                (Some(value), Instances::MeanWeightedBy(_)) => Recipe::Mean(value, weight.and_then(place)),
            },
        )
        .collect();
    let series = feeds.iter().flat_map(|feed| {
        let aggregate = feed.aggregate.then_some((feed.id, false));
        aggregate
            .into_iter()
            .chain(feed.instances.then_some((feed.id, true)))
    });
    let metric_ids = MetricIds::new(series);
    KindCounters {
        feeds,
        recipes,
        metric_ids,
    }
}

/// The unit in which a column's counter must come, `PerfCounterInfo.unitInfo.key`. In another unit the number
/// would be wrong by a factor, which is worse than no number.
fn unit(column: &Column) -> &'static str {
    match column.conversion {
        Conversion::Hundredths => "percent",
        Conversion::MebibytesToKibibytes => "megaBytes",
        Conversion::PercentOfTimePerCpu => "millisecond",
        Conversion::PerSecond => "number",
        Conversion::AsIs => {
            let suffixes = [
                ("_kib", "kiloBytes"),
                ("_kibps", "kiloBytesPerSecond"),
                ("_mhz", "megaHertz"),
                ("_ms", "millisecond"),
                ("_watts", "watt"),
                ("_seconds", "second"),
            ];
            suffixes
                .iter()
                .find(|(suffix, _)| column.name.ends_with(suffix))
                .map_or("number", |(_, unit)| unit)
        }
    }
}

/// What a server says of its statistics.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) counters: Vec<CounterInfo>,
    pub(crate) intervals: Vec<Interval>,
}

/// Reads the server's lists of counters and of the intervals for which it keeps roll-ups.
pub(crate) async fn read(session: &Pinned) -> Result<Catalog, Error> {
    let manager: &Object = session
        .content()
        .perf_manager
        .as_ref()
        .ok_or(Error::Absent("perfManager"))?;
    let wanted = [Wanted {
        kind: "PerformanceManager",
        paths: &["perfCounter", "historicalInterval"],
    }];
    let (catalog, _withheld) =
        properties::retrieve::<Catalog>(session, properties::From::Object(manager), &wanted).await?;
    Ok(catalog)
}

impl Visit for Catalog {
    fn object(&mut self, _object: Object) {}

    fn property(&mut self, path: &str, _value: &Element<'_>, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        match path {
            "perfCounter" => self.read_counters(xml),
            "historicalInterval" => {
                while let Some(_interval) = xml.next_child()? {
                    self.intervals.push(Interval::read(xml)?);
                }
                Ok(())
            }
            _ => xml.skip(),
        }
    }
}

impl Catalog {
    fn read_counters(&mut self, xml: &mut Reader<'_>) -> Result<(), xml::Error> {
        while let Some(_info) = xml.next_child()? {
            let (mut id, mut level, mut per_device_level) = (None, None, None);
            let [mut group, mut name, mut unit, mut rollup] = [const { String::new() }; 4];
            while let Some(field) = xml.next_child()? {
                match field.name() {
                    // A counter with an id that is no i32 cannot be asked for.
                    "key" => id = xml.text()?.parse().ok(),
                    "nameInfo" => name = read_key(xml)?,
                    "groupInfo" => group = read_key(xml)?,
                    "unitInfo" => unit = read_key(xml)?,
                    "rollupType" => rollup = xml.text()?.into_owned(),
                    // Captures of ESXi have 0: no level.
                    "level" => level = xml.text()?.parse().ok().filter(|level| *level > 0),
                    "perDeviceLevel" => {
                        per_device_level = xml.text()?.parse().ok().filter(|level| *level > 0);
                    }
                    _ => xml.skip()?,
                }
            }
            if let Some(id) = id {
                self.counters.push(CounterInfo {
                    id,
                    name: format!("{group}.{name}.{rollup}"),
                    unit,
                    level,
                    per_device_level,
                });
            }
        }
        Ok(())
    }
}

/// The `key` of an ElementDescription.
fn read_key(xml: &mut Reader<'_>) -> Result<String, xml::Error> {
    let mut key = String::new();
    while let Some(field) = xml.next_child()? {
        match field.name() {
            "key" => key = xml.text()?.into_owned(),
            _ => xml.skip()?,
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: i32, name: &str, unit: &str) -> CounterInfo {
        CounterInfo {
            id,
            name: name.to_owned(),
            unit: unit.to_owned(),
            level: None,
            per_device_level: None,
        }
    }

    #[test]
    fn counters_of_another_unit_and_absent_ones_are_reported_once() {
        let catalog = [
            info(2, "cpu.usage.average", "percent"),
            info(7, "cpu.usagemhz.average", "percent"),
            info(65_537, "virtualDisk.numberReadAveraged.average", "number"),
            info(3, "virtualDisk.totalReadLatency.average", "millisecond"),
        ];
        let selection = Selection {
            skip_vm: vec!["cpu.ready.summation".to_owned()],
            ..Selection::default()
        };
        let counters = Counters::new(&catalog, &selection);
        let unusable: Vec<String> = counters.unusable().iter().map(ToString::to_string).collect();
        assert!(
            unusable
                .contains(&"vm cpu.usagemhz.average (in percent, another unit than its column)".to_owned())
        );
        assert!(unusable.contains(&"vm cpu.demand.average (not offered)".to_owned()));
        assert!(unusable.contains(&"host cpu.ready.summation (not offered)".to_owned()));
        assert!(
            !unusable.contains(&"vm cpu.ready.summation (not offered)".to_owned()),
            "skipped on purpose"
        );
        let mut once = unusable.clone();
        once.dedup();
        assert_eq!(once, unusable);

        let vm = counters.of(EntityKind::Vm);
        assert_eq!(
            vm.feeds.iter().map(|feed| feed.id).collect::<Vec<_>>(),
            [2, 3, 65_537]
        );
        let recipe = |name: &str| {
            let column = Column::of(EntityKind::Vm)
                .iter()
                .position(|column| column.name == name)
                .unwrap();
            vm.recipes[column]
        };
        assert_eq!(recipe("cpu_usage_percent"), Recipe::Aggregate(0));
        assert_eq!(recipe("disk_read_iops"), Recipe::Sum(2));
        assert_eq!(recipe("disk_read_latency_ms"), Recipe::Mean(1, Some(2)));
        assert_eq!(recipe("disk_write_latency_ms"), Recipe::Absent);
        // Two disks: the aggregate of usage; each disk and a possible aggregate of the other two.
        assert_eq!(vm.series(2), 1 + 3 + 3);
        assert!(!counters.of(EntityKind::Host).metric_ids.is_empty());
        assert!(
            Counters::new(&[], &selection)
                .of(EntityKind::Vm)
                .metric_ids
                .is_empty()
        );
    }

    #[test]
    fn names_with_dots_are_put_together_as_they_are() {
        let mut list = Catalog::default();
        let document = "<val><PerfCounterInfo><key>5</key><nameInfo><label>x</label><summary>y</summary>\
                        <key>capacity.demand</key></nameInfo><groupInfo><key>cpu</key></groupInfo><unitInfo>\
                        <key>megaHertz</key></unitInfo><rollupType>average</rollupType><level>2</level>\
                        <associatedCounterId>6</associatedCounterId></PerfCounterInfo></val>";
        let mut xml = Reader::new(document);
        let value = xml.root().unwrap();
        list.property("perfCounter", &value, &mut xml).unwrap();
        xml.finish().unwrap();
        assert_eq!(
            list.counters,
            [CounterInfo {
                level: Some(2),
                ..info(5, "cpu.capacity.demand.average", "megaHertz")
            }]
        );
    }
}
