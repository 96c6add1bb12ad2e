//! A platform's status: what the loops saw, as one word and one line in `virt_platform`.
//!
//! Logs a change once, where it happens, and writes it behind the fence; a status that cannot be written is tried
//! again with the next look.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::collect::live;
use crate::error::Chain;
use crate::inventory;
use crate::model::status::ErrorClass;
use crate::model::status::PlatformState;
use crate::model::status::PlatformStatus;
use crate::store::Database;
use crate::store::Lease;
use crate::telemetry::metrics::platform_status;

/// How often a status is written although nothing changed: a sign of life in the table.
const REFRESH: Duration = Duration::from_secs(60);

/// The status loop of one platform.
#[derive(Debug)]
pub(super) struct Status {
    /// Its name, for the metric.
    pub(super) platform: String,
    pub(super) lease: Lease,
    pub(super) database: Database,
    pub(super) discovery: watch::Receiver<inventory::Health>,
    pub(super) live: watch::Receiver<live::Health>,
}

impl Status {
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let mut told: Option<PlatformStatus> = None;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                Ok(()) = self.discovery.changed() => {}
                Ok(()) = self.live.changed() => {}
                () = tokio::time::sleep(REFRESH) => {}
            }
            let Some(status) = self.current() else { continue };
            if told.as_ref() != Some(&status) {
                tell(told.as_ref(), &status);
            }
            platform_status(&self.platform, status.state);
            told = Some(status.clone());
            if let Err(error) = self.database.set_status(&self.lease, &status).await {
                tracing::debug!(error = %Chain(&error), "cannot write the platform's status");
            }
        }
    }

    /// Discovery speaks first: without it nothing is polled. `None` before anything is known.
    fn current(&self) -> Option<PlatformStatus> {
        let about = match &*self.discovery.borrow() {
            inventory::Health::Unknown => return None,
            inventory::Health::Failed(error) => {
                // A database that is away says nothing about the platform.
                let class = class(error)?;
                return Some(in_error(class, Chain(error.as_ref()).to_string()));
            }
            inventory::Health::Well(about) => std::sync::Arc::clone(about),
        };
        let mut status = match &*self.live.borrow() {
            live::Health::Unknown | live::Health::Well => PlatformStatus::of(PlatformState::Connected),
            live::Health::Failed(error) => in_error(error.class(), Chain(error.as_ref()).to_string()),
        };
        status.version = Some(about.version.clone());
        status.build = Some(about.build.clone());
        status.api_type = Some(about.kind.api_type().to_owned());
        Some(status)
    }
}

fn class(error: &inventory::Error) -> Option<ErrorClass> {
    match error {
        inventory::Error::Source(error) => Some(error.class()),
        inventory::Error::Identity { .. } => Some(ErrorClass::Identity),
        inventory::Error::Store(_) => None,
    }
}

fn in_error(class: ErrorClass, reason: String) -> PlatformStatus {
    PlatformStatus {
        reason: Some(reason),
        ..PlatformStatus::of(PlatformState::Error(class))
    }
}

fn tell(before: Option<&PlatformStatus>, now: &PlatformStatus) {
    let was_connected = before.is_some_and(|before| before.state == PlatformState::Connected);
    match now.state {
        PlatformState::Error(class) => {
            // The same trouble is told once; its operation ids differ with every call.
            if before.is_none_or(|before| before.state != now.state) {
                tracing::error!(
                    class = class.as_str(),
                    error = now.reason.as_deref().unwrap_or_default(),
                    "platform in error; trying again"
                );
            }
        }
        PlatformState::Connected if before.is_some() && !was_connected => {
            tracing::info!("platform well again")
        }
        PlatformState::Connected | PlatformState::Disconnected | PlatformState::Maintenance => {}
    }
}
