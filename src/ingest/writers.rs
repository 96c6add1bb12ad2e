//! The connections that rows are copied through: a few, dedicated, shared by the platforms.
//!
//! Owns: opening them, and opening them again. Never does: two flushes on one connection at a time; a flush takes
//! its slot for the whole transaction. A platform always uses the same slot, so that its flushes keep their order
//! even across a reconnect. Metadata work goes through the pool and never waits for a COPY.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::model::ids::PlatformId;
use crate::store;
use crate::store::Database;
use crate::store::copy::Flush;
use crate::store::copy::Writer;
use crate::store::copy::Written;
use crate::store::lease::Lease;

/// More connections than the database has cores bring nothing, and four serve hundreds of platforms: a flush of
/// 10,000 rows takes about 0.1 s.
const MOST_CONNECTIONS: usize = 4;

/// A flush that takes longer is given up; its connection is dropped and its outcome unknown. Longer than the
/// session's own statement time-out, so that usually the server speaks first.
const FLUSH_DEADLINE: Duration = Duration::from_secs(75);

/// All slots.
#[derive(Debug, Clone)]
pub struct Writers {
    database: Database,
    slots: Arc<[Mutex<Option<Writer>>]>,
}

impl Writers {
    /// Slots for so many platforms; connections are opened when first used.
    #[must_use]
    pub fn new(database: Database, n_platforms: usize) -> Self {
        let n_slots = n_platforms.clamp(1, MOST_CONNECTIONS);
        Self {
            database,
            slots: (0..n_slots).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// Writes one flush of the lease's platform, in one transaction.
    ///
    /// # Errors
    /// When nothing was committed, or when that is not known ([`store::Class::Unknown`]). The connection
    /// is dropped then and opened again by the next flush.
    pub async fn write(&self, lease: &Lease, flush: &Flush) -> Result<Written, store::Error> {
        let late = || store::Error::Deadline {
            attempt: "flush",
            after: FLUSH_DEADLINE,
        };
        let slot = self.slot(lease.platform).ok_or_else(late)?;
        let mut place = slot.lock().await;
        // Taken out, so that a cancelled flush leaves an empty slot and never a half-used connection.
        let mut writer = match place.take().filter(Writer::is_usable) {
            Some(writer) => writer,
            None => self.database.writer().await?,
        };
        let written = tokio::time::timeout(FLUSH_DEADLINE, writer.write(lease, flush))
            .await
            .unwrap_or_else(|_elapsed| Err(late()))?;
        *place = Some(writer);
        Ok(written)
    }

    fn slot(&self, platform: PlatformId) -> Option<&Mutex<Option<Writer>>> {
        let index = usize::try_from(platform.0).unwrap_or(0) % self.slots.len().max(1);
        self.slots.get(index)
    }
}
