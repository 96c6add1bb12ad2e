//! What scenario tests stand on: a database, a simulated platform with its clock standing still, and the daemon in
//! this process, polled by hand. Nothing sleeps: a step of the world is a call, and every wait is for a report.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use support::database::{Database, Role};
use support::oracle::rollups::Rollups;
use support::oracle::{self, Verdict};
use virt_collector::app::App;
use virt_collector::collect::back_fill::BackFillReport;
use virt_collector::collect::live::PollReport;
use virt_collector::config::{
    Account, Admin, Collection, Config, DatabaseTls, HostDisk, Keys, Log, LogFormat, Password, Platform,
    PlatformKind, Trust,
};
use virt_collector::ingest::rollups::RollupReport;
use virt_collector::telemetry::metrics::{self, Handle};
use virt_collector::units::ByteSize;
use vsphere_simulator::{ClockMode, Simulator, Spec};

/// The platform's name in every test. A loop's phase follows from it: this one's first tick by itself comes 275 s
/// after its start, when every test is over.
pub(crate) const PLATFORM: &str = "lab";

/// The longest that configuration allows; it also bounds how far the live lane looks back (15 minutes).
const INTERVAL: Duration = Duration::from_secs(300);

/// Hosts and VMs are read once, at the start.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// For a report that should come at once, on a machine as slow as it likes.
const DEADLINE: Duration = Duration::from_secs(180);

/// Samples are owed that were readable for this long while everything was well.
pub(crate) const GRACE: Duration = Duration::from_secs(120);

/// The recorder is one per process.
pub(crate) fn recorder() -> Handle {
    static RECORDER: OnceLock<Handle> = OnceLock::new();
    RECORDER.get_or_init(|| metrics::install().unwrap()).clone()
}

/// A clock that stands still on the 20-second grid, seven seconds after a sample, near the present.
pub(crate) fn frozen() -> ClockMode {
    let now = jiff::Timestamp::now().as_second();
    ClockMode::Frozen {
        at: (now - now.rem_euclid(20) + 7) * 1_000_000,
    }
}

/// A platform's small default world.
pub(crate) fn small() -> Spec {
    // A password that has to be escaped on its way.
    let password = "geheim & <\"\u{fc}\"> ".to_owned();
    Spec {
        vms: 12,
        hosts: 3,
        powered_off: Some(1),
        clock: frozen(),
        password,
        ..Spec::default()
    }
}

/// Database, platform and directory; the daemon comes and goes.
pub(crate) struct Rig {
    pub(crate) database: Database,
    pub(crate) simulator: Simulator,
    pub(crate) directory: tempfile::TempDir,
    healthy_since: i64,
}

impl Rig {
    pub(crate) async fn new(spec: Spec) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
        let simulator = Simulator::start(spec).await.unwrap();
        let rig = Self {
            healthy_since: simulator.clock().now(),
            database,
            simulator,
            directory,
        };
        rig.write_password(rig.simulator.credentials().1);
        std::fs::write(rig.ca_file(), rig.simulator.ca_pem().unwrap_or_default()).unwrap();
        let settings = rig.settings(Role::Owner);
        virt_collector::store::migrate::apply(&settings).await.unwrap();
        rig
    }

    pub(crate) fn write_password(&self, password: &str) {
        use std::os::unix::fs::PermissionsExt as _;

        std::fs::write(self.password_file(), format!("{password}\n")).unwrap();
        std::fs::set_permissions(self.password_file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn password_file(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    pub(crate) fn keys_file(&self) -> PathBuf {
        self.directory.path().join("keyring")
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub(crate) fn settings(&self, role: Role) -> virt_collector::store::Settings {
        let database = self.database_config();
        let account = Account {
            url: self.database.url(role),
            password_file: None,
        };
        virt_collector::store::Settings::new(&database, &account, &virt_collector::store::Owner::random())
            .unwrap()
    }

    /// The database as the daemon sees it.
    pub(crate) fn store(&self) -> virt_collector::store::Database {
        virt_collector::store::Database::new(self.settings(Role::Writer)).unwrap()
    }

    fn database_config(&self) -> virt_collector::config::Database {
        virt_collector::config::Database {
            writer: Account {
                url: self.database.url(Role::Writer),
                password_file: None,
            },
            owner: None,
            tls: DatabaseTls::Auto { ca_file: None },
        }
    }

    /// The configuration of this rig; tests change what they are about.
    pub(crate) fn config(&self) -> Config {
        let (user, _password) = self.simulator.credentials();
        Config {
            memory: ByteSize::mebibytes(128),
            database: self.database_config(),
            keys: Keys {
                file: self.directory.path().join("keyring"),
            },
            collection: Collection {
                interval: INTERVAL,
                discovery_interval: NEVER,
                entities_per_request: 5,
                parallel_requests: 2,
                sessions: 1,
                requests_per_second: 1000,
                request_timeout: Duration::from_secs(30),
                host_disk: HostDisk::StorageAdapter,
                skip_host_counters: Vec::new(),
                skip_vm_counters: Vec::new(),
            },
            inventory: virt_collector::config::Inventory::default(),
            retention: virt_collector::config::Retention::default(),
            admin: Admin {
                listen: "127.0.0.1:0".parse().unwrap(),
            },
            api: None,
            log: Log {
                level: "info".to_owned(),
                format: LogFormat::Text,
            },
            platforms: vec![Platform {
                name: PLATFORM.to_owned(),
                kind: match self.simulator.truth().kind {
                    vsphere_simulator::PlatformKind::Vcenter => PlatformKind::VCenter,
                    vsphere_simulator::PlatformKind::Esxi => PlatformKind::Esxi,
                },
                host: "127.0.0.1".to_owned(),
                port: self.simulator.addr().port(),
                user: user.to_owned(),
                password: Password::File(self.password_file()),
                trust: Trust::CaFile(self.ca_file()),
                filter: virt_collector::model::filter::Filter::default(),
            }],
        }
    }

    /// Starts the daemon; its first poll and back-fills are over when this returns.
    pub(crate) async fn start(&self) -> Daemon {
        self.start_with(self.config()).await
    }

    pub(crate) async fn start_with(&self, config: Config) -> Daemon {
        let daemon = Daemon(App::start(config, recorder()).await.unwrap());
        daemon.poll().await;
        daemon.back_fill().await;
        daemon.roll_up().await;
        daemon
    }

    /// Hosts and VMs that publish samples.
    pub(crate) fn n_entities(&self) -> u64 {
        let world = self.simulator.world();
        (world.running_vms().len() + world.hosts().len()) as u64
    }

    /// Moves the simulated clock.
    pub(crate) fn pass(&self, time: Duration) {
        self.simulator.clock().advance(time);
    }

    /// The collector was away, or the database was: from now on, it is well again.
    pub(crate) fn healthy_from_now(&mut self) {
        self.healthy_since = self.simulator.clock().now();
    }

    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        self.database.connect(Role::Reader).await.unwrap()
    }

    /// What the oracle says of one of several platforms, all of them healthy since the start.
    pub(crate) async fn verdict_of(&self, platform: &str, simulator: &Simulator) -> Verdict {
        let truth = simulator.truth();
        let client = self.client().await;
        let healthy = self.healthy_since..truth.now;
        oracle::check(&client, platform, &truth, std::slice::from_ref(&healthy), GRACE)
            .await
            .unwrap()
    }

    /// What the oracle says of the roll-ups.
    pub(crate) async fn rollups(&self) -> Rollups {
        let client = self.client().await;
        oracle::rollups::check(&client, PLATFORM, &self.simulator.truth())
            .await
            .unwrap()
    }

    /// What the oracle says of everything stored so far.
    pub(crate) async fn verdict(&self) -> Verdict {
        let truth = self.simulator.truth();
        let client = self.client().await;
        let healthy = self.healthy_since..truth.now;
        let verdict = oracle::check(&client, PLATFORM, &truth, std::slice::from_ref(&healthy), GRACE)
            .await
            .unwrap();
        // The product's own check of the chain must agree with the oracle's.
        let breaks: i64 = client
            .query_one("SELECT count(*) FROM virt_chain_break()", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(
            breaks == 0,
            verdict.unexplained == 0,
            "virt_chain_break() says {breaks}, the oracle: {verdict}"
        );
        verdict
    }
}

/// The daemon in this process.
pub(crate) struct Daemon(pub(crate) App);

impl Daemon {
    pub(crate) async fn poll(&self) -> PollReport {
        let report = tokio::time::timeout(DEADLINE, self.0.platform(PLATFORM).unwrap().poll_now()).await;
        report
            .unwrap_or_else(|_| panic!("no poll within {DEADLINE:?}; {}", self.0.summary()))
            .unwrap()
    }

    /// Reads hosts and VMs now.
    pub(crate) async fn discover(&self) {
        let read = tokio::time::timeout(DEADLINE, self.0.platform(PLATFORM).unwrap().discover_now()).await;
        let report =
            read.unwrap_or_else(|_| panic!("no discovery within {DEADLINE:?}; {}", self.0.summary()));
        assert_eq!(report.unwrap().error, None);
    }

    /// Fills gaps from the ring.
    pub(crate) async fn back_fill(&self) -> BackFillReport {
        let report = tokio::time::timeout(DEADLINE, self.0.platform(PLATFORM).unwrap().back_fill_now()).await;
        report
            .unwrap_or_else(|_| panic!("no back-fill within {DEADLINE:?}; {}", self.0.summary()))
            .unwrap()
    }

    /// Makes all roll-ups that are noted, due or not.
    pub(crate) async fn make_rollups(&self) -> RollupReport {
        let made = tokio::time::timeout(DEADLINE, self.0.platform(PLATFORM).unwrap().roll_up_now()).await;
        let report = made
            .unwrap_or_else(|_| panic!("no roll-ups within {DEADLINE:?}; {}", self.0.summary()))
            .unwrap();
        assert_eq!(report.error, None);
        report
    }

    /// Fills from roll-ups what the ring no longer held.
    pub(crate) async fn roll_up(&self) -> BackFillReport {
        let platform = self.0.platform(PLATFORM).unwrap();
        let report = tokio::time::timeout(DEADLINE, platform.back_fill_from_rollups_now()).await;
        report
            .unwrap_or_else(|_| panic!("no roll-ups within {DEADLINE:?}; {}", self.0.summary()))
            .unwrap()
    }

    pub(crate) async fn stop(self) {
        self.0.stop().await.unwrap();
    }
}

/// As [`assert_clean`], and no gap had to be explained.
#[track_caller]
pub(crate) fn assert_whole(verdict: &Verdict) {
    assert_clean(verdict);
    assert_eq!(verdict.explained, 0, "{verdict}");
}

/// Every count that must be zero is.
#[track_caller]
pub(crate) fn assert_clean(verdict: &Verdict) {
    let counts = (
        verdict.missing,
        verdict.duplicate,
        verdict.wrong,
        verdict.unexplained,
        verdict.open,
    );
    assert_eq!(
        counts,
        (0, 0, 0, 0, 0),
        "missing, duplicate, wrong, unexplained, open: {verdict}\n{:#?}",
        verdict.details
    );
}
