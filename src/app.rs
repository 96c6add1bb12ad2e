//! The composition root: builds the parts, wires them, starts them, and stops them in order.
//!
//! Start: configuration is valid → sockets are bound → READY → database and platforms connect, each in its own time,
//! so that one that is away delays nobody. Stop: the collector withdraws, so that others take its platforms as they
//! become free; polls finish and rows are flushed → sessions log out → leases are released → the endpoint closes.
//! Meanwhile a new configuration is taken over as far as it can be ([`reload`]).
//!
//! Tasks: `database` (looks at its health), `collectors` (announces this one, looks at the others, and says which
//! platforms to take and which to hand over), `registry` (says which platforms run here), `operations heard` (tells them
//! of actions that enter the queue), `retention` (drops what is too old), and per platform those of [`platform`].

mod fleet;
pub mod platform;
mod registry;
mod reload;
mod retention;
mod status;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::admin::DatabaseHealth;
use crate::api;
use crate::budget::Budget;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Chain;
use crate::ingest::rollups;
use crate::ingest::writers::Writers;
use crate::listen;
use crate::listen::tls::{Certificate, Tls, TlsError};
use crate::operate;
use crate::registrar::Registrar;
use crate::store;
use crate::store::Database;
use crate::store::Owner;
use crate::store::collectors::Standing;
use crate::store::reading::Reader;
use crate::supervise::Tasks;
use crate::telemetry::metrics::DatabaseMetrics;
use crate::telemetry::metrics::Handle;
use crate::telemetry::metrics::RetentionMetrics;
use crate::vsphere;

use fleet::Fleet;
pub use platform::PlatformHandle;
use registry::{Configured, Registry, Wanted};
use reload::{Reload, Served};
use retention::Retention;

/// For one trial that the API was asked for; less than a request may take.
const TRIAL_DEADLINE: Duration = Duration::from_secs(30);

/// How often the database's health is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// How often the other collectors are looked at: two short reads. A platform that one gives up is taken within this.
const LOOK: Duration = Duration::from_secs(2);

/// How often this collector announces itself: a third of what an announcement is good for.
const ANNOUNCEMENT: Duration = Duration::from_secs(10);

/// After an absence: every other collector that is well renews its leases within this.
const OTHERS_RENEW: Duration = Duration::from_secs(12);

/// From the request to stop to the end of everything; below systemd's TimeoutStopSec of 45 s.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// Why the daemon could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database settings cannot work.
    #[error("[database]")]
    Settings(#[source] store::Error),
    /// A platform's settings cannot work.
    #[error("platform {name:?}")]
    Platform {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: vsphere::Error,
    },
    /// The endpoint cannot listen.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// The certificate of the admin API cannot be used.
    #[error("[api]")]
    Tls(#[from] TlsError),
    /// A task failed; what it was has been logged.
    #[error("a task failed, see the log; this is a defect, please report it")]
    TaskFailed,
    /// Tasks did not end in time.
    #[error("still running after {}s: {}", STOP_DEADLINE.as_secs(), .0.join(", "))]
    Hanging(Vec<String>),
}

/// A running daemon.
#[derive(Debug)]
pub struct App {
    tasks: Tasks,
    fleet: Arc<Fleet>,
    database: Database,
    health: watch::Receiver<DatabaseHealth>,
    address: std::net::SocketAddr,
    api_database: Database,
    reader: Reader,
    api_address: Option<std::net::SocketAddr>,
    reload: Reload,
}

impl App {
    /// Builds and starts everything. Returns as soon as the endpoint listens; nothing else is waited for.
    ///
    /// # Errors
    /// When the settings cannot work, or the endpoint cannot listen.
    pub async fn start(config: Config, metrics: Handle) -> Result<Self, Error> {
        let started = config.clone();
        let configured = Configured::of(&config);
        let Config {
            memory,
            database,
            collection,
            inventory: _,
            retention,
            admin: endpoint,
            api: api_settings,
            log: _,
            keys,
            platforms,
        } = config;
        let owner = Owner::random();
        let settings = store::Settings::new(&database, &database.writer, &owner).map_err(Error::Settings)?;
        let listener: TcpListener = listen::bind(endpoint.listen, "admin.listen").await?;
        let address = listener.local_addr().unwrap_or(endpoint.listen);
        let (api_listener, tls) = match &api_settings {
            Some(api) => {
                let certificate = api.tls.as_ref().map(Certificate::read).transpose()?;
                let tls = certificate.map(Tls::new);
                (Some(listen::bind(api.listen, "api.listen").await?), tls)
            }
            None => (None, None),
        };
        let api_address = api_listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok());
        // Sessions of its own, so that no number of requests takes one from collection.
        let api_database = Database::new(settings.clone()).map_err(Error::Settings)?;
        let reader = Reader::new(&settings).map_err(Error::Settings)?;
        let database = Database::new(settings).map_err(Error::Settings)?;
        let tasks = Tasks::new();

        let (health_sender, health) = watch::channel(DatabaseHealth::Down("not asked yet".to_owned()));
        tasks.spawn(
            "database",
            watch_database(database.clone(), health_sender, tasks.clone()),
        );
        admin::start(
            listener,
            admin::Shown {
                database: health.clone(),
                metrics,
            },
            &tasks,
        );

        let (kept, kept_seen) = watch::channel(retention);
        let retention = Retention {
            kept: kept_seen,
            database: database.clone(),
            health: health.clone(),
            metrics: RetentionMetrics::new(),
        };
        tasks.spawn("retention", retention.keep(tasks.stopping()));

        let mut served = None;
        if let (Some(api), Some(listener)) = (&api_settings, api_listener) {
            let registrar = Registrar {
                database: api_database.clone(),
                keys: keys.file.clone(),
                collection,
                configured: platforms.clone(),
                trial_deadline: TRIAL_DEADLINE,
            };
            let parts = api::Parts {
                database: api_database.clone(),
                reader: reader.clone(),
                keys: keys.file.clone(),
                health: health.clone(),
                tasks: tasks.clone(),
            };
            let context = api::Context::new(parts, api, registrar);
            api::start(listener, tls.clone(), context.clone(), &tasks);
            if let Some(address) = api_address {
                tracing::info!(%address, tls = tls.is_some(), "the admin API listens");
            }
            served = Some(Served { context, tls });
        }

        let (standing_sender, standing) = watch::channel(Standing::default());
        let (asked_sender, asked) = watch::channel(0);
        let (names_sender, names) = watch::channel(BTreeSet::new());
        let shared = fleet::Shared {
            database: database.clone(),
            database_health: health.clone(),
            writers: Writers::new(database.clone()),
            rollup_turns: rollups::Turns::default(),
            budget: Budget::new(memory),
            owner: owner.clone(),
            standing,
            asked,
            clock: Arc::new(SystemClock),
            tasks: tasks.clone(),
        };
        let fleet = Arc::new(Fleet::new(shared, names_sender));
        for platform in &platforms {
            let wanted = Wanted::configured(platform.clone(), Arc::clone(&configured.way));
            fleet.try_settings(&wanted).map_err(|source| Error::Platform {
                name: platform.name.clone(),
                source,
            })?;
            fleet.start(wanted);
        }
        let place = Place {
            owner,
            names,
            database: database.clone(),
            health: health.clone(),
            standing: standing_sender,
        };
        tasks.spawn("collectors", place.keep(tasks.stopping()));
        let n_platforms = platforms.len();
        let (configured_sender, configured) = watch::channel(configured);
        let registry = Registry {
            configured,
            keys: keys.file,
            database: database.clone(),
            health: health.clone(),
            fleet: Arc::clone(&fleet),
            tasks: tasks.clone(),
        };
        tasks.spawn(
            "operations heard",
            operate::hear(database.clone(), asked_sender, tasks.stopping()),
        );
        tasks.spawn("registry", registry.keep(tasks.stopping()));
        tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, n_platforms, "started");
        let reload = Reload {
            current: Mutex::new(started.clone()),
            started,
            configured: configured_sender,
            kept,
            fleet: Arc::clone(&fleet),
            api: served,
        };
        Ok(Self {
            tasks,
            fleet,
            database,
            health,
            address,
            api_database,
            reader,
            api_address,
            reload,
        })
    }

    /// Where the admin API listens, where it does.
    #[must_use]
    pub const fn api_address(&self) -> Option<std::net::SocketAddr> {
        self.api_address
    }

    /// Takes over what may change while the service runs; a warning says what of it waits for the next start.
    ///
    /// # Errors
    /// When something in it cannot work, as at a start; then the configuration before stays in force, all of it.
    pub fn reload(&self, config: Config) -> Result<(), Error> {
        self.reload.take_over(config)
    }

    /// Where the endpoint listens.
    #[must_use]
    pub const fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// A platform that runs here, to ask for a poll out of turn.
    #[must_use]
    pub fn platform(&self, name: &str) -> Option<PlatformHandle> {
        self.fleet.handle(name)
    }

    /// The database's health as it changes.
    #[must_use]
    pub fn database_health(&self) -> watch::Receiver<DatabaseHealth> {
        self.health.clone()
    }

    /// Resolves when a task has failed.
    pub async fn failed(&self) {
        self.tasks.failed().cancelled().await;
    }

    /// One line for `systemctl status`.
    #[must_use]
    pub fn summary(&self) -> String {
        let platforms = self.fleet.handles();
        let n_well = platforms.iter().filter(|platform| platform.is_well()).count();
        format!("{n_well}/{} platforms well", platforms.len())
    }

    /// True while every platform's own loop still turns: what feeds the watchdog.
    #[must_use]
    pub fn makes_progress(&self) -> bool {
        self.fleet.handles().iter().all(PlatformHandle::makes_progress)
    }

    /// Stops in order and waits for the end.
    ///
    /// # Errors
    /// When a task failed, or some did not end in time.
    pub async fn stop(self) -> Result<(), Error> {
        tracing::info!("stopping");
        let failed = self.tasks.failed().is_cancelled();
        self.tasks.stop();
        let hanging = self.tasks.join(STOP_DEADLINE).await;
        self.database.close();
        self.api_database.close();
        self.reader.close();
        if !hanging.is_empty() {
            return Err(Error::Hanging(hanging));
        }
        if failed {
            return Err(Error::TaskFailed);
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Looks at the database's health and tells the endpoint and the platforms.
async fn watch_database(database: Database, health: watch::Sender<DatabaseHealth>, tasks: Tasks) {
    let metrics = DatabaseMetrics::new();
    let stopping = tasks.stopping();
    let mut known = None;
    loop {
        let probed = tokio::select! {
            () = stopping.cancelled() => return,
            probed = database.probe() => probed.and_then(|probe| probe.require().map(|()| probe)),
        };
        let now = match &probed {
            Ok(_) => DatabaseHealth::Up,
            Err(error) => DatabaseHealth::Down(Chain(error).to_string()),
        };
        metrics.up(now == DatabaseHealth::Up);
        // A server may come back as another edition or version between two looks.
        let is_another = probed.as_ref().is_ok_and(|probe| known.as_ref() != Some(probe));
        if *health.borrow() != now || is_another {
            match &probed {
                Ok(probe) => tracing::info!(server = %probe, "database ready"),
                Err(error) => {
                    metrics.failed(error.class().as_str());
                    tracing::error!(error = %Chain(error), "database not usable; nothing is fetched meanwhile");
                }
            }
            health.send_replace(now);
        }
        known = probed.ok().or(known);
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
}

/// What this collector last said of itself.
#[derive(Debug)]
struct Announced {
    at: Instant,
    platforms: BTreeSet<String>,
}

/// This collector's place among those that share the database.
#[derive(Debug)]
struct Place {
    owner: Owner,
    /// The platforms that run here.
    names: watch::Receiver<BTreeSet<String>>,
    database: Database,
    health: watch::Receiver<DatabaseHealth>,
    standing: watch::Sender<Standing>,
}

impl Place {
    /// Announces this collector and looks at the others until it is asked to stop, then withdraws.
    async fn keep(mut self, stopping: CancellationToken) {
        let host_name = host_name();
        let mut announced: Option<Announced> = None;
        let mut absent_until: Option<Instant> = None;
        let mut failing = false;
        loop {
            let up = tokio::select! {
                () = stopping.cancelled() => break,
                up = self.health.wait_for(|health| *health == DatabaseHealth::Up) => up.is_ok(),
            };
            if !up {
                // The task that looks at the database has ended: so does everything.
                stopping.cancelled().await;
                break;
            }
            // Never dropped half-way: the announcement could reach the server behind the withdrawal.
            let looked = self.look(&host_name, &mut announced, &mut absent_until).await;
            match looked {
                Ok(()) => failing = false,
                // Told once per trouble; the leases are kept by loops of their own.
                Err(error) if !failing && !error.is_outage() => {
                    failing = true;
                    tracing::warn!(error = %Chain(&error), "cannot look at the other collectors; trying again");
                }
                Err(error) => tracing::debug!(error = %Chain(&error), "cannot look at the other collectors"),
            }
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
                Ok(()) = self.names.changed() => {}
            }
        }
        if announced.is_none() {
            return;
        }
        if let Err(error) = self.database.withdraw_collector(&self.owner).await {
            tracing::debug!(error = %Chain(&error), "cannot withdraw; others count this collector for another 30 s");
        }
    }

    async fn look(
        &mut self,
        host_name: &str,
        announced: &mut Option<Announced>,
        absent_until: &mut Option<Instant>,
    ) -> Result<(), store::Error> {
        let platforms = self.names.borrow_and_update().clone();
        let is_fresh = |last: &Announced| last.at.elapsed() < ANNOUNCEMENT && last.platforms == platforms;
        if !announced.as_ref().is_some_and(is_fresh) {
            let at = Instant::now();
            let was_absent = self
                .database
                .announce_collector(&self.owner, host_name, &platforms)
                .await?;
            *announced = Some(Announced {
                at,
                platforms: platforms.clone(),
            });
            if was_absent {
                tracing::info!("this collector counted as gone for a while");
                *absent_until = Some(Instant::now() + OTHERS_RENEW);
            }
        }
        let collectors = self.database.collectors().await?;
        let standing = if absent_until.is_some_and(|until| Instant::now() < until) {
            collectors.standing_after_absence(&self.owner, &platforms)
        } else {
            collectors.standing(&self.owner, &platforms)
        };
        let before = (self.standing.borrow().n_live, self.standing.borrow().share);
        if before != (standing.n_live, standing.share) {
            tracing::info!(
                n_collectors = standing.n_live,
                n_platforms = platforms.len(),
                fair_share = standing.share,
                "collectors on this database"
            );
        }
        self.standing.send_if_modified(|current| {
            let is_new = *current != standing;
            *current = standing;
            is_new
        });
        Ok(())
    }
}

/// The machine's name, for people. Inside the service's sandbox there is no /proc/sys.
fn host_name() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
