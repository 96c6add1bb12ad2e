//! Snapshots of a VM, as the trees that they are.

use std::collections::HashMap;

use crate::store::reading::record::record;
use crate::units::Stamp;

/// vSphere keeps 32 levels. Deeper ones, which no server has, are shown beside the roots.
const DEEPEST: usize = 64;

record! {
    /// A snapshot of a VM.
    Snapshot: "read the snapshots of a VM",
    from "virt_vm_snapshot",
    key vm = "created_at, moref",
    where "removed_at IS NULL";
    /// The VM.
    vm: i32 = "vm_id",
    /// Its managed object reference: what reverting and removing are asked with.
    moref: String = "moref",
    /// The snapshot above it; null for a root.
    parent: Option<String> = "parent_moref",
    /// Name; not unique.
    name: Option<String> = "name",
    /// Description. One that was made by this API ends with the operation that made it.
    description: Option<String> = "description",
    /// When it was taken, in the clock of the platform.
    created_at: Option<Stamp> = "created_at",
    /// State of the VM in it.
    power_state: String = "power_state",
    /// File systems of the guest were quiesced.
    quiesced: Option<bool> = "is_quiesced",
    /// The disks of the VM stand on it.
    current: bool = "is_current",
}

/// A snapshot and those that were made on top of it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SnapshotNode {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: Snapshot,
    /// Those above it, oldest first.
    pub children: Vec<SnapshotNode>,
}

/// Makes trees of them. One whose parent is not there is a root.
pub(super) fn trees(rows: Vec<Snapshot>) -> Vec<SnapshotNode> {
    let known: Vec<String> = rows.iter().map(|row| row.moref.clone()).collect();
    let mut children: HashMap<String, Vec<Snapshot>> = HashMap::new();
    let mut roots = Vec::new();
    for row in rows {
        match row.parent.as_ref().filter(|parent| known.contains(parent)) {
            Some(parent) => children.entry(parent.clone()).or_default().push(row),
            None => roots.push(row),
        }
    }
    let mut found: Vec<SnapshotNode> = roots
        .into_iter()
        .map(|root| node(root, &mut children, DEEPEST))
        .collect();
    // Too deep, or in a circle: shown, but not walked into.
    let mut left: Vec<Snapshot> = children.into_values().flatten().collect();
    left.sort_by(|one, other| (one.created_at, &one.moref).cmp(&(other.created_at, &other.moref)));
    found.extend(left.into_iter().map(|snapshot| SnapshotNode {
        snapshot,
        children: Vec::new(),
    }));
    found
}

fn node(snapshot: Snapshot, children: &mut HashMap<String, Vec<Snapshot>>, levels: usize) -> SnapshotNode {
    let above = if levels > 1 {
        children.remove(&snapshot.moref).unwrap_or_default()
    } else {
        Vec::new()
    };
    let children = above
        .into_iter()
        .map(|child| node(child, children, levels - 1))
        .collect();
    SnapshotNode { snapshot, children }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(moref: &str, parent: Option<&str>) -> Snapshot {
        Snapshot {
            vm: 1,
            moref: moref.to_owned(),
            parent: parent.map(str::to_owned),
            name: None,
            description: None,
            created_at: None,
            power_state: "on".to_owned(),
            quiesced: None,
            current: false,
        }
    }

    fn shape(nodes: &[SnapshotNode]) -> String {
        nodes
            .iter()
            .map(|node| format!("{}({})", node.snapshot.moref, shape(&node.children)))
            .collect()
    }

    #[test]
    fn snapshots_stand_below_their_parent_and_roots_side_by_side() {
        let rows = vec![
            snapshot("a", None),
            snapshot("b", Some("a")),
            snapshot("c", Some("a")),
            snapshot("d", Some("b")),
            snapshot("e", None),
        ];
        assert_eq!(shape(&trees(rows)), "a(b(d())c())e()");
    }

    #[test]
    fn none_is_lost_whatever_the_parents_are() {
        let mut rows = vec![
            snapshot("orphan", Some("gone")),
            snapshot("x", Some("y")),
            snapshot("y", Some("x")),
            snapshot("self", Some("self")),
        ];
        assert_eq!(shape(&trees(rows.clone())), "orphan()self()x()y()");
        rows.clear();
        for level in 0..1000 {
            rows.push(snapshot(
                &format!("{level:04}"),
                (level > 0).then(|| format!("{:04}", level - 1)).as_deref(),
            ));
        }
        let found = shape(&trees(rows));
        assert_eq!(found.matches('(').count(), 1000);
    }
}
