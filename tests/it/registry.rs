//! Platforms of the registry: a running daemon follows it; the commands edit it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use support::database::Role;
use virt_collector::app::App;
use virt_collector::collect::live::PollReport;
use virt_collector::config::{Config, PlatformKind, Trust};
use virt_collector::secret::{KeyRing, Place, Secret, key_file};
use virt_collector::store;
use virt_collector::store::registry::{Address, Registered};
use vsphere_simulator::{Simulator, Spec};

use crate::rig::{PLATFORM, Rig, recorder, small};
use crate::soap::bytes;
use crate::wait;

/// A rig whose platform is in the registry, not in the configuration.
struct Desk {
    rig: Rig,
    store: store::Database,
    ring: KeyRing,
}

impl Desk {
    async fn new() -> Self {
        let rig = Rig::new(small()).await;
        let ring = KeyRing::generate().unwrap();
        key_file::create(&rig.keys_file(), &ring).unwrap();
        let store = store::Database::new(rig.settings(Role::Writer)).unwrap();
        Self { rig, store, ring }
    }

    /// The configuration without platforms.
    fn config(&self) -> Config {
        Config {
            platforms: Vec::new(),
            ..self.rig.config()
        }
    }

    fn address(&self) -> Address {
        address_of(&self.rig.simulator)
    }

    async fn add(&self, name: &str, address: &Address, password: &str) {
        let adding = self.store.add_platform(name, address, true).await.unwrap();
        let place = Place::password_of(adding.id().0);
        let sealed = self.ring.seal(place, &Secret::new(password)).unwrap();
        adding.finish(&sealed).await.unwrap();
    }

    async fn row(&self, name: &str) -> Registered {
        self.store.registered_platform(name).await.unwrap()
    }
}

fn address_of(simulator: &Simulator) -> Address {
    Address {
        user: simulator.credentials().0.to_owned(),
        trust: Trust::Thumbprint(bytes(&simulator.leaf_sha256_thumbprint().unwrap())),
        ..Address::new(PlatformKind::VCenter, "127.0.0.1", simulator.addr().port())
    }
}

/// Waits until something holds.
#[expect(clippy::future_not_send, reason = "awaited where it is made")]
async fn until(holds: impl AsyncFn() -> bool) {
    wait::until("the registry's change to take effect", async || {
        if holds().await {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
}

/// A poll of the platform as it is registered now; one that is being stopped has none.
async fn poll(app: &App, name: &str) -> PollReport {
    loop {
        until(async || app.platform(name).is_some()).await;
        if let Some(platform) = app.platform(name)
            && let Some(report) = platform.poll_now().await
        {
            return report;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_daemon_follows_the_registry_and_touches_only_what_changed() {
    let desk = Desk::new().await;
    let other = Simulator::start(Spec {
        seed: 4711,
        ..small()
    })
    .await
    .unwrap();
    let app = App::start(desk.config(), recorder()).await.unwrap();
    let password = desk.rig.simulator.credentials().1.to_owned();

    // Added while the daemon runs.
    desk.add(PLATFORM, &desk.address(), &password).await;
    desk.add("other", &address_of(&other), other.credentials().1)
        .await;
    assert_eq!(poll(&app, PLATFORM).await.error, None);
    assert_eq!(poll(&app, "other").await.error, None);
    until(async || desk.row(PLATFORM).await.status.state == "connected").await;
    let row = desk.row(PLATFORM).await;
    assert_eq!(
        (row.status.n_hosts, row.status.api_type.as_deref()),
        (3, Some("VirtualCenter"))
    );
    assert!(row.status.version.is_some() && row.status.last_success_at.is_some());
    let logins_of_the_other = other.calls().count("Login");

    // Metrics are the process's, so that only a name that no other test has is this daemon's alone.
    let third = Simulator::start(Spec {
        seed: 4712,
        ..small()
    })
    .await
    .unwrap();
    desk.add(
        "third-of-the-registry",
        &address_of(&third),
        third.credentials().1,
    )
    .await;
    let third = desk.row("third-of-the-registry").await;
    desk.store.set_platform_maintenance(&third, true).await.unwrap();
    let shown = "virt_collector_platform_status{platform=\"third-of-the-registry\",status=\"maintenance\"} 1";
    until(async || recorder().render().contains(shown)).await;

    // Paused: its session is logged out, its status says so, nobody polls it.
    desk.store.set_platform_maintenance(&row, true).await.unwrap();
    until(async || app.platform(PLATFORM).is_none()).await;
    until(async || desk.rig.simulator.sessions().stats().open == 0).await;
    assert_eq!(desk.row(PLATFORM).await.status.state, "maintenance");
    let n_queries = desk.rig.simulator.calls().count("QueryPerf");
    desk.rig.pass(std::time::Duration::from_secs(30 * 60));
    assert_eq!(desk.rig.simulator.calls().count("QueryPerf"), n_queries);

    // And on again: what was missed is filled.
    let row = desk.row(PLATFORM).await;
    desk.store.set_platform_maintenance(&row, false).await.unwrap();
    assert_eq!(poll(&app, PLATFORM).await.error, None);
    app.platform(PLATFORM).unwrap().back_fill_now().await.unwrap();
    let verdict = desk.rig.verdict().await;
    assert!(
        verdict.is_clean() && verdict.explained == 0,
        "{}",
        verdict.report()
    );

    // A password that is refused is that platform's trouble alone.
    let row = desk.row(PLATFORM).await;
    let wrong = desk
        .ring
        .seal(Place::password_of(row.id.0), &Secret::new("wrong"))
        .unwrap();
    let sealed = Some(&wrong);
    desk.store
        .edit_platform(&row, &row.address, sealed)
        .await
        .unwrap();
    until(async || desk.row(PLATFORM).await.status.class.as_deref() == Some("auth")).await;
    // Based on what is there no more.
    let stale = desk.store.edit_platform(&row, &row.address, None).await;
    assert!(
        stale
            .unwrap_err()
            .to_string()
            .contains("changed by somebody else")
    );
    // So is a seal of another row, and one that is damaged.
    let row = desk.row(PLATFORM).await;
    let foreign = desk
        .ring
        .seal(Place::password_of(row.id.0 + 1), &Secret::new(&*password))
        .unwrap();
    let sealed = Some(&foreign);
    desk.store
        .edit_platform(&row, &row.address, sealed)
        .await
        .unwrap();
    until(async || {
        let reason = desk.row(PLATFORM).await.status.reason;
        reason.is_some_and(|reason| reason.contains("sealed"))
    })
    .await;
    assert_eq!(poll(&app, "other").await.error, None);

    // The right one again.
    let row = desk.row(PLATFORM).await;
    let right = desk
        .ring
        .seal(Place::password_of(row.id.0), &Secret::new(&*password))
        .unwrap();
    let sealed = Some(&right);
    desk.store
        .edit_platform(&row, &row.address, sealed)
        .await
        .unwrap();
    assert_eq!(poll(&app, PLATFORM).await.error, None);

    // Removed, and added again under its name: the same platform goes on.
    let row = desk.row(PLATFORM).await;
    desk.store.remove_platform(&row).await.unwrap();
    until(async || app.platform(PLATFORM).is_none()).await;
    let refused = desk.store.registered_platform(PLATFORM).await.unwrap_err();
    assert!(refused.to_string().contains("does not exist"), "{refused}");
    desk.rig.pass(std::time::Duration::from_secs(10 * 60));
    desk.add(PLATFORM, &desk.address(), &password).await;
    assert_eq!(desk.row(PLATFORM).await.id, row.id);
    assert_eq!(poll(&app, PLATFORM).await.error, None);
    app.platform(PLATFORM).unwrap().back_fill_now().await.unwrap();
    let verdict = desk.rig.verdict().await;
    assert!(
        verdict.is_clean() && verdict.explained == 0,
        "{}",
        verdict.report()
    );

    assert_eq!(
        other.calls().count("Login"),
        logins_of_the_other,
        "the other one was never stopped"
    );
    // One that is to be collected no more has no status that an alert could be about.
    let row = desk.row("other").await;
    desk.store.remove_platform(&row).await.unwrap();
    until(async || {
        let shown = recorder().render();
        let mut lines = shown
            .lines()
            .filter(|line| line.starts_with("virt_collector_platform_status{platform=\"other\""));
        lines.all(|line| line.ends_with(" 0"))
    })
    .await;
    app.stop().await.unwrap();
    assert_eq!(desk.rig.simulator.sessions().stats().open, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_tried_once_and_locks_nobody_out() {
    let desk = Desk::new().await;
    let app = App::start(desk.config(), recorder()).await.unwrap();
    desk.add(PLATFORM, &desk.address(), "wrong").await;
    until(async || desk.row(PLATFORM).await.status.class.as_deref() == Some("auth")).await;
    // However often it is asked for: two loops want a session all the time.
    for _ in 0..10 {
        assert!(
            app.platform(PLATFORM)
                .unwrap()
                .discover_now()
                .await
                .unwrap()
                .error
                .is_some()
        );
    }
    assert_eq!(desk.rig.simulator.calls().count("Login"), 1);
    // The account is as good as before.
    let row = desk.row(PLATFORM).await;
    let password = Secret::new(desk.rig.simulator.credentials().1);
    let sealed = desk.ring.seal(Place::password_of(row.id.0), &password).unwrap();
    let sealed = Some(&sealed);
    desk.store
        .edit_platform(&row, &row.address, sealed)
        .await
        .unwrap();
    assert_eq!(poll(&app, PLATFORM).await.error, None);
    app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_replaced_is_collected_once_its_identity_is_accepted() {
    let desk = Desk::new().await;
    let app = App::start(desk.config(), recorder()).await.unwrap();
    let password = desk.rig.simulator.credentials().1.to_owned();
    desk.add(PLATFORM, &desk.address(), &password).await;
    assert_eq!(poll(&app, PLATFORM).await.error, None);

    let rebuilt = Simulator::start(Spec {
        seed: 4711,
        ..small()
    })
    .await
    .unwrap();
    let row = desk.row(PLATFORM).await;
    desk.store
        .edit_platform(&row, &address_of(&rebuilt), None)
        .await
        .unwrap();
    until(async || desk.row(PLATFORM).await.status.class.as_deref() == Some("identity")).await;

    let row = desk.row(PLATFORM).await;
    desk.store.accept_identity(&row, false).await.unwrap();
    until(async || desk.row(PLATFORM).await.status.state == "connected").await;
    assert_eq!(poll(&app, PLATFORM).await.error, None);
    // The same references, other objects: each machine has its own history.
    let client = desk.rig.client().await;
    let of = async |condition: &str| -> i64 {
        let sql = format!(
            "SELECT count(DISTINCT vm_id) FROM virt_vm JOIN virt_vm_metrics USING (vm_id) WHERE {condition}"
        );
        client.query_one(&sql, &[]).await.unwrap().get(0)
    };
    assert_eq!(of("removed_at IS NULL AND moref NOT LIKE '%@%'").await, 11);
    assert_eq!(of("removed_at IS NOT NULL AND moref LIKE '%@%'").await, 11);
    app.stop().await.unwrap();
}

/// The binary, with its standard input.
fn run(directory: &Path, arguments: &[&str], input: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(arguments)
        .args(["--config", directory.join("config.toml").to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_say_what_is_wrong_and_keep_what_is_right() {
    let rig = Rig::new(small()).await;
    let directory = rig.directory.path().to_owned();
    let config = format!(
        "[database]\nurl = \"{}\"\n[keys]\nfile = \"keys\"\n",
        rig.database.url(Role::Writer)
    );
    std::fs::write(directory.join("config.toml"), config).unwrap();
    let command = async |arguments: &[&str], input: &str| -> (i32, String) {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let (directory, input) = (directory.clone(), input.to_owned());
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            run(&directory, &arguments, &input)
        })
        .await
        .unwrap()
    };
    let says = async |arguments: &[&str], input: &str, code: i32, parts: &[&str]| {
        let (found, text) = command(arguments, input).await;
        assert_eq!(found, code, "{arguments:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?} lacks {part:?}: {text}");
        }
        text
    };
    let (user, password) = rig.simulator.credentials();
    let password = format!("{password}\n");
    let port = rig.simulator.addr().port().to_string();
    let thumbprint = rig.simulator.leaf_sha256_thumbprint().unwrap();
    let add = |name: &'static str| {
        vec![
            "platform",
            "add",
            name,
            "--host",
            "127.0.0.1",
            "--user",
            user,
            "--port",
            &port,
            "--thumbprint",
            &thumbprint,
            "--password-stdin",
        ]
    };

    says(&["platform", "list"], "", 0, &["no platforms", "platform add"]).await;
    says(&add("lab"), &password, 78, &["key ring", "key init"]).await;
    says(&["key", "init"], "", 0, &[]).await;

    // What is wrong, and nothing is kept of it.
    let untrusted = [
        "platform",
        "add",
        "lab",
        "--host",
        "127.0.0.1",
        "--user",
        user,
        "--port",
        &port,
        "--password-stdin",
    ];
    says(&add("bad/name"), &password, 64, &["name", "letters, digits"]).await;
    let told = says(
        &add("lab"),
        "wrong\n",
        1,
        &["auth", "correct the user or its password"],
    )
    .await;
    assert!(!told.contains("next try"), "a person may try at once: {told}");
    let mut empty = untrusted.to_vec();
    empty.extend(["--ca-file", "/dev/null"]);
    says(&empty, &password, 1, &["/dev/null holds no certificate"]).await;
    let mut with_port = untrusted.to_vec();
    with_port[4] = "127.0.0.1:443";
    says(&with_port, &password, 64, &["a port is given as port"]).await;
    let mut esxi = add("lab");
    esxi.extend(["--type", "esxi"]);
    says(&esxi, &password, 1, &["vCenter", "ESXi"]).await;
    says(&untrusted, &password, 1, &["tls", &thumbprint]).await;
    let unreachable = [
        "platform",
        "add",
        "lab",
        "--host",
        "127.0.0.1",
        "--user",
        user,
        "--port",
        "1",
        "--password-stdin",
    ];
    says(&unreachable, &password, 1, &["unreachable", "refuses"]).await;
    let mut json = unreachable.to_vec();
    json.extend(["--output", "json"]);
    says(
        &json,
        &password,
        1,
        &["\"ok\": false", "\"class\": \"unreachable\""],
    )
    .await;
    says(&["platform", "list"], "", 0, &["no platforms"]).await;
    assert_eq!(rig.simulator.sessions().stats().open, 0, "trials log out");

    // What is right.
    says(
        &add("lab"),
        &password,
        0,
        &["added lab", "3 hosts, 13 VMs (11 powered on)"],
    )
    .await;
    says(&add("lab"), &password, 1, &["exists already"]).await;
    says(&["platform", "list"], "", 0, &["lab", "vcenter", "127.0.0.1"]).await;
    let shown = says(
        &["platform", "show", "lab", "--output", "json"],
        "",
        0,
        &["\"trust\": \"thumbprint\""],
    )
    .await;
    assert!(!shown.contains(password.trim_end()), "{shown}");
    says(
        &["platform", "test", "lab"],
        "",
        0,
        &["lab: ok", "3 hosts", "; as Read-only"],
    )
    .await;
    says(
        &["platform", "test", "lab", "--output", "json"],
        "",
        0,
        &["\"clock_skew_ms\"", "\"api_type\""],
    )
    .await;
    says(&["platform", "show", "nowhere"], "", 1, &["does not exist"]).await;
    says(
        &["platform", "edit", "lab", "--port", "1"],
        "",
        1,
        &["nothing was kept"],
    )
    .await;
    let changed = says(
        &["platform", "edit", "lab", "--datacenter", "DC0"],
        "",
        0,
        &["changed lab", "of which the filter takes 0 hosts, 0 VMs"],
    )
    .await;
    assert!(changed.contains("does not show: DC0; it shows DC-1"), "{changed}");
    let tried = ["platform", "test", "lab", "--output", "json"];
    says(&tried, "", 0, &["\"taken\": {\n      \"hosts\": 0,"]).await;
    says(&["platform", "show", "lab"], "", 0, &["DC0"]).await;
    let sql = rig.database.connect(Role::Superuser).await.unwrap();
    let row = "SELECT xmin::text FROM virt_platform WHERE name = 'lab'";
    let before: String = sql.query_one(row, &[]).await.unwrap().get(0);
    says(
        &["platform", "edit", "lab", "--datacenter", "DC0"],
        "",
        0,
        &["nothing to change"],
    )
    .await;
    let after: String = sql.query_one(row, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "a running service has nothing to follow");
    says(
        &["platform", "edit", "lab", "--clear-filters", "--untested"],
        "",
        0,
        &["not tried"],
    )
    .await;
    says(&["platform", "deactivate", "lab"], "", 0, &["deactivated"]).await;
    says(&["platform", "list"], "", 0, &["inactive"]).await;
    says(&["platform", "activate", "lab"], "", 0, &["activated"]).await;
    says(
        &["platform", "maintenance", "lab", "on"],
        "",
        0,
        &["in maintenance"],
    )
    .await;
    says(&["platform", "list"], "", 0, &["maintenance"]).await;
    says(
        &["platform", "maintenance", "lab", "off"],
        "",
        0,
        &["out of maintenance"],
    )
    .await;
    says(&["sync", "lab"], "", 1, &["no collector has platform"]).await;

    // The same server under another name.
    let database = virt_collector::store::Database::new(rig.settings(Role::Writer)).unwrap();
    let lab = database.registered_platform("lab").await.unwrap();
    let lease = database
        .acquire_lease(lab.id, &store::Owner::random())
        .await
        .unwrap()
        .unwrap();
    let identity = rig.simulator.truth().identity;
    database.pin_identity(&lease, &identity).await.unwrap();
    database.release_lease(&lease).await.unwrap();
    says(
        &add("twin"),
        &password,
        0,
        &["added twin", "warning: lab collects this server, too"],
    )
    .await;
    says(&["platform", "remove", "twin", "--yes"], "", 0, &["removed"]).await;

    // A key ring that everyone can read, and one whose keys are others.
    let keys = directory.join("keys");
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&keys, mode(0o644)).unwrap();
    says(&["platform", "test", "lab"], "", 1, &["auth", "chmod"]).await;
    std::fs::set_permissions(&keys, mode(0o600)).unwrap();
    std::fs::remove_file(&keys).unwrap();
    says(&["platform", "test", "lab"], "", 1, &["key ring", "key init"]).await;
    says(&["key", "init"], "", 0, &[]).await;
    says(&["platform", "test", "lab"], "", 1, &["key"]).await;

    says(&["platform", "remove", "lab"], "", 64, &["--yes"]).await;
    says(&["platform", "remove", "lab", "--yes"], "", 0, &["removed"]).await;
    says(&["platform", "list"], "", 0, &["no platforms"]).await;
}
