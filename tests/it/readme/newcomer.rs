//! A newcomer reads the README top to bottom and types every command in it, on a terminal, in its order: into a new
//! database, for a simulated vCenter, with the real daemon.
//!
//! What is typed is the README's own text. [`Newcomer::instead_of`] is the whole list of what stands for something else,
//! [`ANSWERS`] what is typed when something is asked. A new block is typed as well, or has to be marked: see
//! [`super::blocks`].

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::database::{Database, Role};
use support::process::{Process, free_address};
use tokio_postgres::config::Host;
use vsphere_simulator::{Simulator, Spec};

use super::blocks::{blocks, typed};
use crate::rig::small;
use crate::wait;

/// What is asked for on the terminal, and what is typed then.
const ANSWERS: [(&str, &str); 5] = [
    // psql's \password.
    ("Enter new password", "a long one\n"),
    ("Enter it again", "a long one\n"),
    ("Password of ", "monitor\n"),
    ("Type its name to go on", "munich\n"),
    // The live table of status.
    ("q or Ctrl-C ends", "q"),
];

struct Newcomer {
    directory: tempfile::TempDir,
    database: Database,
    restored: Database,
    berlin: Simulator,
    munich: Simulator,
    /// The account for dashboards: roles belong to the whole server.
    reader: String,
    api: std::net::SocketAddr,
}

impl Newcomer {
    async fn new() -> Self {
        let world = |seed| Spec {
            powered_off: Some(0),
            password: "monitor".to_owned(),
            seed,
            ..small()
        };
        let database = Database::unmade().unwrap();
        Self {
            reader: database.name().replace("virt_test", "grafana"),
            directory: tempfile::tempdir().unwrap(),
            restored: Database::unmade().unwrap(),
            database,
            berlin: Simulator::start(world(1)).await.unwrap(),
            munich: Simulator::start(world(2)).await.unwrap(),
            api: free_address().unwrap(),
        }
    }

    /// What of the README is another on this machine. Names stand for whole words.
    fn instead_of(&self) -> Vec<(&'static str, String)> {
        vec![
            ("virt", self.database.name().to_owned()),
            ("virt_restored", self.restored.name().to_owned()),
            (
                "postgresql://virt_writer@db.example.com/virt",
                self.database.url(Role::Writer),
            ),
            (
                "postgresql://virt_owner@db.example.com/virt",
                self.database.url(Role::Owner),
            ),
            ("vcenter.example.com", place(&self.berlin)),
            (
                "virt-collector@vsphere.local",
                self.berlin.credentials().0.to_owned(),
            ),
            ("grafana", self.reader.clone()),
            (
                "http://127.0.0.1:9274/api/virt-center",
                format!("http://{}/api/virt-center", self.api),
            ),
        ]
    }

    /// The files of the configuration, as step 2 has them. Whatever is installed on this machine has its own ports.
    fn configure(&self) {
        let block = blocks()
            .into_iter()
            .find(|block| block.text.starts_with("[database]\n"))
            .unwrap();
        let config = format!(
            "{}\n[collection]\ninterval = \"20s\"\n[admin]\nlisten = \"{}\"\n[api]\nlisten = \"{}\"\n",
            with(&block.text, &self.instead_of()),
            free_address().unwrap(),
            self.api,
        );
        self.write("config.toml", 0o640, &config);
        for file in ["database.password", "owner.password"] {
            self.write(file, 0o600, "a long one\n");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, mode: u32, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(mode)
            .open(self.path(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The programs that are typed, first on the path: this one, which finds its configuration where it is here, and
    /// those of the database that the tests are run with. The name of one that there is not.
    fn programs(&self) -> Result<(), &'static str> {
        let config = self.path("config.toml");
        let own = format!(
            "exec {} \"$@\" --config {}\n",
            env!("CARGO_BIN_EXE_virt-collector"),
            config.display()
        );
        self.write("bin/virt-collector", 0o700, &format!("#!/bin/sh\n{own}"));
        let set_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/setup/postgresql");
        for program in ["createdb", "psql", "pg_dump", "pg_restore"] {
            let real = set_up.join("bin").join(program);
            if real.is_file() {
                let libraries = set_up.join("libraries");
                let text = format!(
                    "LD_LIBRARY_PATH={} exec {} \"$@\"\n",
                    libraries.display(),
                    real.display()
                );
                self.write(&format!("bin/{program}"), 0o700, &format!("#!/bin/sh\n{text}"));
            } else if !std::env::split_paths(&std::env::var_os("PATH").unwrap())
                .any(|on| on.join(program).is_file())
            {
                return Err(program);
            }
        }
        Ok(())
    }

    /// Types lines into a shell on a terminal, and answers what it asks. What was shown.
    async fn type_in(&self, lines: &str) -> String {
        // Variables last, as in one shell.
        let lines = with(lines, &self.instead_of());
        let typed = format!("set -a\n[ ! -e variables ] || . ./variables\n{lines}\nexport -p >variables\n");
        self.write("typed", 0o600, &typed);
        let mut command = Command::new("timeout");
        command
            .args(["600", "script", "-qfec", "sh -eu typed", "/dev/null"])
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .env(
                "PATH",
                format!(
                    "{}:{}",
                    self.path("bin").display(),
                    std::env::var("PATH").unwrap()
                ),
            )
            .envs(self.superuser())
            .env("TERM", "xterm")
            // The terminal has no size, so that psql would page everything.
            .env("PAGER", "cat")
            .env("NO_COLOR", "1")
            .env("no_proxy", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let (code, shown) = tokio::task::spawn_blocking(move || converse(command))
            .await
            .unwrap();
        assert_eq!(code, 0, "{lines}\n--- shown:\n{shown}");
        shown
    }

    /// What makes psql and its like connect as the superuser.
    fn superuser(&self) -> Vec<(&'static str, String)> {
        let config: tokio_postgres::Config = self.database.url(Role::Superuser).parse().unwrap();
        let mut variables = Vec::new();
        match config.get_hosts().first() {
            Some(Host::Tcp(name)) => variables.push(("PGHOST", name.clone())),
            Some(Host::Unix(path)) => variables.push(("PGHOST", path.display().to_string())),
            None => {}
        }
        variables.extend(
            config
                .get_ports()
                .first()
                .map(|port| ("PGPORT", port.to_string())),
        );
        variables.extend(config.get_user().map(|user| ("PGUSER", user.to_owned())));
        variables
    }

    /// `virt-collector run`, which has a terminal of its own.
    async fn run(&self) -> Process {
        let daemon = Process::start(
            "virt-collector",
            &self.path("bin/virt-collector"),
            ["run"],
            &self.path("log"),
        )
        .unwrap();
        self.until(
            "berlin is collected",
            &self.database,
            "SELECT count(*) > 1000 FROM virt_vm_metrics",
        )
        .await;
        daemon
    }

    async fn until(&self, what: &str, database: &Database, sql: &str) {
        let client = database.connect(Role::Superuser).await.unwrap();
        wait::until(what, async || {
            let row = client
                .query_one(sql, &[])
                .await
                .map_err(|error| error.to_string())?;
            if row.get(0) {
                Ok(())
            } else {
                Err(std::fs::read_to_string(self.path("log")).unwrap_or_default())
            }
        })
        .await;
    }
}

/// Where a simulator is, and that its certificate is the right one.
fn place(simulator: &Simulator) -> String {
    let thumbprint = simulator.leaf_sha256_thumbprint().unwrap();
    format!(
        "127.0.0.1 --port {} --thumbprint {thumbprint}",
        simulator.addr().port()
    )
}

/// The text with other words.
fn with(text: &str, instead_of: &[(&str, String)]) -> String {
    let is_of_a_word = |c: char| c.is_ascii_alphanumeric() || "_.-@/:".contains(c);
    let mut changed = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if is_of_a_word(c) {
            word.push(c);
            continue;
        }
        let other = instead_of
            .iter()
            .find(|(from, _)| *from == word)
            .map(|(_, to)| to);
        changed.push_str(other.unwrap_or(&word));
        word.clear();
        changed.push(c);
    }
    changed
}

/// Runs a command on a terminal and answers what it asks for: its exit code and what was shown.
fn converse(mut command: Command) -> (i32, String) {
    let mut child = command.spawn().expect("timeout and script are there");
    let mut output = child.stdout.take().unwrap();
    let mut input = child.stdin.take().unwrap();
    let (mut shown, mut answered) = (Vec::new(), 0);
    let mut part = [0; 4096];
    loop {
        let n = output.read(&mut part).unwrap();
        if n == 0 {
            break;
        }
        shown.extend_from_slice(part.get(..n).unwrap());
        let since = String::from_utf8_lossy(shown.get(answered..).unwrap()).into_owned();
        if let Some((_, answer)) = ANSWERS.iter().find(|(question, _)| since.contains(question)) {
            answered = shown.len();
            // Whoever has ended meanwhile needs no answer.
            input
                .write_all(answer.as_bytes())
                .and_then(|()| input.flush())
                .unwrap_or_default();
        }
    }
    drop(input);
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8_lossy(&shown).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_readme_works_when_it_is_typed_in_its_order() {
    let newcomer = Newcomer::new().await;
    if let Err(program) = newcomer.programs() {
        println!("not run: there is no {program} on this machine");
        return;
    }
    newcomer.configure();
    let mut daemon = None;
    let (mut shown, mut n_typed) = (String::new(), 0);
    for block in typed() {
        let mut text = block.text.clone();
        // A VM that there is.
        if let (Some(_), true) = (&daemon, text.contains("web-1")) {
            let client = newcomer.database.connect(Role::Superuser).await.unwrap();
            let vm = client.query_one(
                "SELECT vm_id, name FROM virt_vm WHERE power_state = 'on' ORDER BY vm_id LIMIT 1",
                &[],
            );
            let vm = vm.await.unwrap();
            text = text
                .replace("VM=17", &format!("VM={}", vm.get::<_, i32>(0)))
                .replace("web-1", vm.get(1));
        }
        if text.contains("platform remove munich") {
            let add = "virt-collector platform add munich --host HERE --user virt-collector@vsphere.local";
            shown += &newcomer
                .type_in(&add.replace("HERE", &place(&newcomer.munich)))
                .await;
            let collected =
                "SELECT count(DISTINCT platform_id) = 2 FROM virt_vm_metrics JOIN virt_vm USING (vm_id)";
            newcomer
                .until("munich is collected", &newcomer.database, collected)
                .await;
        }
        if let Some(rest) = text.strip_prefix("virt-collector run\n") {
            assert!(daemon.is_none());
            daemon = Some(newcomer.run().await);
            text = rest.to_owned();
        }
        shown += &newcomer.type_in(&text).await;
        n_typed += 1;
    }
    assert!(n_typed >= 12, "{n_typed} blocks");
    for part in [
        "all well",
        "added berlin: VMware vCenter Server",
        "connected",
        "revoked",
        "munich: wiped, and gone",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }

    let client = newcomer.database.connect(Role::Superuser).await.unwrap();
    let ended = client
        .query(
            "SELECT action || ' ' || state FROM virt_operation ORDER BY created_at",
            &[],
        )
        .await
        .unwrap();
    let ended: Vec<String> = ended.iter().map(|row| row.get(0)).collect();
    let by_curl = ["power_on", "create_snapshot", "power_off", "remove_all_snapshots"];
    let by_command = ["power_off", "create_snapshot"];
    let owed: Vec<String> = by_curl
        .iter()
        .chain(&by_command)
        .map(|action| format!("{action} succeeded"))
        .collect();
    assert_eq!(ended, owed);
    let restored = newcomer.restored.connect(Role::Superuser).await.unwrap();
    let rows: i64 = restored
        .query_one("SELECT count(*) FROM virt_vm_metrics", &[])
        .await
        .unwrap()
        .get(0);
    assert!(rows > 1000, "{rows}");

    let reader = &newcomer.reader;
    client
        .batch_execute(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}"))
        .await
        .unwrap();
    let status = daemon.unwrap().terminate(Duration::from_secs(45)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let modes = ["keyring", "token"].map(|file| {
        std::fs::metadata(newcomer.path(file))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    });
    assert_eq!(modes, [0o400, 0o600]);
}
