//! The roll-ups that a server keeps beyond the hour of samples: of which columns, for how long.
//!
//! Owns: reading them from the server's own lists. Only the 300-second ones count: the next coarser ones are of 30
//! minutes. Never does: asking for them; [`Vsphere::query_batch`](super::Vsphere::query_batch) does, by the interval.

use std::sync::Arc;
use std::time::Duration;

use crate::model::ids::EntityKind;
use crate::soap::xml;
use crate::soap::xml::Reader;
use crate::units::ROLLUP_SECONDS;
use crate::units::Stamp;
use crate::vsphere::counters::{Catalog, Counters, Selection};

/// However long a server keeps its roll-ups: what is older is of no use, since rows need not be kept for longer.
pub const LONGEST_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);

/// The level that a site is told about where it keeps less.
const NEXT_LEVEL: u8 = 2;

/// One of the server's `historicalInterval`s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) period_seconds: u32,
    pub(crate) kept_seconds: u64,
    pub(crate) level: Option<u8>,
    pub(crate) enabled: bool,
}

impl Interval {
    /// A PerfInterval. Its key says nothing: some servers repeat it.
    pub(crate) fn read(xml: &mut Reader<'_>) -> Result<Self, xml::Error> {
        let mut interval = Self::default();
        while let Some(field) = xml.next_child()? {
            match field.name() {
                "samplingPeriod" => interval.period_seconds = xml.text()?.parse().unwrap_or(0),
                "length" => interval.kept_seconds = xml.text()?.parse().unwrap_or(0),
                "level" => interval.level = xml.text()?.parse().ok().filter(|level| *level > 0),
                "enabled" => interval.enabled = matches!(&*xml.text()?, "true" | "1"),
                _ => xml.skip()?,
            }
        }
        Ok(interval)
    }
}

/// The oldest roll-ups are about to go and are not counted on: a question that reaches beyond what is kept is answered
/// with coarser ones.
const ABOUT_TO_GO: Duration = Duration::from_secs(ROLLUP_SECONDS as u64);

/// The 300-second roll-ups of a server.
#[derive(Debug, Clone)]
pub struct Rollups {
    /// How long they are kept, as far as they are of use.
    pub kept: Duration,
    /// The statistics level; `None` where the server has none (ESXi) and keeps what it has.
    pub level: Option<u8>,
    /// The counters that are kept.
    pub counters: Arc<Counters>,
    /// Columns that a statistics level of 2 would add.
    pub added_by_level_two: Vec<(EntityKind, &'static str)>,
}

impl Rollups {
    /// The oldest stamp that is still sure to be there at a time of the server's clock.
    #[must_use]
    pub fn since(&self, server_now: Stamp) -> Stamp {
        server_now.minus(self.kept.saturating_sub(ABOUT_TO_GO))
    }

    /// From the server's lists; `None` where it keeps no such roll-ups.
    pub(crate) fn of(catalog: &Catalog, selection: &Selection) -> Option<Self> {
        let interval = catalog
            .intervals
            .iter()
            .find(|interval| interval.period_seconds == ROLLUP_SECONDS && interval.enabled)?;
        let counters = Counters::kept_at(&catalog.counters, selection, interval.level);
        let more = interval
            .level
            .filter(|level| *level < NEXT_LEVEL)
            .map(|_| Counters::kept_at(&catalog.counters, selection, Some(NEXT_LEVEL)));
        let added_by_level_two = more.iter().flat_map(|more| {
            EntityKind::ALL.into_iter().flat_map(|kind| {
                let kept = counters.columns(kind);
                let columns = more.columns(kind).into_iter();
                columns
                    .filter(move |column| !kept.contains(column))
                    .map(move |column| (kind, column))
            })
        });
        Some(Self {
            kept: Duration::from_secs(interval.kept_seconds).min(LONGEST_KEPT),
            level: interval.level,
            added_by_level_two: added_by_level_two.collect(),
            counters: Arc::new(counters),
        })
    }
}
