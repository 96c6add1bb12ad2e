//! Waiting for a state, level-triggered: look, and look again until the deadline, which tells what was seen last.

use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Time between two looks; no test's outcome depends on it.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `look` finds what it wants; its error says what it saw instead.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if tokio::time::Instant::now() > deadline => {
                panic!("not within {DEADLINE:?}: {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
