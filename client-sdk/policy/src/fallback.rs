//! Answers in place of a failed inside.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Invalid, TargetName,
    condition::{Classifier, Conditions, fallback_default},
    invalid::Faults,
};

/// Settings of a fallback. It has no state: the pipeline's call asks whether it applies, the shell carries it out and
/// hands its result back, which is checked like any other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FallbackSpec {
    classifier: Classifier,
    with: FallbackWith,
}

/// What a fallback answers with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FallbackWith {
    /// A fixed response, a fresh one each time.
    Response(StaticResponse),
    /// An error with this text.
    Error(String),
    /// A function that the service registered under this name.
    Function(String),
    /// The same call to another target. That target's own policy does not apply to it.
    Target(TargetName),
    /// The last good response of the same request.
    Stale(StaleSpec),
}

/// A fixed response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StaticResponse {
    /// HTTP status, 100 to 599.
    pub status: u16,
    /// Headers, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// Body, at most 64 KiB.
    pub body: String,
}

impl Default for StaticResponse {
    fn default() -> Self {
        Self { status: 200, headers: BTreeMap::new(), body: String::new() }
    }
}

/// How old and how many last good responses may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StaleSpec {
    /// Older ones are not used.
    pub max_age: Duration,
    /// Responses kept per target.
    pub max_entries: u32,
    /// Largest body kept, in bytes.
    pub max_body_bytes: u32,
}

impl StaleSpec {
    /// Responses kept per target, by default.
    pub const DEFAULT_MAX_ENTRIES: u32 = 100;
    /// Largest body kept, by default.
    pub const DEFAULT_MAX_BODY_BYTES: u32 = 64 * 1024;
}

/// Longest static body: it travels in every snapshot to every replica.
const MAX_BODY: usize = 64 * 1024;

/// What fallbacks can answer a call with: a plain closure has a type of its own, in which no policy can write a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Answers {
    /// Whatever the policy says.
    #[default]
    Anything,
    /// An error, or the answer of another target.
    Target,
    /// An error.
    Error,
}

impl Answers {
    /// Whether this is among them. A fallback that is not passes on what came.
    #[must_use]
    pub const fn include(self, with: &FallbackWith) -> bool {
        match (self, with) {
            (_, FallbackWith::Error(_)) | (Self::Anything, _) | (Self::Target, FallbackWith::Target(_)) => true,
            (
                Self::Target | Self::Error,
                FallbackWith::Response(_)
                | FallbackWith::Function(_)
                | FallbackWith::Target(_)
                | FallbackWith::Stale(_),
            ) => false,
        }
    }
}

impl FallbackSpec {
    /// From what is asked for. `failure_when: None` is any failure or rejection.
    ///
    /// # Errors
    /// Bad conditions, statuses, header names, sizes.
    pub fn try_new(
        failure_when: Option<Conditions>,
        ignore_when: Conditions,
        with: FallbackWith,
    ) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        let classifier = faults.take("", Classifier::try_new(failure_when, ignore_when, fallback_default));
        match &with {
            FallbackWith::Response(response) => {
                faults.check(
                    (100..=599).contains(&response.status),
                    "response.status",
                    format!("must be from 100 to 599, is {}", response.status),
                );
                faults.check(
                    response.body.len() <= MAX_BODY,
                    "response.body",
                    format!("must be at most {MAX_BODY} bytes, has {}", response.body.len()),
                );
                for (name, value) in &response.headers {
                    if crate::condition::HeaderRule::try_new(name, None).is_err() {
                        faults.push("response.headers", format!("{name:?} is not a header name"));
                    }
                    if value.chars().any(|c| c.is_control() && c != '\t') {
                        faults.push("response.headers", format!("the value of {name:?} has control characters"));
                    }
                }
            }
            FallbackWith::Error(text) => {
                faults.check(!text.is_empty(), "error", "must say what the caller should read");
            }
            FallbackWith::Function(name) => faults.check(!name.is_empty(), "function", "is required"),
            FallbackWith::Target(_) => {}
            FallbackWith::Stale(stale) => {
                faults.check(!stale.max_age.is_zero(), "stale.maxAge", "must be greater than zero");
                faults.check(stale.max_entries > 0, "stale.maxEntries", "must be at least 1");
                faults.check(stale.max_body_bytes > 0, "stale.maxBodyBytes", "must be at least 1");
            }
        }
        faults.into_result(classifier.map(|classifier| Self { classifier, with }))
    }

    /// Which outcomes it answers for.
    #[must_use]
    pub const fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// With what.
    #[must_use]
    pub const fn with(&self) -> &FallbackWith {
        &self.with
    }
}
