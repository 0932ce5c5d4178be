//! TLS of the server: from files to what a handshake uses, and the connections that come of it.
//!
//! TLS 1.3 only, with *ring*. No provider is installed for the process: each configuration names its own. Sessions are not resumed: a
//! client's certificate is looked at in each handshake.

pub mod accept;
pub mod reload;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::access::certificate::{Certificate, Unreadable};

/// The files of the server's certificate, and of those who sign clients'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who signs clients' certificates, PEM; `None`: clients show none.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away in the handshake.
    pub client_required: bool,
}

/// Files that make no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no PEM, or of something else.
    #[error("{path} holds no {what} in PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// It can't be understood.
    #[error("the certificate in {path} can't be used: {why}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Together they make no server.
    #[error("{certificate} and {key} make no server certificate")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Nobody can be checked against them.
    #[error("{path} holds no usable CA: {why}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What a handshake uses, and until when the server's certificate counts.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For the acceptor.
    pub config: Arc<ServerConfig>,
    /// From when on clients refuse the certificate.
    pub expires: SystemTime,
}

/// Who is at the other end of a connection, as far as it says so itself.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// From where.
    pub address: Option<SocketAddr>,
    /// What its certificate says, if it showed one.
    pub certificate: Option<Arc<Result<Certificate, Unreadable>>>,
    /// Whether the server has as many connections as it takes: it is told so, and nothing else.
    pub one_too_many: bool,
}

impl Files {
    /// Every file.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_ca).map(PathBuf::as_path)
    }

    /// Reads them. Blocks.
    ///
    /// # Errors
    /// Which file is of no use, and why.
    pub fn load(&self) -> Result<Loaded, TlsError> {
        let chain = certificates(&self.certificate)?;
        let bad = |why: String| TlsError::Certificate { path: self.certificate.clone(), why };
        let own = chain.first().ok_or_else(|| bad("it is missing".to_owned()))?;
        let expires = Certificate::read(own).map_err(|error| bad(error.to_string()))?.expires;
        if expires <= SystemTime::now() {
            return Err(bad(format!("it has expired on {}", humantime::format_rfc3339_seconds(expires))));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|_| TlsError::Pem { path: self.key.clone(), what: "private key" })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = |source| TlsError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(pair)?;
        let builder = match &self.client_ca {
            Some(path) => builder.with_client_cert_verifier(self.verifier(path, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Loaded { config: Arc::new(config), expires })
    }

    fn verifier(
        &self,
        path: &Path,
        provider: Arc<rustls::crypto::CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let bad = |why: String| TlsError::Ca { path: path.to_owned(), why };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = if self.client_required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| bad(error.to_string()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = || TlsError::Pem { path: path.to_owned(), what: "certificate" };
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
    if found.is_empty() { Err(bad()) } else { Ok(found) }
}
