//! The process is told to end in the middle of something, is short of what a machine has, or is given what it cannot
//! use.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use vsphere_simulator::{Action, ClockMode, Rule, Simulator, Spec};

use super::super::Error;
use super::super::machine::{self, MemoryGroup, SmallDisk};
use super::super::random::Random;
use super::super::stage::{End, PLATFORM, READY_DEADLINE, Stage};
use super::{MEET, MINUTE, away, away_into_copy, ending, moment, short};
use crate::collector::write_private;
use crate::process::{self, Signal};
use crate::proxy::Weather;
use crate::usage;

// ---- told to end

/// What the collector is in the middle of when it is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amid {
    Poll,
    BackFill,
    Copy,
    Rollups,
    Request,
    StalledDatabase,
    StalledVcenter,
}

const AMID: [Amid; 7] = [
    Amid::Poll,
    Amid::BackFill,
    Amid::Copy,
    Amid::Rollups,
    Amid::Request,
    Amid::StalledDatabase,
    Amid::StalledVcenter,
];

/// A platform that was given back is taken within this: two looks of the others, and what a busy machine adds.
const TAKEN_AT_ONCE: Duration = Duration::from_secs(10);

pub(super) async fn term(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let amid = dice.pick(&AMID).copied().ok_or(Error::Nothing("moment"))?;
    let awaited = dice.chance(50) && amid != Amid::StalledDatabase;
    let mut request = None;
    let mut lock = None;
    // Those who were killed before left sessions behind: who counts those of the one that ends begins without them.
    stage.end(End::Term).await?;
    stage.simulator.sessions().expire_all();
    stage.start().await?;
    stage.recovered().await?;
    match amid {
        Amid::Poll => {
            let slow = Action::Delay {
                millis: dice.between(4_000, 9_000),
            };
            stage.simulator.rules().add(Rule::on("QueryPerf", slow));
            stage.pass(moment(dice));
            stage.restart(End::Term).await?;
            stage
                .met("a poll", |stage| {
                    stage.simulator.calls().method("QueryPerf").in_flight > 0
                })
                .await?;
        }
        Amid::BackFill => {
            let outage = dice.seconds(1_200, 2_900);
            let throttle = u32::try_from(dice.between(20_000, 100_000)).unwrap_or(u32::MAX);
            stage.holder().vcenter.set_weather(Weather {
                throttle: Some(throttle),
                ..Weather::default()
            });
            away(stage, End::Term, outage).await?;
            let before = stage.simulator.calls().count("QueryPerf");
            stage
                .met("a back-fill", |stage| {
                    stage.simulator.calls().count("QueryPerf") > before + 1
                })
                .await?;
        }
        Amid::Copy => {
            away_into_copy(stage, End::Term, MINUTE).await?;
        }
        Amid::Rollups => {
            stage.pass(Duration::from_secs(300));
            stage.restart(End::Term).await?;
            stage.recovered().await?;
            lock = Some(stage.in_rollups().await?);
        }
        Amid::Request => request = Some(asked(stage).await?),
        Amid::StalledDatabase | Amid::StalledVcenter => {
            let slot = stage.holder();
            let way = if amid == Amid::StalledDatabase {
                &slot.database
            } else {
                &slot.vcenter
            };
            let stalled = Weather {
                stalled: true,
                ..Weather::default()
            };
            if dice.chance(50) {
                way.set_weather(stalled);
                stage.pass_unwell(short(dice));
            } else {
                let after = dice.millis(0, 1_500);
                away(stage, End::Term, short(dice)).await?;
                stage.ready().await?;
                tokio::time::sleep(after).await;
                let slot = stage.holder();
                if amid == Amid::StalledDatabase {
                    slot.database.set_weather(stalled);
                } else {
                    slot.vcenter.set_weather(stalled);
                }
            }
            tokio::time::sleep(dice.millis(0, 3_000)).await;
        }
    }
    if awaited {
        stage.stand_by().await?;
    }
    let (_, epoch) = stage.lease().await?;
    stage.note_memory();
    stage.note(format!("SIGTERM amid {amid:?}"));
    let took = stage.holder_mut().stop().await?;
    let since = Instant::now();
    stage.holder().calm();
    stage.simulator.rules().clear();
    let sessions = stage.simulator.sessions().stats().open;
    if !awaited && amid != Amid::StalledVcenter && sessions > 0 {
        return Err(Error::criterion(
            "no session of the platform left open",
            format!("{sessions} open behind the end amid {amid:?}"),
        ));
    }
    drop(lock);
    if awaited {
        let taken = stage.taken_over(epoch, since).await?;
        if taken > TAKEN_AT_ONCE {
            return Err(Error::criterion(
                "a platform that another takes at once",
                format!("{:.1} s from the end amid {amid:?}", taken.as_secs_f64()),
            ));
        }
    } else {
        if amid == Amid::StalledDatabase {
            // Nobody could be told; it runs out.
            stage.expire_lease().await?;
        } else if stage.is_leased().await? {
            return Err(Error::criterion(
                "the lease given back",
                format!("it is held behind the end amid {amid:?}"),
            ));
        }
        stage.start().await?;
    }
    let answer = match request {
        Some(request) => format!(", {}", request.end(stage).await?),
        None => String::new(),
    };
    Ok(format!(
        "amid {amid:?}, ended in {:.1} s, {}{answer}",
        took.as_secs_f64(),
        if awaited {
            "another went on"
        } else {
            "started again"
        },
    ))
}

/// Somebody who waits for the end of an action.
struct Request {
    operation: String,
    answer: tokio::task::JoinHandle<Result<hyper::StatusCode, String>>,
}

/// Asks for a snapshot that takes its time, and waits for the answer.
async fn asked(stage: &mut Stage) -> Result<Request, Error> {
    let slow = Action::TaskTime {
        queued: 0,
        millis: 40_000,
        steps: 3,
    };
    stage
        .simulator
        .rules()
        .add(Rule::on("CreateSnapshot_Task", slow).times(1));
    let token = stage.token().await?;
    let api = stage.holder().api;
    let vm = super::operations::running(stage).await?;
    let path = format!("/api/virt-center/vms/{}/snapshots/", vm.id);
    let answer = tokio::spawn(async move {
        let body = json!({ "name": "drill" });
        let asked = crate::http::ask(
            api,
            &token,
            (hyper::Method::POST, &path),
            Some("wait=30"),
            Some(&body),
        );
        match asked.await {
            Ok((status, _)) => Ok(status),
            Err(error) => Err(process::chain(&error)),
        }
    });
    let operation = stage.operation_sent(vm.id).await?;
    Ok(Request { operation, answer })
}

impl Request {
    /// The action ends in the next life.
    async fn end(self, stage: &mut Stage) -> Result<String, Error> {
        let answered = match self.answer.await {
            Ok(Ok(status)) if status == hyper::StatusCode::ACCEPTED => status,
            other => {
                return Err(Error::criterion(
                    "202 Accepted to who waits when the service stops",
                    format!("{other:?}"),
                ));
            }
        };
        stage.pass(Duration::from_secs(60));
        let state = super::operations::ended(stage, &self.operation).await?.state;
        if state != "succeeded" {
            return Err(Error::criterion("an action that goes on in the next life", state));
        }
        Ok(format!("who waited was answered with {answered}"))
    }
}

// ---- short of memory

/// What the limit is, in hundredths of what it needs.
const SQUEEZE: u64 = 60;

/// For the kernel to meet the limit.
const PRESSED: Duration = Duration::from_secs(20);

pub(super) async fn memory(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let group = MemoryGroup::make(&format!("virt-collector-{}", std::process::id()))?;
    let pid = stage.holder().pid()?;
    let need = usage::anonymous_kib(pid)?;
    let (time, end) = (short(dice), ending(dice));
    let stands = dice.millis(500, 4_000);
    stage.end(end).await?;
    stage.pass_unwell(time);
    group.squeeze(need * SQUEEZE / 100)?;
    stage.start_by(&group.by()).await?;
    let squeezed = tokio::time::timeout(PRESSED, async {
        while !group.is_squeezed()? {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok::<_, Error>(())
    });
    let is_squeezed = match squeezed.await {
        Ok(seen) => seen.is_ok(),
        Err(_elapsed) => false,
    };
    tokio::time::sleep(stands).await;
    group.relax()?;
    // Where the kernel refuses memory instead of letting it wait, it may have ended; systemd tries again then.
    let ended = stage.must_run().is_err();
    if ended {
        let status = stage.holder_mut().ended(MEET).await?;
        if status.code() != Some(1) {
            return Err(Error::criterion(
                "an end that systemd tries again after",
                status.to_string(),
            ));
        }
        stage.start().await?;
    }
    stage.recovered().await?;

    stage.end(End::Term).await?;
    stage.pass_unwell(short(dice));
    group.limit(need * SQUEEZE / 100)?;
    stage.start_by(&group.by()).await?;
    stage.note(format!("{} KiB at most", need * SQUEEZE / 100));
    let killed = stage.holder_mut().ended(MEET).await?;
    if killed.signal() != Some(9) && killed.code() != Some(1) {
        return Err(Error::criterion(
            "an end by the kernel, for want of memory, or one that systemd tries again after",
            format!("{killed}, {} killed", group.killed()?),
        ));
    }
    // What Restart=always of the unit does.
    group.relax()?;
    stage.expire_lease().await?;
    stage.start().await?;
    Ok(format!(
        "{need} KiB needed, {SQUEEZE} % given: {} ({}), it {}; then killed",
        group.squeeze_is(),
        if is_squeezed { "met" } else { "not met" },
        if ended {
            "ended and was started again"
        } else {
            "went on"
        },
    ))
}

// ---- short of descriptors

/// What the catalogue asks for.
const FEW: u64 = 64;

/// Connections that take descriptors.
const CLIENTS: usize = 80;

pub(super) async fn descriptors(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let (end, time, held) = (ending(dice), short(dice), dice.millis(4_000, 12_000));
    let limit = format!("--nofile={FEW}:");
    stage.end(end).await?;
    stage.pass_unwell(Duration::from_secs(40));
    stage.start_by(&machine::words(["prlimit", &limit, "--"])).await?;
    stage.recovered().await?;
    let pid = stage.holder().pid()?;
    let before = usage::descriptors(pid)?;
    let logged = stage.log_length();
    let worked = usage::worked(pid)?;
    stage.note(format!("{before} descriptors of {FEW}"));

    // Clients of both endpoints take all that are left, and more as soon as one is free.
    let addresses = [stage.holder().collector.admin(), stage.holder().api];
    let clients = tokio::spawn(async move {
        let mut open = std::collections::VecDeque::new();
        for address in addresses.into_iter().cycle() {
            match tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
                Ok(Ok(stream)) => open.push_back(stream),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            if open.len() > CLIENTS {
                open.pop_front();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let since = Instant::now();
    let full = process::until("no descriptor to be left", MEET, || async move {
        match usage::descriptors(pid) {
            Ok(n) if n as u64 >= FEW - 1 => Ok(()),
            Ok(n) => Err(n.to_string()),
            Err(error) => Err(process::chain(&error)),
        }
    });
    let full = full.await;
    stage.holder().database.reset_all();
    stage.holder().vcenter.reset_all();
    stage.pass_unwell(time);
    tokio::time::sleep(held).await;
    let (asleep, busy) = (since.elapsed(), usage::worked(pid)?.saturating_sub(worked));
    clients.abort();
    full?;
    stage.must_run()?;
    let lines = stage.logged_since(logged);
    let told = lines.iter().filter(|line| line.contains("os error 24")).count();
    if told == 0 {
        return Err(Error::criterion(
            "a log line that says so",
            format!("none of {}", lines.len()),
        ));
    }
    let most = 40 + 10 * usize::try_from(asleep.as_secs()).unwrap_or(0);
    if lines.len() > most {
        return Err(Error::criterion(
            "a log that does not flood",
            format!("{} lines in {} s", lines.len(), asleep.as_secs()),
        ));
    }
    if 2 * busy > asleep {
        return Err(Error::criterion(
            "no loop that spins",
            format!(
                "{:.1} s of work in {:.1} s",
                busy.as_secs_f64(),
                asleep.as_secs_f64()
            ),
        ));
    }
    stage.recovered().await?;
    let after = usage::descriptors(pid)?;
    machine::lift_descriptors(pid)?;
    Ok(format!(
        "{before} of {FEW} in use, all taken for {:.1} s, {told} of {} lines say so, {:.2} s of work, {after} behind",
        asleep.as_secs_f64(),
        lines.len(),
        busy.as_secs_f64()
    ))
}

// ---- nowhere to write

/// What becomes of the log.
#[derive(Clone, Copy, Debug)]
enum Log {
    /// Its disk is full, and all other file systems are read-only.
    Full,
    /// There never was one.
    Closed,
    /// Who reads it has gone.
    Unread,
    /// Who reads it stands still.
    Stalled,
}

pub(super) async fn log_lost(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let log = dice
        .pick(&[Log::Full, Log::Full, Log::Closed, Log::Unread, Log::Stalled])
        .copied()
        .ok_or(Error::Nothing("log"))?;
    let (end, time) = (ending(dice), short(dice));
    let told = match log {
        Log::Full => {
            let disk = SmallDisk::new(stage.directory())?;
            let by = disk.by().await?;
            stage.end(end).await?;
            stage.pass_unwell(Duration::from_secs(40));
            stage.start_by(&by).await?;
            stage.recovered().await?;
            let pid = stage.holder().pid()?;
            if !disk.is_else_read_only(pid) {
                return Err(Error::Nothing("read-only file system"));
            }
            disk.fill(pid)?;
            let full = disk.log(pid)?.len();
            goes_on(stage, time).await?;
            let still = disk.log(pid)?.len();
            disk.free(pid)?;
            // Something to tell.
            stage.holder().signal(Signal::Hup)?;
            let freed = process::until("a line in the log that has room again", MEET, || async {
                match disk.log(pid).map(|log| log.len()) {
                    Ok(freed) if freed > still => Ok(freed),
                    Ok(freed) => Err(freed.to_string()),
                    Err(error) => Err(process::chain(&error)),
                }
            })
            .await?;
            if still > full + 4_096 {
                return Err(Error::criterion(
                    "a disk that is full",
                    format!("a log of {full} bytes, then of {still}"),
                ));
            }
            format!("{full} bytes when full, {} more later", freed - full)
        }
        Log::Closed => {
            stage.end(end).await?;
            let script = "exec \"$0\" \"$@\" >&- 2>&-";
            stage.start_by(&machine::words(["sh", "-c", script])).await?;
            stage.recovered().await?;
            goes_on(stage, time).await?;
            "from the start".to_owned()
        }
        Log::Unread | Log::Stalled => {
            let fifo = Fifo::make(&stage.directory().join("log.fifo")).await?;
            let by = fifo.by();
            stage.end(end).await?;
            stage.start_by(&by).await?;
            let reader = fifo.opened().await?;
            if matches!(log, Log::Unread) {
                stage.recovered().await?;
                drop(reader);
                goes_on(stage, time).await?;
                "gone".to_owned()
            } else {
                stage.recovered().await?;
                goes_on(stage, time).await?;
                // It reads again: what waited for it comes, up to the last line.
                let read = tokio::task::spawn_blocking(move || std::io::read_to_string(reader));
                stage.end(End::Term).await?;
                let text = read.await.map_err(|_gone| Error::Nothing("reader of the log"))?;
                let text = text.unwrap_or_default();
                if !(text.contains("started") && text.contains("stopped")) {
                    return Err(Error::criterion(
                        "the whole log, once it is read",
                        process::last_lines(&text, 3),
                    ));
                }
                stage.start().await?;
                format!("{} lines read later", text.lines().count())
            }
        }
    };
    stage.must_run()?;
    // The next one has a log again.
    stage.end(End::Term).await?;
    stage.start().await?;
    Ok(format!("{log:?}, {told}"))
}

/// Time passes, and those who run now read what was published in it.
async fn goes_on(stage: &mut Stage, time: Duration) -> Result<(), Error> {
    stage.holder().database.reset_all();
    stage.pass(time);
    stage.recovered().await
}

// ---- a configuration that it cannot use

pub(super) async fn reload_broken(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    const BROKEN: [(&str, &str, &str); 4] = [
        ("no TOML", "[[platform]]", "[[platform"),
        ("an unknown key", "[admin]", "[admin]\nlisen = \"127.0.0.1:1\""),
        ("a bad value", "interval = \"20s\"", "interval = \"1s\""),
        (
            "no such file",
            "ca_file = \"platform-0.pem\"",
            "ca_file = \"absent.pem\"",
        ),
    ];
    let (what, from, to) = dice.pick(&BROKEN).copied().ok_or(Error::Nothing("mistake"))?;
    let busy = dice.chance(50);
    let after = dice.millis(0, 2_000);
    let (_, epoch) = stage.lease().await?;
    if busy {
        stage.pass(moment(dice));
        tokio::time::sleep(after).await;
    }
    let good = stage.holder().collector.edit(|text| text.replacen(from, to, 1))?;
    stage.reload(0.0).await?;
    stage.pass(short(dice));
    stage.recovered().await?;
    let (_, now) = stage.lease().await?;
    if now != epoch {
        return Err(Error::criterion(
            "a platform that is left alone",
            format!("epoch {epoch}, then {now}"),
        ));
    }
    if dice.chance(50) {
        // Told to read it again and again.
        for _ in 0..10 {
            stage.holder().signal(Signal::Hup)?;
        }
        stage.reload(0.0).await?;
    }
    stage.holder().collector.edit(|_| good)?;
    stage.reload(1.0).await?;
    Ok(format!("{what}, epoch {epoch} throughout"))
}

/// The second platform, whose password is in the database.
const SECOND: &str = "drill-second";

pub(super) async fn credential(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let is_row = dice.chance(50);
    let second = Simulator::start(Spec {
        vms: 2,
        hosts: 1,
        clock: ClockMode::Frozen {
            at: stage.simulator.clock().now(),
        },
        ..Spec::default().seed(dice.between(1, 1_000_000))
    })
    .await?;
    let password = stage.directory().join("second.password");
    let ca = stage.directory().join("second.pem");
    let (user, word) = second.credentials();
    write_private(&password, word)?;
    write_private(&ca, second.ca_pem().unwrap_or_default())?;
    let [port, password, ca] = [
        second.addr().port().to_string(),
        password.display().to_string(),
        ca.display().to_string(),
    ];
    stage
        .holder()
        .collector
        .command(&[
            "platform",
            "add",
            SECOND,
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--user",
            user,
            "--password-file",
            &password,
            "--ca-file",
            &ca,
        ])
        .await?;
    stage.status_becomes(SECOND, "connected").await?;

    // Another key ring, or another platform's row: the password does not open any more. Whoever logs in next sees it.
    let broken = if is_row {
        stage.spoil_credential(SECOND).await?;
        "the row is spoiled"
    } else {
        let keys = stage.directory().join("keyring");
        let kept = stage.directory().join("keyring.kept");
        std::fs::rename(&keys, &kept).map_err(|source| Error::File { path: keys, source })?;
        stage.holder().collector.command(&["key", "init"]).await?;
        "another key ring"
    };
    let logins = second.sessions().stats().logins;
    stage.restart(ending(dice)).await?;
    stage.status_becomes(SECOND, "error").await?;
    stage.pass(short(dice));
    stage.recovered().await?;
    let line = stage.reason(SECOND).await?;
    if second.sessions().stats().logins != logins || !(line.contains("password") && line.contains("key")) {
        return Err(Error::criterion(
            "no log-in, and a reason that names the key",
            line,
        ));
    }
    if stage.status(PLATFORM).await? != "connected" {
        return Err(Error::criterion(
            "the other platform connected",
            stage.reason(PLATFORM).await?,
        ));
    }

    // Mended: without a restart where it is the ring that comes back.
    if is_row {
        stage
            .holder()
            .collector
            .command(&["platform", "edit", SECOND, "--password-file", &password])
            .await?;
    } else {
        let keys = stage.directory().join("keyring");
        let kept = stage.directory().join("keyring.kept");
        std::fs::rename(&kept, &keys).map_err(|source| Error::File { path: kept, source })?;
    }
    stage.status_becomes(SECOND, "connected").await?;
    let collector = &stage.holder().collector;
    collector
        .command(&["platform", "remove", SECOND, "--yes"])
        .await?;
    stage.status_becomes(SECOND, "disconnected").await?;
    let collector = &stage.holder().collector;
    collector
        .command(&["platform", "wipe", SECOND, "--confirm", SECOND])
        .await?;
    second.shutdown().await;
    Ok(format!("{broken}: {line}"))
}

/// The fifo that stands for the journal's pipe, of one page.
struct Fifo(PathBuf);

impl Fifo {
    async fn make(path: &Path) -> Result<Self, Error> {
        std::fs::remove_file(path).unwrap_or_default();
        process::run(Path::new("mkfifo"), [path.as_os_str()], READY_DEADLINE).await?;
        Ok(Self(path.to_owned()))
    }

    /// The words before the command line of a process that writes its log there.
    fn by(&self) -> Vec<String> {
        let path = self.0.display().to_string();
        machine::words(["sh", "-c", "exec \"$@\" >\"$0\" 2>&1", &path])
    }

    /// The reader, which reads nothing.
    async fn opened(self) -> Result<std::fs::File, Error> {
        let path = self.0.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::open(&path)?;
            rustix::pipe::fcntl_setpipe_size(&file, 4_096)?;
            Ok(file)
        });
        let opened = tokio::time::timeout(READY_DEADLINE, opened).await;
        let opened = opened.map_err(|_elapsed| Error::Nothing("writer of the log"))?;
        let opened = opened.map_err(|_gone| Error::Nothing("reader of the log"))?;
        opened.map_err(|source| Error::File { path: self.0, source })
    }
}
