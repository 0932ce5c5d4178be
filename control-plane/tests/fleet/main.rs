//! The owner of the fleet's state, on a clock that the tests move.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod arrival;
mod disk;
mod overrides;
mod suspicion;
mod world;
