//! What a simulator in another process published.
//!
//! Owns: the one request for it. In the same process `Simulator::truth` is the shorter way.

use std::net::SocketAddr;

use vsphere_simulator::Truth;

/// Why there is no truth.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control port did not answer.
    #[error("the simulator's control port gives no truth")]
    Http(#[from] crate::http::Error),
    /// It answered with an error.
    #[error("the simulator's control port answers {status}: {body}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// The answer is no truth.
    #[error("the simulator's truth cannot be read")]
    Json(#[from] serde_json::Error),
}

/// Fetches the truth from a simulator's control port.
///
/// # Errors
/// When nobody listens there, or the answer is not a truth.
pub async fn fetch(control: SocketAddr) -> Result<Truth, Error> {
    let (status, body) = crate::http::get(control, "/truth").await?;
    if !status.is_success() {
        let body = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(Error::Status {
            status: status.as_u16(),
            body,
        });
    }
    Ok(serde_json::from_slice(&body)?)
}
