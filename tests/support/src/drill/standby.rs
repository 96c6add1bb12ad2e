//! The second server of the database.
//!
//! Owns: making it a streaming standby, cutting it off, promoting it, and the old primary's return. Never does:
//! judging. The daemon's connection string names both servers all the time.

use std::time::Duration;

use tokio_postgres::{Client, Config};

use super::Error;
use super::set_up;
use super::stage::{DATABASE, Stage};
use crate::cluster::Mode;
use crate::process;

/// For a standby that has only a moment of a small database to catch up with.
const CAUGHT_UP: Duration = Duration::from_secs(60);

const ROWS: &str = "SELECT (SELECT count(*) FROM virt_host_metrics) + (SELECT count(*) FROM virt_vm_metrics)";

/// Changes with whatever a collector writes.
const TOUCHED: &str = "\
SELECT concat_ws(' ', (SELECT count(*) FROM virt_host_metrics), (SELECT count(*) FROM virt_vm_metrics),
                 (SELECT max(epoch) FROM virt_platform_lease), (SELECT max(until) FROM virt_platform_lease),
                 (SELECT max(until) FROM virt_collector), (SELECT count(*) FROM virt_collection_gap))";

/// The other server, as the superuser sees it.
#[derive(Debug)]
pub(super) struct Standby(Config);

impl Standby {
    async fn client(&self) -> Result<Client, Error> {
        set_up::connect(&self.0).await
    }
}

async fn rows(client: &Client) -> Result<i64, Error> {
    Ok(client.query_one(ROWS, &[]).await?.get(0))
}

impl Stage {
    /// Makes the other server a streaming standby that has all that is committed, and opens the way to it.
    pub(super) async fn follow(&mut self) -> Result<Standby, Error> {
        let url = self.spare.follow(&self.ground.cluster).await?;
        let standby = Standby(set_up::config(&url, DATABASE)?);
        let there = standby.client().await?;
        let now: String = self
            .client()
            .await?
            .query_one("SELECT pg_current_wal_lsn()::text", &[])
            .await?
            .get(0);
        process::until("the standby to catch up", CAUGHT_UP, || {
            let (there, now) = (&there, &now);
            async move {
                let caught_up = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
                match there.query_one(caught_up, &[now]).await {
                    Ok(row) if row.get(0) => Ok(()),
                    Ok(_) => Err(format!("not at {now}")),
                    Err(error) => Err(process::chain(&error)),
                }
            }
        })
        .await?;
        self.open_way_to(&standby)?;
        self.note("a standby follows");
        Ok(standby)
    }

    /// The other server can be reached from here on.
    fn open_way_to(&self, server: &Standby) -> Result<(), Error> {
        let target = set_up::socket(&server.0)?;
        for slot in &self.slots {
            slot.spare.set_target(target.clone());
            slot.spare.refuse(false);
        }
        Ok(())
    }

    /// From here on the standby gets nothing more.
    pub(super) async fn cut_off(&mut self, standby: &Standby) -> Result<(), Error> {
        let there = standby.client().await?;
        there
            .batch_execute("ALTER SYSTEM SET primary_conninfo = ''")
            .await?;
        there.batch_execute("SELECT pg_reload_conf()").await?;
        process::until("the standby to be cut off", CAUGHT_UP, || {
            let there = &there;
            async move {
                match there
                    .query_one("SELECT count(*) FROM pg_stat_wal_receiver", &[])
                    .await
                {
                    Ok(row) if row.get::<_, i64>(0) == 0 => Ok(()),
                    Ok(_) => Err("it still receives".to_owned()),
                    Err(error) => Err(process::chain(&error)),
                }
            }
        })
        .await?;
        self.note("the standby is cut off");
        Ok(())
    }

    /// The primary ends as in a crash, the standby is promoted, and they change places. Returns how many rows of samples
    /// it lacks.
    pub(super) async fn fail_over(&mut self, standby: Standby, pause: Duration) -> Result<i64, Error> {
        let had = rows(&self.client().await?).await?;
        self.note("the primary ends");
        self.ground.cluster.stop(Mode::Immediate).await?;
        let kept = rows(&standby.client().await?).await?;
        tokio::time::sleep(pause).await;
        self.spare.promote().await?;
        self.note("the standby is promoted");
        std::mem::swap(&mut self.ground.cluster, &mut self.spare);
        self.ground.superuser = standby.0;
        for slot in &mut self.slots {
            std::mem::swap(&mut slot.database, &mut slot.spare);
            slot.spare.refuse(true);
        }
        Ok(had - kept)
    }

    /// The old primary is started as if nothing had happened, and can be reached.
    pub(super) async fn old_primary_returns(&mut self) -> Result<Standby, Error> {
        let url = self.spare.start().await?;
        let old = Standby(set_up::config(&url, DATABASE)?);
        self.open_way_to(&old)?;
        self.note("the old primary is back, and takes writes");
        Ok(old)
    }

    /// A text that changes with whatever a collector writes there.
    pub(super) async fn touched(&self, server: &Standby) -> Result<String, Error> {
        Ok(server.client().await?.query_one(TOUCHED, &[]).await?.get(0))
    }

    /// Leads those who think that they reach the primary to the other server, or back.
    pub(super) fn lead_astray(&mut self, standby: Option<&Standby>) -> Result<(), Error> {
        let target = set_up::socket(standby.map_or(&self.ground.superuser, |standby| &standby.0))?;
        for slot in &self.slots {
            slot.database.set_target(target.clone());
            slot.database.reset_all();
        }
        self.note(if standby.is_some() {
            "the primary's address leads to the standby"
        } else {
            "the primary's address leads to the primary"
        });
        Ok(())
    }

    /// Ends the other server, and closes the way to it.
    pub(super) async fn alone(&mut self) -> Result<(), Error> {
        for slot in &self.slots {
            slot.spare.refuse(true);
            slot.spare.reset_all();
        }
        self.spare.stop(Mode::Immediate).await?;
        self.note("one server is left");
        Ok(())
    }
}
