//! What this process shows to the control plane, and how it knows the control plane: TLS and a token.
//!
//! Files are read anew for each connection, so that what was renewed counts from the next one on. Nothing in here is ever printed. A file
//! that can't be read keeps the process from connecting and from nothing else: policies stay in force.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use tonic::{
    metadata::AsciiMetadataValue,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri},
};

use crate::error::SetupError;

/// TLS to the control plane, for an `https://` address. Without a CA the system's CAs count.
#[derive(Clone, Default)]
#[must_use]
pub struct Tls {
    ca: Option<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
}

#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Text(_) => f.write_str(".."),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.identity.as_ref().map(|(certificate, _)| certificate);
        f.debug_struct("Tls")
            .field("ca", &self.ca)
            .field("certificate", &certificate)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// The system's CAs, and no certificate of our own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file with those who may sign the control plane's certificate, PEM. Read anew for each connection.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(Pem::File(path.into()));
        self
    }

    /// The same as text.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Pem::Text(pem.into()));
        self
    }

    /// The files of this process's own certificate and its key, PEM. Read anew for each connection.
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// The same as text.
    pub fn identity_pem(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((Pem::Text(certificate.into()), Pem::Text(key.into())));
        self
    }

    /// The name that must be in the control plane's certificate. Default: the host of the address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// As the environment says: `FUSEBOX_CA`, `FUSEBOX_CERT` and `FUSEBOX_KEY`.
    fn from_env(env: &impl Fn(&str) -> Option<String>) -> Result<Self, SetupError> {
        let mut tls = Self::new();
        if let Some(path) = env("FUSEBOX_CA") {
            tls = tls.ca_file(path);
        }
        match (env("FUSEBOX_CERT"), env("FUSEBOX_KEY")) {
            (Some(certificate), Some(key)) => Ok(tls.identity_files(certificate, key)),
            (None, None) => Ok(tls),
            (Some(_), None) | (None, Some(_)) => Err(SetupError::HalfIdentity),
        }
    }
}

/// Where a token comes from.
#[derive(Clone)]
pub(crate) enum Token {
    Text(AsciiMetadataValue),
    File(PathBuf),
}

/// What the builder was told.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) tls: Option<Tls>,
    pub(crate) token: Option<Token>,
    pub(crate) plaintext_token: bool,
}

/// What each connection begins with.
#[derive(Clone)]
pub(crate) struct Credentials {
    tls: Option<Tls>,
    token: Option<Token>,
}

/// A file that is of no use now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no token", .0.display())]
    NoToken(PathBuf),
    #[error("TLS to the control plane is not possible: {0}")]
    Tls(String),
    #[error("reading the credentials was cut off")]
    CutOff,
}

pub(crate) fn token_text(text: &str) -> Option<AsciiMetadataValue> {
    let text = text.trim();
    let mut value: AsciiMetadataValue = format!("Bearer {text}").parse().ok().filter(|_| !text.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

impl Credentials {
    /// Completes what the builder was told by what the environment says.
    pub(crate) fn new(told: Told, address: &Uri, env: impl Fn(&str) -> Option<String>) -> Result<Self, SetupError> {
        let Told { tls, token, plaintext_token } = told;
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let secure = address.scheme_str() == Some("https");
        if tls.is_some() && !secure {
            return Err(SetupError::IdleTls { address: address.to_string() });
        }
        let tls = match (tls, secure) {
            (Some(tls), _) => Some(tls),
            (None, true) => Some(Tls::from_env(&env)?),
            (None, false) => None,
        };
        let token = match (token, env("FUSEBOX_TOKEN"), env("FUSEBOX_TOKEN_FILE")) {
            (Some(token), ..) => Some(token),
            (None, Some(text), _) => Some(Token::Text(token_text(&text).ok_or(SetupError::BadToken)?)),
            (None, None, path) => path.map(|path| Token::File(path.into())),
        };
        if token.is_some() && !secure && !plaintext_token && !is_loopback(address) {
            return Err(SetupError::PlaintextToken { address: address.to_string() });
        }
        Ok(Self { tls, token })
    }

    /// For a connection that begins now: where to, and what to show.
    pub(crate) async fn read(&self, endpoint: &Endpoint) -> Result<(Endpoint, Option<AsciiMetadataValue>), Unusable> {
        if self.tls.is_none() && !matches!(self.token, Some(Token::File(_))) {
            let token = match &self.token {
                Some(Token::Text(text)) => Some(text.clone()),
                Some(Token::File(_)) | None => None,
            };
            return Ok((endpoint.clone(), token));
        }
        let (own, endpoint) = (self.clone(), endpoint.clone());
        tokio::task::spawn_blocking(move || own.read_now(endpoint)).await.unwrap_or(Err(Unusable::CutOff))
    }

    fn read_now(self, endpoint: Endpoint) -> Result<(Endpoint, Option<AsciiMetadataValue>), Unusable> {
        let token = match self.token {
            Some(Token::Text(text)) => Some(text),
            Some(Token::File(path)) => {
                let text = String::from_utf8_lossy(&read(&path)?).into_owned();
                Some(token_text(&text).ok_or(Unusable::NoToken(path))?)
            }
            None => None,
        };
        let Some(Tls { ca, identity, server_name }) = self.tls else { return Ok((endpoint, token)) };
        let mut config = match ca {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem.read()?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = identity {
            config = config.identity(Identity::from_pem(certificate.read()?, key.read()?));
        }
        if let Some(name) = server_name {
            config = config.domain_name(name);
        }
        let endpoint = endpoint.tls_config(config).map_err(|error| {
            let mut why = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                why = inner.to_string();
                cause = inner.source();
            }
            Unusable::Tls(why)
        })?;
        Ok((endpoint, token))
    }
}

impl Pem {
    fn read(self) -> Result<Vec<u8>, Unusable> {
        match self {
            Self::File(path) => read(&path),
            Self::Text(text) => Ok(text),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    std::fs::read(path).map_err(|source| Unusable::Read { path: path.to_owned(), source })
}

fn is_loopback(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(address: &str, told: Told, env: &[(&str, &str)]) -> Result<Credentials, SetupError> {
        let env = |name: &str| env.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Credentials::new(told, &address.parse().unwrap(), env)
    }

    fn told(text: &str) -> Told {
        Told { token: token_text(text).map(Token::Text), ..Told::default() }
    }

    #[test]
    fn a_token_goes_out_in_plain_text_only_on_this_machine_or_when_told_so() {
        for near in ["http://127.0.0.1:7443", "http://[::1]:7443", "http://localhost:7443", "https://far.example.org"] {
            assert!(credentials(near, told("fbx_x"), &[]).is_ok(), "{near}");
        }
        for far in ["http://far.example.org", "http://10.0.0.1:7443", "http://localhost.evil.org"] {
            assert!(matches!(credentials(far, told("fbx_x"), &[]), Err(SetupError::PlaintextToken { .. })), "{far}");
            assert!(credentials(far, Told { plaintext_token: true, ..told("fbx_x") }, &[]).is_ok(), "{far}");
            assert!(credentials(far, Told::default(), &[]).is_ok(), "{far}");
        }
    }

    #[test]
    fn the_environment_stands_in_for_what_code_leaves_out() {
        let env = [("FUSEBOX_TOKEN", "te"), ("FUSEBOX_CA", "/ca"), ("FUSEBOX_CERT", "/c"), ("FUSEBOX_KEY", "/k")];
        let found = credentials("https://x", Told::default(), &env).unwrap();
        assert!(matches!(&found.token, Some(Token::Text(text)) if text.to_str().unwrap() == "Bearer te"));
        assert_eq!(
            format!("{:?}", found.tls.unwrap()),
            "Tls { ca: Some(\"/ca\"), certificate: Some(\"/c\"), server_name: None, .. }"
        );
        let code = Told { tls: Some(Tls::new().ca_pem("x")), ..told("tc") };
        let found = credentials("https://x", code, &env).unwrap();
        assert!(matches!(&found.token, Some(Token::Text(text)) if text.to_str().unwrap() == "Bearer tc"));
        assert!(found.tls.unwrap().identity.is_none());
        assert!(credentials("http://127.0.0.1:1", Told::default(), &env).unwrap().tls.is_none());
        let half = credentials("https://x", Told::default(), &[("FUSEBOX_CERT", "/c")]);
        assert!(matches!(half, Err(SetupError::HalfIdentity)));
        let file = credentials("https://x", Told::default(), &[("FUSEBOX_TOKEN_FILE", "/t")]).unwrap();
        assert!(matches!(file.token, Some(Token::File(path)) if path == Path::new("/t")));
    }

    #[test]
    fn what_can_not_be_is_told_at_the_start() {
        let idle = Told { tls: Some(Tls::new()), ..Told::default() };
        assert!(matches!(credentials("http://127.0.0.1:1", idle, &[]), Err(SetupError::IdleTls { .. })));
        let bad = credentials("https://x", Told::default(), &[("FUSEBOX_TOKEN", "two\nlines")]);
        assert!(matches!(bad, Err(SetupError::BadToken)));
    }
}
