//! `virt-collector sync`: a reading of a platform's inventory now.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use super::terminal::Waiting;
use super::{COMMON, ConfigFile, Failure, Output, block_on, ready_database};
use crate::store::Database;

/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// Have a platform's inventory read now, and wait until it is stored.
///
/// Changes are followed as they happen; this is for what a server does not tell, such as storage in use. The service
/// must be running: the collector that has the platform does the reading.
#[derive(Debug, Args)]
pub(super) struct Sync {
    #[command(flatten)]
    file: ConfigFile,
    /// The platform.
    name: String,
    /// Seconds to wait at most; 0 only asks.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text, help_heading = COMMON)]
    output: Output,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "no collector has platform {name:?}: its status is {state}; start the service, or look at `platform show`"
    )]
    Nobody { name: String, state: String },
    #[error("platform {name:?} was not read within {seconds} s; its status is {state}{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Late {
        name: String,
        seconds: u64,
        state: String,
        reason: Option<String>,
    },
}

impl Sync {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        block_on(async {
            let database = ready_database(&config).await?;
            self.sync(&database).await
        })
    }

    async fn sync(&self, database: &Database) -> Result<(), Failure> {
        let started = Instant::now();
        let name = &self.name;
        let platform = database.registered_platform(name).await.map_err(Failure::other)?;
        if platform.status.collector.is_none() {
            return Err(Failure::other(Problem::Nobody {
                name: name.clone(),
                state: platform.status.state,
            }));
        }
        let asked = database.ask_for_sync(&platform).await.map_err(Failure::other)?;
        let waiting = Waiting::new(format!("{name} is being read"));
        loop {
            let now = database.registered_platform(name).await.map_err(Failure::other)?;
            if now.synced_at > Some(asked) {
                drop(waiting);
                let seconds = started.elapsed().as_secs_f64();
                match self.output {
                    Output::Text => say!(
                        "{name}: read and stored in {seconds:.1} s: {} hosts, {} VMs",
                        now.status.n_hosts,
                        now.status.n_vms
                    ),
                    Output::Json => say!(
                        "{:#}",
                        json!({ "ok": true, "name": name, "seconds": seconds,
                                "hosts": now.status.n_hosts, "vms": now.status.n_vms })
                    ),
                }
                return Ok(());
            }
            if self.wait == 0 {
                drop(waiting);
                match self.output {
                    Output::Text => say!("{name}: asked for"),
                    Output::Json => say!("{:#}", json!({ "ok": true, "name": name })),
                }
                return Ok(());
            }
            if started.elapsed() >= Duration::from_secs(self.wait) {
                return Err(Failure::other(Problem::Late {
                    name: name.clone(),
                    seconds: self.wait,
                    state: now.status.state,
                    reason: now.status.reason,
                }));
            }
            waiting.tick();
            tokio::time::sleep(LOOK).await;
        }
    }
}
