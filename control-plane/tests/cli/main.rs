//! The real binary, as an operator's shell runs it: arguments in; stdout, stderr and exit code out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod access;
mod audit;
mod backup;
mod canned;
mod care;
mod export;
mod fleet;
mod kept;
mod local;
mod metrics;
#[path = "../access/pki.rs"]
mod pki;
mod program;
mod rollouts;
mod served;
