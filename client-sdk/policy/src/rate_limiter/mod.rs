//! Bounds how many calls begin in a time.

mod machine;
mod spec;

pub use machine::{RateLimiter, Reserved};
pub use spec::{RateLimiterInput, RateLimiterSpec, RateScope};
