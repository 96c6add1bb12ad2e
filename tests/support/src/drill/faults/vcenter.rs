//! The vCenter's server fails, or the way to it is slow.

use std::time::Duration;

use vsphere_simulator::{Action, Rule};

use super::super::Error;
use super::super::figures::unmet;
use super::super::random::Random;
use super::super::stage::Stage;
use super::{ending, moment, provoke, short};
use crate::proxy::Weather;

const POLLS: &str = "virt_collector_polls_total";

pub(super) async fn session(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let expired = stage.simulator.sessions().stats().expired;
    let busy = dice.chance(70) || stage.hasty;
    if busy {
        let after = dice.millis(0, 400);
        let end = ending(dice);
        stage.pass(moment(dice));
        stage.restart(end).await?;
        stage.session().await?;
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
    stage
        .met("an open session", |stage| {
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
    stage
        .met(&story, |stage| stage.simulator.rules().applied(rule) > 0)
        .await?;
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

/// The server restarts. Its port is closed, then answers 503, then everything but log-ins, and then it has read nothing
/// or a part of its inventory.
pub(super) async fn restart(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = dice.seconds(60, 1_200);
    let [closed, starting, no_login, nothing, part] =
        [3_000, 3_000, 4_000, 4_000, 3_000].map(|most| dice.millis(500, most));
    let first = u8::try_from(dice.pick(&[0_u64, 0, 30, 60]).copied().unwrap_or(0)).unwrap_or(0);
    let gone = stage.gone().await?;
    let labels = [("result", "error")];
    let failed = stage.figure(POLLS, &labels).await?;
    let asked = stage.calls(Some("Login"));
    stage.hang_up().await?;
    stage.simulator.sessions().expire_all();
    stage.pass_unwell(time);
    tokio::time::sleep(closed).await;

    let unavailable = Action::Status {
        code: 503,
        body: None,
    };
    let everything = Rule {
        method: None,
        ..Rule::on("", unavailable)
    };
    let everything = stage.simulator.rules().add(everything);
    stage.simulator.set_network(true);
    stage
        .met("a 503", |stage| stage.simulator.rules().applied(everything) > 0)
        .await?;
    tokio::time::sleep(starting).await;

    // A fault, so that no session begins.
    let not_yet = Action::Fault {
        fault: "SystemError".to_owned(),
        message: "A general system error occurred: the service is not ready.".to_owned(),
    };
    let login = stage.simulator.rules().add(Rule::on("Login", not_yet));
    stage.simulator.rules().remove(everything);
    stage
        .met("a log-in that is put off", |stage| {
            stage.simulator.rules().applied(login) > 0
        })
        .await?;
    tokio::time::sleep(no_login).await;

    stage.simulator.world().load(first);
    stage.simulator.rules().remove(login);
    stage.session().await?;
    stage.pass_unwell(Duration::from_secs(40));
    tokio::time::sleep(nothing).await;
    stage.simulator.world().load(first.max(60) + 20);
    tokio::time::sleep(part).await;
    // Each log-in belongs to a question that failed, but for the one that succeeded.
    let logins = stage.calls(Some("Login")) - asked;
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let least = stage
        .until_figure(POLLS, &labels, |n| logins as f64 <= n - failed + 1.0)
        .await?;
    stage.simulator.world().load(100);
    let open = stage.simulator.sessions().stats().open;
    if open > 2 {
        return Err(unmet(format!("{open} sessions open")));
    }
    let since: Vec<String> = stage.gone().await?.difference(&gone).cloned().collect();
    if !since.is_empty() {
        return Err(unmet(format!("taken for removed: {}", since.join(", "))));
    }
    Ok(format!(
        "away for {} s, {first} % of the inventory at first, {logins} log-ins of {} failures",
        time.as_secs(),
        least - failed
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
