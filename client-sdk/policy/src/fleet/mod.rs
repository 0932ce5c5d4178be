//! How the breakers of many replicas act as one.
//!
//! - [`spec`]: what a policy says about it.
//! - [`key`]: which breaker is meant.
//! - [`evidence`]: what replicas report; [`rule`]: when that opens the fleet; [`tally`]: when it can't.
//! - [`shared`]: the machine of one breaker: released, open, half-open with probe permits.
//! - [`coordinator`]: everything that the control plane decides: the machines of all breakers, the order of verdicts, who is there.
//! - [`held`] and [`gate`]: the replica's side: fenced, leased verdicts, permits, overrides, effective admission;
//!   `veto`: when a replica trusts its own calls more.
//! - [`invariants`]: what must hold of all that; [`history`]: the check of what happened.
//! - [`term`]: which run of a server a term belongs to.
//! - [`shares`]: how the control plane divides one rate limit over replicas; [`held_share`]: what a replica makes of its part.
//!
//! A verdict needs several witnesses, is fenced by (term, rev), is leased, and decays to the replica's own breaker.

pub mod coordinator;
pub mod evidence;
pub mod gate;
pub mod held;
pub mod held_share;
pub mod history;
pub mod invariants;
pub mod key;
pub mod rule;
pub mod shared;
pub mod shares;
pub mod spec;
pub mod tally;
pub mod term;
mod veto;

pub use coordinator::Coordinator;
pub use key::BreakerKey;
pub use spec::{Coordination, CoordinationMode, CoordinationScope};
