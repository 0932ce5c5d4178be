//! The stream between a client and a scripted control plane, on paused time.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

mod fake;
mod fleet;
mod ignored;
mod kept;
mod metrics;
mod policies;
mod reconnect;
mod shares;
