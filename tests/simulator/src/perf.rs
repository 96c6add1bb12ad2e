//! QueryPerf and the questions around it.
//!
//! Owns: which samples a query gets (bounds, ring, roll-ups), which series (wildcards, instances),
//! and their two text forms. Every value is computed when it is asked for, except those that were [`prepared`].

pub(crate) mod prepared;
mod reply;
mod window;

use std::cell::LazyCell;

use crate::clock::{Reading, StampRange};
use crate::counters::{self, Counter, InstanceClass};
use crate::grid::INTERVAL;
use crate::properties;
use crate::rules::{Action, Effects};
use crate::soap::{Fault, MetricId, QuerySpec, Ref, element, moref};
use crate::spec::EmptyEntities;
use crate::truth::{Entity, Run, Withheld, hides};
use crate::value::{self, Moment};
use crate::world::State;

use prepared::Prepared;

/// What a query is answered from.
pub(crate) struct Source<'a> {
    pub(crate) state: &'a State,
    pub(crate) reading: Reading,
    pub(crate) not_lived: &'a [StampRange],
    pub(crate) empty_entities: EmptyEntities,
    pub(crate) max_query_metrics: Option<i32>,
    pub(crate) prepared: Option<&'a Prepared>,
}

/// One series that a query asks for.
struct Wanted {
    key: i32,
    index: usize,
    counter: &'static Counter,
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Aggregate,
    Instance(u32),
}

impl Wanted {
    /// Root of the series' values; writes the name of its instance.
    fn series(&self, root: u64, entity: Entity<'_>, instance: &mut String) -> u64 {
        self.name(entity, instance);
        value::series_root(root, counters::catalog().root(self.index), instance)
    }

    /// Writes the name of its instance.
    fn name(&self, entity: Entity<'_>, instance: &mut String) {
        instance.clear();
        if let Which::Instance(number) = self.which {
            entity.push_instance(instance, self.counter.class(), number);
        }
    }
}

/// What the rules do to one entity's answer.
#[derive(Default)]
struct Twist<'a> {
    /// There is one of the others.
    any: bool,
    omit: bool,
    descending: bool,
    minus_one: Vec<Option<&'a str>>,
    empty: Vec<Option<&'a str>>,
    short: usize,
    off_grid: i64,
    no_zeros: bool,
    unexpanded: bool,
    twice: bool,
    extra: Vec<&'a str>,
}

impl<'a> Source<'a> {
    fn entity(&self, reference: &Ref<'_>) -> Option<Entity<'a>> {
        let index = *self.state.live.get(&*reference.value)?;
        let entity = self
            .state
            .truth
            .at(index, self.not_lived)
            .filter(|_| self.state.is_loaded(index))?;
        (entity.kind().type_name() == reference.kind).then_some(entity)
    }

    /// Another managed object that performance queries accept: it has historical data at most.
    fn historical_only(&self, reference: &Ref<'_>) -> bool {
        let historical = [
            "ClusterComputeResource",
            "ComputeResource",
            "Datacenter",
            "Datastore",
            "ResourcePool",
            "Folder",
        ];
        historical.contains(&&*reference.kind) && properties::exists(self.state, reference)
    }

    /// The inner XML of a QueryPerf reply.
    pub(crate) fn query(
        &self,
        out: &mut String,
        specs: &[QuerySpec<'_>],
        effects: &Effects,
    ) -> Result<(), Fault> {
        self.restrict(specs)?;
        for spec in specs {
            let Some(entity) = self.entity(&spec.entity) else {
                if !self.historical_only(&spec.entity) {
                    return Err(Fault::not_found(&spec.entity.kind, &spec.entity.value));
                }
                if spec.interval.is_some_and(|i| i64::from(i) == INTERVAL) {
                    return Err(Fault::invalid_argument("querySpec.interval"));
                }
                self.empty(out, spec);
                continue;
            };
            let twist = Twist::new(effects, entity.moref());
            let start = out.len();
            match spec.interval.map(i64::from) {
                None | Some(INTERVAL) => self.real_time(out, spec, entity, &twist),
                Some(interval) => {
                    let retention = self.state.truth.retention(interval);
                    let retention = retention.ok_or_else(|| Fault::invalid_argument("querySpec.interval"))?;
                    self.rollups(out, spec, entity, &twist, interval, retention);
                }
            }
            if twist.extra.is_empty() && !twist.twice {
                continue;
            }
            let part = out.get(start..).unwrap_or_default().to_owned();
            for extra in &twist.extra {
                let (own, other) = (format!(">{}<", entity.moref()), format!(">{extra}<"));
                out.push_str(&part.replacen(&own, &other, 1));
            }
            if twist.twice {
                out.push_str(&part);
            }
        }
        Ok(())
    }

    /// vCenter bounds roll-up queries; an ESXi host does not.
    fn restrict(&self, specs: &[QuerySpec<'_>]) -> Result<(), Fault> {
        if self.state.kind() == crate::PlatformKind::Esxi {
            return Ok(());
        }
        let limit = usize::try_from(self.max_query_metrics.unwrap_or(256)).unwrap_or(0);
        let historical = specs.iter().filter(|spec| {
            spec.interval
                .is_some_and(|interval| i64::from(interval) != INTERVAL)
        });
        let metrics: usize = historical.map(|spec| spec.metrics.len().max(1)).sum();
        if limit > 0 && metrics > limit {
            return Err(Fault::by_type("RestrictedByAdministrator", "", None));
        }
        Ok(())
    }

    fn empty(&self, out: &mut String, spec: &QuerySpec<'_>) {
        if self.empty_entities == EmptyEntities::Entry {
            reply::begin(out, spec, &spec.entity.kind, std::iter::empty(), INTERVAL);
            reply::end(out);
        }
    }

    fn real_time(&self, out: &mut String, spec: &QuerySpec<'_>, entity: Entity<'_>, twist: &Twist<'_>) {
        if twist.omit {
            return;
        }
        let mut stamps = window::real_time(entity, spec, self.reading.horizon);
        if stamps.is_empty() {
            return self.empty(out, spec);
        }
        if twist.descending {
            stamps.reverse();
        }
        let root = value::entity_root(self.state.truth.seed, entity.moref());
        let runs: Vec<(i64, &Run)> = stamps
            .iter()
            .filter_map(|stamp| Some((*stamp, entity.run_at(*stamp)?)))
            .collect();
        let threads = runs.iter().map(|(_, run)| run.vcpus).max().unwrap_or(0);
        let moments = LazyCell::new(|| -> Vec<(Moment, u32)> {
            let moment = |(stamp, run): &(i64, &Run)| (entity.moment(*stamp, run, root), run.vcpus);
            runs.iter().map(moment).collect()
        });
        let hidden: Vec<&Withheld> = entity
            .withheld()
            .filter(|w| w.until.is_none_or(|until| self.reading.horizon < until))
            .collect();
        let told = stamps.iter().map(|stamp| stamp + twist.off_grid);
        reply::begin(out, spec, entity.kind().type_name(), told, INTERVAL);
        let length = runs.len().saturating_sub(twist.short);
        let as_it_is = spec.csv && !twist.any && hidden.is_empty();
        let window = self.prepared.filter(|_| as_it_is).and_then(|prepared| {
            let index = *self.state.live.get(entity.moref())?;
            prepared.window(index, entity, &stamps)
        });
        let mut instance = String::new();
        for wanted in self.wanted(&spec.metrics, entity, threads) {
            if let Some(cells) = window.as_ref().and_then(|window| window.cells(&wanted)) {
                wanted.name(entity, &mut instance);
                reply::prepared(out, wanted.key, &instance, cells);
                continue;
            }
            let aggregate = wanted.which == Which::Aggregate;
            let series = wanted.series(root, entity, &mut instance);
            let name = counters::catalog().name(wanted.index);
            let hidden: Vec<&&Withheld> = hidden.iter().filter(|w| w.counter == name).collect();
            let constant = twist.value(name);
            let cells = moments.iter().map(|(moment, vcpus)| match constant {
                Some(value) => value,
                None => {
                    // A vCPU that was added later has no earlier samples.
                    let absent = wanted.counter.class() == InstanceClass::Thread
                        && matches!(wanted.which, Which::Instance(n) if n >= *vcpus);
                    let withheld = hidden.iter().any(|w| hides(w, name, &instance, moment.stamp));
                    let empty = absent || withheld;
                    (!empty).then(|| value::cell(wanted.counter.shape, series, aggregate, moment))
                }
            });
            let cells = cells.take(length);
            if twist.no_zeros && cells.clone().all(|cell| cell == Some(0)) {
                continue;
            }
            let instance = match wanted.which {
                Which::Instance(0) if twist.unexpanded => "*",
                Which::Instance(_) if twist.unexpanded => continue,
                _ => &instance,
            };
            reply::series(out, spec.csv, wanted.key, instance, cells);
        }
        reply::end(out);
    }

    fn rollups(
        &self,
        out: &mut String,
        spec: &QuerySpec<'_>,
        entity: Entity<'_>,
        twist: &Twist<'_>,
        interval: i64,
        retention: i64,
    ) {
        if twist.omit {
            return;
        }
        let horizon = self.reading.horizon;
        let truth = &self.state.truth;
        let delay = truth.publish_delay + truth.rollup_delay;
        let mut stamps = window::rollups(entity, spec, horizon - delay, interval, retention);
        if stamps.is_empty() {
            return self.empty(out, spec);
        }
        if twist.descending {
            stamps.reverse();
        }
        let told = stamps.iter().copied();
        reply::begin(out, spec, entity.kind().type_name(), told, interval);
        let mut instance = String::new();
        let threads = entity.record().runs.last().map_or(0, |run| run.vcpus);
        for wanted in self.wanted(&spec.metrics, entity, threads) {
            wanted.name(entity, &mut instance);
            let level = match wanted.which {
                Which::Aggregate => wanted.counter.level,
                Which::Instance(_) => wanted.counter.device_level,
            };
            let name = counters::catalog().name(wanted.index);
            let Some(series) = entity.series(name, &instance) else {
                continue;
            };
            if !truth.keeps(level) {
                continue;
            }
            let constant = twist.value(name);
            let cells = stamps
                .iter()
                .map(|stamp| constant.unwrap_or_else(|| series.rollup(interval, *stamp)));
            reply::series(out, spec.csv, wanted.key, &instance, cells);
        }
        reply::end(out);
    }

    /// The series of a query that the entity has, in the order of their numbers. Real servers have no
    /// particular order either: nobody may rely on that of the request.
    fn wanted(&self, metrics: &[MetricId<'_>], entity: Entity<'_>, threads: u32) -> Vec<Wanted> {
        let mut all = Vec::with_capacity(metrics.len() + 8);
        let numbering = &self.state.numbering;
        if metrics.is_empty() {
            for index in 0..counters::catalog().len() {
                add(&mut all, entity, numbering.key(index), index, "*", threads);
            }
        }
        for metric in metrics {
            if let Some(index) = numbering.index(metric.counter) {
                add(&mut all, entity, metric.counter, index, &metric.instance, threads);
            }
        }
        all.sort_by_key(|wanted| (wanted.key, wanted.which));
        all.dedup_by_key(|wanted| (wanted.key, wanted.which));
        all
    }

    /// The inner XML of a QueryPerfProviderSummary reply.
    pub(crate) fn provider(&self, out: &mut String, entity: &Ref<'_>) -> Result<(), Fault> {
        let current = self.entity(entity).is_some();
        if !current && !self.historical_only(entity) {
            return Err(Fault::not_found(&entity.kind, &entity.value));
        }
        out.push_str("<returnval>");
        moref(out, "entity", &entity.kind, &entity.value);
        element(out, "currentSupported", if current { "true" } else { "false" });
        element(out, "summarySupported", "true");
        if current {
            element(out, "refreshRate", "20");
        }
        out.push_str("</returnval>");
        Ok(())
    }

    /// The inner XML of a QueryAvailablePerfMetric reply.
    pub(crate) fn available(
        &self,
        out: &mut String,
        reference: &Ref<'_>,
        interval: Option<i32>,
    ) -> Result<(), Fault> {
        let Some(entity) = self.entity(reference) else {
            if self.historical_only(reference) {
                return Ok(());
            }
            return Err(Fault::not_found(&reference.kind, &reference.value));
        };
        let real_time = interval.map(i64::from) == Some(INTERVAL);
        let run = entity.record().runs.last();
        let running = run.is_some_and(|run| run.last_stamp.is_none());
        if real_time && !(running && entity.reachable()) {
            return Ok(());
        }
        let threads = run.map_or(0, |run| run.vcpus);
        for wanted in self.wanted(&[], entity, threads) {
            let mut instance = String::new();
            let level = match wanted.which {
                Which::Aggregate => wanted.counter.level,
                Which::Instance(number) => {
                    entity.push_instance(&mut instance, wanted.counter.class(), number);
                    wanted.counter.device_level
                }
            };
            if real_time || self.state.truth.keeps(level) {
                out.push_str("<returnval>");
                element(out, "counterId", &wanted.key.to_string());
                element(out, "instance", &instance);
                out.push_str("</returnval>");
            }
        }
        Ok(())
    }
}

/// Adds what an instance pattern means at an entity.
fn add(all: &mut Vec<Wanted>, entity: Entity<'_>, key: i32, index: usize, instance: &str, threads: u32) {
    let Some(counter) = counters::all().get(index) else {
        return;
    };
    let mut push = |which| {
        all.push(Wanted {
            key,
            index,
            counter,
            which,
        });
    };
    if matches!(instance, "" | "*") && entity.has_aggregate(counter) {
        push(Which::Aggregate);
    }
    if instance == "*" {
        for number in 0..entity.instance_count(counter, threads) {
            push(Which::Instance(number));
        }
    } else if !instance.is_empty()
        && let Some(number) = entity.parse_instance(counter, instance, threads)
    {
        push(Which::Instance(number));
    }
}

impl<'a> Twist<'a> {
    fn new(effects: &'a Effects, moref: &'a str) -> Self {
        let mut twist = Self::default();
        if effects.data.is_empty() {
            return twist;
        }
        for action in effects.on(moref) {
            twist.any = true;
            match action {
                Action::Descending => twist.descending = true,
                Action::OmitEntity => twist.omit = true,
                Action::MinusOne { counter } => twist.minus_one.push(counter.as_deref()),
                Action::EmptyCells { counter } => twist.empty.push(counter.as_deref()),
                Action::Short { cells } => twist.short = *cells,
                Action::OffGrid { seconds } => twist.off_grid = *seconds,
                Action::NoZeros => twist.no_zeros = true,
                Action::Unexpanded => twist.unexpanded = true,
                Action::Twice => twist.twice = true,
                Action::Extra { moref } => twist.extra.push(moref),
                _ => {}
            }
        }
        twist
    }

    /// What every cell of a counter is instead of its value: `Some(None)` = empty.
    fn value(&self, counter: &str) -> Option<Option<i64>> {
        let about = |rules: &[Option<&str>]| {
            let mut rules = rules.iter();
            rules.any(|rule| rule.is_none_or(|name| name == counter))
        };
        if about(&self.empty) {
            return Some(None);
        }
        about(&self.minus_one).then_some(Some(-1))
    }
}
