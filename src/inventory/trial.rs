//! A trial of a platform: whether it can be collected with these settings, what there is, and what its filter takes.
//!
//! Never does: keeping a session; changing anything on the server.

use std::sync::Arc;
use std::time::Duration;

use super::resolve::Taken;
use crate::config;
use crate::error::Chain;
use crate::model::filter::Filter;
use crate::model::inventory::PowerState;
use crate::units::Stamp;
use crate::vsphere::{About, Error, Options, Rollups, Vsphere};

/// Logging out.
const LOGOUT_DEADLINE: Duration = Duration::from_secs(5);

/// A clock that is off by more than this is worth a word.
const CLOCK_SKEW_MICROS: u64 = 10_000_000;

/// What a trial found.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The server.
    pub about: About,
    /// Its clock minus ours, in microseconds.
    pub clock_skew_micros: i64,
    /// Hosts that the account sees.
    pub n_hosts: usize,
    /// VMs that the account sees, templates included.
    pub n_vms: usize,
    /// Those of them that run.
    pub n_running: usize,
    /// What the filter takes of them; `None` where there is no filter.
    pub taken: Option<Taken>,
    /// What the account is on the root folder: vSphere's own roles by name, a site's by number.
    pub roles: Vec<String>,
    /// Counters that the server cannot give, and why; their columns stay NULL.
    pub unusable: Vec<String>,
    /// What it keeps for outages beyond the hour.
    pub rollups: Option<Arc<Rollups>>,
}

impl Trial {
    /// What an operator should know although the trial went well.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warnings = [
            self.sight_warning(),
            self.filter_warning(),
            self.counters_warning(),
            self.clock_warning(),
        ];
        warnings.into_iter().flatten().collect()
    }

    /// Where the account sees nothing.
    #[must_use]
    pub fn sight_warning(&self) -> Option<String> {
        (self.n_hosts == 0 && self.n_vms == 0).then(|| {
            "the account sees nothing: give it the Read-only role on the root folder, propagating".to_owned()
        })
    }

    /// Where the filter names what is not there, or takes nothing of what is.
    #[must_use]
    pub fn filter_warning(&self) -> Option<String> {
        let taken = self.taken.as_ref()?;
        if !taken.unknown.is_empty() {
            let shown = if taken.shown.is_empty() {
                "no datacenter".to_owned()
            } else {
                taken.shown.join(", ")
            };
            return Some(format!(
                "the filter names datacenters that the server does not show: {}; it shows {shown}",
                taken.unknown.join(", ")
            ));
        }
        let like = taken.example.as_ref()?;
        if !taken.unmatched.is_empty() {
            return Some(format!(
                "no host and no VM matches {}; paths of this server are like {like}",
                taken.unmatched.join(", ")
            ));
        }
        (taken.n_hosts == 0 && taken.n_vms == 0)
            .then(|| format!("the filter takes no host and no VM; paths of this server are like {like}"))
    }

    /// Where columns stay NULL.
    #[must_use]
    pub fn counters_warning(&self) -> Option<String> {
        (!self.unusable.is_empty()).then(|| {
            format!(
                "counters that cannot be used, their columns stay NULL: {}",
                self.unusable.join(", ")
            )
        })
    }

    /// Where the clocks differ.
    #[must_use]
    pub fn clock_warning(&self) -> Option<String> {
        (self.clock_skew_micros.unsigned_abs() > CLOCK_SKEW_MICROS).then(|| {
            format!(
                "its clock differs from this one by {} s: check NTP on both",
                self.clock_skew_micros / 1_000_000
            )
        })
    }
}

/// What is wrong and what to do, for a person who asked for a trial.
#[must_use]
pub fn reason(error: &Error) -> String {
    let reason = Chain(error).to_string();
    // That is for the service: a person may try again at once.
    let reason = reason.split("; next try not before ").next().unwrap_or_default();
    reason.to_owned()
}

/// Logs in, looks around, and logs out. `now` is our clock.
///
/// # Errors
/// When the platform cannot be collected with these settings; the message says what to do.
pub async fn try_platform(
    platform: &config::Platform,
    collection: &config::Collection,
    now: impl Fn() -> Stamp,
) -> Result<Trial, Error> {
    let vsphere = Vsphere::new(Options::new(platform, collection))?;
    let found = look(&vsphere, &platform.filter, now).await;
    vsphere.close(LOGOUT_DEADLINE).await;
    found
}

async fn look(vsphere: &Vsphere, filter: &Filter, now: impl Fn() -> Stamp) -> Result<Trial, Error> {
    let about = vsphere.connect().await?;
    let server_now = vsphere.server_time().await?;
    let clock_skew_micros = server_now.micros_since(now());
    // A server that does not say may be collected all the same.
    let roles = vsphere.roles().await.unwrap_or_default();
    let inventory = vsphere.discover().await?;
    let running = inventory.vms.iter().filter(|vm| vm.power == PowerState::On);
    let taken = if filter.is_open() {
        None
    } else {
        let tracker = vsphere.track(false).await?;
        Some(Taken::of(tracker.mirror(), filter))
    };
    let counters = vsphere.counters().await?;
    Ok(Trial {
        about,
        clock_skew_micros,
        n_hosts: inventory.hosts.len(),
        n_vms: inventory.vms.len(),
        n_running: running.count(),
        taken,
        roles,
        unusable: counters.unusable().iter().map(ToString::to_string).collect(),
        rollups: vsphere.rollups().await?,
    })
}
