//! Runs the inside again when another try can help.
//!
//! [`RetrySpec`] says when and how often, [`backoff`] how long to wait, [`budget`] how much a target may be retried at
//! all. [`RetryRun`] is the machine of one call.

pub mod backoff;
pub mod budget;
mod run;
mod spec;

pub use run::{Answer, Attempt, CallRules, RetryRun, Stop};
pub use spec::{MaxAttempts, OnExhausted, RetryInput, RetrySpec};
