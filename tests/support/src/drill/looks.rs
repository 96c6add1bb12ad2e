//! What can be seen of a collector from outside: its metrics, its log, its rows in the tables.

use std::time::Duration;

use super::Error;
use super::stage::Stage;
use crate::process::{self, Signal};

/// For a status to show, which follows a poll or a back-off of half a minute.
const SHOWN: Duration = Duration::from_secs(90);

impl Stage {
    /// Waits until the holder is READY.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.holder().ready().await
    }

    // ---- metrics

    /// SIGHUP, and the metric that says what became of it.
    pub(super) async fn reload(&mut self, successful: f64) -> Result<(), Error> {
        self.holder().signal(Signal::Hup)?;
        let is_right = |seen: f64| (seen - successful).abs() < 0.5;
        self.until_figure("virt_collector_config_last_reload_successful", &[], is_right)
            .await?;
        Ok(())
    }

    // ---- the log

    /// How long the holder's log is.
    pub(super) fn log_length(&self) -> u64 {
        std::fs::metadata(self.holder().collector.log()).map_or(0, |file| file.len())
    }

    /// Lines of the holder's log, below those that are for developers, since it was so long.
    pub(super) fn logged_since(&self, length: u64) -> Vec<String> {
        let bytes = std::fs::read(self.holder().collector.log()).unwrap_or_default();
        let from = usize::try_from(length).unwrap_or(usize::MAX);
        let text = String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned();
        let lines = text.lines().filter(|line| !line.contains("DEBUG"));
        lines.map(str::to_owned).collect()
    }

    // ---- the tables

    /// Waits until there is a gap to be filled.
    pub(super) async fn gap_is_open(&self) -> Result<(), Error> {
        let sql = "SELECT count(*) FROM virt_collection_gap WHERE state = 'open'";
        process::until("a gap to be filled", SHOWN, || async {
            let look = async { Ok::<i64, Error>(self.client().await?.query_one(sql, &[]).await?.get(0)) };
            match look.await {
                Ok(0) => Err("none".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        Ok(())
    }

    /// A platform's status.
    pub(super) async fn status(&self, platform: &str) -> Result<String, Error> {
        let sql = "SELECT status FROM virt_platform WHERE name = $1";
        Ok(self.client().await?.query_one(sql, &[&platform]).await?.get(0))
    }

    /// The one line beside a platform's status.
    pub(super) async fn reason(&self, platform: &str) -> Result<String, Error> {
        let sql = "SELECT coalesce(status_reason, '') FROM virt_platform WHERE name = $1";
        Ok(self.client().await?.query_one(sql, &[&platform]).await?.get(0))
    }

    /// Waits for a platform's status.
    pub(super) async fn status_becomes(&self, platform: &str, expected: &str) -> Result<(), Error> {
        process::until(&format!("{platform} to be {expected}"), SHOWN, || async {
            match self.status(platform).await {
                Ok(status) if status == expected => Ok(()),
                Ok(status) => Err(status),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        Ok(())
    }

    /// Ends connections of the lease's owner, as an administrator does. How many.
    pub(super) async fn end_connections(&self) -> Result<i64, Error> {
        let (owner, _) = self.lease().await?;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE split_part(application_name, '/', 2) = $1";
        Ok(self.client().await?.query_one(sql, &[&owner]).await?.get(0))
    }

    /// Holds the roll-ups up, and waits until the holder is in the middle of them. They go on when this is dropped.
    pub(super) async fn in_rollups(&self) -> Result<tokio_postgres::Client, Error> {
        const LOCKED: &str = "BEGIN; LOCK TABLE virt_vm_metrics_5m IN SHARE ROW EXCLUSIVE MODE";
        const WAITS: &str =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'virt_vm_metrics_5m'::regclass";
        let lock = self.client().await?;
        lock.batch_execute(LOCKED).await?;
        let client = self.client().await?;
        process::until("a roll-up under way", SHOWN, || async {
            let look = async {
                client.execute(super::judge::DUE, &[]).await?;
                client.query_one(WAITS, &[]).await
            };
            match look.await {
                Ok(row) if row.get::<_, i64>(0) > 0 => Ok(()),
                Ok(_) => Err("nobody waits".to_owned()),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        Ok(lock)
    }

    /// Makes the password of a platform in the database one that no key opens.
    pub(super) async fn spoil_credential(&self, platform: &str) -> Result<(), Error> {
        let sql = "UPDATE virt_platform_credential \
                   SET sealed = set_byte(sealed, length(sealed) - 1, get_byte(sealed, length(sealed) - 1) # 1) \
                   WHERE platform_id = (SELECT platform_id FROM virt_platform WHERE name = $1)";
        let n = self.client().await?.execute(sql, &[&platform]).await?;
        if n == 1 {
            Ok(())
        } else {
            Err(Error::Nothing("password to spoil"))
        }
    }
}
