//! What an analyst waits for: every panel of the dashboards and every view, on a day of 2,000 VMs and 200 hosts.
//!
//! The day is generated, see `support::day`: 20-second samples of all, and the roll-ups of them. Each query is sent as
//! Grafana sends it, over one connection as `virt_reader`, at the span that its dashboard opens with; the figure is the
//! median of seven runs after two that warm up. Printed beside it is what the day takes on disk, and what a site would.
//! Against a server of TimescaleDB's other edition (`VIRT_TEST_DATABASE_URL`) the raw chunks are compressed after the
//! queries, and their size is printed once more.
//!
//! `make bench` runs it, in ten minutes. VMS (2000) and HOURS (24) make it smaller. Fails where a query takes more than
//! twice the target of 300 ms.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a program for a terminal that may fail loudly; numbers for people"
)]

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use support::database::{Database, Role};
use support::day::{self, Size};
use support::grafana::{self, Choice, Range, dashboards};
use support::loader;
use tokio::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage};

const TARGET: Duration = Duration::from_millis(300);

const RUNS: usize = 7;

/// A host, and a VM on it.
const CHOSEN: [&str; 2] = ["esx-15.example.com", "web-15"];

/// What people read beside the dashboards, as they would.
const VIEWS: [(&str, &str); 19] = [
    ("virt_host_inventory", "SELECT * FROM virt_host_inventory"),
    ("virt_vm_inventory", "SELECT * FROM virt_vm_inventory"),
    ("virt_host_latest", "SELECT * FROM virt_host_latest"),
    ("virt_vm_latest", "SELECT * FROM virt_vm_latest"),
    ("virt_cluster_latest", "SELECT * FROM virt_cluster_latest"),
    (
        "virt_host_samples, a host, an hour",
        "SELECT * FROM virt_host_samples WHERE name = 'esx-15.example.com' AND collected_at > now() - INTERVAL '1 hour'",
    ),
    (
        "virt_vm_samples, a VM, an hour",
        "SELECT * FROM virt_vm_samples WHERE name = 'web-15' AND collected_at > now() - INTERVAL '1 hour'",
    ),
    (
        "virt_host_history, a host, a day",
        "SELECT * FROM virt_host_history(now() - INTERVAL '1 day', now()) WHERE host_id = 15",
    ),
    (
        "virt_vm_history, a VM, a day",
        "SELECT * FROM virt_vm_history(now() - INTERVAL '1 day', now()) WHERE vm_id = 15",
    ),
    (
        "virt_cluster_history, all, a day",
        "SELECT * FROM virt_cluster_history(now() - INTERVAL '1 day', now())",
    ),
    (
        "virt_datastore_history, all, a week",
        "SELECT * FROM virt_datastore_history(now() - INTERVAL '7 days', now())",
    ),
    ("virt_vm_by_ready", "SELECT * FROM virt_vm_by_ready()"),
    (
        "virt_vm_idle, two days",
        "SELECT * FROM virt_vm_idle('2 days', at_least => '12 hours')",
    ),
    ("virt_vm_snapshot_old", "SELECT * FROM virt_vm_snapshot_old()"),
    ("virt_vm_snapshot_tree", "SELECT * FROM virt_vm_snapshot_tree"),
    ("virt_datastore_filling", "SELECT * FROM virt_datastore_filling()"),
    ("virt_host_near_limit", "SELECT * FROM virt_host_near_limit()"),
    (
        "virt_collection_gap_by_day",
        "SELECT * FROM virt_collection_gap_by_day()",
    ),
    (
        "virt_collection_gap_summary",
        "SELECT * FROM virt_collection_gap_summary",
    ),
];

/// Relations, rows of an entity and day, and days that they are kept by default; the last for ever.
const LEVELS: [(&str, f64, f64); 4] = [
    ("", 4320.0, 30.0),
    ("_5m", 288.0, 180.0),
    ("_1h", 24.0, 730.0),
    ("_1d", 1.0, 730.0),
];

fn main() {
    let number = |name: &str, default: u32| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let size = Size {
        vms: number("VMS", 2000),
        hours: number("HOURS", 24),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(size));
}

async fn run(size: Size) {
    let database = Database::create().await.unwrap();
    loader::schema(&database).await.unwrap();
    let superuser = database.connect(Role::Superuser).await.unwrap();
    let start = Instant::now();
    day::fill(&superuser, size).await.unwrap();
    // As autovacuum leaves it.
    superuser.batch_execute("VACUUM").await.unwrap();
    println!(
        "dashboards: {} VMs, {} hours, generated in {:.0} s",
        size.vms,
        size.hours,
        start.elapsed().as_secs_f64()
    );

    let reader = database.connect(Role::Reader).await.unwrap();
    let mut slow = Vec::new();
    println!("\n| dashboard | panel | rows | ms |\n|---|---|---|---|");
    for (place, sql) in panels(&reader)
        .await
        .into_iter()
        .chain(VIEWS.map(|(name, sql)| (format!("| view | {name} |"), sql.to_owned())))
    {
        let (rows, took) = measured(&reader, &sql).await;
        println!("{place} {rows} | {:.0} |", took.as_secs_f64() * 1e3);
        if took > 2 * TARGET {
            slow.push(place);
        }
    }
    sizes(&superuser, size).await;
    assert!(
        slow.is_empty(),
        "slower than twice the target: {}",
        slow.join(" ")
    );
}

/// Every query of every dashboard at its own span, all of the site chosen, or one host and VM.
async fn panels(reader: &Client) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for dashboard in dashboards().unwrap() {
        let range = Range::until(Timestamp::now(), dashboard.default_span().unwrap()).unwrap();
        let mut choices = HashMap::new();
        for variable in dashboard.variables() {
            let Some(query) = variable.query() else { continue };
            let sql = grafana::expand(query, &choices, range).unwrap();
            let choice = match variable.all() {
                Some(text) => Choice::All(text.to_owned()),
                None => Choice::One(chosen(reader, &sql).await),
            };
            choices.insert(variable.name().to_owned(), choice);
            all.push((format!("| {} | ${} |", dashboard.uid(), variable.name()), sql));
        }
        for panel in dashboard.panels() {
            for query in panel.queries() {
                let sql = grafana::expand(query, &choices, range).unwrap();
                all.push((format!("| {} | {} |", dashboard.uid(), panel.title()), sql));
            }
        }
    }
    all
}

async fn chosen(reader: &Client, sql: &str) -> String {
    let messages = reader.simple_query(sql).await.unwrap();
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0).unwrap(), row.get(1).unwrap())),
        _ => None,
    });
    rows.find(|(text, _)| CHOSEN.contains(text)).unwrap().1.to_owned()
}

/// Rows of an answer, and the median of the time that it takes to have all of them.
async fn measured(reader: &Client, sql: &str) -> (usize, Duration) {
    let mut n_rows = 0;
    let mut times = Vec::new();
    for run in 0..RUNS + 2 {
        let start = Instant::now();
        let messages = reader.simple_query(sql).await.unwrap();
        if run >= 2 {
            times.push(start.elapsed());
        }
        let rows = messages
            .iter()
            .filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
        n_rows = rows.count();
    }
    times.sort();
    (n_rows, times[RUNS / 2])
}

/// What the day takes on disk, and from that what sites take with the default retention.
async fn sizes(superuser: &Client, size: Size) {
    println!(
        "\n| relation | rows | bytes per row | of that indexes | bytes per entity and day |\n|---|---|---|---|---|"
    );
    let mut per_day = HashMap::new();
    for kind in ["vm", "host"] {
        for (level, rows_per_day, _) in LEVELS {
            let relation = format!("virt_{kind}_metrics{level}");
            let [total, indexes, rows] = bytes(superuser, &relation).await;
            let row = total / rows;
            println!(
                "| `{relation}` | {rows} | {row:.0} | {:.0} | {:.0} |",
                indexes / rows,
                row * rows_per_day
            );
            per_day.insert((kind, level), row * rows_per_day);
        }
    }
    sites(&per_day);

    let licence: String = superuser
        .query_one("SHOW timescaledb.license", &[])
        .await
        .unwrap()
        .get(0);
    if licence != "timescale" {
        println!("\ndashboards: this server has the Apache-2 edition, which does not compress");
        return;
    }
    println!("\nCompressed, {} hours:", size.hours);
    for kind in ["vm", "host"] {
        let relation = format!("virt_{kind}_metrics");
        let [_, _, rows] = bytes(superuser, &relation).await;
        superuser
            .batch_execute(&format!(
                "SELECT virt_compress_after('7 days'); \
                 SELECT compress_chunk(chunk, if_not_compressed => true) FROM show_chunks('{relation}') AS chunk;"
            ))
            .await
            .unwrap();
        let total: i64 = superuser
            .query_one("SELECT hypertable_size($1::text::regclass)", &[&relation])
            .await
            .unwrap()
            .get(0);
        let row = total as f64 / rows;
        println!(
            "`{relation}`: {row:.0} bytes per row, {:.0} per entity and day",
            row * 4320.0
        );
        per_day.insert((kind, ""), row * 4320.0);
    }
    sites(&per_day);
}

/// Total bytes, those of indexes, and rows.
async fn bytes(superuser: &Client, relation: &str) -> [f64; 3] {
    let row = superuser
        .query_one(
            &format!(
                "SELECT sum(total_bytes)::bigint, sum(index_bytes)::bigint, (SELECT count(*) FROM {relation}) \
                 FROM hypertable_detailed_size($1::text::regclass)"
            ),
            &[&relation],
        )
        .await
        .unwrap();
    [0, 1, 2].map(|column| row.get::<_, i64>(column) as f64)
}

/// GB of sites with a host for twenty VMs, with the default retention and two years of days.
fn sites(per_day: &HashMap<(&str, &str), f64>) {
    println!(
        "\n| VMs and hosts | raw, 30 days | 5m, 180 days | 1h and 1d, 2 years | together, GB |\n|---|---|---|---|---|"
    );
    for vms in [2_000.0, 5_000.0, 10_000.0] {
        let [raw, five, hour, day] = LEVELS.map(|(level, _, days)| {
            (vms * per_day[&("vm", level)] + vms / 20.0 * per_day[&("host", level)]) * days / 1e9
        });
        println!(
            "| {vms} and {} | {raw:.0} | {five:.0} | {:.0} | {:.0} |",
            vms / 20.0,
            hour + day,
            raw + five + hour + day
        );
    }
}
