//! Names, parsed once: past these types no code asks whether a name is well-formed.
//!
//! They are copied into every error that names its policy, so a name of at most 23 bytes lives in the value itself, and only a
//! longer one behind a counter that threads share.

use std::{borrow::Borrow, fmt};

use smol_str::SmolStr;

use crate::Invalid;

/// Longest id: the limit of DNS labels and of AIP-122 resource ids.
const MAX_ID: usize = 63;

fn check_id(text: &str) -> Result<(), Invalid> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.is_empty() {
        Err(Invalid::new("", "is required"))
    } else if text.len() > MAX_ID {
        Err(Invalid::new("", format!("must be at most {MAX_ID} characters, has {}", text.len())))
    } else if !text.chars().all(inner) || !text.starts_with(edge) || !text.ends_with(edge) {
        Err(Invalid::new("", format!("must be lower-case letters, digits and inner '-', not {text:?}")))
    } else {
        Ok(())
    }
}

/// Longest free name: of services, instances and zones.
const MAX_FREE: usize = 128;

fn check_free(text: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
    if text.is_empty() {
        Err(Invalid::new("", "is required"))
    } else if text.len() > MAX_FREE {
        Err(Invalid::new("", format!("must be at most {MAX_FREE} characters, has {}", text.len())))
    } else if !text.chars().all(allowed) {
        Err(Invalid::new("", format!("must be letters, digits and - _ . : /, not {text:?}")))
    } else {
        Ok(())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(SmolStr);

        impl $type {
            /// Parses the name.
            ///
            /// # Errors
            /// What is wrong with it, with an empty path.
            pub fn try_new(text: &str) -> Result<Self, Invalid> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A policy's id inside its namespace: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 characters.
    PolicyName,
    check_id
);
name!(
    /// A namespace's id; spelled like a policy's.
    Namespace,
    check_id
);
name!(
    /// The name of one element of a pipeline; spelled like a policy's.
    StrategyName,
    check_id
);
name!(
    /// A calling service: letters, digits and `- _ . : /`, at most 128 characters.
    CallerName,
    check_free
);
name!(
    /// A service that is called; spelled like a caller.
    TargetName,
    check_free
);
name!(
    /// One replica of a service; spelled like a caller.
    InstanceId,
    check_free
);
name!(
    /// A zone or cell; spelled like a caller. An opaque word of the operator.
    Zone,
    check_free
);

impl Namespace {
    /// The namespace of those who name none: `default`.
    #[must_use]
    pub fn default_namespace() -> Self {
        Self(SmolStr::new_static("default"))
    }
}

/// A store-wide revision: grows by one with each change of any policy. Zero is "before any change".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_lower_case_with_inner_dashes() {
        for good in ["a", "service-b", "0", "a--b"] {
            assert!(PolicyName::try_new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "ä", &"a".repeat(64)] {
            assert!(PolicyName::try_new(bad).is_err(), "{bad}");
        }
    }
}
