//! The numbers of the coordinator that no policy says.

use std::time::Duration;

/// Times and bounds. The defaults are what runs; models and simulations use smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// How long a verdict holds without a heartbeat. Default: 15 s, many heartbeats that may be lost in a bad network.
    pub lease: Duration,
    /// How long a permit may wait for a call. Default: 3 s. Short, since an idle holder keeps the fleet waiting; long enough that
    /// the next heartbeat, which anchors it, is on its way.
    pub permit_ttl: Duration,
    /// How long a replica that joins others has no vote. Default: 5 s, for cold caches and first connections.
    pub grace: Duration,
    /// How long a breaker stays open, or released after it was open, at least. Default: 1 s. It bounds how often a breaker can flap.
    pub dwell: Duration,
    /// Within which time the loss of more than half of all replicas is a mass disconnect. Default: 5 s.
    pub mass_span: Duration,
    /// Replicas from which on a mass disconnect is one. Default: 4: of fewer, half is one or two processes that restart.
    pub mass_from: usize,
    /// Breakers of one service. Default: 1000. More is a mistake (a target's name with an id in it), and each costs memory.
    pub most_keys: usize,
    /// Breakers of one replica. Default: 500.
    pub most_keys_of_replica: usize,
    /// Breakers of one namespace. Default: 10 000.
    pub most_keys_of_namespace: usize,
    /// Breakers in all. Default: 20 000.
    pub most_keys_in_all: usize,
    /// Runs of replicas whose numbered transitions are remembered. Default: 10 000.
    pub most_runs: usize,
    /// Records of one breaker that are kept for people who ask. Default: 32.
    pub most_records: usize,
}

impl Limits {
    /// How long a new run only learns: until neither a verdict nor a permit of the run before it can be in force.
    #[must_use]
    pub fn learning(&self) -> Duration {
        self.lease.max(self.permit_ttl)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            permit_ttl: Duration::from_secs(3),
            grace: Duration::from_secs(5),
            dwell: Duration::from_secs(1),
            mass_span: Duration::from_secs(5),
            mass_from: 4,
            most_keys: 1000,
            most_keys_of_replica: 500,
            most_keys_of_namespace: 10_000,
            most_keys_in_all: 20_000,
            most_runs: 10_000,
            most_records: 32,
        }
    }
}
