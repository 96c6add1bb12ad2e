//! The alert rules: that promtool accepts them, that each fires when it should, that what they ask for exists, and that
//! the README says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings};
use support::database::{Database, Role};
use support::loader;
use support::process::free_address;
use virt_collector::telemetry::metrics::{self, Kind};

use crate::readme::blocks::blocks;
use crate::rig::{Rig, small};
use crate::wait::until;

/// Labels that Prometheus itself gives every series.
const FROM_SCRAPING: [&str; 2] = ["instance", "job"];

const TESTS: [&str; 2] = [
    "tests/prometheus/rules.test.yml",
    "tests/prometheus/hours.test.yml",
];

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}

fn rules() -> String {
    text("systemd/virt-collector.rules.yml")
}

/// What stands behind a key at the start of lines.
fn values<'a>(yaml: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    yaml.lines()
        .filter_map(move |line| line.trim_start().strip_prefix(key))
        .map(str::trim)
}

fn alerts(rules: &str) -> BTreeSet<&str> {
    values(rules, "- alert:").collect()
}

fn promtool(arguments: &[&str]) {
    let program = std::env::var_os("VIRT_TEST_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let output = Command::new(&program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| {
            panic!("VIRT_TEST_PROMTOOL names no promtool ({error}); `make test` installs one and sets it")
        });
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    promtool(&["check", "rules", "systemd/virt-collector.rules.yml"]);
    promtool(&["test", "rules", TESTS[0], TESTS[1]]);
    // None without a test on both sides.
    let tests = TESTS.map(text).concat();
    for alert in alerts(&rules()) {
        let mut asked = tests
            .split("- expr: ")
            .filter(|expectation| expectation.contains(&format!("alertname=\"{alert}\"")));
        let both = [
            asked
                .clone()
                .any(|expectation| expectation.contains("exp_samples: []")),
            asked.any(|expectation| expectation.contains("value: 1"))
                || tests.contains(&format!("alertname: {alert}\n")),
        ];
        assert_eq!(both, [true, true], "{alert} is not tested on both sides");
    }
}

#[test]
fn the_rules_ask_for_metrics_and_labels_that_exist() {
    let yaml = rules();
    let expressions: String = yaml
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    let mut seen = BTreeSet::new();
    let mut rest = expressions.as_str();
    let named = |text: &str| {
        ["virt_collector_", "process_"]
            .iter()
            .filter_map(|prefix| text.find(prefix))
            .min()
    };
    while let Some(at) = named(rest) {
        let tail = &rest[at..];
        let ends = tail
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(tail.len());
        let (name, behind) = tail.split_at(ends);
        rest = behind;
        let metric = metrics::ALL
            .iter()
            .find(|metric| match metric.kind {
                Kind::Histogram(_) => ["_bucket", "_count", "_sum"]
                    .iter()
                    .any(|part| name.strip_suffix(part) == Some(metric.name)),
                Kind::Counter | Kind::Gauge => metric.name == name,
            })
            .unwrap_or_else(|| panic!("there is no metric {name}"));
        seen.insert(name);
        let selector = behind.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        for part in selector
            .map_or("", |(selector, _)| selector)
            .split(',')
            .filter(|part| !part.is_empty())
        {
            let label = part.split(['=', '!']).next().unwrap().trim();
            assert!(
                metric.labels.contains(&label) || FROM_SCRAPING.contains(&label),
                "{name} has no label {label}"
            );
        }
    }
    assert!(seen.len() > 15, "{seen:?}");
}

/// A line of `/metrics` that is a value: name, labels, value. No label value here has a comma or a brace in it.
fn series(line: &str) -> (&str, Vec<&str>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels
        .trim_end_matches('}')
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(label, _)| label)
        .filter(|label| *label != "le")
        .collect();
    (name, labels, value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scraped_from_a_daemon_is_what_the_table_of_metrics_says() {
    let rig = Rig::new(small()).await;
    let settings = Settings {
        database: rig.database.url(Role::Writer),
        owner: rig.database.url(Role::Owner),
        interval: Duration::from_secs(20),
        discovery_interval: Duration::from_secs(3600),
        listen: free_address().unwrap(),
        top: String::new(),
        more: String::new(),
        platforms: vec![Platform::simulated("berlin", &rig.simulator)],
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector =
        Collector::prepare(program, &rig.directory.path().join("service"), &settings).unwrap();
    collector.start().await.unwrap();
    let text = until("the first samples to be stored", async || {
        let text = collector.metrics().await.map_err(|error| error.to_string())?;
        let stored = text.lines().any(|line| {
            line.strip_prefix("virt_collector_rows_written_total{platform=\"berlin\",kind=\"vm\"} ")
                .is_some_and(|rows| rows != "0")
        });
        if stored { Ok(text) } else { Err(text) }
    })
    .await;

    // Each family says what it is, in the words of the table.
    let mut families = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.insert(name, kind);
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            let metric = metrics::ALL.iter().find(|metric| metric.name == name);
            assert_eq!(metric.map(|metric| metric.help), Some(help), "{name}");
            helped.insert(name);
        }
    }
    assert_eq!(families.keys().copied().collect::<BTreeSet<_>>(), helped);
    let mut values = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, labels, value) = series(line);
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .filter_map(|part| name.strip_suffix(part))
            .find(|family| families.contains_key(family))
            .unwrap_or(name);
        let metric = metrics::ALL
            .iter()
            .find(|metric| metric.name == family)
            .unwrap_or_else(|| panic!("{line} is of no metric of the table"));
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(families.get(family), Some(&kind), "{line}");
        assert_eq!(labels, metric.labels, "{line}");
        values.insert(name, value);
    }
    // What an alert may be about is there before it happens, or the first time would be no increase.
    let from_the_start = metrics::ALL
        .iter()
        .filter(|metric| matches!(metric.labels, [] | ["platform"]) && !metric.name.contains("_api_"));
    for metric in from_the_start {
        assert!(families.contains_key(metric.name), "{}", metric.name);
    }

    // What the process takes, within what is sane.
    let of = |name: &str| values.get(name).copied().unwrap();
    let now = jiff::Timestamp::now().as_duration().as_secs_f64();
    let started = of("process_start_time_seconds");
    assert!((now - 600.0..=now).contains(&started), "{started} at {now}");
    let memory = of("process_resident_memory_bytes");
    assert!((4e6..4e9).contains(&memory), "{memory}");
    let (open, most) = (of("process_open_fds"), of("process_max_fds"));
    assert!(open >= 8.0 && open <= most, "{open} of {most}");
    assert!(of("process_cpu_seconds_total") < 600.0);
}

#[test]
fn what_the_readme_has_prometheus_scrape_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let blocks = blocks();
    let yaml: Vec<&str> = blocks
        .iter()
        .filter(|block| block.language == "yaml")
        .map(|block| block.text.as_str())
        .collect();
    assert!(!yaml.is_empty());
    for (index, text) in yaml.iter().enumerate() {
        // Where the rules are in this checkout.
        let rules = file("systemd/virt-collector.rules.yml").display().to_string();
        let path = directory.path().join(format!("{index}.yml"));
        std::fs::write(
            &path,
            text.replace("/etc/prometheus/virt-collector.rules.yml", &rules),
        )
        .unwrap();
        promtool(&["check", "config", path.to_str().unwrap()]);
    }
}

#[test]
fn each_alert_has_its_section_in_the_readme() {
    let yaml = rules();
    let readme = text("README.md");
    let sections = readme.split("\n#### ").skip(1);
    let sections: Vec<(&str, &str)> = sections.filter_map(|section| section.split_once('\n')).collect();
    let alerts = alerts(&yaml);
    for alert in &alerts {
        let section = sections.iter().find(|(heading, _)| heading == alert);
        let (_, section) = section.unwrap_or_else(|| panic!("the README has no section {alert}"));
        for part in ["**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Fix.**"] {
            assert!(section.contains(part), "{alert}: no {part}");
        }
    }
    // Each rule leads to its own section.
    for rule in yaml.split("- alert: ").skip(1) {
        let alert = rule.lines().next().unwrap();
        let leads_to: Vec<&str> = values(rule, "runbook:").collect();
        assert_eq!(leads_to, [format!("README.md#{}", alert.to_lowercase())]);
    }
    let about_none: Vec<&str> = sections
        .iter()
        .filter(|(_, section)| section.contains("**Meaning.**"))
        .map(|(heading, _)| *heading)
        .filter(|heading| !alerts.contains(heading))
        .collect();
    assert!(about_none.is_empty(), "{about_none:?}");
}

#[tokio::test]
async fn the_queries_of_the_runbooks_can_be_asked_by_a_reader() {
    let readme = text("README.md");
    let (_, runbooks) = readme.split_once("\n### Runbooks\n").unwrap();
    let runbooks = runbooks.split("\n## ").next().unwrap();
    let queries: Vec<&str> = runbooks
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.starts_with("SELECT"))
        .collect();
    assert!(queries.len() > 6, "{queries:?}");
    let database = Database::create().await.unwrap();
    loader::schema(&database).await.unwrap();
    let reader = database.connect(Role::Reader).await.unwrap();
    for query in queries {
        reader
            .query(query, &[])
            .await
            .unwrap_or_else(|error| panic!("{query}: {error:?}"));
    }
}
