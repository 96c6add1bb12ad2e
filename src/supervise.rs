//! Named tasks and their end.
//!
//! Owns: [`Tasks`], the only place that spawns tasks, but for the one that moves a database connection's bytes
//! (`store::connect`); asking a loop for a turn out of turn ([`trigger`]). Never does: restarting; a loop that can
//! meet trouble handles it itself, so that a task's end is either asked for or a defect.
//!
//! Invariants: every task has a name and is waited for; a task that ends by a panic, or unasked while it is
//! critical, stops everything, because a daemon that lives without its flush loop only looks alive.

pub mod trigger;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// A group of tasks that stop together.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
    running: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// A group of its own.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            failed: CancellationToken::new(),
            running: Arc::default(),
        }
    }

    /// A group whose stop follows from this one's, and whose failures are this one's.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
            failed: self.failed.clone(),
            running: Arc::default(),
        }
    }

    /// Cancelled when the group is asked to stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Cancelled when a task failed.
    #[must_use]
    pub fn failed(&self) -> CancellationToken {
        self.failed.clone()
    }

    /// Asks the group to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Starts a task that runs until the group stops. Its end before that is a failure of the group.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns: named, tracked, supervised"
    )]
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let span = tracing::debug_span!("task", name = %name);
        let inner = tokio::spawn(task.instrument(span));
        let group = self.clone();
        let key = group.enter(&name);
        self.tracker.spawn(async move {
            let ended = inner.await;
            group.leave(key);
            match ended {
                Ok(()) if group.stop.is_cancelled() => {}
                Ok(()) => {
                    tracing::error!(task = %name, "task ended although nobody asked it to; stopping");
                    group.failed.cancel();
                }
                Err(error) => {
                    tracing::error!(task = %name, error = end(&error), "task failed; stopping");
                    group.failed.cancel();
                }
            }
        });
    }

    /// Starts a task that may end by itself, and ends at once when the group stops. It is tracked and waited for like
    /// the others; its panic is logged.
    pub fn spawn_transient(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_for_a_while(name, Duration::ZERO, task);
    }

    /// As [`Tasks::spawn_transient`], for a task that knows of the stop itself: it has `farewell` to come to its end.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns: named, tracked, supervised"
    )]
    pub fn spawn_for_a_while(
        &self,
        name: &'static str,
        farewell: Duration,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut inner = tokio::spawn(task.instrument(tracing::debug_span!("task", name)));
        let group = self.clone();
        let key = group.enter(name);
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let stopped = async {
                stop.cancelled().await;
                tokio::time::sleep(farewell).await;
            };
            let ended = tokio::select! {
                ended = &mut inner => ended,
                () = stopped => {
                    inner.abort();
                    Ok(())
                }
            };
            group.leave(key);
            if let Err(error) = ended {
                tracing::error!(task = name, error = end(&error), "task failed");
            }
        });
    }

    /// Waits until every task has ended, at most `deadline`. Returns the names of those that have not.
    pub async fn join(&self, deadline: Duration) -> Vec<String> {
        self.tracker.close();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_elapsed) => self.names().values().cloned().collect(),
        }
    }

    fn enter(&self, name: &str) -> u64 {
        let mut running = self.names();
        let key = running.last_key_value().map_or(0, |(key, _)| key + 1);
        running.insert(key, name.to_owned());
        key
    }

    fn leave(&self, key: u64) {
        self.names().remove(&key);
    }

    fn names(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its message may hold what was being worked on; the panic hook knows what may be said.
fn end(error: &JoinError) -> &'static str {
    if error.is_panic() {
        "a panic, as standard error says"
    } else {
        "it was aborted"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_ends_unasked_fails_the_group() {
        let tasks = Tasks::new();
        tasks.spawn("ends", async {});
        tasks.failed().cancelled().await;

        let parent = Tasks::new();
        let child = parent.child();
        child.spawn("panics", async { panic!("on purpose") });
        parent.failed().cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_a_group_stops_its_children_and_names_those_that_hang() {
        let parent = Tasks::new();
        let child = parent.child();
        let stopping = child.stopping();
        child.spawn("obeys", async move { stopping.cancelled().await });
        child.spawn("hangs", std::future::pending());
        parent.stop();
        assert_eq!(child.join(Duration::from_secs(5)).await, ["hangs"]);
        assert!(!parent.failed().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_end_by_itself_ends_with_the_group_some_of_it_after_a_farewell() {
        let tasks = Tasks::new();
        tasks.spawn_transient("at once", std::future::pending());
        let (sender, said) = tokio::sync::oneshot::channel();
        let stopping = tasks.stopping();
        tasks.spawn_for_a_while("says good-bye", Duration::from_secs(10), async move {
            stopping.cancelled().await;
            tokio::time::sleep(Duration::from_secs(9)).await;
            sender.send(()).unwrap();
        });
        tasks.spawn_for_a_while("does not end", Duration::from_secs(10), std::future::pending());
        tasks.stop();
        assert_eq!(tasks.join(Duration::from_secs(8)).await.len(), 2);
        assert!(tasks.join(Duration::from_secs(3)).await.is_empty());
        said.await.unwrap();
    }
}
