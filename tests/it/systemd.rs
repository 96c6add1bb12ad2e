//! The unit as systemd itself judges it.

use std::path::Path;
use std::process::Command;

fn systemd() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// Runs a tool and returns its exit status and everything that it printed; `None` where it is not installed.
fn run(command: &mut Command) -> Option<(bool, String)> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{command:?}: {error}"),
    };
    let printed = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    Some((output.status.success(), printed))
}

#[test]
fn systemd_accepts_the_unit() {
    // The unit names the installed binary; here stands the one that was built.
    let directory = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(systemd().join("virt-collector.service")).unwrap();
    let built = unit.replace(
        "ExecStart=/usr/bin/virt-collector",
        concat!("ExecStart=", env!("CARGO_BIN_EXE_virt-collector")),
    );
    assert_ne!(unit, built);
    let path = directory.path().join("virt-collector.service");
    std::fs::write(&path, built).unwrap();
    let Some((accepted, printed)) = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path))
    else {
        println!("not run: there is no systemd-analyze on this machine");
        return;
    };
    // Unknown keys are only warned about.
    let complaints: Vec<&str> = printed
        .lines()
        .filter(|line| line.contains("virt-collector"))
        .collect();
    assert!(accepted && complaints.is_empty(), "{printed}");
}

#[test]
fn the_unit_is_hardened() {
    let mut command = Command::new("systemd-analyze");
    command
        .args(["security", "--offline=true", "--threshold=11"])
        .arg(systemd().join("virt-collector.service"));
    match run(&mut command) {
        Some((passed, printed)) => assert!(passed, "more exposed than 1.1:\n{printed}"),
        None => println!("not run: there is no systemd-analyze on this machine"),
    }
}
