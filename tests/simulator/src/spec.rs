//! What world to simulate and how its server behaves.
//!
//! Owns: every knob with its default. Never does anything with them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which server is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformKind {
    /// A vCenter: clusters, many hosts, levels, `maxQueryMetrics`.
    #[default]
    Vcenter,
    /// One ESXi host asked directly (`apiType` HostAgent).
    Esxi,
}

/// How the SDK port is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// A leaf certificate issued by a test CA; trust [`crate::Simulator::ca_pem`].
    #[default]
    TestCa,
    /// A self-signed leaf, as on a freshly installed ESXi host; pin its thumbprint.
    SelfSigned,
    /// By the test CA, but it ended years ago.
    Expired,
    /// By the test CA, but it begins in years.
    NotYetValid,
    /// By the test CA, but for another name.
    OtherName,
    /// A server of before 2008: it offers TLS 1.1 at most.
    Tls11,
    /// The connection is reset in the middle of the handshake.
    Reset,
    /// No TLS.
    Plain,
}

/// What drives the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockMode {
    /// The clock of this machine plus an offset in microseconds.
    Wall {
        /// Microseconds that the server is ahead of this machine.
        offset: i64,
    },
    /// Stands still at this server time (microseconds since the epoch) until
    /// [`crate::Clock::advance`] or [`crate::Clock::step`] moves it.
    Frozen {
        /// Microseconds since the epoch.
        at: i64,
    },
}

impl Default for ClockMode {
    fn default() -> Self {
        Self::Wall { offset: 0 }
    }
}

/// How QueryPerf answers for an entity that has no sample in the range. Real servers do both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyEntities {
    /// The entity is there with an empty sample list and no series.
    #[default]
    Entry,
    /// The entity is not in the reply.
    LeftOut,
}

/// What RetrievePropertiesEx over a view answers when the session that owned the view has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpiredViews {
    /// HTTP 200; every path of every object is in `missingSet` with NotAuthenticated.
    #[default]
    MissingSet,
    /// A ManagedObjectNotFound fault for the view.
    NotFound,
}

/// The world and its server. Start from [`Spec::default`] (or [`Spec::esxi`]) and change fields.
#[derive(Clone, Debug)]
pub struct Spec {
    /// vCenter or ESXi. With ESXi there is exactly one host, whatever [`Spec::hosts`] says.
    pub kind: PlatformKind,
    /// Root of every value and identity. Two servers with one seed are the same machine to a client:
    /// give each simulated platform its own.
    pub seed: u64,
    /// Virtual machines, templates not counted.
    pub vms: usize,
    /// Hosts.
    pub hosts: usize,
    /// Clusters; hosts are dealt to them in turn.
    pub clusters: usize,
    /// Datastores.
    pub datastores: usize,
    /// Templates, beside the VMs.
    pub templates: usize,
    /// Exactly so many VMs start powered off; `None`: one in twenty.
    pub powered_off: Option<usize>,
    /// Virtual disks of each VM.
    pub disks_per_vm: u32,
    /// Virtual NICs of each VM.
    pub nics_per_vm: u32,
    /// VM name pattern; `{n}` becomes the five-digit number.
    pub vm_name: String,
    /// Host name pattern; `{n}` becomes the three-digit number.
    pub host_name: String,
    /// User that may log in.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Address of the SDK port; port 0 = any free one.
    pub listen: SocketAddr,
    /// Address of the control port (always plain HTTP); port 0 = any free one.
    pub control: SocketAddr,
    /// How the SDK port is protected.
    pub tls: TlsMode,
    /// DNS names in the leaf certificate beside `localhost`, `127.0.0.1` and `::1`.
    pub tls_names: Vec<String>,
    /// What drives the server's clock.
    pub clock: ClockMode,
    /// How long the world already ran at the start.
    pub history: Duration,
    /// A sample appears this long after its stamp.
    pub publish_delay: Duration,
    /// Seconds that the hosts' clocks, which stamp the samples, are ahead of the server's; below zero: behind. When VMs
    /// start and stop goes by the server's clock all the same.
    pub hosts_ahead: i64,
    /// A roll-up appears this long after its stamp, on top of `publish_delay`.
    pub rollup_delay: Duration,
    /// Statistics level of the roll-ups: counters above it are not kept; 0: roll-ups are disabled. An ESXi host that
    /// has them keeps every counter.
    pub statistics_level: u8,
    /// `config.vpxd.stats.maxQueryMetrics`: bound on entities x metrics of one roll-up query;
    /// 0 or less = unlimited, `None` = the option is not set (and 256 applies).
    pub max_query_metrics: Option<i32>,
    /// Idle time after which a session is gone.
    pub session_timeout: Duration,
    /// More sessions than this get HTTP 503.
    pub max_sessions: usize,
    /// Objects per page of RetrievePropertiesEx, whatever the client asks for.
    pub page_size: usize,
    /// Compress replies when the client accepts gzip.
    pub gzip: bool,
    /// How QueryPerf answers for an entity without samples in the range.
    pub empty_entities: EmptyEntities,
    /// What an expired session's view answers.
    pub expired_views: ExpiredViews,
    /// How long a task runs; zero: it has ended when it is looked at.
    pub task_time: Duration,
    /// How long a guest takes to obey.
    pub guest_time: Duration,
    /// How long the tools of a starting guest are away.
    pub guest_boot: Duration,
    /// An ESXi host with the free licence: it can be read, and no more.
    pub free_license: bool,
}

impl Default for Spec {
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            kind: PlatformKind::Vcenter,
            seed: 1,
            vms: 20,
            hosts: 2,
            clusters: 1,
            datastores: 2,
            templates: 1,
            powered_off: None,
            disks_per_vm: 2,
            nics_per_vm: 1,
            vm_name: "vm-{n}".to_owned(),
            host_name: "esx-{n}.example.com".to_owned(),
            user: "monitor@vsphere.local".to_owned(),
            password: "monitor".to_owned(),
            listen: any,
            control: any,
            tls: TlsMode::TestCa,
            tls_names: Vec::new(),
            clock: ClockMode::default(),
            history: Duration::from_secs(2 * 86_400),
            publish_delay: Duration::from_secs(3),
            hosts_ahead: 0,
            rollup_delay: Duration::from_secs(60),
            statistics_level: 1,
            max_query_metrics: Some(256),
            session_timeout: Duration::from_secs(30 * 60),
            max_sessions: 3000,
            page_size: 100,
            gzip: true,
            empty_entities: EmptyEntities::Entry,
            expired_views: ExpiredViews::MissingSet,
            task_time: Duration::ZERO,
            guest_time: Duration::ZERO,
            guest_boot: Duration::ZERO,
            free_license: false,
        }
    }
}

impl Spec {
    /// One ESXi host with so many VMs.
    #[must_use]
    pub fn esxi(vms: usize) -> Self {
        Self {
            kind: PlatformKind::Esxi,
            hosts: 1,
            vms,
            user: "root".to_owned(),
            ..Self::default()
        }
    }

    /// A vCenter with so many hosts and VMs, a cluster per 32 hosts and a datastore per 4 clusters.
    #[must_use]
    pub fn vcenter(hosts: usize, vms: usize) -> Self {
        let clusters = hosts.div_ceil(32).max(1);
        Self {
            hosts,
            vms,
            clusters,
            datastores: clusters.div_ceil(4).max(2),
            ..Self::default()
        }
    }

    /// The same world from another root.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}
