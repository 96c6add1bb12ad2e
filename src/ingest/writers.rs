//! The connections that rows are copied through: a few, dedicated, shared by the platforms.
//!
//! Owns: opening them, and opening them again; the way around rows that are stored already. Never does: two flushes
//! on one connection at a time; a flush takes its slot for the whole transaction. A platform always uses the same
//! slot, so that its flushes keep their order even across a reconnect. Metadata work goes through the pool and never
//! waits for a COPY.
//!
//! Invariants: a slot is held no longer than the deadline, whatever happens on its connection, so that the other
//! platforms of the slot get their turn; a connection whose flush was cancelled, ran late or failed is closed and
//! never used again, and one whose flush has an outcome that nobody knows is ended on the server, too, before
//! watermarks are read ([`Writers::end_doubtful`]): what was on its way there could be committed behind the reading.

use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::Chain;
use crate::model::ids::PlatformId;
use crate::store;
use crate::store::Class;
use crate::store::Database;
use crate::store::copy::Flush;
use crate::store::copy::Writer;
use crate::store::copy::WriterId;
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
    slots: Arc<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    writer: Mutex<Option<Writer>>,
    /// Connections that were opened and on which something may still be under way.
    doubtful: StdMutex<Vec<WriterId>>,
}

impl Slot {
    fn doubt(&self, id: WriterId) {
        self.with_doubtful(|doubtful| doubtful.push(id));
    }

    fn trust(&self, ended: &[WriterId]) {
        self.with_doubtful(|doubtful| doubtful.retain(|id| !ended.contains(id)));
    }

    fn with_doubtful<T>(&self, work: impl FnOnce(&mut Vec<WriterId>) -> T) -> T {
        work(&mut self.doubtful.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Writers {
    /// Connections are opened when first used.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self {
            database,
            deadline: FLUSH_DEADLINE,
            slots: (0..MOST_CONNECTIONS).map(|_| Slot::default()).collect(),
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
        let mut place = slot.writer.lock().await;
        // Taken out, so that a flush that fails, is cancelled or runs late leaves an empty slot and never a half-used
        // connection.
        let writer = place.take().filter(Writer::is_usable);
        let attempt = self.attempt(slot, writer, lease, flush);
        let (writer, written) = tokio::time::timeout(self.deadline, attempt)
            .await
            .unwrap_or_else(|_elapsed| Err(late()))?;
        *place = Some(writer);
        Ok(written)
    }

    /// Ends on the server what is left there of flushes of this platform's slot whose outcome is not known, and waits
    /// until it has ended. A connection that is closed here may live on there for a while: its COMMIT may wait for
    /// something, or still be on its way.
    ///
    /// # Errors
    /// When the database cannot be asked, or a connection does not end in time; then the outcome is still not known.
    pub async fn end_doubtful(&self, platform: PlatformId) -> Result<(), store::Error> {
        let Some(slot) = self.slot(platform) else {
            return Ok(());
        };
        let doubtful = {
            // While nobody writes: the flush of another platform that is under way is not abandoned.
            let _nobody_writes = slot.writer.lock().await;
            slot.with_doubtful(|doubtful| doubtful.clone())
        };
        if !doubtful.is_empty() {
            self.database.end_writers(&doubtful).await?;
            slot.trust(&doubtful);
        }
        Ok(())
    }

    async fn attempt(
        &self,
        slot: &Slot,
        writer: Option<Writer>,
        lease: &Lease,
        flush: &Flush,
    ) -> Result<(Writer, Written), store::Error> {
        let mut writer = match writer {
            Some(writer) => writer,
            None => self.database.writer().await?,
        };
        let direct = with_doubt(slot, writer.id(), Box::pin(writer.write(lease, flush))).await;
        match direct {
            Err(error) if error.class() == Class::Duplicate => {
                tracing::debug!(error = %Chain(&error), "some of a flush is stored already");
                // A COPY that fails may leave an answer behind on its connection that nobody waits for.
                let mut writer = self.database.writer().await?;
                let written =
                    with_doubt(slot, writer.id(), Box::pin(writer.write_staged(lease, flush))).await?;
                Ok((writer, written))
            }
            result => Ok((writer, result?)),
        }
    }

    fn slot(&self, platform: PlatformId) -> Option<&Slot> {
        let index = usize::try_from(platform.0).unwrap_or(0) % self.slots.len().max(1);
        self.slots.get(index)
    }
}

/// A flush on a connection that is in doubt until the server has answered, also when the flush is dropped.
async fn with_doubt(
    slot: &Slot,
    id: WriterId,
    write: impl Future<Output = Result<Written, store::Error>>,
) -> Result<Written, store::Error> {
    slot.doubt(id);
    let result = write.await;
    let is_known = match &result {
        Ok(_) => true,
        Err(error) => error.is_rolled_back() && error.class() != Class::Connection,
    };
    if is_known {
        slot.trust(&[id]);
    }
    result
}
