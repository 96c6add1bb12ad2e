//! The connections that rows are copied through: a few, dedicated, shared by the platforms.
//!
//! Owns: opening them, and opening them again; the way around rows that are stored already. Never does: two flushes
//! on one connection at a time; a flush takes its slot for the whole transaction. A platform always uses the same
//! slot, so that its flushes keep their order even across a reconnect. Metadata work goes through the pool and never
//! waits for a COPY.
//!
//! Invariants: a slot is held no longer than the deadline, whatever happens on its connection, so that the other
//! platforms of the slot get their turn; a connection whose flush was cancelled, ran late or failed is closed and
//! never used again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::Chain;
use crate::model::ids::PlatformId;
use crate::store;
use crate::store::Class;
use crate::store::Database;
use crate::store::copy::Flush;
use crate::store::copy::Writer;
use crate::store::copy::Written;
use crate::store::lease::Lease;

/// More connections than the database has cores bring nothing, and four serve hundreds of platforms: a flush of
/// 10,000 rows takes about 0.1 s.
const MOST_CONNECTIONS: usize = 4;

/// A flush that takes longer, its connection included, is given up; its outcome is unknown. Longer than the
/// session's own statement time-out, so that usually the server speaks first.
const FLUSH_DEADLINE: Duration = Duration::from_secs(75);

/// All slots.
#[derive(Debug, Clone)]
pub struct Writers {
    database: Database,
    deadline: Duration,
    slots: Arc<[Mutex<Option<Writer>>]>,
}

impl Writers {
    /// Slots for so many platforms; connections are opened when first used.
    #[must_use]
    pub fn new(database: Database, n_platforms: usize) -> Self {
        let n_slots = n_platforms.clamp(1, MOST_CONNECTIONS);
        Self {
            database,
            deadline: FLUSH_DEADLINE,
            slots: (0..n_slots).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// The same slots with another deadline.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Writes one flush of the lease's platform, in one transaction. If a row of it is stored already, the whole
    /// flush is written again, leaving out what is stored.
    ///
    /// Cancelling closes the connection: the flush is then not stored, unless its COMMIT had been sent.
    ///
    /// # Errors
    /// When nothing was committed, or when that is not known ([`Class::Unknown`], or a deadline). The next flush of
    /// the slot opens a new connection.
    pub async fn write(&self, lease: &Lease, flush: &Flush) -> Result<Written, store::Error> {
        let late = || store::Error::Deadline {
            attempt: "flush",
            after: self.deadline,
        };
        let slot = self.slot(lease.platform).ok_or_else(late)?;
        let mut place = slot.lock().await;
        // Taken out, so that a flush that fails, is cancelled or runs late leaves an empty slot and never a half-used
        // connection.
        let writer = place.take().filter(Writer::is_usable);
        let (writer, written) = tokio::time::timeout(self.deadline, self.attempt(writer, lease, flush))
            .await
            .unwrap_or_else(|_elapsed| Err(late()))?;
        *place = Some(writer);
        Ok(written)
    }

    async fn attempt(
        &self,
        writer: Option<Writer>,
        lease: &Lease,
        flush: &Flush,
    ) -> Result<(Writer, Written), store::Error> {
        let mut writer = match writer {
            Some(writer) => writer,
            None => self.database.writer().await?,
        };
        match writer.write(lease, flush).await {
            Err(error) if error.class() == Class::Duplicate => {
                tracing::debug!(error = %Chain(&error), "some of a flush is stored already");
                // A COPY that fails may leave an answer behind on its connection that nobody waits for.
                let mut writer = self.database.writer().await?;
                let written = writer.write_staged(lease, flush).await?;
                Ok((writer, written))
            }
            result => Ok((writer, result?)),
        }
    }

    fn slot(&self, platform: PlatformId) -> Option<&Mutex<Option<Writer>>> {
        let index = usize::try_from(platform.0).unwrap_or(0) % self.slots.len().max(1);
        self.slots.get(index)
    }
}
