//! Responses that are kept in memory, and copied while they are read.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyDataStream;

use super::body::rebuild;

/// Request headers that may change what the answer is, or who may see it.
const TELLING: [header::HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::ACCEPT, header::ACCEPT_LANGUAGE];

/// A whole response.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Kept {
    pub(super) fn into_response(self) -> reqwest::Response {
        let mut response = http::Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.into()
    }
}

/// What makes two requests the same, if the request only reads: method, address, telling headers.
pub(super) fn same(request: &reqwest::Request) -> Option<Vec<u8>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let mut same = format!("{} {}", request.method(), request.url()).into_bytes();
    for name in TELLING {
        same.push(b'\n');
        for value in request.headers().get_all(name) {
            // A length in front keeps two headers from looking like one.
            same.extend_from_slice(&value.len().to_be_bytes());
            same.extend_from_slice(value.as_bytes());
        }
    }
    Some(same)
}

/// Whether a response may be kept at all (RFC 9111: a shared answer must not be one for a single user).
pub(super) fn may_keep(response: &reqwest::Response) -> bool {
    let forbidden = |value: &http::HeaderValue| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|word| matches!(word.trim().to_ascii_lowercase().as_str(), "no-store" | "private"))
        })
    };
    response.status().is_success()
        && !response.headers().contains_key(header::SET_COOKIE)
        && !response.headers().get_all(header::CACHE_CONTROL).iter().any(forbidden)
}

/// The same response, of which `done` gets a copy as soon as its reader has read it to the end, if it is not too large.
pub(super) fn copy(
    response: reqwest::Response,
    max_body: usize,
    done: impl FnOnce(Kept) + Send + 'static,
) -> reqwest::Response {
    let (status, headers) = (response.status(), response.headers().clone());
    rebuild(response, move |body| {
        let seen = Seen { body: BodyDataStream::new(body), copy: Some(Vec::new()), done: Some((done, headers)) };
        reqwest::Body::wrap_stream(stream::unfold(Some(seen), move |seen| async move {
            let mut seen = seen?;
            match seen.body.next().await {
                Some(Ok(chunk)) => {
                    seen.copy = seen.copy.filter(|copy| copy.len() + chunk.len() <= max_body);
                    match &mut seen.copy {
                        Some(copy) => copy.extend_from_slice(&chunk),
                        None => seen.done = None,
                    }
                    Some((Ok(chunk), Some(seen)))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None => {
                    if let (Some(copy), Some((done, headers))) = (seen.copy, seen.done) {
                        done(Kept { status, headers, body: Bytes::from(copy) });
                    }
                    None
                }
            }
        }))
    })
}

struct Seen<D> {
    body: BodyDataStream<reqwest::Body>,
    /// `None` once it has become too large.
    copy: Option<Vec<u8>>,
    done: Option<(D, HeaderMap)>,
}
