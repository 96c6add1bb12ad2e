//! Several answers of the source joined to one flush, the chain kept across them.
//!
//! Owns: what each answer makes of an entity's past. Never does: I/O. An entity may stand in several answers of one
//! flush; each continues from the past that the one before has made.

use std::collections::HashMap;

use super::chain::{self, Memory, Past, Residue, ServerTime, Unkept, Watermarks};
use super::queue::{Found, Turn, Work};
use super::salvage::{Extent, Mark, Origin};
use crate::model::gap::GapLane;
use crate::model::gap::NewGap;
use crate::model::gap::OpenGap;
use crate::model::gap::Reason;
use crate::model::ids::EntityId;
use crate::model::sample::Window;
use crate::store::copy::Flush;
use crate::units::Stamp;

/// What a transaction is to store, and what is true once it has.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// For the database.
    pub(super) flush: Flush,
    /// Which part of it came from which answer, in order.
    pub(super) marks: Vec<Mark>,
    /// The pasts after COMMIT.
    pub(super) pasts: HashMap<EntityId, Past>,
    /// Samples that were not kept.
    pub(super) unkept: Unkept,
    /// Live samples, for their age at COMMIT.
    pub(super) live: Vec<(Turn, Stamp)>,
    /// Rows from inside gaps.
    pub(super) n_recovered: usize,
    /// Gaps explained.
    pub(super) explained: HashMap<Reason, usize>,
    /// The lanes that have new work, as often as they have.
    pub(super) opened: Vec<GapLane>,
}

impl Joined {
    /// Adds one answer; returns how many of its rows are stored.
    pub(super) fn add(&mut self, work: Work, turn: Turn, watermarks: &Watermarks) -> usize {
        match work {
            Work::Live(windows) => windows
                .into_iter()
                .map(|window| {
                    self.mark(window.entity, Origin::Live, watermarks, |joined| {
                        joined.extend(window, turn, watermarks)
                    })
                })
                .sum(),
            Work::Ring(gaps) => self.fill_all(gaps, GapLane::Ring, Memory::Ring, turn.at, watermarks),
            Work::Rollup { gaps, since } => {
                let memory = Memory::Rollups { since };
                self.fill_all(gaps, GapLane::Rollup, memory, turn.at, watermarks)
            }
            Work::Quiet(entities) => {
                for entity in entities {
                    self.mark(entity, Origin::Quiet, watermarks, |joined| {
                        joined.fall_silent(entity, turn.at, watermarks);
                        0
                    });
                }
                0
            }
        }
    }

    /// Joins one answer about one entity, and marks what the flush has grown by.
    fn mark(
        &mut self,
        entity: EntityId,
        origin: Origin,
        watermarks: &Watermarks,
        join: impl FnOnce(&mut Self) -> usize,
    ) -> usize {
        let before = self.past(entity, watermarks);
        let start = Extent::of(&self.flush);
        let n_rows = join(self);
        let extent = Extent::of(&self.flush).since(start);
        if extent != Extent::default() {
            let after = self.past(entity, watermarks);
            self.marks.push(Mark {
                entity,
                origin,
                before,
                after,
                extent,
                n_rows,
            });
        }
        n_rows
    }

    fn past(&self, entity: EntityId, watermarks: &Watermarks) -> Past {
        self.pasts
            .get(&entity)
            .copied()
            .or_else(|| watermarks.get(entity))
            .unwrap_or_default()
    }

    fn extend(&mut self, mut window: Window, turn: Turn, watermarks: &Watermarks) -> usize {
        let entity = window.entity;
        let past = self.past(entity, watermarks);
        if past.silent && self.explains_the_end_of(entity) {
            // The ring lane has just answered for the gap without an end: what follows it is asked for again.
            self.unkept.held += window.len();
            return 0;
        }
        let extension = chain::extend(past, &mut window, turn.at);
        self.unkept.add(extension.unkept);
        // A refused stamp explains the step that the next good one leaves.
        let refused = (extension.unkept.refused > 0).then_some(Reason::Refused);
        if window.is_empty() {
            if refused.is_some() {
                self.pasts.insert(
                    entity,
                    Past {
                        hint: refused,
                        ..past
                    },
                );
            }
            return 0;
        }
        if past.silent {
            self.flush.speaking.push(entity);
        }
        self.open(extension.gaps);
        self.pasts.insert(
            entity,
            Past {
                watermark: extension.watermark,
                silent: false,
                hint: refused,
            },
        );
        self.live
            .extend(window.heads().iter().map(|head| (turn, head.stamp)));
        let n_rows = window.len();
        self.flush.windows.push(window);
        n_rows
    }

    fn fill_all(
        &mut self,
        gaps: Vec<(OpenGap, Found)>,
        lane: GapLane,
        memory: Memory,
        at: ServerTime,
        watermarks: &Watermarks,
    ) -> usize {
        let n_rows = gaps
            .into_iter()
            .map(|(gap, found)| {
                self.mark(gap.entity, Origin::Gap(gap, lane), watermarks, |joined| {
                    joined.fill(&gap, found, at, memory, watermarks)
                })
            })
            .sum();
        self.n_recovered += n_rows;
        n_rows
    }

    fn fill(
        &mut self,
        gap: &OpenGap,
        found: Found,
        at: ServerTime,
        memory: Memory,
        watermarks: &Watermarks,
    ) -> usize {
        if gap.step.to.is_none() && !self.past(gap.entity, watermarks).silent {
            // The entity has spoken meanwhile: its gap has an end now, and is asked for with it.
            return 0;
        }
        let mut n_rows = 0;
        let residue: Residue = match found {
            Found::Rows(mut window) => {
                let residue = chain::fill(gap, &mut window, at, memory);
                n_rows = window.len();
                if let (None, Some(newest)) = (gap.step.to, window.heads().last()) {
                    // Nothing is stored behind a gap without an end: what it held is the newest.
                    let past = self.past(gap.entity, watermarks);
                    self.pasts.insert(
                        gap.entity,
                        Past {
                            watermark: Some(newest.stamp),
                            ..past
                        },
                    );
                }
                if n_rows > 0 {
                    self.flush.windows.push(window);
                }
                residue
            }
            Found::Gone(reason) => chain::give_up(gap, reason),
            Found::Refused => {
                self.flush.gaps_asked.push(gap.id);
                return 0;
            }
        };
        self.unkept.add(residue.unkept);
        for gap in &residue.gaps {
            match gap.reason {
                Some(reason) => *self.explained.entry(reason).or_default() += 1,
                None => self.opened.push(gap.lane),
            }
        }
        self.flush.gaps_done.push(gap.id);
        self.flush.gaps_new.extend(residue.gaps);
        n_rows
    }

    fn fall_silent(&mut self, entity: EntityId, at: ServerTime, watermarks: &Watermarks) {
        let past = self.past(entity, watermarks);
        if let Some(gap) = chain::fall_silent(entity, past, at) {
            self.open(vec![gap]);
            self.pasts.insert(entity, Past { silent: true, ..past });
        }
    }

    fn explains_the_end_of(&self, entity: EntityId) -> bool {
        let is_its_end = |gap: &NewGap| gap.entity == entity && gap.step.to.is_none();
        self.flush.gaps_new.iter().any(is_its_end)
    }

    fn open(&mut self, gaps: Vec<NewGap>) {
        self.opened.extend(gaps.iter().map(|gap| gap.lane));
        self.flush.gaps_new.extend(gaps);
    }
}

#[cfg(test)]
mod tests;
