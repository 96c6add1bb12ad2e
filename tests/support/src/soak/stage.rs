//! Database, platforms and collectors, and their comings and goings.
//!
//! Owns: everything that runs, the outage, and the looks. Never does: deciding what happens.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use vsphere_simulator::{HostLink, Simulator, Spec};

use super::watch::{self, Look, Slope, Stored, Usage};
use super::{Plan, Report};
use crate::cluster::Mode;
use crate::collector::{Collector, Platform, Settings};
use crate::drill::{Error, Ground};
use crate::oracle::rollups::Rollups;
use crate::oracle::{self, Verdict};
use crate::process::{self, Signal};
use crate::proxy::{Endpoint, Protocol, Proxy, Weather};

const DATABASE: &str = "virt_soak";

const INTERVAL: Duration = Duration::from_secs(20);

const DISCOVERY: Duration = Duration::from_mins(1);

/// vCenter's is 30 minutes. What a kill leaves behind is gone before a quiet look.
const SESSION_TIMEOUT: Duration = Duration::from_mins(1);

/// Twice as long as a session lives that nobody uses.
pub(super) const QUIET: Duration = Duration::from_mins(2);

/// Between two looks.
const LOOK: Duration = Duration::from_secs(15);

/// Looks whose line is printed.
const TOLD: u32 = 4;

/// The daemon promises to stop within 45 s.
const STOP_DEADLINE: Duration = Duration::from_secs(50);

const READY_DEADLINE: Duration = Duration::from_secs(60);

/// The promise: ten minutes after an outage of up to fifty all is stored.
const GRACE: Duration = Duration::from_mins(10);

/// Until then the first hour of all platforms is there, allocators have their size and connections are open.
const WARM_UP: Duration = Duration::from_mins(20);

const LAG_AND_GAPS: &str = "\
SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = 'virt_writer'), \
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - newest)), 0)::int8 FROM ( \
            SELECT max(last.collected_at) AS newest FROM virt_host AS host CROSS JOIN LATERAL ( \
                SELECT collected_at FROM virt_host_metrics AS sample WHERE sample.host_id = host.host_id \
                ORDER BY collected_at DESC LIMIT 1) AS last \
            GROUP BY host.platform_id) AS platform), \
       (SELECT count(*) FROM virt_collection_gap WHERE state = 'open'), \
       (SELECT count(*) FROM virt_chain_break())";

/// Gaps that could have been asked for.
const SETTLED: &str = "\
SELECT count(*) FROM virt_collection_gap WHERE state = 'open' \
AND to_time <= clock_timestamp() - interval '2 minutes' \
AND (ask_after IS NULL OR ask_after <= clock_timestamp())";

/// One simulated platform.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) simulator: Simulator,
    pub(super) esxi: bool,
}

/// One collector with its ways to the database and to the platforms.
#[derive(Debug)]
pub(super) struct Node {
    collector: Collector,
    pub(super) database: Proxy,
    pub(super) platforms: Vec<Proxy>,
}

/// Everything that runs.
pub(super) struct Stage<'a> {
    say: &'a mut (dyn FnMut(String) + Send + Sync),
    ground: Ground,
    pub(super) sites: Vec<Site>,
    /// The first lives throughout.
    pub(super) nodes: [Node; 2],
    began: Instant,
    born: i64,
    /// The outage, in the machine's time.
    outage: Option<Range<i64>>,
    without_database: bool,
    looks: Vec<Look>,
    next_look: Instant,
}

impl<'a> Stage<'a> {
    pub(super) async fn set(
        plan: &Plan,
        say: &'a mut (dyn FnMut(String) + Send + Sync),
    ) -> Result<Self, Error> {
        let ground = Ground::prepare("soak", &plan.cluster, DATABASE).await?;
        let mut sites = Vec::new();
        for number in 1..=5_u64 {
            // Four vCenters and a host without one.
            let esxi = number == 5;
            let spec = Spec {
                session_timeout: SESSION_TIMEOUT,
                powered_off: Some(1),
                ..if esxi { Spec::esxi(6) } else { Spec::vcenter(4, 20) }
            };
            sites.push(Site {
                name: format!("soak-{number}"),
                simulator: Simulator::start(spec.seed(plan.seed.wrapping_add(number))).await?,
                esxi,
            });
        }
        let node = |number: usize, database_way: Proxy, host: String| {
            let platforms = sites
                .iter()
                .map(|site| Proxy::tcp(Protocol::Opaque, Endpoint::Tcp(site.simulator.addr())))
                .collect::<Result<Vec<_>, _>>()?;
            let settings = Settings {
                database: format!("{host} user=virt_writer dbname={DATABASE}"),
                owner: ground.owner(),
                interval: INTERVAL,
                discovery_interval: DISCOVERY,
                listen: process::free_address()?,
                top: String::new(),
                more: String::new(),
                platforms: sites
                    .iter()
                    .zip(&platforms)
                    .map(|(site, way)| {
                        Ok(Platform {
                            address: way.address().ok_or(Error::Nothing("port"))?,
                            ..Platform::simulated(&site.name, &site.simulator)
                        })
                    })
                    .collect::<Result<_, Error>>()?,
            };
            let files = ground.directory.join(format!("collector-{number}"));
            Ok::<_, Error>(Node {
                collector: Collector::prepare(&ground.program, &files, &settings)?,
                database: database_way,
                platforms,
            })
        };
        // One over TCP, one over a Unix socket: both are in use.
        let server = ground.socket()?;
        let tcp = Proxy::tcp(Protocol::Postgres, server.clone())?;
        let port = tcp.address().ok_or(Error::Nothing("port"))?.port();
        let unix = Proxy::unix(ground.sockets(), server)?;
        let nodes = [
            node(0, tcp, format!("host=127.0.0.1 port={port}"))?,
            node(1, unix, format!("host={}", ground.sockets().display()))?,
        ];
        let born = now();
        let began = Instant::now();
        let mut stage = Self {
            say,
            ground,
            sites,
            nodes,
            began,
            born,
            outage: None,
            without_database: false,
            looks: Vec::new(),
            next_look: began,
        };
        let [first, second] = &mut stage.nodes;
        first.collector.migrate().await?;
        first.collector.start().await?;
        second.collector.start().await?;
        for node in &mut stage.nodes {
            node.collector.ready(READY_DEADLINE).await?;
        }
        Ok(stage)
    }

    /// Ends what runs.
    pub(super) async fn clear(mut self, keep: bool) -> Result<(), Error> {
        for node in &mut self.nodes {
            node.collector.kill().await?;
        }
        if keep {
            self.ground.keep_database();
            let logs = self.ground.directory.display();
            (self.say)(format!("kept: database {DATABASE}, logs {logs}"));
        }
        self.ground.clear().await
    }

    pub(super) fn say(&mut self, line: String) {
        (self.say)(line);
    }

    // ---- time

    /// Nothing happens for so long that what faults left behind is gone; what there is then is counted.
    pub(super) async fn quiet(&mut self) -> Result<(), Error> {
        self.calm()?;
        self.pass(QUIET).await?;
        self.settled().await?;
        let mut look = self.taken().await;
        look.is_quiet = true;
        self.say(format!("quiet: {look}"));
        self.looks.push(look);
        Ok(())
    }

    /// Real time passes, and is watched.
    pub(super) async fn pass(&mut self, time: Duration) -> Result<(), Error> {
        let until = Instant::now() + time;
        loop {
            for node in &mut self.nodes {
                node.collector.must_run()?;
            }
            if self.next_look <= Instant::now() {
                self.next_look = Instant::now() + LOOK;
                self.look().await;
            }
            if until <= Instant::now() {
                return Ok(());
            }
            tokio::time::sleep_until(until.min(self.next_look)).await;
        }
    }

    async fn look(&mut self) {
        let look = self.taken().await;
        if u32::try_from(self.looks.len()).is_ok_and(|n| n % TOLD == 0) {
            self.say(look.to_string());
        }
        self.looks.push(look);
    }

    async fn taken(&self) -> Look {
        let mut usage = [None; 2];
        for (node, usage) in self.nodes.iter().zip(&mut usage) {
            *usage = node.collector.pid().and_then(Usage::of);
        }
        let stored = if self.without_database {
            None
        } else {
            // A server that restarts does not answer: the next look will.
            self.stored().await.ok()
        };
        Look {
            at: self.began.elapsed(),
            is_quiet: false,
            usage,
            connections: self.connections(),
            stored,
            vcenter_sessions: self
                .sites
                .iter()
                .map(|site| u64::try_from(site.simulator.sessions().stats().open).unwrap_or_default())
                .sum(),
        }
    }

    /// Those of the collector that lives throughout, to the database and to the platforms.
    fn connections(&self) -> u64 {
        let [first, _] = &self.nodes;
        let ways = first.platforms.iter().chain([&first.database]);
        ways.map(|way| way.counts().open).sum()
    }

    async fn stored(&self) -> Result<Stored, Error> {
        let row = self.client().await?.query_one(LAG_AND_GAPS, &[]).await?;
        Ok(Stored {
            sessions: row.get(0),
            lag_seconds: row.get(1),
            open_gaps: row.get(2),
            breaks: row.get(3),
        })
    }

    pub(super) fn slope(&self) -> Slope {
        watch::slope(&self.looks, WARM_UP)
    }

    /// How many platforms there are: each has one session, whichever collector has it.
    pub(super) fn platforms(&self) -> u64 {
        u64::try_from(self.sites.len()).unwrap_or(u64::MAX)
    }

    /// Waits until all platforms are up to date and no gap is left that could have been asked for; ten minutes are
    /// what is promised.
    pub(super) async fn settled(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let newest = i64::try_from(3 * INTERVAL.as_secs()).unwrap_or(i64::MAX);
        loop {
            let client = self.client().await?;
            let open: i64 = client.query_one(SETTLED, &[]).await?.get(0);
            let lag = self.stored().await?.lag_seconds;
            if open == 0 && lag <= newest {
                return Ok(());
            }
            if started.elapsed() > GRACE {
                return Err(process::Error::Deadline {
                    what: "the collectors to recover".to_owned(),
                    after: GRACE,
                    state: format!("{open} open gaps, lag {lag} s"),
                }
                .into());
            }
            self.pass(Duration::from_secs(1)).await?;
        }
    }

    // ---- comparing

    /// Compares every row of every platform with what it published, in one snapshot each.
    pub(super) async fn compare(&mut self, report: &mut Report) -> Result<(), Error> {
        let from_birth = self.born..i64::MAX;
        let mut healthy = Vec::from([from_birth.clone()]);
        if let Some(outage) = &self.outage {
            healthy = Vec::from([from_birth.start..outage.start, outage.end..from_birth.end]);
        }
        let mut all = Verdict::default();
        for site in &self.sites {
            let client = self.client().await?;
            client
                .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT FROM virt_platform")
                .await?;
            // Later than the snapshot: whatever is stored in it has been published.
            let truth = site.simulator.truth();
            let verdict = oracle::check(&client, &site.name, &truth, &healthy, GRACE).await?;
            report.comparisons += 1;
            if !verdict.is_clean() {
                report.details.push(format!(
                    "{} after {:?}: {}",
                    site.name,
                    self.began.elapsed(),
                    verdict.report()
                ));
            }
            all.stored += verdict.stored;
            all.owed += verdict.owed;
            all.missing += verdict.missing;
            all.duplicate += verdict.duplicate;
            all.wrong += verdict.wrong;
            all.unexplained += verdict.unexplained;
            all.explained += verdict.explained;
            for (reason, n) in verdict.reasons {
                *all.reasons.entry(reason).or_default() += n;
            }
        }
        self.say(format!(
            "compared: stored {}, owed {}, missing {}, duplicate {}, wrong {}, unexplained {}",
            all.stored, all.owed, all.missing, all.duplicate, all.wrong, all.unexplained
        ));
        let before = &report.verdict;
        report.verdict = Verdict {
            missing: before.missing + all.missing,
            duplicate: before.duplicate + all.duplicate,
            wrong: before.wrong + all.wrong,
            unexplained: before.unexplained + all.unexplained,
            ..all
        };
        Ok(())
    }

    /// Gaps that nobody has asked for although it was time.
    pub(super) async fn open_gaps(&self) -> Result<u64, Error> {
        let open: i64 = self.client().await?.query_one(SETTLED, &[]).await?.get(0);
        Ok(u64::try_from(open).unwrap_or_default())
    }

    /// Compares every roll-up that is made, of all platforms.
    pub(super) async fn rollups(&self) -> Result<Rollups, Error> {
        let client = self.client().await?;
        let mut all = Rollups::default();
        for site in &self.sites {
            let found = oracle::rollups::check(&client, &site.name, &site.simulator.truth()).await?;
            all.expected += found.expected;
            all.whole += found.whole;
            all.coarse_seconds += found.coarse_seconds;
            all.missing += found.missing;
            all.spare += found.spare;
            all.wrong += found.wrong;
            all.pending += found.pending;
            all.details.extend(found.details);
        }
        Ok(all)
    }

    // ---- the database

    /// A superuser's connection, past the proxies.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        self.ground.client().await
    }

    pub(super) async fn restart_database(&mut self, mode: Mode) -> Result<(), Error> {
        Ok(self.ground.cluster.restart(mode).await?)
    }

    pub(super) async fn stop_database(&mut self) -> Result<(), Error> {
        self.say("the database is stopped".to_owned());
        self.outage = Some(now()..i64::MAX);
        self.without_database = true;
        Ok(self.ground.cluster.stop(Mode::Fast).await?)
    }

    /// Starts it again; it may listen elsewhere now.
    pub(super) async fn start_database(&mut self) -> Result<(), Error> {
        let target = self.ground.start().await?;
        for node in &self.nodes {
            node.database.set_target(target.clone());
        }
        if let Some(outage) = &mut self.outage {
            outage.end = now();
        }
        self.without_database = false;
        self.say("the database is back".to_owned());
        Ok(())
    }

    // ---- collectors

    /// Fair weather everywhere, and every host at its vCenter.
    pub(super) fn calm(&mut self) -> Result<(), Error> {
        for node in &self.nodes {
            for way in node.platforms.iter().chain([&node.database]) {
                way.disarm();
                way.refuse(false);
                way.set_weather(Weather::default());
            }
        }
        for site in &self.sites {
            site.simulator.rules().clear();
            if !site.esxi {
                for host in site.simulator.world().hosts() {
                    site.simulator.world().set_host_link(&host, HostLink::Connected)?;
                }
            }
        }
        Ok(())
    }

    /// Stops both, which must end well.
    pub(super) async fn stop_collectors(&mut self) -> Result<(), Error> {
        for node in &mut self.nodes {
            node.stop().await?;
        }
        Ok(())
    }
}

impl Node {
    pub(super) async fn start(&mut self) -> Result<(), Error> {
        Ok(self.collector.start().await?)
    }

    pub(super) async fn kill(&mut self) -> Result<(), Error> {
        Ok(self.collector.kill().await?)
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        Ok(self.collector.signal(signal)?)
    }

    /// SIGTERM; it must end with 0.
    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        // Before that it has no say in how it ends.
        let admin = self.collector.admin();
        process::until("virt-collector to answer", READY_DEADLINE, || async move {
            match crate::http::get(admin, "/livez").await {
                Ok(_) => Ok(()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        Ok(self.collector.end(STOP_DEADLINE).await?)
    }
}

/// Microseconds since the epoch.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
