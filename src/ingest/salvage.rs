//! What can be stored of a flush that the server refuses for the sake of a row, such as a value that a constraint
//! does not take.
//!
//! Owns: finding such rows by halving, and the chain around a row that is left out. Never does: I/O of its own
//! ([`Store`] does); leaving out a row that was not refused alone; deciding from the text of an error.
//!
//! First the flush is halved between entities until each refused one stands alone; all others are stored by then.
//! Then the rows of each refused entity are tried, first all of them, then the first half, and so on.
//!
//! Invariants:
//! - Every part is a transaction that keeps the chain: what is stored of a window is a prefix of it, a gap row goes
//!   with the row behind it, and everything else of an answer goes with its first row.
//! - A row that is left out lies inside one gap row from the row before it to the row behind it, written with the
//!   latter. Between two rows that touch it, the reason is `poison`. Where it bordered a gap, that gap grows over it
//!   and keeps its reason; an open one is asked for again.
//! - A newest row that is left out leaves no step yet: it is asked for again with the row that follows it.
//! - Of a gap that is being filled only one prefix is stored. What is left of it becomes an open gap again, and the
//!   lane asks at once.

use std::collections::{HashMap, VecDeque};
use std::error::Error as StdError;
use std::ops::Range;

use super::chain::{Past, leaves_step};
use super::joined::Joined;
use crate::model::gap::{GapLane, NewGap, OpenGap, Reason, Step};
use crate::model::ids::EntityId;
use crate::model::sample::Window;
use crate::store::copy::Flush;
use crate::units::Stamp;

/// Transactions that one flush may be cut into. A hundred poisoned entities among ten thousand need about 1,500; a
/// database that refuses more than that refuses on principle, and a person has to look.
const MOST_TRANSACTIONS: usize = 2_000;

/// Where parts are stored.
pub(super) trait Store: Send {
    /// Why a part was not.
    type Error: StdError + Send + 'static;

    /// One transaction.
    fn write(&mut self, flush: &Flush) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// True where the server refused a row, and a part without that row would be stored.
    fn refuses_rows(error: &Self::Error) -> bool;

    /// This row was refused alone and is left out.
    fn left_out(&mut self, entity: EntityId, stamp: Stamp, error: &Self::Error);
}

/// How much of each part of a [`Flush`] belongs to one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    windows: usize,
    gaps_new: usize,
    gaps_done: usize,
    gaps_asked: usize,
    speaking: usize,
}

impl Extent {
    /// The size of a flush.
    pub(super) const fn of(flush: &Flush) -> Self {
        Self {
            windows: flush.windows.len(),
            gaps_new: flush.gaps_new.len(),
            gaps_done: flush.gaps_done.len(),
            gaps_asked: flush.gaps_asked.len(),
            speaking: flush.speaking.len(),
        }
    }

    /// What a flush has grown by.
    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            windows: self.windows - earlier.windows,
            gaps_new: self.gaps_new - earlier.gaps_new,
            gaps_done: self.gaps_done - earlier.gaps_done,
            gaps_asked: self.gaps_asked - earlier.gaps_asked,
            speaking: self.speaking - earlier.speaking,
        }
    }
}

/// What an answer was about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// Rows behind the watermark.
    Live,
    /// What a gap holds, as this lane found it.
    Gap(OpenGap, GapLane),
    /// An entity without rows.
    Quiet,
}

/// Marks the part of a flush that came from one answer about one entity.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Whose.
    pub(super) entity: EntityId,
    /// What it was about.
    pub(super) origin: Origin,
    /// The entity's past before the answer was joined.
    pub(super) before: Past,
    /// And after.
    pub(super) after: Past,
    /// What the flush grew by.
    pub(super) extent: Extent,
    /// Rows of it.
    pub(super) n_rows: usize,
}

/// What became of a flush.
#[derive(Debug)]
pub(super) struct Salvaged<E> {
    /// Rows of each answer that were not stored, by the index of its mark.
    pub(super) n_lost: Vec<usize>,
    /// Why it ended early: everything that is not stored has to be asked for again, and nothing is sure but what is
    /// in the database.
    pub(super) failed: Option<E>,
}

/// Stores what can be stored of a flush that was refused as a whole, and corrects what `joined` says of it: the pasts,
/// the gaps and the rows recovered are then those of the rows that were stored.
pub(super) async fn salvage<S: Store>(store: &mut S, joined: &mut Joined) -> Salvaged<S::Error> {
    let marks = std::mem::take(&mut joined.marks);
    let mut units = units(std::mem::take(&mut joined.flush), &marks);
    let mut attempts = Attempts {
        store,
        left: MOST_TRANSACTIONS,
    };
    let failed = attempts.all(&mut units).await.err();

    let mut n_lost = vec![0; marks.len()];
    joined.n_recovered = 0;
    joined.explained.clear();
    joined.opened.clear();
    for unit in &units {
        for piece in unit {
            if let Some(lost) = n_lost.get_mut(piece.at) {
                *lost = piece.mark.n_rows.saturating_sub(piece.n_stored);
            }
            if piece.fills_gap() {
                joined.n_recovered += piece.n_stored;
            }
            for gap in piece
                .flush
                .gaps_new
                .iter()
                .filter(|_| piece.fate != Fate::Waiting)
            {
                match gap.reason {
                    Some(reason) => *joined.explained.entry(reason).or_default() += 1,
                    None => joined.opened.push(gap.lane),
                }
            }
        }
        if unit.iter().any(|piece| piece.fate != Fate::Stored) {
            joined.pasts.extend(past(unit));
        }
    }
    Salvaged { n_lost, failed }
}

/// The answers about one entity, in the order in which they were joined: each builds on those before.
type Unit = Vec<Piece>;

/// One answer about one entity.
#[derive(Debug)]
struct Piece {
    /// Index of its mark.
    at: usize,
    mark: Mark,
    /// At most one window, and the gap rows that change with it.
    flush: Flush,
    n_stored: usize,
    /// The newest row was left out.
    left_out_last: bool,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not stored.
    Waiting,
    /// Stored as it was joined.
    Stored,
    /// Stored in part.
    Changed,
}

/// Cuts a flush into what came from each answer.
fn units(flush: Flush, marks: &[Mark]) -> Vec<Unit> {
    let Flush {
        windows,
        gaps_new,
        gaps_done,
        gaps_asked,
        speaking,
    } = flush;
    let (mut windows, mut gaps_new) = (windows.into_iter(), gaps_new.into_iter());
    let (mut gaps_done, mut gaps_asked) = (gaps_done.into_iter(), gaps_asked.into_iter());
    let mut speaking = speaking.into_iter();
    let mut units: Vec<Unit> = Vec::new();
    let mut of: HashMap<EntityId, usize> = HashMap::new();
    for (at, mark) in marks.iter().enumerate() {
        let extent = mark.extent;
        let flush = Flush {
            windows: windows.by_ref().take(extent.windows).collect(),
            gaps_new: gaps_new.by_ref().take(extent.gaps_new).collect(),
            gaps_done: gaps_done.by_ref().take(extent.gaps_done).collect(),
            gaps_asked: gaps_asked.by_ref().take(extent.gaps_asked).collect(),
            speaking: speaking.by_ref().take(extent.speaking).collect(),
        };
        let piece = Piece {
            at,
            mark: *mark,
            flush,
            n_stored: 0,
            left_out_last: false,
            fate: Fate::Waiting,
        };
        let index = *of.entry(mark.entity).or_insert(units.len());
        match units.get_mut(index) {
            Some(unit) => unit.push(piece),
            None => units.push(vec![piece]),
        }
    }
    debug_assert!(
        windows.next().is_none() && gaps_new.next().is_none(),
        "marks cover the flush"
    );
    units
}

/// One flush of several units. The windows move, and have to be given back.
fn join(units: &mut [Unit]) -> Flush {
    let mut joined = Flush::default();
    for piece in units.iter_mut().flatten() {
        let Flush {
            windows,
            gaps_new,
            gaps_done,
            gaps_asked,
            speaking,
        } = &mut piece.flush;
        joined.windows.append(windows);
        joined.gaps_new.extend_from_slice(gaps_new);
        joined.gaps_done.extend_from_slice(gaps_done);
        joined.gaps_asked.extend_from_slice(gaps_asked);
        joined.speaking.extend_from_slice(speaking);
    }
    joined
}

fn give_back(joined: Flush, units: &mut [Unit]) {
    let mut windows = joined.windows.into_iter();
    for piece in units.iter_mut().flatten() {
        piece
            .flush
            .windows
            .extend(windows.by_ref().take(piece.mark.extent.windows));
    }
}

/// What the stored part of a unit has made of the entity's past.
fn past(unit: &[Piece]) -> Option<(EntityId, Past)> {
    let first = unit.first()?;
    let reached = unit.iter().take_while(|piece| piece.fate != Fate::Waiting).last();
    Some((first.mark.entity, reached.map_or(first.mark.before, Piece::past)))
}

enum Attempt<E> {
    Stored,
    Refused(E),
}

struct Attempts<'a, S> {
    store: &'a mut S,
    left: usize,
}

impl<S: Store> Attempts<'_, S> {
    async fn attempt(&mut self, flush: &Flush) -> Result<Attempt<S::Error>, S::Error> {
        self.left = self.left.saturating_sub(1);
        match self.store.write(flush).await {
            Ok(()) => Ok(Attempt::Stored),
            Err(error) if S::refuses_rows(&error) && self.left > 0 => Ok(Attempt::Refused(error)),
            Err(error) => Err(error),
        }
    }

    /// Stores the units that the server takes, then what it takes of the others. Breadth first, so that the many
    /// good ones do not wait for the few bad ones.
    async fn all(&mut self, units: &mut [Unit]) -> Result<(), S::Error> {
        let mut refused = VecDeque::new();
        refused.push_back(0..units.len());
        let mut alone = Vec::new();
        while let Some(range) = refused.pop_front() {
            if range.len() <= 1 {
                alone.push(range);
                continue;
            }
            let middle = range.start + range.len() / 2;
            for half in [range.start..middle, middle..range.end] {
                let part = units.get_mut(half.clone()).unwrap_or_default();
                let flush = join(part);
                let attempt = self.attempt(&flush).await;
                give_back(flush, part);
                match attempt? {
                    Attempt::Stored => part.iter_mut().flatten().for_each(Piece::stored_whole),
                    Attempt::Refused(_) => refused.push_back(half),
                }
            }
        }
        for index in alone.into_iter().flatten() {
            if let Some(unit) = units.get_mut(index) {
                self.unit(unit).await?;
            }
        }
        Ok(())
    }

    /// Behind an answer that was not stored as it was joined, the later ones of the entity do not fit any more: they
    /// stay out and are asked for again.
    async fn unit(&mut self, unit: &mut [Piece]) -> Result<(), S::Error> {
        for piece in unit {
            self.piece(piece).await?;
            if piece.fate != Fate::Stored {
                break;
            }
        }
        Ok(())
    }

    async fn piece(&mut self, piece: &mut Piece) -> Result<(), S::Error> {
        let mut until = piece.len();
        loop {
            let part = piece.part(piece.n_stored..until);
            match self.attempt(&part).await? {
                Attempt::Stored => {
                    piece.stored(until);
                    if until == piece.len() {
                        return Ok(());
                    }
                    if piece.fills_gap() {
                        piece.flush = part;
                        return Ok(());
                    }
                    until = piece.len();
                }
                Attempt::Refused(error) => match until - piece.n_stored {
                    // No row is to blame.
                    0 => return Err(error),
                    1 => {
                        if let Some(stamp) = piece.leave_out() {
                            self.store.left_out(piece.mark.entity, stamp, &error);
                        }
                        until = piece.len();
                        if piece.n_stored == until && !piece.fills_gap() {
                            return Ok(());
                        }
                    }
                    several => until = piece.n_stored + several / 2,
                },
            }
        }
    }
}

impl Piece {
    const fn fills_gap(&self) -> bool {
        matches!(self.mark.origin, Origin::Gap(..))
    }

    fn len(&self) -> usize {
        self.flush.windows.iter().map(Window::len).sum()
    }

    fn stamp(&self, row: usize) -> Option<Stamp> {
        Some(self.flush.windows.first()?.heads().get(row)?.stamp)
    }

    fn stored_whole(&mut self) {
        self.n_stored = self.len();
        self.fate = Fate::Stored;
    }

    /// The rows up to here are stored.
    fn stored(&mut self, until: usize) {
        self.n_stored = until;
        self.fate = if until == self.mark.n_rows {
            Fate::Stored
        } else {
            Fate::Changed
        };
    }

    /// Some of the rows with the gap rows that go with them.
    fn part(&self, rows: Range<usize>) -> Flush {
        let whole = &self.flush;
        let is_last = rows.end == self.len();
        let mut part = Flush::default();
        if rows.start == 0 {
            part.gaps_done.clone_from(&whole.gaps_done);
            part.gaps_asked.clone_from(&whole.gaps_asked);
            part.speaking.clone_from(&whole.speaking);
        }
        // A gap row goes with the row behind it; where that is none of ours, with our last one.
        let goes_along = |gap: &NewGap| match self.flush.windows.first().zip(gap.step.to) {
            Some((window, to)) => match window.heads().binary_search_by_key(&to, |head| head.stamp) {
                Ok(row) => rows.contains(&row),
                Err(_) => is_last,
            },
            None => is_last,
        };
        part.gaps_new
            .extend(whole.gaps_new.iter().filter(|gap| goes_along(gap)));
        if let (Origin::Gap(gap, lane), false) = (self.mark.origin, is_last) {
            part.gaps_new.extend(self.rest(&gap, lane, rows.end));
        }
        part.windows
            .extend(whole.windows.first().map(|window| cut(window, rows)));
        part.windows.retain(|window| !window.is_empty());
        part
    }

    /// What is left of a gap behind its first rows, to be asked for again.
    fn rest(&self, gap: &OpenGap, lane: GapLane, stored: usize) -> Option<NewGap> {
        let from = self.stamp(stored.checked_sub(1)?)?;
        leaves_step(from, gap.step.to, gap.step.to_interval).then_some(NewGap {
            entity: gap.entity,
            step: Step {
                from,
                initial: false,
                ..gap.step
            },
            reason: None,
            hint: gap.hint,
            lane,
            ask_after: None,
        })
    }

    /// Takes out the first row that is not stored; the steps on both sides of it become one.
    fn leave_out(&mut self) -> Option<Stamp> {
        let row = self.n_stored;
        let left_out = self.stamp(row)?;
        let behind = self.behind(row);
        let before = match row.checked_sub(1) {
            Some(before) => self.stamp(before),
            None => self.start(),
        };
        let gaps = &mut self.flush.gaps_new;
        let mut take = |borders: &dyn Fn(&NewGap) -> bool| {
            let index = gaps.iter().position(borders)?;
            Some(gaps.swap_remove(index))
        };
        let left = take(&|gap| gap.step.to == Some(left_out));
        let right = take(&|gap| gap.step.from == left_out);
        let lane = match self.mark.origin {
            Origin::Gap(_, lane) => lane,
            Origin::Live | Origin::Quiet => GapLane::Ring,
        };
        let grown = grown(before, left_out, behind, left, right);
        gaps.extend(grown.map(|Grown { step, reason, open }| NewGap {
            entity: self.mark.entity,
            step,
            reason,
            hint: open.and_then(|open| open.hint),
            lane: open.map_or(lane, |open| open.lane),
            ask_after: open.and_then(|open| open.ask_after),
        }));
        for window in &mut self.flush.windows {
            window.retain(|head, _cells| head.stamp != left_out);
        }
        self.left_out_last = row == self.len();
        Some(left_out)
    }

    /// The row before the first one; none at first contact.
    fn start(&self) -> Option<Stamp> {
        match self.mark.origin {
            Origin::Live => self.mark.before.watermark,
            Origin::Gap(gap, _) => (!gap.step.initial).then_some(gap.step.from),
            Origin::Quiet => None,
        }
    }

    /// What follows a row: another one, the end of the gap, or nothing yet.
    fn behind(&self, row: usize) -> Behind {
        let next = self
            .flush
            .windows
            .first()
            .and_then(|window| window.heads().get(row + 1));
        match (next, self.mark.origin) {
            (Some(next), _) => Behind::Until(Some(next.stamp), next.interval_seconds),
            (None, Origin::Gap(gap, _)) => Behind::Until(gap.step.to, gap.step.to_interval),
            (None, Origin::Live | Origin::Quiet) => Behind::Nothing,
        }
    }

    /// What the stored part has made of the entity's past.
    fn past(&self) -> Past {
        let Mark {
            before,
            after,
            origin,
            ..
        } = self.mark;
        if self.fate == Fate::Stored {
            return after;
        }
        let newest = self.n_stored.checked_sub(1).and_then(|row| self.stamp(row));
        match (origin, newest) {
            (Origin::Live, Some(newest)) => Past {
                watermark: Some(newest),
                silent: false,
                hint: if self.left_out_last {
                    Some(Reason::Poison)
                } else {
                    after.hint
                },
            },
            // Nothing is stored behind a gap without an end: what it held is the newest.
            (
                Origin::Gap(
                    OpenGap {
                        step: Step { to: None, .. },
                        ..
                    },
                    _,
                ),
                Some(newest),
            ) => Past {
                watermark: Some(newest),
                ..before
            },
            _ => before,
        }
    }
}

/// What is behind a row that is left out.
enum Behind {
    /// No row: there is no step yet.
    Nothing,
    /// The stamp of a row and the length of its interval in seconds; no stamp: a gap without an end.
    Until(Option<Stamp>, u16),
}

/// What the gap over a row that is left out is to be.
struct Grown {
    step: Step,
    /// `None`: it is to be asked for, as this open one was.
    reason: Option<Reason>,
    open: Option<NewGap>,
}

/// The gap over a row that is left out, between the row before it and what is behind it, and the gaps that it
/// bordered; `None` where no step is left, or nothing was ever expected.
fn grown(
    before: Option<Stamp>,
    left_out: Stamp,
    behind: Behind,
    left: Option<NewGap>,
    right: Option<NewGap>,
) -> Option<Grown> {
    let Behind::Until(to, to_interval) = behind else {
        return None;
    };
    let is_open = |gap: &NewGap| gap.reason.is_none();
    let sides = [left, right];
    let open = sides.into_iter().flatten().find(is_open);
    let (from, initial) = match (left, before) {
        (Some(left), _) => (left.step.from, left.step.initial),
        (None, Some(before)) => (before, false),
        // At first contact only what is still to be asked for is a gap.
        (None, None) => (right.filter(is_open).map(|_| left_out)?, true),
    };
    let step = Step {
        from,
        to,
        to_interval,
        initial,
    };
    if !leaves_step(from, to, to_interval) {
        return None;
    }
    if open.is_some() {
        return Some(Grown {
            step,
            reason: None,
            open,
        });
    }
    let length = |gap: &NewGap| gap.step.to.map_or(i64::MAX, |to| to.micros_since(gap.step.from));
    let longest = sides.into_iter().flatten().max_by_key(length);
    Some(Grown {
        step,
        reason: Some(longest.and_then(|gap| gap.reason).unwrap_or(Reason::Poison)),
        open: None,
    })
}

fn cut(window: &Window, rows: Range<usize>) -> Window {
    let mut part = Window::with_capacity(window.entity, rows.len());
    for (head, cells) in window.rows().skip(rows.start).take(rows.len()) {
        let kept = part.push(*head, cells);
        debug_assert!(kept, "rows of a window ascend");
    }
    part
}

#[cfg(test)]
mod tests;
