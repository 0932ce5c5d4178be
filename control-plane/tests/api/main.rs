//! The operators' services as programs use them, against a whole server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod audit;
mod levers;
mod lists;
mod resuming;
mod server;
mod standing;
