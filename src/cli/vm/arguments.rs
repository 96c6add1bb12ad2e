//! What is typed after `virt-collector vm`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::client::{Client, url_of};
use crate::cli::{COMMON, ConfigFile, Failure};
use crate::config::{Trust, thumbprint};
use crate::model::inventory::PowerState;

/// Where the API is, and who asks.
#[derive(Debug, Args)]
pub(super) struct Api {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the API is, by scheme, host and port [default: api.listen of the configuration].
    #[arg(long, global = true, help_heading = COMMON, value_name = "URL")]
    api: Option<String>,
    /// The file with the token on its first line, mode 0600 [default: ~/.config/virt-collector/token].
    #[arg(long, global = true, help_heading = COMMON, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust what the authorities in this PEM file have signed.
    #[arg(long, global = true, help_heading = COMMON, value_name = "FILE", conflicts_with = "thumbprint")]
    ca_file: Option<PathBuf>,
    /// Trust the one certificate with this SHA-256 thumbprint.
    #[arg(long, global = true, help_heading = COMMON, value_name = "HEX")]
    thumbprint: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("no API is configured: set [api] listen in config.toml, or say where it is with --api URL")]
    NoApi,
    #[error("say which token to use with --token-file FILE")]
    NoToken,
    #[error("thumbprint: is not a SHA-256 thumbprint of 64 hexadecimal digits")]
    Thumbprint,
}

impl Api {
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let url = match &self.api {
            Some(url) => url.clone(),
            None => {
                let api = self.file.load()?.api.ok_or(Failure::settings(Problem::NoApi))?;
                url_of(api.listen, api.tls.is_some())
            }
        };
        let token_file = match &self.token_file {
            Some(file) => file.clone(),
            None => std::env::home_dir()
                .ok_or(Failure::usage(Problem::NoToken))?
                .join(".config/virt-collector/token"),
        };
        let trust = match (&self.ca_file, &self.thumbprint) {
            (Some(file), _) => Trust::CaFile(file.clone()),
            (None, Some(digits)) => {
                Trust::Thumbprint(thumbprint(digits).ok_or(Failure::usage(Problem::Thumbprint))?)
            }
            (None, None) => Trust::System,
        };
        Ok(Client::new(&url, &token_file, &trust)?)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// VMs, a line each
    List(List),
    /// Everything about one VM, its newest sample too
    Show(Which),
    /// Switch a VM on or off
    #[command(after_help = "Examples:\n  \
        virt-collector vm power on web-1\n  \
        virt-collector vm power off web-1 --confirm web-1\n  \
        virt-collector vm power shutdown-guest id:17")]
    Power(Power),
    /// Snapshots of a VM: list, create, revert to, remove
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Of this platform.
    #[arg(long, value_name = "NAME")]
    pub(super) platform: Option<String>,
    /// With this text in their name, in any case.
    #[arg(long, value_name = "TEXT")]
    pub(super) name: Option<String>,
    /// In this state.
    #[arg(long, value_enum)]
    pub(super) power_state: Option<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum State {
    On,
    Off,
    Suspended,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::On => PowerState::On.as_str(),
            Self::Off => PowerState::Off.as_str(),
            Self::Suspended => PowerState::Suspended.as_str(),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The VM: its name, or its key as in id:17.
    pub(super) vm: String,
    /// The platform that it is on, where several have a VM of this name.
    #[arg(long, value_name = "NAME")]
    pub(super) platform: Option<String>,
}

/// How an action is asked for.
#[derive(Debug, Args)]
pub(super) struct Act {
    /// The VM's exact name, to confirm what loses something; a terminal is asked where it is absent.
    #[arg(long, value_name = "NAME")]
    pub(super) confirm: Option<String>,
    /// Do not wait for the end.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Seconds to wait at most.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3600,
        conflicts_with = "no_wait"
    )]
    pub(super) wait: u64,
}

#[derive(Debug, Args)]
pub(super) struct Power {
    /// What to do.
    #[arg(value_enum)]
    pub(super) action: PowerAction,
    #[command(flatten)]
    pub(super) vm: Which,
    #[command(flatten)]
    pub(super) act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PowerAction {
    /// Power on
    On,
    /// Power off, as by pulling the plug
    Off,
    /// Reset, as by the button
    Reset,
    /// Suspend
    Suspend,
    /// Ask the guest to shut down
    ShutdownGuest,
    /// Ask the guest to reboot
    RebootGuest,
}

impl PowerAction {
    /// The last part of the path.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::On => "power-on",
            Self::Off => "power-off",
            Self::Reset => "reset",
            Self::Suspend => "suspend",
            Self::ShutdownGuest => "shutdown-guest",
            Self::RebootGuest => "reboot-guest",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// The tree of snapshots
    List(Which),
    /// Take a snapshot
    Create(CreateSnapshot),
    /// Go back to a snapshot: what came after it is lost
    Revert(OnSnapshot),
    /// Remove a snapshot; the VM stays as it is
    Remove(RemoveSnapshot),
    /// Remove all snapshots; the VM stays as it is
    RemoveAll(OfVm),
}

#[derive(Debug, Args)]
pub(super) struct CreateSnapshot {
    #[command(flatten)]
    pub(super) vm: Which,
    /// Its name.
    #[arg(long)]
    pub(super) name: String,
    /// What it is for.
    #[arg(long)]
    pub(super) description: Option<String>,
    /// With the memory of a running VM.
    #[arg(long)]
    pub(super) memory: bool,
    /// With the guest's file systems at rest; needs VMware Tools.
    #[arg(long)]
    pub(super) quiesce: bool,
    #[command(flatten)]
    pub(super) act: Act,
}

#[derive(Debug, Args)]
pub(super) struct OfVm {
    #[command(flatten)]
    pub(super) vm: Which,
    #[command(flatten)]
    pub(super) act: Act,
}

#[derive(Debug, Args)]
pub(super) struct OnSnapshot {
    #[command(flatten)]
    pub(super) vm: Which,
    /// The snapshot, as `vm snapshot list` shows it, such as snapshot-91.
    pub(super) snapshot: String,
    #[command(flatten)]
    pub(super) act: Act,
}

#[derive(Debug, Args)]
pub(super) struct RemoveSnapshot {
    #[command(flatten)]
    pub(super) on: OnSnapshot,
    /// Those on top of it as well.
    #[arg(long)]
    pub(super) children: bool,
}
