//! The services: parse, call a use case, render. Nothing is decided here.

pub mod breakers;
pub mod fleet;
pub mod policies;
mod requests;
pub mod status;
pub mod sync;
mod watch;

use tonic::Request;

/// Who calls, as far as the server knows: what they say of themselves, else where they call from.
pub(crate) fn author<T>(request: &Request<T>) -> String {
    const LONGEST: usize = 128;
    let named = request.metadata().get("x-fusebox-author").and_then(|value| value.to_str().ok());
    match named {
        Some(name) if !name.is_empty() => name.chars().filter(|c| !c.is_control()).take(LONGEST).collect(),
        Some(_) | None => {
            request.remote_addr().map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string())
        }
    }
}
