//! Carries out what people ask for: power and snapshot actions on the VMs of a platform.
//!
//! Owns: the loop of one platform that takes operations out of the queue and brings each to its end, under the
//! platform's lease. `judge` decides what a state or a fault means, `one` takes the steps. Never does: deciding who may
//! ask for what.
//!
//! Tasks: `operations` per platform, under its lease; one that hears of new operations, [`hear`].
//!
//! Invariants:
//! - The call of an action is sent at most once, whatever is killed: `sent_at` is committed behind the fence before it,
//!   and who finds it written looks what became of the call. A database that loses the commit in a fail-over does not
//!   make its collector send again, either: [`Sent`].
//! - Nothing is guessed: where neither tasks nor the VM tell, the end is `unknown`, with the reason.
//! - A VM is looked at just before; if it is another one than was asked for, nothing is done.
//! - At most [`AT_ONCE`] operations are at work per platform, in its sessions and within its limit of requests.

mod judge;
mod one;
mod sent;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Chain;
use crate::model::operation::Operation;
use crate::operate::one::{Hands, Left};
pub use crate::operate::sent::Sent;
use crate::store;
use crate::store::{Class, Database, Lease, Listener};
use crate::telemetry::metrics::PlatformMetrics;
use crate::vsphere::Vsphere;

/// Operations at work at once. Most of their time is waiting for the platform; as many may be open.
pub const AT_ONCE: usize = 8;

/// How often the queue is looked at although nothing was heard.
const LOOK: Duration = Duration::from_secs(5);

/// After a failed attempt to listen.
const RETRY: Duration = Duration::from_secs(5);

/// How long operations at work may take to come to a point where another collector can go on: the answer to a call.
const DRAIN: Duration = Duration::from_secs(15);

/// The loop of one platform.
#[derive(Debug)]
pub struct Operate {
    /// The fence of everything it writes.
    pub lease: Lease,
    /// The queue.
    pub database: Database,
    /// Whom to ask.
    pub vsphere: Vsphere,
    /// Changes when there may be something to do.
    pub asked: watch::Receiver<u64>,
    /// Calls that this collector has sent, in this term or an earlier one.
    pub sent: Arc<Sent>,
    /// Cancelled when the platform turns out to be another collector's.
    pub lost: CancellationToken,
    /// Counts.
    pub metrics: PlatformMetrics,
}

impl Operate {
    /// Carries out operations until `stopping`, then leaves those at work where another collector can go on.
    pub async fn run(self, stopping: CancellationToken) {
        let hands = Hands {
            lease: self.lease.clone(),
            database: self.database.clone(),
            vsphere: self.vsphere.clone(),
            stopping: stopping.clone(),
            sent: Arc::clone(&self.sent),
            same_server: OnceCell::new(),
        };
        let mut asked = self.asked.clone();
        let mut at_work = FuturesUnordered::new();
        let mut ids: HashSet<Uuid> = HashSet::new();
        let mut look_at = Instant::now();
        let mut failing = false;
        while !stopping.is_cancelled() {
            let looked = {
                let mut look = std::pin::pin!(self.look(&mut asked, look_at));
                loop {
                    tokio::select! {
                        () = stopping.cancelled() => break None,
                        Some(id) = at_work.next(), if !at_work.is_empty() => {
                            ids.remove(&id);
                            // One that was kept back may take its place.
                            if ids.len() + 1 == AT_ONCE {
                                break None;
                            }
                        }
                        looked = &mut look => break Some(looked),
                    }
                }
            };
            let open = match looked {
                Some(Ok(open)) => open,
                Some(Err(error)) => {
                    // Told once per trouble.
                    if !error.is_outage() && !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %Chain(&error), "cannot read the queue of operations; trying again");
                    }
                    look_at = Instant::now() + LOOK;
                    continue;
                }
                None => {
                    look_at = Instant::now();
                    continue;
                }
            };
            failing = false;
            look_at = Instant::now() + LOOK;
            self.metrics.operations_open(open.len());
            for operation in open {
                if ids.len() < AT_ONCE && ids.insert(operation.id) {
                    at_work.push(self.carry_out(&hands, operation));
                }
            }
        }
        let drained = async { while at_work.next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(
                "actions were left in the middle of a call; who takes the platform looks what became of them"
            );
        }
        self.metrics.operations_open(0);
    }

    /// Waits until it is time, or there is something to do, and reads the queue.
    async fn look(
        &self,
        asked: &mut watch::Receiver<u64>,
        at: Instant,
    ) -> Result<Vec<Operation>, store::Error> {
        let told = async {
            if asked.changed().await.is_err() {
                // Nobody tells any more: everything stops.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = told => {}
            () = tokio::time::sleep_until(at) => {}
        }
        self.database.open_operations(self.lease.platform).await
    }

    async fn carry_out(&self, hands: &Hands, operation: Operation) -> Uuid {
        let id = operation.id;
        let action = operation.action.as_str();
        let vm = operation.vm_name.clone().unwrap_or_default();
        match hands.carry_out(operation).await {
            Ok(end) => {
                self.metrics.operation_ended(action, end.state().as_str());
                let (code, detail) = match &end {
                    crate::model::operation::End::Succeeded(_) => ("ok", ""),
                    crate::model::operation::End::Failed(code, detail)
                    | crate::model::operation::End::Unknown(code, detail) => (code.as_str(), detail.as_str()),
                };
                tracing::info!(operation = %id, %action, vm, state = %end.state().as_str(), %code, detail, "an action ended");
            }
            Err(Left::Fenced) => self.lost.cancel(),
            Err(Left::Stopping | Left::Ended) => {}
        }
        id
    }
}

/// Tells of operations that enter any queue, until `stopping`. One connection for all platforms of this collector; while it
/// is lost, their own looks at the queue make it good.
pub async fn hear(database: Database, asked: watch::Sender<u64>, stopping: CancellationToken) {
    let mut listener: Option<Listener> = None;
    let mut failing = false;
    loop {
        let heard = async {
            match &listener {
                Some(listener) => listener.heard().await,
                None => false,
            }
        };
        let heard = tokio::select! {
            () = stopping.cancelled() => return,
            heard = heard => heard,
        };
        if !heard {
            if listener.take().is_some() {
                // One after the other may be lost as soon as it is there.
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
            let listening = tokio::select! {
                () = stopping.cancelled() => return,
                listening = database.listen_to_operations() => listening,
            };
            listener = match listening {
                Ok(new) => {
                    failing = false;
                    Some(new)
                }
                Err(error) => {
                    let is_told = error.is_outage() || error.class() == Class::Schema;
                    if std::mem::replace(&mut failing, true) || is_told {
                        tracing::debug!(error = %Chain(&error), "cannot listen for operations");
                    } else {
                        tracing::warn!(error = %Chain(&error), "cannot listen for operations; looking every {} s", LOOK.as_secs());
                    }
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                    None
                }
            };
        }
        asked.send_modify(|n| *n = n.wrapping_add(1));
    }
}
