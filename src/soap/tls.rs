//! Which server certificate is trusted.
//!
//! Owns: turning the platform's [`Trust`] into a rustls configuration, and saying exactly why a certificate is
//! refused, with the thumbprint that would pin it.
//! Never does: falling back to less trust. The signature of the handshake is verified in every mode: even with
//! verification off, the server holds the key of the certificate that it shows.
//!
//! The crypto provider is passed explicitly; nothing depends on a process-wide default.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::OtherError;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use sha2::Digest as _;

use crate::config::Trust;
use crate::soap::xml::cut;

/// The SHA-256 of a certificate, as vSphere and openssl write it: upper-case pairs separated by colons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Thumbprint(pub [u8; 32]);

impl Thumbprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(sha2::Sha256::digest(certificate.as_ref()).into())
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a certificate is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nobody whom we trust has signed it.
    #[error("no trusted authority has signed it")]
    UnknownIssuer,
    /// Self-signed in the way of vCenter and ESXi: its own authority.
    #[error("it is its own authority")]
    SelfSigned,
    /// Past its end.
    #[error("it has expired")]
    Expired,
    /// Before its start.
    #[error("it is not valid yet; is this machine's clock right?")]
    NotYetValid,
    /// Issued for another name.
    #[error("it was issued for {issued}, not for {wanted}")]
    WrongName {
        /// The names in it.
        issued: String,
        /// The name that was called.
        wanted: String,
    },
    /// Not the pinned one.
    #[error("its thumbprint is not the configured {0}")]
    NotPinned(Thumbprint),
    /// Anything else, in the words of the verifier.
    #[error("{0}")]
    Other(String),
}

/// A certificate that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "certificate not trusted: {why}; compare its SHA-256 thumbprint with the server's own, then pin it with thumbprint = \"{thumbprint}\""
)]
pub struct Untrusted {
    /// Why.
    pub why: Distrust,
    /// What the server showed.
    pub thumbprint: Thumbprint,
}

/// Why there is no trust to work with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A CA file cannot be read.
    #[error("cannot read the CA file {path}; it must hold certificates in PEM form")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A CA file without a certificate.
    #[error("{path} holds no certificate; it must hold at least one in PEM form")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No system roots.
    #[error(
        "this system has no trusted authorities; install the package ca-certificates, or set ca_file or thumbprint"
    )]
    NoSystemRoots,
    /// rustls refuses the settings.
    #[error("the certificates cannot be used")]
    Verifier(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The client configuration for a platform.
///
/// # Errors
/// When roots cannot be read.
pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let judge = match trust {
        Trust::System => Judge::Roots(roots(system_roots()?, &provider)?),
        Trust::CaFile(path) => Judge::Roots(roots(file_roots(path)?, &provider)?),
        Trust::CaPem(pem) => Judge::Roots(roots(pem_roots(pem.as_bytes(), Path::new(GIVEN))?, &provider)?),
        Trust::Thumbprint(thumbprint) => Judge::Pin(Thumbprint(*thumbprint)),
        Trust::Off => Judge::Anyone,
    };
    let verifier = Arc::new(Verifier {
        judge,
        provider: Arc::clone(&provider),
    });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::Verifier(Box::new(source)))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // Single unreadable certificates among a hundred are the distribution's business.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        Err(Error::NoSystemRoots)
    } else {
        Ok(roots)
    }
}

/// What messages call authorities that are not from a file.
const GIVEN: &str = "the registry's copy of the CA file";

fn file_roots(path: &Path) -> Result<RootCertStore, Error> {
    let pem = std::fs::read(path).map_err(|source| Error::CaFile {
        path: path.to_owned(),
        source,
    })?;
    pem_roots(&pem, path)
}

fn pem_roots(pem: &[u8], path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|source| Error::CaFile {
            path: path.to_owned(),
            source: io::Error::other(source.to_string()),
        })?;
        roots
            .add(certificate)
            .map_err(|source| Error::Verifier(Box::new(source)))?;
    }
    if roots.is_empty() {
        Err(Error::NoCertificate {
            path: path.to_owned(),
        })
    } else {
        Ok(roots)
    }
}

fn roots(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|source| Error::Verifier(Box::new(source)))
}

/// Who decides about a certificate.
#[derive(Debug)]
enum Judge {
    /// A chain to one of the roots, the name and the dates.
    Roots(Arc<WebPkiServerVerifier>),
    /// Exactly this certificate; names and dates do not matter, it was looked at by a person.
    Pin(Thumbprint),
    /// Any certificate will do.
    Anyone,
}

#[derive(Debug)]
struct Verifier {
    judge: Judge,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Distrust> {
        match &self.judge {
            Judge::Roots(roots) => match roots.verify_server_cert(leaf, intermediates, name, ocsp, now) {
                Ok(_) => Ok(()),
                Err(error) => Err(distrust(error, name)),
            },
            Judge::Pin(wanted) if Thumbprint::of(leaf) == *wanted => Ok(()),
            Judge::Pin(wanted) => Err(Distrust::NotPinned(*wanted)),
            Judge::Anyone => Ok(()),
        }
    }
}

/// The words for what the verifier found.
fn distrust(error: rustls::Error, name: &ServerName<'_>) -> Distrust {
    let rustls::Error::InvalidCertificate(error) = error else {
        return Distrust::Other(error.to_string());
    };
    match error {
        // A bad signature is that of an authority of the same name with another key: vCenter's was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Distrust::UnknownIssuer,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Distrust::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Distrust::NotYetValid,
        CertificateError::NotValidForName => Distrust::WrongName {
            issued: "another name".to_owned(),
            wanted: name.to_str().into_owned(),
        },
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| plain_name(name)).collect();
            let issued = if names.is_empty() {
                "no name".to_owned()
            } else {
                // A certificate may hold thousands.
                cut(&names.join(", "))
            };
            Distrust::WrongName {
                issued,
                wanted: expected.to_str().into_owned(),
            }
        }
        // The certificates of a fresh vCenter, ESXi host or vcsim are authorities and leaves at once.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            Distrust::SelfSigned
        }
        other => Distrust::Other(cut(&other.to_string())),
    }
}

/// `DnsName("a.example")` of the verifier is `a.example` to people.
fn plain_name(name: &str) -> &str {
    name.split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .unwrap_or(name)
        .trim_matches('"')
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.judge(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(why) => {
                let untrusted = Untrusted {
                    why,
                    thumbprint: Thumbprint::of(end_entity),
                };
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(
                    OtherError(Arc::new(untrusted)),
                )))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The refusal inside an error of rustls, if it is one of ours.
pub(crate) fn untrusted(error: &rustls::Error) -> Option<Untrusted> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref::<Untrusted>().cloned()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::CertifiedIssuer;
    use rcgen::KeyPair;

    use super::*;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        /// A certificate for `vc.example`, valid from and to these years.
        fn leaf(&self, from: i32, to: i32) -> CertificateDer<'static> {
            self.leaf_for(vec!["vc.example".to_owned()], from, to)
        }

        fn leaf_for(&self, names: Vec<String>, from: i32, to: i32) -> CertificateDer<'static> {
            let mut params = CertificateParams::new(names).unwrap();
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
            params
                .signed_by(&KeyPair::generate().unwrap(), &self.0)
                .unwrap()
                .der()
                .clone()
        }

        fn trust(&self) -> (tempfile::TempDir, Trust) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ca.pem");
            std::fs::write(&path, self.0.pem()).unwrap();
            (directory, Trust::CaFile(path))
        }
    }

    fn verdict(trust: &Trust, leaf: &CertificateDer<'_>, name: &str) -> Result<(), Untrusted> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let judge = match trust {
            Trust::CaFile(path) => Judge::Roots(roots(file_roots(path).unwrap(), &provider).unwrap()),
            Trust::Thumbprint(thumbprint) => Judge::Pin(Thumbprint(*thumbprint)),
            Trust::Off | Trust::System | Trust::CaPem(_) => Judge::Anyone,
        };
        let verifier = Verifier { judge, provider };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        // 2026-01-31.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_769_853_600));
        match verifier.verify_server_cert(leaf, &[], &name, &[], now) {
            Ok(_) => Ok(()),
            Err(error) => Err(untrusted(&error).unwrap()),
        }
    }

    #[test]
    fn each_reason_for_distrust_is_told_apart_and_names_the_thumbprint() {
        let authority = Authority::new();
        let (_directory, trust) = authority.trust();
        let good = authority.leaf(2025, 2030);
        assert_eq!(verdict(&trust, &good, "vc.example"), Ok(()));
        let why = |leaf: &CertificateDer<'_>, name: &str| {
            let untrusted = verdict(&trust, leaf, name).unwrap_err();
            assert_eq!(untrusted.thumbprint, Thumbprint::of(leaf));
            untrusted.why
        };
        assert_eq!(why(&authority.leaf(2020, 2021), "vc.example"), Distrust::Expired);
        assert_eq!(
            why(&authority.leaf(2027, 2030), "vc.example"),
            Distrust::NotYetValid
        );
        assert_eq!(
            why(&good, "other.example"),
            Distrust::WrongName {
                issued: "vc.example".to_owned(),
                wanted: "other.example".to_owned()
            }
        );
        let many = (0..1000).map(|number| format!("vc-{number}.example")).collect();
        let refused = verdict(&trust, &authority.leaf_for(many, 2025, 2030), "other.example").unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("vc-0.example") && text.len() < 1000, "{text}");
        let stranger = Authority::new().leaf(2025, 2030);
        assert_eq!(why(&stranger, "vc.example"), Distrust::UnknownIssuer);
        // An authority that serves itself, as vcsim and fresh appliances do, even where it is a root.
        let itself = authority.0.der().clone();
        assert_eq!(why(&itself, "vc.example"), Distrust::SelfSigned);
    }

    #[test]
    fn a_pin_trusts_one_certificate_and_its_text_is_what_openssl_prints() {
        let leaf = Authority::new().leaf(2020, 2021);
        let thumbprint = Thumbprint::of(&leaf);
        assert_eq!(
            verdict(&Trust::Thumbprint(thumbprint.0), &leaf, "any.example"),
            Ok(())
        );
        let refused = verdict(&Trust::Thumbprint([0; 32]), &leaf, "any.example").unwrap_err();
        assert_eq!(refused.why, Distrust::NotPinned(Thumbprint([0; 32])));
        let text = Thumbprint(
            [0xAB, 1]
                .iter()
                .chain([0; 30].iter())
                .copied()
                .collect::<Vec<_>>()
                .try_into()
                .unwrap(),
        );
        assert!(text.to_string().starts_with("AB:01:00:"));
        assert_eq!(text.to_string().len(), 95);
    }

    #[test]
    fn a_file_without_a_certificate_is_no_trust() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        assert!(matches!(
            client_config(&Trust::CaFile(path)),
            Err(Error::NoCertificate { .. })
        ));
        let absent = Trust::CaFile(directory.path().join("absent.pem"));
        assert!(matches!(client_config(&absent), Err(Error::CaFile { .. })));
    }
}
