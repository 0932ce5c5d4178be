//! Finds by itself how many calls a target can take at the same time.

mod machine;
mod spec;

pub use machine::AdaptiveLimit;
pub use spec::{ConcurrencyLimitInput, ConcurrencyLimitSpec};
