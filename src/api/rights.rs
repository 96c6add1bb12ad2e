//! Who may do what: the one table of it.
//!
//! Deny by default: a path and method that do not stand in [`ROUTES`] are not served, whatever the router knows, and
//! a role has the rights that [`Role::has`] lists and no others. The tests walk both tables.

use std::fmt;
use std::time::Duration;

use axum::http::Method;

/// Where everything but the health and the document of the API is.
pub const BASE: &str = "/api/virt-center";

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long one may take that asks a platform.
const PLATFORM_DEADLINE: Duration = Duration::from_secs(45);

/// What a token may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Acts on VMs as well.
    Operator,
    /// Everything.
    Admin,
    /// Reads, the audit log as well.
    Auditor,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Admin, Self::Auditor];

    /// The word in the database and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
        }
    }

    /// From the word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Which rights a role has.
    #[must_use]
    pub const fn has(self, right: Right) -> bool {
        match right {
            Right::Open => true,
            Right::Read => matches!(self, Self::Viewer | Self::Operator | Self::Admin | Self::Auditor),
            Right::Act | Right::Destroy | Right::Refresh => matches!(self, Self::Operator | Self::Admin),
            Right::RemoveAll | Right::Manage => matches!(self, Self::Admin),
            Right::Audit => matches!(self, Self::Admin | Self::Auditor),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Right {
    /// Nothing, not even a token.
    Open,
    /// Reading platforms, inventory, metrics, operations.
    Read,
    /// Power on, suspend, guest shutdown and reboot, creating snapshots.
    Act,
    /// What somebody can lose something by: power off, reset, reverting to and removing a snapshot.
    Destroy,
    /// Removing all snapshots of a VM.
    RemoveAll,
    /// Having a platform tried or its inventory read.
    Refresh,
    /// Adding, changing, pausing and removing platforms, and their passwords.
    Manage,
    /// Reading the audit log.
    Audit,
}

impl Right {
    /// Every right.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::Read,
        Self::Act,
        Self::Destroy,
        Self::RemoveAll,
        Self::Refresh,
        Self::Manage,
        Self::Audit,
    ];

    /// True where it is about power and snapshots, which have a limit of their own.
    #[must_use]
    pub const fn is_action(self) -> bool {
        matches!(self, Self::Act | Self::Destroy | Self::RemoveAll)
    }
}

/// A route and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method. GET stands for HEAD as well.
    pub method: Method,
    /// The path, as the router has it.
    pub path: &'static str,
    /// What it needs.
    pub right: Right,
    /// What it does, as the audit log says it.
    pub action: &'static str,
}

impl Route {
    /// How long it may take, waiting for an action not counted. What asks a platform waits for that.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        match self.right {
            Right::Refresh | Right::Manage => PLATFORM_DEADLINE,
            _ => DEADLINE,
        }
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $right:ident $action:literal;)+) => {
        /// Every route.
        pub static ROUTES: &[Route] = &[
            $(Route { method: Method::$method, path: $path, right: Right::$right, action: $action },)+
        ];
    };
}

routes! {
    GET    "/livez"                                              Open      "read_health";
    GET    "/readyz"                                             Open      "read_health";
    GET    "/openapi.json"                                       Open      "read_document";
    GET    "/api/virt-center/platforms/"                         Read      "read_platforms";
    POST   "/api/virt-center/platforms/"                         Manage    "add_platform";
    GET    "/api/virt-center/platforms/{id}/"                    Read      "read_platforms";
    PATCH  "/api/virt-center/platforms/{id}/"                    Manage    "change_platform";
    DELETE "/api/virt-center/platforms/{id}/"                    Manage    "remove_platform";
    POST   "/api/virt-center/platforms/{id}/test/"               Refresh   "test_platform";
    POST   "/api/virt-center/platforms/{id}/sync/"               Refresh   "sync_platform";
    POST   "/api/virt-center/platforms/{id}/maintenance/"        Manage    "pause_platform";
    PUT    "/api/virt-center/platforms/{id}/credentials/"        Manage    "set_credentials";
    GET    "/api/virt-center/hosts/"                             Read      "read_hosts";
    GET    "/api/virt-center/hosts/{id}/"                        Read      "read_hosts";
    GET    "/api/virt-center/vms/"                               Read      "read_vms";
    GET    "/api/virt-center/vms/{id}/"                          Read      "read_vms";
    GET    "/api/virt-center/datastores/"                        Read      "read_datastores";
    GET    "/api/virt-center/datastores/{id}/"                   Read      "read_datastores";
    GET    "/api/virt-center/clusters/"                          Read      "read_clusters";
    GET    "/api/virt-center/clusters/{id}/"                     Read      "read_clusters";
    GET    "/api/virt-center/vms/{id}/snapshots/"                Read      "read_snapshots";
    POST   "/api/virt-center/vms/{id}/power-on/"                 Act       "power_on";
    POST   "/api/virt-center/vms/{id}/power-off/"                Destroy   "power_off";
    POST   "/api/virt-center/vms/{id}/reset/"                    Destroy   "reset";
    POST   "/api/virt-center/vms/{id}/suspend/"                  Act       "suspend";
    POST   "/api/virt-center/vms/{id}/shutdown-guest/"           Act       "shutdown_guest";
    POST   "/api/virt-center/vms/{id}/reboot-guest/"             Act       "reboot_guest";
    POST   "/api/virt-center/vms/{id}/snapshots/"                Act       "create_snapshot";
    POST   "/api/virt-center/vms/{id}/snapshots/{moref}/revert/" Destroy   "revert_snapshot";
    DELETE "/api/virt-center/vms/{id}/snapshots/{moref}/"        Destroy   "remove_snapshot";
    DELETE "/api/virt-center/vms/{id}/snapshots/"                RemoveAll "remove_all_snapshots";
    GET    "/api/virt-center/operations/"                        Read      "read_operations";
    GET    "/api/virt-center/operations/{id}/"                   Read      "read_operations";
    GET    "/api/virt-center/audit/"                             Audit     "read_audit";
}

/// What the table says of a path that the router matched, and a method.
#[must_use]
pub fn find(method: &Method, path: &str) -> Lookup {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES.iter().filter(|route| route.path == path) {
        if route.method == *method {
            return Lookup::Found(route);
        }
        allowed.push(route.method.as_str());
        if route.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        Lookup::NoPath
    } else {
        Lookup::NoMethod(allowed.join(", "))
    }
}

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// This route.
    Found(&'static Route),
    /// The path has other methods: these.
    NoMethod(String),
    /// There is no such path.
    NoPath,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_have_the_rights_that_were_agreed_upon() {
        let rights =
            |role: Role| -> Vec<Right> { Right::ALL.into_iter().filter(|right| role.has(*right)).collect() };
        use Right::{Act, Audit, Destroy, Manage, Open, Read, Refresh, RemoveAll};
        assert_eq!(rights(Role::Viewer), [Open, Read]);
        assert_eq!(rights(Role::Operator), [Open, Read, Act, Destroy, Refresh]);
        assert_eq!(
            rights(Role::Admin),
            [Open, Read, Act, Destroy, RemoveAll, Refresh, Manage, Audit]
        );
        assert_eq!(rights(Role::Auditor), [Open, Read, Audit]);
    }

    #[test]
    fn only_health_and_the_document_are_open_and_only_get_reads() {
        for route in ROUTES {
            let is_under_base = route.path.starts_with(BASE);
            assert_eq!(is_under_base, route.right != Right::Open, "{}", route.path);
            assert_eq!(is_under_base, route.path.ends_with('/'), "{}", route.path);
            let only_reads = matches!(route.right, Right::Open | Right::Read | Right::Audit);
            assert_eq!(
                only_reads,
                route.method == Method::GET,
                "{} {}",
                route.method,
                route.path
            );
            let same = ROUTES
                .iter()
                .filter(|other| other.path == route.path && other.method == route.method);
            assert_eq!(same.count(), 1, "{}", route.path);
        }
    }
}
