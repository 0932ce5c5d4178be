//! Trouble on purpose: some calls are delayed, or end in a fault, until a date.

mod machine;
mod spec;

pub use machine::{Chaos, Trouble};
pub use spec::{ChaosSpec, Fault, UnixTime};
