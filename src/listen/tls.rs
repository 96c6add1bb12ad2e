//! The server's side of TLS, and its certificate, which can be replaced while it runs.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::der::Decode as _;

use crate::config::TlsFiles;
use crate::error::Chain;
use crate::telemetry::metrics::certificate_shown;
use crate::units::Stamp;

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in the file.
    #[error(
        "cannot read a certificate from {path}; it must be a PEM file, the server's own certificate first"
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why; `None` where it holds none.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// No key in the file.
    #[error("cannot read a private key from {path}; it must be a PEM file that the service may read")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Others may read the key.
    #[error("the private key {path} can be read by everyone (mode {mode:o}); run: chmod o-rwx {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// They do not fit.
    #[error("the certificate of {certificate} and the key of {key} cannot be used together")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// A certificate with its key, ready to be shown.
#[derive(Debug, Clone)]
pub struct Certificate {
    shown: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// When one cannot be read, or they do not belong together.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let (shown, config) = read(files)?;
        Ok(Self {
            shown,
            config: Arc::new(config),
        })
    }

    /// Until when the server's own certificate is good; `None` where it does not say.
    #[must_use]
    pub fn good_until(&self) -> Option<Stamp> {
        let own = x509_cert::Certificate::from_der(self.shown.first()?).ok()?;
        let seconds = own
            .tbs_certificate
            .validity
            .not_after
            .to_unix_duration()
            .as_secs();
        i64::try_from(seconds).ok().map(Stamp::from_seconds)
    }
}

/// What a server shows and proves. Clones share it.
#[derive(Debug, Clone)]
pub struct Tls {
    current: Arc<RwLock<Certificate>>,
}

impl Tls {
    /// A server with this certificate.
    #[must_use]
    pub fn new(certificate: Certificate) -> Self {
        certificate_shown(certificate.good_until());
        Self {
            current: Arc::new(RwLock::new(certificate)),
        }
    }

    /// Shows this certificate to connections from now on; those that stand keep what they have. True where it is
    /// another than before.
    pub fn show(&self, certificate: Certificate) -> bool {
        certificate_shown(certificate.good_until());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, certificate);
        before.shown != current.shown
    }

    /// The handshake of a new connection; `None` where it fails or takes too long.
    pub(super) async fn accept(&self, stream: TcpStream, deadline: Duration) -> Option<TlsStream<TcpStream>> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config);
        match tokio::time::timeout(deadline, TlsAcceptor::from(current).accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(error = %Chain(&error), "no TLS with this caller");
                None
            }
            Err(_elapsed) => None,
        }
    }
}

fn read(files: &TlsFiles) -> Result<(Vec<CertificateDer<'static>>, ServerConfig), TlsError> {
    let refuse = |source| TlsError::Certificate {
        path: files.certificate.clone(),
        source,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|source| refuse(Some(source)))?;
    if chain.is_empty() {
        return Err(refuse(None));
    }
    let no_key = |source| TlsError::Key {
        path: files.key.clone(),
        source,
    };
    let file = File::open(&files.key).map_err(|error| no_key(rustls::pki_types::pem::Error::Io(error)))?;
    let metadata = file
        .metadata()
        .map_err(|error| no_key(rustls::pki_types::pem::Error::Io(error)))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        let path = files.key.clone();
        return Err(TlsError::Exposed { path, mode });
    }
    let key = PrivateKeyDer::from_pem_reader(file).map_err(no_key)?;
    let pair = |source| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((chain, config))
}
