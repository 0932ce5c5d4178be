//! The services: parse, call a use case, render. Nothing is decided here.

pub mod admin;
pub mod audit;
mod backup;
pub mod breakers;
mod caller;
pub(crate) mod complete;
pub mod fleet;
mod pages;
pub mod policies;
mod requests;
pub mod rollouts;
pub mod status;
pub mod sync;
mod watch;
mod within;

pub(crate) use self::caller::caller;

use tonic::{Request, Status};

use crate::access::Principal;

/// Who calls, as the gate found out.
pub(crate) fn principal<T>(request: &Request<T>) -> Result<Principal, Status> {
    request.extensions().get::<Principal>().cloned().ok_or_else(status::no_principal)
}
