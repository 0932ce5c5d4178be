//! Somebody that the server knows: made by [`Access::authenticate`](super::Access::authenticate), and all that a handler is given.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_policy::{CallerName, Namespace};
use tokio_util::sync::CancellationToken;

use super::scope::Scope;

/// How often a stream looks at the wall clock, which may be set.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Who calls, what they may do, and until when.
#[derive(Clone, Debug)]
pub struct Principal {
    /// What records call them: a token's name, behind its namespace if it has one; a certificate's name, a JWT's subject.
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
    Viewer(Scope),
    /// Changes policies and forces breakers too.
    Operator(Scope),
    /// Makes and ends tokens, and recovers the store, too.
    Admin(Scope),
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
            role: Role::Admin(Scope::Everything),
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
            (_, Role::Viewer(_) | Role::Operator(_) | Role::Admin(_)) => Kind::Operator,
        }
    }

    /// Whether it may speak for a service's replicas. On an open server everybody may.
    #[must_use]
    pub fn speaks_for(&self, wanted_namespace: &Namespace, wanted_service: &CallerName) -> bool {
        match (&self.role, self.kind()) {
            (_, Kind::Anonymous) => true,
            (Role::Agent { namespace, service }, _) => namespace == wanted_namespace && service == wanted_service,
            (Role::Viewer(_) | Role::Operator(_) | Role::Admin(_), _) => false,
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
            Self::Viewer(_) => "viewer",
            Self::Operator(_) => "operator",
            Self::Admin(_) => "admin",
            Self::Agent { .. } => "agent",
        }
    }

    /// The role of a name: an agent's with namespace and service, others without a service, and bound to the namespace if there is one.
    /// `None` for what is no role.
    #[must_use]
    pub fn of(name: &str, namespace: Option<Namespace>, service: Option<CallerName>) -> Option<Self> {
        match (name, namespace, service) {
            ("viewer", namespace, None) => Some(Self::Viewer(namespace.into())),
            ("operator", namespace, None) => Some(Self::Operator(namespace.into())),
            ("admin", namespace, None) => Some(Self::Admin(namespace.into())),
            ("agent", Some(namespace), Some(service)) => Some(Self::Agent { namespace, service }),
            _ => None,
        }
    }

    /// The one namespace that it goes over: an agent's, or the one that it is bound to.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Agent { namespace, .. } => Some(namespace),
            Self::Viewer(scope) | Self::Operator(scope) | Self::Admin(scope) => scope.namespace(),
        }
    }

    /// Of which service's replicas, for an agent.
    #[must_use]
    pub const fn service(&self) -> Option<&CallerName> {
        match self {
            Self::Agent { service, .. } => Some(service),
            Self::Viewer(_) | Self::Operator(_) | Self::Admin(_) => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent { namespace, service } => write!(f, "agent of {namespace}/{service}"),
            Self::Viewer(scope) | Self::Operator(scope) | Self::Admin(scope) => write!(f, "{}{scope}", self.name()),
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
