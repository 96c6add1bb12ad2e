//! `virt-collector gaps`: what is missing, why, and whether the chain holds.

use clap::{Args, Subcommand};

use super::{COMMON, ConfigFile, Failure, Output, block_on, counted, ready_database};
use crate::ingest::chain::RING;
use crate::plain;
use crate::store;
use crate::store::Database;
use crate::store::gap::{ChainBreak, GapLine, Outage};
use crate::units::Stamp;
use crate::vsphere::rollups::LONGEST_KEPT;

/// What is missing and why; whether the chain of samples holds.
///
/// Without a subcommand: outages, newest first; the gaps of one outage are one line, however many VMs it touched.
/// Works while the service is down.
#[derive(Debug, Args)]
pub(super) struct Gaps {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Option<Command>,
    /// Of this platform only.
    #[arg(long, value_name = "NAME", global = true)]
    platform: Option<String>,
    /// Lines at most.
    #[arg(long, value_name = "N", default_value_t = 50, global = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Check the chain of all platforms instead: every step between two samples must be spanned by exactly one gap row.
    /// Exits with 1 where it is not.
    #[arg(long)]
    verify: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text, help_heading = COMMON, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every gap row with the name of its host or VM.
    List,
    /// Ask the source once more for explained gaps: those of the last hour as samples, older ones as roll-ups.
    Retry,
}

/// What makes no sense.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "--verify stands alone: the chain is that of all platforms, and nothing of it is listed or asked for again"
    )]
    Verify,
}

impl Gaps {
    pub(super) fn execute(self) -> Result<(), Failure> {
        if self.verify && (self.command.is_some() || self.platform.is_some()) {
            return Err(Failure::usage(Problem::Verify));
        }
        let config = self.file.load()?;
        block_on(async {
            let database = ready_database(&config).await?;
            self.answer(&database).await
        })
    }

    async fn answer(&self, database: &Database) -> Result<(), Failure> {
        let platform = self.platform.as_deref();
        let failed = |error: store::Error| Failure::other(error);
        match &self.command {
            None if self.verify => {
                let breaks = database.chain_breaks().await.map_err(failed)?;
                self.print(
                    &breaks,
                    chain_break,
                    "the chain holds: every step between two samples is explained once",
                );
                if !breaks.is_empty() {
                    return Err(Failure::Told);
                }
            }
            None => {
                let outages = database.outages(platform, self.one_more()).await;
                let outages = outages.map_err(failed)?;
                self.known(database, outages.is_empty()).await?;
                self.print_some(&outages, outage);
            }
            Some(Command::List) => {
                let gaps = database.gap_list(platform, self.one_more()).await;
                let gaps = gaps.map_err(failed)?;
                self.known(database, gaps.is_empty()).await?;
                self.print_some(&gaps, gap);
            }
            Some(Command::Retry) => {
                let now = database.clock().await.map_err(failed)?;
                let n_gaps = database
                    .retry_gaps(platform, now.minus(RING), now.minus(LONGEST_KEPT))
                    .await
                    .map_err(failed)?;
                self.known(database, n_gaps == 0).await?;
                match self.output {
                    Output::Text if n_gaps == 0 => {
                        say!("no gap is explained whose samples the source may still have");
                    }
                    Output::Text => {
                        say!(
                            "reopened {}; the running service asks the source again",
                            counted(n_gaps, "gap")
                        );
                    }
                    Output::Json => say!("{}", serde_json::json!({ "reopened": n_gaps })),
                }
            }
        }
        Ok(())
    }

    /// That there is nothing of a platform means nothing where its name has a typing error.
    async fn known(&self, database: &Database, nothing: bool) -> Result<(), Failure> {
        if let Some(name) = self.platform.as_ref().filter(|_| nothing) {
            let found = database.registered_platform(name).await;
            found.map_err(Failure::other)?;
        }
        Ok(())
    }

    /// By which it is seen that there are more.
    const fn one_more(&self) -> u32 {
        self.limit.saturating_add(1)
    }

    fn print_some<T>(&self, lines: &[T], line: impl Fn(&T) -> serde_json::Value) {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let some = lines.get(..limit).unwrap_or(lines);
        self.print(some, line, "no gaps");
        if some.len() < lines.len() && self.output == Output::Text {
            say!("and more, which a larger --limit shows");
        }
    }

    fn print<T>(&self, lines: &[T], line: impl Fn(&T) -> serde_json::Value, nothing: &str) {
        let values: Vec<serde_json::Value> = lines.iter().map(line).collect();
        match self.output {
            Output::Json => say!("{:#}", serde_json::Value::Array(values)),
            Output::Text if values.is_empty() => say!("{nothing}"),
            Output::Text => {
                for value in values {
                    say!("{}", sentence(&value));
                }
            }
        }
    }
}

/// `from … to …` first, then the other fields as they come.
fn sentence(value: &serde_json::Value) -> String {
    let text = |key: &str| match &value[key] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "now".to_owned(),
        other => other.to_string(),
    };
    let mut words = vec![format!("{} .. {:<20}", text("from"), text("to"))];
    if let Some(fields) = value.as_object() {
        for (key, field) in fields {
            match field {
                _ if key == "from" || key == "to" => {}
                serde_json::Value::String(text) => words.push(plain::line(text).into_owned()),
                serde_json::Value::Null => {}
                other => words.push(format!("{key}={other}")),
            }
        }
    }
    words.join("  ")
}

fn time(stamp: Stamp) -> String {
    stamp.to_string()
}

fn outage(outage: &Outage) -> serde_json::Value {
    let Outage {
        platform,
        state,
        reason,
        from,
        to,
        hosts,
        vms,
        gaps,
    } = outage;
    serde_json::json!({
        "from": time(*from), "to": to.map(time), "platform": platform, "state": state, "reason": reason,
        "hosts": hosts, "vms": vms, "gaps": gaps,
    })
}

fn gap(gap: &GapLine) -> serde_json::Value {
    let GapLine {
        platform,
        kind,
        name,
        state,
        reason,
        from,
        to,
        attempts,
    } = gap;
    serde_json::json!({
        "from": time(*from), "to": to.map(time), "platform": platform, "kind": kind, "name": name,
        "state": state, "reason": reason, "attempts": attempts,
    })
}

fn chain_break(found: &ChainBreak) -> serde_json::Value {
    let ChainBreak {
        problem,
        kind,
        name,
        from,
        to,
    } = found;
    serde_json::json!({
        "from": time(*from), "to": to.map(time), "problem": problem, "kind": kind, "name": name,
    })
}
