//! `virt-collector platform wipe`: everything of one platform, gone.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::terminal::Waiting;
use super::super::{Failure, Output};
use super::Problem;
use super::arguments::Wipe;
use crate::config::Database;
use crate::store::wipe::{Done, Step, wipe};
use crate::store::{Error, LEASE_TTL, Owner, Settings};

/// Whoever removes a platform wipes it next, while its collector still ends its polls. A collector that was killed
/// lets go when its lease runs out.
const LETS_GO_WITHIN: Duration = LEASE_TTL.saturating_add(Duration::from_secs(10));

/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(500);

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
    let since = Instant::now();
    let mut waiting = None;
    let done = loop {
        match wipe(&settings, &asked.name, tell).await {
            Err(Error::StillHeld { .. }) if since.elapsed() < LETS_GO_WITHIN => {
                waiting
                    .get_or_insert_with(|| {
                        Waiting::new(format!("waiting for the collector of {}", asked.name))
                    })
                    .tick();
                tokio::time::sleep(LOOK).await;
            }
            done => break done,
        }
    };
    drop(waiting);
    let Done { rows, is_gone } = done.map_err(Failure::other)?;
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
