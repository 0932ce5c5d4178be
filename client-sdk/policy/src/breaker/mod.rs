//! Stops calling a target that fails, tests it with a few probes after a while, and lets traffic back.
//!
//! [`BreakerSpec`] is what the operator asks for, [`Window`] what the last calls showed, [`Breaker`] the state machine of one
//! process. How many processes act as one is in [`crate::fleet`].

mod machine;
mod outside;
mod spec;
mod state;
mod window;

pub use machine::Breaker;
pub use spec::{BreakerInput, BreakerMode, BreakerSpec, HalfOpenSpec, RateRule, TripRules, WindowSpec};
pub use state::{Cause, Ending, LocalState, Permit, Transition};
pub use window::{Causes, Counts, FailureCause, Sample, Window};
