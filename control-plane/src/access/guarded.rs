//! The answer of a stream, which ends when the caller's credential does.
//!
//! It stands around the body, outside of every handler: none can forget it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Principal, limits::OpenStream};
use crate::grpc::status;

pub(super) struct Guarded {
    /// Taken when it is over: whoever fills it learns of it by that.
    inner: Option<Body>,
    over: Pin<Box<dyn Future<Output = super::Over> + Send>>,
    _open: Option<OpenStream>,
}

impl Guarded {
    pub(super) fn new(inner: Body, principal: &Principal, open: Option<OpenStream>) -> Self {
        Self { inner: Some(inner), over: Box::pin(principal.over()), _open: open }
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if let Poll::Ready(over) = this.over.as_mut().poll(cx) {
            this.inner = None;
            let mut trailers = http::HeaderMap::new();
            // A status whose text is its own always fits into headers.
            let _ = status::unauthenticated(&over.into()).add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}
