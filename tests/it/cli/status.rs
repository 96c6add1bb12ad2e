//! `virt-collector status` and what a terminal shows beside it.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::database::Role;

use super::{config, platform, run};
use crate::rig::{Rig, small};

/// Runs the binary on a terminal: what it writes there, and its exit code. `typed` follows the first thing it writes.
pub(crate) fn on_a_terminal(words: &str, environment: &[(&str, &str)], typed: &str) -> (i32, String) {
    let command = format!("{} {words}", env!("CARGO_BIN_EXE_virt-collector"));
    let mut child = Command::new("script")
        .args(["-qfec", &command, "/dev/null"])
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, of util-linux, is there");
    let mut output = child.stdout.take().unwrap();
    let mut written = Vec::new();
    let mut first = [0; 1024];
    let n = output.read(&mut first).unwrap();
    written.extend_from_slice(first.get(..n).unwrap());
    let mut input = child.stdin.take().unwrap();
    if !typed.is_empty() {
        input.write_all(typed.as_bytes()).unwrap();
        input.flush().unwrap();
    }
    output.read_to_end(&mut written).unwrap();
    drop(input);
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8_lossy(&written).into_owned())
}

fn write_config(rig: &Rig, text: &str) -> String {
    let path: PathBuf = rig.directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Off the runtime's threads: a simulator may answer on them.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_platforms_and_collectors_and_works_while_the_service_is_down() {
    let rig = Rig::new(small()).await;
    let text = config(&rig.database, &platform(&rig.simulator, "ca_file = \"ca.pem\""));
    let file = write_config(&rig, &text);
    let status = move |more: &'static str| {
        let file = file.clone();
        apart(move || {
            let mut words = vec!["status", "--config", &file];
            words.extend(more.split_whitespace());
            run(&words)
        })
    };
    let (code, text) = status("").await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("lab") && text.contains("never collected"), "{text}");
    assert!(
        text.contains("none runs") && text.contains("systemctl start"),
        "{text}"
    );

    let daemon = rig.start().await;
    let (code, text) = status("").await;
    assert_eq!(code, 0, "{text}");
    for part in ["connected", "PostgreSQL", "holds 1 platform", "none"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\x1b'), "{text:?}");
    let (_, text) = status("--output json").await;
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let lab = &document["platforms"][0];
    assert_eq!(
        (
            &lab["name"],
            &lab["state"],
            &lab["hosts"],
            &lab["vms"],
            &lab["running"],
            &lab["open_gaps"]
        ),
        (
            &Value::from("lab"),
            &Value::from("connected"),
            &Value::from(3),
            &Value::from(12),
            &Value::from(14),
            &Value::from(0)
        ),
        "{text}"
    );
    assert_eq!(lab["owned"], true);
    assert!(lab["lag_seconds"].as_f64().is_some(), "{text}");
    assert!(
        lab["newest_sample_age_seconds"].as_f64() <= lab["lag_seconds"].as_f64(),
        "{text}"
    );
    assert_eq!(document["collectors"][0]["alive"], true);

    // A gap that is yet to be asked for, and a platform that says why it is in error.
    let owner = rig.database.connect(Role::Owner).await.unwrap();
    owner
        .batch_execute(
            "INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state) \
             SELECT 1, 'vm', 1, now() - interval '3 hours', now() - interval '2 hours', 'open'; \
             UPDATE virt_platform SET status = 'error', status_class = 'auth', status_reason = 'wrong password'",
        )
        .await
        .unwrap();
    let (_, text) = status("").await;
    for part in ["error:auth", "lab: wrong password", "1 open, 3 h"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    daemon.stop().await;
    let (code, text) = status("").await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("no collector") && text.contains("none runs"),
        "{text}"
    );
    write_config(&rig, &config(&rig.database, ""));
    let (code, text) = status("").await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("not configured"), "{text}");
}

#[test]
fn status_without_a_database_exits_with_1_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(
        &file,
        "[database]\nurl = \"postgresql://virt_writer@127.0.0.1:1/virt\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let (code, text) = run(&["status", "--config", file]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not usable: cannot connect"), "{text}");
    let (code, text) = run(&["status", "--output", "json", "--config", file]);
    assert_eq!(code, 1, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["database"]["ok"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_gets_colours_unless_no_color_and_a_live_table_until_q() {
    let rig = Rig::new(small()).await;
    let file = write_config(
        &rig,
        &config(&rig.database, &platform(&rig.simulator, "tls_verify = false")),
    );
    let words = move |words: &str| format!("{words} --config {file}");

    let command = words("check");
    let (code, text) = apart(move || on_a_terminal(&command, &[], "")).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("\x1b[32mok") && text.contains("\x1b[33mnote"),
        "{text:?}"
    );
    let command = words("check");
    let (code, text) = apart(move || on_a_terminal(&command, &[("NO_COLOR", "1")], "")).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("note") && !text.contains('\x1b'), "{text:?}");

    let command = words("status");
    let (code, text) = apart(move || on_a_terminal(&command, &[("NO_COLOR", "1")], "q")).await;
    assert_eq!(code, 0, "{text:?}");
    let (live, left) = text
        .split_once("\x1b[?1049l")
        .unwrap_or_else(|| panic!("{text:?}"));
    assert!(
        live.contains("\x1b[?1049h") && live.contains("q or Ctrl-C ends"),
        "{text:?}"
    );
    assert!(
        live.contains("\x1b[?7l") && live.ends_with("\x1b[?7h\x1b[?25h"),
        "lines end at the edge of a narrow terminal, while it lasts: {text:?}"
    );
    assert!(
        left.contains("never collected") && !left.contains('\x1b'),
        "what was seen last stays: {text:?}"
    );
    let command = words("status --once");
    let (code, text) = apart(move || on_a_terminal(&command, &[("NO_COLOR", "1")], "")).await;
    assert_eq!(code, 0, "{text:?}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_shows_how_far_a_back_fill_is_and_that_a_reading_is_waited_for() {
    let rig = Rig::new(small()).await;
    let file = write_config(
        &rig,
        &config(&rig.database, &platform(&rig.simulator, "tls_verify = false")),
    );
    let words = move |words: &str| format!("{words} --config {file}");
    let daemon = rig.start().await;

    // Of four gaps that there are when it begins; nobody fills those of an entity that is not there.
    let owner = rig.database.connect(Role::Owner).await.unwrap();
    owner
        .batch_execute(
            "INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state) \
             SELECT 1, 'vm', n, now() - interval '3 hours', now() - interval '2 hours', 'open' \
             FROM generate_series(9001, 9004) AS n",
        )
        .await
        .unwrap();
    let command = words("status");
    let (code, text) = apart(move || on_a_terminal(&command, &[], "q")).await;
    assert_eq!(code, 0, "{text:?}");
    assert!(
        text.contains("lab: filling gaps [........................] 0/4"),
        "{text:?}"
    );

    let command = words("sync lab");
    let (code, text) = apart(move || on_a_terminal(&command, &[("NO_COLOR", "1")], "")).await;
    assert_eq!(code, 0, "{text:?}");
    let (waited, read) = text.rsplit_once("\r\x1b[K").unwrap_or_else(|| panic!("{text:?}"));
    assert!(waited.contains("lab is being read: 0 s"), "{text:?}");
    assert!(read.starts_with("lab: read and stored in "), "{text:?}");
    let command = words("sync lab");
    let (code, text) = apart(move || run(&command.split(' ').collect::<Vec<_>>())).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("lab: read and stored in "), "{text:?}");
    daemon.stop().await;
}
