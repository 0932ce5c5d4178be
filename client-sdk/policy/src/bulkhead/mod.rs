//! Bounds how many calls run at the same time, and how many may wait for a place.

mod machine;
mod spec;

pub use machine::{Bulkhead, Entered, Ticket};
pub use spec::BulkheadSpec;
