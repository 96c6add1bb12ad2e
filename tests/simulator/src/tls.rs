//! Certificates for the SDK port, made anew at each start.

use std::fmt::Write as _;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose,
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
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if spec.tls == TlsMode::OtherName {
        names = vec!["another.example.com".to_owned()];
    }
    names.extend(spec.tls_names.iter().cloned());
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name = subject("vsphere-simulator");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    match spec.tls {
        TlsMode::Expired => leaf.not_after = rcgen::date_time_ymd(2019, 1, 1),
        TlsMode::NotYetValid => leaf.not_before = rcgen::date_time_ymd(2999, 1, 1),
        _ => {}
    }
    let key = KeyPair::generate()?;
    let (leaf, trust_pem) = match spec.tls {
        TlsMode::Plain => return Ok(None),
        TlsMode::SelfSigned => {
            let leaf = leaf.self_signed(&key)?;
            let pem = leaf.pem();
            (leaf, pem)
        }
        _ => {
            let mut ca = CertificateParams::new(Vec::<String>::new())?;
            ca.distinguished_name = subject("vsphere-simulator test CA");
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
            leaf.use_authority_key_identifier_extension = true;
            (leaf.signed_by(&key, &ca)?, ca.pem())
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
    Ok(Some(Tls {
        config: Arc::new(config),
        trust_pem,
        thumbprint: Sha256::digest(leaf.der()).to_vec(),
    }))
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
