//! The policies' service, as a client on another machine sees it: gRPC over a socket, SQLite on disk.

mod changes;
mod history;
mod reading;
mod refusals;
mod server;
mod watching;
