//! The world that is watched changes, between polls or in the middle of one.

use std::time::Duration;

use vsphere_simulator::truth::Withheld;
use vsphere_simulator::{Action, HostLink, RingFate, Rule, ZoneChange};

use super::super::Error;
use super::super::figures::unmet;
use super::super::random::Random;
use super::super::stage::Stage;
use super::{MEET, ending, moment, provoke, provoke_poll};
use crate::process;

const MICROS: i64 = 1_000_000;

/// Below so many running VMs one is created first.
const FEW: usize = 6;

/// An event between two polls, or at a random moment of one.
async fn amid(
    stage: &mut Stage,
    dice: &mut Random,
    what: &str,
    event: impl FnOnce(&Stage) -> Result<(), Error> + Send,
) -> Result<String, Error> {
    let busy = dice.chance(50) && !stage.hasty;
    let after = dice.millis(0, 700);
    let end = ending(dice);
    stage.pass(moment(dice));
    if busy {
        stage.restart(end).await?;
        tokio::time::sleep(after).await;
        event(stage)?;
        stage.note(what);
        // What is new about the world has a first sample now.
        stage.pass(dice.seconds(41, 90));
        Ok(format!("{} ms after a start", after.as_millis()))
    } else {
        event(stage)?;
        stage.note(what);
        stage.pass(dice.seconds(41, 90));
        Ok(provoke(stage, dice).await?.to_owned())
    }
}

fn vm(stage: &Stage, dice: &mut Random) -> Result<String, Error> {
    let running = stage.simulator.world().running_vms();
    dice.pick(&running).cloned().ok_or(Error::Nothing("running VM"))
}

fn host(stage: &Stage, dice: &mut Random) -> Result<String, Error> {
    dice.pick(&stage.simulator.world().hosts())
        .cloned()
        .ok_or(Error::Nothing("host"))
}

pub(super) async fn renumbered(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    // It happens in an upgrade, which ends every session.
    amid(stage, dice, "renumbered", |stage| {
        stage.simulator.world().renumber_counters();
        stage.simulator.sessions().expire_all();
        Ok(())
    })
    .await
}

pub(super) async fn deleted(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    if stage.simulator.world().running_vms().len() < FEW {
        created(stage, dice).await?;
        stage.recovered().await?;
    }
    let vm = vm(stage, dice)?;
    let when = amid(stage, dice, &format!("{vm} deleted"), |stage| {
        Ok(stage.simulator.world().delete_vm(&vm)?)
    })
    .await?;
    Ok(format!("{vm}, {when}"))
}

pub(super) async fn created(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let host = host(stage, dice)?;
    let mut vm = String::new();
    let when = amid(stage, dice, "created", |stage| {
        vm = stage.simulator.world().create_vm(None, Some(&host))?;
        Ok(())
    })
    .await?;
    Ok(format!("{vm} on {host}, {when}"))
}

pub(super) async fn renamed(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let vm = vm(stage, dice)?;
    let name = format!("renamed-{}", dice.between(0, 9_999));
    let when = amid(stage, dice, &format!("{vm} renamed"), |stage| {
        Ok(stage.simulator.world().rename(&vm, &name)?)
    })
    .await?;
    Ok(format!("{vm}, {when}"))
}

pub(super) async fn power(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let vm = vm(stage, dice)?;
    let off = amid(stage, dice, &format!("{vm} off"), |stage| {
        Ok(stage.simulator.world().power_off(&vm)?)
    })
    .await?;
    let seen = dice.chance(50);
    if seen {
        stage.recovered().await?;
    }
    let on = amid(stage, dice, &format!("{vm} on"), |stage| {
        Ok(stage.simulator.world().power_on(&vm)?)
    })
    .await?;
    Ok(format!(
        "{vm}, off {off}{}, on {on}",
        if seen { " (seen)" } else { "" }
    ))
}

pub(super) async fn moved(stage: &mut Stage, dice: &mut Random, ring: RingFate) -> Result<String, Error> {
    let (vm, host) = (vm(stage, dice)?, host(stage, dice)?);
    let when = amid(
        stage,
        dice,
        &format!("{vm} moved to {host}, ring {ring:?}"),
        |stage| Ok(stage.simulator.world().move_vm(&vm, &host, ring)?),
    )
    .await?;
    Ok(format!("{vm} to {host}, {when}"))
}

pub(super) async fn disconnected(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let host = host(stage, dice)?;
    let link = if dice.chance(50) {
        HostLink::Disconnected
    } else {
        HostLink::NotResponding
    };
    let gone = amid(stage, dice, &format!("{host} {link:?}"), |stage| {
        Ok(stage.simulator.world().set_host_link(&host, link)?)
    })
    .await?;
    if dice.chance(50) {
        stage.recovered().await?;
    }
    let time = dice.seconds(20, 1_500);
    stage.pass(time);
    let back = amid(stage, dice, &format!("{host} back"), |stage| {
        Ok(stage
            .simulator
            .world()
            .set_host_link(&host, HostLink::Connected)?)
    })
    .await?;
    Ok(format!(
        "{host} {link:?} {gone}, for {} s and more, back {back}",
        time.as_secs()
    ))
}

pub(super) async fn rebooted(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let host = host(stage, dice)?;
    let before = stage.simulator.world().running_vms();
    let when = amid(stage, dice, &format!("{host} reboots"), |stage| {
        let event = vsphere_simulator::Event::HostReboot { host: host.clone() };
        Ok(stage.simulator.world().apply(event).map(drop)?)
    })
    .await?;
    let running = stage.simulator.world().running_vms();
    let off: Vec<String> = before.into_iter().filter(|vm| !running.contains(vm)).collect();
    let n_off = off.len();
    let on = amid(stage, dice, "its VMs on", |stage| {
        for vm in &off {
            stage.simulator.world().power_on(vm)?;
        }
        Ok(())
    })
    .await?;
    Ok(format!("{host} {when}, its {n_off} VMs on again {on}"))
}

pub(super) async fn late(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let vm = vm(stage, dice)?;
    let all = dice.chance(30);
    let first = next_stamp(stage);
    let last = first + 20 * i64::try_from(dice.between(0, 3)).unwrap_or(0);
    // Up to when the gap is asked for a second time.
    let extra = dice.seconds(5, 100);
    let whose = if all { None } else { Some(vm.as_str()) };
    stage.note(format!(
        "{whose:?} from {first} to {last} late by {} s",
        extra.as_secs()
    ));
    stage.simulator.world().delay_samples(whose, first, last, extra)?;
    polls_around(stage, dice).await?;
    Ok(format!(
        "{} samples of {} by {} s",
        (last - first) / 20 + 1,
        whose.unwrap_or("all"),
        extra.as_secs()
    ))
}

pub(super) async fn partly_empty(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    const COUNTERS: [&str; 5] = [
        "cpu.usage.average",
        "cpu.ready.summation",
        "mem.consumed.average",
        "net.bytesRx.average",
        "virtualDisk.numberReadAveraged.average",
    ];
    let vm = vm(stage, dice)?;
    let counter = dice.pick(&COUNTERS).copied().ok_or(Error::Nothing("counter"))?;
    let first = next_stamp(stage);
    let last = first + 20 * i64::try_from(dice.between(0, 4)).unwrap_or(0);
    let until = dice
        .chance(60)
        .then(|| (last + i64::try_from(dice.between(5, 90)).unwrap_or(0)) * MICROS);
    let cells = Withheld {
        counter: counter.to_owned(),
        instance: None,
        stamps: vsphere_simulator::clock::StampRange { first, last },
        until,
    };
    stage.note(format!("{vm}: {cells:?}"));
    stage.simulator.world().withhold(Some(&vm), cells)?;
    polls_around(stage, dice).await?;
    Ok(format!(
        "{counter} of {vm}, {} samples, {}",
        (last - first) / 20 + 1,
        if until.is_some() {
            "filled in later"
        } else {
            "for ever"
        }
    ))
}

/// Polls before, amid and after some samples that come late, and one when the gap that they left is to be asked for.
async fn polls_around(stage: &mut Stage, dice: &mut Random) -> Result<(), Error> {
    for _ in 0..3 {
        provoke_poll(stage, dice).await?;
        tokio::time::sleep(dice.millis(200, 1_500)).await;
    }
    stage.pass(Duration::from_secs(160));
    provoke(stage, dice).await.map(drop)
}

/// The first stamp that is not published yet.
fn next_stamp(stage: &Stage) -> i64 {
    let now = stage.simulator.clock().horizon() / MICROS;
    now - now.rem_euclid(20) + 20
}

pub(super) async fn clock_forward(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let by = i64::try_from(dice.between(10, 1_800)).unwrap_or(0);
    let when = provoke(stage, dice).await?;
    tokio::time::sleep(dice.millis(0, 700)).await;
    stage.step(by * MICROS);
    stage.pass(Duration::from_secs(60));
    provoke(stage, dice).await?;
    Ok(format!("by {by} s, {when}"))
}

pub(super) async fn clock_back(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    // An hour is what a server is off whose time zone is set wrong.
    let by = if dice.chance(40) {
        3_600
    } else {
        dice.between(10, 900)
    };
    let when = provoke(stage, dice).await?;
    tokio::time::sleep(dice.millis(0, 700)).await;
    stage.step(-i64::try_from(by).unwrap_or(0) * MICROS);
    // A poll while nothing is published, then life goes on.
    provoke_poll(stage, dice).await?;
    stage.pass(Duration::from_secs(by + 60));
    provoke(stage, dice).await?;
    Ok(format!("by {by} s, {when}"))
}

/// The vCenter's clock and the collector's are apart, and by another amount from now on.
pub(super) async fn clock_skew(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    /// From the call to the answer.
    const SLACK: f64 = 2.0;
    let by = i64::try_from(dice.between(60, 600)).unwrap_or(0);
    let by = if dice.chance(50) { by } else { -by };
    stage.step(by * MICROS);
    let began = jiff::Timestamp::now();
    let when = provoke(stage, dice).await?;
    let clock = stage.simulator.clock().clone();
    #[expect(clippy::cast_precision_loss, reason = "hours at most")]
    let against = move |time: jiff::Timestamp| (clock.now() - time.as_microsecond()) as f64 / 1e6;
    let skew = against(began);
    // The clock of the vCenter stands still meanwhile, the collector's goes on until its poll.
    stage
        .until_figure("virt_collector_platform_clock_skew_seconds", &[], move |told| {
            told < skew + SLACK && told > against(jiff::Timestamp::now()) - SLACK
        })
        .await?;
    let newest: i64 = stage.client().await?.query_one(NEWEST_OF_ALL, &[]).await?.get(0);
    if newest > stage.simulator.clock().horizon() {
        return Err(unmet("a row that is newer than what the vCenter has published"));
    }
    stage.pass(Duration::from_secs(by.unsigned_abs() + 60));
    provoke(stage, dice).await?;
    Ok(format!("by {by} s to {skew:.0} s, {when}"))
}

const NEWEST_OF_ALL: &str = "\
SELECT greatest((SELECT (extract(epoch FROM max(collected_at)) * 1000000)::int8 FROM virt_host_metrics), \
                (SELECT (extract(epoch FROM max(collected_at)) * 1000000)::int8 FROM virt_vm_metrics))";

/// Everybody is somewhere else, and summer time begins or ends at one of them.
pub(super) async fn time_zone(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    /// With half an hour of summer time, with 45 minutes, with whole ones.
    const ZONES: [&str; 3] = ["Australia/Lord_Howe", "Asia/Kathmandu", "America/New_York"];
    const OFFSETS: [(i32, i32); 4] = [(120, 60), (60, 120), (-210, -150), (630, 660)];
    let zone = dice.pick(&ZONES).copied().ok_or(Error::Nothing("zone"))?;
    let (before, after) = dice.pick(&OFFSETS).copied().ok_or(Error::Nothing("offset"))?;
    let at = stage.simulator.clock().horizon() / MICROS + i64::try_from(dice.between(10, 90)).unwrap_or(0);
    let rule = stage.simulator.rules().add(Rule {
        method: None,
        ..Rule::on(
            "",
            Action::Zone {
                minutes: before,
                change: Some(ZoneChange { at, minutes: after }),
            },
        )
    });
    stage.set_zone(Some(zone)).await?;
    for _ in 0..2 {
        stage.pass(moment(dice));
        stage.restart(ending(dice)).await?;
        stage.recovered().await?;
    }
    if stage.simulator.rules().applied(rule) == 0 {
        return Err(Error::Nothing("reply in another zone"));
    }
    stage.set_zone(None).await?;
    stage.simulator.rules().remove(rule);
    stage.restart(ending(dice)).await?;
    Ok(format!(
        "collector and database in {zone}, the vCenter at {before} min, from {at} on at {after} min"
    ))
}

/// Counts the new registration and the end of the old one.
const TOLD: &str =
    "SELECT count(*) FROM virt_vm WHERE moref = ANY($1) AND (removed_at IS NULL) = (moref = ($1)[2])";

/// Both rows of the VM, and its samples over both.
const ONE_MACHINE: &str = "\
SELECT count(DISTINCT vm.vm_id), count(DISTINCT vm.vm_id) FILTER (WHERE vm.removed_at IS NULL), \
       count(DISTINCT vm.instance_uuid), count(DISTINCT sample.vm_id), \
       count(*) - count(DISTINCT sample.collected_at) \
FROM virt_vm AS vm JOIN virt_vm_metrics AS sample USING (vm_id) WHERE vm.moref = ANY($1)";

pub(super) async fn re_registered(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let vm = vm(stage, dice)?;
    let told = dice.chance(50);
    let again;
    let when;
    if told {
        again = stage.simulator.world().re_register(&vm)?;
        stage.note(format!("{vm} registered again as {again}"));
        let this = &*stage;
        let morefs = [vm.as_str(), again.as_str()];
        let morefs = morefs.as_slice();
        process::until("both to be told", MEET, || async move {
            let client = this.client().await.map_err(|error| process::chain(&error))?;
            let row = client.query_one(TOLD, &[&morefs]).await;
            let told: i64 = row.map_err(|error| process::chain(&error))?.get(0);
            if told == 2 { Ok(()) } else { Err(told.to_string()) }
        })
        .await?;
        stage.pass(dice.seconds(41, 90));
        provoke(stage, dice).await?;
        when = "told";
    } else {
        // A reading that lacks it is not enough to take it for removed.
        stage.end(ending(dice)).await?;
        again = stage.simulator.world().re_register(&vm)?;
        stage.note(format!("{vm} registered again as {again}"));
        stage.pass(dice.seconds(41, 90));
        stage.start().await?;
        when = "while nobody looked";
    }
    stage.recovered().await?;
    let this = &*stage;
    let morefs = [vm.as_str(), again.as_str()];
    let morefs = morefs.as_slice();
    let seen = process::until("one machine over both registrations", MEET, || async move {
        let client = this.client().await.map_err(|error| process::chain(&error))?;
        let row = client.query_one(ONE_MACHINE, &[&morefs]).await;
        let row = row.map_err(|error| process::chain(&error))?;
        let [rows, present, machines, with_samples, twice]: [i64; 5] =
            std::array::from_fn(|place| row.get(place));
        if (rows, machines, with_samples) == (2, 1, 2) && (present == 1 || !told) {
            Ok(twice)
        } else {
            Err(format!(
                "{rows} rows, {present} of them present, {machines} instance UUIDs, {with_samples} with samples"
            ))
        }
    });
    let twice = seen.await?;
    if twice > 0 {
        return Err(unmet(format!("{twice} samples under both registrations")));
    }
    Ok(format!("{vm} as {again}, {when}"))
}
