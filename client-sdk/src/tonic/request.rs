//! Requests that can be sent again, and those that can't.

use std::task::{Context, Poll, Waker};

use ::tonic::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};

/// A request, taken apart.
pub(super) enum Request {
    /// Its whole body is in memory.
    Whole(Box<http::request::Parts>, Bytes),
    /// It is still being written; sent once.
    Open(Option<Box<http::Request<Body>>>),
}

impl Request {
    /// Reads as much of the body as is there already. A unary request is complete at once.
    pub(super) fn read(request: http::Request<Body>, limit: usize) -> Self {
        let (parts, mut body) = request.into_parts();
        let mut frames: Vec<Bytes> = Vec::new();
        let mut size = 0;
        // Nobody is woken by this look: whoever sends the rest polls it again, with a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match std::pin::Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Requests of gRPC have no trailers.
                    if let Ok(data) = frame.into_data() {
                        size += data.len();
                        frames.push(data);
                        if size > limit {
                            break;
                        }
                    }
                }
                Poll::Ready(None) => return Self::Whole(Box::new(parts), frames.concat().into()),
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        let read = futures_util::stream::iter(frames.into_iter().map(|data| Ok(Frame::data(data))));
        let rest = futures_util::stream::StreamExt::chain(read, http_body_util::BodyStream::new(body));
        Self::Open(Some(Box::new(http::Request::from_parts(parts, Body::new(StreamBody::new(rest))))))
    }

    pub(super) const fn is_replayable(&self) -> bool {
        matches!(self, Self::Whole(..))
    }

    /// The request for one more sending.
    pub(super) fn next(&mut self) -> Option<http::Request<Body>> {
        match self {
            Self::Whole(parts, bytes) => {
                let body = Full::new(bytes.clone()).map_err(|never| match never {});
                Some(http::Request::from_parts((**parts).clone(), Body::new(body)))
            }
            Self::Open(request) => request.take().map(|request| *request),
        }
    }
}
