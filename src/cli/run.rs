//! `virt-collector run`: the service.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigFile, Failure, block_on};
use crate::app;
use crate::app::App;
use crate::clock::SystemClock;
use crate::clock::WallClock as _;
use crate::config;
use crate::config::Config;
use crate::error::Chain;
use crate::telemetry;
use crate::telemetry::logging::Logs;
use crate::telemetry::metrics::config_read;

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
        // The log counts what it loses.
        let metrics = telemetry::metrics::install().map_err(Failure::other)?;
        let logs = telemetry::logging::init(&config.log).map_err(Failure::settings)?;
        let ended = block_on(serve(config, metrics, &logs, &self.file.config));
        logs.farewell();
        ended
    }
}

async fn serve(
    config: Config,
    metrics: telemetry::metrics::Handle,
    logs: &Logs,
    file: &Path,
) -> Result<(), Failure> {
    // Before anything is started: the default of SIGTERM would kill without a farewell.
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Failure::other)?;
    let app = App::start(config, metrics).await.map_err(Failure::settings)?;
    config_read(true, SystemClock.now());
    let mut supervisor = Supervisor::new();
    supervisor.ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                supervisor.reloading();
                reload(&app, logs, file);
                supervisor.ready();
            }
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

/// Why a configuration was not taken over.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Logs(#[from] telemetry::logging::Error),
    #[error(transparent)]
    App(#[from] app::Error),
}

/// Reads the configuration again, all of it or nothing.
fn reload(app: &App, logs: &Logs, file: &Path) {
    let taken = take_over(app, logs, file);
    config_read(taken.is_ok(), SystemClock.now());
    if let Err(error) = taken {
        // Several problems are several lines in a terminal, and one in a log.
        let reason = Chain(&error).to_string();
        let reason: Vec<&str> = reason.lines().map(str::trim).collect();
        tracing::error!(
            error = reason.join(" "),
            "configuration refused; the one before stays in force"
        );
    }
}

fn take_over(app: &App, logs: &Logs, file: &Path) -> Result<(), Refused> {
    let config = Config::load(file)?;
    let filter = Logs::understand(&config.log)?;
    app.reload(config)?;
    logs.filter_by(filter);
    Ok(())
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

    fn reloading(&self) {
        let mut states = vec![sd_notify::NotifyState::Reloading];
        // systemd takes a READY=1 that was sent before for none.
        states.extend(sd_notify::NotifyState::monotonic_usec_now().ok());
        notify(&states);
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
