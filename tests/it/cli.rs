//! The real binary, as an operator meets it: what is printed, and the exit code.

mod key;
mod shipped;
pub(crate) mod status;
mod upkeep;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::database::{Database, Role};
use vsphere_simulator::{Action, Rule, Simulator, Spec};

use crate::rig::{Rig, assert_clean, small};

/// Runs the binary to its end.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code().unwrap(), all(&output))
}

fn all(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Off the runtime's threads: the simulator answers on them.
async fn check(directory: &Path, config: &str) -> (i32, String) {
    let path = directory.join("config.toml");
    std::fs::write(&path, config).unwrap();
    tokio::task::spawn_blocking(move || run(&["check", "--config", path.to_str().unwrap()]))
        .await
        .unwrap()
}

fn config(database: &Database, platform: &str) -> String {
    format!("[database]\nurl = \"{}\"\n{platform}", database.url(Role::Writer))
}

fn platform(simulator: &Simulator, trust: &str) -> String {
    format!(
        "[[platform]]\nname = \"lab\"\ntype = \"vcenter\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\n\
         password_file = \"password\"\n{trust}\n",
        simulator.addr().port(),
        simulator.credentials().0
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_kept_of_outages_longer_than_an_hour() {
    let esxi = Spec {
        kind: vsphere_simulator::PlatformKind::Esxi,
        ..small()
    };
    let disabled = Spec {
        statistics_level: 0,
        ..small()
    };
    for (spec, line, enabled) in [
        (
            esxi,
            "5-minute statistics: no levels, kept 36 hours: all 33 VM columns",
            true,
        ),
        (disabled, "5-minute statistics are disabled", false),
    ] {
        let rig = Rig::new(spec).await;
        let directory = rig.directory.path();
        let platform = platform(&rig.simulator, "ca_file = \"ca.pem\"");
        let platform = if enabled {
            platform.replace("vcenter", "esxi")
        } else {
            platform
        };
        let (code, text) = check(directory, &config(&rig.database, &platform)).await;
        assert_eq!(code, 0, "{text}");
        assert!(text.contains(line), "{text}");
        let path = directory.join("config.toml").display().to_string();
        let arguments = ["check", "--output", "json", "--config", path.as_str()].map(str::to_owned);
        let (_, json) = tokio::task::spawn_blocking(move || run(&arguments.each_ref().map(String::as_str)))
            .await
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let statistics = json["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|tried| tried.get("five_minute_statistics"))
            .unwrap();
        assert_eq!(statistics["enabled"], enabled, "{json}");
        assert_eq!(statistics["columns"][0]["kind"].as_str(), enabled.then_some("vm"));
    }
}

#[test]
fn wrong_usage_exits_with_64_and_help_with_0() {
    assert_eq!(run(&["frobnicate"]).0, 64);
    assert_eq!(run(&[]).0, 64);
    assert_eq!(run(&["run", "--no-such-flag"]).0, 64);
    let (code, help) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in ["run", "check", "migrate", "key", "token"] {
        assert!(help.contains(command), "{help}");
        assert_eq!(run(&[command, "--help"]).0, 0);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(["migrate", "--bootstrap-sql"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", all(&output));
}

#[test]
fn a_result_that_cannot_be_written_is_told_and_is_no_defect() {
    for words in [&["migrate", "--bootstrap-sql"][..], &["man"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
            .args(words)
            .stdout(full)
            .output()
            .unwrap();
        let told = all(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains("cannot write all of the result to standard output: No space left"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn a_failure_that_cannot_be_told_has_its_exit_code_all_the_same() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(["run", "--config", "/absent/config.toml"])
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(78), "systemd must not try this again");
}

#[test]
fn a_start_that_fails_for_want_of_descriptors_is_one_to_try_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let ca = directory.path().join("ca.pem");
    let certificate = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    std::fs::write(&ca, certificate.cert.pem()).unwrap();
    let config = format!(
        "[database]\nurl = \"postgresql://virt_writer@127.0.0.1:1/virt\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[platform]]\nname = \"lab\"\ntype = \"vcenter\"\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword_file = \"p\"\nca_file = {ca:?}\n"
    );
    std::fs::write(&path, config).unwrap();
    let password = directory.path().join("p");
    std::fs::write(&password, "p").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    // From one that cannot even read its configuration to one that comes a good deal further.
    for most in 3..10 {
        let output = Command::new("sh")
            .args([
                "-c",
                "ulimit -n \"$0\"; exec timeout -s KILL 2 \"$@\"",
                &most.to_string(),
            ])
            .args([
                env!("CARGO_BIN_EXE_virt-collector"),
                "run",
                "--config",
                path.to_str().unwrap(),
            ])
            .output()
            .unwrap();
        let text = all(&output);
        assert_ne!(output.status.code(), Some(78), "{most}: {text}");
        if text.contains("started") {
            break;
        }
    }
}

#[test]
fn an_address_that_is_taken_is_one_to_try_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let config = "[database]\nurl = \"postgresql://virt_writer@127.0.0.1:1/virt\"\n[admin]\n";
    std::fs::write(&path, format!("{config}listen = \"{address}\"\n")).unwrap();
    let (code, text) = run(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(&format!(
            "cannot listen on {address}; choose another admin.listen"
        )),
        "{text}"
    );
}

#[test]
fn wrong_configuration_exits_with_78_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let path = path.to_str().unwrap();
    for command in ["run", "check", "migrate"] {
        let (code, text) = run(&[command, "--config", path]);
        assert_eq!(code, 78, "{text}");
        assert!(
            text.contains("cannot read") && text.contains("config.example.toml"),
            "{text}"
        );
    }
    let cases = [
        ("[database\n", "line 1"),
        (
            "[database]\nurl = \"postgresql://a@b/c\"\npasword_file = \"x\"\n",
            "line 3",
        ),
        ("[database]\nurl = \"postgresql://a:geheim@b/c\"\n", "password"),
        ("[database]\nurl = \"no url at all\"\n", "database"),
        (
            "memory = \"many\"\n[database]\nurl = \"postgresql://a@b/c\"\n",
            "256MiB",
        ),
        (
            "[database]\nurl = \"postgresql://a@b/c\"\n[collection]\nskip_vm_counters = [\"cpu.redy.summation\"]\n",
            "cpu.ready.summation",
        ),
    ];
    for (text, part) in cases {
        std::fs::write(path, text).unwrap();
        let (code, printed) = run(&["check", "--config", path]);
        assert_eq!(code, 78, "{printed}");
        assert!(printed.contains(part), "{part}: {printed}");
        assert!(!printed.contains("geheim"), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_of_each_failing_platform_what_to_do() {
    let rig = Rig::new(small()).await;
    let directory = rig.directory.path();
    let ca = "ca_file = \"ca.pem\"";
    let good = config(&rig.database, &platform(&rig.simulator, ca));

    let (code, text) = check(directory, &good).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("3 hosts, 13 VMs (11 powered on)"), "{text}");
    let kept = "5-minute statistics: level 1, kept 1 day: 11 of 33 VM columns: memory_balloon_kib, ";
    assert!(text.contains(kept), "{text}");
    assert!(
        text.contains("level 2 would add: memory_active_kib, memory_compressed_kib, "),
        "{text}"
    );
    let things = [
        "file",
        "secrets",
        "connection",
        "tls",
        "version",
        "schema",
        "rights",
        "size",
        "retention",
        "key ring",
        "listen",
        "connection",
        "certificate",
        "login",
        "version",
        "clock",
        "privileges",
        "counters",
        "statistics",
        "statistics",
        "statistics",
        "statistics",
    ];
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), things.len() + 2, "{text}");
    for (line, thing) in lines.iter().zip(things) {
        assert_eq!(line[17..29].trim(), thing, "{text}");
        assert!(matches!(line[30..36].trim(), "ok" | "note"), "{text}");
    }
    assert!(
        text.ends_with("\nall well\n") || text.contains("\nall well, "),
        "{text}"
    );
    assert_eq!(rig.simulator.sessions().stats().open, 0, "check logs out");

    let filters = [
        ("include = [\"/DC-1/host/**\"]", "takes 3 hosts, 0 VMs", "ok"),
        (
            "datacenters = [\"DC-1\", \"Berln\"]",
            "the filter names datacenters that the server does not show: Berln; it shows DC-1",
            "note",
        ),
        (
            "include = [\"/DC-1/host/**\", \"/DC1/**\"]",
            "no host and no VM matches /DC1/**; paths of this server are like /DC-1/vm/",
            "note",
        ),
        (
            "exclude = [\"**\"]",
            "the filter takes no host and no VM; paths of this server are like /DC-1/vm/",
            "note",
        ),
    ];
    for (filter, said, level) in filters {
        let one = config(
            &rig.database,
            &platform(&rig.simulator, &format!("{ca}\n{filter}")),
        );
        let (code, text) = check(directory, &one).await;
        assert_eq!(code, 0, "{text}");
        let line = text.lines().find(|line| line.contains(" filter  "));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(line[30..36].trim(), level, "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(said), "{text}");
    }

    let thumbprint = rig.simulator.leaf_sha256_thumbprint().unwrap();
    let (code, text) = check(directory, &config(&rig.database, &platform(&rig.simulator, ""))).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("thumbprint = \"{thumbprint}\"")), "{text}");
    let pinned = platform(&rig.simulator, &format!("thumbprint = \"{thumbprint}\""));
    assert_eq!(check(directory, &config(&rig.database, &pinned)).await.0, 0);

    let port = format!("port = {}", rig.simulator.addr().port());
    let cases = [
        (
            good.replace("type = \"vcenter\"", "type = \"esxi\""),
            "set type = \"vcenter\"",
        ),
        (good.replace(&port, "port = 1"), "refuses the connection"),
        (
            good.replace("host = \"127.0.0.1\"", "host = \"no.such.host.invalid\""),
            "cannot be resolved",
        ),
        (
            good.replace(
                &format!("user = \"{}\"", rig.simulator.credentials().0),
                "user = \"nobody\"",
            ),
            "InvalidLogin",
        ),
        (
            good.replace("password_file = \"password\"", "password_file = \"absent\""),
            "cannot read",
        ),
    ];
    for (text, part) in cases {
        let (code, printed) = check(directory, &text).await;
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains(part), "{part}: {printed}");
        assert!(
            printed.contains(" FAILED  ") && printed.contains(" failed\n"),
            "{printed}"
        );
        assert!(
            !printed.contains(rig.simulator.credentials().1),
            "the password is printed: {printed}"
        );
    }

    let slow = good.replace(
        "[[platform]]",
        "[collection]\nrequest_timeout = \"5s\"\n[[platform]]",
    );
    let rule = rig.simulator.rules().add(Rule::on(
        "RetrieveServiceContent",
        Action::Delay { millis: 60_000 },
    ));
    let (code, printed) = check(directory, &slow).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("5 s"), "{printed}");
    rig.simulator.rules().remove(rule);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_looks_at_files_and_addresses_of_this_machine() {
    use std::os::unix::fs::PermissionsExt as _;

    let rig = Rig::new(small()).await;
    let directory = rig.directory.path();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let with = |more: &str| {
        let platform = platform(&rig.simulator, "ca_file = \"ca.pem\"");
        config(&rig.database, &format!("{more}{platform}"))
    };
    // One that listens and does not answer is another program.
    let admin = format!("[admin]\nlisten = \"{taken}\"\n");
    let (code, text) = check(directory, &with(&admin)).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains(&format!("{taken} is in use by another program")),
        "{text}"
    );
    drop(listener);
    let (code, text) = check(directory, &with(&admin)).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("{taken} is free")), "{text}");
    let mut running = rig.config();
    running.admin.listen = taken;
    let daemon = rig.start_with(running).await;
    let (code, text) = check(directory, &with(&admin)).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("in use by the running service"), "{text}");
    daemon.stop().await;

    std::fs::set_permissions(rig.password_file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(rig.keys_file(), "nonsense").unwrap();
    let (code, text) = check(directory, &with("")).await;
    assert_eq!(code, 1, "{text}");
    for part in ["chmod o-rwx", "the key ring", "3 checks failed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let path = directory.join("config.toml");
    let words = ["check", "--output", "json", "--config", path.to_str().unwrap()].map(str::to_owned);
    let (code, text) = tokio::task::spawn_blocking(move || run(&words.each_ref().map(String::as_str)))
        .await
        .unwrap();
    assert_eq!(code, 1, "{text}");
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["ok"], false);
    let failed: Vec<(&str, &str)> = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|tried| tried["ok"] == false)
        .map(|tried| (tried["name"].as_str().unwrap(), tried["thing"].as_str().unwrap()))
        .collect();
    assert_eq!(
        failed,
        [("config", "secrets"), ("keys", "key ring"), ("lab", "login")]
    );

    // An account that is not the service's.
    std::fs::remove_file(rig.keys_file()).unwrap();
    let reader = format!("[database]\nurl = \"{}\"\n", rig.database.url(Role::Reader));
    let (code, text) = check(directory, &reader).await;
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("may not write") && text.contains("GRANT virt_writer TO"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_of_each_unusable_database_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));

    let (code, text) = check(directory.path(), &config(&database, "")).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("run virt-collector migrate"), "{text}");

    let superuser = database.connect(Role::Superuser).await.unwrap();
    superuser
        .batch_execute("DROP EXTENSION timescaledb CASCADE")
        .await
        .unwrap();
    let (code, text) = check(directory.path(), &config(&database, "")).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("CREATE EXTENSION timescaledb"), "{text}");

    let absent = "[database]\nurl = \"postgresql://virt_writer@127.0.0.1:1/virt\"\n";
    let (code, text) = check(directory.path(), absent).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("127.0.0.1"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused() {
    let rig = Rig::new(Spec {
        vms: 1,
        hosts: 1,
        ..small()
    })
    .await;
    let superuser = rig.database.connect(Role::Superuser).await.unwrap();
    superuser
        .batch_execute("INSERT INTO virt_schema_migration (version, name, sha256, took_ms) VALUES (9999, 'later', '', 0)")
        .await
        .unwrap();
    let (code, text) = check(rig.directory.path(), &config(&rig.database, "")).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("9999") && text.contains("install"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_are_listed_verified_and_asked_for_again() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    daemon.stop().await;
    let path = rig.directory.path().join("config.toml");
    std::fs::write(&path, config(&rig.database, "")).unwrap();
    let gaps = |arguments: &str| {
        let arguments: Vec<String> = std::iter::once("gaps")
            .chain(arguments.split_whitespace())
            .chain(["--config", path.to_str().unwrap()])
            .map(str::to_owned)
            .collect();
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(gaps(""), (0, "no gaps\n".to_owned()));
    assert_eq!(gaps("--verify").0, 0);
    assert_eq!(
        gaps("retry --platform lab").1,
        "no gap is explained whose samples the source may still have\n"
    );

    // A row that nobody stored breaks the chain; a gap row explains the step.
    let owner = rig.database.connect(Role::Owner).await.unwrap();
    owner
        .batch_execute(
            "DELETE FROM virt_vm_metrics WHERE vm_id = 1 AND collected_at = \
             (SELECT max(collected_at) - interval '10 minutes' FROM virt_vm_metrics WHERE vm_id = 1)",
        )
        .await
        .unwrap();
    let (code, text) = gaps("--verify");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("unexplained") && text.lines().count() == 1,
        "{text}"
    );
    owner
        .batch_execute(
            "INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state, reason) \
             SELECT 1, 'vm', 1, t - interval '20 seconds', t + interval '20 seconds', 'explained', 'not_published' \
             FROM (SELECT max(collected_at) - interval '10 minutes' AS t FROM virt_vm_metrics WHERE vm_id = 1) AS gone",
        )
        .await
        .unwrap();
    assert_eq!(gaps("--verify").0, 0);
    let (_, text) = gaps("");
    assert!(text.contains("not_published") && text.contains("vms=1"), "{text}");
    let (_, text) = gaps("list --limit 1");
    assert!(text.lines().count() == 1 && !text.contains("--limit"), "{text}");
    owner
        .batch_execute(
            "INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state, reason) \
             SELECT 1, 'vm', 1, '2020-01-01', '2020-01-02', 'explained', 'expired'",
        )
        .await
        .unwrap();
    for words in ["--limit 1", "list --limit 1"] {
        let (_, text) = gaps(words);
        assert!(
            text.contains("not_published") && text.ends_with("\nand more, which a larger --limit shows\n"),
            "{text}"
        );
        assert!(!text.contains("expired"), "{text}");
    }
    owner
        .batch_execute("DELETE FROM virt_collection_gap WHERE reason = 'expired'")
        .await
        .unwrap();
    let (_, text) = gaps("list --output json");
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (list[0]["kind"].as_str(), list[0]["state"].as_str()),
        (Some("vm"), Some("explained")),
        "{text}"
    );

    // Asked again, the source still has it.
    for words in ["", "list", "retry"] {
        let (code, text) = gaps(&format!("{words} --platform other"));
        assert_eq!(code, 1, "a name with a typing error is no good news: {text}");
        assert!(text.contains("\"other\" does not exist"), "{text}");
    }
    for words in ["--verify list", "--verify --platform lab", "--limit 0"] {
        let (code, text) = gaps(words);
        assert_eq!(code, 64, "{words}: {text}");
    }
    assert_eq!(
        gaps("retry --platform lab").1,
        "reopened 1 gap; the running service asks the source again\n"
    );
    let daemon = rig.start().await;
    daemon.back_fill().await;
    assert_clean(&rig.verdict().await);
    assert_eq!(gaps(""), (0, "no gaps\n".to_owned()));
    daemon.stop().await;
}
