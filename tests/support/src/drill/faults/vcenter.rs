//! The vCenter's server, or the way to it, fails.

use vsphere_simulator::{Action, Rule};

use super::super::Error;
use super::super::random::Random;
use super::super::stage::Stage;
use super::{MEET, ending, met, moment, provoke, short};
use crate::proxy::{Direction, Weather};

pub(super) async fn session(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let expired = stage.simulator.sessions().stats().expired;
    let busy = dice.chance(70) || stage.hasty;
    if busy {
        let after = dice.millis(0, 400);
        let end = ending(dice);
        stage.pass(moment(dice));
        stage.restart(end).await?;
        met("a session", stage, |stage| {
            stage.simulator.sessions().stats().open > 0
        })
        .await?;
        tokio::time::sleep(after).await;
        expire(stage, expired).await?;
        Ok(format!("expired {} ms after a log-in", after.as_millis()))
    } else {
        stage.pass(short(dice));
        expire(stage, expired).await?;
        Ok("expired before a poll".to_owned())
    }
}

/// Ends every session; there is one.
async fn expire(stage: &mut Stage, before: u64) -> Result<(), Error> {
    met("an open session", stage, |stage| {
        stage.simulator.sessions().expire_all();
        stage.simulator.sessions().stats().expired > before
    })
    .await
}

pub(super) async fn truncated(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    // Most replies that matter are those with samples.
    let method = match dice.between(1, 10) {
        1..=7 => "QueryPerf",
        8 => "RetrievePropertiesEx",
        9 => "CurrentTime",
        _ => "RetrieveServiceContent",
    };
    let most = if method == "QueryPerf" { 6_000 } else { 900 };
    let at = usize::try_from(dice.between(0, most)).unwrap_or(0);
    // Twice: the second poll, soon after a start, fails too, and the third comes an interval later.
    let twice = dice.chance(40) && !stage.hasty;
    let times = if twice { 2 } else { 1 };
    let action = match dice.between(1, 3) {
        1 => Action::Truncate { at },
        2 => Action::Cut { at },
        _ => Action::Reset { at },
    };
    let story = format!("{method}: {action:?}, {times} times");
    stage.note(&*story);
    let rule = stage.simulator.rules().add(Rule::on(method, action).times(times));
    if method == "RetrieveServiceContent" {
        // It is asked for before a log-in only.
        stage.simulator.sessions().expire_all();
    }
    let when = provoke(stage, dice).await?;
    met(&story, stage, |stage| stage.simulator.rules().applied(rule) > 0).await?;
    stage.recovered().await?;
    stage.simulator.rules().remove(rule);
    Ok(format!("{story}, {when}"))
}

pub(super) async fn away(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = dice.seconds(60, 2_900);
    let pause = dice.millis(500, 8_000);
    stage.simulator.set_network(false);
    stage.pass_unwell(time);
    tokio::time::sleep(pause).await;
    stage.simulator.set_network(true);
    Ok(format!("for {} s", time.as_secs()))
}

pub(super) async fn reset(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let after = dice.millis(0, 1_000);
    let times = dice.between(1, 4);
    let when = provoke(stage, dice).await?;
    for _ in 0..times {
        tokio::time::sleep(after).await;
        stage.holder().vcenter.reset_all();
    }
    Ok(format!("{times} times, every {} ms, {when}", after.as_millis()))
}

pub(super) async fn stalled(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let after = dice.millis(0, 1_000);
    let time = dice.millis(2_000, 8_000);
    let when = provoke(stage, dice).await?;
    tokio::time::sleep(after).await;
    stage.holder().vcenter.set_weather(Weather {
        stalled: true,
        ..Weather::default()
    });
    tokio::time::sleep(time).await;
    Ok(format!(
        "for {} ms, {} ms {when}",
        time.as_millis(),
        after.as_millis()
    ))
}

pub(super) async fn throttled(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let rate = u32::try_from(dice.between(10_000, 60_000)).unwrap_or(u32::MAX);
    stage.holder().vcenter.set_weather(Weather {
        throttle: Some(rate),
        ..Weather::default()
    });
    let when = provoke(stage, dice).await?;
    stage.recovered().await?;
    Ok(format!("to {} kB/s, {when}", rate / 1000))
}

pub(super) async fn latency(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let latency = dice.millis(10, 200);
    stage.holder().vcenter.set_weather(Weather {
        latency_up: latency,
        latency_down: latency,
        ..Weather::default()
    });
    let when = provoke(stage, dice).await?;
    stage.recovered().await?;
    Ok(format!("{} ms each way, {when}", latency.as_millis()))
}

pub(super) async fn cut(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let direction = if dice.chance(30) {
        Direction::Up
    } else {
        Direction::Down
    };
    let bytes = dice.between(1, 12_000);
    let before = stage.holder().vcenter.counts().cut_bytes;
    stage.holder().vcenter.cut_after(direction, bytes);
    let when = provoke(stage, dice).await?;
    let cut = tokio::time::timeout(
        MEET / 2,
        met("a cut", stage, |stage| {
            stage.holder().vcenter.counts().cut_bytes > before
        }),
    );
    let far = cut.await.is_err();
    Ok(format!(
        "after {bytes} bytes {direction:?}, {when}{}",
        if far { ", never reached" } else { "" }
    ))
}
