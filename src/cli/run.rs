//! `virt-collector run`: the service.

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigFile, Failure, block_on};
use crate::app::App;
use crate::config::Config;
use crate::error::Chain;
use crate::telemetry;

/// How often `systemctl status` gets a fresh line.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Collect, until SIGTERM or SIGINT: what the service runs.
///
/// SIGHUP has the configuration read again.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        telemetry::logging::init(&config.log).map_err(Failure::settings)?;
        let metrics = telemetry::metrics::install().map_err(Failure::other)?;
        block_on(serve(config, metrics))
    }
}

async fn serve(config: Config, metrics: telemetry::metrics::Handle) -> Result<(), Failure> {
    // Before anything is started: the default of SIGTERM would kill without a farewell.
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::other)?;
    let app = App::start(config, metrics).await.map_err(Failure::settings)?;
    let mut supervisor = Supervisor::new();
    supervisor.ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => app.reload(),
            () = app.failed() => break,
            () = supervisor.next_sign_of_life() => supervisor.tell(&app),
        }
    }
    supervisor.stopping();
    let stop = app.stop();
    tokio::select! {
        stopped = stop => stopped.map_err(Failure::other),
        _ = terminate.recv() => Err(Failure::Told),
        _ = interrupt.recv() => Err(Failure::Told),
    }
}

/// systemd, where it is there: readiness, a line of status, and the watchdog, fed only while loops turn.
struct Supervisor {
    every: Duration,
}

impl Supervisor {
    fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 3);
        Self {
            every: watchdog.unwrap_or(STATUS_INTERVAL).min(STATUS_INTERVAL),
        }
    }

    async fn next_sign_of_life(&self) {
        tokio::time::sleep(self.every).await;
    }

    fn ready(&self) {
        notify(&[sd_notify::NotifyState::Ready]);
    }

    fn tell(&mut self, app: &App) {
        let summary = app.summary();
        let mut states = vec![sd_notify::NotifyState::Status(&summary)];
        if app.makes_progress() {
            states.push(sd_notify::NotifyState::Watchdog);
        }
        notify(&states);
    }

    fn stopping(&self) {
        notify(&[sd_notify::NotifyState::Stopping]);
    }
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(error = %Chain(&error), "systemd does not listen");
    }
}
