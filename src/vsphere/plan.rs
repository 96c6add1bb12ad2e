//! From targets to requests of bounded size.
//!
//! Owns: [`Target`], the estimate of what a request costs, and the split into batches. Pure: no clock, no I/O.
//! Invariant: every target is in exactly one batch, in order; a batch is over a bound only if it is one target.

use crate::model::columns::Column;
use crate::model::ids::EntityId;
use crate::model::ids::EntityKind;
use crate::model::ids::HostId;
use crate::model::ids::MoRef;
use crate::model::sample::Cell;
use crate::model::sample::RowHead;
use crate::units::Stamp;
use crate::vsphere::counters::Counters;

/// Samples that an entity keeps: one hour of 20 seconds.
const RING_SAMPLES: usize = 180;

/// Samples beyond the arithmetic: both bounds may lie on the grid, and one more may appear meanwhile.
const SAMPLES_SLACK: usize = 3;

/// Instances of a counter that an entity has, assumed before the first reply tells: virtual disks of a VM,
/// storage adapters or datastores of a host.
const ASSUMED_INSTANCES: usize = 8;

/// Most instances that are ever assumed: datastores of a host.
const INSTANCES_LIMIT: usize = 1024;

/// `<value xsi:type="PerfMetricSeriesCSV"><id><counterId>` ... with an instance name such as a VMFS UUID is 200;
/// vcsim declares a namespace on each.
const BYTES_PER_SERIES: usize = 300;

/// A ten-digit number (KiB of a terabyte) and its comma are 11, most are 5; `<value>1414</value>`, which nobody
/// asked for, is 19.
const BYTES_PER_CELL: usize = 20;

/// `20,2026-01-31T10:00:20Z,` is 24; the element form four times that.
const BYTES_PER_STAMP: usize = 100;

/// `<returnval xsi:type="PerfEntityMetricCSV"><entity type="VirtualMachine">` ...
const BYTES_PER_ENTITY: usize = 400;

/// The envelope, or a fault.
const BYTES_PER_REPLY: usize = 16 * 1024;

/// One entity and the part of its samples that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which entity.
    pub entity: EntityId,
    /// Its reference on the server.
    pub moref: MoRef,
    /// vCPUs of a VM, threads of a host; 0 if unknown.
    pub cpus: u16,
    /// Where a VM runs and since when that is known: samples from that stamp on get the host.
    pub placement: Option<(HostId, Stamp)>,
    /// Samples after this, exclusive: the entity's newest stored sample. That one is asked for as well, but not
    /// returned: it tells which series have values, so that a hole in the first new sample is seen as one.
    pub after: Stamp,
    /// Samples up to this, inclusive; `None` for all there are.
    pub until: Option<Stamp>,
}

/// What a request may cost, at worst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of the answer: also the cap above which it is refused.
    pub reply_bytes: usize,
    /// Bytes of the rows made of it.
    pub row_bytes: usize,
}

impl Cost {
    /// Bytes held at once: the answer is there until all its rows are.
    #[must_use]
    pub const fn memory_bytes(self) -> usize {
        self.reply_bytes.saturating_add(self.row_bytes)
    }

    /// The part of it that fits into `bytes`: a single entity may be estimated at more than a platform's share. The
    /// answer is refused above it, so that memory keeps its bound and the estimate may be wrong.
    #[must_use]
    pub const fn within(self, bytes: usize) -> Self {
        if self.memory_bytes() <= bytes {
            return self;
        }
        let rows = if self.row_bytes < bytes / 2 {
            self.row_bytes
        } else {
            bytes / 2
        };
        Self {
            reply_bytes: bytes - rows,
            row_bytes: rows,
        }
    }

    const EMPTY_REPLY: Self = Self {
        reply_bytes: BYTES_PER_REPLY,
        row_bytes: 0,
    };

    const fn plus(self, other: Self) -> Self {
        Self {
            reply_bytes: self.reply_bytes.saturating_add(other.reply_bytes),
            row_bytes: self.row_bytes.saturating_add(other.row_bytes),
        }
    }
}

/// How many instances the entities of a platform have: starts at a guess and learns from replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceCounts {
    /// Most instances of one counter of a host.
    pub host: usize,
    /// Most instances of one counter of a VM.
    pub vm: usize,
}

impl Default for InstanceCounts {
    fn default() -> Self {
        Self {
            host: ASSUMED_INSTANCES,
            vm: ASSUMED_INSTANCES,
        }
    }
}

impl InstanceCounts {
    pub(crate) const fn of(self, kind: EntityKind) -> usize {
        let instances = match kind {
            EntityKind::Host => self.host,
            EntityKind::Vm => self.vm,
        };
        if instances < INSTANCES_LIMIT {
            instances
        } else {
            INSTANCES_LIMIT
        }
    }
}

/// What estimates are made from.
#[derive(Debug, Clone, Copy)]
pub struct Estimator<'a> {
    /// What is asked for per entity.
    pub counters: &'a Counters,
    /// What entities have.
    pub instances: InstanceCounts,
    /// The server's time.
    pub now: Stamp,
    /// Seconds between samples.
    pub interval_seconds: u32,
}

impl Estimator<'_> {
    /// The worst case for one target, without the envelope around it.
    #[must_use]
    pub fn cost(&self, target: &Target) -> Cost {
        let samples = self.samples(target);
        let kind = target.entity.kind;
        let series = self.series(kind);
        let row = size_of::<RowHead>() + Column::of(kind).len() * size_of::<Cell>();
        Cost {
            reply_bytes: BYTES_PER_ENTITY
                + samples * BYTES_PER_STAMP
                + series * (BYTES_PER_SERIES + samples * BYTES_PER_CELL),
            row_bytes: samples * row,
        }
    }

    /// Series that are asked for of one entity.
    #[must_use]
    pub fn series(&self, kind: EntityKind) -> usize {
        self.counters.of(kind).series(self.instances.of(kind))
    }

    /// The worst case for some targets in one request.
    #[must_use]
    pub fn cost_of_all(&self, targets: &[Target]) -> Cost {
        targets
            .iter()
            .fold(Cost::EMPTY_REPLY, |sum, target| sum.plus(self.cost(target)))
    }

    fn samples(&self, target: &Target) -> usize {
        let until = target.until.map_or(self.now, |until| until.min(self.now));
        let seconds = until.since(target.after).as_secs();
        let samples = seconds / u64::from(self.interval_seconds.max(1));
        let samples = usize::try_from(samples).unwrap_or(usize::MAX);
        let most = if self.interval_seconds == crate::units::REALTIME_SECONDS {
            RING_SAMPLES
        } else {
            usize::MAX
        };
        samples.min(most).saturating_add(SAMPLES_SLACK).min(1 << 20)
    }
}

/// What bounds a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most entities.
    pub entities: usize,
    /// Most bytes held for it, answer and rows.
    pub memory_bytes: usize,
}

/// The targets of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Whom to ask for.
    pub targets: &'a [Target],
    /// What it may cost.
    pub cost: Cost,
}

/// Splits targets into batches within the bounds.
#[must_use]
pub fn batches<'a>(targets: &'a [Target], estimator: &Estimator<'_>, bounds: Bounds) -> Vec<Batch<'a>> {
    let mut batches = Vec::new();
    let mut rest = targets;
    while !rest.is_empty() {
        let mut cost = Cost::EMPTY_REPLY;
        let mut length = 0;
        for target in rest.iter().take(bounds.entities.max(1)) {
            let with = cost.plus(estimator.cost(target));
            if length > 0 && with.memory_bytes() > bounds.memory_bytes {
                break;
            }
            cost = with;
            length += 1;
        }
        let (batch, after) = rest.split_at(length.min(rest.len()));
        batches.push(Batch { targets: batch, cost });
        rest = after;
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ids::VmId;
    use crate::vsphere::counters::Selection;

    fn target(id: i32, after: i64) -> Target {
        Target {
            entity: VmId(id).into(),
            moref: MoRef::new(format!("vm-{id}")),
            cpus: 1,
            placement: None,
            after: Stamp::from_seconds(after),
            until: None,
        }
    }

    proptest! {
        #[test]
        fn every_target_is_in_exactly_one_batch_within_the_bounds(
            ages in proptest::collection::vec(0_i64..7200, 0..60),
            entities in 0_usize..20,
            memory_bytes in 0_usize..2_000_000,
        ) {
            let counters = Counters::new(&[], &Selection::default());
            let estimator = Estimator {
                counters: &counters,
                instances: InstanceCounts::default(),
                now: Stamp::from_seconds(10_000),
                interval_seconds: 20,
            };
            let targets: Vec<Target> = (0..).zip(&ages).map(|(id, age)| target(id, 10_000 - age)).collect();
            let batches = batches(&targets, &estimator, Bounds { entities, memory_bytes });
            let joined: Vec<Target> = batches.iter().flat_map(|batch| batch.targets.to_vec()).collect();
            prop_assert_eq!(&joined, &targets);
            for batch in batches {
                prop_assert!(!batch.targets.is_empty() && batch.targets.len() <= entities.max(1));
                prop_assert!(batch.targets.len() == 1 || batch.cost.memory_bytes() <= memory_bytes);
                prop_assert_eq!(batch.cost, estimator.cost_of_all(batch.targets));
            }
        }
    }
}
