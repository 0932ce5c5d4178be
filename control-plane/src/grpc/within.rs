//! What of the namespaces a caller may see and change: the credential says it, and a message may only name less.
//!
//! Every handler of a row that is `Namespaced` in [`rules`](crate::access::rules) asks here, before it looks anything up.

use fusebox_policy::Namespace;
use fusebox_proto::v1;
use tonic::{Request, Status};

use super::{principal, status};
use crate::access::{Principal, Scope};

/// The namespaces of a caller.
#[derive(Clone, Debug)]
pub(super) struct Within {
    principal: Principal,
    scope: Scope,
}

impl Within {
    /// Those of whoever makes this request.
    ///
    /// # Errors
    /// It came past the gate.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let principal = principal(request)?;
        let scope = principal.role.namespace().cloned().into();
        Ok(Self { principal, scope })
    }

    /// How far the caller's role goes.
    pub(super) const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Refuses a namespace that is not the caller's.
    pub(super) fn check(&self, namespace: &Namespace) -> Result<(), Status> {
        self.check_text(namespace.as_str())
    }

    /// The same for what a message calls a namespace.
    pub(super) fn check_text(&self, namespace: &str) -> Result<(), Status> {
        if self.scope.covers_text(namespace) { Ok(()) } else { Err(status::other_namespace(&self.principal)) }
    }

    /// Refuses the name of a breaker that is not of the caller's namespace. Names that are none are nobody's.
    pub(super) fn check_breaker(&self, name: &str) -> Result<(), Status> {
        match name.strip_prefix("breakers/").and_then(|key| key.split('/').next()) {
            Some(namespace) => self.check_text(namespace),
            None => Ok(()),
        }
    }

    /// What is meant where a namespace may be named: the named one, else the caller's own. `None` for all.
    ///
    /// # Errors
    /// It is not the caller's.
    pub(super) fn narrow(&self, named: Option<Namespace>) -> Result<Option<Namespace>, Status> {
        match named {
            Some(namespace) => {
                self.check(&namespace)?;
                Ok(Some(namespace))
            }
            None => Ok(self.scope.namespace().cloned()),
        }
    }

    /// The same as text, empty for all.
    pub(super) fn narrow_text(&self, named: String) -> Result<String, Status> {
        if !named.is_empty() {
            self.check_text(&named)?;
            return Ok(named);
        }
        Ok(self.scope.namespace().map(ToString::to_string).unwrap_or_default())
    }

    /// Binds the breakers that a message names to the caller's namespace.
    pub(super) fn narrow_key(&self, key: Option<v1::BreakerKey>) -> Result<Option<v1::BreakerKey>, Status> {
        let Some(key) = key else { return Ok(None) };
        let namespace = self.narrow_text(key.namespace)?;
        Ok(Some(v1::BreakerKey { namespace, ..key }))
    }

    /// An override as the caller may see it; `None` for those of another namespace. Of one on all namespaces, which is on the caller's
    /// breakers too, not which replicas of others have heard of it.
    pub(super) fn shown(&self, mut own: v1::Override) -> Option<v1::Override> {
        let selector = own.selector.as_ref().map(|selector| selector.namespace.as_str()).unwrap_or_default();
        if self.scope.covers_text(selector) {
            return Some(own);
        }
        if !selector.is_empty() {
            return None;
        }
        (own.acknowledged, own.unacknowledged) = (0, Vec::new());
        Some(own)
    }

    /// A breaker of the caller's namespace as the caller may see it.
    pub(super) fn shown_breaker(&self, breaker: v1::Breaker) -> v1::Breaker {
        let r#override = breaker.r#override.and_then(|own| self.shown(own));
        v1::Breaker { r#override, ..breaker }
    }
}
