//! One function per group of faults. Each ends with a stage on which all could be well again.
//!
//! Owns: what happens, and to whom. Never does: comparing.

use std::time::Duration;

use vsphere_simulator::{Action, HostLink, RingFate, Rule};

use super::stage::{Site, Stage};
use crate::cluster::Mode;
use crate::drill::{Error, Random};
use crate::process::Signal;
use crate::proxy::{CommitCut, Direction, Weather};

/// No fault takes longer.
pub(super) const LONGEST: Duration = Duration::from_secs(200);

/// Where faults may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    /// The database is away: the rest has its faults, and the worlds stand still, so that nothing is lost that could
    /// not be read.
    WithoutDatabase,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Kill,
    Term,
    Pause,
    DatabaseReset,
    DatabaseStalled,
    DatabaseSlow,
    DatabaseCut,
    CommitCut,
    DatabaseRestart,
    PlatformAway,
    PlatformReset,
    PlatformStalled,
    PlatformSlow,
    Session,
    Truncated,
    Busy,
    Power,
    Created,
    Deleted,
    Moved,
    HostLink,
    Renumbered,
}

/// How many of a hundred each is about.
const SHARES: &[(Kind, u64)] = &[
    (Kind::Kill, 20),
    (Kind::Term, 5),
    (Kind::Pause, 6),
    (Kind::DatabaseReset, 5),
    (Kind::DatabaseStalled, 4),
    (Kind::DatabaseSlow, 4),
    (Kind::DatabaseCut, 5),
    (Kind::CommitCut, 8),
    (Kind::DatabaseRestart, 5),
    (Kind::PlatformAway, 6),
    (Kind::PlatformReset, 3),
    (Kind::PlatformStalled, 4),
    (Kind::PlatformSlow, 3),
    (Kind::Session, 6),
    (Kind::Truncated, 6),
    (Kind::Busy, 4),
    (Kind::Power, 4),
    (Kind::Created, 3),
    (Kind::Deleted, 2),
    (Kind::Moved, 4),
    (Kind::HostLink, 3),
    (Kind::Renumbered, 2),
];

/// Those that make sense while the database is away.
const WITHOUT_DATABASE: &[Kind] = &[
    Kind::Kill,
    Kind::Term,
    Kind::Pause,
    Kind::PlatformAway,
    Kind::PlatformReset,
    Kind::PlatformStalled,
    Kind::Session,
    Kind::Truncated,
    Kind::Busy,
];

/// VMs below which none is deleted.
const FEW: usize = 10;

/// Makes one happen, and tells its story in a few words.
pub(super) async fn happen(
    stage: &mut Stage<'_>,
    dice: &mut Random,
    scope: Scope,
) -> Result<(Kind, String), Error> {
    let kind = pick(dice, scope);
    let story = match kind {
        Kind::Kill | Kind::Term | Kind::Pause => process(stage, dice, kind).await?,
        Kind::DatabaseReset
        | Kind::DatabaseStalled
        | Kind::DatabaseSlow
        | Kind::DatabaseCut
        | Kind::CommitCut
        | Kind::DatabaseRestart => database(stage, dice, kind).await?,
        Kind::PlatformAway | Kind::PlatformReset | Kind::PlatformStalled | Kind::PlatformSlow => {
            way(stage, dice, kind).await?
        }
        Kind::Session | Kind::Truncated | Kind::Busy => server(stage, dice, kind)?,
        Kind::Power | Kind::Created | Kind::Deleted | Kind::Moved | Kind::HostLink | Kind::Renumbered => {
            world(stage, dice, kind).await?
        }
    };
    Ok((kind, story))
}

fn pick(dice: &mut Random, scope: Scope) -> Kind {
    let possible = || {
        SHARES
            .iter()
            .filter(|(kind, _)| scope == Scope::All || WITHOUT_DATABASE.contains(kind))
    };
    let mut left = dice.between(1, possible().map(|(_, share)| share).sum());
    for (kind, share) in possible() {
        if left <= *share {
            return *kind;
        }
        left -= share;
    }
    Kind::Kill
}

/// The second collector is ended; any is stopped for longer than a lease lasts.
async fn process(stage: &mut Stage<'_>, dice: &mut Random, kind: Kind) -> Result<String, Error> {
    let pause = dice.millis(0, 20_000);
    let [first, second] = &mut stage.nodes;
    match kind {
        Kind::Kill => {
            second.kill().await?;
            stage.pass(pause).await?;
            let [_, second] = &mut stage.nodes;
            second.start().await?;
            Ok(format!("kill -9, back after {} ms", pause.as_millis()))
        }
        Kind::Term => {
            second.stop().await?;
            stage.pass(pause).await?;
            let [_, second] = &mut stage.nodes;
            second.start().await?;
            Ok(format!("told to end, back after {} ms", pause.as_millis()))
        }
        _ => {
            let is_first = dice.chance(50);
            let time = dice.seconds(35, 50);
            let node = if is_first { first } else { second };
            node.signal(Signal::Stop)?;
            stage.pass(time).await?;
            let [first, second] = &mut stage.nodes;
            let node = if is_first { first } else { second };
            node.signal(Signal::Cont)?;
            let which = if is_first { "first" } else { "second" };
            Ok(format!(
                "the {which} collector stood still for {} s",
                time.as_secs()
            ))
        }
    }
}

/// The way of one collector to the database, or the server itself.
async fn database(stage: &mut Stage<'_>, dice: &mut Random, kind: Kind) -> Result<String, Error> {
    let number = usize::from(dice.chance(50));
    let way = |stage: &Stage<'_>, change: &dyn Fn(&crate::proxy::Proxy)| {
        if let Some(node) = stage.nodes.get(number) {
            change(&node.database);
        }
    };
    let whose = if number == 0 { "first" } else { "second" };
    match kind {
        Kind::DatabaseReset => {
            way(stage, &|way| way.reset_all());
            Ok(format!(
                "connections of the {whose} collector to the database reset"
            ))
        }
        Kind::DatabaseCut => {
            let direction = if dice.chance(60) {
                Direction::Up
            } else {
                Direction::Down
            };
            let bytes = dice.between(1, 8_000);
            way(stage, &|way| way.cut_after(direction, bytes));
            Ok(format!(
                "the {whose} collector's connection to the database ends after {bytes} bytes {direction:?}"
            ))
        }
        Kind::CommitCut => {
            let cut = if dice.chance(75) {
                CommitCut::Reply
            } else {
                CommitCut::Request
            };
            let rows = dice.chance(75);
            way(stage, &|way| way.cut_commit(cut, rows));
            Ok(format!(
                "the {whose} collector's next COMMIT is cut ({cut:?}, of rows: {rows})"
            ))
        }
        Kind::DatabaseRestart => {
            let mode = if dice.chance(50) {
                Mode::Fast
            } else {
                Mode::Immediate
            };
            stage.restart_database(mode).await?;
            Ok(format!("database restarted, {mode:?}"))
        }
        _ => {
            let time = dice.seconds(5, 45);
            let weather = if kind == Kind::DatabaseStalled {
                Weather {
                    stalled: true,
                    ..Weather::default()
                }
            } else {
                let latency = dice.millis(5, 100);
                Weather {
                    latency_up: latency,
                    latency_down: latency,
                    throttle: Some(u32::try_from(dice.between(20_000, 200_000)).unwrap_or(u32::MAX)),
                    ..Weather::default()
                }
            };
            way(stage, &|way| way.set_weather(weather));
            stage.pass(time).await?;
            way(stage, &|way| way.set_weather(Weather::default()));
            let what = if weather.stalled { "stalled" } else { "slow" };
            Ok(format!(
                "the {whose} collector's way to the database {what} for {} s",
                time.as_secs()
            ))
        }
    }
}

/// The way of all collectors to one platform.
async fn way(stage: &mut Stage<'_>, dice: &mut Random, kind: Kind) -> Result<String, Error> {
    let number = index(dice, stage.sites.len());
    let name = site(stage, number)?.name.clone();
    let each = |stage: &Stage<'_>, change: &dyn Fn(&crate::proxy::Proxy)| {
        for node in &stage.nodes {
            node.platforms.get(number).into_iter().for_each(change);
        }
    };
    match kind {
        Kind::PlatformReset => {
            each(stage, &|way| way.reset_all());
            Ok(format!("connections to {name} reset"))
        }
        Kind::PlatformAway => {
            let time = dice.seconds(10, 180);
            each(stage, &|way| {
                way.refuse(true);
                way.reset_all();
            });
            stage.pass(time).await?;
            each(stage, &|way| way.refuse(false));
            Ok(format!("{name} away for {} s", time.as_secs()))
        }
        _ => {
            let time = dice.seconds(10, 90);
            let weather = if kind == Kind::PlatformStalled {
                Weather {
                    stalled: true,
                    ..Weather::default()
                }
            } else {
                let latency = dice.millis(20, 300);
                Weather {
                    latency_up: latency,
                    latency_down: latency,
                    throttle: Some(u32::try_from(dice.between(5_000, 50_000)).unwrap_or(u32::MAX)),
                    ..Weather::default()
                }
            };
            each(stage, &|way| way.set_weather(weather));
            stage.pass(time).await?;
            each(stage, &|way| way.set_weather(Weather::default()));
            let what = if weather.stalled { "stalled" } else { "slow" };
            Ok(format!("{name} {what} for {} s", time.as_secs()))
        }
    }
}

/// A platform's server does not do as it should.
fn server(stage: &Stage<'_>, dice: &mut Random, kind: Kind) -> Result<String, Error> {
    let site = site(stage, index(dice, stage.sites.len()))?;
    let times = u32::try_from(dice.between(1, 4)).unwrap_or(1);
    let name = &site.name;
    match kind {
        Kind::Session => {
            site.simulator.sessions().expire_all();
            Ok(format!("sessions of {name} expired"))
        }
        Kind::Truncated => {
            let at = usize::try_from(dice.between(0, 8_000)).unwrap_or_default();
            let action = if dice.chance(50) {
                Action::Truncate { at }
            } else {
                Action::Cut { at }
            };
            site.simulator
                .rules()
                .add(Rule::on("QueryPerf", action).times(times));
            Ok(format!("{times} answers of {name} end after {at} bytes"))
        }
        _ => {
            let action = Action::Status {
                code: 503,
                body: None,
            };
            let rule = Rule {
                method: None,
                ..Rule::on("QueryPerf", action).times(3 * times)
            };
            site.simulator.rules().add(rule);
            Ok(format!("{} times 503 of {name}", 3 * times))
        }
    }
}

/// Something happens in the world of a platform.
async fn world(stage: &mut Stage<'_>, dice: &mut Random, kind: Kind) -> Result<String, Error> {
    // What a host without vCenter cannot do is done in a vCenter.
    let vcenter_only = matches!(kind, Kind::Moved | Kind::HostLink);
    let last = stage.sites.len().saturating_sub(usize::from(vcenter_only));
    let number = index(dice, last);
    let (name, world) = {
        let site = site(stage, number)?;
        (site.name.clone(), site.simulator.world().clone())
    };
    let running = world.running_vms();
    let vm = dice.pick(&running).cloned().ok_or(Error::Nothing("running VM"))?;
    let host = dice.pick(&world.hosts()).cloned().ok_or(Error::Nothing("host"))?;
    match kind {
        Kind::Power => {
            let time = dice.seconds(5, 120);
            world.power_off(&vm)?;
            stage.pass(time).await?;
            world.power_on(&vm)?;
            Ok(format!("{vm} of {name} off for {} s", time.as_secs()))
        }
        Kind::Deleted if running.len() > FEW => {
            world.delete_vm(&vm)?;
            Ok(format!("{vm} of {name} deleted"))
        }
        Kind::Created | Kind::Deleted => {
            let created = world.create_vm(None, Some(&host))?;
            Ok(format!("{created} created on {host} of {name}"))
        }
        Kind::Moved => {
            let ring = if dice.chance(50) {
                RingFate::Kept
            } else {
                RingFate::Reset
            };
            world.move_vm(&vm, &host, ring)?;
            Ok(format!("{vm} of {name} moved to {host}, samples {ring:?}"))
        }
        Kind::HostLink => {
            let time = dice.seconds(20, 180);
            world.set_host_link(&host, HostLink::NotResponding)?;
            stage.pass(time).await?;
            world.set_host_link(&host, HostLink::Connected)?;
            Ok(format!("{host} of {name} lost for {} s", time.as_secs()))
        }
        _ => {
            world.renumber_counters();
            stage.sites.get(number).into_iter().for_each(|site| {
                // As in an upgrade.
                site.simulator.sessions().expire_all();
            });
            Ok(format!("counters of {name} renumbered"))
        }
    }
}

fn index(dice: &mut Random, length: usize) -> usize {
    let most = u64::try_from(length.saturating_sub(1)).unwrap_or_default();
    usize::try_from(dice.between(0, most)).unwrap_or_default()
}

fn site<'a>(stage: &'a Stage<'_>, number: usize) -> Result<&'a Site, Error> {
    stage.sites.get(number).ok_or(Error::Nothing("platform"))
}
