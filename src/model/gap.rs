//! Steps of the chain: what lies between two stored rows of an entity that do not touch.

use std::fmt;
use std::str::FromStr;

use crate::model::ids::EntityId;
use crate::units::Stamp;

/// Key of a row of `virt_collection_gap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GapId(pub i64);

/// Why the samples of a gap cannot be had. A closed set: also a label of metrics.
///
/// The table allows `unreachable` as well, which nobody gives: that the server did not answer explains nothing while
/// it keeps the samples, and [`Expired`](Self::Expired) says it when it no longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The VM or host was powered off.
    PoweredOff,
    /// The VM was suspended.
    Suspended,
    /// vCenter had lost the host.
    HostDisconnected,
    /// The platform was in maintenance, or the host was.
    Maintenance,
    /// The object was gone.
    Removed,
    /// The account may not read this entity.
    NoPermission,
    /// The source was asked again and has no samples there.
    NotPublished,
    /// Older than what the source keeps.
    Expired,
    /// Part of a 300-second interval that reaches beyond the gap.
    RollupEdge,
    /// The source's clock was stepped.
    ClockStep,
    /// The stamp lay outside the sane range around the server's time.
    Refused,
    /// The database refused the row.
    Poison,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::PoweredOff,
        Self::Suspended,
        Self::HostDisconnected,
        Self::Maintenance,
        Self::Removed,
        Self::NoPermission,
        Self::NotPublished,
        Self::Expired,
        Self::RollupEdge,
        Self::ClockStep,
        Self::Refused,
        Self::Poison,
    ];

    /// The word in the database and in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PoweredOff => "powered_off",
            Self::Suspended => "suspended",
            Self::HostDisconnected => "host_disconnected",
            Self::Maintenance => "maintenance",
            Self::Removed => "removed",
            Self::NoPermission => "no_permission",
            Self::NotPublished => "not_published",
            Self::Expired => "expired",
            Self::RollupEdge => "rollup_edge",
            Self::ClockStep => "clock_step",
            Self::Refused => "refused",
            Self::Poison => "poison",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no reason of ours: written by a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown gap reason {0:?}")]
pub struct ReasonError(String);

impl FromStr for Reason {
    type Err = ReasonError;

    fn from_str(text: &str) -> Result<Self, ReasonError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| ReasonError(text.to_owned()))
    }
}

/// Which memory of the source an open gap waits for, and the lane that asks it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GapLane {
    /// The hour of 20-second samples.
    #[default]
    Ring,
    /// The day of 300-second roll-ups: what the ring was asked for and no longer holds.
    Rollup,
}

impl GapLane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ring, Self::Rollup];

    /// The word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Rollup => "rollup",
        }
    }
}

/// A gap that is yet to be asked for: a unit of work of a back-fill lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenGap {
    /// Its row.
    pub id: GapId,
    /// Whose samples.
    pub entity: EntityId,
    /// Its bounds and kind.
    pub step: Step,
    /// What was known of the entity when the gap was found: the reason, if the source has nothing there.
    pub hint: Option<Reason>,
}

/// Bounds of a step, sample stamps exclusive at both ends: samples with `from < stamp < to` are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Stamp of the row before, or the ring's start where the entity is seen for the first time.
    pub from: Stamp,
    /// Stamp of the row after; `None` while there is none: the entity is silent, and its next row closes the step.
    pub to: Option<Stamp>,
    /// Length of the interval of the row at `to`, in seconds: it starts so long before its stamp.
    pub to_interval: u16,
    /// True where `from` is no sample but the ring's start at first contact: what precedes the first sample
    /// found is no gap, since nothing was ever expected there.
    pub initial: bool,
}

/// A gap row to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewGap {
    /// Whose samples.
    pub entity: EntityId,
    /// Its bounds and kind.
    pub step: Step,
    /// `None`: open, to be asked for. `Some`: explained.
    pub reason: Option<Reason>,
    /// What is known of the entity, for an open gap.
    pub hint: Option<Reason>,
    /// Which lane is to ask, for an open gap.
    pub lane: GapLane,
    /// Not to be asked for before this time of the source's clock: what is late has come by then.
    pub ask_after: Option<Stamp>,
}
