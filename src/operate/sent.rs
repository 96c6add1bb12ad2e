//! Calls that this collector has sent, for the case that the database forgets them.
//!
//! A fail-over to an asynchronous standby can lose the commit that wrote `sent_at`: the operation is back in the queue,
//! and its VM was restarted already. Whoever sent it knows better.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::model::operation::Seen;
use crate::units::Stamp;

/// Far longer than an operation may wait in the queue.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What is known of a call: the platform's time just before it, and what the VM looked like.
type Call = (Stamp, Seen);

/// The calls of one platform, over all terms of its lease.
#[derive(Debug, Default)]
pub struct Sent(Mutex<HashMap<Uuid, (Instant, Call)>>);

impl Sent {
    /// Notes a call that is about to be sent.
    pub(super) fn note(&self, id: Uuid, at_source: Stamp, seen: Seen) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        all.insert(id, (Instant::now(), (at_source, seen)));
    }

    /// The call of an operation, if it was sent.
    pub(super) fn call(&self, id: Uuid) -> Option<Call> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).map(|(_, call)| call.clone())
    }
}
