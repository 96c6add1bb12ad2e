//! What is typed after `virt-collector platform`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Problem;
use crate::cli::Failure;
use crate::cli::password::PasswordArgs;
use crate::config;
use crate::config::{PlatformKind, Trust};
use crate::registrar::Change;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a vCenter or ESXi host, after trying it.
    ///
    /// The password is asked for without echo, or read from standard input or a file; never from an argument or the
    /// environment. It is sealed with the primary key of the key ring: `virt-collector key init` makes one.
    #[command(after_help = "Examples:\n  \
        virt-collector platform add berlin --host vcenter.example.com --user virt-collector@vsphere.local\n  \
        virt-collector platform add esx7 --type esxi --host esx7.example.com --user root --thumbprint AB:CD:...\n  \
        pass show berlin | virt-collector platform add berlin --host vc --user u --password-stdin")]
    Add(Add),
    /// All platforms, a line each: how they fare, and since when
    List,
    /// Everything about one platform
    Show(Name),
    /// Change a platform; what is not given stays. Tried before it is kept
    Edit(Edit),
    /// Try to log in and look around, with the stored password; changes nothing
    Test(Name),
    /// Remove a platform and its password. Its objects and samples stay; adding the name again goes on with them
    Remove(Remove),
    /// Delete everything of a platform: samples, roll-ups, gaps, objects. It must have been removed, or be in maintenance
    ///
    /// Works with the account of [database.owner], in small steps that are told one by one; after an interruption the
    /// same command goes on. A platform that was removed is gone afterwards; one in maintenance keeps its settings, and
    /// starts anew when maintenance ends. The audit log stays, and tells of it. There is no way back.
    Wipe(Wipe),
    /// Have a platform collected again
    Activate(Name),
    /// Stop collecting a platform until it is activated; it keeps its settings
    Deactivate(Name),
    /// Pause a platform, or end the pause: no polling and no session. A pause of up to 50 minutes is filled afterwards
    Maintenance(Maintenance),
    /// Collect from the server that answers now, although it is not the one whose objects are stored
    AcceptIdentity(AcceptIdentity),
}

#[derive(Debug, Args)]
pub(super) struct Name {
    /// The platform.
    pub(super) name: String,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its name in tables, metrics and logs: letters, digits, '-', '_' and '.'.
    pub(super) name: String,
    /// Host name or address.
    #[arg(long)]
    pub(super) host: String,
    /// Account; Read-only on the root folder, propagating, is enough.
    #[arg(long)]
    pub(super) user: String,
    #[command(flatten)]
    pub(super) more: More,
    /// Keep it without collecting it.
    #[arg(long)]
    pub(super) inactive: bool,
}

#[derive(Debug, Args)]
pub(super) struct Edit {
    /// The platform.
    pub(super) name: String,
    /// Host name or address.
    #[arg(long)]
    pub(super) host: Option<String>,
    /// Account.
    #[arg(long)]
    pub(super) user: Option<String>,
    #[command(flatten)]
    pub(super) more: More,
    /// Ask for a new password.
    #[arg(long, conflicts_with_all = ["password_stdin", "password_file"])]
    pub(super) password: bool,
    /// Drop datacenters and patterns; those given beside it take their place.
    #[arg(long)]
    pub(super) clear_filters: bool,
}

/// What adding and editing share.
#[derive(Debug, Args)]
pub(super) struct More {
    /// What it is [default of add: vcenter].
    #[arg(long = "type", value_enum)]
    pub(super) kind: Option<Kind>,
    /// TCP port [default of add: 443].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    /// Trust what the authorities in this PEM file have signed; its text is kept in the registry.
    #[arg(long, value_name = "FILE", group = "trust")]
    pub(super) ca_file: Option<PathBuf>,
    /// Trust the one certificate with this SHA-256 thumbprint; a failed trial prints the server's.
    #[arg(long, value_name = "HEX", group = "trust")]
    pub(super) thumbprint: Option<String>,
    /// `true`: what the system trusts. `false`: any, so that whoever stands in between reads the password.
    #[arg(long, value_name = "BOOL", group = "trust")]
    pub(super) tls_verify: Option<bool>,
    /// Only this datacenter; may be repeated.
    #[arg(long = "datacenter", value_name = "NAME")]
    pub(super) datacenters: Vec<String>,
    /// Only hosts and VMs whose inventory path matches, such as '/Berlin/vm/Production/**'; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(super) include: Vec<String>,
    /// No host or VM whose inventory path matches; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(super) exclude: Vec<String>,
    #[command(flatten)]
    pub(super) password: PasswordArgs,
    /// Keep it although it was not tried.
    #[arg(long)]
    pub(super) untested: bool,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The platform.
    pub(super) name: String,
    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Wipe {
    /// The platform.
    pub(super) name: String,
    /// Its name once more: what is deleted cannot be had again.
    #[arg(long, value_name = "NAME")]
    pub(super) confirm: String,
}

#[derive(Debug, Args)]
pub(super) struct Maintenance {
    /// The platform.
    pub(super) name: String,
    /// Whether it is to be paused.
    pub(super) state: Switch,
}

#[derive(Debug, Args)]
pub(super) struct AcceptIdentity {
    /// The platform.
    pub(super) name: String,
    /// It is the same inventory with another identity, restored for example: its objects go on. Without this they end,
    /// and those of the new server are new ones.
    #[arg(long)]
    pub(super) keep_objects: bool,
    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Vcenter,
    Esxi,
}

impl From<Kind> for PlatformKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Vcenter => Self::VCenter,
            Kind::Esxi => Self::Esxi,
        }
    }
}

impl More {
    /// What is asked for; lists that are not given stay, unless they are to be cleared.
    pub(super) fn change(
        &self,
        host: Option<String>,
        user: Option<String>,
        clear_filters: bool,
    ) -> Result<Change, Failure> {
        let list = |given: &Vec<String>| (clear_filters || !given.is_empty()).then(|| given.clone());
        Ok(Change {
            kind: self.kind.map(PlatformKind::from),
            host,
            port: self.port,
            user,
            trust: self.trust()?,
            datacenters: list(&self.datacenters),
            include: list(&self.include),
            exclude: list(&self.exclude),
        })
    }

    fn trust(&self) -> Result<Option<Trust>, Failure> {
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read_to_string(path).map_err(|source| {
                Failure::other(Problem::CaFile {
                    path: path.clone(),
                    source,
                })
            })?;
            if CertificateDer::from_pem_slice(pem.as_bytes()).is_err() {
                return Err(Failure::other(Problem::NoCertificate(path.clone())));
            }
            return Ok(Some(Trust::CaPem(pem)));
        }
        if let Some(digits) = &self.thumbprint {
            let thumbprint = config::thumbprint(digits).ok_or_else(|| {
                Failure::usage(Problem::Value {
                    key: "thumbprint",
                    message: "is not a SHA-256 thumbprint of 64 hexadecimal digits".to_owned(),
                })
            })?;
            return Ok(Some(Trust::Thumbprint(thumbprint)));
        }
        Ok(self
            .tls_verify
            .map(|verify| if verify { Trust::System } else { Trust::Off }))
    }
}
