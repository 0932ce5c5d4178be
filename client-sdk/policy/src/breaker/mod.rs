//! Stops calling a target that fails, tests it with a few probes after a while, and lets traffic back.

mod spec;

pub use spec::{BreakerInput, BreakerMode, BreakerSpec, HalfOpenSpec, RateRule, TripRules, WindowSpec};
