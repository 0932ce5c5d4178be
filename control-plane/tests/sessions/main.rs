//! The stream of a replica, as a client on another machine sees it: the whole server on a socket, SQLite on disk.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

mod crowded;
mod disabled;
mod explained;
mod paced;
mod restored;
mod server;
mod storms;
mod terms;
