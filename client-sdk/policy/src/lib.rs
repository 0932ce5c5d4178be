//! The pure core of Fusebox.
//!
//! What a policy is, when it is valid, and how its strategies decide. Everything here takes the time ([`Timestamp`]) and
//! random numbers ([`Draw`]) as arguments and returns its effects as values; nothing reads a clock, draws a number,
//! spawns, awaits or logs. The control plane refuses exactly what an SDK would refuse, because both call this crate, and
//! the structs that run are the structs that are tested.
//!
//! - [`policy`], [`pipeline`] and one module per strategy: validated settings (`*Spec`) and machines.
//! - [`outcome`] and [`condition`]: what an attempt ended in, and which outcomes count.
//! - [`set`]: which policy is for which call.
//! - [`fleet`]: how the breakers of many replicas act as one.

pub mod breaker;
pub mod bulkhead;
pub mod cache;
pub mod chaos;
pub mod concurrency_limit;
pub mod condition;
pub mod draw;
pub mod fallback;
pub mod fleet;
pub mod hedge;
pub mod invalid;
pub mod names;
pub mod outcome;
pub mod pipeline;
pub mod policy;
pub mod rate_limiter;
pub mod retry;
pub mod selector;
pub mod set;
pub mod throttle;
pub mod time;
pub mod timeout;

pub use draw::Draw;
pub use invalid::{Invalid, Violation};
pub use names::{CallerName, InstanceId, Namespace, PolicyName, Revision, StrategyName, TargetName, Zone};
pub use outcome::{Outcome, Rejection};
pub use policy::Policy;
pub use set::PolicySet;
pub use time::Timestamp;
