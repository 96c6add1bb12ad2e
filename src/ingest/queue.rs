//! The queue between a platform's lanes and its flush loop.
//!
//! When it is full, the lane waits: vSphere is the buffer. Every batch carries the budget's permit for its bytes,
//! and a receipt through which the lane learns what became of it.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::chain::ServerTime;
use crate::budget::Permit;
use crate::model::gap::OpenGap;
use crate::model::gap::Reason;
use crate::model::ids::EntityId;
use crate::model::sample::Window;
use crate::units::Stamp;

/// Batches that may wait. The bytes are bounded by the budget; this bounds what the budget does not see.
pub const CAPACITY_BATCHES: usize = 64;

/// What was asked, which decides how the rows join the chain.
#[derive(Debug)]
pub enum Work {
    /// Rows behind the watermarks.
    Live(Vec<Window>),
    /// Gaps with what was found inside each.
    Ring(Vec<(OpenGap, Found)>),
    /// Gaps older than the ring, with the roll-ups that were found inside each.
    Rollup {
        /// As in [`Work::Ring`].
        gaps: Vec<(OpenGap, Found)>,
        /// How far back the source keeps roll-ups; `None` where it keeps none.
        since: Option<Stamp>,
    },
    /// Entities that may have fallen silent: a whole poll has passed without an answer for them.
    Quiet(Vec<EntityId>),
}

/// What the source has for a gap.
#[derive(Debug)]
pub enum Found {
    /// These rows, and no others.
    Rows(Window),
    /// It can't be asked any more.
    Gone(Reason),
    /// It was asked in vain; it stays open.
    Refused,
}

impl Found {
    /// The source has nothing there.
    #[must_use]
    pub fn nothing(gap: &OpenGap) -> Self {
        Self::Rows(Window::with_capacity(gap.entity, 0))
    }
}

impl Work {
    /// Rows in it.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        match self {
            Self::Live(windows) => windows.iter().map(Window::len).sum(),
            Self::Ring(gaps) | Self::Rollup { gaps, .. } => gaps
                .iter()
                .map(|(_, found)| match found {
                    Found::Rows(window) => window.len(),
                    Found::Gone(_) | Found::Refused => 0,
                })
                .sum(),
            Self::Quiet(_) => 0,
        }
    }
}

/// When a lane asked, and what it knew then.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The watermarks' generation; a batch of an older one is thrown away.
    pub generation: u64,
    /// The server's clock.
    pub at: ServerTime,
    /// This process's clock.
    pub started: Instant,
}

impl Turn {
    /// How old a sample is now, by the server's clock.
    #[must_use]
    pub fn age(&self, stamp: Stamp) -> Duration {
        self.at.0.since(stamp) + self.started.elapsed()
    }
}

/// One answer of the source on its way to the database.
#[derive(Debug)]
pub struct Batch {
    /// When it was asked for.
    pub turn: Turn,
    /// The rows.
    pub work: Work,
    /// Their place in the budget.
    pub permit: Permit,
    /// Tells the lane.
    pub receipt: oneshot::Sender<Outcome>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Committed.
    Stored {
        /// Rows of this batch that were stored.
        n_rows: usize,
    },
    /// Thrown away: ask again once the platform is ready.
    Discarded,
}

/// The lanes' end.
#[derive(Debug, Clone)]
pub struct Queue(mpsc::Sender<Batch>);

impl Queue {
    /// A queue and the flush loop's end of it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Batch>) {
        let (sender, receiver) = mpsc::channel(CAPACITY_BATCHES);
        (Self(sender), receiver)
    }

    /// Waits for room, then for the batch's fate. A flush loop that has ended discards.
    ///
    /// Cancelling loses only the receipt: the batch may still be stored.
    pub async fn push(&self, turn: Turn, work: Work, permit: Permit) -> Outcome {
        let (receipt, outcome) = oneshot::channel();
        match self
            .0
            .send(Batch {
                turn,
                work,
                permit,
                receipt,
            })
            .await
        {
            Ok(()) => outcome.await.unwrap_or(Outcome::Discarded),
            Err(_closed) => Outcome::Discarded,
        }
    }
}
