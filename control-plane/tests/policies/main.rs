//! The policies' service, as a client on another machine sees it: gRPC over a socket, SQLite on disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod changes;
mod history;
mod reading;
mod refusals;
mod repeats;
mod resolving;
mod server;
mod watching;
