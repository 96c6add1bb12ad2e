//! What a kind of fault is asked beyond a clean verdict: figures of the daemon, the vCenter and the database.
//!
//! Owns: reading them, and waiting until one is as it must be. Never does: knowing which fault wants what.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use vsphere_simulator::session::SessionStats;

use super::Error;
use super::faults::MEET;
use super::stage::Stage;
use crate::process;

/// No more memory than this, ever. The collector of this small world takes 30 MiB; its budget alone is 256 MiB.
const MEMORY_KIB: u64 = 96 * 1024;

/// The daemon keeps one session of a platform, and may be about to end another.
const SESSIONS: usize = 2;

const REMOVED: &str = "\
SELECT 'host ' || moref || coalesce(' gone', '') FROM virt_host WHERE removed_at IS NOT NULL
UNION ALL SELECT 'vm ' || moref FROM virt_vm WHERE removed_at IS NOT NULL";

const STATUS: &str = "SELECT coalesce(status_class, status), coalesce(status_reason, '') FROM virt_platform";

/// The criterion of a kind of fault is not met.
pub(super) fn unmet(what: impl Into<String>) -> Error {
    Error::Criterion(what.into())
}

/// Polls of the live lane that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Polls {
    pub(super) ok: f64,
    pub(super) error: f64,
}

/// Sessions since a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sessions(SessionStats);

impl Sessions {
    /// From now on, with the one session that the daemon has opened anew. Those that killed collectors left behind do
    /// not count.
    pub(super) async fn begin(stage: &mut Stage) -> Result<Self, Error> {
        stage.simulator.sessions().expire_all();
        stage.session().await?;
        Ok(Self(stage.simulator.sessions().stats()))
    }

    /// No more log-ins than expiries, none refused, and few sessions open.
    pub(super) fn check(self, stage: &Stage) -> Result<SinceThen, Error> {
        let now = stage.simulator.sessions().stats();
        let since = SinceThen {
            expired: now.expired - self.0.expired,
            logins: now.logins - self.0.logins,
            refused: now.failed_logins - self.0.failed_logins,
        };
        if since.logins > since.expired || since.refused > 0 || now.open > SESSIONS {
            return Err(unmet(format!("{since}, {} sessions open", now.open)));
        }
        Ok(since)
    }
}

/// What became of sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct SinceThen {
    pub(super) expired: u64,
    logins: u64,
    refused: u64,
}

impl fmt::Display for SinceThen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            expired,
            logins,
            refused,
        } = self;
        write!(f, "{logins} log-ins after {expired} expiries")?;
        if *refused > 0 {
            write!(f, ", {refused} refused")?;
        }
        Ok(())
    }
}

impl Stage {
    /// Waits until something happened that was provoked.
    pub(super) async fn met(
        &mut self,
        what: &str,
        happened: impl Fn(&Self) -> bool + Send + Sync,
    ) -> Result<(), Error> {
        let seen_by = &*self;
        process::until(what, MEET, || {
            let seen = happened(seen_by);
            async move { if seen { Ok(()) } else { Err("not yet".to_owned()) } }
        })
        .await?;
        self.note(format!("met {what}"));
        Ok(())
    }

    /// Waits until the vCenter has a session.
    pub(super) async fn session(&mut self) -> Result<(), Error> {
        self.met("a session", |stage| stage.simulator.sessions().stats().open > 0)
            .await
    }

    /// The sum of the holder's series of a name that have all of these labels; 0 where there is none.
    pub(super) async fn figure(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64, Error> {
        let collector = &self.holder().collector;
        let text = process::until("the holder's metrics", MEET, || async move {
            collector.metrics().await.map_err(|error| process::chain(&error))
        })
        .await?;
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let series = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (of, value) = rest.rsplit_once(' ')?;
            let is_it =
                (of.is_empty() || of.starts_with('{')) && labels.iter().all(|label| of.contains(label));
            is_it.then(|| value.parse::<f64>().ok()).flatten()
        });
        Ok(series.fold(0.0, |sum, value| sum + value))
    }

    /// Waits until a figure is as it must be.
    pub(super) async fn until_figure(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        is_right: impl Fn(f64) -> bool + Send + Sync,
    ) -> Result<f64, Error> {
        let this = &*self;
        let is_right = &is_right;
        let what = format!("{name} {labels:?}");
        let value = process::until(&what, MEET, || async move {
            match this.figure(name, labels).await {
                Ok(value) if is_right(value) => Ok(value),
                Ok(value) => Err(value.to_string()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        self.note(format!("{what} is {value}"));
        Ok(value)
    }

    /// Polls of the live lane since the holder's start.
    pub(super) async fn polls(&self) -> Result<Polls, Error> {
        let of = async |result| {
            let labels = [("lane", "live"), ("result", result)];
            self.figure("virt_collector_polls_total", &labels).await
        };
        Ok(Polls {
            ok: of("ok").await?,
            error: of("error").await?,
        })
    }

    /// Waits for a poll that began after now, and demands that none fails meanwhile.
    pub(super) async fn no_poll_fails(&mut self, before: Polls, more: f64) -> Result<(), Error> {
        let labels = [("lane", "live"), ("result", "ok")];
        self.until_figure("virt_collector_polls_total", &labels, |n| n >= before.ok + more)
            .await?;
        let now = self.polls().await?;
        if now.error > before.error {
            return Err(unmet(format!(
                "{} polls of the live lane failed",
                now.error - before.error
            )));
        }
        Ok(())
    }

    /// Waits until status and metric say what is wrong, or that nothing is; answers the reason.
    pub(super) async fn until_status(&mut self, word: &str) -> Result<String, Error> {
        let labels = [("status", word)];
        self.until_figure("virt_collector_platform_status", &labels, |value| value > 0.0)
            .await?;
        let this = &*self;
        let reason = process::until("the platform's status", MEET, || async move {
            let client = this.client().await.map_err(|error| process::chain(&error))?;
            let row = client.query_one(STATUS, &[]).await;
            let row = row.map_err(|error| process::chain(&error))?;
            let (is, reason): (String, String) = (row.get(0), row.get(1));
            if is == word {
                Ok(reason)
            } else {
                Err(format!("{is}: {reason}"))
            }
        })
        .await?;
        self.note(format!("status {word}: {reason}"));
        Ok(reason)
    }

    /// Hosts and VMs that are stored as gone.
    pub(super) async fn gone(&self) -> Result<BTreeSet<String>, Error> {
        let rows = self.client().await?.query(REMOVED, &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Calls that reached the vCenter so far, of one method or all.
    pub(super) fn calls(&self, method: Option<&str>) -> u64 {
        let methods = self.simulator.calls().methods();
        let wanted = methods
            .iter()
            .filter(|(name, _)| method.is_none_or(|method| method == *name));
        wanted.map(|(_, calls)| calls.calls).sum()
    }

    /// Waits until nobody has called for a while, but for the one who waits for changes: whatever was asked before has
    /// its answer, or has failed.
    pub(super) async fn quiet(&mut self) -> Result<(), Error> {
        const WHILE: Duration = Duration::from_secs(1);
        let this = &*self;
        process::until("a quiet moment", MEET, || async move {
            let calls = this.calls(None);
            tokio::time::sleep(WHILE).await;
            let waiting = this.simulator.calls().method("WaitForUpdatesEx").in_flight;
            let methods = this.simulator.calls().methods();
            let all: u64 = methods.values().map(|calls| calls.in_flight).sum();
            match (this.calls(None) - calls, waiting, all) {
                (0, 1, 1) => Ok(()),
                (new, waiting, all) => Err(format!("{new} new calls, {waiting} of {all} wait for changes")),
            }
        })
        .await?;
        Ok(())
    }

    /// Cuts the vCenter off and waits for the end of every call.
    pub(super) async fn hang_up(&mut self) -> Result<(), Error> {
        self.simulator.set_network(false);
        self.met("the end of every call", |stage| {
            let methods = stage.simulator.calls().methods();
            methods.values().all(|calls| calls.in_flight == 0)
        })
        .await
    }

    /// Waits until everybody but these has their newest sample stored.
    pub(super) async fn others_are_stored(&mut self, but: &[String]) -> Result<(), Error> {
        let this = &*self;
        process::until("the others' samples", MEET, || async move {
            let behind = this.behind().await.map_err(|error| process::chain(&error))?;
            let others: Vec<String> = behind.into_iter().filter(|moref| !but.contains(moref)).collect();
            if others.is_empty() {
                Ok(())
            } else {
                Err(others.join(", "))
            }
        })
        .await?;
        self.note("the others' samples are stored");
        Ok(())
    }

    /// Everything runs, and within its bounds.
    pub(super) async fn within_bounds(&mut self) -> Result<(), Error> {
        self.must_run()?;
        self.note_memory();
        if self.rss_max_kib() > MEMORY_KIB {
            return Err(unmet(format!(
                "the collector took {} MiB of memory",
                self.rss_max_kib() / 1024
            )));
        }
        let reserved = self.figure("virt_collector_memory_reserved_bytes", &[]).await?;
        let budget = self.figure("virt_collector_memory_budget_bytes", &[]).await?;
        if reserved > budget {
            return Err(unmet(format!(
                "{reserved} bytes of a budget of {budget} are reserved"
            )));
        }
        Ok(())
    }
}
