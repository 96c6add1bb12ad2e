//! One platform: connection, certificate, login, version, clock, what the account sees, counters.

use std::time::Duration;

use super::statistics::FiveMinutes;
use super::{Level, Report, Tried};
use crate::cli::counted;
use crate::clock::SystemClock;
use crate::clock::WallClock as _;
use crate::config;
use crate::config::Trust;
use crate::inventory;
use crate::inventory::Trial;
use crate::model::status::ErrorClass;

/// Login, hosts and VMs, counters.
const DEADLINE: Duration = Duration::from_secs(120);

pub(super) async fn examine(
    platform: &config::Platform,
    collection: &config::Collection,
    report: &mut Report,
) {
    let trial = inventory::try_platform(platform, collection, || SystemClock.now());
    match tokio::time::timeout(DEADLINE, trial).await {
        Ok(Ok(trial)) => well(platform, &trial, report),
        Ok(Err(error)) => {
            failed(platform, error.class(), inventory::trial_reason(&error), report);
        }
        Err(_elapsed) => {
            let message = format!("no end after {} s; is the server very slow?", DEADLINE.as_secs());
            failed(platform, ErrorClass::Timeout, message, report);
        }
    }
}

fn well(platform: &config::Platform, trial: &Trial, report: &mut Report) {
    let name = platform.name.as_str();
    reached(platform, report);
    certificate(platform, report);
    let role = match trial.roles.as_slice() {
        [] => String::new(),
        roles => format!(", {}", roles.join(", ")),
    };
    report.add(Tried::well(name, "login", format!("as {}{role}", platform.user)));
    let about = &trial.about;
    report.add(Tried::well(
        name,
        "version",
        format!("{}, API {}", about.full_name, about.api_version),
    ));
    report.add(match trial.clock_warning() {
        Some(warning) => Tried::note(name, "clock", warning),
        None => Tried::well(name, "clock", "agrees with this machine's"),
    });
    report.add(match trial.sight_warning() {
        Some(warning) => Tried::note(name, "privileges", warning),
        None => Tried::well(name, "privileges", format!("sees {}", seen(trial))),
    });
    if let Some(taken) = &trial.taken {
        report.add(match trial.filter_warning() {
            Some(warning) => Tried::note(name, "filter", warning),
            None => Tried::well(
                name,
                "filter",
                format!("takes {}", hosts_and_vms(taken.n_hosts, taken.n_vms)),
            ),
        });
    }
    report.add(match trial.counters_warning() {
        Some(warning) => Tried::note(name, "counters", warning),
        None => Tried::well(name, "counters", "all that columns are made of"),
    });
    statistics(name, FiveMinutes::of(trial), report);
}

/// One line for each table; for programs the first of them holds it all.
fn statistics(name: &str, statistics: FiveMinutes, report: &mut Report) {
    let level = if statistics.are_kept() {
        Level::Ok
    } else {
        Level::Note
    };
    let lines = statistics.lines();
    let mut whole = Some(statistics);
    for line in lines {
        report.add(Tried {
            five_minute_statistics: whole.take(),
            ..Tried::new(name, "statistics", level, line)
        });
    }
}

/// The kind of error says what failed. What came before it has no line: some errors are found before anything is sent.
fn failed(platform: &config::Platform, class: ErrorClass, message: String, report: &mut Report) {
    let thing = match class {
        ErrorClass::Unreachable | ErrorClass::Timeout => "connection",
        ErrorClass::Tls => "certificate",
        ErrorClass::Auth => "login",
        ErrorClass::Permission => "privileges",
        ErrorClass::Identity => "identity",
    };
    report.add(Tried {
        class: Some(class.as_str()),
        ..Tried::failed(&platform.name, thing, message)
    });
}

fn reached(platform: &config::Platform, report: &mut Report) {
    let config::Platform { name, host, port, .. } = platform;
    report.add(Tried::well(name, "connection", format!("{host}:{port} answers")));
}

fn certificate(platform: &config::Platform, report: &mut Report) {
    let name = &platform.name;
    report.add(match &platform.trust {
        Trust::System => Tried::well(
            name,
            "certificate",
            "signed by an authority that this system trusts",
        ),
        Trust::CaFile(path) => Tried::well(
            name,
            "certificate",
            format!("signed by an authority in {}", path.display()),
        ),
        Trust::CaPem(_) => Tried::well(
            name,
            "certificate",
            "signed by the authority that was given for it",
        ),
        Trust::Thumbprint(_) => Tried::well(name, "certificate", "the one that is pinned by its thumbprint"),
        Trust::Off => Tried::note(
            name,
            "certificate",
            "not verified: whoever stands in between reads the password; pin it with thumbprint instead",
        ),
    });
}

fn seen(trial: &Trial) -> String {
    let all = hosts_and_vms(trial.n_hosts, trial.n_vms);
    format!("{all} ({} powered on)", trial.n_running)
}

fn hosts_and_vms(n_hosts: usize, n_vms: usize) -> String {
    format!("{}, {}", counted(n_hosts, "host"), counted(n_vms, "VM"))
}

/// What a trial found, in one line.
pub(in crate::cli) fn trial_sentence(trial: &Trial, trust: &Trust) -> String {
    let mut message = format!("{}: {}", trial.about.full_name, seen(trial));
    if let Some(taken) = &trial.taken {
        message.push_str(&format!(
            ", of which the filter takes {}",
            hosts_and_vms(taken.n_hosts, taken.n_vms)
        ));
    }
    if !trial.roles.is_empty() {
        message.push_str(&format!("; as {}", trial.roles.join(", ")));
    }
    for warning in trial.warnings() {
        message.push_str("; ");
        message.push_str(&warning);
    }
    if *trust == Trust::Off {
        message.push_str("; its certificate is not verified: whoever stands in between reads the password");
    }
    message
}
