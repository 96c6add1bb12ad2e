//! Platforms and trials as they are printed.

use serde_json::{Value, json};

use crate::config::Trust;
use crate::model::filter::Pattern;
use crate::store::registry::{Registered, Source};
use crate::units::Stamp;

/// The status in one word, or the word that explains why there is none.
pub(super) fn state(platform: &Registered) -> String {
    match &platform.status.class {
        _ if !platform.is_active => "inactive".to_owned(),
        Some(class) => format!("error:{class}"),
        None => platform.status.state.clone(),
    }
}

/// A platform as it is printed: everything but its password.
pub(super) fn shown(platform: &Registered) -> Value {
    let Registered {
        id,
        name,
        source,
        address,
        is_active,
        in_maintenance,
        revision: _,
        sync_asked_at: _,
        synced_at,
        status,
        sealed,
    } = platform;
    let (trust, thumbprint) = match &address.trust {
        // The file is named in config.toml alone.
        Trust::System | Trust::CaFile(_) if *source == Source::Config => ("config", None),
        Trust::System | Trust::CaFile(_) => ("system", None),
        Trust::CaPem(_) => ("ca", None),
        Trust::Thumbprint(bytes) => (
            "thumbprint",
            Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        ),
        Trust::Off => ("off", None),
    };
    let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
    let time = |stamp: Option<Stamp>| stamp.map(|stamp| stamp.to_string());
    json!({
        "name": name, "id": id.0, "type": address.kind.as_str(), "host": address.host, "port": address.port,
        "user": address.user, "source": source.as_str(), "trust": trust, "tls_verify": address.trust != Trust::Off,
        "thumbprint": thumbprint, "datacenters": address.filter.datacenters,
        "include": texts(&address.filter.include), "exclude": texts(&address.filter.exclude), "active": is_active, "maintenance": in_maintenance,
        "status": status.state, "class": status.class, "reason": status.reason,
        "since": time(Some(status.since)), "last_success": time(status.last_success_at),
        "last_sync": time(*synced_at), "version": status.version, "build": status.build,
        "api_type": status.api_type, "identity": status.identity, "collector": status.collector,
        "hosts": status.n_hosts, "vms": status.n_vms,
        "password": if *source == Source::Config || sealed.is_some() { "set" } else { "missing" },
    })
}
