//! The vCenter answers, but not as it should.

use std::time::Duration;

use tokio::time::Instant;
use vsphere_simulator::{Action, Rule};

use super::super::Error;
use super::super::figures::unmet;
use super::super::random::Random;
use super::super::stage::{End, Stage};
use super::{moment, provoke};

const FAILURES: &str = "virt_collector_soap_failures_total";

/// What hostile replies may cost of memory, beside what the collector had before.
const MOST_MEMORY_KIB: u64 = 64 * 1024;

/// The shortest that configuration allows.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// For a machine that is busy.
const SLACK: Duration = Duration::from_secs(10);

fn some_vms(stage: &Stage, dice: &mut Random, most: u64) -> Result<Vec<String>, Error> {
    let mut vms = stage.simulator.world().running_vms();
    dice.shuffle(&mut vms);
    vms.truncate(usize::try_from(dice.between(1, most)).unwrap_or(1));
    if vms.is_empty() {
        return Err(Error::Nothing("running VM"));
    }
    Ok(vms)
}

/// Some VMs are refused or left out, in the middle of a batch: what was asked beside them is stored.
async fn beside(
    stage: &mut Stage,
    dice: &mut Random,
    vms: &[String],
    action: &Action,
    counted: (&str, &[(&str, &str)]),
) -> Result<&'static str, Error> {
    let (name, labels) = counted;
    let before = stage.figure(name, labels).await?;
    let rules: Vec<u64> = vms
        .iter()
        .map(|vm| {
            let rule = Rule::on("QueryPerf", action.clone()).object(vm);
            stage.simulator.rules().add(rule)
        })
        .collect();
    stage.note(format!("{action:?} about {vms:?}"));
    let when = provoke(stage, dice).await?;
    stage
        .met("a question for each", |stage| {
            rules
                .iter()
                .all(|rule| stage.simulator.rules().applied(*rule) > 0)
        })
        .await?;
    stage.others_are_stored(vms).await?;
    // A new process counts from nothing.
    stage
        .until_figure(name, labels, |n| n > before || n > 0.0 && when == "at a start")
        .await?;
    for rule in rules {
        stage.simulator.rules().remove(rule);
    }
    Ok(when)
}

pub(super) async fn not_found(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let vms = some_vms(stage, dice, 2)?;
    let fault = "ManagedObjectNotFound";
    let action = Action::Fault {
        fault: fault.to_owned(),
        message: "has already been deleted or has not been completely created".to_owned(),
    };
    let when = beside(stage, dice, &vms, &action, (FAILURES, &[("type", fault)])).await?;
    Ok(format!("{}, {when}", vms.join(" ")))
}

pub(super) async fn partial(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let vms = some_vms(stage, dice, 4)?;
    let counted = (
        "virt_collector_reply_oddities_total",
        [("kind", "entity_missing")],
    );
    let when = beside(stage, dice, &vms, &Action::OmitEntity, (counted.0, &counted.1)).await?;
    Ok(format!("without {}, {when}", vms.join(" ")))
}

fn malformed_action(dice: &mut Random) -> (&'static str, Action) {
    let replace = |find: &str, with: String| Action::Replace {
        find: find.to_owned(),
        with,
    };
    let body = |text: &str, content_type: &str| Action::Body {
        text: text.to_owned(),
        content_type: content_type.to_owned(),
    };
    let entities = "<!DOCTYPE a [<!ENTITY a \"aaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><soapenv:Envelope";
    match dice.between(1, 12) {
        1 => (
            "HTML 502",
            Action::Status {
                code: 502,
                body: None,
            },
        ),
        2 => (
            "HTML 500",
            Action::Status {
                code: 500,
                body: None,
            },
        ),
        3 => (
            "HTML with 200",
            body("<html><body>Please log in</body></html>", "text/html"),
        ),
        4 => (
            "HTML under a false name",
            body("<html><body>Please log in</body></html>", "text/xml"),
        ),
        5 => (
            "another charset",
            replace("<soapenv:Body>", "<soapenv:B\u{f6}dy>".to_owned()),
        ),
        6 => (
            "bytes of no charset",
            Action::BreakUtf8 {
                after: "<soapenv:".to_owned(),
            },
        ),
        7 => ("a DOCTYPE", replace("<soapenv:Envelope", entities.to_owned())),
        8 => (
            "a depth of two millions",
            replace("<returnval>", "<x>".repeat(2_000_000)),
        ),
        9 => ("a gzip bomb", Action::Bomb { bytes: 128 << 20 }),
        10 => ("a body without end", Action::Endless),
        11 => ("an empty body", body("", "text/xml")),
        _ => (
            "the answer to something else",
            replace("Response", "Answer".to_owned()),
        ),
    }
}

pub(super) async fn malformed(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let method = match dice.between(1, 10) {
        1..=6 => "QueryPerf",
        7 => "RetrievePropertiesEx",
        8..=9 => "WaitForUpdatesEx",
        _ => "CurrentTime",
    };
    let (what, action) = malformed_action(dice);
    let times = u32::try_from(dice.between(1, 3)).unwrap_or(1);
    let story = format!("{method}: {what}, {times} times");
    stage.note(&*story);
    let rule = stage.simulator.rules().add(Rule::on(method, action).times(times));
    stage.pass(moment(dice));
    stage.restart(End::Kill).await?;
    // Of a process that has just begun, so that all that it ever had is what this cost.
    let started = Instant::now();
    stage
        .met(&story, |stage| {
            stage.simulator.rules().applied(rule) >= u64::from(times)
        })
        .await?;
    stage.until_figure(FAILURES, &[], |n| n > 0.0).await?;
    stage.recovered().await?;
    stage.simulator.rules().remove(rule);
    let most = stage.memory_kib().ok_or(Error::Nothing("memory of the holder"))?;
    let usual = stage.usual_memory_kib();
    if most > usual + MOST_MEMORY_KIB {
        return Err(unmet(format!("{most} KiB of memory, {usual} KiB without")));
    }
    Ok(format!(
        "{story}, {:.1} s, {} MiB",
        started.elapsed().as_secs_f64(),
        most / 1024
    ))
}

/// Answers that do not come, or never end.
pub(super) async fn slow_loris(stage: &mut Stage, dice: &mut Random) -> Result<String, Error> {
    let (what, action) = match dice.between(1, 3) {
        1 => ("a byte a second", Action::Trickle { millis: 1_000 }),
        2 => ("nothing behind the header", Action::Trickle { millis: 3_600_000 }),
        _ => ("nothing", Action::Delay { millis: 3_600_000 }),
    };
    let method = match dice.between(1, 4) {
        1..=2 => "QueryPerf",
        3 => "CurrentTime",
        _ => "RetrievePropertiesEx",
    };
    let story = format!("{method}: {what}");
    stage.note(&*story);
    let rule = stage.simulator.rules().add(Rule::on(method, action).times(2));
    stage.amend(|config| {
        let seconds = CALL_DEADLINE.as_secs();
        config.replace(
            "[collection]\n",
            &format!("[collection]\nrequest_timeout = \"{seconds}s\"\n"),
        )
    })?;
    stage.pass(moment(dice));
    stage.restart(End::Term).await?;
    stage
        .met(&story, |stage| stage.simulator.rules().applied(rule) > 0)
        .await?;
    let asked = Instant::now();
    stage
        .until_figure(FAILURES, &[("type", "deadline")], |n| n > 0.0)
        .await?;
    let took = asked.elapsed();
    if took > CALL_DEADLINE + SLACK {
        return Err(unmet(format!("a call of {} s", took.as_secs())));
    }
    stage.simulator.rules().remove(rule);
    stage.recovered().await?;
    stage.amend(|config| {
        let lines = config.lines().filter(|line| !line.starts_with("request_timeout"));
        lines.fold(String::new(), |text, line| text + line + "\n")
    })?;
    stage.restart(End::Term).await?;
    Ok(format!("{story}, given up after {:.1} s", took.as_secs_f64()))
}
