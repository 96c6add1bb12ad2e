//! One function per kind of fault. Each leaves a stage on which everything could be well again.
//!
//! Owns: what happens, at which moment. Never does: waiting for recovery; that is [`super::judge`]'s.
//!
//! Time of the vCenter that passes before a poll stays below the oracle's grace where the fault destroys samples:
//! what nobody had the time to read is not owed.

use std::time::Duration;

use super::Error;
use super::plan::Kind;
use super::random::Random;
use super::stage::{End, Stage};
use crate::cluster::Mode;

mod access;
mod collector;
mod configuration;
mod database;
mod failover;
mod log;
mod network;
mod operations;
mod replies;
mod server;
mod shortage;
mod term;
mod vcenter;
mod way;
mod world;

/// For a poll to come by itself, and for what it then meets.
pub(super) const MEET: Duration = Duration::from_secs(90);

const MINUTE: Duration = Duration::from_secs(60);

/// Makes one happen, and tells its story in a few words.
pub(super) async fn happen(stage: &mut Stage, kind: Kind, mut dice: Random) -> Result<String, Error> {
    let dice = &mut dice;
    let story = match kind {
        Kind::Kill => collector::kill(stage, dice).await,
        Kind::LongOutage => collector::long_outage(stage, dice).await,
        Kind::HoursOutage => collector::hours_outage(stage, dice).await,
        Kind::Lease => collector::lease(stage, dice).await,
        Kind::Partition => collector::partition(stage, dice).await,
        Kind::HandOver => collector::hand_over(stage, dice).await,
        Kind::ConnectionKilled => collector::connection_killed(stage, dice).await,
        Kind::VcenterPartition => collector::vcenter_partition(stage, dice).await,
        Kind::CommitCut => database::commit_cut(stage, dice).await,
        Kind::RestartFast => database::restart(stage, dice, Mode::Fast).await,
        Kind::RestartImmediate => database::restart(stage, dice, Mode::Immediate).await,
        Kind::DatabaseStopped => database::stopped(stage, dice).await,
        Kind::DatabaseReset => way::reset(stage, dice, way::DATABASE).await,
        Kind::DatabaseStalled => way::stalled(stage, dice, way::DATABASE).await,
        Kind::DatabaseThrottled => database::throttled(stage, dice).await,
        Kind::DatabaseLatency => database::latency(stage, dice).await,
        Kind::DatabaseCut => way::cut(stage, dice, way::DATABASE).await,
        Kind::DatabaseRefused => database::refused(stage, dice).await,
        Kind::Failover => failover::failover(stage, dice).await,
        Kind::ReadOnly => failover::read_only(stage, dice).await,
        Kind::DatabaseFull => server::full(stage, dice).await,
        Kind::Locked => server::locked(stage, dice).await,
        Kind::DatabaseSlow => server::slow(stage, dice).await,
        Kind::Pool => server::pool(stage, dice).await,
        Kind::Session => vcenter::session(stage, dice).await,
        Kind::Truncated => vcenter::truncated(stage, dice).await,
        Kind::VcenterAway => vcenter::away(stage, dice).await,
        Kind::VcenterReset => way::reset(stage, dice, way::VCENTER).await,
        Kind::VcenterStalled => way::stalled(stage, dice, way::VCENTER).await,
        Kind::VcenterThrottled => vcenter::throttled(stage, dice).await,
        Kind::VcenterLatency => vcenter::latency(stage, dice).await,
        Kind::VcenterCut => way::cut(stage, dice, way::VCENTER).await,
        Kind::VcenterRestart => vcenter::restart(stage, dice).await,
        Kind::SessionMinute => access::session_minute(stage, dice).await,
        Kind::SessionIdle => access::session_idle(stage, dice).await,
        Kind::SessionTerminated => access::session_terminated(stage, dice).await,
        Kind::PasswordRotated => access::password_rotated(stage, dice).await,
        Kind::Tls => access::tls(stage, dice).await,
        Kind::NotFound => replies::not_found(stage, dice).await,
        Kind::Partial => replies::partial(stage, dice).await,
        Kind::Malformed => replies::malformed(stage, dice).await,
        Kind::SlowLoris => replies::slow_loris(stage, dice).await,
        Kind::Renumbered => world::renumbered(stage, dice).await,
        Kind::VmDeleted => world::deleted(stage, dice).await,
        Kind::VmCreated => world::created(stage, dice).await,
        Kind::VmRenamed => world::renamed(stage, dice).await,
        Kind::VmPower => world::power(stage, dice).await,
        Kind::VmMovedKept => world::moved(stage, dice, vsphere_simulator::RingFate::Kept).await,
        Kind::VmMovedReset => world::moved(stage, dice, vsphere_simulator::RingFate::Reset).await,
        Kind::HostDisconnected => world::disconnected(stage, dice).await,
        Kind::HostRebooted => world::rebooted(stage, dice).await,
        Kind::Late => world::late(stage, dice).await,
        Kind::PartlyEmpty => world::partly_empty(stage, dice).await,
        Kind::ClockForward => world::clock_forward(stage, dice).await,
        Kind::ClockBack => world::clock_back(stage, dice).await,
        Kind::Term => term::term(stage, dice).await,
        Kind::Memory => shortage::memory(stage, dice).await,
        Kind::Descriptors => shortage::descriptors(stage, dice).await,
        Kind::LogLost => log::lost(stage, dice).await,
        Kind::ReloadBroken => configuration::reload_broken(stage, dice).await,
        Kind::Credential => configuration::credential(stage, dice).await,
        Kind::Dns => network::dns(stage, dice).await,
        Kind::DeadAddress => network::dead_address(stage, dice).await,
        Kind::RstStorm => network::rst_storm(stage, dice).await,
        Kind::OperationKilled => operations::killed(stage, dice).await,
        Kind::ClockSkew => world::clock_skew(stage, dice).await,
        Kind::TimeZone => world::time_zone(stage, dice).await,
        Kind::VmReRegistered => world::re_registered(stage, dice).await,
        Kind::LateRollups => collector::late_rollups(stage, dice).await,
    }?;
    stage.holder().calm();
    Ok(story)
}

/// Kinds whose function itself waits until those who run at its end have fetched something.
pub(super) const fn is_proven(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Lease
            | Kind::Partition
            | Kind::ConnectionKilled
            | Kind::VcenterPartition
            | Kind::Truncated
            | Kind::DatabaseThrottled
            | Kind::DatabaseLatency
            | Kind::VcenterThrottled
            | Kind::VcenterLatency
    )
}

/// Time that a poll covers at once: below the look-back of the live lane.
fn short(dice: &mut Random) -> Duration {
    dice.seconds(20, 280)
}

/// Time in which nothing becomes owed.
fn moment(dice: &mut Random) -> Duration {
    dice.seconds(20, 100)
}

fn ending(dice: &mut Random) -> End {
    if dice.chance(50) { End::Kill } else { End::Term }
}

/// There is something new to read, and somebody reads it soon: a collector that starts, or the running one at its
/// next poll.
async fn provoke(stage: &mut Stage, dice: &mut Random) -> Result<&'static str, Error> {
    let time = moment(dice);
    let end = ending(dice);
    let restarted = dice.chance(85) || stage.hasty;
    stage.pass(time);
    if restarted {
        stage.restart(end).await?;
        Ok("at a start")
    } else {
        Ok("at a poll")
    }
}

/// As [`provoke`], and waits until somebody asks for it.
async fn provoke_poll(stage: &mut Stage, dice: &mut Random) -> Result<(), Error> {
    provoke(stage, dice).await?;
    let asked = stage.simulator.calls().count("QueryPerf");
    stage
        .met("a poll", |stage| {
            stage.simulator.calls().count("QueryPerf") > asked
        })
        .await
}

/// Ends the collector, lets time pass, and starts it. What passed before the end could be fetched by a poll that the
/// end waits for.
async fn away(stage: &mut Stage, end: End, time: Duration) -> Result<(), Error> {
    stage.end(end).await?;
    stage.pass_unwell(time);
    stage.start().await
}

/// As [`away`], and the one that starts stands still inside its first COPY.
async fn away_into_copy(stage: &mut Stage, end: End, time: Duration) -> Result<(), Error> {
    stage.end(end).await?;
    stage.pass_unwell(time);
    // Not before: what the end waits for could be a COPY.
    let before = hold_copy(stage);
    stage.start().await?;
    copy_is_held(stage, before).await
}

/// The next COPY stands still until it is released or ends. How many did so before.
fn hold_copy(stage: &Stage) -> u64 {
    let way = &stage.holder().database;
    let before = way.counts().held_copies;
    way.hold_copy();
    before
}

async fn copy_is_held(stage: &mut Stage, before: u64) -> Result<(), Error> {
    stage
        .met("a COPY", |stage| {
            stage.holder().database.counts().held_copies > before
        })
        .await
}
