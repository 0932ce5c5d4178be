//! What a policy would do to calls, in virtual time.
//!
//! The machines that run here are those that run in services: the pure core, with a list of events in place of a runtime. Replicas are
//! each on their own, as they are when no control plane can be reached: what a fleet decides together is not simulated. The same seed
//! gives the same result.

mod latency;
mod replica;
mod result;
mod world;

use std::time::Duration;

use fusebox_policy::{Outcome, Policy};

pub use self::{
    latency::{BadLatency, Latency},
    result::{Percentiles, Simulated},
};

/// What happens to calls, and for how long.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Share of attempts that fail, from 0 to 1.
    pub failure_rate: f64,
    /// What a failed attempt ends in.
    pub failure: Outcome,
    /// A time in which every attempt fails: its beginning and its end.
    pub outage: Option<(Duration, Duration)>,
    /// How long attempts take.
    pub latency: Latency,
    /// Calls per second of all replicas together.
    pub rate: f64,
    /// Replicas of the calling service.
    pub replicas: u32,
    /// How long calls go on to begin. All that have begun are brought to their end.
    pub duration: Duration,
    /// Whether calls may be made twice.
    pub idempotent: bool,
    /// What everything that is random comes from.
    pub seed: u64,
}

/// Makes the calls of a scenario under a policy.
#[must_use]
pub fn simulate(policy: &Policy, scenario: &Scenario) -> Simulated {
    world::World::new(policy, scenario).run()
}

#[cfg(test)]
mod tests;
