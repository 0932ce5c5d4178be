//! The beginning of a response: up to the first message, or the trailers where there is none.

use ::tonic::body::Body;
use bytes::Bytes;
use fusebox_policy::outcome::{GrpcCode, Outcome, Response};
use futures_util::StreamExt as _;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyStream, StreamBody};

use crate::error::BoxError;

/// A response whose code is known.
pub(super) struct Answer {
    pub(super) response: http::Response<Body>,
    /// Where the code stands: in the headers or in the trailers. `None` once a message has come.
    pub(super) code: Option<HeaderMap>,
}

impl Answer {
    /// Reads a response up to its first message or its end.
    pub(super) async fn read<B>(response: http::Response<B>) -> Result<Self, BoxError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = response.into_parts();
        if parts.headers.contains_key("grpc-status") || !parts.status.is_success() {
            let code = Some(parts.headers.clone());
            return Ok(Self { response: http::Response::from_parts(parts, Body::new(map(body))), code });
        }
        let mut stream = BodyStream::new(Box::pin(body));
        let mut read: Vec<Frame<Bytes>> = Vec::new();
        let mut bytes = 0;
        let mut code = None;
        // A message begins with a byte and four of length (gRPC over HTTP2, "Length-Prefixed-Message").
        while bytes < 5 {
            let Some(frame) = stream.next().await else { break };
            let frame = frame.map_err(Into::into)?;
            if let Some(data) = frame.data_ref() {
                bytes += data.len();
            } else if let Some(trailers) = frame.trailers_ref() {
                code = Some(trailers.clone());
            }
            read.push(frame);
        }
        let rest = stream.map(|frame| frame.map_err(Into::into));
        let body = StreamBody::new(futures_util::stream::iter(read.into_iter().map(Ok::<_, BoxError>)).chain(rest));
        Ok(Self { response: http::Response::from_parts(parts, Body::new(body)), code })
    }

    pub(super) fn outcome(&self) -> Outcome {
        let Some(code) = &self.code else { return Outcome::grpc(GrpcCode::Ok) };
        let grpc = code
            .get("grpc-status")
            .and_then(|code| code.to_str().ok()?.parse().ok())
            .map(GrpcCode::from_number)
            .or_else(|| from_http(self.response.status()));
        Outcome::Response(Response { status: None, grpc })
    }
}

/// The code of an answer that a proxy gave ("HTTP to gRPC Status Code Mapping").
fn from_http(status: http::StatusCode) -> Option<GrpcCode> {
    match status.as_u16() {
        200 => None,
        400 => Some(GrpcCode::Internal),
        401 => Some(GrpcCode::Unauthenticated),
        403 => Some(GrpcCode::PermissionDenied),
        404 => Some(GrpcCode::Unimplemented),
        429 | 502 | 503 | 504 => Some(GrpcCode::Unavailable),
        _ => Some(GrpcCode::Unknown),
    }
}

fn map<B>(body: B) -> impl http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    http_body_util::BodyExt::map_err(body, Into::into)
}
