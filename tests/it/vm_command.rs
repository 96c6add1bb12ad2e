//! `virt-collector vm` against a daemon that has a platform.

use std::process::{Command, Output};

use serde_json::Value;
use support::database::Role;
use virt_collector::config::{Api, ApiLimits};
use virt_collector::secret::{KeyRing, key_file};
use vsphere_simulator::Spec;

use crate::api;
use crate::rig::{Daemon, Rig, small};

struct Desk {
    rig: Rig,
    daemon: Daemon,
    /// A VM: key and name.
    vm: (i32, String),
}

impl Desk {
    async fn new() -> Self {
        let rig = Rig::new(Spec {
            powered_off: Some(0),
            ..small()
        })
        .await;
        let mut config = rig.config();
        config.api = Some(Api {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            trusted_proxies: Vec::new(),
            limits: ApiLimits {
                connections: 64,
                connections_per_address: 64,
                requests_per_second: 1000,
                actions_per_minute: 1000,
                open_operations: 8,
            },
        });
        key_file::create(&rig.keys_file(), &KeyRing::generate().unwrap()).unwrap();
        let daemon = rig.start_with(config).await;
        let ring = key_file::load(&rig.keys_file()).unwrap();
        let token = api::token(&rig.store(), &ring, "deploy", "admin", None).await;
        write_secret(&rig.directory.path().join("token"), &token);
        let sql = rig.database.connect(Role::Superuser).await.unwrap();
        let row = sql
            .query_one(
                "SELECT vm_id, name FROM virt_vm WHERE power_state = 'on' ORDER BY vm_id LIMIT 1",
                &[],
            )
            .await
            .unwrap();
        Self {
            vm: (row.get(0), row.get(1)),
            rig,
            daemon,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.daemon.0.api_address().unwrap())
    }

    async fn vm(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virt-collector"));
        command
            .arg("vm")
            .args(words)
            .args(["--api", &self.url(), "--token-file"])
            .arg(self.rig.directory.path().join("token"));
        run(command).await
    }

    #[track_caller]
    fn said(output: &Output) -> String {
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    }

    async fn well(&self, words: &[&str]) -> String {
        let output = self.vm(words).await;
        assert!(output.status.success(), "{words:?}: {}", Self::said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn badly(&self, words: &[&str], code: i32, word: &str) {
        let output = self.vm(words).await;
        let said = Self::said(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(word), "{words:?}: {said}");
    }
}

/// Off this thread: the daemon that answers runs beside it.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(std::process::Stdio::null()).output().unwrap())
        .await
        .unwrap()
}

fn write_secret(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_are_listed_shown_switched_and_snapshotted_from_a_shell() {
    let desk = Desk::new().await;
    let (id, name) = desk.vm.clone();
    let name = name.as_str();
    let listed: Value = serde_json::from_str(&desk.well(&["list", "--output", "json"]).await).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 13);
    assert!(
        desk.well(&["list", "--platform", "lab", "--power-state", "on"])
            .await
            .contains(name)
    );
    assert!(!desk.well(&["list", "--power-state", "off"]).await.contains(name));
    desk.badly(&["list", "--platform", "nowhere"], 1, "no platform \"nowhere\"")
        .await;
    let mut without = Command::new(env!("CARGO_BIN_EXE_virt-collector"));
    without.args(["vm", "list", "--api", &desk.url()]);
    without.env("HOME", desk.rig.directory.path());
    let output = run(without).await;
    let said = Desk::said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("`virt-collector token create` makes one")
            && said.contains(".config/virt-collector/token"),
        "{said}"
    );
    let shown = desk.well(&["show", &format!("id:{id}")]).await;
    assert!(
        shown.contains(name) && shown.contains("cpu_usage_percent"),
        "{shown}"
    );
    desk.badly(&["show", "nobody"], 1, "no VM \"nobody\"").await;

    let already = desk.well(&["power", "on", name]).await;
    assert!(
        already.contains("succeeded; it was in that state already"),
        "{already}"
    );
    desk.badly(&["power", "off", name], 64, "--confirm").await;
    desk.badly(
        &["power", "off", name, "--confirm", "another"],
        1,
        "[not_confirmed",
    )
    .await;
    let off: Value = serde_json::from_str(
        &desk
            .well(&["power", "off", name, "--confirm", name, "--output", "json"])
            .await,
    )
    .unwrap();
    assert_eq!(off["state"], "succeeded");
    // What the platform refuses decides the exit code.
    desk.badly(&["power", "reset", name, "--confirm", name], 1, "failed")
        .await;
    assert!(desk.well(&["power", "on", name]).await.contains("succeeded"));

    let made: Value = serde_json::from_str(
        &desk
            .well(&[
                "snapshot",
                "create",
                name,
                "--name",
                "one",
                "--description",
                "why",
                "--output",
                "json",
            ])
            .await,
    )
    .unwrap();
    let snapshot = made["result"]["snapshot"].as_str().unwrap().to_owned();
    crate::wait::until("the snapshot is listed", async || {
        let tree = desk.well(&["snapshot", "list", name]).await;
        if tree.contains(&snapshot) && tree.contains("one") {
            Ok(())
        } else {
            Err(tree)
        }
    })
    .await;
    desk.well(&["snapshot", "revert", name, &snapshot, "--confirm", name])
        .await;
    desk.badly(
        &["snapshot", "remove", name, "snapshot-0", "--confirm", name],
        1,
        "snapshot_gone",
    )
    .await;
    desk.well(&[
        "snapshot",
        "remove",
        name,
        &snapshot,
        "--children",
        "--confirm",
        name,
    ])
    .await;
    desk.well(&["snapshot", "create", name, "--name", "two"]).await;
    desk.well(&["snapshot", "remove-all", name, "--confirm", name])
        .await;
    assert!(
        desk.well(&["power", "on", name, "--no-wait"])
            .await
            .contains("operation")
    );

    write_secret(&desk.rig.directory.path().join("token"), "vc_1_nonsense");
    desk.badly(&["list"], 1, "[unauthenticated").await;
    desk.daemon.stop().await;
}
