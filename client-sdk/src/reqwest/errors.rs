//! What reqwest's errors mean to the rules of a policy.

use std::{error::Error as StdError, io};

use fusebox_policy::outcome::{ErrorKind, Outcome};

/// The outcome of an error of reqwest.
pub(super) fn outcome(error: &reqwest::Error) -> Outcome {
    Outcome::Error(if error.is_builder() || error.is_redirect() {
        ErrorKind::Request
    } else if is_tls(error) {
        ErrorKind::Tls
    } else if error.is_connect() {
        // Also a connection that could not be made in time: the request never left.
        ErrorKind::Connect
    } else if error.is_timeout() {
        ErrorKind::Timeout
    } else if error.is_body() || error.is_decode() {
        ErrorKind::Body
    } else if error.is_request() || io_kind(error).is_some() {
        ErrorKind::Reset
    } else {
        ErrorKind::Other
    })
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(
        StdError::source(error),
        |error: &&(dyn StdError + 'static)| -> Option<&'_ (dyn StdError + 'static)> { StdError::source(*error) },
    )
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    chain(error).find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// TLS libraries are reqwest's affair and their types not known here: their errors say what they are in words.
fn is_tls(error: &reqwest::Error) -> bool {
    error.is_connect()
        && chain(error).any(|error| {
            let text = error.to_string().to_ascii_lowercase();
            text.contains("certificate") || text.contains("tls") || text.contains("handshake")
        })
}
