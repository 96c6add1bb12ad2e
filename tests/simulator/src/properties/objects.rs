//! Managed objects: what exists under which reference, and what leads where.

use std::sync::Arc;

use super::collect::View;
use crate::soap::Ref;
use crate::spec::PlatformKind;
use crate::truth::EntityKind;
use crate::world::{State, snapshot_moref};

/// One of the five folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FolderKind {
    Root,
    Vm,
    Host,
    Datastore,
    Network,
}

/// A managed object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Obj {
    ServiceInstance,
    PropertyCollector,
    ViewManager,
    SessionManager,
    PerfManager,
    Setting,
    Fields,
    TaskManager,
    /// By number.
    Task(u64),
    /// VM and id.
    Snapshot(usize, usize),
    Folder(FolderKind),
    Datacenter,
    Cluster(usize),
    Pool(usize),
    Datastore(usize),
    Host(usize),
    Vm(usize),
    View(Arc<View>),
}

impl Obj {
    /// The managed object type.
    pub(crate) fn kind(&self, state: &State) -> &'static str {
        match self {
            Self::ServiceInstance => "ServiceInstance",
            Self::PropertyCollector => "PropertyCollector",
            Self::ViewManager => "ViewManager",
            Self::SessionManager => "SessionManager",
            Self::PerfManager => "PerformanceManager",
            Self::Setting => "OptionManager",
            Self::Fields => "CustomFieldsManager",
            Self::TaskManager => "TaskManager",
            Self::Task(_) => "Task",
            Self::Snapshot(..) => "VirtualMachineSnapshot",
            Self::Folder(_) => "Folder",
            Self::Datacenter => "Datacenter",
            Self::Cluster(_) => state.names.cluster_type(),
            Self::Pool(_) => "ResourcePool",
            Self::Datastore(_) => "Datastore",
            Self::Host(_) => "HostSystem",
            Self::Vm(_) => "VirtualMachine",
            Self::View(_) => "ContainerView",
        }
    }

    /// The reference's value.
    pub(crate) fn moref(&self, state: &State) -> String {
        let names = &state.names;
        match self {
            Self::ServiceInstance => "ServiceInstance".to_owned(),
            Self::PropertyCollector => names.property_collector.to_owned(),
            Self::ViewManager => names.view_manager.to_owned(),
            Self::SessionManager => names.session_manager.to_owned(),
            Self::PerfManager => names.perf_manager.to_owned(),
            Self::Setting => names.setting.to_owned(),
            Self::Fields => "CustomFieldsManager".to_owned(),
            Self::TaskManager => names.task_manager.to_owned(),
            Self::Task(number) => state.task_moref(*number),
            Self::Snapshot(vm, id) => snapshot_moref(&Self::Vm(*vm).moref(state), *id),
            Self::Folder(FolderKind::Root) => names.root_folder.to_owned(),
            Self::Folder(FolderKind::Vm) => names.vm_folder.to_owned(),
            Self::Folder(FolderKind::Host) => names.host_folder.to_owned(),
            Self::Folder(FolderKind::Datastore) => names.datastore_folder.to_owned(),
            Self::Folder(FolderKind::Network) => names.network_folder.to_owned(),
            Self::Datacenter => names.datacenter.to_owned(),
            Self::Cluster(number) => names.cluster(*number),
            Self::Pool(number) => names.pool(*number),
            Self::Datastore(number) => names.datastore(*number, state.truth.seed),
            Self::Host(index) | Self::Vm(index) => {
                let record = state.truth.entities.get(*index);
                record.map(|r| r.moref.clone()).unwrap_or_default()
            }
            Self::View(view) => view.moref.clone(),
        }
    }

    /// Whether a property or traversal spec for a type is about this object.
    pub(crate) fn is_a(&self, state: &State, kind: &str) -> bool {
        let own = self.kind(state);
        own == kind
            || match kind {
                "ManagedEntity" => self.is_entity(),
                "ComputeResource" => matches!(self, Self::Cluster(_)),
                "View" | "ManagedObjectView" => matches!(self, Self::View(_)),
                _ => false,
            }
    }

    pub(crate) const fn is_entity(&self) -> bool {
        matches!(
            self,
            Self::Folder(_)
                | Self::Datacenter
                | Self::Cluster(_)
                | Self::Pool(_)
                | Self::Datastore(_)
                | Self::Host(_)
                | Self::Vm(_)
        )
    }

    /// Whether the object still exists: a page may be asked for long after its objects were found.
    pub(crate) fn is_alive(&self, state: &State) -> bool {
        match self {
            Self::Host(index) | Self::Vm(index) => {
                let record = state.truth.entities.get(*index);
                record.is_some_and(|record| record.removed_at.is_none())
            }
            Self::Task(number) => state.tasks.get(*number).is_some_and(|task| task.visible),
            Self::Snapshot(..) => state.find_snapshot(&self.moref(state)).is_some(),
            _ => true,
        }
    }

    /// What the object contains, as a container view sees it.
    pub(crate) fn children(&self, state: &State) -> Vec<Self> {
        match self {
            Self::Folder(FolderKind::Root) => vec![Self::Datacenter],
            Self::Datacenter => [
                FolderKind::Vm,
                FolderKind::Host,
                FolderKind::Datastore,
                FolderKind::Network,
            ]
            .map(Self::Folder)
            .to_vec(),
            Self::Folder(FolderKind::Vm) => all(state, EntityKind::Vm),
            Self::Folder(FolderKind::Host) => (0..state.names.clusters).map(Self::Cluster).collect(),
            Self::Folder(FolderKind::Datastore) => (0..state.names.datastores).map(Self::Datastore).collect(),
            Self::Cluster(number) => {
                let mut children = hosts(state, *number);
                children.push(Self::Pool(*number));
                children
            }
            Self::Pool(number) => pool_vms(state, *number),
            Self::Host(index) => vms_on(state, *index),
            _ => Vec::new(),
        }
    }

    /// The objects that a property refers to; `None` = no such reference property.
    pub(crate) fn follow(&self, state: &State, path: &str) -> Option<Vec<Self>> {
        Some(match (self, path) {
            (Self::View(view), "view") => super::collect::contents(state, view),
            (Self::Folder(_), "childEntity") => self.children(state),
            (Self::Datacenter, "vmFolder") => vec![Self::Folder(FolderKind::Vm)],
            (Self::Datacenter, "hostFolder") => vec![Self::Folder(FolderKind::Host)],
            (Self::Datacenter, "datastoreFolder") => vec![Self::Folder(FolderKind::Datastore)],
            (Self::Datacenter, "networkFolder") => vec![Self::Folder(FolderKind::Network)],
            (Self::Cluster(number), "host") => hosts(state, *number),
            (Self::Cluster(number), "resourcePool") => vec![Self::Pool(*number)],
            (Self::Cluster(_), "datastore") => (0..state.names.datastores).map(Self::Datastore).collect(),
            (Self::Pool(_), "resourcePool") => Vec::new(),
            (Self::Pool(number), "vm") => pool_vms(state, *number),
            (Self::Pool(number), "owner") => vec![Self::Cluster(*number)],
            (Self::Host(index), "vm") => vms_on(state, *index),
            (Self::Host(index) | Self::Vm(index), "datastore") => datastores(state, *index),
            (Self::Vm(index), "resourcePool") => pool_of(state, *index).into_iter().collect(),
            (Self::Vm(index), "runtime.host") => state
                .vm(*index)
                .map(|vm| Self::Host(vm.host))
                .into_iter()
                .collect(),
            (Self::Vm(index), "recentTask") => tasks(state, Some(*index)),
            (Self::TaskManager, "recentTask") => tasks(state, None),
            (Self::Snapshot(vm, _), "vm") => vec![Self::Vm(*vm)],
            (Self::Snapshot(vm, id), "childSnapshot") => {
                let snapshots = state.vm(*vm)?.snapshots.iter();
                let children = snapshots.filter(|snapshot| snapshot.parent == Some(*id));
                children
                    .map(|snapshot| Self::Snapshot(*vm, snapshot.id))
                    .collect()
            }
            (_, "parent") if self.is_entity() => self.parent(state).into_iter().collect(),
            _ => return None,
        })
    }

    pub(crate) fn parent(&self, state: &State) -> Option<Self> {
        Some(match self {
            Self::Datacenter => Self::Folder(FolderKind::Root),
            Self::Folder(kind) if *kind != FolderKind::Root => Self::Datacenter,
            Self::Cluster(_) => Self::Folder(FolderKind::Host),
            Self::Pool(number) => Self::Cluster(*number),
            Self::Datastore(_) => Self::Folder(FolderKind::Datastore),
            Self::Host(index) => Self::Cluster(state.host(*index)?.cluster),
            Self::Vm(_) => Self::Folder(FolderKind::Vm),
            _ => return None,
        })
    }
}

fn all(state: &State, kind: EntityKind) -> Vec<Obj> {
    let entities = state.truth.entities.iter().enumerate();
    entities
        .filter(|(index, record)| {
            record.kind == kind && record.removed_at.is_none() && state.is_loaded(*index)
        })
        .map(|(index, _)| match kind {
            EntityKind::Host => Obj::Host(index),
            EntityKind::Vm => Obj::Vm(index),
        })
        .collect()
}

fn vms_on(state: &State, host: usize) -> Vec<Obj> {
    let vms = state.vms_on(host);
    vms.filter(|vm| state.is_loaded(*vm)).map(Obj::Vm).collect()
}

/// Those of one VM, or all.
fn tasks(state: &State, vm: Option<usize>) -> Vec<Obj> {
    let tasks = state.tasks.visible();
    let wanted = tasks.filter(|(_, task)| vm.is_none_or(|vm| task.on.vm == vm));
    wanted.map(|(number, _)| Obj::Task(number)).collect()
}

fn hosts(state: &State, cluster: usize) -> Vec<Obj> {
    let mut hosts = all(state, EntityKind::Host);
    hosts.retain(|host| match host {
        Obj::Host(index) => state.host(*index).is_some_and(|h| h.cluster == cluster),
        _ => false,
    });
    hosts
}

fn pool_vms(state: &State, cluster: usize) -> Vec<Obj> {
    let mut vms = all(state, EntityKind::Vm);
    vms.retain(|vm| match vm {
        Obj::Vm(index) => pool_of(state, *index) == Some(Obj::Pool(cluster)),
        _ => false,
    });
    vms
}

/// A template is in no pool.
pub(super) fn pool_of(state: &State, vm: usize) -> Option<Obj> {
    let template = state.truth.entities.get(vm)?.template;
    (!template).then_some(Obj::Pool(state.vm(vm)?.cluster))
}

fn datastores(state: &State, entity: usize) -> Vec<Obj> {
    let Some(record) = state.truth.entities.get(entity) else {
        return Vec::new();
    };
    let numbers = record.profile.datastores.iter();
    let numbers = numbers.filter_map(|number| usize::try_from(*number).ok());
    numbers.map(Obj::Datastore).collect()
}

/// The object with a reference; views are not found here, they belong to sessions.
pub(crate) fn named(state: &State, reference: &Ref<'_>) -> Option<Obj> {
    let value = &*reference.value;
    if let Some(index) = state.live.get(value) {
        let record = state
            .truth
            .entities
            .get(*index)
            .filter(|_| state.is_loaded(*index))?;
        let object = match record.kind {
            EntityKind::Host => Obj::Host(*index),
            EntityKind::Vm => Obj::Vm(*index),
        };
        return (object.kind(state) == reference.kind).then_some(object);
    }
    match &*reference.kind {
        "Task" => return state.find_task(value).map(Obj::Task),
        "VirtualMachineSnapshot" => {
            let (vm, id) = state.find_snapshot(value)?;
            return Some(Obj::Snapshot(vm, id));
        }
        _ => {}
    }
    let singles = [
        Obj::ServiceInstance,
        Obj::PropertyCollector,
        Obj::ViewManager,
        Obj::SessionManager,
        Obj::PerfManager,
        Obj::Setting,
        Obj::Fields,
        Obj::TaskManager,
        Obj::Folder(FolderKind::Root),
        Obj::Folder(FolderKind::Vm),
        Obj::Folder(FolderKind::Host),
        Obj::Folder(FolderKind::Datastore),
        Obj::Folder(FolderKind::Network),
        Obj::Datacenter,
    ];
    let clusters = (0..state.names.clusters).flat_map(|n| [Obj::Cluster(n), Obj::Pool(n)]);
    let datastores = (0..state.names.datastores).map(Obj::Datastore);
    let mut others = singles.into_iter().chain(clusters).chain(datastores);
    others.find(|object| object.kind(state) == reference.kind && object.moref(state) == reference.value)
}

/// Whether a reference names an inventory object.
pub(crate) fn exists(state: &State, reference: &Ref<'_>) -> bool {
    named(state, reference).is_some_and(|object| object.is_entity())
}

/// The reference of a live object from its value alone, as rules name objects.
pub(crate) fn resolve(state: &State, value: &str) -> &'static str {
    if let Some(record) = state.live.get(value).and_then(|i| state.truth.entities.get(*i)) {
        return record.kind.type_name();
    }
    let vm = match state.kind() {
        PlatformKind::Vcenter => value.starts_with("vm-"),
        PlatformKind::Esxi => value.bytes().all(|byte| byte.is_ascii_digit()),
    };
    if vm {
        "VirtualMachine"
    } else if value.starts_with("host-") {
        "HostSystem"
    } else if state.find_task(value).is_some() {
        "Task"
    } else if state.find_snapshot(value).is_some() {
        "VirtualMachineSnapshot"
    } else if value.starts_with("session[") {
        "ContainerView"
    } else {
        "ManagedEntity"
    }
}
