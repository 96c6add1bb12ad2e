//! The dashboards of `sql/grafana`: every query of every panel and variable, as Grafana sends it, against a site.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    reason = "what an answer lacks may fail loudly; PostgreSQL counts rows upwards"
)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use support::database::{Database, Role};
use support::day::{self, Size};
use support::grafana::{self, Choice, Dashboard, Panel, Range, dashboards};
use support::loader;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Long enough for a VM to be called idle.
const SITE: Size = Size { vms: 20, hours: 14 };

/// The host and the VM that panels of one are asked for: of the vCenter that was away for a while, with a snapshot.
const CHOSEN: [&str; 2] = ["esx-3.example.com", "web-15"];

/// Beyond this span there is a roll-up for everything.
const RAW_UP_TO: SignedDuration = SignedDuration::from_hours(6);

/// Units that Grafana 10 to 12 know, as far as they are used.
const UNITS: [&str; 14] = [
    "KiBs",
    "bytes",
    "dateTimeAsIso",
    "dateTimeFromNow",
    "iops",
    "kbytes",
    "ms",
    "none",
    "percent",
    "rotmhz",
    "s",
    "short",
    "string",
    "watt",
];

async fn site() -> Database {
    let database = Database::create().await.unwrap();
    loader::schema(&database).await.unwrap();
    let superuser = database.connect(Role::Superuser).await.unwrap();
    day::fill(&superuser, SITE).await.unwrap();
    database
}

/// What a viewer chooses: all that there is, or each value by itself.
async fn choose(reader: &Client, dashboard: &Dashboard, range: Range, all: bool) -> HashMap<String, Choice> {
    let mut choices = HashMap::new();
    for variable in dashboard.variables() {
        let Some(query) = variable.query() else {
            choices.insert(variable.name().to_owned(), Choice::One("uid".to_owned()));
            continue;
        };
        let sql = grafana::expand(query, &choices, range).unwrap();
        let options: Vec<(String, String)> = rows(reader, &sql)
            .await
            .unwrap_or_else(|error| panic!("{}, ${}: {error}", dashboard.file, variable.name()))
            .into_iter()
            .map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap()))
            .collect();
        assert!(!options.is_empty(), "{}, ${}", dashboard.file, variable.name());
        let choice = match variable.all() {
            Some(text) if all => Choice::All(text.to_owned()),
            _ if variable.is_multiple() => {
                Choice::Some(options.into_iter().map(|(_, value)| value).collect())
            }
            _ => {
                let chosen = options.iter().find(|(text, _)| CHOSEN.contains(&text.as_str()));
                Choice::One(chosen.unwrap().1.clone())
            }
        };
        choices.insert(variable.name().to_owned(), choice);
    }
    choices
}

/// Texts of all cells, as without a prepared statement.
async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|cell| row.get(cell).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        })
        .collect())
}

#[tokio::test]
async fn every_panel_answers_at_every_range_and_none_reads_samples_where_a_roll_up_serves() {
    let database = site().await;
    let reader = database.connect(Role::Reader).await.unwrap();
    let chunks: HashSet<String> = rows(
        &reader,
        "SELECT chunk_name FROM timescaledb_information.chunks WHERE hypertable_name IN \
         ('virt_host_metrics', 'virt_vm_metrics', 'virt_datastore_metrics')",
    )
    .await
    .unwrap()
    .into_iter()
    .filter_map(|row| row.into_iter().next().flatten())
    .collect();
    assert!(chunks.len() >= 3);
    let mut wrong = Vec::new();
    for (hours, all) in [(1, false), (24, true), (7 * 24, false), (60 * 24, true)] {
        let span = SignedDuration::from_hours(hours);
        let range = Range::until(Timestamp::now(), span).unwrap();
        for dashboard in dashboards().unwrap() {
            let choices = choose(&reader, &dashboard, range, all).await;
            for query in dashboard.annotations() {
                let sql = grafana::expand(query, &choices, range).unwrap();
                let marks = reader.query(&sql, &[]).await.unwrap();
                assert!(
                    hours == 1 || !marks.is_empty(),
                    "{}: nothing is marked",
                    dashboard.file
                );
            }
            for (panel, query) in queries(&dashboard) {
                let place = format!(
                    "{}, panel {} ({}), {hours} h",
                    dashboard.file,
                    panel.id(),
                    panel.title()
                );
                let sql = match grafana::expand(query, &choices, range) {
                    Ok(sql) => sql,
                    Err(error) => {
                        wrong.push(format!("{place}: {error}"));
                        continue;
                    }
                };
                let answer = if span > RAW_UP_TO {
                    planned(&reader, &sql, &chunks).await
                } else {
                    answered(&reader, &sql).await
                };
                match answer {
                    // Not every hour has a gap.
                    Ok(0) if hours > 1 || !sql.contains("virt_collection_gap") => {
                        wrong.push(format!("{place}: no rows"));
                    }
                    Ok(_) => {}
                    Err(why) => {
                        wrong.push(format!("{place}: {why}"));
                        continue;
                    }
                }
                if hours == 24 {
                    wrong.extend(
                        columns(&reader, panel, &sql)
                            .await
                            .map(|why| format!("{place}: {why}")),
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn queries(dashboard: &Dashboard) -> impl Iterator<Item = (Panel<'_>, &str)> {
    dashboard
        .panels()
        .flat_map(|panel| panel.queries().map(move |query| (panel, query)))
}

fn refused(error: &tokio_postgres::Error) -> String {
    let said = error.as_db_error().map(ToString::to_string);
    said.unwrap_or_else(|| error.to_string())
}

/// Rows of an answer that says something.
async fn answered(reader: &Client, sql: &str) -> Result<u64, String> {
    let rows = rows(reader, sql).await.map_err(|error| refused(&error))?;
    if !rows.is_empty() && rows.iter().flatten().all(Option::is_none) {
        return Err("nothing but NULL".to_owned());
    }
    Ok(rows.len() as u64)
}

/// Rows of an answer whose plan, as it was executed, read no more of the samples than the newest of an entity.
async fn planned(reader: &Client, sql: &str, chunks: &HashSet<String>) -> Result<u64, String> {
    let plan = rows(reader, &format!("EXPLAIN (ANALYZE, FORMAT JSON) {sql}"))
        .await
        .map_err(|error| refused(&error))?;
    let plan: Value = serde_json::from_str(plan[0][0].as_deref().unwrap()).unwrap();
    let top = &plan[0]["Plan"];
    let mut nodes = vec![top];
    while let Some(node) = nodes.pop() {
        let relation = node["Relation Name"].as_str().unwrap_or_default();
        let kind = node["Node Type"].as_str().unwrap_or_default();
        let is_newest = kind.starts_with("Index") && node["Actual Rows"].as_f64().unwrap() <= 1.0;
        if chunks.contains(relation) && node["Actual Loops"].as_f64().unwrap() > 0.0 && !is_newest {
            return Err(format!("reads samples: {kind} of {relation}"));
        }
        nodes.extend(node["Plans"].as_array().into_iter().flatten());
    }
    Ok(top["Actual Rows"].as_f64().unwrap() as u64)
}

/// What is wrong with the columns of an answer: a time series needs its time, a number in a table its unit.
async fn columns(reader: &Client, panel: Panel<'_>, sql: &str) -> Option<String> {
    let statement = reader.prepare(sql).await.unwrap();
    let columns = statement.columns();
    match panel.kind() {
        "timeseries" => {
            let texts = columns.iter().filter(|column| *column.type_() == Type::TEXT);
            let texts: Vec<&str> = texts.map(tokio_postgres::Column::name).collect();
            (columns[0].name() != "time" || !(texts.is_empty() || texts == ["metric"]))
                .then(|| "is no time series".to_owned())
        }
        "table" => columns
            .iter()
            .filter(|column| {
                ![Type::TEXT, Type::BOOL, Type::TEXT_ARRAY].contains(column.type_())
                    && !overridden(panel)
                        .any(|(names, property)| property == "unit" && names.contains(&column.name()))
            })
            .map(|column| format!("column {:?} has no unit", column.name()))
            .next()
            .or_else(|| {
                let unknown = overridden(panel)
                    .flat_map(|(names, _)| names)
                    .find(|name| columns.iter().all(|column| column.name() != *name))?;
                Some(format!("there is no column {unknown:?} to be overridden"))
            }),
        _ => None,
    }
}

/// Names of columns and a property that is set for them. They stand as `/^(CPU|Memory)$/`.
fn overridden(panel: Panel<'_>) -> impl Iterator<Item = (Vec<&str>, &str)> {
    let overrides = panel.json["fieldConfig"]["overrides"].as_array().unwrap();
    overrides.iter().flat_map(|field| {
        let names = field["matcher"]["options"].as_str().unwrap();
        let names = names
            .strip_prefix("/^(")
            .and_then(|names| names.strip_suffix(")$/"))
            .unwrap();
        let properties = field["properties"].as_array().unwrap();
        properties
            .iter()
            .map(move |property| (names.split('|').collect(), property["id"].as_str().unwrap()))
    })
}

#[test]
fn dashboards_are_provisionable_and_say_what_they_show() {
    let all = dashboards().unwrap();
    let uids: BTreeSet<&str> = all.iter().map(Dashboard::uid).collect();
    let known = [
        "virt-collector",
        "virt-datastore",
        "virt-fleet",
        "virt-host",
        "virt-vm",
    ];
    assert_eq!(uids, BTreeSet::from(known), "others link to them");
    for dashboard in &all {
        let file = &dashboard.file;
        assert!(
            dashboard.json.get("id").is_none(),
            "{file}: numbers are given by Grafana"
        );
        assert!(
            dashboard.json["description"]
                .as_str()
                .is_some_and(|text| text.len() > 20)
        );
        assert!(dashboard.default_span().unwrap() > SignedDuration::ZERO);
        let source = dashboard.variables().next().unwrap().json;
        assert_eq!(
            (&source["type"], &source["query"]),
            (&"datasource".into(), &"grafana-postgresql-datasource".into()),
            "{file}: the data source is chosen first"
        );
        each(&dashboard.json, &mut |key, value| {
            if key == "datasource" {
                let wanted =
                    serde_json::json!({"type": "grafana-postgresql-datasource", "uid": "${datasource}"});
                assert_eq!(*value, wanted, "{file}");
            }
            if key == "url" && value != "" {
                let link = value.as_str().unwrap();
                let (uid, variables) = link.strip_prefix("/d/").unwrap().split_once('?').unwrap();
                let target = all.iter().find(|other| other.uid() == uid).unwrap();
                for variable in variables.split('&').filter_map(|part| part.strip_prefix("var-")) {
                    let name = variable.split_once('=').unwrap().0;
                    assert!(
                        target.variables().any(|variable| variable.name() == name),
                        "{file}: {link}"
                    );
                }
            }
        });
        let ids: Vec<&Value> = dashboard.json["panels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|panel| &panel["id"])
            .collect();
        let distinct: BTreeSet<i64> = ids.iter().map(|id| id.as_i64().unwrap()).collect();
        assert_eq!(ids.len(), distinct.len(), "{file}: a number stands twice");
        for panel in dashboard.panels() {
            let place = format!("{file}, panel {}", panel.id());
            assert!(!panel.title().is_empty(), "{place}");
            let description = panel.json["description"].as_str().unwrap_or_default();
            assert!(
                description.len() > 15 && description.ends_with('.'),
                "{place}: {description:?}"
            );
            assert!(["stat", "table", "timeseries"].contains(&panel.kind()), "{place}");
            assert_eq!(panel.queries().count(), 1, "{place}");
            let format = if panel.kind() == "timeseries" {
                "time_series"
            } else {
                "table"
            };
            assert_eq!(panel.json["targets"][0]["format"], format, "{place}");
            if panel.kind() != "table" {
                let unit = panel.json["fieldConfig"]["defaults"]["unit"].as_str();
                assert!(
                    unit.is_some_and(|unit| UNITS.contains(&unit)),
                    "{place}: {unit:?}"
                );
            }
            for field in panel.json["fieldConfig"]["overrides"].as_array().unwrap() {
                for property in field["properties"].as_array().unwrap() {
                    let unit = (property["id"] == "unit").then(|| property["value"].as_str().unwrap());
                    assert!(unit.is_none_or(|unit| UNITS.contains(&unit)), "{place}: {unit:?}");
                }
            }
        }
    }
    // What is provisioned beside them.
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/grafana/provisioning");
    for (file, word) in [
        (
            "datasources/virt-collector.yaml",
            "type: grafana-postgresql-datasource",
        ),
        ("dashboards/virt-collector.yaml", "type: file"),
    ] {
        let text = std::fs::read_to_string(directory.join(file)).unwrap();
        assert!(
            text.starts_with("# ") && text.contains("apiVersion: 1") && text.contains(word),
            "{file}"
        );
    }
}

/// Every key of a JSON value with what it holds, at any depth.
fn each(json: &Value, look: &mut impl FnMut(&str, &Value)) {
    match json {
        Value::Object(fields) => {
            for (key, value) in fields {
                look(key, value);
                each(value, look);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| each(value, look)),
        _ => {}
    }
}
