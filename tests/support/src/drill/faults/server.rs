//! The server of the database answers, and cannot: its disk is full, somebody holds its locks, it is slow, or people
//! ask too much.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;

use tokio::process::Command;
use tokio::time::Instant;

use super::super::Error;
use super::super::random::Random;
use super::super::stage::Stage;
use super::{copy_is_held, ending, hold_copy, moment, provoke};
use crate::http;

const ERRORS: &str = "virt_collector_database_errors_total";
const FULL: [(&str, &str); 1] = [("class", "full")];
const RETRY: [(&str, &str); 1] = [("class", "retry")];
const FLUSHES: &str = "virt_collector_flushes_total";
const FAILED: [(&str, &str); 1] = [("result", "error")];
const SKIPPED: &str = "virt_collector_polls_skipped_total";
const IN_FLIGHT: &str = "virt_collector_api_requests_in_flight";

/// What the policy of a full disk waits at least.
const PAUSE: Duration = Duration::from_secs(5);

/// Room for the rows of VMs of any drill.
const ROOM: &str = "size=128m";

/// Calls at a time.
const CALLS: usize = 200;

/// A small file system, which goes with this value.
#[derive(Debug)]
struct Room(PathBuf);

impl Room {
    /// Mounts it for the server's user.
    async fn mount(directory: PathBuf, owner: u32) -> Result<Self, Error> {
        let file = |source| Error::File {
            path: directory.clone(),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(file)?;
        let options = format!("{ROOM},mode=700,uid={owner}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "virt-drill"])
            .arg(&directory)
            .stdin(Stdio::null())
            .output()
            .await;
        match mounted {
            Ok(done) if done.status.success() => Ok(Self(directory)),
            Ok(done) => Err(Error::NotRun(format!(
                "no small file system may be mounted: {}",
                String::from_utf8_lossy(&done.stderr).trim()
            ))),
            Err(error) => Err(Error::NotRun(format!("there is no mount: {error}"))),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves not a byte.
    fn fill(&self) -> Result<(), Error> {
        let file = |source| Error::File {
            path: self.filler(),
            source,
        };
        let mut filler = std::fs::File::create(self.filler()).map_err(file)?;
        for size in [1 << 20, 4096] {
            let block = vec![0_u8; size];
            loop {
                match std::io::Write::write_all(&mut filler, &block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(file(error)),
                }
            }
        }
        Ok(())
    }

    fn free(&self) -> Result<(), Error> {
        std::fs::remove_file(self.filler()).map_err(|source| Error::File {
            path: self.filler(),
            source,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Lazily, since a server that failed may still stand in it.
        let umount = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status();
        drop(umount);
    }
}

fn owner_of(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    Some(std::fs::metadata(path).ok()?.uid())
}

/// The disk under the samples of VMs is full, and has room again.
pub(super) async fn full(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = dice.seconds(1_200, 2_900);
    let hold = dice.millis(2_000, 12_000);
    let end = ending(dice);
    let data = stage.ground.cluster.data();
    let owner = owner_of(&data).ok_or(Error::Nothing("directory of the server"))?;
    let room = Room::mount(stage.directory().join("room"), owner).await?;
    let outcome = async {
        stage.move_in(&room).await?;
        room.fill()?;
        stage.note("the disk is full");
        stage.pass_unwell(time);
        stage.restart(end).await?;
        stage.until_figure(ERRORS, &FULL, |n| n > 0.0).await?;
        let (before, since) = (stage.figure(FLUSHES, &FAILED).await?, Instant::now());
        tokio::time::sleep(hold).await;
        stage.within_bounds().await?;
        let failed = stage.figure(FLUSHES, &FAILED).await? - before;
        let most = since.elapsed().as_secs_f64() / PAUSE.as_secs_f64() + 1.0;
        if failed > most {
            return Err(Error::Criterion(format!(
                "the writer did not pause: {failed} attempts in {:.1} s on a full disk",
                since.elapsed().as_secs_f64()
            )));
        }
        room.free()?;
        stage.note("the disk has room again");
        stage.recovered().await?;
        stage.within_bounds().await?;
        Ok(failed)
    };
    let outcome = outcome.await;
    room.free().unwrap_or_default();
    let out = stage.move_out().await;
    let failed = outcome?;
    out?;
    Ok(format!(
        "{} s to store, {} more attempts in {} ms, then all of it",
        time.as_secs(),
        failed,
        hold.as_millis()
    ))
}

/// What is moved are the chunks of VMs; new ones follow.
const IN_ROOM: &str = "\
SELECT format('%I.%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks
WHERE hypertable_name = 'virt_vm_metrics'";

impl Stage {
    async fn move_in(&mut self, room: &Room) -> Result<(), Error> {
        let client = self.client().await?;
        let place = room.0.display();
        client
            .batch_execute(&format!("CREATE TABLESPACE virt_drill_room LOCATION '{place}'"))
            .await?;
        client
            .batch_execute("GRANT CREATE ON TABLESPACE virt_drill_room TO virt_owner")
            .await?;
        client
            .batch_execute("SELECT attach_tablespace('virt_drill_room', 'virt_vm_metrics')")
            .await?;
        for row in client.query(IN_ROOM, &[]).await? {
            let chunk: String = row.get(0);
            client
                .batch_execute(&format!("ALTER TABLE {chunk} SET TABLESPACE virt_drill_room"))
                .await?;
        }
        self.note("the samples of VMs are on a small disk");
        Ok(())
    }

    async fn move_out(&mut self) -> Result<(), Error> {
        let client = self.client().await?;
        client
            .batch_execute("SELECT detach_tablespace('virt_drill_room', 'virt_vm_metrics')")
            .await?;
        for row in client.query(IN_ROOM, &[]).await? {
            let chunk: String = row.get(0);
            client
                .batch_execute(&format!("ALTER TABLE {chunk} SET TABLESPACE pg_default"))
                .await?;
        }
        client.batch_execute("DROP TABLESPACE virt_drill_room").await?;
        self.note("the samples of VMs are where they were");
        Ok(())
    }
}

/// Somebody holds a table of samples, or the row of the lease.
pub(super) async fn locked(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let (what, lock) = if dice.chance(50) {
        let kind = if dice.chance(50) { "vm" } else { "host" };
        (
            format!("virt_{kind}_metrics"),
            format!("LOCK TABLE virt_{kind}_metrics IN ACCESS EXCLUSIVE MODE"),
        )
    } else {
        (
            "the lease".to_owned(),
            "SELECT 1 FROM virt_platform_lease FOR UPDATE".to_owned(),
        )
    };
    let least = if dice.chance(20) {
        Duration::from_secs(60)
    } else {
        dice.millis(6_000, 15_000)
    };
    let time = moment(dice);
    let before = stage.figure(ERRORS, &RETRY).await?;
    let client = stage.client().await?;
    client.batch_execute("BEGIN").await?;
    client.batch_execute(&lock).await?;
    let since = Instant::now();
    stage.note(format!("{what} is locked"));
    // Nothing that is published meanwhile can be stored.
    stage.pass_unwell(time);
    stage.until_figure(ERRORS, &RETRY, |n| n > before).await?;
    tokio::time::sleep_until(since + least).await;
    stage.within_bounds().await?;
    client.batch_execute("COMMIT").await?;
    stage.note(format!("{what} is free"));
    Ok(format!("{what}, for {:.0} s", since.elapsed().as_secs_f64()))
}

/// A COPY takes longer than the time between two polls.
pub(super) async fn slow(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    // A poll that is late by less is due at once, and none is lost.
    let hold = dice.millis(31_000, 34_000);
    let before = hold_copy(stage);
    let when = provoke(stage, dice).await?;
    copy_is_held(stage, before).await?;
    let skipped = stage.figure(SKIPPED, &[]).await?;
    tokio::time::sleep(hold).await;
    stage.within_bounds().await?;
    stage.holder().database.release_copies();
    stage.until_figure(SKIPPED, &[], |n| n > skipped).await?;
    Ok(format!(
        "a COPY of {:.0} s {when}, the polls that it cost are counted",
        hold.as_secs_f64()
    ))
}

/// What came of the calls.
#[derive(Debug, Default)]
struct Answers {
    all: AtomicUsize,
    overloaded: AtomicUsize,
    lost: AtomicUsize,
}

/// Two hundred callers of the API wait for the database, and samples are stored as ever.
pub(super) async fn pool(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let rounds = dice.between(1, 2);
    let name = format!("drill-{}", jiff::Timestamp::now().as_microsecond());
    let made = stage
        .holder()
        .collector
        .command(&["token", "create", &name, "--role", "viewer"])
        .await?;
    let token = made
        .lines()
        .find(|line| line.starts_with("vc_"))
        .ok_or(Error::Nothing("token"))?
        .to_owned();
    let api = stage.holder().api;
    // Who calls has to wait for it, and nobody else uses it.
    let client = stage.client().await?;
    client.batch_execute("BEGIN").await?;
    client
        .batch_execute("LOCK TABLE virt_api_token IN ACCESS EXCLUSIVE MODE")
        .await?;
    let (answers, over) = (Arc::new(Answers::default()), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLS)
        .map(|_| {
            let (answers, over, token) = (Arc::clone(&answers), Arc::clone(&over), token.clone());
            tokio::spawn(async move { call(api, &token, &answers, &over).await })
        })
        .collect();
    stage.note("two hundred callers");
    let outcome = async {
        stage.until_figure(IN_FLIGHT, &[], |n| n > 50.0).await?;
        let mut slowest = Duration::ZERO;
        for _ in 0..rounds {
            stage.pass(moment(dice));
            let since = Instant::now();
            stage.recovered().await?;
            slowest = slowest.max(since.elapsed());
        }
        let busy = stage.figure(IN_FLIGHT, &[]).await?;
        stage.within_bounds().await?;
        Ok::<_, Error>((slowest, busy))
    };
    let outcome = outcome.await;
    over.store(true, Ordering::Relaxed);
    client.batch_execute("COMMIT").await?;
    for caller in callers {
        drop(caller.await);
    }
    let (slowest, busy) = outcome?;
    if busy < 50.0 {
        return Err(Error::Criterion(format!(
            "only {busy} calls were at work: no load to speak of"
        )));
    }
    let n = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    Ok(format!(
        "{} answers to {CALLS} callers ({} told to come back, {} without an answer), new samples stored within {:.1} s",
        n(&answers.all),
        n(&answers.overloaded),
        n(&answers.lost),
        slowest.as_secs_f64()
    ))
}

/// Calls again and again.
async fn call(api: SocketAddr, token: &str, answers: &Answers, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let answered = http::ask(api, token, (Method::GET, "/api/virt-center/vms/"), None, None).await;
        answers.all.fetch_add(1, Ordering::Relaxed);
        match answered {
            Ok((status, _)) if status.is_success() => {}
            Ok((status, _)) if matches!(status.as_u16(), 429 | 503) => {
                answers.overloaded.fetch_add(1, Ordering::Relaxed);
                // As it was told.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(_) => {}
            Err(_) => {
                answers.lost.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
