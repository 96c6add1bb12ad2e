//! What the package ships beside the program. How it behaves where it is installed, `make package-test` shows.

use std::fs;
use std::path::Path;

use virt_collector::config::Config;

const CONFIG: &str = "/etc/virt-collector/config.toml";
const SECRETS: &str = "/etc/virt-collector/secrets";

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap()
}

#[test]
fn the_packaged_configuration_is_refused_until_somebody_says_where_the_samples_go() {
    let error = Config::parse(&shipped("config.toml"), Path::new(CONFIG)).unwrap_err();
    assert!(error.to_string().contains("missing field `url`"), "{error}");
}

#[test]
fn with_its_comment_signs_off_the_packaged_configuration_is_whole_and_collects_nothing_yet() {
    let text: String = shipped("config.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // Prose has a space behind the sign.
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let config = Config::parse(&text, Path::new(CONFIG)).unwrap();
    assert!(config.platforms.is_empty());
    let writer = config.database.writer.password_file.unwrap();
    assert_eq!(writer, Path::new(SECRETS).join("database.password"));
    assert_eq!(config.keys.file, Path::new(SECRETS).join("keyring"));
    // What the service does not need, systemd does not hand to it.
    let owner = config.database.owner.unwrap().password_file.unwrap();
    assert!(!owner.starts_with(SECRETS), "{owner:?}");
}

#[test]
fn the_directory_of_secrets_is_one_in_unit_package_and_configuration() {
    let unit = shipped("virt-collector.service");
    // Its name is what `secret::credential` takes a copy's prefix for.
    assert!(
        unit.contains(&format!("\nLoadCredential=secrets:{SECRETS}\n")),
        "{unit}"
    );
    let tmpfiles = shipped("virt-collector.tmpfiles");
    assert!(
        tmpfiles.contains(&format!("\nd {SECRETS} 0700 root root -\n")),
        "{tmpfiles}"
    );
}

#[test]
fn the_changelog_of_the_package_begins_with_this_version() {
    let first = format!("virt-collector ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(shipped("debian/changelog").starts_with(&first), "add: {first}");
}
