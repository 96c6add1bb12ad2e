//! Snapshots of VMs: a tree with one current leaf.
//!
//! Owns: what a snapshot is and how taking and removing one changes the tree. They do not touch samples.

use super::{PowerState, State, WorldError};
use crate::truth::EntityKind;

/// One snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Unique within the VM, for ever.
    pub(crate) id: usize,
    /// `id` of the one above.
    pub(crate) parent: Option<usize>,
    pub(crate) name: String,
    pub(crate) description: String,
    /// Microseconds.
    pub(crate) created_at: i64,
    /// The one that the VM's disks stand on.
    pub(crate) current: bool,
    /// State that a VM is in when it is put back to it: without memory it is off.
    pub(crate) power: &'static str,
    pub(crate) quiesced: bool,
}

/// MoRef of a snapshot.
pub(crate) fn moref(vm: &str, id: usize) -> String {
    format!("snapshot-{vm}-{id}")
}

impl State {
    /// VM and id of the snapshot with a MoRef.
    pub(crate) fn find_snapshot(&self, moref: &str) -> Option<(usize, usize)> {
        let (vm, id) = moref.strip_prefix("snapshot-")?.rsplit_once('-')?;
        let (vm, id) = (self.find(EntityKind::Vm, vm)?, id.parse().ok()?);
        let known = self.vm(vm)?.snapshots.iter().any(|one| one.id == id);
        known.then_some((vm, id))
    }

    /// Takes a snapshot, with memory and of a quiesced guest where both is possible; answers its id.
    pub(super) fn take_snapshot(
        &mut self,
        vm: &str,
        name: &str,
        description: &str,
        (memory, quiesce): (bool, bool),
        horizon: i64,
    ) -> Result<usize, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let Some((details, record)) = self.vm_mut(index) else {
            return Ok(0);
        };
        details.snapshots_made += 1;
        let id = details.snapshots_made;
        let mut parent = None;
        for snapshot in &mut details.snapshots {
            if std::mem::take(&mut snapshot.current) {
                parent = Some(snapshot.id);
            }
        }
        let running = details.power == PowerState::PoweredOn;
        details.snapshots.push(Snapshot {
            id,
            parent,
            name: name.to_owned(),
            description: description.to_owned(),
            created_at: horizon,
            current: true,
            power: match details.power {
                PowerState::PoweredOn if !memory => PowerState::PoweredOff.name(),
                power => power.name(),
            },
            quiesced: quiesce && running && record.profile.tools && details.guest_up,
        });
        Ok(id)
    }

    pub(super) fn remove_snapshot(&mut self, vm: &str, name: &str) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let known = self.vm(index).into_iter().flat_map(|vm| &vm.snapshots);
        let id = known.filter(|one| one.name == name).map(|one| one.id).next();
        let id = id.ok_or_else(|| WorldError::Snapshot(name.to_owned()))?;
        self.drop_snapshot(index, id, false);
        Ok(vm.to_owned())
    }

    /// Removes a snapshot. Those below it go too, or move up.
    pub(super) fn drop_snapshot(&mut self, vm: usize, id: usize, children: bool) {
        let Some((details, _)) = self.vm_mut(vm) else {
            return;
        };
        let snapshots = &mut details.snapshots;
        let parent = snapshots
            .iter()
            .find(|one| one.id == id)
            .and_then(|one| one.parent);
        let mut gone = vec![id];
        if children {
            // A child is always younger, and so further behind.
            for snapshot in &*snapshots {
                if snapshot.parent.is_some_and(|parent| gone.contains(&parent)) {
                    gone.push(snapshot.id);
                }
            }
        }
        let was_current = snapshots.iter().any(|one| one.current && gone.contains(&one.id));
        snapshots.retain(|one| !gone.contains(&one.id));
        for snapshot in snapshots {
            if snapshot.parent == Some(id) {
                snapshot.parent = parent;
            }
            if was_current && Some(snapshot.id) == parent {
                snapshot.current = true;
            }
        }
    }
}
