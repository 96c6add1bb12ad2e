//! How everything stands, as `status` shows it: the database, platforms, collectors. From the database alone, so that it
//! answers while the service is down.
//!
//! Ages compare stamps of the source with the clock of the database.

use tokio_postgres::types::Type;

use crate::store::connect::Database;
use crate::store::error::Error;
use crate::units::Stamp;

/// An entity is looked up on the unique index, in the chunks of the last hours: what is older is told as older than that.
const PLATFORMS: &str = "\
SELECT platform.name, platform.type, platform.host, platform.source = 'config', platform.is_active,
       platform.in_maintenance, platform.status, platform.status_class, platform.status_reason, platform.status_since,
       platform.version, collector.host_name, lease.owner IS NOT NULL, host.n, vm.n, host.n_live + vm.n_live,
       greatest(host.newest, vm.newest),
       extract(epoch FROM clock_timestamp() - greatest(host.newest, vm.newest))::float8,
       extract(epoch FROM clock_timestamp() - least(host.slowest, vm.slowest))::float8,
       gap.n, extract(epoch FROM clock_timestamp() - gap.oldest)::float8
FROM virt_platform AS platform
LEFT JOIN virt_platform_lease AS lease
       ON lease.platform_id = platform.platform_id AND lease.until > clock_timestamp()
LEFT JOIN virt_collector AS collector USING (owner)
CROSS JOIN LATERAL (
    SELECT count(*) AS n,
           count(*) FILTER (WHERE is_live) AS n_live,
           max(newest) AS newest,
           percentile_disc(0.05) WITHIN GROUP (ORDER BY newest) FILTER (WHERE is_live) AS slowest
    FROM (
        SELECT host.is_connected AND host.power_state = 'on' AS is_live,
               (SELECT collected_at FROM virt_host_metrics AS sample
                WHERE sample.host_id = host.host_id AND collected_at > clock_timestamp() - INTERVAL '6 hours'
                ORDER BY collected_at DESC LIMIT 1) AS newest
        FROM virt_host AS host WHERE host.platform_id = platform.platform_id AND host.removed_at IS NULL
    ) AS host
) AS host
CROSS JOIN LATERAL (
    SELECT count(*) AS n,
           count(*) FILTER (WHERE is_live) AS n_live,
           max(newest) AS newest,
           percentile_disc(0.05) WITHIN GROUP (ORDER BY newest) FILTER (WHERE is_live) AS slowest
    FROM (
        SELECT vm.is_connected AND vm.power_state = 'on' AS is_live,
               (SELECT collected_at FROM virt_vm_metrics AS sample
                WHERE sample.vm_id = vm.vm_id AND collected_at > clock_timestamp() - INTERVAL '6 hours'
                ORDER BY collected_at DESC LIMIT 1) AS newest
        FROM virt_vm AS vm
        WHERE vm.platform_id = platform.platform_id AND vm.removed_at IS NULL AND NOT vm.is_template
    ) AS vm
) AS vm
CROSS JOIN LATERAL (
    SELECT count(*) AS n, min(from_time) AS oldest
    FROM virt_collection_gap AS gap
    WHERE gap.platform_id = platform.platform_id AND gap.state = 'open'
) AS gap
WHERE platform.removed_at IS NULL
ORDER BY platform.name";

const COLLECTORS: &str = "\
SELECT collector.owner, collector.host_name, collector.until > clock_timestamp(),
       extract(epoch FROM clock_timestamp() - collector.until)::float8,
       (SELECT count(*) FROM virt_platform_lease AS lease
        WHERE lease.owner = collector.owner AND lease.until > clock_timestamp())
FROM virt_collector AS collector
ORDER BY collector.until > clock_timestamp() DESC, collector.host_name, collector.owner
LIMIT 50";

const SIZE: &str = "SELECT pg_database_size(current_database()), clock_timestamp()";

/// A platform.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformStanding {
    /// Its name.
    pub name: String,
    /// `vcenter` or `esxi`.
    pub kind: String,
    /// Host name or address.
    pub host: String,
    /// It stands in a config.toml.
    pub is_configured: bool,
    /// False: nobody connects.
    pub is_active: bool,
    /// A person paused it.
    pub in_maintenance: bool,
    /// What its collector said last; a collector that was killed says nothing more.
    pub status: String,
    /// Of an error.
    pub class: Option<String>,
    /// What is wrong and what to do.
    pub reason: Option<String>,
    /// Since when status and class are what they are.
    pub since: Stamp,
    /// Of the server.
    pub version: Option<String>,
    /// The machine of the collector that holds it.
    pub owner: Option<String>,
    /// A collector holds it.
    pub is_owned: bool,
    /// Hosts that are there.
    pub n_hosts: i64,
    /// VMs that are there, without templates.
    pub n_vms: i64,
    /// Those of both that run, and should have samples.
    pub n_live: i64,
    /// Stamp of the newest stored sample.
    pub newest: Option<Stamp>,
    /// Its age.
    pub newest_age_seconds: Option<f64>,
    /// 95 % of what runs has a sample at least this new.
    pub lag_seconds: Option<f64>,
    /// Gaps that are yet to be asked for.
    pub n_open_gaps: i64,
    /// Age of the beginning of the oldest.
    pub oldest_gap_age_seconds: Option<f64>,
}

/// A collector.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectorStanding {
    /// Its id.
    pub owner: String,
    /// Its machine.
    pub host_name: String,
    /// It has announced itself lately.
    pub is_alive: bool,
    /// Since its announcement ran out; below zero while it has not.
    pub gone_seconds: f64,
    /// Platforms that it holds.
    pub n_platforms: i64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// In order of their names.
    pub platforms: Vec<PlatformStanding>,
    /// Those that run first.
    pub collectors: Vec<CollectorStanding>,
    /// Size of the database.
    pub size_bytes: i64,
    /// When it was read, in the clock of the database.
    pub now: Stamp,
}

impl Database {
    /// How everything stands.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn overview(&self) -> Result<Overview, Error> {
        let connection = self.checkout("read how everything stands").await?;
        let none: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 0] = [];
        let mut platforms = Vec::new();
        for row in &connection.query(PLATFORMS, &none).await? {
            platforms.push(PlatformStanding {
                name: connection.read(row, 0)?,
                kind: connection.read(row, 1)?,
                host: connection.read(row, 2)?,
                is_configured: connection.read(row, 3)?,
                is_active: connection.read(row, 4)?,
                in_maintenance: connection.read(row, 5)?,
                status: connection.read(row, 6)?,
                class: connection.read(row, 7)?,
                reason: connection.read(row, 8)?,
                since: connection.read(row, 9)?,
                version: connection.read(row, 10)?,
                owner: connection.read(row, 11)?,
                is_owned: connection.read(row, 12)?,
                n_hosts: connection.read(row, 13)?,
                n_vms: connection.read(row, 14)?,
                n_live: connection.read(row, 15)?,
                newest: connection.read(row, 16)?,
                newest_age_seconds: connection.read(row, 17)?,
                lag_seconds: connection.read(row, 18)?,
                n_open_gaps: connection.read(row, 19)?,
                oldest_gap_age_seconds: connection.read(row, 20)?,
            });
        }
        let mut collectors = Vec::new();
        for row in &connection.query(COLLECTORS, &none).await? {
            collectors.push(CollectorStanding {
                owner: connection.read(row, 0)?,
                host_name: connection.read(row, 1)?,
                is_alive: connection.read(row, 2)?,
                gone_seconds: connection.read(row, 3)?,
                n_platforms: connection.read(row, 4)?,
            });
        }
        let size = connection.query(SIZE, &none).await?;
        let Some(row) = size.first() else {
            return Err(Error::Settings {
                problem: "the server answered without a row".to_owned(),
            });
        };
        let overview = Overview {
            platforms,
            collectors,
            size_bytes: connection.read(row, 0)?,
            now: connection.read(row, 1)?,
        };
        connection.done();
        Ok(overview)
    }
}
