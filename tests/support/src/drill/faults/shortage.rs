//! The process is short of what a machine has: memory, or descriptors.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::Error;
use super::super::machine::{self, MemoryGroup};
use super::super::random::Random;
use super::super::stage::{End, Stage};
use super::{MEET, ending, short};
use crate::process;
use crate::usage;

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
