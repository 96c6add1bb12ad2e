//! Calls that wait for something to happen: WaitForUpdatesEx.
//!
//! Owns: how long a call waits. Never decides what there is to tell: it asks again until there is something, the
//! client's time is up, or the session is gone.

use std::time::Duration;

use tokio::time::Instant;

use crate::methods::{self, Answer, Caller, Failure, Service};
use crate::rules::Effects;
use crate::soap::{Call, Request};

/// How often a waiting call looks.
const LOOK: Duration = Duration::from_millis(20);

/// A client that names no limit waits so long.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Answers a call, after waiting where it is one that waits.
pub(crate) async fn execute(
    service: &Service,
    request: &Request<'_>,
    caller: &Caller<'_>,
    effects: &Effects,
) -> Result<Answer, Failure> {
    let limit = match &request.call {
        Call::WaitForUpdatesEx { max_wait, .. } => {
            if let Some(cookie) = caller.cookie {
                methods::begin_wait(service, request, cookie);
            }
            let seconds = max_wait.map(|seconds| u64::try_from(seconds).unwrap_or_default());
            seconds.map_or(LONGEST, Duration::from_secs)
        }
        _ => Duration::ZERO,
    };
    let until = Instant::now() + limit;
    loop {
        let answer = methods::execute(service, request, caller, effects)?;
        if !answer.waits || Instant::now() >= until {
            return Ok(answer);
        }
        tokio::time::sleep(LOOK).await;
    }
}
