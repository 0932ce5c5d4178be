//! The numbers of the coordinator that no policy says.

use std::time::Duration;

/// Times and bounds. The defaults are what runs; models and simulations use smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// How long a verdict holds without a heartbeat. Default: 15 s, three of the heartbeats that may be lost in a bad network.
    pub lease: Duration,
    /// How long a permit may wait for a call. Default: 3 s. Short, since an idle holder keeps the fleet waiting; long enough that
    /// the next heartbeat, which anchors it, is on its way.
    pub permit_ttl: Duration,
    /// Breakers of one service. Default: 1000. More is a mistake (a target's name with an id in it), and each costs memory.
    pub most_keys: usize,
    /// Runs of replicas whose numbered transitions are remembered. Default: 10 000.
    pub most_runs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), permit_ttl: Duration::from_secs(3), most_keys: 1000, most_runs: 10_000 }
    }
}
