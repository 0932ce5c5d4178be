//! A certificate authority for a test, and the server's certificate.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// Files of TLS, PEM.
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    /// Makes them.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        // Another name than the server's: a certificate whose issuer has its own name is taken for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key can be made"))
            .expect("a CA can be made");
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).and_then(|params| params.signed_by(&key, &issuer));
        let certificate = certificate.expect("a certificate can be made");
        let keep = |name: &str, pem: String| {
            let path = folder.join(name);
            std::fs::write(&path, pem).expect("a file can be written");
            path
        };
        Self {
            ca: keep("ca.pem", issuer.pem()),
            certificate: keep("server.pem", certificate.pem()),
            key: keep("server.key", key.serialize_pem()),
        }
    }
}
