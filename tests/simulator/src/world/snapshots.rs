//! Snapshots of VMs: a tree with one current leaf.
//!
//! Owns: what a snapshot is and how taking and removing one changes the tree. They do not touch samples.

use super::{State, WorldError};
use crate::truth::EntityKind;

/// One snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Unique within the VM.
    pub(crate) id: usize,
    /// `id` of the one above.
    pub(crate) parent: Option<usize>,
    pub(crate) name: String,
    /// Microseconds.
    pub(crate) created_at: i64,
    /// The one that the VM's disks stand on.
    pub(crate) current: bool,
    /// State of the VM when it was taken.
    pub(crate) power: &'static str,
}

impl State {
    pub(super) fn create_snapshot(
        &mut self,
        vm: &str,
        name: String,
        horizon: i64,
    ) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let Some((details, _)) = self.vm_mut(index) else {
            return Ok(String::new());
        };
        let id = details
            .snapshots
            .iter()
            .map(|one| one.id)
            .max()
            .unwrap_or_default()
            + 1;
        let mut parent = None;
        for snapshot in &mut details.snapshots {
            if std::mem::take(&mut snapshot.current) {
                parent = Some(snapshot.id);
            }
        }
        details.snapshots.push(Snapshot {
            id,
            parent,
            name,
            created_at: horizon,
            current: true,
            power: details.power.name(),
        });
        Ok(vm.to_owned())
    }

    pub(super) fn remove_snapshot(&mut self, vm: &str, name: &str) -> Result<String, WorldError> {
        let index = self.need(EntityKind::Vm, vm)?;
        let Some((details, _)) = self.vm_mut(index) else {
            return Ok(String::new());
        };
        let snapshots = &mut details.snapshots;
        let place = snapshots.iter().position(|one| one.name == name);
        let place = place.ok_or_else(|| WorldError::Snapshot(name.to_owned()))?;
        let gone = snapshots.remove(place);
        for snapshot in snapshots {
            if snapshot.parent == Some(gone.id) {
                snapshot.parent = gone.parent;
            }
            if gone.current && Some(snapshot.id) == gone.parent {
                snapshot.current = true;
            }
        }
        Ok(vm.to_owned())
    }
}
