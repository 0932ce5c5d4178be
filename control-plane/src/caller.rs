//! Who makes a change, and from where: what the audit log keeps of it.

use crate::{
    access::{Method, Principal},
    store::RequestKey,
};

/// How the server knows who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// It does not: the name is what the caller says, or an address.
    None,
    /// It is the server itself.
    Server,
    /// It is whoever works on the database of a server that does not run.
    Local,
    /// They have shown what the server knows them by.
    Known(Method),
}

impl Authentication {
    /// Its name in the audit log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Server => "server",
            Self::Local => "local",
            Self::Known(method) => method.name(),
        }
    }
}

/// Who makes a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Their name.
    pub name: String,
    /// How the name is known.
    pub authentication: Authentication,
    /// Address of the peer, with port; empty if there is no connection.
    pub address: String,
    /// Id of the request, to find it in logs; empty if there was none.
    pub request_id: String,
}

impl Caller {
    /// Somebody that nobody was asked about.
    #[must_use]
    pub fn unauthenticated(name: impl Into<String>) -> Self {
        Self::new(name, Authentication::None)
    }

    /// Somebody whom the server knows.
    #[must_use]
    pub fn known(principal: &Principal) -> Self {
        Self::new(&*principal.name, Authentication::Known(principal.method))
    }

    /// Somebody at the machine, with the database in their hands.
    #[must_use]
    pub fn local(name: impl Into<String>) -> Self {
        Self::new(name, Authentication::Local)
    }

    /// A part of the server that acts by itself: `fleet`, `server`.
    #[must_use]
    pub fn server(name: &str) -> Self {
        Self::new(name, Authentication::Server)
    }

    /// The same, in a request that has an id of its own.
    #[must_use]
    pub fn asking(self, key: Option<&RequestKey>) -> Self {
        match key {
            Some(key) => Self { request_id: key.id.clone(), ..self },
            None => self,
        }
    }

    fn new(name: impl Into<String>, authentication: Authentication) -> Self {
        Self { name: name.into(), authentication, address: String::new(), request_id: String::new() }
    }
}
