//! The chain: for each entity, in order of stamp, a row's interval starts, within ten seconds, where the row before it
//! ends, or ONE gap row spans the step between them.
//!
//! Owns: that rule, in [`extend`] (live rows, behind the watermark), [`fill`] (rows inside a gap) and [`fall_silent`]
//! (no rows for five minutes), and the [`Watermarks`]. Never does: I/O. What these functions return is written in one
//! transaction, so the rule holds in the database at every moment, whatever is killed.
//!
//! The watermark of an entity is its newest stored row of the 20-second interval: everything before it is stored or
//! explained. It comes from the data, moves only after COMMIT, and is read again after any doubt.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::gap::{GapLane, NewGap, OpenGap, Reason, Step};
use crate::model::ids::EntityId;
use crate::model::sample::{RowHead, Window};
use crate::units::{REALTIME_SECONDS, ROLLUP_SECONDS, Stamp};

/// A sample younger than this may still change: vCenter fills cells and late samples in for some seconds.
pub const SETTLE: Duration = Duration::from_secs(60);

/// ESXi keeps one hour; the last minute of it is about to go and is not counted on.
pub const RING: Duration = Duration::from_secs(59 * 60);

/// Stamps older than this are refused: nothing the lanes ask for can be.
const OLDEST: Duration = Duration::from_secs(25 * 3600);

/// Stamps further ahead of the server's clock than this are refused: one wrong year would create a chunk of its own.
const NEWEST: Duration = Duration::from_secs(5 * 60);

/// An entity that delivers nothing for this long while its platform answers is silent: from then on a gap without an
/// end says so, and its next row closes it.
pub const SILENT_AFTER: Duration = Duration::from_secs(5 * 60);

/// Roll-ups appear this late at worst: what is younger than that is asked for once more before it is given up.
pub const ROLLUPS_LATE: Duration = Duration::from_secs(45 * 60);

const ROLLUP: Duration = Duration::from_secs(ROLLUP_SECONDS as u64);

/// The interval of a live row, as rows hold it.
const REALTIME_INTERVAL: u16 = 20;

/// Neighbours touch where one starts this close to the end of the other: half of a 20-second interval, beside a roll-up
/// as well. Half of the roll-up's own interval would let it hide seven samples.
const TOLERANCE_MICROS: i64 = REALTIME_SECONDS as i64 * 1_000_000 / 2;

/// The server's clock when the source was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerTime(pub Stamp);

impl ServerTime {
    /// The oldest stamp that the ring is still sure to hold.
    #[must_use]
    pub fn ring_start(self) -> Stamp {
        self.0.minus(RING)
    }

    /// The oldest stamp that is not refused.
    #[must_use]
    pub fn oldest(self) -> Stamp {
        self.0.minus(OLDEST)
    }

    fn is_sane(self, stamp: Stamp) -> bool {
        (self.oldest()..=self.0.plus(NEWEST)).contains(&stamp)
    }

    fn is_settled(self, stamp: Stamp) -> bool {
        self.0.since(stamp) >= SETTLE
    }
}

/// Samples that were not kept, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unkept {
    /// Stored before.
    pub known: usize,
    /// The interval overlaps a stored one.
    pub overlap: usize,
    /// Not settled; will be asked for again.
    pub held: usize,
    /// Insane stamp.
    pub refused: usize,
}

impl Unkept {
    /// Adds another count to this one.
    pub fn add(&mut self, other: Self) {
        let Self {
            known,
            overlap,
            held,
            refused,
        } = other;
        self.known += known;
        self.overlap += overlap;
        self.held += held;
        self.refused += refused;
    }
}

/// What a live window adds to the chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// The newest kept row: the watermark after COMMIT.
    pub watermark: Option<Stamp>,
    /// One open gap per step.
    pub gaps: Vec<NewGap>,
    /// What was not kept.
    pub unkept: Unkept,
}

/// Cuts a live window down to the rows that extend the chain behind the watermark (none: first contact), and finds
/// the steps. The first step is where the entity may have been known not to run: it takes the hint.
///
/// A row that is not settled, because a series lacks its value or because it follows a step, ends the window: it
/// and everything after it is asked for again.
pub fn extend(past: Past, window: &mut Window, at: ServerTime) -> Extension {
    let entity = window.entity;
    let mut extension = Extension {
        watermark: past.watermark,
        ..Extension::default()
    };
    let mut held = false;
    window.retain(|head, _cells| {
        let unkept = &mut extension.unkept;
        let settled = at.is_settled(head.stamp);
        if held {
            unkept.held += 1;
            return false;
        }
        if !at.is_sane(head.stamp) {
            unkept.refused += 1;
            return false;
        }
        let (from, initial) = extension
            .watermark
            .map_or((at.ring_start(), true), |last| (last, false));
        match place(from, head) {
            _ if initial => {}
            Place::Known => {
                unkept.known += 1;
                return false;
            }
            Place::Overlaps => {
                unkept.overlap += 1;
                return false;
            }
            Place::Touches | Place::Steps => {}
        }
        let steps = place(from, head) == Place::Steps;
        if !settled && (!head.complete || (steps && !initial)) {
            held = true;
            unkept.held += 1;
            return false;
        }
        if steps {
            let hint = if extension.gaps.is_empty() {
                past.hint
            } else {
                None
            };
            extension.gaps.push(NewGap {
                entity,
                step: Step {
                    from,
                    to: Some(head.stamp),
                    to_interval: head.interval_seconds,
                    initial,
                },
                reason: None,
                hint,
                lane: if head.stamp <= at.ring_start() {
                    GapLane::Rollup
                } else {
                    GapLane::Ring
                },
                ask_after: None,
            });
        }
        extension.watermark = Some(head.stamp);
        true
    });
    extension
}

/// The memory of the source that answered for a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The hour of 20-second samples.
    Ring,
    /// The 300-second roll-ups.
    Rollups {
        /// The oldest stamp that they are sure to reach back to; `None` where the source keeps none.
        since: Option<Stamp>,
    },
}

impl Memory {
    fn may_hold(self, stamp: Stamp, at: ServerTime) -> bool {
        match self {
            Self::Ring => at.is_sane(stamp),
            Self::Rollups { since } => {
                let oldest = since.unwrap_or(at.0).minus(ROLLUP);
                (oldest..=at.0.plus(NEWEST)).contains(&stamp)
            }
        }
    }

    /// Behind a gap without an end, younger rows are not this memory's to give: the live lane may yet bring samples
    /// there, and a roll-up over them would keep them out.
    fn is_final(self, stamp: Stamp, at: ServerTime) -> bool {
        match self {
            Self::Ring => at.is_settled(stamp),
            Self::Rollups { .. } => stamp <= at.ring_start(),
        }
    }
}

/// What an answer makes of a gap: the rows left in the window are stored, the gap's row is deleted, and these
/// residual steps take its place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Residue {
    /// What is still missing: explained, or open for another question.
    pub gaps: Vec<NewGap>,
    /// What was not kept.
    pub unkept: Unkept,
}

/// Cuts an answer down to the rows whose whole interval lies inside the gap, and says what becomes of the steps that
/// are left.
///
/// At first contact what precedes the first sample is no gap: nothing was ever expected there.
pub fn fill(gap: &OpenGap, window: &mut Window, at: ServerTime, memory: Memory) -> Residue {
    let Step {
        from,
        to,
        to_interval,
        initial,
    } = gap.step;
    let mut residue = Residue::default();
    let mut last = from;
    let mut found = !initial;
    let mut n_kept = 0_usize;
    let (gaps, unkept) = (&mut residue.gaps, &mut residue.unkept);
    window.retain(|head, _cells| {
        if !memory.may_hold(head.stamp, at) {
            unkept.refused += 1;
            return false;
        }
        let behind = to.is_some_and(|to| head.stamp >= to);
        if behind || (found && head.stamp <= last) {
            unkept.known += 1;
            return false;
        }
        if to.is_none() && !memory.is_final(head.stamp, at) {
            unkept.held += 1;
            return false;
        }
        let overlaps_next = to.is_some_and(|to| start_after(head.stamp, to, to_interval) < -TOLERANCE_MICROS);
        let where_from = place(last, head);
        if overlaps_next || (found && where_from == Place::Overlaps) {
            unkept.overlap += 1;
            return false;
        }
        if found && where_from == Place::Steps {
            let step = Step {
                from: last,
                to: Some(head.stamp),
                to_interval: head.interval_seconds,
                initial: false,
            };
            gaps.push(left(gap, step, true, at, memory));
        }
        found = true;
        last = head.stamp;
        n_kept += 1;
        true
    });
    if found && leaves_step(last, to, to_interval) {
        let step = Step {
            from: last,
            to,
            to_interval,
            initial: false,
        };
        gaps.push(left(gap, step, n_kept > 0, at, memory));
    }
    residue
}

/// What becomes of a step that an answer has left. `beside_row`: a row of the answer is one of its ends.
fn left(gap: &OpenGap, step: Step, beside_row: bool, at: ServerTime, memory: Memory) -> NewGap {
    let explained = |reason| NewGap {
        entity: gap.entity,
        step,
        reason: Some(reason),
        hint: None,
        lane: GapLane::default(),
        ask_after: None,
    };
    let asked_as_rollups = |ask_after| NewGap {
        entity: gap.entity,
        step,
        reason: None,
        hint: gap.hint,
        lane: GapLane::Rollup,
        ask_after,
    };
    let since = match memory {
        Memory::Ring if step.from < at.ring_start() => return asked_as_rollups(None),
        Memory::Ring => return explained(gap.hint.unwrap_or(Reason::NotPublished)),
        Memory::Rollups { since } => since.filter(|since| step.to.is_none_or(|to| to > *since)),
    };
    let Some(since) = since else {
        return explained(gap.hint.unwrap_or(Reason::Expired));
    };
    if !holds_rollup(step) {
        // Beside a roll-up it is certain what was cut off; alone, what was known of the entity says more.
        let known = gap.hint.filter(|_| !beside_row);
        return explained(known.unwrap_or(Reason::RollupEdge));
    }
    // Nothing is on its way of an entity that is known to have been off.
    let was_off = matches!(gap.hint, Some(Reason::PoweredOff | Reason::Suspended));
    let all_has_come = step.to.filter(|_| !was_off).map(|to| to.plus(ROLLUPS_LATE));
    if all_has_come.is_some_and(|come| come > at.0) {
        return asked_as_rollups(all_has_come);
    }
    let unknown = if step.from < since {
        Reason::Expired
    } else {
        Reason::NotPublished
    };
    explained(gap.hint.unwrap_or(unknown))
}

/// True where a whole 300-second interval of the source's grid has room in a step.
fn holds_rollup(step: Step) -> bool {
    const INTERVAL: i64 = ROLLUP_SECONDS as i64 * 1_000_000;
    let Some(to) = step.to else { return true };
    let earliest = step.from.micros().saturating_sub(TOLERANCE_MICROS);
    let start = earliest.saturating_add(INTERVAL - 1).div_euclid(INTERVAL) * INTERVAL;
    let end = Stamp::from_micros(start.saturating_add(INTERVAL));
    start_after(end, to, step.to_interval) >= -TOLERANCE_MICROS
}

/// Explains a whole gap whose entity cannot be asked any more.
#[must_use]
pub fn give_up(gap: &OpenGap, reason: Reason) -> Residue {
    let explained = NewGap {
        entity: gap.entity,
        step: gap.step,
        reason: Some(gap.hint.unwrap_or(reason)),
        hint: None,
        lane: GapLane::default(),
        ask_after: None,
    };
    Residue {
        gaps: if gap.step.initial {
            Vec::new()
        } else {
            vec![explained]
        },
        ..Residue::default()
    }
}

/// The gap without an end of an entity that has delivered nothing for [`SILENT_AFTER`]: open, since the source may
/// still hold what came between its newest row and its end.
#[must_use]
pub fn fall_silent(entity: EntityId, past: Past, at: ServerTime) -> Option<NewGap> {
    let from = past
        .watermark
        .filter(|from| !past.silent && at.0.since(*from) > SILENT_AFTER)?;
    let step = Step {
        from,
        to: None,
        to_interval: REALTIME_INTERVAL,
        initial: false,
    };
    Some(NewGap {
        entity,
        step,
        reason: None,
        hint: past.hint,
        lane: GapLane::Ring,
        ask_after: None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Known,
    Overlaps,
    Touches,
    Steps,
}

/// Where a row stands to the stamp before it: its interval starts there, or it does not.
fn place(before: Stamp, head: &RowHead) -> Place {
    let start_after = start_after(before, head.stamp, head.interval_seconds);
    if head.stamp <= before {
        Place::Known
    } else if start_after < -TOLERANCE_MICROS {
        Place::Overlaps
    } else if start_after > TOLERANCE_MICROS {
        Place::Steps
    } else {
        Place::Touches
    }
}

/// From the end of one row to the start of the next one, in microseconds; negative where they overlap.
fn start_after(before: Stamp, stamp: Stamp, interval_seconds: u16) -> i64 {
    stamp.micros_since(before) - i64::from(interval_seconds) * 1_000_000
}

/// Whether there is a step between a row and the next one; without a next one there is.
pub(super) fn leaves_step(from: Stamp, to: Option<Stamp>, to_interval: u16) -> bool {
    to.is_none_or(|to| start_after(from, to, to_interval) > TOLERANCE_MICROS)
}

/// What is known of an entity's past. The default is first contact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// Its newest stored row of the 20-second interval; of a silent entity the row before its gap without an end, which
    /// may be a roll-up; `None`: the database has no row.
    pub watermark: Option<Stamp>,
    /// It has a gap without an end.
    pub silent: bool,
    /// What was seen of it since that row that explains a gap: off, disconnected, removed, a stepped clock.
    pub hint: Option<Reason>,
}

/// The pasts of one platform's entities, shared by its lanes (which read and note what they see) and its flush loop
/// (which moves watermarks after COMMIT).
#[derive(Debug, Default)]
pub struct Watermarks {
    pasts: Mutex<HashMap<EntityId, Past>>,
}

impl Watermarks {
    /// An entity's past; `None` while the database has not been asked about it.
    #[must_use]
    pub fn get(&self, entity: EntityId) -> Option<Past> {
        self.lock().get(&entity).copied()
    }

    /// Those of `entities` that the database has not been asked about.
    #[must_use]
    pub fn unknown(&self, entities: impl Iterator<Item = EntityId>) -> Vec<EntityId> {
        let pasts = self.lock();
        entities.filter(|entity| !pasts.contains_key(entity)).collect()
    }

    /// Every entity with a past.
    #[must_use]
    pub fn entities(&self) -> Vec<EntityId> {
        self.lock().keys().copied().collect()
    }

    /// Entities whose newest row is not older than this.
    #[must_use]
    pub fn since(&self, stamp: Stamp) -> Vec<EntityId> {
        let is_recent = |past: &Past| past.watermark.is_some_and(|watermark| watermark >= stamp);
        self.lock()
            .iter()
            .filter(|(_, past)| is_recent(past))
            .map(|(entity, _)| *entity)
            .collect()
    }

    /// Entities whose newest row is older than this, without those that are known to be silent.
    #[must_use]
    pub fn quiet(&self, since: Stamp) -> Vec<EntityId> {
        let is_quiet =
            |past: &Past| !past.silent && past.watermark.is_some_and(|watermark| watermark < since);
        self.lock()
            .iter()
            .filter(|(_, past)| is_quiet(past))
            .map(|(entity, _)| *entity)
            .collect()
    }

    /// Notes what the database answered about entities that were unknown.
    pub fn learn(&self, pasts: impl IntoIterator<Item = (EntityId, Past)>) {
        self.lock().extend(pasts);
    }

    /// Forgets everything and starts from what the database answered.
    pub fn replace(&self, pasts: impl IntoIterator<Item = (EntityId, Past)>) {
        *self.lock() = pasts.into_iter().collect();
    }

    /// Notes what was seen of entities. It stays until their next stored row.
    pub fn hint(&self, seen: impl IntoIterator<Item = (EntityId, Reason)>) {
        let mut pasts = self.lock();
        for (entity, reason) in seen {
            if let Some(past) = pasts.get_mut(&entity) {
                past.hint = Some(reason);
            }
        }
    }

    /// Notes what was seen of the platform as a whole, for entities of which nothing better is known.
    pub fn hint_all(&self, reason: Reason) {
        for past in self.lock().values_mut() {
            past.hint = past.hint.or(Some(reason));
        }
    }

    /// Takes over what a COMMIT has made true.
    pub fn commit(&self, pasts: impl IntoIterator<Item = (EntityId, Past)>) {
        self.lock().extend(pasts);
    }

    // A panic while the map was held leaves it whole: entries are replaced one by one.
    fn lock(&self) -> MutexGuard<'_, HashMap<EntityId, Past>> {
        self.pasts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
