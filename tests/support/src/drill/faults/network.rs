//! Names do not resolve, an address is dead, connections are reset without end.

use std::time::Duration;

use tokio::time::Instant;

use super::super::Error;
use super::super::machine::{BlackHole, Names};
use super::super::random::Random;
use super::super::stage::{End, Stage};
use super::{ending, short};
use crate::usage;

/// Names of the platform's and the database's servers.
const VCENTER: &str = "vcenter.drill";
const DATABASE: &str = "database.drill";

/// What may be open behind a fault beyond what was before it: connections that come and go.
const MORE_DESCRIPTORS: usize = 6;

/// A holder whose servers have names, and the configuration as it was.
async fn named(stage: &mut Stage, names: &Names, lines: &str) -> Result<String, Error> {
    let by = names.by().await?;
    names.are(lines)?;
    stage.end(End::Term).await?;
    stage.pass_unwell(Duration::from_secs(40));
    let before = stage.holder().collector.edit(|text| {
        text.replace("host=127.0.0.1 port=", &format!("host={DATABASE} port="))
            .replacen(
                "\n\n[database.owner]",
                "\nsslmode = \"disable\"\n\n[database.owner]",
                1,
            )
            .replace("host = \"127.0.0.1\"", &format!("host = \"{VCENTER}\""))
            .replace("ca_file = \"platform-0.pem\"", "tls_verify = false")
    })?;
    stage.start_by(&by).await?;
    Ok(before)
}

/// Back to addresses.
async fn unnamed(stage: &mut Stage, before: String) -> Result<(), Error> {
    stage.end(End::Term).await?;
    stage.holder().collector.edit(|_| before)?;
    stage.start().await
}

fn hosts(address: &str) -> String {
    format!("{address} {VCENTER}\n{address} {DATABASE}\n")
}

pub(super) async fn dns(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let is_silent = dice.chance(50);
    let (time, held) = (short(dice), dice.millis(8_000, 16_000));
    let names = Names::new(stage.directory()).await?;
    names.server.be_silent(is_silent);
    let config = named(stage, &names, &hosts("127.0.0.1")).await?;
    stage.recovered().await?;
    let pid = stage.holder().pid()?;
    let before = usage::descriptors(pid)?;

    names.are("")?;
    stage.note("the names are gone");
    stage.holder().vcenter.reset_all();
    stage.holder().database.reset_all();
    let since = Instant::now();
    stage.pass_unwell(time);
    tokio::time::sleep(held).await;
    stage.must_run()?;
    let away = since.elapsed();
    let (vcenter, database) = (names.server.take(VCENTER), names.server.take(DATABASE));
    for (what, asked) in [(VCENTER, &vcenter), (DATABASE, &database)] {
        stage.note(format!("{what} asked for {:?}", steps(since, asked)));
        // A look at the health each 5 s, renewals each second, and back-off elsewhere.
        let most = 15 + 3 * usize::try_from(away.as_secs()).unwrap_or(0);
        if asked.len() > most {
            return Err(Error::criterion(
                "few attempts while a name does not resolve",
                format!("{} for {what} in {} s", asked.len(), away.as_secs()),
            ));
        }
    }
    let stops_meanwhile = dice.chance(30);
    if stops_meanwhile {
        // Also while a name is being asked for.
        let took = stage.holder_mut().stop().await?;
        stage.note(format!("ended in {:.1} s", took.as_secs_f64()));
        names.are(&hosts("127.0.0.1"))?;
        stage.expire_lease().await?;
        let by = names.by().await?;
        stage.start_by(&by).await?;
    } else {
        names.are(&hosts("127.0.0.1"))?;
    }
    stage.note("the names are back");
    stage.recovered().await?;
    let pid = stage.holder().pid()?;
    let after = usage::descriptors(pid)?;
    if after > before + MORE_DESCRIPTORS {
        return Err(Error::criterion(
            "no more descriptors than before",
            format!("{before}, then {after}"),
        ));
    }
    unnamed(stage, config).await?;
    Ok(format!(
        "{} for {:.0} s: vCenter asked for {} times, database {}; {before} descriptors, then {after}{}",
        if is_silent { "no answer" } else { "failure" },
        away.as_secs_f64(),
        vcenter.len(),
        database.len(),
        if stops_meanwhile {
            "; told to end meanwhile"
        } else {
            ""
        }
    ))
}

/// Tenths of a second from the first to each.
fn steps(since: Instant, asked: &[Instant]) -> Vec<u128> {
    asked
        .iter()
        .map(|at| at.saturating_duration_since(since).as_millis() / 100)
        .collect()
}

pub(super) async fn dead_address(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let names = Names::new(stage.directory()).await?;
    let slot = stage.holder();
    let ports = [&slot.vcenter, &slot.database].map(|way| way.address().map(|address| address.port()));
    let mut holes = Vec::new();
    for port in ports.into_iter().flatten() {
        holes.push(BlackHole::dig(port).await?);
    }
    let since = Instant::now();
    let config = named(stage, &names, &(hosts("::1") + &hosts("127.0.0.1"))).await?;
    stage.recovered().await?;
    let first = since.elapsed();
    let lease = stage.lease().await?;
    // All of its connections are made anew, and the lease is renewed by one of them.
    stage.holder().vcenter.reset_all();
    stage.holder().database.reset_all();
    let since = Instant::now();
    stage.pass(short(dice));
    stage.renewed().await?;
    let renewed = since.elapsed();
    stage.recovered().await?;
    let now = stage.lease().await?;
    if now != lease {
        return Err(Error::criterion(
            "a lease that is renewed although the first address is dead",
            format!("{lease:?}, then {now:?}"),
        ));
    }
    unnamed(stage, config).await?;
    drop(holes);
    Ok(format!(
        "the first of two addresses is dead: there after {:.1} s, the lease renewed {:.1} s behind a reset",
        first.as_secs_f64(),
        renewed.as_secs_f64()
    ))
}

pub(super) async fn rst_storm(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let storm = dice.millis(3_000, 9_000);
    let every = dice.millis(20, 200);
    let time = short(dice);
    if dice.chance(50) {
        stage.pass(time);
        stage.restart(ending(dice)).await?;
        stage.ready().await?;
    } else {
        stage.pass(time);
    }
    // Where the database is there, the storm is about the vCenter.
    let (vcenter, database) = match dice.between(1, 3) {
        1 => (true, true),
        2 => (true, false),
        _ => (false, true),
    };
    let pid = stage.holder().pid()?;
    let before = usage::descriptors(pid)?;
    let accepted = |stage: &Stage| {
        let slot = stage.holder();
        [slot.vcenter.counts().accepted, slot.database.counts().accepted]
    };
    let counted = accepted(stage);
    let worked = usage::worked(pid)?;
    let since = Instant::now();
    while since.elapsed() < storm {
        if vcenter {
            stage.holder().vcenter.reset_all();
        }
        if database {
            stage.holder().database.reset_all();
        }
        tokio::time::sleep(every).await;
    }
    let took = since.elapsed();
    let busy = usage::worked(pid)?.saturating_sub(worked);
    let tried: Vec<u64> = accepted(stage)
        .into_iter()
        .zip(counted)
        .map(|(now, then)| now - then)
        .collect();
    stage.must_run()?;
    stage.recovered().await?;
    let after = usage::descriptors(pid)?;
    // Eight sessions of each pool, and then ever less often.
    let most = 60 + 12 * took.as_secs();
    if tried.iter().any(|n| *n > most) || after > before + 4 * MORE_DESCRIPTORS {
        return Err(Error::criterion(
            "few attempts in a storm, and no more descriptors behind it",
            format!("{tried:?} in {:.1} s; {before}, then {after}", took.as_secs_f64()),
        ));
    }
    Ok(format!(
        "every {} ms for {:.1} s: {tried:?} connections to vCenter and database, {:.2} s of work; {before} descriptors, then {after}",
        every.as_millis(),
        took.as_secs_f64(),
        busy.as_secs_f64()
    ))
}
