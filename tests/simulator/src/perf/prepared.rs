//! Cells as text before anybody asks for them, for a bench that wants to measure who asks and not who answers.
//!
//! Owns: the text of each cell of chosen counters over a span of stamps, as `csv` replies have it. A reply takes whole
//! slices of it; what is not here (other counters or stamps, an entity that has changed since) is computed as always.

use std::ops::Range;

use super::{Source, Wanted, Which};
use crate::grid::INTERVAL;
use crate::soap::MetricId;
use crate::truth::{Entity, Profile, Run};
use crate::value;

/// Texts by the number of the entity.
#[derive(Debug)]
pub(crate) struct Prepared {
    stamps: Range<i64>,
    entities: Vec<Texts>,
}

/// One entity's cells.
#[derive(Debug, Default)]
struct Texts {
    /// Its life and shape as the texts have it.
    runs: Vec<Run>,
    profile: Option<Profile>,
    /// Counter and instance, in order; the number is the place in `ends`.
    series: Vec<(usize, Which)>,
    /// All cells of the first series, each with a comma, then those of the next.
    text: String,
    /// Where each cell ends in `text`, behind its comma.
    ends: Vec<u32>,
}

/// The cells of one entity at the stamps of one reply.
pub(super) struct Window<'a> {
    texts: &'a Texts,
    per_series: usize,
    cells: Range<usize>,
}

impl Prepared {
    /// Prepares the cells of these counters, aggregates and instances, at all stamps of a range.
    pub(crate) fn new(source: &Source<'_>, counters: &[usize], stamps: Range<i64>) -> Self {
        let numbering = &source.state.numbering;
        let metrics: Vec<MetricId<'_>> = counters
            .iter()
            .map(|index| MetricId {
                counter: numbering.key(*index),
                instance: "*".into(),
            })
            .collect();
        let entities = 0..source.state.truth.entities.len();
        let texts = entities.map(|index| {
            let entity = source.state.truth.at(index, source.not_lived);
            entity.map_or_else(Texts::default, |entity| {
                Texts::new(source, &metrics, entity, stamps.clone())
            })
        });
        let entities = texts.collect();
        Self { stamps, entities }
    }

    /// The cells of an entity at these stamps, which ascend without a step; `None` unless all are here.
    pub(super) fn window(&self, index: usize, entity: Entity<'_>, stamps: &[i64]) -> Option<Window<'_>> {
        let texts = self.entities.get(index)?;
        let (first, last) = (*stamps.first()?, *stamps.last()?);
        let place = |stamp: i64| usize::try_from((stamp - self.stamps.start) / INTERVAL).ok();
        let cells = place(first)?..place(last)? + 1;
        let is_whole = cells.len() == stamps.len()
            && first >= self.stamps.start
            && last < self.stamps.end
            && texts.runs == entity.record().runs
            && texts.profile.as_ref() == Some(&entity.record().profile);
        is_whole.then_some(Window {
            texts,
            per_series: place(self.stamps.end)?,
            cells,
        })
    }
}

impl Texts {
    fn new(source: &Source<'_>, metrics: &[MetricId<'_>], entity: Entity<'_>, stamps: Range<i64>) -> Self {
        let record = entity.record();
        let root = value::entity_root(source.state.truth.seed, entity.moref());
        let step = usize::try_from(INTERVAL).unwrap_or(1);
        // A life with changes in it is left to the usual way.
        let [run] = &*record.runs else {
            return Self::default();
        };
        let moments: Vec<_> = stamps
            .step_by(step)
            .map(|stamp| entity.moment(stamp, run, root))
            .collect();
        let mut texts = Self {
            runs: record.runs.clone(),
            profile: Some(record.profile.clone()),
            ..Self::default()
        };
        let mut instance = String::new();
        let mut digits = itoa::Buffer::new();
        let mut wanted = source.wanted(metrics, entity, run.vcpus);
        wanted.sort_by_key(|wanted| (wanted.index, wanted.which));
        for wanted in wanted {
            let series = wanted.series(root, entity, &mut instance);
            let aggregate = wanted.which == Which::Aggregate;
            for moment in &moments {
                let cell = value::cell(wanted.counter.shape, series, aggregate, moment);
                texts.text.push_str(digits.format(cell));
                texts.text.push(',');
                texts
                    .ends
                    .push(u32::try_from(texts.text.len()).unwrap_or(u32::MAX));
            }
            texts.series.push((wanted.index, wanted.which));
        }
        texts
    }
}

impl Window<'_> {
    /// The cells of one series with a comma between two.
    pub(super) fn cells(&self, wanted: &Wanted) -> Option<&str> {
        let series = self.texts.series.binary_search(&(wanted.index, wanted.which));
        let begin = series.ok()? * self.per_series;
        let end = |cell: usize| {
            let before = (begin + cell).checked_sub(1);
            before.map_or(Some(0), |place| self.texts.ends.get(place).copied())
        };
        let from = usize::try_from(end(self.cells.start)?).ok()?;
        let to = usize::try_from(end(self.cells.end)?).ok()?;
        self.texts.text.get(from..to.checked_sub(1)?)
    }
}
