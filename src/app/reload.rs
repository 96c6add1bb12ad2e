//! A configuration that is read again while the service runs.
//!
//! Owns: what of it is taken over, and that nothing of it is where something cannot work. Never does: reading the
//! file; starting or stopping platforms, which is the [`Registry`](super::registry)'s.
//!
//! | part | from when |
//! |---|---|
//! | `[[platform]]` | at once: one that is new starts, one that is gone stops, one that is another restarts |
//! | `[collection]`, `[inventory]` | at once: platforms restart, one after the other |
//! | `[retention]` | at once; what is too old now is dropped five minutes later at the earliest |
//! | `[api]`: limits, proxies, certificate | at once, for requests and connections from now on |
//! | `memory`, `[database]`, `keys.file`, addresses to listen on, whether the API speaks TLS, `log.format` | at the next start; a warning says so |
//!
//! `log.level` is taken over as well, by who set logs up.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::Error;
use super::fleet::Fleet;
use super::registry::{Configured, Wanted};
use crate::api;
use crate::config;
use crate::config::Config;
use crate::listen::tls::{Certificate, Tls};
use crate::store;
use crate::store::Owner;

/// The admin API, as far as it can be changed.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) context: api::Context,
    pub(super) tls: Option<Tls>,
}

/// Takes over what can be taken over.
#[derive(Debug)]
pub(super) struct Reload {
    /// What the service was started with; in force where a change waits for the next start.
    pub(super) started: Config,
    /// What was last taken over.
    pub(super) current: Mutex<Config>,
    pub(super) configured: watch::Sender<Configured>,
    pub(super) kept: watch::Sender<config::Retention>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) api: Option<Served>,
}

impl Reload {
    /// Tries everything, then takes it over.
    ///
    /// # Errors
    /// When something in it cannot work, as at a start; then nothing has changed.
    pub(super) fn take_over(&self, new: Config) -> Result<(), Error> {
        let certificate = self.attempt(&new)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = changed(&current, &new);
        if let Some(served) = &self.api {
            if let (Some(tls), Some(certificate)) = (&served.tls, certificate)
                && tls.show(certificate)
            {
                changed.push("the certificate of the API");
            }
            if let Some(api) = &new.api {
                served.context.take_over(api, &new.platforms, &new.collection);
            }
        }
        let configured = Configured::of(&new);
        self.configured.send_if_modified(|now| {
            let is_new = *now != configured;
            *now = configured;
            is_new
        });
        self.kept.send_if_modified(|now| {
            let is_new = *now != new.retention;
            *now = new.retention;
            is_new
        });
        if changed.is_empty() {
            tracing::info!("configuration read again, it is as before");
        } else {
            tracing::info!(
                changed = changed.join(", "),
                "configuration read again and taken over"
            );
        }
        let later = later(&self.started, &new);
        if !later.is_empty() {
            tracing::warn!(changed = later.join(", "), "takes effect at the next start");
        }
        *current = new;
        Ok(())
    }

    /// Whether all of it can work; with the certificate that the API is to show.
    fn attempt(&self, new: &Config) -> Result<Option<Certificate>, Error> {
        store::Settings::new(&new.database, &new.database.writer, &Owner::random())
            .map_err(Error::Settings)?;
        let configured = Configured::of(new);
        for platform in &new.platforms {
            let wanted = Wanted::configured(platform.clone(), Arc::clone(&configured.way));
            self.fleet
                .try_settings(&wanted)
                .map_err(|source| Error::Platform {
                    name: platform.name.clone(),
                    source,
                })?;
        }
        let files = new.api.as_ref().and_then(|api| api.tls.as_ref());
        Ok(files.map(Certificate::read).transpose()?)
    }
}

/// What is another than before and taken over at once.
fn changed(before: &Config, new: &Config) -> Vec<&'static str> {
    let limits = |config: &Config| {
        let api = config.api.as_ref();
        api.map(|api| (api.limits, api.trusted_proxies.clone(), api.tls.clone()))
    };
    let parts = [
        ("[[platform]]", before.platforms != new.platforms),
        ("[collection]", before.collection != new.collection),
        ("[inventory]", before.inventory != new.inventory),
        ("[retention]", before.retention != new.retention),
        (
            "[api]",
            before.api.is_some() && new.api.is_some() && limits(before) != limits(new),
        ),
        ("log.level", before.log.level != new.log.level),
    ];
    named(parts)
}

/// What is another than at the start and waits for the next one.
fn later(started: &Config, new: &Config) -> Vec<&'static str> {
    let listen = |config: &Config| config.api.as_ref().map(|api| api.listen);
    let speaks_tls = |config: &Config| config.api.as_ref().is_some_and(|api| api.tls.is_some());
    let (before, after) = (&started.database, &new.database);
    named([
        ("memory", started.memory != new.memory),
        // The owner's account is for `migrate` alone.
        (
            "[database]",
            (&before.writer, &before.tls) != (&after.writer, &after.tls),
        ),
        ("keys.file", started.keys != new.keys),
        ("admin.listen", started.admin != new.admin),
        ("api.listen", listen(started) != listen(new)),
        ("api.tls_certificate_file", speaks_tls(started) != speaks_tls(new)),
        ("log.format", started.log.format != new.log.format),
    ])
}

fn named<const N: usize>(parts: [(&'static str, bool); N]) -> Vec<&'static str> {
    let named = parts.into_iter().filter(|(_, is_other)| *is_other);
    named.map(|(name, _)| name).collect()
}
