//! Real processes, and a bad network between them. What stands still, dies or hears nothing harms no call, and all is well again after it.
//!
//! The longest waits are for leases to end: the cases run side by side.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod killed;
mod network;
#[path = "../process/mod.rs"]
mod process;
mod proxy;
mod services;
#[path = "../process/signal.rs"]
mod signal;
mod stopped;
mod world;
