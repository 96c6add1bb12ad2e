//! The README is held against the code: its tables here, its commands in the parts.

pub(crate) mod blocks;
mod inline;
mod newcomer;

use std::collections::BTreeSet;
use std::path::Path;

use virt_collector::api::openapi::CODES;
use virt_collector::api::rights::{ROUTES, Right, Role};
use virt_collector::model::columns::Column;
use virt_collector::model::gap::Reason;
use virt_collector::model::ids::EntityKind;
use virt_collector::model::rollup::Kind;
use virt_collector::telemetry::metrics;

pub(crate) fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The rows of the table between two marks, cells without back-ticks.
pub(crate) fn table(mark: &str) -> Vec<Vec<String>> {
    let readme = readme();
    let start = readme.find(&format!("<!-- {mark} -->")).unwrap();
    let end = readme.find(&format!("<!-- end {mark} -->")).unwrap();
    readme[start..end]
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            line.trim_matches('|')
                .split(" | ")
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        })
        .collect()
}

#[test]
fn the_metrics_table_is_the_registry() {
    let documented: Vec<(String, String, String)> = table("metrics")
        .into_iter()
        .map(|row| (row[0].clone(), row[2].clone(), row[3].clone()))
        .collect();
    let registered: Vec<(String, String, String)> = metrics::ALL
        .iter()
        .map(|metric| {
            (
                metric.name.to_owned(),
                metric.labels.join(", "),
                metric.help.to_owned(),
            )
        })
        .collect();
    assert_eq!(documented, registered);
}

#[test]
fn the_column_tables_are_the_code() {
    for (mark, kind) in [("host columns", EntityKind::Host), ("vm columns", EntityKind::Vm)] {
        let documented: Vec<[String; 3]> = table(mark)
            .into_iter()
            .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
            .collect();
        let real: Vec<[String; 3]> = Column::of(kind)
            .iter()
            .map(|column| [column.name, column.sql_type.name(), column.counter].map(str::to_owned))
            .collect();
        assert_eq!(documented, real, "{mark}");
    }
}

#[test]
fn the_table_of_gap_reasons_is_the_code() {
    let documented: BTreeSet<String> = table("gap reasons")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let given: BTreeSet<String> = Reason::ALL.map(|reason| reason.as_str().to_owned()).into();
    assert_eq!(documented, given);
}

#[test]
fn the_table_of_measures_is_the_code() {
    let documented: Vec<Vec<String>> = table("measures")
        .into_iter()
        .map(|row| row.into_iter().take(4).collect())
        .collect();
    let mut real: Vec<Vec<String>> = Vec::new();
    for (kind, of) in [
        (Kind::Host, "hosts"),
        (Kind::Vm, "VMs"),
        (Kind::Datastore, "datastores"),
    ] {
        for measure in kind.measures() {
            if let Some(row) = real.iter_mut().find(|row| row[0] == measure.name) {
                row[2].push_str(", ");
                row[2].push_str(of);
                continue;
            }
            let value = if measure.expression == measure.name {
                "as it is"
            } else {
                measure.expression
            };
            real.push(
                [measure.name, measure.sql_type.name(), of, value]
                    .map(str::to_owned)
                    .to_vec(),
            );
        }
    }
    assert_eq!(documented, real);
}

#[test]
fn the_table_of_problems_is_the_code() {
    let readme = readme();
    let start = readme.find("<!-- problems -->").unwrap();
    let end = readme.find("<!-- end problems -->").unwrap();
    let documented: Vec<&str> = readme[start..end]
        .lines()
        .filter(|line| line.starts_with("| 4") || line.starts_with("| 5"))
        .collect();
    let real: Vec<String> = CODES
        .iter()
        .map(|code| format!("| {} | `{}` | {} |", code.status, code.code, code.about))
        .collect();
    assert_eq!(documented, real);
}

#[test]
fn the_table_of_rights_is_the_code() {
    let readme = readme();
    let start = readme.find("<!-- rights -->").unwrap();
    let end = readme.find("<!-- end rights -->").unwrap();
    let marks: Vec<Vec<bool>> = readme[start..end]
        .lines()
        .skip(3)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .skip(1)
                .map(|cell| cell.trim() == "x")
                .collect()
        })
        .collect();
    // In the order of the table.
    let rights = [
        Right::Read,
        Right::Act,
        Right::Destroy,
        Right::Refresh,
        Right::RemoveAll,
        Right::Manage,
        Right::Audit,
    ];
    let real: Vec<Vec<bool>> = rights
        .iter()
        .map(|right| Role::ALL.iter().map(|role| role.has(*right)).collect())
        .collect();
    assert_eq!(marks, real);
    assert!(
        ROUTES
            .iter()
            .all(|route| route.right == Right::Open || rights.contains(&route.right))
    );
}
