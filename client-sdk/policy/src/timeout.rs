//! Limits how long the inside may take.

use std::time::Duration;

use crate::{Invalid, invalid::Faults};

/// Settings of a timeout. The machine is one deadline, kept by the pipeline's call: at the limit the inside is dropped,
/// not awaited, and its permits go back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutSpec {
    duration: Duration,
    scope: TimeoutScope,
    propagate_header: Option<String>,
}

/// Until when a response counts as arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimeoutScope {
    /// Until the response head is there.
    #[default]
    Head,
    /// Until the whole body has been read.
    Body,
}

impl TimeoutSpec {
    /// A limit on the inside.
    ///
    /// # Errors
    /// If the duration is zero, or the header's name is not one.
    pub fn try_new(duration: Duration, scope: TimeoutScope, propagate_header: Option<String>) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        faults.check(!duration.is_zero(), "duration", "must be greater than zero");
        if let Some(name) = &propagate_header {
            faults.take(
                "propagateHeader",
                crate::condition::HeaderRule::try_new(name, None)
                    .map_err(|_| Invalid::new("", format!("{name:?} is not a header name"))),
            );
        }
        faults.into_result(Some(Self { duration, scope, propagate_header }))
    }

    /// The limit.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// Until when a response counts as arrived.
    #[must_use]
    pub const fn scope(&self) -> TimeoutScope {
        self.scope
    }

    /// The header that carries the remaining milliseconds downstream, if asked for.
    #[must_use]
    pub fn propagate_header(&self) -> Option<&str> {
        self.propagate_header.as_deref()
    }
}
