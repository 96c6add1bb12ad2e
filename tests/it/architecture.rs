//! The module table of the architecture, held against the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Bottom to top. A module names only modules on lower lines.
const LINES: &[&[&str]] = &[
    &["units", "error", "plain"],
    &["clock", "model", "secret", "retry"],
    &["config"],
    &["telemetry", "supervise"],
    &["budget", "listen", "soap", "store"],
    &["vsphere", "ingest"],
    &["inventory", "collect", "operate"],
    &["registrar"],
    &["admin", "api"],
    &["app"],
    &["cli"],
];

/// Crates that one module owns.
const OWNERS: &[(&str, &[&str])] = &[
    ("reqwest", &["soap", "cli/vm"]),
    ("governor", &["soap", "api"]),
    ("quick_xml", &["soap", "vsphere/perf"]),
    ("tokio_postgres", &["store"]),
    ("deadpool_postgres", &["store"]),
    ("metrics", &["telemetry"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("axum", &["admin", "api"]),
    ("hyper", &["listen"]),
    ("tokio_rustls", &["listen"]),
    ("hmac", &["secret"]),
    ("chacha20poly1305", &["secret"]),
    ("getrandom", &["secret"]),
    ("secrecy", &["secret"]),
    ("rpassword", &["cli"]),
    ("rustix", &["cli"]),
    ("toml", &["config"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("sd_notify", &["cli"]),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(&root).unwrap().with_extension(""), text)
        })
        .collect()
}

fn module_of(path: &Path) -> &str {
    path.components().next().unwrap().as_os_str().to_str().unwrap()
}

/// Module names behind `crate::` in a text.
fn named(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| {
            line.match_indices("crate::")
                .map(move |(at, found)| &line[at + found.len()..])
        })
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

/// Everything that breaks the table, one sentence each.
fn violations(sources: &[(PathBuf, String)]) -> Vec<String> {
    let line_of: BTreeMap<&str, usize> = LINES
        .iter()
        .enumerate()
        .flat_map(|(n, names)| names.iter().map(move |name| (*name, n)))
        .collect();
    let mut violations = Vec::new();
    for (path, text) in sources {
        let module = module_of(path);
        let at = path.display();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(own) = line_of.get(module) else {
            violations.push(format!("{at}: module {module} is not in the table"));
            continue;
        };
        for name in named(text) {
            if name.is_empty() {
                violations.push(format!("{at}: write one `use crate::module` per line"));
            } else if name != module && line_of.get(name.as_str()).is_none_or(|line| line >= own) {
                violations.push(format!("{at}: {module} may not name {name}"));
            }
        }
        for (owned, owners) in OWNERS {
            let mentions = text.lines().any(|line| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && line.match_indices(&format!("{owned}::")).any(|(at, _)| {
                        !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
                    })
            });
            let allowed = owners
                .iter()
                .any(|owner| path.starts_with(owner) || path == Path::new(owner));
            if mentions && !allowed {
                violations.push(format!("{at}: {owned} belongs to {}", owners.join(" and ")));
            }
        }
    }
    violations
}

#[test]
fn modules_name_only_lower_modules_and_key_crates_have_one_owner() {
    let found = violations(&sources());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_test_sees_an_upward_edge_a_stray_crate_and_a_module_without_a_line() {
    let broken = [
        ("units", "use crate::store::Database;"),
        ("collect/live", "let client = reqwest::Client::builder();"),
        ("extra", ""),
        ("store", "use crate::{units, error};"),
    ]
    .map(|(path, text)| (PathBuf::from(path), text.to_owned()));
    let found = violations(&broken);
    assert_eq!(
        found,
        [
            "units: units may not name store",
            "collect/live: reqwest belongs to soap and cli/vm",
            "extra: module extra is not in the table",
            "store: write one `use crate::module` per line",
        ]
    );
}

/// The time of a sample is its source's, and how long a lease is good is the database's to say.
#[test]
fn what_makes_rows_and_queries_does_not_know_the_collectors_clock() {
    const BLIND: &[&str] = &[
        "model",
        "store",
        "vsphere",
        "ingest",
        "inventory",
        "operate",
        "cli/gaps",
    ];
    let sees = |(path, text): &(PathBuf, String)| {
        BLIND.iter().any(|blind| path.starts_with(blind)) && named(text).iter().any(|name| name == "clock")
    };
    let found: Vec<PathBuf> = sources().into_iter().filter(sees).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "{found:?}");
}
