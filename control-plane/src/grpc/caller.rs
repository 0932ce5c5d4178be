//! Who calls: the one place where a request's metadata and connection become a [`Caller`].

use http::{HeaderMap, HeaderValue};
use tonic::{Request, metadata::MetadataMap};

use crate::caller::Caller;

/// Where a caller says the id of a request.
const REQUEST_ID: &str = "x-request-id";
/// Longest name or id that is kept of what a caller says.
const LONGEST: usize = 128;

/// Who calls. A layer before the services that knows it has left a [`Caller`] in the request's extensions; without one, the name is what
/// they say of themselves, else where they call from.
pub(crate) fn caller<T>(request: &Request<T>) -> Caller {
    let address = request.remote_addr();
    let known = request.extensions().get::<Caller>().cloned();
    let caller = known.unwrap_or_else(|| {
        let from = || address.map_or_else(|| "unknown".to_owned(), |address| address.ip().to_string());
        Caller::unauthenticated(said(request.metadata(), "x-fusebox-author").unwrap_or_else(from))
    });
    Caller {
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        request_id: said(request.metadata(), REQUEST_ID).unwrap_or_else(fresh_id),
        ..caller
    }
}

/// The id of a request. One that has none is given one, so that whatever is written or told about it has the same.
pub(super) fn request_id(headers: &mut HeaderMap) -> String {
    let own = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).map(kept).filter(|id| !id.is_empty());
    own.unwrap_or_else(|| {
        let id = fresh_id();
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, value);
        }
        id
    })
}

/// What a header says, cut to what is kept.
fn said(metadata: &MetadataMap, header: &str) -> Option<String> {
    let text = metadata.get(header)?.to_str().ok()?;
    Some(kept(text)).filter(|kept| !kept.is_empty())
}

fn kept(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

fn fresh_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}
