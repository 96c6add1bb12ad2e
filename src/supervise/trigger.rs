//! Asking a loop for a turn out of turn, and waiting for what it did.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

/// Requests that may wait: a second one before the first is served asks for the same thing.
const CAPACITY: usize = 4;

/// The asking side.
#[derive(Debug)]
pub struct Trigger<R>(mpsc::Sender<oneshot::Sender<R>>);

impl<R> Clone for Trigger<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R> Trigger<R> {
    /// Asks for a turn and waits for its report; `None` when the loop ends before.
    pub async fn fire(&self) -> Option<R> {
        let (reply, report) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        report.await.ok()
    }
}

/// The loop's side. It outlives the loop, which ends and starts again with the platform's lease.
#[derive(Debug)]
pub struct Triggered<R>(Arc<Mutex<mpsc::Receiver<oneshot::Sender<R>>>>);

impl<R> Clone for Triggered<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Triggered<R> {
    /// Waits until somebody asks. Cancel safe.
    pub async fn asked(&self) -> oneshot::Sender<R> {
        match self.0.lock().await.recv().await {
            Some(reply) => reply,
            // Nobody is left who could ask.
            None => std::future::pending().await,
        }
    }
}

/// Both sides.
#[must_use]
pub fn trigger<R>() -> (Trigger<R>, Triggered<R>) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (Trigger(sender), Triggered(Arc::new(Mutex::new(receiver))))
}
