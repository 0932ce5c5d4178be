//! Who calls, and what they may do.
//!
//! [`gate`] stands before every service. It makes a [`Principal`] from what the caller shows, a token, a certificate or a JWT, and looks
//! the RPC up in [`rules`]; handlers are given the principal and decide only what depends on the message, like whose replicas somebody
//! speaks for. A server that was told of no method asks nobody: it is *open*, which is for loopback and for tests.

pub mod certificate;
pub mod gate;
pub mod grants;
mod guarded;
#[cfg(feature = "jwt")]
pub mod jwt;
pub mod limits;
mod principal;
pub mod rules;
mod scope;
pub mod secret;
pub mod tokens;

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, header::AUTHORIZATION};
use tokio_util::sync::CancellationToken;

use self::{
    certificate::Certificate,
    grants::{Grant, role_of},
    limits::Limits,
    secret::{Digest, Secret},
    tokens::Tokens,
};
pub use principal::{Kind, Method, Over, Principal, Role};
pub use scope::Scope;

/// How callers become known.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether tokens count that the server made.
    pub tokens: bool,
    /// Whether certificates of connections count.
    pub certificates: bool,
    /// A token that stands in a file.
    pub bootstrap: Option<Bootstrap>,
    /// JWTs that count.
    #[cfg(feature = "jwt")]
    pub jwts: Option<jwt::Jwts>,
    /// What names of certificates and JWTs mean.
    pub grants: Vec<Grant>,
    /// How much one identity may ask for.
    pub limits: limits::Settings,
}

impl Settings {
    /// Whether nobody is asked.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        #[cfg(feature = "jwt")]
        if self.jwts.is_some() {
            return false;
        }
        !self.tokens && !self.certificates && self.bootstrap.is_none()
    }
}

/// A token that an operator put into a file of the server, for the first steps. Whoever has it is an admin as long as it stands there.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap(Arc<ArcSwapOption<Held>>);

#[derive(Debug)]
struct Held {
    digest: Digest,
    ended: CancellationToken,
}

impl Bootstrap {
    /// Shortest text that is taken: 128 bits in hex.
    pub const SHORTEST: usize = 32;

    /// Replaces the text, or takes it away; what was opened with the one before ends.
    pub fn set(&self, text: Option<&str>) {
        let digest = text.map(Digest::of);
        let before = self.0.load_full();
        if before.as_ref().map(|held| held.digest) == digest {
            return;
        }
        self.0.store(digest.map(|digest| Arc::new(Held { digest, ended: CancellationToken::new() })));
        if let Some(before) = before {
            before.ended.cancel();
        }
    }

    fn recognise(&self, text: &str) -> Option<Principal> {
        let held = self.0.load_full()?;
        held.digest.matches(&Digest::of(text)).then(|| Principal {
            name: "bootstrap".into(),
            role: Role::Admin(Scope::Everything),
            method: Method::BootstrapToken,
            expires: None,
            revoked: held.ended.clone(),
        })
    }
}

/// A cheap handle: who calls, and whether they may.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    tokens: Tokens,
    limits: Limits,
}

/// Why somebody is not known. The texts go to whoever asked: they say nothing that only an owner may know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing was shown.
    #[error("this server wants to know who calls: send a token (`authorization: Bearer ...`) or a client certificate")]
    Nothing,
    /// What was shown is of no kind that is known here.
    #[error("the authorization header must be one, of the form `Bearer ...`")]
    Malformed,
    /// The server takes no tokens, or has none like this.
    #[error("this token is not one of this server")]
    UnknownToken,
    /// Its time is over.
    #[error("the credential has expired: get another one")]
    Expired,
    /// Somebody has ended it.
    #[error("the credential was revoked")]
    Revoked,
    /// A certificate without a name that counts.
    #[error(
        "the client certificate has no SPIFFE id and no DNS name as its subject alternative name; a common name is none"
    )]
    Nameless,
    /// A certificate that can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// A JWT that does not count here.
    #[cfg(feature = "jwt")]
    #[error("this JWT does not count here: {0}")]
    BadJwt(&'static str),
    /// A name that has no role here.
    #[error("no role is granted to {0}")]
    NotGranted(String),
}

impl From<Over> for Refusal {
    fn from(over: Over) -> Self {
        match over {
            Over::Expired => Self::Expired,
            Over::Revoked => Self::Revoked,
        }
    }
}

impl Access {
    /// With these settings, and the tokens of a store.
    #[must_use]
    pub fn new(settings: Settings, tokens: Tokens) -> Self {
        let limits = Limits::new(settings.limits);
        Self(Arc::new(Inner { settings, tokens, limits }))
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    fn is_open(&self) -> bool {
        self.0.settings.is_open()
    }

    /// Who calls. A token counts before a certificate; one that does not count is refused, whatever else was shown.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<&Result<Certificate, certificate::Unreadable>>,
    ) -> Result<Principal, Refusal> {
        let settings = &self.0.settings;
        let principal = match (bearer(headers)?, certificate) {
            (Some(text), _) => self.bearer(text)?,
            (None, Some(certificate)) if settings.certificates => {
                let Certificate { names, expires } =
                    certificate.as_ref().map_err(|unreadable| Refusal::Unreadable(unreadable.to_string()))?;
                if names.is_empty() {
                    return Err(Refusal::Nameless);
                }
                let (role, name) =
                    role_of(&settings.grants, names).ok_or_else(|| Refusal::NotGranted(names.join(" or ")))?;
                Principal {
                    name: name.into(),
                    role,
                    method: Method::Certificate,
                    expires: Some(*expires),
                    revoked: CancellationToken::new(),
                }
            }
            (None, _) => return Err(Refusal::Nothing),
        };
        principal.check(SystemTime::now())?;
        Ok(principal)
    }

    fn bearer(&self, text: &str) -> Result<Principal, Refusal> {
        let settings = &self.0.settings;
        if let Some(principal) = settings.bootstrap.as_ref().and_then(|bootstrap| bootstrap.recognise(text)) {
            return Ok(principal);
        }
        #[cfg(feature = "jwt")]
        if let Some(jwts) = settings.jwts.as_ref().filter(|_| text.split('.').count() == 3) {
            return jwts.recognise(text, &settings.grants);
        }
        match Secret::parse(text) {
            Some(secret) if settings.tokens => self.0.tokens.recognise(&secret),
            Some(_) | None => Err(Refusal::UnknownToken),
        }
    }
}

/// The text after `Bearer`, if there is such a header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(header) = all.next() else { return Ok(None) };
    let text = header.to_str().map_err(|_| Refusal::Malformed)?;
    let (scheme, rest) = text.split_once(' ').ok_or(Refusal::Malformed)?;
    let rest = rest.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || rest.is_empty() || all.next().is_some() {
        return Err(Refusal::Malformed);
    }
    Ok(Some(rest))
}
