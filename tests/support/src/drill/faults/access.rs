//! Getting in fails: sessions end, the password is another one, the server shows another certificate.

use std::time::Duration;

use vsphere_simulator::{Action, Rule, TlsMode};

use super::super::Error;
use super::super::figures::{Sessions, unmet};
use super::super::random::Random;
use super::super::stage::{End, Stage};
use super::{MINUTE, moment};
use crate::process::Signal;

/// As the vCenter's own.
const HALF_HOUR: Duration = Duration::from_secs(30 * 60);

/// More expiries than fit between two polls.
const TOO_MANY: u64 = 100;

/// Sessions live for a minute, and each minute ends one.
pub(super) async fn session_minute(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let least = dice.between(3, 8);
    let sessions = Sessions::begin(stage).await?;
    let polls = stage.polls().await?;
    stage.simulator.sessions().set_timeout(MINUTE);
    let mut n = 0;
    while n < least || stage.polls().await?.ok < polls.ok + 1.0 {
        n += 1;
        if n > TOO_MANY {
            return Err(unmet(format!("no poll in the time of {n} sessions")));
        }
        let pause = dice.millis(0, 1_500);
        // A question meets one expiry at most.
        stage.quiet().await?;
        tokio::time::sleep(pause).await;
        stage.pass(dice.seconds(60, 100));
        stage.session().await?;
        sessions.check(stage)?;
    }
    stage.no_poll_fails(polls, 1.0).await?;
    stage.simulator.sessions().set_timeout(HALF_HOUR);
    Ok(format!("{}", sessions.check(stage)?))
}

/// Nobody calls for longer than a session lives.
pub(super) async fn session_idle(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let time = dice.seconds(30 * 60, 50 * 60);
    let sessions = Sessions::begin(stage).await?;
    let polls = stage.polls().await?;
    stage.pass(time);
    stage.no_poll_fails(polls, 1.0).await?;
    let since = sessions.check(stage)?;
    if since.expired == 0 {
        return Err(unmet("no session expired"));
    }
    Ok(format!("idle for {} s: {since}", time.as_secs()))
}

/// An administrator ends the session while calls wait for their answers.
pub(super) async fn session_terminated(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let after = dice.millis(0, 500);
    let times = dice.between(1, 3);
    let sessions = Sessions::begin(stage).await?;
    let polls = stage.polls().await?;
    let slow = Action::Delay { millis: 600 };
    let rule = stage.simulator.rules().add(Rule::on("QueryPerf", slow));
    stage.pass(moment(dice));
    stage
        .met("a poll", |stage| stage.simulator.rules().applied(rule) > 0)
        .await?;
    tokio::time::sleep(after).await;
    for _ in 0..times {
        stage.simulator.sessions().expire_all();
        stage.session().await?;
        // A question meets one expiry at most.
        stage.simulator.rules().remove(rule);
        stage.quiet().await?;
    }
    stage.no_poll_fails(polls, 1.0).await?;
    Ok(format!(
        "{times} times, {} ms into a poll: {}",
        after.as_millis(),
        sessions.check(stage)?
    ))
}

/// The password is changed in the vCenter, and some time later where the collector has it.
pub(super) async fn password_rotated(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let password = format!("rotated-{}", dice.between(0, 999_999));
    let time = dice.seconds(60, 2_900);
    let wait = dice.millis(2_000, 10_000);
    let told = dice.chance(50);
    let refused = stage.simulator.sessions().stats().failed_logins;
    stage.simulator.sessions().set_password(&password);
    stage.simulator.sessions().expire_all();
    stage.pass_unwell(time);
    stage
        .met("a refused log-in", |stage| {
            stage.simulator.sessions().stats().failed_logins > refused
        })
        .await?;
    let reason = stage.until_status("auth").await?;
    if !reason.contains("correct the user or its password") {
        return Err(unmet(format!("the status does not say what to do: {reason}")));
    }
    let labels = [("result", "refused")];
    stage
        .until_figure("virt_collector_logins_total", &labels, |n| n > 0.0)
        .await?;
    // From the refusal on nothing is sent with that password, whatever ticks meanwhile.
    let calls = stage.calls(None);
    tokio::time::sleep(wait).await;
    let (attempts, more) = (
        stage.simulator.sessions().stats().failed_logins - refused,
        stage.calls(None) - calls,
    );
    if attempts > 1 || more > 0 {
        return Err(unmet(format!(
            "{attempts} attempts with the refused password, {more} calls behind them"
        )));
    }
    stage.give_password(&password)?;
    if told {
        stage.holder().signal(Signal::Hup)?;
    }
    stage.session().await?;
    stage.until_status("connected").await?;
    if stage.simulator.sessions().stats().failed_logins > refused + 1 {
        return Err(unmet("the refused password was tried again"));
    }
    Ok(format!(
        "for {} s, mended {} ms behind the refusal{}",
        time.as_secs(),
        wait.as_millis(),
        if told { " with a reload" } else { "" }
    ))
}

/// The vCenter shows another certificate for a while, or none.
pub(super) async fn tls(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    // What the status says, and how the failure is counted.
    const WRONG: [(TlsMode, &str, &str); 6] = [
        (TlsMode::Expired, "tls", "untrusted"),
        (TlsMode::NotYetValid, "tls", "untrusted"),
        (TlsMode::OtherName, "tls", "untrusted"),
        (TlsMode::SelfSigned, "tls", "untrusted"),
        (TlsMode::Tls11, "tls", "handshake"),
        (TlsMode::Reset, "unreachable", "broken"),
    ];
    let (mode, status, failure) = dice.pick(&WRONG).copied().ok_or(Error::Nothing("mode"))?;
    let time = dice.seconds(60, 1_500);
    let wait = dice.millis(500, 4_000);
    let restarted = dice.chance(30) || stage.hasty;
    stage.hang_up().await?;
    stage.simulator.set_tls(mode)?;
    // From here on whatever is heard was said to the wrong server.
    let calls = stage.calls(None);
    stage.simulator.set_network(true);
    stage.note(format!("{mode:?}"));
    stage.pass_unwell(time);
    if restarted {
        stage.restart(End::Kill).await?;
    }
    let labels = [("type", failure)];
    // A new process counts from nothing.
    let before = if restarted {
        0.0
    } else {
        stage
            .figure("virt_collector_soap_failures_total", &labels)
            .await?
    };
    stage
        .until_figure("virt_collector_soap_failures_total", &labels, |n| n > before)
        .await?;
    let reason = stage.until_status(status).await?;
    tokio::time::sleep(wait).await;
    let heard = stage.calls(None) - calls;
    if heard > 0 {
        return Err(unmet(format!("{heard} calls to a server that is not trusted")));
    }
    stage.hang_up().await?;
    stage.simulator.set_tls(TlsMode::TestCa)?;
    stage.simulator.set_network(true);
    stage.until_status("connected").await?;
    Ok(format!(
        "{mode:?} for {} s{}: {reason}",
        time.as_secs(),
        if restarted { ", met at a start" } else { "" }
    ))
}
