//! Somebody that the server knows: made by [`Access::authenticate`](super::Access::authenticate), and all that a handler is given.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_policy::{CallerName, Namespace};
use tokio_util::sync::CancellationToken;

/// How often a stream looks at the wall clock, which may be set.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Who calls, what they may do, and until when.
#[derive(Clone, Debug)]
pub struct Principal {
    /// What records call them: a token's name, a certificate's name, a JWT's subject.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
    /// By what they are known.
    pub method: Method,
    /// From when on the credential counts no more.
    pub expires: Option<SystemTime>,
    /// Cancelled when the credential is revoked.
    pub(super) revoked: CancellationToken,
}

/// What somebody may do. See [`rules`](super::rules) for what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads everything but tokens.
    Viewer,
    /// Changes policies and forces breakers too.
    Operator,
    /// Makes and ends tokens, and recovers the store, too.
    Admin,
    /// The replicas of one service.
    Agent {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        service: CallerName,
    },
}

/// What kind of somebody it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The server asks nobody who they are.
    Anonymous,
    /// A person, or a program of theirs.
    Operator,
    /// The replicas of a service.
    Service,
}

/// By what somebody is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By nothing: the server is open.
    None,
    /// By a token that the server made.
    Token,
    /// By the token that stands in a file of the server.
    BootstrapToken,
    /// By a certificate of the connection.
    Certificate,
    /// By a JWT.
    Jwt,
}

// === impl Principal ===

impl Principal {
    pub(super) fn anonymous(name: &str) -> Self {
        Self {
            name: name.into(),
            role: Role::Admin,
            method: Method::None,
            expires: None,
            revoked: CancellationToken::new(),
        }
    }

    /// What kind of somebody it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match (self.method, &self.role) {
            (Method::None, _) => Kind::Anonymous,
            (_, Role::Agent { .. }) => Kind::Service,
            (_, Role::Viewer | Role::Operator | Role::Admin) => Kind::Operator,
        }
    }

    /// Whether it may speak for a service's replicas. On an open server everybody may.
    #[must_use]
    pub fn speaks_for(&self, wanted_namespace: &Namespace, wanted_service: &CallerName) -> bool {
        match (&self.role, self.kind()) {
            (_, Kind::Anonymous) => true,
            (Role::Agent { namespace, service }, _) => namespace == wanted_namespace && service == wanted_service,
            (Role::Viewer | Role::Operator | Role::Admin, _) => false,
        }
    }

    /// Whether the credential still counts.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self, now: SystemTime) -> Result<(), Over> {
        if self.revoked.is_cancelled() {
            Err(Over::Revoked)
        } else if self.expires.is_some_and(|expires| expires <= now) {
            Err(Over::Expired)
        } else {
            Ok(())
        }
    }

    /// Waits until the credential counts no more.
    pub fn over(&self) -> impl Future<Output = Over> + Send + use<> {
        let (revoked, expires) = (self.revoked.clone(), self.expires);
        let expired = async move {
            let Some(expires) = expires else { return std::future::pending().await };
            while let Ok(left) = expires.duration_since(SystemTime::now()) {
                // A timer may fire a little before the wall clock says so.
                tokio::time::sleep(left.min(LOOK_EVERY).max(Duration::from_millis(1))).await;
            }
        };
        async move {
            tokio::select! {
                () = revoked.cancelled() => Over::Revoked,
                () = expired => Over::Expired,
            }
        }
    }
}

/// Why a credential counts no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its time is over.
    Expired,
    /// Somebody has ended it.
    Revoked,
}

// === impl Role ===

impl Role {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Agent { .. } => "agent",
        }
    }

    /// The role of a name; an agent's only with namespace and service. `None` for other names.
    #[must_use]
    pub fn of(name: &str, agent: Option<(Namespace, CallerName)>) -> Option<Self> {
        match (name, agent) {
            ("viewer", None) => Some(Self::Viewer),
            ("operator", None) => Some(Self::Operator),
            ("admin", None) => Some(Self::Admin),
            ("agent", Some((namespace, service))) => Some(Self::Agent { namespace, service }),
            _ => None,
        }
    }

    /// Whose replicas, for an agent.
    #[must_use]
    pub const fn agent(&self) -> Option<(&Namespace, &CallerName)> {
        match self {
            Self::Agent { namespace, service } => Some((namespace, service)),
            Self::Viewer | Self::Operator | Self::Admin => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { namespace, service } => write!(f, "agent of {namespace}/{service}"),
            Self::Viewer | Self::Operator | Self::Admin => f.write_str(self.name()),
        }
    }
}

// === impl Method ===

impl Method {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::BootstrapToken => "bootstrap-token",
            Self::Certificate => "certificate",
            Self::Jwt => "jwt",
        }
    }
}
