//! Identities: ours (database keys) and the server's (managed object references).

use std::fmt;

macro_rules! database_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

database_key!(
    /// Key of a row of `virt_platform`: one vCenter or one ESXi host.
    PlatformId
);
database_key!(
    /// Key of a row of `virt_host`.
    HostId
);
database_key!(
    /// Key of a row of `virt_vm`.
    VmId
);

/// The two kinds of entity whose samples are stored, one wide hypertable each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityKind {
    /// `HostSystem`, stored in `virt_host_metrics`.
    Host,
    /// `VirtualMachine`, stored in `virt_vm_metrics`.
    Vm,
}

impl EntityKind {
    /// Both kinds, in the order in which their tables are written.
    pub const ALL: [Self; 2] = [Self::Host, Self::Vm];

    /// The managed object type in vim25.
    #[must_use]
    pub const fn vim_type(self) -> &'static str {
        match self {
            Self::Host => "HostSystem",
            Self::Vm => "VirtualMachine",
        }
    }

    /// The word used in labels, messages and the database: `host` or `vm`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Vm => "vm",
        }
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One host or VM by its database key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId {
    /// Which table the key belongs to.
    pub kind: EntityKind,
    /// `host_id` or `vm_id`.
    pub id: i32,
}

impl From<HostId> for EntityId {
    fn from(host: HostId) -> Self {
        Self {
            kind: EntityKind::Host,
            id: host.0,
        }
    }
}

impl From<VmId> for EntityId {
    fn from(vm: VmId) -> Self {
        Self {
            kind: EntityKind::Vm,
            id: vm.0,
        }
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// The value of a managed object reference, such as `vm-42`. Unique within one server; the type is known from
/// the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoRef(Box<str>);

impl MoRef {
    /// Wraps the text of a reference.
    #[must_use]
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// The text of the reference.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MoRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lets a map keyed by references be asked with a borrowed text from the wire.
impl std::borrow::Borrow<str> for MoRef {
    fn borrow(&self) -> &str {
        &self.0
    }
}
