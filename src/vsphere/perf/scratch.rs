//! The series of one entity while its part of the answer is read, and their meeting with the columns.

use std::borrow::Cow;
use std::ops::Range;

use crate::model::columns::Column;
use crate::model::columns::SqlType;
use crate::model::ids::EntityKind;
use crate::model::sample::Cell;
use crate::model::sample::RowHead;
use crate::model::sample::Window;
use crate::soap::xml;
use crate::soap::xml::Reader;
use crate::units::Conversion;
use crate::units::Stamp;
use crate::vsphere::counters::KindCounters;
use crate::vsphere::counters::Recipe;
use crate::vsphere::perf::DecodeCounts;
use crate::vsphere::plan::Target;

/// No value: what a server means by any negative number.
const NONE: i64 = -1;

/// Samples of one entity: a ring has 180, a day of roll-ups 288.
const SAMPLES_LIMIT: usize = 10_000;

/// Series of one entity: forty counters, of which four come per instance, and a host has at most 1,024 datastores.
const SERIES_LIMIT: usize = 8_192;

/// Largest whole number that a cell holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[derive(Debug, Clone, Copy)]
struct Sample {
    stamp: Option<Stamp>,
    interval_seconds: u32,
}

#[derive(Debug, Clone)]
struct Series {
    /// In [`Scratch::values`], by the index of the sample; may be shorter.
    values: Range<usize>,
    /// A value was met in an earlier row.
    seen: bool,
}

/// Where a series belongs: its counter among those asked for, its instance among those met.
#[derive(Debug, Clone, Copy)]
struct Place {
    feed: usize,
    instance: usize,
}

/// The place of the aggregate among the instances.
const AGGREGATE: usize = 0;

/// The names of an entity's instances, each with a place of its own. Counters come with the same instances in the
/// same order nearly always, so that the name after the last one is tried first.
#[derive(Debug, Default)]
struct Instances {
    text: String,
    /// In the text; the place is one more.
    names: Vec<Range<usize>>,
    /// Indices of names, by name.
    sorted: Vec<usize>,
    /// The name that is likely to come next.
    next: usize,
}

impl Instances {
    fn clear(&mut self) {
        self.text.clear();
        self.names.clear();
        self.sorted.clear();
        self.next = 0;
    }

    fn name(&self, index: usize) -> &str {
        let range = self.names.get(index).cloned().unwrap_or_default();
        self.text.get(range).unwrap_or_default()
    }

    fn place(&mut self, name: &str) -> usize {
        if name.is_empty() {
            self.next = 0;
            return AGGREGATE;
        }
        let index = if self.next < self.names.len() && self.name(self.next) == name {
            self.next
        } else {
            match self.sorted.binary_search_by(|index| self.name(*index).cmp(name)) {
                Ok(found) => self.sorted.get(found).copied().unwrap_or_default(),
                Err(before) => {
                    let start = self.text.len();
                    self.text.push_str(name);
                    self.names.push(start..self.text.len());
                    self.sorted.insert(before, self.names.len() - 1);
                    self.names.len() - 1
                }
            }
        };
        self.next = index + 1;
        if self.next == self.names.len() {
            self.next = 0;
        }
        index + 1
    }
}

/// How a column is made of the series that came, as places in [`Scratch::series`].
#[derive(Debug, Clone)]
enum Plan {
    Null,
    One(usize),
    /// In [`Scratch::terms`].
    Sum(Range<usize>),
    /// In [`Scratch::terms`].
    Mean(Range<usize>),
}

/// A series and the one that weighs it.
#[derive(Debug, Clone, Copy)]
struct Term {
    value: usize,
    weight: Option<usize>,
}

/// Buffers that are cleared, not freed, between entities.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    samples: Vec<Sample>,
    series: Vec<Series>,
    instances: Instances,
    /// The series of each feed, by the place of its instance.
    places: Vec<Vec<Option<usize>>>,
    values: Vec<i64>,
    plans: Vec<Plan>,
    terms: Vec<Term>,
    order: Vec<(Stamp, usize)>,
    cells: Vec<Cell>,
    /// The last list of stamps and what it means: most entities of an answer share one.
    stamps_text: String,
    stamps: Vec<Sample>,
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        self.samples.clear();
        self.series.clear();
        self.instances.clear();
        for places in &mut self.places {
            places.clear();
        }
        self.values.clear();
    }

    /// `20,2026-01-31T10:00:20Z,20,2026-01-31T10:00:40Z`: interval and stamp in turn.
    pub(super) fn read_stamps(&mut self, text: &str, counts: &mut DecodeCounts) -> Result<(), xml::Error> {
        if text != self.stamps_text {
            self.stamps.clear();
            let mut fields = text.split(',').map(str::trim);
            while let Some(interval) = fields.next() {
                match fields.next() {
                    Some(stamp) => self.stamps.push(sample(interval, stamp)),
                    // An empty list is one empty field.
                    None if interval.is_empty() => {}
                    None => self.stamps.push(sample(interval, "")),
                }
                limit(self.stamps.len())?;
            }
            text.clone_into(&mut self.stamps_text);
        }
        self.samples.extend_from_slice(&self.stamps);
        limit(self.samples.len())?;
        counts.bad_stamps += count(self.stamps.iter().filter(|sample| sample.stamp.is_none()).count());
        Ok(())
    }

    /// The normal form's `<sampleInfo><timestamp/><interval/></sampleInfo>`.
    pub(super) fn read_stamp(
        &mut self,
        xml: &mut Reader<'_>,
        counts: &mut DecodeCounts,
    ) -> Result<(), xml::Error> {
        let (mut stamp, mut interval) = (None, None);
        while let Some(field) = xml.next_child()? {
            match field.name() {
                "timestamp" => stamp = Some(xml.text()?),
                "interval" => interval = Some(xml.text()?),
                _ => xml.skip()?,
            }
        }
        let sample = sample(
            interval.as_deref().unwrap_or_default(),
            stamp.as_deref().unwrap_or_default(),
        );
        counts.bad_stamps += u64::from(sample.stamp.is_none());
        self.samples.push(sample);
        limit(self.samples.len())
    }

    /// `<value><id><counterId/><instance/></id><value/>...</value>`, whose start was just entered.
    pub(super) fn read_series(
        &mut self,
        xml: &mut Reader<'_>,
        counters: &KindCounters,
        counts: &mut DecodeCounts,
    ) -> Result<(), xml::Error> {
        let value_start = self.values.len();
        let most = if self.samples.is_empty() {
            SAMPLES_LIMIT
        } else {
            self.samples.len()
        };
        let end = value_start + most;
        let mut place = None;
        // What servers send, in so many words.
        if let Some([counter, instance]) = xml.leaves("id", ["counterId", "instance"]) {
            place = self.place(counter, instance, counters, counts);
            if place.is_none() {
                return xml.skip();
            }
            while let Some(cells) = xml.leaf("value") {
                self.read_cells(cells, end, counts);
            }
        }
        // Whatever else means the same.
        while let Some(part) = xml.next_child()? {
            match part.name() {
                "id" => {
                    let (mut counter, mut instance) = (Cow::default(), Cow::default());
                    while let Some(field) = xml.next_child()? {
                        match field.name() {
                            "counterId" => counter = xml.text()?,
                            "instance" => instance = xml.text()?,
                            _ => xml.skip()?,
                        }
                    }
                    place = self.place(&counter, &instance, counters, counts);
                    if place.is_none() {
                        self.values.truncate(value_start);
                        return xml.skip();
                    }
                }
                "value" => self.read_cells(&xml.text()?, end, counts),
                _ => xml.skip()?,
            }
        }
        let Some(place) = place else {
            counts.unknown_counters += 1;
            self.values.truncate(value_start);
            return Ok(());
        };
        self.occupy(place);
        self.series.push(Series {
            values: value_start..self.values.len(),
            seen: false,
        });
        if self.series.len() > SERIES_LIMIT {
            return Err(xml::Error::value(
                "value",
                "",
                "one of at most 8,192 series of an entity",
            ));
        }
        Ok(())
    }

    /// The place of a series that was asked for and did not come before.
    fn place(
        &mut self,
        counter: &str,
        instance: &str,
        counters: &KindCounters,
        counts: &mut DecodeCounts,
    ) -> Option<Place> {
        let counter = counter.trim().parse().ok();
        let Some((feed, asked)) = counter.and_then(|counter| counters.feed(counter)) else {
            counts.unknown_counters += 1;
            return None;
        };
        // `*` brings the aggregate along where there is one; a sum over instances must not hold it.
        if instance.is_empty() && !asked.aggregate {
            return None;
        }
        // A server that did not expand `*` says nothing about what its number means.
        if instance == "*" || !instance.is_empty() && !asked.instances {
            counts.unknown_instances += 1;
            return None;
        }
        let place = Place {
            feed,
            instance: self.instances.place(instance),
        };
        if self.series_at(place).is_some() {
            counts.duplicate_series += 1;
            return None;
        }
        Some(place)
    }

    fn series_at(&self, place: Place) -> Option<usize> {
        *self.places.get(place.feed)?.get(place.instance)?
    }

    /// Notes that the next series stands in this place.
    fn occupy(&mut self, place: Place) {
        let Place { feed, instance } = place;
        if self.places.len() <= feed {
            self.places.resize_with(feed + 1, Vec::new);
        }
        let Some(places) = self.places.get_mut(feed) else {
            return;
        };
        if places.len() <= instance {
            places.resize(instance + 1, None);
        }
        if let Some(place) = places.get_mut(instance) {
            *place = Some(self.series.len());
        }
    }

    /// Cells of one `<value>`; those beyond the stamps have no meaning.
    fn read_cells(&mut self, text: &str, end: usize, counts: &mut DecodeCounts) {
        let mut rest = text;
        while self.values.len() < end {
            let (number, behind) = digits(rest);
            // Nothing but digits up to the comma: almost every cell there is.
            if let Some(number) = number
                && (behind.is_empty() || behind.starts_with(','))
            {
                self.values.push(number);
                rest = behind;
            } else {
                let (cell, behind) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                let cell = cell.trim_ascii();
                let value = if cell.is_empty() {
                    NONE
                } else {
                    cell.parse().unwrap_or_else(|_| {
                        counts.bad_values += 1;
                        NONE
                    })
                };
                self.values.push(value);
                rest = behind;
            }
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return,
            }
        }
    }

    /// The rows of the entity that was read.
    pub(super) fn window(
        &mut self,
        target: &Target,
        counters: &KindCounters,
        interval_seconds: u32,
        counts: &mut DecodeCounts,
    ) -> Window {
        self.plan(counters);
        self.count_instances(target.entity.kind, counts);
        self.sort_samples(interval_seconds, counts);
        let mut window = Window::with_capacity(target.entity, self.order.len());
        let columns = Column::of(target.entity.kind);
        let interval = u16::try_from(interval_seconds).unwrap_or(u16::MAX);
        for position in 0..self.order.len() {
            let Some((stamp, index)) = self.order.get(position).copied() else {
                break;
            };
            let complete = self.mark_seen(index);
            if stamp <= target.after {
                continue;
            }
            let mut filled = 0;
            self.cells.clear();
            for (column, plan) in columns.iter().zip(&self.plans) {
                let convert = |raw| {
                    column
                        .conversion
                        .apply(raw, interval_seconds, u32::from(target.cpus))
                };
                let cell = fit(self.combine(plan, index, convert), column, counts);
                filled += u64::from(!cell.is_null());
                self.cells.push(cell);
            }
            if filled == 0 {
                counts.empty_rows += 1;
                continue;
            }
            let host = target
                .placement
                .filter(|(_, since)| *since <= stamp)
                .map(|(host, _)| host);
            let host = host.filter(|_| target.entity.kind == EntityKind::Vm);
            let head = RowHead {
                stamp,
                interval_seconds: interval,
                host,
                cpus: target.cpus,
                complete,
            };
            // Stamps ascend strictly and the width is the table's, so the row is always taken.
            if window.push(head, &self.cells) {
                counts.rows += 1;
                counts.values += filled;
                counts.incomplete_rows += u64::from(!complete);
            }
        }
        window
    }

    /// Finds the series of each column.
    fn plan(&mut self, counters: &KindCounters) {
        self.plans.clear();
        self.terms.clear();
        for recipe in &counters.recipes {
            let plan = match *recipe {
                Recipe::Absent => Plan::Null,
                Recipe::Aggregate(feed) => self
                    .series_at(Place {
                        feed,
                        instance: AGGREGATE,
                    })
                    .map_or(Plan::Null, Plan::One),
                Recipe::Sum(feed) => Plan::Sum(self.gather(feed, None)),
                Recipe::Mean(feed, weight) => Plan::Mean(self.gather(feed, weight)),
            };
            self.plans.push(plan);
        }
    }

    /// The instances of a counter, each joined by name with its weight.
    fn gather(&mut self, feed: usize, weight: Option<usize>) -> Range<usize> {
        let start = self.terms.len();
        let of = |feed: usize| self.places.get(feed).map_or(&[][..], Vec::as_slice);
        let weights = weight.map_or(&[][..], of);
        let values = of(feed).iter().enumerate().skip(AGGREGATE + 1);
        self.terms.extend(values.filter_map(|(instance, value)| {
            let weight = weights.get(instance).copied().flatten();
            Some(Term {
                value: (*value)?,
                weight,
            })
        }));
        start..self.terms.len()
    }

    fn count_instances(&self, kind: EntityKind, counts: &mut DecodeCounts) {
        let terms = self.plans.iter().map(|plan| match plan {
            Plan::Sum(range) | Plan::Mean(range) => range.len(),
            Plan::Null | Plan::One(_) => 0,
        });
        let most = count(terms.max().unwrap_or(0));
        let place = match kind {
            EntityKind::Host => &mut counts.host_instances,
            EntityKind::Vm => &mut counts.vm_instances,
        };
        *place = most.max(*place);
    }

    /// The samples of the wanted interval, ascending, each stamp once.
    fn sort_samples(&mut self, interval_seconds: u32, counts: &mut DecodeCounts) {
        self.order.clear();
        for (index, sample) in self.samples.iter().enumerate() {
            match sample.stamp {
                Some(stamp) if sample.interval_seconds == interval_seconds => self.order.push((stamp, index)),
                Some(_) => counts.other_interval += 1,
                None => {}
            }
        }
        // Equal stamps stay in the order of the answer, so that the first of them is kept.
        self.order.sort_unstable();
        let before = self.order.len();
        self.order.dedup_by_key(|(stamp, _)| *stamp);
        counts.duplicate_stamps += count(before - self.order.len());
    }

    fn value(&self, series: usize, index: usize) -> Option<i64> {
        let values = self.values.get(self.series.get(series)?.values.clone())?;
        values.get(index).copied().filter(|value| *value >= 0)
    }

    /// False where a series has a hole here although it had a value in an earlier row.
    fn mark_seen(&mut self, index: usize) -> bool {
        let mut complete = true;
        for series in &mut self.series {
            let values = self.values.get(series.values.clone()).unwrap_or_default();
            let present = values.get(index).is_some_and(|value| *value >= 0);
            complete &= present || !series.seen;
            series.seen |= present;
        }
        complete
    }

    fn combine(&self, plan: &Plan, index: usize, convert: impl Fn(i64) -> Option<f64>) -> Option<f64> {
        match plan {
            Plan::Null => None,
            Plan::One(series) => convert(self.value(*series, index)?),
            Plan::Sum(range) => {
                let terms = self.terms.get(range.clone()).unwrap_or_default();
                let values = terms
                    .iter()
                    .filter_map(|term| convert(self.value(term.value, index)?));
                values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
            }
            Plan::Mean(range) => {
                let terms = self.terms.get(range.clone()).unwrap_or_default();
                let (mut weighted, mut weights, mut plain, mut n) = (0.0, 0.0, 0.0, 0.0);
                for term in terms {
                    let Some(value) = self.value(term.value, index).and_then(&convert) else {
                        continue;
                    };
                    let weight = term
                        .weight
                        .and_then(|weight| self.value(weight, index))
                        .unwrap_or(0);
                    // Operations per second: the conversion of a weight is none.
                    let weight = Conversion::AsIs.apply(weight, 1, 1).unwrap_or(0.0);
                    weighted += value * weight;
                    weights += weight;
                    plain += value;
                    n += 1.0;
                }
                if weights > 0.0 {
                    Some(weighted / weights)
                } else {
                    (n > 0.0).then(|| plain / n)
                }
            }
        }
    }
}

/// The number that a text starts with, if it starts with one of at most 18 digits, and what follows it.
fn digits(text: &str) -> (Option<i64>, &str) {
    let mut number = 0;
    let mut length = 0;
    for digit in text.bytes().take_while(u8::is_ascii_digit).take(18) {
        number = number * 10 + i64::from(digit - b'0');
        length += 1;
    }
    let (_, behind) = text.split_at(length);
    ((length > 0).then_some(number), behind)
}

fn sample(interval: &str, stamp: &str) -> Sample {
    match interval.parse() {
        Ok(interval_seconds) => Sample {
            stamp: stamp.parse().ok(),
            interval_seconds,
        },
        Err(_) => Sample {
            stamp: None,
            interval_seconds: 0,
        },
    }
}

fn limit(samples: usize) -> Result<(), xml::Error> {
    if samples > SAMPLES_LIMIT {
        return Err(xml::Error::value(
            "sampleInfo",
            "",
            "one of at most 10,000 samples of an entity",
        ));
    }
    Ok(())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The cell, or NULL where the column's type cannot hold the number: one mad value must not fail a whole COPY.
fn fit(value: Option<f64>, column: &Column, counts: &mut DecodeCounts) -> Cell {
    let Some(value) = value else { return Cell::NULL };
    let most = match column.sql_type {
        SqlType::Integer => f64::from(i32::MAX),
        SqlType::BigInt => EXACT,
        SqlType::Real => f64::from(f32::MAX),
    };
    if value > most {
        counts.out_of_range += 1;
        return Cell::NULL;
    }
    Cell::new(value)
}
