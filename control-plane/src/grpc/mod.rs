//! The services: parse, call a use case, render. Nothing is decided here.

pub mod audit;
pub mod breakers;
mod caller;
pub mod fleet;
mod pages;
pub mod policies;
mod requests;
pub mod status;
pub mod sync;
mod watch;

pub(crate) use self::caller::caller;
