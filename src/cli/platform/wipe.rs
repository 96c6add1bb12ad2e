//! `virt-collector platform wipe`: everything of one platform, gone.

use serde_json::{Value, json};

use super::super::{Failure, Output};
use super::Problem;
use super::arguments::Wipe;
use crate::config::Database;
use crate::store::wipe::{Done, Step, wipe};
use crate::store::{Owner, Settings};

pub(super) async fn execute(accounts: &Database, asked: &Wipe, output: Output) -> Result<(), Failure> {
    if asked.confirm != asked.name {
        return Err(Failure::usage(Problem::Value {
            key: "--confirm",
            message: format!("{:?} is not {:?}; nothing was deleted", asked.confirm, asked.name),
        }));
    }
    let account = accounts.owner.as_ref().unwrap_or(&accounts.writer);
    let settings = Settings::new(accounts, account, &Owner::random()).map_err(Failure::settings)?;
    let tell = |step: &Step| {
        if output == Output::Text {
            say!("{step}");
        }
    };
    let Done { rows, is_gone } = wipe(&settings, &asked.name, tell).await.map_err(Failure::other)?;
    match output {
        Output::Json => {
            let rows: serde_json::Map<String, Value> = rows
                .iter()
                .map(|(table, rows)| ((*table).to_owned(), json!(rows)))
                .collect();
            say!(
                "{:#}",
                json!({ "ok": true, "name": asked.name, "gone": is_gone, "deleted": rows })
            );
        }
        Output::Text => {
            for (table, rows) in &rows {
                say!("{table:<28} {rows:>12}");
            }
            say!(
                "{}: {}",
                asked.name,
                if is_gone {
                    "wiped, and gone"
                } else {
                    "wiped; it starts anew when its maintenance ends"
                }
            );
        }
    }
    Ok(())
}
