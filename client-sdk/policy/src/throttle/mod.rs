//! Refuses calls at the client in the measure in which the target refuses them.

mod machine;
mod spec;

pub use machine::Throttle;
pub use spec::{Priority, ThrottleInput, ThrottleSpec};
