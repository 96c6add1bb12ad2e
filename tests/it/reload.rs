//! The real process reads its configuration again, by SIGHUP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::process::{Process, Signal, free_address};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vsphere_simulator::Simulator;

use crate::rig::{Rig, assert_clean, small};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(60);

/// Two platforms and a daemon that knows the first, as a process.
struct Stage {
    rig: Rig,
    other: Simulator,
    settings: Settings,
    collector: Collector,
}

impl Stage {
    async fn new() -> Self {
        let rig = Rig::new(small()).await;
        let other = Simulator::start(small()).await.unwrap();
        let settings = Settings {
            // The longest: what is polled here is polled because it starts.
            interval: Duration::from_secs(300),
            discovery_interval: Duration::from_secs(3600),
            ..Settings::on(&rig.database, vec![Platform::simulated("one", &rig.simulator)]).unwrap()
        };
        let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
        let directory = rig.directory.path().join("service");
        let mut collector = Collector::prepare(program, &directory, &settings).unwrap();
        collector.start().await.unwrap();
        collector.ready(DEADLINE).await.unwrap();
        Self {
            rig,
            other,
            settings,
            collector,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.collector.log()).unwrap()
    }

    fn hang_up(&self) {
        self.collector.signal(Signal::Hup).unwrap();
    }

    /// Writes these settings, hangs up, and waits for the line that ends the reload; returns what was logged since.
    async fn reload(&mut self, settings: &Settings) -> String {
        self.collector.configure(settings).unwrap();
        self.reload_file().await
    }

    async fn reload_file(&mut self) -> String {
        let before = self.log().len();
        self.hang_up();
        wait::until("the end of the reload", async || {
            let log = self.log();
            let since = log.get(before..).unwrap_or_default();
            let ended = since.contains("configuration read again") || since.contains("configuration refused");
            // The whole line, and those that belong to it.
            if ended && since.ends_with('\n') {
                Ok(since.to_owned())
            } else {
                Err(since.to_owned())
            }
        })
        .await
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = self.collector.metrics().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name}\n{text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Each platform's status and how often its lease was taken.
    async fn platforms(&self) -> BTreeMap<String, (String, i64)> {
        let rows = self.rig.client().await;
        let rows = rows
            .query(
                "SELECT name, status, coalesce(epoch, 0) \
                 FROM virt_platform LEFT JOIN virt_platform_lease USING (platform_id)",
                &[],
            )
            .await
            .unwrap();
        let rows = rows.iter();
        rows.map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    /// Waits until the platforms are as they should be.
    async fn until(&self, expected: &[(&str, &str, i64)]) {
        let expected: BTreeMap<String, (String, i64)> = expected
            .iter()
            .map(|(name, status, epoch)| ((*name).to_owned(), ((*status).to_owned(), *epoch)))
            .collect();
        wait::until("the platforms to be as they should be", async || {
            let found = self.platforms().await;
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}\n{}", self.log()))
            }
        })
        .await;
    }

    /// Waits until all that was published is stored, and nothing is left to be asked for.
    async fn until_complete(&self, name: &str, simulator: &Simulator) {
        wait::until("everything to be stored", async || {
            let verdict = self.rig.verdict_of(name, simulator).await;
            if verdict.stored > 0 && verdict.missing == 0 && verdict.open == 0 {
                Ok(())
            } else {
                Err(format!("{verdict}\n{}", self.log()))
            }
        })
        .await;
    }
}

/// Logins, which tell a platform that was left alone from one that was started again.
fn logins(simulator: &Simulator) -> u64 {
    simulator.sessions().stats().logins
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn platforms_come_go_and_restart_one_by_one_and_no_sample_is_lost() {
    let mut stage = Stage::new().await;
    stage.until(&[("one", "connected", 1)]).await;
    let sessions = stage.rig.simulator.sessions().clone();
    let logins_of_one = || sessions.stats().logins;
    let before = logins_of_one();

    let told = stage.reload_file().await;
    assert!(told.contains("it is as before"), "{told}");

    let mut settings = stage.settings.clone();
    settings.platforms.push(Platform::simulated("two", &stage.other));
    let told = stage.reload(&settings).await;
    assert!(told.contains("changed=\"[[platform]]\""), "{told}");
    stage
        .until(&[("one", "connected", 1), ("two", "connected", 1)])
        .await;
    stage.until_complete("one", &stage.rig.simulator).await;
    stage.until_complete("two", &stage.other).await;
    assert_eq!(logins_of_one(), before, "the first is left alone");

    // Another way of collecting is for both; what is published meanwhile is asked for by the next poll, which comes
    // with the start.
    let two_before = logins(&stage.other);
    for simulator in [&stage.rig.simulator, &stage.other] {
        simulator.clock().advance(Duration::from_secs(240));
    }
    settings.interval = Duration::from_secs(240);
    let told = stage.reload(&settings).await;
    assert!(told.contains("changed=\"[collection]\""), "{told}");
    stage
        .until(&[("one", "connected", 2), ("two", "connected", 2)])
        .await;
    stage.until_complete("one", &stage.rig.simulator).await;
    stage.until_complete("two", &stage.other).await;
    assert_eq!(
        (logins_of_one(), logins(&stage.other)),
        (before + 1, two_before + 1),
        "each once"
    );
    let log = stage.log();
    let steps: Vec<(bool, bool)> = log
        .lines()
        .filter(|line| line.contains("starting the platform"))
        .map(|line| (line.contains("restarting"), line.contains("platform=one")))
        .collect();
    let [again, anew] = [true, false];
    let expected = [
        (anew, false),
        (again, true),
        (anew, true),
        (again, false),
        (anew, false),
    ];
    assert_eq!(steps, expected, "one is there again before the other goes: {log}");

    // One that is gone from the file ends, and the other goes on.
    settings.platforms.pop();
    stage.reload(&settings).await;
    stage
        .until(&[("one", "connected", 2), ("two", "disconnected", 2)])
        .await;
    wait::until("the session of the second to end", async || {
        match stage.other.sessions().stats().open {
            0 => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await;
    assert_eq!(logins_of_one(), before + 1);

    stage.collector.end(DEADLINE).await.unwrap();
    assert_clean(&stage.rig.verdict_of("one", &stage.rig.simulator).await);
    assert_clean(&stage.rig.verdict_of("two", &stage.other).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_configuration_changes_nothing_and_log_and_metric_say_so() {
    let mut stage = Stage::new().await;
    stage.until(&[("one", "connected", 1)]).await;
    let before = logins(&stage.rig.simulator);
    assert_eq!(
        stage.metric("virt_collector_config_last_reload_successful").await,
        1.0
    );
    let read_at = stage
        .metric("virt_collector_config_last_reload_success_timestamp_seconds")
        .await;
    let good = std::fs::read_to_string(stage.collector.config_file()).unwrap();

    // Each of them also takes the platform away and changes the level, neither of which may happen.
    let without = good.split("[[platform]]").next().unwrap().to_owned() + "[log]\nlevel = \"debug\"\n";
    let no_ca = good
        .replace("platform-0.pem", "absent.pem")
        .replace("\"one\"", "\"another\"");
    for (broken, part) in [
        (format!("{without}[colection]\n"), "unknown field `colection`"),
        (
            format!("memory = \"1MiB\"\n{without}"),
            "memory: 1MiB is too little",
        ),
        (no_ca, "absent.pem"),
        (
            without.replace(
                "[database]\nurl = \"",
                "[database]\nurl = \"postgresql://a:geheim@b/c\" #",
            ),
            "holds a password",
        ),
    ] {
        std::fs::write(stage.collector.config_file(), &broken).unwrap();
        let told = stage.reload_file().await;
        // Whatever else is logged meanwhile, each line begins with its time: the refusal is one of them.
        assert!(told.lines().all(|line| line.starts_with("20")), "{told}");
        let refusals: Vec<&str> = told
            .lines()
            .filter(|line| line.contains("configuration"))
            .collect();
        assert_eq!(refusals.len(), 1, "{told}");
        let told = refusals[0];
        assert!(told.contains("ERROR") && told.contains(part), "{part}: {told}");
        assert!(told.contains("the one before stays in force"), "{told}");
        assert!(!told.contains("geheim"), "{told}");
        assert_eq!(
            stage.metric("virt_collector_config_last_reload_successful").await,
            0.0
        );
    }
    std::fs::remove_file(stage.collector.config_file()).unwrap();
    let told = stage.reload_file().await;
    assert!(told.contains("cannot read"), "{told}");
    assert_eq!(
        stage
            .metric("virt_collector_config_last_reload_success_timestamp_seconds")
            .await,
        read_at
    );

    // What cannot change under a running service waits, and what can does not.
    let mut settings = stage.settings.clone();
    settings.top = "memory = \"64MiB\"".to_owned();
    settings.listen = free_address().unwrap();
    settings.more = "[log]\nlevel = \"debug\"\nformat = \"json\"".to_owned();
    let told = stage.reload(&settings).await;
    assert!(told.contains("changed=\"log.level\""), "{told}");
    wait::until("lines of the new level", async || {
        let log = stage.log();
        if log.contains(" DEBUG ") { Ok(()) } else { Err(log) }
    })
    .await;
    let log = stage.log();
    let warned = log
        .lines()
        .find(|line| line.contains("takes effect at the next start"));
    let warned = warned.unwrap_or_else(|| panic!("{log}"));
    assert!(
        warned.contains("WARN") && warned.contains("changed=\"memory, admin.listen, log.format\""),
        "{warned}"
    );
    assert_eq!(
        stage.metric("virt_collector_config_last_reload_successful").await,
        1.0
    );

    stage.until(&[("one", "connected", 1)]).await;
    assert_eq!(logins(&stage.rig.simulator), before, "left alone throughout");
    stage.collector.end(DEADLINE).await.unwrap();
}

/// Statuses of so many requests at once.
async fn statuses(address: SocketAddr, n: usize) -> Vec<u16> {
    let asks = (0..n).map(|_| async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    });
    futures_util::future::join_all(asks).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told_of_a_reload_and_the_limits_of_the_api_change_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let heard = |until: &str| {
        let mut heard = String::new();
        let mut buffer = [0; 4096];
        while !heard.contains(until) {
            let n = socket.recv(&mut buffer).unwrap();
            heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
            heard.push('\n');
        }
        heard
    };
    let (admin, api) = (free_address().unwrap(), free_address().unwrap());
    let config = |limit: u32| {
        format!(
            "[database]\nurl = \"postgresql://virt_writer@127.0.0.1:1/virt\"\n[admin]\nlisten = \"{admin}\"\n\
             [api]\nlisten = \"{api}\"\nrequests_per_second = {limit}\n"
        )
    };
    let file = directory.path().join("config.toml");
    std::fs::write(&file, config(1)).unwrap();
    let socket_path = format!("NOTIFY_SOCKET={}", directory.path().join("notify").display());
    let program = env!("CARGO_BIN_EXE_virt-collector");
    // The log file stands for the journal's socket.
    let log = directory.path().join("log");
    let output = std::fs::File::create(&log).unwrap().metadata().unwrap();
    let journal = format!("JOURNAL_STREAM={}:{}", output.dev(), output.ino());
    let arguments = [
        socket_path.as_str(),
        &journal,
        program,
        "run",
        "--config",
        file.to_str().unwrap(),
    ];
    let mut process = Process::start("virt-collector", Path::new("/usr/bin/env"), arguments, &log).unwrap();
    heard("READY=1");
    let answers = statuses(api, 20).await;
    assert!(answers.contains(&200) && answers.contains(&429), "{answers:?}");

    std::fs::write(&file, config(1000)).unwrap();
    process.signal(Signal::Hup).unwrap();
    let told = heard("READY=1");
    let reloading = told.find("RELOADING=1").unwrap_or_else(|| panic!("{told}"));
    let stamp = told.find("MONOTONIC_USEC=").unwrap_or_else(|| panic!("{told}"));
    assert!(
        reloading < stamp && stamp < told.find("READY=1").unwrap(),
        "{told}"
    );
    assert_eq!(statuses(api, 20).await, [200; 20]);

    // Under the journal each line begins with its priority, and has no time of its own.
    wait::until("lines as the journal reads them", async || {
        let text = std::fs::read_to_string(&log).unwrap();
        let mut levels = text.lines().map(|line| line.get(..8).unwrap_or_default());
        let known = ["<3>ERROR", "<4> WARN", "<6> INFO"];
        let told = [
            "<6> INFO configuration read again and taken over changed=\"[api]\"",
            "<3>ERROR database not usable",
        ];
        if levels.all(|level| known.contains(&level)) && told.iter().all(|line| text.contains(line)) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    let status = process.terminate(DEADLINE).await.unwrap();
    assert!(status.success(), "{status}");
}
