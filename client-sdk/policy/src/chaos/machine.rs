//! Live chaos.

use std::time::Duration;

use super::{ChaosSpec, Fault};
use crate::{Draw, Timestamp};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// The delay.
    pub latency: Duration,
    /// The end, in place of the call.
    pub fault: Option<Fault>,
}

/// Live chaos. Its end is a point on the caller's own clock: whoever makes it turns the date into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chaos {
    until: Timestamp,
}

impl Chaos {
    /// Acts until then.
    #[must_use]
    pub const fn new(until: Timestamp) -> Self {
        Self { until }
    }

    /// What happens to a call, if anything does.
    #[must_use]
    pub fn strike(self, spec: &ChaosSpec, now: Timestamp, draw: Draw) -> Option<Trouble> {
        let struck = now < self.until && draw.get() * 1e6 < f64::from(spec.rate_ppm());
        struck.then(|| Trouble { latency: spec.latency(), fault: spec.fault() })
    }
}
