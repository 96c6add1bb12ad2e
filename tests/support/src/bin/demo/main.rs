//! `make demo`: a simulated vCenter, a private TimescaleDB and the collector between them, with live rows.
//!
//! Owns: the story on the terminal. Starts the real programs, shows what arrives, and at the end lets the oracle
//! compare the database with what was published. Never does: leaving a process, socket or database behind.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::Deserialize;
use support::cluster::{Cluster, Mode};
use support::collector::{Collector, Platform, Settings, Trust};
use support::database::{self, Database, Role};
use support::oracle::{self, Verdict};
use support::process::{self, Process, chain};
use support::program::{fail, say};
use support::truth;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_postgres::Client;

mod live;

const PLATFORM: &str = "demo";
const PASSWORD: &str = "monitor";
const DATABASE: &str = "virt_demo";
const CLUSTER: &str = "demo";
const INTERVAL: Duration = Duration::from_secs(20);

/// The oracle's grace: within two minutes of the start the hour before it has to be there.
const GRACE: Duration = Duration::from_mins(2);

/// The daemon promises to stop within 45 s.
const STOP_DEADLINE: Duration = Duration::from_secs(50);

const REFRESH: Duration = Duration::from_secs(2);
const REFRESH_PLAIN: Duration = Duration::from_secs(10);

const EXAMPLE: &str = "\
SELECT vm.name, round(avg(m.cpu_ready_percent)::numeric, 2) AS cpu_ready_percent
  FROM virt_vm_metrics AS m JOIN virt_vm AS vm USING (vm_id)
  WHERE m.collected_at > now() - interval '10 minutes'
  GROUP BY vm.vm_id ORDER BY 2 DESC NULLS LAST LIMIT 5;";

/// Shows virt-collector at work: a simulated vCenter, a private TimescaleDB, and live rows, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(
    name = "demo",
    after_help = "Environment:\n  \
        DEMO_SECONDS  end after so many seconds; the exit status tells whether all was stored\n  \
        DEMO_VMS      running VMs, 200 if not set\n  \
        DEMO_HOSTS    hosts, 20 if not set\n\n\
        Uses the database server in VIRT_TEST_DATABASE_URL, or starts one by tests/support/cluster."
)]
struct Arguments {}

/// What stopped the demo.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{name} must be a whole number, not {value:?}")]
    Variable { name: &'static str, value: String },
    #[error("another demo is running in this checkout; stop it first, or wait for its end")]
    Running,
    #[error("cannot use {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Cluster(#[from] support::cluster::Error),
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error("the demo cannot read the database")]
    Query(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Truth(#[from] truth::Error),
    #[error(transparent)]
    Oracle(#[from] oracle::Error),
}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(demo()),
        Err(source) => Err(Error::Signals(source)),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("demo", chain(&error)),
    }
}

/// What the environment asks for.
struct Wish {
    seconds: Option<Duration>,
    vms: usize,
    hosts: usize,
}

impl Wish {
    fn read() -> Result<Self, Error> {
        fn number<T: std::str::FromStr>(name: &'static str) -> Result<Option<T>, Error> {
            match std::env::var(name) {
                Ok(value) if !value.is_empty() => value
                    .parse()
                    .map(Some)
                    .map_err(|_source| Error::Variable { name, value }),
                _ => Ok(None),
            }
        }
        Ok(Self {
            seconds: number("DEMO_SECONDS")?.map(Duration::from_secs),
            vms: number("DEMO_VMS")?.unwrap_or(200),
            hosts: number("DEMO_HOSTS")?.unwrap_or(20).max(1),
        })
    }
}

/// Ctrl-C, SIGTERM and a closed terminal.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Everything that runs, in the order in which it was started. Ends in reverse.
#[derive(Default)]
struct Stage {
    cluster: Option<Cluster>,
    database: Option<Database>,
    simulator: Option<Process>,
    collector: Option<Collector>,
}

impl Stage {
    async fn clear(&mut self) -> Result<(), Error> {
        if let Some(mut collector) = self.collector.take()
            && collector.stop(STOP_DEADLINE).await.is_err()
        {
            collector.kill().await?;
        }
        if let Some(mut simulator) = self.simulator.take()
            && simulator.terminate(Duration::from_secs(10)).await.is_err()
        {
            simulator.kill().await?;
        }
        if let Some(database) = self.database.take() {
            database.drop_now().await?;
        }
        if let Some(cluster) = self.cluster.take() {
            cluster.stop(Mode::Fast).await?;
        }
        Ok(())
    }
}

/// The whole demo. True unless DEMO_SECONDS was given and something is amiss or was not compared.
async fn demo() -> Result<bool, Error> {
    let wish = Wish::read()?;
    let directory = directory()?;
    let _lock = lock(&directory)?;
    let mut stop = Stop::listen()?;
    let mut stage = Stage::default();
    let outcome = story(&wish, &directory, &mut stop, &mut stage).await;
    let cleared = stage.clear().await;
    let told = outcome?;
    cleared?;
    let Some(told) = told else {
        return Ok(wish.seconds.is_none());
    };
    say(&told);
    Ok(told.is_good() || wish.seconds.is_none())
}

/// The last line.
struct Told {
    verdict: Verdict,
    lag_seconds: i64,
}

impl Told {
    const fn is_good(&self) -> bool {
        self.verdict.is_clean() && self.verdict.open == 0
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict {
            vms,
            hosts,
            stored,
            missing,
            duplicate,
            wrong,
            unexplained,
            open,
            ..
        } = &self.verdict;
        write!(
            f,
            "demo: vms={vms} hosts={hosts} stored={stored} missing={missing} duplicate={duplicate} wrong={wrong} \
             unexplained={unexplained} open={open} lag_seconds={}",
            self.lag_seconds
        )
    }
}

/// `None` where it was stopped before the collector ran.
async fn story(
    wish: &Wish,
    directory: &Path,
    stop: &mut Stop,
    stage: &mut Stage,
) -> Result<Option<Told>, Error> {
    let set = tokio::select! {
        set = set_up(wish, directory, stage) => set?,
        () = stop.asked() => {
            say("\nStopped before the collector ran.");
            return Ok(None);
        }
    };
    introduce(wish, directory, stage, &set);
    let end = wish.seconds.map(|seconds| set.started + seconds);
    let result = tokio::select! {
        ended = watch(stage, &set, end) => ended,
        () = stop.asked() => Ok(()),
    };
    result?;
    let Some(collector) = stage.collector.as_mut() else {
        return Ok(None);
    };

    let lag_seconds = lag(&set.reader).await?;
    let healthy = Range {
        start: set.healthy_from,
        end: now(),
    };
    say("\nStopping virt-collector, then comparing what it stored with what the vCenter published.");
    collector.end(STOP_DEADLINE).await?;
    let compare = async {
        let truth = truth::fetch(set.control).await?;
        Ok::<_, Error>(oracle::check(&set.superuser, PLATFORM, &truth, &[healthy], GRACE).await?)
    };
    let verdict = tokio::select! {
        verdict = compare => verdict?,
        () = stop.asked() => {
            say("Stopped before the comparison was done.");
            return Ok(None);
        }
    };
    if !verdict.is_clean() || verdict.explained > 0 {
        say(verdict.report());
    }
    if verdict.open > 0 {
        say(format_args!(
            "{} gaps were still to be asked for: the first hour was not complete yet when it ended.",
            verdict.open
        ));
    }
    Ok(Some(Told { verdict, lag_seconds }))
}

/// What the rest of the story needs.
struct Set {
    started: Instant,
    healthy_from: i64,
    control: SocketAddr,
    admin: SocketAddr,
    superuser: Client,
    reader: Client,
}

/// What the simulator prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    sdk: String,
    control: String,
    user: String,
}

async fn set_up(wish: &Wish, directory: &Path, stage: &mut Stage) -> Result<Set, Error> {
    let collector_program = process::find("virt-collector")?;
    let simulator_program = process::find("vsphere-simulator")?;

    say("Starting TimescaleDB ...");
    let (url, private) = match std::env::var(database::VARIABLE) {
        Ok(url) if !url.is_empty() => (
            url,
            std::env::var("VIRT_CLUSTER").is_ok_and(|name| name == CLUSTER),
        ),
        _ => (stage.cluster.insert(Cluster::named(CLUSTER)).start().await?, true),
    };
    let database = stage.database.insert(if private {
        // What a kill -9 of an earlier demo left.
        Database::remove(&url, DATABASE).await?;
        Database::create_on(&url, DATABASE).await?
    } else {
        Database::create().await?
    });

    say(format_args!(
        "Starting a simulated vCenter with {} hosts and {} running VMs ...",
        wish.hosts, wish.vms
    ));
    let ca_file = directory.join("vcenter-ca.pem");
    // A few VMs that are off, as everywhere; they have no samples.
    let off = wish.vms / 20;
    let arguments = [
        format!("--vms={}", wish.vms + off),
        format!("--powered-off={off}"),
        format!("--hosts={}", wish.hosts),
        format!("--ca-file={}", ca_file.display()),
    ];
    let log = directory.join("vsphere-simulator.log");
    let simulator = stage.simulator.insert(Process::start(
        "vsphere-simulator",
        &simulator_program,
        arguments,
        &log,
    )?);
    let ready = process::until("vsphere-simulator to be ready", Duration::from_secs(30), || {
        let ended = simulator.must_run();
        let line = std::fs::read_to_string(&log).unwrap_or_default();
        async move {
            if let Err(error) = ended {
                return Ok(Err(error));
            }
            let ready = line
                .lines()
                .find_map(|line| serde_json::from_str::<Ready>(line).ok());
            ready
                .map(Ok)
                .ok_or_else(|| "nothing on its standard output yet".to_owned())
        }
    });
    let ready = ready.await??;
    let control = socket(&ready.control)?;

    say("Creating the tables and starting virt-collector ...");
    let ca = std::fs::read_to_string(&ca_file).map_err(|source| Error::File {
        path: ca_file,
        source,
    })?;
    let settings = Settings {
        interval: INTERVAL,
        discovery_interval: Duration::from_mins(1),
        listen: admin_address()?,
        ..Settings::on(
            database,
            vec![Platform {
                name: PLATFORM.to_owned(),
                kind: "vcenter",
                address: socket(&ready.sdk)?,
                user: ready.user,
                password: PASSWORD.to_owned(),
                trust: Trust::CaPem(ca),
            }],
        )?
    };
    let superuser = database.connect(Role::Superuser).await?;
    let reader = database.connect(Role::Reader).await?;
    let collector = stage
        .collector
        .insert(Collector::prepare(&collector_program, directory, &settings)?);
    collector.migrate().await?;
    let (started, healthy_from) = (Instant::now(), now());
    collector.start().await?;
    collector.ready(Duration::from_secs(30)).await?;
    Ok(Set {
        started,
        healthy_from,
        control,
        admin: collector.admin(),
        superuser,
        reader,
    })
}

fn introduce(wish: &Wish, directory: &Path, stage: &Stage, set: &Set) {
    let Some(database) = &stage.database else { return };
    let ending = match wish.seconds {
        Some(seconds) => format!("It ends by itself after {} s.", seconds.as_secs()),
        None => "Ctrl-C stops everything and leaves nothing behind.".to_owned(),
    };
    say(format_args!(
        "\nThe collector polls every {} s. The hour before its start is fetched, too, within two minutes.\n{ending}\n\n\
         To look inside, in another terminal:\n  {} \"{}\"\n\n\
         For example, the five VMs that waited most for a CPU in the last ten minutes:\n  {EXAMPLE}\n\n\
         Metrics of the collector itself: http://{}/metrics\n\
         Configuration and logs:          {}\n",
        INTERVAL.as_secs(),
        psql(),
        database.url(Role::Reader),
        set.admin,
        shown(directory),
    ));
}

/// Shows what arrives until `end`, or for ever.
async fn watch(stage: &mut Stage, set: &Set, end: Option<Instant>) -> Result<(), Error> {
    let terminal = std::io::stdout().is_terminal();
    let mut lines_above = 0;
    loop {
        for running in [
            stage.collector.as_mut().and_then(Collector::daemon),
            stage.simulator.as_mut(),
        ] {
            running.map_or(Ok(()), Process::must_run)?;
        }
        let asked = Instant::now();
        let platforms = live::read(&set.reader).await?;
        if terminal {
            lines_above = live::draw(&platforms, lines_above);
        } else {
            for platform in &platforms {
                say(format_args!(
                    "{:>5} s  {}",
                    asked.duration_since(set.started).as_secs(),
                    platform.sentence()
                ));
            }
        }
        let usual = if terminal { REFRESH } else { REFRESH_PLAIN };
        let next = asked + usual.max(asked.elapsed() * 10);
        match end {
            Some(end) if end <= next => {
                tokio::time::sleep_until(end).await;
                return Ok(());
            }
            _ => tokio::time::sleep_until(next).await,
        }
    }
}

/// Seconds from the newest stored sample to now; the simulator's clock is this machine's.
async fn lag(reader: &Client) -> Result<i64, Error> {
    const NEWEST: &str = "\
        SELECT (extract(epoch FROM greatest(
            (SELECT max(collected_at) FROM virt_host_metrics), (SELECT max(collected_at) FROM virt_vm_metrics))) \
            * 1000000)::bigint";
    let newest: Option<i64> = reader.query_one(NEWEST, &[]).await?.get(0);
    Ok(newest.map_or(-1, |newest| (now() - newest).div_euclid(1_000_000)))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// `http://127.0.0.1:8989/sdk` as an address.
fn socket(url: &str) -> Result<SocketAddr, Error> {
    let address = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or(url);
    address.parse().map_err(|_source| Error::File {
        path: PathBuf::from(url),
        source: std::io::Error::other("the simulator printed no address"),
    })
}

/// The usual port of the collector, or any other where that is taken.
fn admin_address() -> Result<SocketAddr, Error> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, 9273));
    match TcpListener::bind(usual) {
        Ok(_) => Ok(usual),
        Err(_) => Ok(process::free_address()?),
    }
}

/// `demo` beside the directory of this program: target/demo.
fn directory() -> Result<PathBuf, Error> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let own = std::env::current_exe().map_err(file(Path::new("demo")))?;
    let directory = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("demo");
    std::fs::create_dir_all(&directory).map_err(file(&directory))?;
    Ok(directory)
}

/// One demo at a time. Whoever has the lock may remove the logs of the one before.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let file = |source| Error::File {
        path: path.clone(),
        source,
    };
    let lock = File::create(&path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Running),
        Err(TryLockError::Error(source)) => return Err(file(source)),
    }
    for entry in std::fs::read_dir(directory).map_err(file)? {
        let path = entry.map_err(file)?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::remove_file(&path).map_err(file)?;
        }
    }
    Ok(lock)
}

/// The system's psql, or the private one.
fn psql() -> String {
    let in_path = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join("psql").is_file()));
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/setup/postgresql");
    match installed.canonicalize() {
        Ok(installed) if !in_path && installed.join("bin/psql").is_file() => {
            format!("LD_LIBRARY_PATH={0}/libraries {0}/bin/psql", shown(&installed))
        }
        _ => "psql".to_owned(),
    }
}

/// A path, relative where it lies below the current directory.
fn shown(path: &Path) -> String {
    let current = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&current).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!(
            socket("https://127.0.0.1:8989/sdk").unwrap(),
            "127.0.0.1:8989".parse().unwrap()
        );
        assert!(socket("nowhere").is_err());
    }

    #[test]
    fn the_last_line_is_what_scripts_read() {
        let verdict = Verdict {
            vms: 200,
            hosts: 20,
            stored: 39_600,
            ..Verdict::default()
        };
        let told = Told {
            verdict,
            lag_seconds: 9,
        };
        assert!(told.is_good());
        assert_eq!(
            told.to_string(),
            "demo: vms=200 hosts=20 stored=39600 missing=0 duplicate=0 wrong=0 unexplained=0 open=0 lag_seconds=9"
        );
    }
}
