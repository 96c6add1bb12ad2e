//! Certificates for the SDK port, made anew at each start and whenever another one is asked for.

use std::fmt::Write as _;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, crypto};
use sha2::{Digest, Sha256};

use crate::spec::{Spec, TlsMode};

/// What the SDK port shows and what clients may trust.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    /// To trust: the CA, or the self-signed leaf itself.
    pub(crate) trust_pem: String,
    /// SHA-256 of the leaf.
    pub(crate) thumbprint: Vec<u8>,
    /// Who signs what is shown later; `None` where the first leaf signed itself.
    ca: Option<Arc<Ca>>,
}

type Ca = CertifiedIssuer<'static, KeyPair>;

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The generator failed.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The certificate was refused.
    #[error("cannot use the certificate")]
    Config(#[from] rustls::Error),
}

/// `None` = no TLS.
pub(crate) fn build(spec: &Spec) -> Result<Option<Tls>, TlsError> {
    if spec.tls == TlsMode::Plain {
        return Ok(None);
    }
    let ca = match spec.tls {
        TlsMode::SelfSigned => None,
        _ => Some(Arc::new(authority()?)),
    };
    let (config, leaf) = show(spec.tls, spec, ca.as_deref())?;
    let trust_pem = ca.as_ref().map_or_else(|| leaf.pem(), |ca| ca.pem());
    Ok(Some(Tls {
        config,
        trust_pem,
        thumbprint: Sha256::digest(leaf.der()).to_vec(),
        ca,
    }))
}

impl Tls {
    /// Another certificate, by the same authority where the mode has one.
    pub(crate) fn another(&self, mode: TlsMode, spec: &Spec) -> Result<Arc<ServerConfig>, TlsError> {
        let ca = match mode {
            TlsMode::SelfSigned => None,
            _ => self.ca.as_deref(),
        };
        show(mode, spec, ca).map(|(config, _)| config)
    }
}

fn authority() -> Result<Ca, TlsError> {
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.distinguished_name = subject("vsphere-simulator test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?)
}

/// A leaf as the mode wants it; signed by itself without a CA.
fn show(mode: TlsMode, spec: &Spec, ca: Option<&Ca>) -> Result<(Arc<ServerConfig>, Certificate), TlsError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if mode == TlsMode::OtherName {
        names = vec!["another.example.com".to_owned()];
    }
    names.extend(spec.tls_names.iter().cloned());
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name = subject("vsphere-simulator");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    match mode {
        TlsMode::Expired => leaf.not_after = rcgen::date_time_ymd(2019, 1, 1),
        TlsMode::NotYetValid => leaf.not_before = rcgen::date_time_ymd(2999, 1, 1),
        _ => {}
    }
    let key = KeyPair::generate()?;
    let leaf = match ca {
        None => leaf.self_signed(&key)?,
        Some(ca) => {
            leaf.use_authority_key_identifier_extension = true;
            leaf.signed_by(&key, ca)?
        }
    };
    let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), leaf))
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Upper-case hex, bytes separated by `separator`.
pub(crate) fn hex(bytes: &[u8], separator: &str) -> String {
    let mut out = String::new();
    for (number, byte) in bytes.iter().enumerate() {
        if number > 0 {
            out.push_str(separator);
        }
        // Writing to a String cannot fail.
        write!(out, "{byte:02X}").unwrap_or_default();
    }
    out
}
