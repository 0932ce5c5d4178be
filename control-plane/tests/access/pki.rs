//! A certificate authority, and what it signs.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What a certificate says. Starts out as good for a day.
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) common_name: Option<String>,
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

impl Default for Leaf {
    fn default() -> Self {
        let now = SystemTime::now();
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86400));
        Self { uris: Vec::new(), dns: Vec::new(), common_name: None, from: now - hour, until: now + day }
    }
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn sign(&self, leaf: Leaf) -> Pair {
        let Leaf { uris, dns, common_name, from, until } = leaf;
        let mut params = CertificateParams::default();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        let dns = dns.into_iter().map(|name| SanType::DnsName(name.try_into().unwrap()));
        params.subject_alt_names = uris.chain(dns).collect();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let date = |time: SystemTime| rcgen::date_time_ymd(1970, 1, 1) + time.duration_since(UNIX_EPOCH).unwrap();
        (params.not_before, params.not_after) = (date(from), date(until));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// For `localhost`.
    pub(crate) fn server(&self) -> Pair {
        self.sign(Leaf { dns: vec!["localhost".to_owned()], ..Leaf::default() })
    }

    /// With one SPIFFE id.
    pub(crate) fn client(&self, uri: &str) -> Pair {
        self.sign(Leaf { uris: vec![uri.to_owned()], ..Leaf::default() })
    }
}

/// Files of a test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file in one step, as tools that renew certificates do.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let fresh = self.path(&format!("{name}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }
}
