//! Rollouts through a whole server, with replicas that say what the test says.

#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

mod api;
mod gates;
mod server;
mod sets;
