//! What is logged: the README's fields are those of the code, and the messages that it quotes are really printed.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::process::free_address;
use tokio::time::Instant;
use vsphere_simulator::{Action, Rule};

use crate::readme::{readme, table};
use crate::rig::{Rig, small};
use crate::thread_log::Log;
use crate::wait::until;

fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

/// The arguments of a macro call that begins behind its opening parenthesis, split at its own commas.
fn arguments(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut quoted, mut escaped) =
        (Vec::new(), String::new(), 0, false, false);
    for c in text.chars() {
        if quoted {
            quoted = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
        } else {
            match c {
                '"' => quoted = true,
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(std::mem::take(&mut part).trim().to_owned());
                    continue;
                }
                _ => {}
            }
        }
        part.push(c);
    }
    parts.push(part.trim().to_owned());
    parts
}

/// Names of the fields of all events of a text.
fn fields(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        let call = format!("tracing::{level}!(");
        for (at, _) in text.match_indices(&call) {
            for argument in arguments(&text[at + call.len()..]) {
                if argument.starts_with('"') {
                    break;
                }
                let name = argument
                    .split('=')
                    .next()
                    .unwrap()
                    .trim()
                    .trim_start_matches(['%', '?']);
                names.insert(name.rsplit('.').next().unwrap().to_owned());
            }
        }
    }
    names
}

#[test]
fn the_fields_of_events_are_found_in_all_their_forms() {
    let text = r#"tracing::info!(%address, platform = %name, n_rows = rows.len(), options.host, "said, {x}"); tracing::warn!("a = b")"#;
    let found: Vec<String> = fields(text).into_iter().collect();
    assert_eq!(found, ["address", "host", "n_rows", "platform"]);
}

#[test]
fn the_table_of_log_fields_is_the_code() {
    let documented: BTreeSet<String> = table("log fields")
        .into_iter()
        .flat_map(|row| row[0].split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let real: BTreeSet<String> = all_sources().iter().flat_map(|(_, text)| fields(text)).collect();
    let unknown: Vec<&String> = real.difference(&documented).collect();
    let gone: Vec<&String> = documented.difference(&real).collect();
    assert!(
        unknown.is_empty() && gone.is_empty(),
        "not in the README: {unknown:?}; not in the code: {gone:?}"
    );
}

/// White space as one blank, and strings that go on in the next line as one.
fn flat(text: &str) -> String {
    let joined = text.replace("\\\n", "\n").replace("\\\"", "\"");
    joined.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_message_that_troubleshooting_quotes_is_one_of_the_code() {
    let code: String = all_sources().iter().map(|(_, text)| flat(text)).collect();
    let readme = readme();
    let start = readme.find("<!-- messages -->").unwrap();
    let end = readme.find("<!-- end messages -->").unwrap();
    let mut n_quoted = 0;
    for line in readme[start..end].lines().filter(|line| line.starts_with("| ")) {
        let first = line.trim_matches('|').split(" | ").next().unwrap();
        // In back-ticks; what differs from case to case is an ellipsis.
        for quoted in first.split('`').skip(1).step_by(2) {
            for part in quoted.split("...").map(str::trim).filter(|part| !part.is_empty()) {
                assert!(code.contains(part), "no code says: {part}");
                n_quoted += 1;
            }
        }
    }
    assert!(n_quoted >= 20, "{n_quoted}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up_and_is_there_when_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let admin = free_address().unwrap();
    let config = format!(
        "[database]\nurl = \"postgresql://virt_writer@127.0.0.1:1/virt\"\n[admin]\nlisten = \"{admin}\"\n"
    );
    std::fs::write(&file, config).unwrap();
    // As much as a pipe holds: no line goes in before somebody reads.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'\n'; 65_536]).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(["run", "--config", file.to_str().unwrap()])
        .stdout(writer)
        .spawn()
        .unwrap();
    until("an answer", async || {
        match tokio::net::TcpStream::connect(admin).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    let log = log.trim_start();
    assert!(
        log.contains("started") && log.trim_end().ends_with("stopped"),
        "{log}"
    );
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn what_each_poll_would_tell_again_is_told_once_a_minute_and_an_outage_once() {
    let log = Log::start();
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let begun = Instant::now();
    let fault = |fault: &str| Action::Fault {
        fault: fault.to_owned(),
        message: String::new(),
    };
    let victim = rig.simulator.world().running_vms().remove(0);
    let refused = rig
        .simulator
        .rules()
        .add(Rule::on("QueryPerf", fault("ManagedObjectNotFound")).object(&victim));
    for _ in 0..5 {
        rig.pass(Duration::from_secs(60));
        assert_eq!(daemon.poll().await.n_skipped, 1);
    }
    let a_minute = 1 + usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
    let told = log.lines(&["left out of this poll"]);
    assert!((1..=a_minute).contains(&told.len()), "{told:#?}");

    rig.simulator.rules().remove(refused);
    let away = rig.simulator.rules().add(Rule::on(
        "QueryPerf",
        Action::Status {
            code: 503,
            body: None,
        },
    ));
    for _ in 0..5 {
        rig.pass(Duration::from_secs(60));
        assert!(daemon.poll().await.error.is_some());
    }
    // Another loop tells, as soon as the database has what that loop wrote before.
    let outage = ["platform in error; trying again"];
    until("the outage is told", async || {
        let told = log.lines(&outage);
        (!told.is_empty())
            .then_some(())
            .ok_or_else(|| "no line".to_owned())
    })
    .await;
    assert!(daemon.poll().await.error.is_some());
    rig.simulator.rules().remove(away);
    daemon.stop().await;
    let told = log.lines(&outage);
    assert_eq!(told.len(), 1, "{told:#?}");
}
