//! The daemon against vcsim, VMware's own simulator: the peer that we did not write.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use support::database::{Database, Role};

use crate::wait;

pub(crate) const USER: &str = "monitor";

/// With characters that have to be escaped in XML.
pub(crate) const PASSWORD: &str = "p&w<1>";

/// A running vcsim; ends with its standard input.
pub(crate) struct Vcsim {
    child: Child,
    address: SocketAddr,
    /// Held open: vcsim ends when it cannot write.
    _output: BufReader<std::process::ChildStdout>,
}

impl Vcsim {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let program = std::env::var_os("VIRT_TEST_VCSIM")
            .expect("VIRT_TEST_VCSIM names no vcsim; `make test` installs one and sets it");
        let mut child = Command::new(program)
            .args([
                "-l",
                "127.0.0.1:0",
                "-stdinexit",
                "-username",
                USER,
                "-password",
                PASSWORD,
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // export GOVC_URL=https://monitor:...@127.0.0.1:45555/sdk GOVC_SIM_PID=...
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let (_, rest) = line.rsplit_once('@').expect(&line);
        let address = rest.split('/').next().unwrap().parse().expect(&line);
        Self {
            child,
            address,
            _output: output,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Vcsim {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn collector(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

async fn collects(kind: &str, arguments: &[&str], n_hosts: i64, n_vms: i64) {
    let vcsim = Vcsim::start(arguments);
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;

        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    write("password", &format!("{PASSWORD}\n"));
    let least = format!(
        "[database]\nurl = \"{}\"\n[database.owner]\nurl = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [collection]\ninterval = \"20s\"\n\
         [[platform]]\nname = \"vcsim\"\ntype = \"{kind}\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{USER}\"\n\
         password_file = \"password\"\n",
        database.url(Role::Writer),
        database.url(Role::Owner),
        vcsim.port(),
    );

    // As an operator would: the certificate is not trusted, check shows its thumbprint, which is then pinned.
    let config = write("config.toml", &least);
    assert!(collector(&["migrate", "--config", &config]).0);
    let (trusted, printed) = collector(&["check", "--config", &config]);
    let thumbprint = printed
        .split_once("thumbprint = \"")
        .and_then(|(_, rest)| rest.split_once('"'));
    let thumbprint = thumbprint.unwrap_or_else(|| panic!("{printed}")).0;
    assert!(!trusted);
    let config = write("config.toml", &format!("{least}thumbprint = \"{thumbprint}\"\n"));
    let (well, printed) = collector(&["check", "--config", &config]);
    assert!(well, "{printed}");

    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let daemon = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(["run", "--config", &config])
        .stdout(log)
        .spawn()
        .unwrap();
    let client = database.connect(Role::Reader).await.unwrap();
    wait::until("hosts, VMs and samples of each are stored", async || {
        let row = client
            .query_one(
                "SELECT (SELECT count(*) FROM virt_host), (SELECT count(*) FROM virt_vm), \
                 (SELECT count(DISTINCT host_id) FROM virt_host_metrics WHERE cpu_usage_percent IS NOT NULL), \
                 (SELECT count(DISTINCT vm_id) FROM virt_vm_metrics WHERE cpu_usage_percent IS NOT NULL)",
                &[],
            )
            .await
            .unwrap();
        let seen = [0, 1, 2, 3].map(|column| row.get::<_, i64>(column));
        if seen == [n_hosts, n_vms, n_hosts, n_vms] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let status = stopped(daemon).await;
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains(PASSWORD), "{log}");
}

/// SIGTERM, and how it ended.
async fn stopped(mut daemon: Child) -> ExitStatus {
    let told = Command::new("kill")
        .args(["-TERM", &daemon.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    let ended = tokio::task::spawn_blocking(move || daemon.wait().unwrap());
    tokio::time::timeout(Duration::from_secs(45), ended)
        .await
        .expect("a stop takes at most 45 s")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vcenter_of_vcsim_is_checked_discovered_and_polled() {
    // Three hosts in a cluster and one beside it, two VMs each in the pool and on the lone host.
    collects("vcenter", &[], 4, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_esxi_host_of_vcsim_is_checked_discovered_and_polled() {
    collects("esxi", &["-esx"], 1, 2).await;
}

/// What the README says between two headings: the commands of the program in its shell blocks, one a line.
fn commands(from: &str, to: &str) -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let part = text.split_once(from).unwrap().1.split_once(to).unwrap().0;
    let lines = part.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("virt-collector "))
        .filter(|line| !line.contains('|'))
        .map(|line| line.split('#').next().unwrap().trim().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_vcenter_is_added_as_the_readme_says() {
    let vcsim = Vcsim::start(&[]);
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let text = format!(
        "[database]\nurl = \"{}\"\n[database.owner]\nurl = \"{}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [keys]\nfile = \"keyring\"\n",
        database.url(Role::Writer),
        database.url(Role::Owner)
    );
    std::fs::write(&config, text).unwrap();
    let mut thumbprint = None;
    let mut daemon = None;
    let mut said = Vec::new();
    for command in commands("### Add your first vCenter", "### Platforms") {
        // A test has no terminal to be asked on, and another address and account.
        let mut typed = command
            .replace(
                "vcenter.example.com",
                &format!("127.0.0.1 --port {}", vcsim.port()),
            )
            .replace(
                "virt-collector@vsphere.local",
                &format!("{USER} --password-stdin"),
            );
        if command == "run" {
            let child = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
                .args(["run", "--config", config.to_str().unwrap()])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            daemon = Some(child);
            let client = database.connect(Role::Reader).await.unwrap();
            wait::until("the platform is collected", async || {
                let sql = "SELECT count(*) FROM virt_platform WHERE name = 'berlin' AND status = 'connected'";
                let n: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
                if n == 1 {
                    Ok(())
                } else {
                    Err("not connected".to_owned())
                }
            })
            .await;
            continue;
        }
        loop {
            let words: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
            let config = config.clone();
            let run = move || {
                use std::io::Write as _;

                let mut child = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
                    .args(words)
                    .arg("--config")
                    .arg(config)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                // Whoever does not ask for the password does not read it.
                let mut asked = child.stdin.take().unwrap();
                writeln!(asked, "{PASSWORD}").ok();
                drop(asked);
                child.wait_with_output().unwrap()
            };
            let output = tokio::task::spawn_blocking(run).await.unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                said.push(text);
                break;
            }
            // As the README says: the certificate is not trusted, its thumbprint is shown, and pinned.
            assert!(
                command.starts_with("platform add") && thumbprint.is_none(),
                "{command}: {text}"
            );
            let shown = text.split_once("thumbprint = \"").unwrap().1;
            let shown = shown.split_once('"').unwrap().0.to_owned();
            typed.push_str(&format!(" --thumbprint {shown}"));
            thumbprint = Some(shown);
        }
    }
    assert!(thumbprint.is_some());
    let said = said.join("\n");
    for part in [
        "added berlin: VMware vCenter Server",
        "4 hosts, 4 VMs",
        "connected",
        "api_type",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert!(stopped(daemon.unwrap()).await.success());
}
