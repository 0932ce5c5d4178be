//! Who may call the server, over real connections.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod certificates;
mod crowds;
mod pki;
mod refusals;
mod roles;
mod server;
mod streams;
mod tenants;
mod tokens;
