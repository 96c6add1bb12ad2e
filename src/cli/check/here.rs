//! What is on this machine: files of secrets, the key ring, addresses to listen on.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Report, Tried};
use crate::cli::counted;
use crate::clock::{SystemClock, WallClock as _};
use crate::config::{Config, Password, TlsFiles};
use crate::error::Chain;
use crate::listen::tls::Certificate;
use crate::secret;
use crate::secret::{KeyFileError, key_file};
use crate::store::credential::Credential;
use crate::units::Stamp;

/// A certificate that runs out within this is told of, as the alert rules do.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// For an answer of what listens on this machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Password files: each is there, holds something, and is not open to everyone.
pub(super) fn secrets(config: &Config, report: &mut Report) {
    let accounts = std::iter::once(&config.database.writer).chain(&config.database.owner);
    let mut files: Vec<&PathBuf> = accounts
        .filter_map(|account| account.password_file.as_ref())
        .collect();
    files.extend(
        config
            .platforms
            .iter()
            .filter_map(|platform| match &platform.password {
                Password::File(path) => Some(path),
                Password::Sealed(_) | Password::Given(_) => None,
            }),
    );
    files.sort();
    files.dedup();
    let n_files = files.len();
    let mut is_well = true;
    for path in files {
        if let Err(error) = secret::read_file(path) {
            is_well = false;
            report.add(Tried::of("config", "secrets", Err::<String, _>(error)));
        }
    }
    if is_well && n_files > 0 {
        let message = format!("{}, closed to others", counted(n_files, "password file"));
        report.add(Tried::well("config", "secrets", message));
    }
}

/// The key ring, which must be there only where something is sealed.
pub(super) fn key_ring(file: &Path, credentials: &[Credential], report: &mut Report) {
    const THING: &str = "key ring";
    let ring = match key_file::load(file) {
        Ok(ring) => ring,
        Err(KeyFileError::Absent { .. }) if credentials.is_empty() => {
            let message = format!("none at {}, and nothing that needs one", file.display());
            report.add(Tried::well("keys", THING, message));
            return;
        }
        Err(error) => {
            report.add(Tried::of("keys", THING, Err::<String, _>(error)));
            return;
        }
    };
    let closed: Vec<&str> = credentials
        .iter()
        .filter(|credential| ring.open(credential.place, &credential.sealed).is_err())
        .map(|credential| credential.name.as_str())
        .collect();
    report.add(if closed.is_empty() {
        let sealed = match credentials.len() {
            0 => String::new(),
            n => format!(", opens {}", counted(n, "password")),
        };
        Tried::well("keys", THING, format!("{}{sealed}", file.display()))
    } else {
        let names = closed.join(", ");
        Tried::failed(
            "keys",
            THING,
            format!(
                "{} does not open the password of {names}: virt-collector key verify says why",
                file.display()
            ),
        )
    });
}

/// Addresses that the service listens on: free, or its own.
pub(super) async fn listeners(config: &Config, report: &mut Report) {
    let admin = config.admin.listen;
    let is_running = livez(admin).await;
    report.add(listener("admin", "admin.listen", admin, is_running).await);
    let Some(api) = &config.api else { return };
    report.add(listener("api", "api.listen", api.listen, is_running).await);
    if let Some(files) = &api.tls {
        report.add(certificate(files, SystemClock.now()));
    }
}

/// The certificate of the API, and for how long.
fn certificate(files: &TlsFiles, now: Stamp) -> Tried {
    const THING: &str = "certificate";
    let shown = match Certificate::read(files) {
        Ok(shown) => shown,
        Err(error) => return Tried::failed("api", THING, Chain(&error).to_string()),
    };
    let file = files.certificate.display();
    let Some(until) = shown.good_until() else {
        return Tried::well("api", THING, format!("{file}, with its key"));
    };
    if until <= now {
        let words = format!("{file} was good until {until}: replace it, then reload the service");
        return Tried::failed("api", THING, words);
    }
    let words = format!("{file}, with its key, good until {until}");
    if until <= now.plus(SOON) {
        return Tried::note("api", THING, format!("{words}: replace it soon"));
    }
    Tried::well("api", THING, words)
}

async fn listener(name: &str, key: &str, address: SocketAddr, is_running: bool) -> Tried {
    const THING: &str = "listen";
    match TcpListener::bind(address).await {
        Ok(_free) => Tried::well(name, THING, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_running => {
            Tried::well(name, THING, format!("{address} is in use by the running service"))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Tried::failed(
            name,
            THING,
            format!("{address} is in use by another program: end that, or choose another {key}"),
        ),
        Err(error) => Tried::failed(
            name,
            THING,
            format!("cannot listen on {address}: {error}; choose another {key}"),
        ),
    }
}

/// Whether what listens there answers as the service does.
async fn livez(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    match tokio::time::timeout(ANSWER_DEADLINE, asked).await {
        Ok(Ok(answer)) => answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"ok\n"),
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Level;
    use super::*;

    #[test]
    fn a_certificate_that_runs_out_is_told_of_before_and_after() {
        let directory = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: directory.path().join("api.pem"),
            key: directory.path().join("api.key"),
        };
        let mut parameters = rcgen::CertificateParams::new(["collector.example.com".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 5, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&files.certificate, parameters.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
        for (now, level, words) in [
            (
                "2031-05-16T23:59:59Z",
                Level::Ok,
                "good until 2031-05-31T00:00:00Z",
            ),
            ("2031-05-17T00:00:00Z", Level::Note, "replace it soon"),
            ("2031-05-30T23:59:59Z", Level::Note, "replace it soon"),
            (
                "2031-05-31T00:00:00Z",
                Level::Failed,
                "was good until 2031-05-31T00:00:00Z",
            ),
        ] {
            let tried = certificate(&files, now.parse().unwrap());
            assert!(
                tried.level == level && tried.message.contains(words),
                "{now}: {tried:?}"
            );
        }
    }
}
