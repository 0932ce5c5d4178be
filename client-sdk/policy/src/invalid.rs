//! What is wrong with a definition, field by field.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// Path of the field in the manifest's spelling: `spec.pipeline[1].retry.maxAttempts`.
    pub field: String,
    /// What is wrong and what would be right. Lower case, no full stop.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// Everything that is wrong with a definition; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Invalid {
    violations: Vec<Violation>,
}

impl Invalid {
    /// One violation.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { violations: vec![Violation { field: field.into(), reason: reason.into() }] }
    }

    /// The violations, in the order of the definition.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The same faults, seen from further outside: `prefix` goes in front of each path.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for violation in &mut self.violations {
            violation.field = join(prefix, &violation.field);
        }
        self
    }
}

fn join(prefix: &str, field: &str) -> String {
    if field.is_empty() {
        prefix.to_owned()
    } else if field.starts_with('[') || prefix.is_empty() {
        format!("{prefix}{field}")
    } else {
        format!("{prefix}.{field}")
    }
}

/// Collects violations, so that several faults are reported together.
#[derive(Debug, Default)]
pub struct Faults {
    violations: Vec<Violation>,
}

impl Faults {
    /// Nothing wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes one fault.
    pub fn push(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.violations.push(Violation { field: field.into(), reason: reason.into() });
    }

    /// Notes a fault unless the condition holds.
    pub fn check(&mut self, holds: bool, field: &str, reason: impl Into<String>) {
        if !holds {
            self.push(field, reason);
        }
    }

    /// Takes the value, or notes its faults under a path.
    pub fn take<T>(&mut self, field: &str, result: Result<T, Invalid>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.violations.extend(invalid.under(field).violations);
                None
            }
        }
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// The value, if nothing was wrong.
    ///
    /// # Errors
    /// All faults that were noted.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Invalid> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ if self.violations.is_empty() => Err(Invalid::new("", "is required")),
            _ => Err(Invalid { violations: self.violations }),
        }
    }

    /// Nothing, if nothing was wrong.
    ///
    /// # Errors
    /// All faults that were noted.
    pub fn finish(self) -> Result<(), Invalid> {
        self.into_result(Some(()))
    }
}
