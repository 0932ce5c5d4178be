//! Answers from memory: good answers are kept for a while, and equal requests in flight share one call.

use std::time::Duration;

use crate::{
    Invalid,
    condition::{Classifier, Conditions, fallback_default},
    invalid::Faults,
};

/// Settings of a cache, as they come in.
#[derive(Clone, Debug)]
pub struct CacheInput {
    /// How long an answer is good.
    pub ttl: Duration,
    /// Answers kept; the one used least lately goes first.
    pub max_entries: u32,
    /// Largest body kept, in bytes.
    pub max_body_bytes: u32,
    /// Whether equal requests in flight wait for the first one.
    pub coalesce: bool,
    /// What is not kept. `None`: any failure or rejection.
    pub failure_when: Option<Conditions>,
    /// Not kept either; read before `failure_when`.
    pub ignore_when: Conditions,
}

impl Default for CacheInput {
    /// No time yet.
    fn default() -> Self {
        Self {
            ttl: Duration::ZERO,
            max_entries: 1000,
            max_body_bytes: 64 * 1024,
            coalesce: true,
            failure_when: None,
            ignore_when: Conditions::default(),
        }
    }
}

/// Settings of a cache. The values live in the shell, which knows what they are; the pipeline's call asks for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheSpec {
    ttl: Duration,
    max_entries: u32,
    max_body_bytes: u32,
    coalesce: bool,
    classifier: Classifier,
}

impl CacheSpec {
    /// Most answers kept.
    pub const MOST_ENTRIES: u32 = 1_000_000;

    /// Checks the settings.
    ///
    /// # Errors
    /// A time, number or size of zero, too many entries, bad conditions.
    pub fn try_new(input: CacheInput) -> Result<Self, Invalid> {
        let CacheInput { ttl, max_entries, max_body_bytes, coalesce, failure_when, ignore_when } = input;
        let mut faults = Faults::new();
        faults.check(!ttl.is_zero(), "ttl", "is required, and greater than zero");
        faults.check(
            (1..=Self::MOST_ENTRIES).contains(&max_entries),
            "maxEntries",
            format!("must be from 1 to {}, is {max_entries}", Self::MOST_ENTRIES),
        );
        faults.check(max_body_bytes > 0, "maxBodyBytes", "must be at least 1");
        let classifier = faults.take("", Classifier::try_new(failure_when, ignore_when, fallback_default));
        faults.into_result(classifier.map(|classifier| Self { ttl, max_entries, max_body_bytes, coalesce, classifier }))
    }

    /// How long an answer is good.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Answers kept. Default: 1000.
    #[must_use]
    pub const fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Largest body kept, in bytes. Default: 65536.
    #[must_use]
    pub const fn max_body_bytes(&self) -> u32 {
        self.max_body_bytes
    }

    /// Whether equal requests in flight wait for the first one. Default: yes.
    #[must_use]
    pub const fn coalesce(&self) -> bool {
        self.coalesce
    }

    /// What is kept: what it takes for a success.
    #[must_use]
    pub const fn classifier(&self) -> &Classifier {
        &self.classifier
    }
}
