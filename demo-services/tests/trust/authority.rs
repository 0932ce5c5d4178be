//! Certificate authorities of a test, and the files of those whom they sign.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};

/// One that signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of one who was signed.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        // Its own name: a certificate whose issuer has its own name is taken for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A new key and certificate for the server, in the place of what was there.
    pub(crate) fn server(&self, folder: &Path) -> Files {
        self.sign(folder, "server", vec![SanType::DnsName("localhost".try_into().unwrap())])
    }

    /// The same for somebody of this SPIFFE id.
    pub(crate) fn client(&self, folder: &Path, name: &str, id: &str) -> Files {
        self.sign(folder, name, vec![SanType::URI(id.try_into().unwrap())])
    }

    fn sign(&self, folder: &Path, name: &str, names: Vec<SanType>) -> Files {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        let files = Files { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
        replace(&files.key, &key.serialize_pem());
        replace(&files.certificate, &certificate);
        files
    }
}

/// Writes a file anew in one step, as tools that renew certificates do.
pub(crate) fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::rename(&fresh, path).unwrap();
}
