//! The log of what breakers did, and of what was decided about them.

use std::time::SystemTime;

use fusebox_policy::{InstanceId, Namespace, fleet::BreakerKey};

use super::Grounds;

/// A change of one breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTransition {
    /// Its number; given by the store.
    pub id: u64,
    /// Which breaker.
    pub key: BreakerKey,
    /// The replica; `None` for a decision of the fleet.
    pub instance: Option<InstanceId>,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
    /// Why, in one word.
    pub cause: String,
    /// Numbers in words.
    pub detail: String,
    /// When the server learned of it.
    pub at: SystemTime,
    /// Calls in the window.
    pub window_calls: u64,
    /// Failures in the window.
    pub window_failures: u64,
    /// Of a verdict: what it rests on. The audit log has it; in this log it is not kept, so that it is absent in what is read.
    pub grounds: Option<Grounds>,
}

/// Which transitions to read.
#[derive(Clone, Debug, Default)]
pub struct TransitionFilter {
    /// Only of this target.
    pub target: Option<String>,
    /// Only of this caller.
    pub caller: Option<String>,
    /// Only of breakers of this namespace.
    pub namespace: Option<Namespace>,
    /// Only with a smaller number.
    pub before: Option<u64>,
    /// Only with a greater number.
    pub after: Option<u64>,
    /// At most this many.
    pub limit: u32,
}
