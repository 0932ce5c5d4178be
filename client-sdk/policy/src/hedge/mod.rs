//! Tries again before the first try has ended, and takes what comes first.

mod latency;
mod run;
mod spec;

pub use latency::Latencies;
pub use run::{HedgeRun, Race};
pub use spec::{HedgeDelay, HedgeInput, HedgeSpec, Quantile};
