//! Waits until the daemon has recovered, and asks the oracle; in the end also about the roll-ups.
//!
//! Owns: what "recovered" means: the newest sample of every entity that can be read is stored, and no gap is open.
//! Never does: believing it; the oracle compares every row.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use vsphere_simulator::{EntityKind, Truth};

use super::Error;
use super::stage::{End, PLATFORM, Stage};
use crate::oracle::rollups::Rollups;
use crate::oracle::{self, Verdict};
use crate::process;

/// A sample is owed that was readable for so long while all was well.
pub(super) const GRACE: Duration = Duration::from_secs(120);

/// Gaps are asked for when their end is this old.
const SETTLED: Duration = Duration::from_secs(120);

/// For everything that the daemon has to get over, on a machine that others use too: a lease that runs out, a
/// back-off and a poll each cost it half a minute at most.
const DEADLINE: Duration = Duration::from_secs(150);

/// How often a gap that was opened behind the last look is waited for.
const AFTERTHOUGHTS: u32 = 3;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

const MICROS: i64 = 1_000_000;

const NEWEST: &str = "\
SELECT entity.moref, (extract(epoch FROM newest.collected_at) * 1000000)::int8
FROM virt_host AS entity CROSS JOIN LATERAL (
    SELECT collected_at FROM virt_host_metrics AS sample WHERE sample.host_id = entity.host_id
    ORDER BY collected_at DESC LIMIT 1) AS newest
WHERE platform_id = (SELECT platform_id FROM virt_platform WHERE name = $1)
UNION ALL
SELECT entity.moref, (extract(epoch FROM newest.collected_at) * 1000000)::int8
FROM virt_vm AS entity CROSS JOIN LATERAL (
    SELECT collected_at FROM virt_vm_metrics AS sample WHERE sample.vm_id = entity.vm_id
    ORDER BY collected_at DESC LIMIT 1) AS newest
WHERE platform_id = (SELECT platform_id FROM virt_platform WHERE name = $1)";

const OPEN: &str = "\
SELECT count(*), \
       count(*) FILTER (WHERE to_time <= to_timestamp($1::float8) \
                          AND (ask_after IS NULL OR ask_after <= to_timestamp($1::float8))) \
FROM virt_collection_gap \
WHERE state = 'open' AND platform_id = (SELECT platform_id FROM virt_platform WHERE name = $2)";

/// Time passes for the roll-ups, too: what would be made in minutes is made at the daemon's next look.
pub(super) const DUE: &str =
    "UPDATE virt_rollup_pending SET due_at = clock_timestamp() WHERE due_at > clock_timestamp()";

const NOTES: &str = "SELECT count(*) FROM virt_rollup_pending";

/// What a look saw.
enum Seen {
    Recovered,
    /// Open gaps that have not settled: only time helps.
    Young(String),
    NotYet(String),
}

impl Stage {
    /// Waits until the daemon has recovered.
    pub(super) async fn recovered(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            self.must_run()?;
            let state = match self.look().await {
                Ok(Seen::Recovered) => {
                    self.note("recovered");
                    self.note_recovery(started.elapsed());
                    return Ok(());
                }
                Ok(Seen::Young(state)) => {
                    // All is well, so this time is healthy.
                    self.pass(SETTLED);
                    state
                }
                Ok(Seen::NotYet(state)) => state,
                Err(Error::Query(error)) => process::chain(&error),
                Err(other) => return Err(other),
            };
            if started.elapsed() > DEADLINE {
                return Err(process::Error::Deadline {
                    what: "the collector to recover".to_owned(),
                    after: DEADLINE,
                    state,
                }
                .into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self) -> Result<Seen, Error> {
        let client = self.client().await?;
        let truth = self.simulator.truth();
        let behind = lags(&client, &truth).await?;
        if !behind.is_empty() {
            let behind: Vec<String> = behind
                .into_iter()
                .map(|(moref, lag)| {
                    lag.map_or_else(|| format!("{moref} nothing"), |lag| format!("{moref} {lag} s"))
                })
                .collect();
            return Ok(Seen::NotYet(format!("behind: {}", behind.join(", "))));
        }
        let settled = truth.now / MICROS - i64::try_from(SETTLED.as_secs()).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
        let row = client.query_one(OPEN, &[&(settled as f64), &PLATFORM]).await?;
        let (open, asked): (i64, i64) = (row.get(0), row.get(1));
        Ok(match (open, asked) {
            (0, _) => Seen::Recovered,
            (_, 0) => Seen::Young(format!("{open} gaps that have not settled")),
            _ => Seen::NotYet(format!("{open} open gaps, {asked} of them settled")),
        })
    }

    /// Who has a sample that could be stored and is not.
    pub(super) async fn behind(&self) -> Result<Vec<String>, Error> {
        let client = self.client().await?;
        let lags = lags(&client, &self.simulator.truth()).await?;
        Ok(lags.into_iter().map(|(moref, _)| moref).collect())
    }

    /// Waits for recovery, then asks the oracle, which must find nothing. Unless they are proven, there is something
    /// new to be fetched, so that it is those who run now that have recovered; and what could be read before is
    /// owed by then.
    pub(super) async fn judge(&mut self, proven: bool) -> Result<Verdict, Error> {
        if !proven {
            self.pass(GRACE);
        }
        self.recovered().await?;
        self.note_memory();
        let truth = self.simulator.truth();
        let client = self.client().await?;
        let mut verdict = oracle::check(&client, PLATFORM, &truth, &self.healthy(), GRACE).await?;
        // So that the next faults find the daemon also while it makes roll-ups.
        client.execute(DUE, &[]).await?;
        // A poll that was under way at the last look may have found somebody silent since: asking takes a moment.
        for _ in 0..AFTERTHOUGHTS {
            if verdict.open == 0 || !verdict.is_clean() {
                break;
            }
            self.recovered().await?;
            verdict =
                oracle::check(&client, PLATFORM, &self.simulator.truth(), &self.healthy(), GRACE).await?;
        }
        let breaks: i64 = client
            .query_one("SELECT count(*) FROM virt_chain_break()", &[])
            .await?
            .get(0);
        if !verdict.is_clean() || verdict.open > 0 {
            return Err(Error::Verdict(Box::new(verdict)));
        }
        if breaks != 0 {
            return Err(Error::ChainBreak {
                breaks,
                unexplained: verdict.unexplained,
            });
        }
        Ok(verdict)
    }

    /// Waits until all roll-ups are made, and compares every bucket.
    async fn rolled_up(&mut self) -> Result<Rollups, Error> {
        if self.hasty {
            // It looks for what is due when it starts.
            self.client().await?.execute(DUE, &[]).await?;
            self.restart(End::Term).await?;
        }
        let started = Instant::now();
        let client = self.client().await?;
        loop {
            self.must_run()?;
            client.execute(DUE, &[]).await?;
            let notes: i64 = client.query_one(NOTES, &[]).await?.get(0);
            if notes == 0 {
                break;
            }
            if started.elapsed() > DEADLINE {
                return Err(process::Error::Deadline {
                    what: "all roll-ups to be made".to_owned(),
                    after: DEADLINE,
                    state: format!("{notes} notes are left"),
                }
                .into());
            }
            tokio::time::sleep(LOOK).await;
        }
        let rollups = oracle::rollups::check(&client, PLATFORM, &self.simulator.truth()).await?;
        if rollups.is_clean() {
            Ok(rollups)
        } else {
            Err(Error::Rollups(rollups))
        }
    }

    /// After a while in which nothing happens, so that everything is owed that ever will be.
    pub(super) async fn last_judgement(&mut self) -> Result<(Verdict, Rollups), Error> {
        for _ in 0..2 {
            self.pass(GRACE);
            if self.hasty {
                self.restart(End::Term).await?;
            }
            self.recovered().await?;
        }
        let verdict = self.judge(true).await?;
        Ok((verdict, self.rolled_up().await?))
    }
}

/// Whose newest sample is not stored, and by how many seconds what is stored is older; `None` where nothing is.
async fn lags(client: &Client, truth: &Truth) -> Result<Vec<(String, Option<i64>)>, Error> {
    let rows = client.query(NEWEST, &[&PLATFORM]).await?;
    let stored: HashMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let behind =
        newest(truth).filter(|(moref, stamp)| stored.get(*moref).is_none_or(|at| *at < stamp * MICROS));
    let lag = |(moref, stamp): (&str, i64)| {
        let lag = stored.get(moref).map(|at| stamp - at / MICROS);
        (moref.to_owned(), lag)
    };
    Ok(behind.map(lag).collect())
}

/// The newest sample of every entity that can be read now, also of those that do not run any more.
fn newest(truth: &Truth) -> impl Iterator<Item = (&str, i64)> {
    const RING: i64 = 3600;
    let grace = i64::try_from(GRACE.as_micros()).unwrap_or(i64::MAX);
    truth.entities().filter_map(move |entity| {
        let record = entity.record();
        let there = record.removed_at.is_none() && record.unreachable.iter().all(|gap| gap.to.is_some());
        let asked = entity.kind() == EntityKind::Host || !record.template;
        if !there || !asked {
            return None;
        }
        let from = truth.horizon / MICROS - RING;
        let samples = entity.samples(from, i64::MAX);
        let newest = samples
            .filter(|sample| truth.horizon.saturating_add(grace) < sample.evicted_at)
            .last()?;
        Some((entity.moref(), newest.stamp))
    })
}
