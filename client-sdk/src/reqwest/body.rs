//! Bodies of answers under a time limit.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyDataStream;
use reqwest::ResponseBuilderExt as _;
use tokio::time::{Instant, timeout_at};

use crate::{clock::Clock, error::BoxError};

/// So much of a body is read inside an attempt. What is longer goes on as a stream, under the same limit.
const MAX_IN_ATTEMPT: usize = 1024 * 1024;

/// How the body is limited.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// Not at all.
    Free,
    /// Reading it is part of the attempt, which has this long.
    Attempt(Duration),
    /// It is read later, but not longer than this after the request was sent.
    Later(Duration),
}

/// A body was not complete at the end of its time.
#[derive(Debug, thiserror::Error)]
#[error("the response's body was not complete in time")]
struct BodyTimeout;

/// Waits for the answer and puts its body under the rule.
pub(super) async fn under<E: From<reqwest::Error>>(
    clock: Clock,
    rule: Rule,
    sent: impl Future<Output = Result<reqwest::Response, E>>,
) -> Result<reqwest::Response, E> {
    let begun = clock.now();
    let mut response = sent.await?;
    let (limit, in_attempt) = match rule {
        Rule::Free => return Ok(response),
        Rule::Attempt(limit) => (limit, true),
        Rule::Later(limit) => (limit, false),
    };
    let mut read: Vec<Bytes> = Vec::new();
    let mut size = 0;
    while in_attempt && size <= MAX_IN_ATTEMPT {
        let Some(chunk) = response.chunk().await? else {
            return Ok(rebuild(response, move |_| reqwest::Body::from(read.concat())));
        };
        size += chunk.len();
        read.push(chunk);
    }
    let end = clock.instant(begun.plus(limit));
    Ok(rebuild(response, move |rest| reqwest::Body::wrap_stream(limited(read, rest, end))))
}

/// The same response with another body.
pub(super) fn rebuild(
    response: reqwest::Response,
    change: impl FnOnce(reqwest::Body) -> reqwest::Body,
) -> reqwest::Response {
    // The way through http's type loses the address, unless it travels as an extension.
    let mut tagged = http::Response::builder().url(response.url().clone());
    let (mut parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
    if let Some(tags) = tagged.extensions_mut() {
        parts.extensions.extend(std::mem::take(tags));
    }
    reqwest::Response::from(http::Response::from_parts(parts, change(body)))
}

fn limited(
    read: Vec<Bytes>,
    rest: reqwest::Body,
    end: Instant,
) -> impl futures_util::Stream<Item = Result<Bytes, BoxError>> + Send {
    let rest = stream::unfold(Some(BodyDataStream::new(rest)), move |rest| async move {
        let mut rest = rest?;
        match timeout_at(end, rest.next()).await {
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(rest))),
            Ok(Some(Err(error))) => Some((Err(BoxError::from(error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(BoxError::from(BodyTimeout)), None)),
        }
    });
    stream::iter(read).map(Ok).chain(rest)
}
