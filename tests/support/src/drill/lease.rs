//! The lease of the platform: who holds it, and who takes it.
//!
//! Owns: reading it, running it out, and the waits for a renewal and for a take-over. Never does: ending a collector.

use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use super::slot::Slot;
use super::stage::{PLATFORM, Stage};
use crate::process;

/// For somebody to take a platform, on a machine that others use too.
const TAKEN: Duration = Duration::from_secs(90);

/// For a renewal, which is due every 10 s, on a machine that others use too.
const RENEWED: Duration = Duration::from_secs(60);

/// TTL and ten seconds: what is promised of a take-over.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(40);

impl Stage {
    pub(super) async fn expire_lease(&self) -> Result<(), Error> {
        if self.slots.iter().any(Slot::runs) {
            return Ok(());
        }
        let client = self.client().await?;
        client
            .batch_execute(
                "UPDATE virt_platform_lease SET until = clock_timestamp() WHERE until > clock_timestamp(); \
                 UPDATE virt_collector SET until = clock_timestamp() WHERE until > clock_timestamp()",
            )
            .await?;
        Ok(())
    }

    /// Owner and epoch of the lease.
    pub(super) async fn lease(&self) -> Result<(String, i64), Error> {
        let row = self
            .client()
            .await?
            .query_one(
                "SELECT owner, epoch FROM virt_platform_lease JOIN virt_platform USING (platform_id) WHERE name = $1",
                &[&PLATFORM],
            )
            .await?;
        Ok((row.get(0), row.get(1)))
    }

    /// Demands that the lease is where it was.
    pub(super) async fn lease_is_still(&self, owner: &str, epoch: i64) -> Result<(), Error> {
        let (owner_now, now) = self.lease().await?;
        if owner_now != owner || now != epoch {
            return Err(Error::criterion(
                "a lease that stays where it is",
                format!("{owner}, epoch {epoch}, then {owner_now}, epoch {now}"),
            ));
        }
        Ok(())
    }

    /// Waits for the other collector to take over from the holder, and makes it the holder.
    pub(super) async fn taken_over(&mut self, before: i64, since: Instant) -> Result<Duration, Error> {
        let this = &*self;
        let deadline = 2 * TAKEOVER_LIMIT;
        process::until("the other collector to take over", deadline, || async move {
            match this.lease().await {
                Ok((_, epoch)) if epoch > before => Ok(()),
                Ok((owner, epoch)) => Err(format!("owner {owner}, epoch {epoch}")),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        let took = since.elapsed();
        self.swap(took);
        if took > TAKEOVER_LIMIT {
            return Err(Error::TakeOver {
                took,
                limit: TAKEOVER_LIMIT,
            });
        }
        Ok(took)
    }

    /// Whether the platform's lease is good.
    pub(super) async fn is_leased(&self) -> Result<bool, Error> {
        let sql = "SELECT until > clock_timestamp() FROM virt_platform_lease JOIN virt_platform USING (platform_id) \
                   WHERE name = $1";
        Ok(self.client().await?.query_one(sql, &[&PLATFORM]).await?.get(0))
    }

    /// Waits until somebody has taken the platform since the lease had this epoch.
    pub(super) async fn taken(&self, before: i64) -> Result<(), Error> {
        process::until("somebody to take the platform", TAKEN, || async {
            let look = async { Ok::<_, Error>((self.lease().await?.1, self.is_leased().await?)) };
            match look.await {
                Ok((epoch, true)) if epoch > before => Ok(()),
                Ok(seen) => Err(format!("{seen:?}")),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        Ok(())
    }

    /// Waits until the platform's lease is renewed.
    pub(super) async fn renewed(&self) -> Result<(), Error> {
        let until = async || {
            let sql = "SELECT until::text FROM virt_platform_lease JOIN virt_platform USING (platform_id) WHERE name = $1";
            let row = self.client().await?.query_one(sql, &[&PLATFORM]).await?;
            Ok::<String, Error>(row.get(0))
        };
        let before = until().await?;
        process::until("the lease to be renewed", RENEWED, || async {
            match until().await {
                Ok(now) if now > before => Ok(()),
                Ok(now) => Err(now),
                Err(error) => Err(process::chain(&error)),
            }
        })
        .await?;
        Ok(())
    }
}
