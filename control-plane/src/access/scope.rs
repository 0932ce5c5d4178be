//! How far a role goes: over everything, or over one namespace.

use std::fmt;

use fusebox_policy::Namespace;

/// How far a role goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Over every namespace, and over the server as a whole.
    Everything,
    /// Over one namespace: for its owner nothing else is there.
    Namespace(Namespace),
}

impl Scope {
    /// Whether it goes over a namespace.
    #[must_use]
    pub fn covers(&self, namespace: &Namespace) -> bool {
        self.covers_text(namespace.as_str())
    }

    /// The same for the name of a namespace, which may be none.
    #[must_use]
    pub fn covers_text(&self, namespace: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Namespace(own) => own.as_str() == namespace,
        }
    }

    /// The one namespace that it goes over; `None` for all.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Everything => None,
            Self::Namespace(own) => Some(own),
        }
    }
}

impl From<Option<Namespace>> for Scope {
    fn from(namespace: Option<Namespace>) -> Self {
        namespace.map_or(Self::Everything, Self::Namespace)
    }
}

/// As it stands behind the name of a role: nothing, or ` of shop`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => Ok(()),
            Self::Namespace(own) => write!(f, " of {own}"),
        }
    }
}
