//! The collector is killed, stopped, cut off; another takes over.

use std::time::Duration;

use tokio::time::Instant;
use vsphere_simulator::RingFate;

use super::super::Error;
use super::super::figures::unmet;
use super::super::random::Random;
use super::super::stage::{End, PLATFORM, Stage};
use super::{MEET, MINUTE, away, away_into_copy, ending, short};
use crate::process::{self, Signal};
use crate::proxy::{CommitCut, Weather};

/// A start, the reading of the inventory, a first poll and a back-fill take about this long.
const BUSY_MILLIS: u64 = 2_500;

pub(super) async fn kill(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let outage = match dice.between(1, 10) {
        1..=7 => short(dice),
        8..=9 => dice.seconds(300, 900),
        _ => dice.seconds(1_200, 2_900),
    };
    let first = ending(dice);
    let after = dice.millis(0, BUSY_MILLIS);
    let slow = dice.millis(3, 40);
    let seconds = outage.as_secs();
    match dice.between(1, 10) {
        1 => {
            stage.end(End::Kill).await?;
            stage.pass_unwell(outage);
            stage.start().await?;
            Ok(format!("idle, away {seconds} s"))
        }
        2..=5 => {
            away(stage, first, outage).await?;
            tokio::time::sleep(after).await;
            stage.restart(End::Kill).await?;
            Ok(format!(
                "{} ms after a start, {seconds} s to catch up",
                after.as_millis()
            ))
        }
        6..=7 => {
            stage.holder().database.set_weather(Weather {
                latency_up: slow,
                latency_down: slow,
                ..Weather::default()
            });
            away(stage, first, outage).await?;
            tokio::time::sleep(2 * after).await;
            stage.restart(End::Kill).await?;
            Ok(format!(
                "{} ms after a start, {seconds} s to catch up, {} ms to the database",
                2 * after.as_millis(),
                slow.as_millis()
            ))
        }
        8..=9 => {
            away_into_copy(stage, first, outage).await?;
            stage.restart(End::Kill).await?;
            Ok(format!("inside COPY, {seconds} s to catch up"))
        }
        _ => {
            let before = stage.holder().database.counts().cut_commits;
            stage.holder().database.cut_commit(CommitCut::Reply, true);
            away(stage, first, outage).await?;
            stage
                .met("a COMMIT", |stage| {
                    stage.holder().database.counts().cut_commits > before
                })
                .await?;
            stage.restart(End::Kill).await?;
            Ok(format!("after COMMIT, {seconds} s to catch up"))
        }
    }
}

pub(super) async fn long_outage(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let outage = dice.seconds(2_400, 3_000);
    let throttle = u32::try_from(dice.between(40_000, 200_000)).unwrap_or(u32::MAX);
    let after = dice.millis(1_000, 5_000);
    stage.holder().database.set_weather(Weather {
        throttle: Some(throttle),
        ..Weather::default()
    });
    away(stage, End::Kill, outage).await?;
    // In the middle of the back-fill, which the next one continues.
    stage.gap_is_open().await?;
    tokio::time::sleep(after).await;
    stage.restart(End::Kill).await?;
    Ok(format!(
        "{} s away, killed again {} ms into the back-fill at {} kB/s",
        outage.as_secs(),
        after.as_millis(),
        throttle / 1000
    ))
}

/// Longer than the vCenter keeps samples: what is older comes as roll-ups, and the next one continues with them.
pub(super) async fn hours_outage(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let outage = dice.seconds(2 * 3_600, 5 * 3_600);
    let after = dice.millis(500, 3_000);
    away(stage, End::Kill, outage).await?;
    tokio::time::sleep(after).await;
    stage.restart(End::Kill).await?;
    // The samples at the old end of the ring go first: no time passes before they are fetched.
    stage.recovered().await?;
    Ok(format!(
        "{} s away, killed again {} ms behind the start",
        outage.as_secs(),
        after.as_millis()
    ))
}

/// So late roll-ups are waited for.
const LATEST: Duration = Duration::from_secs(46 * 60);

/// Gaps to be asked for at once, and those that wait.
const WAITING: &str = "\
SELECT count(*) FILTER (WHERE ask_after IS NULL), count(ask_after) FROM virt_collection_gap WHERE state = 'open'";

/// Roll-ups of one VM that were not there yet when the collector returned.
const LATE_ROLLUPS: &str = "\
SELECT count(*) FROM virt_vm_metrics AS sample JOIN virt_vm AS vm USING (vm_id) \
WHERE vm.moref = $1 AND sample.interval_seconds = 300 \
  AND sample.collected_at > to_timestamp($2::float8) AND sample.collected_at < to_timestamp($3::float8)";

/// As hours of outage, where the vCenter is late with its roll-ups. A VM has left its ring behind not long before the
/// end, so that some of what it has to be asked for comes only when the collector is back.
pub(super) async fn late_rollups(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let minutes = if dice.chance(50) { 15 } else { 40 };
    let late = Duration::from_secs(60 * minutes);
    let outage = dice.seconds(90 * 60, 4 * 3_600);
    let rest = dice.seconds(3 * 60, 60 * (minutes - 11));
    let after = dice.millis(0, 2_000);
    let world = stage.simulator.world().clone();
    let vm = dice
        .pick(&world.running_vms())
        .cloned()
        .ok_or(Error::Nothing("running VM"))?;
    let host = dice.pick(&world.hosts()).cloned().ok_or(Error::Nothing("host"))?;
    world.delay_rollups(late);
    stage.end(ending(dice)).await?;
    stage.pass_unwell(outage);
    world.move_vm(&vm, &host, RingFate::Reset)?;
    stage.note(format!("{vm} moved to {host}"));
    stage.pass_unwell(rest);
    let back = stage.simulator.clock().horizon();
    stage.start().await?;
    tokio::time::sleep(after).await;
    stage.restart(ending(dice)).await?;
    stage.others_are_stored(&[]).await?;
    let this = &*stage;
    process::until("a gap to wait for roll-ups", MEET, || async move {
        let client = this.client().await.map_err(|error| process::chain(&error))?;
        let row = client.query_one(WAITING, &[]).await;
        let row = row.map_err(|error| process::chain(&error))?;
        match (row.get(0), row.get(1)) {
            (0_i64, 1_i64..) => Ok(()),
            (asked, waiting) => Err(format!("{asked} gaps to be asked for, {waiting} that wait")),
        }
    })
    .await?;
    stage.pass(LATEST);
    stage.recovered().await?;
    world.delay_rollups(Duration::ZERO);
    let seconds = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64();
    let bounds = (seconds(back) - late.as_secs_f64(), seconds(back));
    let client = stage.client().await?;
    let came: i64 = client
        .query_one(LATE_ROLLUPS, &[&vm, &bounds.0, &bounds.1])
        .await?
        .get(0);
    if came == 0 {
        return Err(unmet(format!("none of the late roll-ups of {vm} is stored")));
    }
    Ok(format!(
        "{minutes} min late, {} s away, {vm} moved {} s before the end, {came} of its roll-ups came later",
        outage.as_secs(),
        rest.as_secs()
    ))
}

/// The holder stands still for longer than its lease lasts.
pub(super) async fn lease(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let in_copy = dice.chance(50) || stage.hasty;
    let pause = dice.millis(0, 3_000);
    let time = short(dice);
    if in_copy {
        // A start is followed by a COPY at once, and its first renewal is 10 s away.
        away_into_copy(stage, End::Term, MINUTE).await?;
        stage.stand_by().await?;
    } else {
        stage.stand_by().await?;
        tokio::time::sleep(pause).await;
    }
    let (_, epoch) = stage.lease().await?;
    stage.holder().signal(Signal::Stop)?;
    let since = Instant::now();
    stage.pass_unwell(time);
    let took = stage.taken_over(epoch, since).await?;
    stage.recovered().await?;
    // The old one wakes up, and has to find out that it is no longer the one.
    let old = stage.other_mut();
    old.signal(Signal::Cont)?;
    old.database.release_copies();
    old.calm();
    stage.pass(Duration::from_secs(40));
    stage.recovered().await?;
    let (_, now) = stage.lease().await?;
    stage.note_memory();
    stage.other_mut().stop().await?;
    Ok(format!(
        "stopped {}, taken over in {:.1} s, epoch {epoch} to {now}",
        if in_copy { "inside COPY" } else { "idle" },
        took.as_secs_f64()
    ))
}

/// The holder cannot reach the database, and nobody tells it so.
pub(super) async fn partition(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = short(dice);
    stage.stand_by().await?;
    let (_, epoch) = stage.lease().await?;
    stage.holder().database.set_weather(Weather {
        stalled: true,
        ..Weather::default()
    });
    let since = Instant::now();
    stage.pass_unwell(time);
    let took = stage.taken_over(epoch, since).await?;
    stage.recovered().await?;
    stage.other_mut().calm();
    stage.pass(Duration::from_secs(40));
    stage.recovered().await?;
    stage.note_memory();
    stage.other_mut().stop().await?;
    Ok(format!("cut off, taken over in {:.1} s", took.as_secs_f64()))
}

/// An administrator, or a take-over that went wrong, ends the holder's connections to the database.
pub(super) async fn connection_killed(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let in_copy = dice.chance(40);
    let times = dice.between(1, 4);
    let after = dice.millis(0, 1_500);
    if in_copy {
        away_into_copy(stage, End::Term, MINUTE).await?;
    } else {
        let time = short(dice);
        stage.pass(time);
        if dice.chance(60) {
            let (_, epoch) = stage.lease().await?;
            stage.restart(ending(dice)).await?;
            stage.taken(epoch).await?;
        }
    }
    stage.stand_by().await?;
    let (owner, epoch) = stage.lease().await?;
    let mut ended = 0;
    for _ in 0..times {
        tokio::time::sleep(after).await;
        ended += stage.end_connections().await?;
    }
    stage.recovered().await?;
    stage.lease_is_still(&owner, epoch).await?;
    stage.note_memory();
    stage.other_mut().stop().await?;
    Ok(format!(
        "{ended} connections in {times} times{}, epoch {epoch} throughout",
        if in_copy { ", the first inside COPY" } else { "" }
    ))
}

/// The holder cannot reach the platform, which another collector could: the lease is about the database alone, so the
/// holder keeps it and says why nothing comes, until a person ends it; then the other reads everything.
pub(super) async fn vcenter_partition(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let stalled = dice.chance(50);
    let time = dice.seconds(60, 2_400);
    stage.stand_by().await?;
    let (owner, epoch) = stage.lease().await?;
    if stalled {
        stage.holder().vcenter.set_weather(Weather {
            stalled: true,
            ..Weather::default()
        });
    } else {
        stage.holder().vcenter.refuse(true);
    }
    stage.holder().vcenter.reset_all();
    stage.pass_unwell(time);
    let since = Instant::now();
    stage.status_becomes(PLATFORM, "error").await?;
    let told = since.elapsed();
    let reason = stage.reason(PLATFORM).await?;
    stage.renewed().await?;
    stage.lease_is_still(&owner, epoch).await?;
    let since = Instant::now();
    stage.holder_mut().stop().await?;
    let took = stage.taken_over(epoch, since).await?;
    stage.other_mut().calm();
    stage.recovered().await?;
    Ok(format!(
        "told in {:.1} s ({reason}), epoch {epoch} kept; ended, taken over in {:.1} s, {} s read by the other",
        told.as_secs_f64(),
        took.as_secs_f64(),
        time.as_secs()
    ))
}

pub(super) async fn hand_over(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = short(dice);
    stage.stand_by().await?;
    let (_, epoch) = stage.lease().await?;
    stage.pass(time);
    stage.note_memory();
    let since = Instant::now();
    stage.holder_mut().stop().await?;
    let took = stage.taken_over(epoch, since).await?;
    Ok(format!("told to end, taken over in {:.1} s", took.as_secs_f64()))
}
