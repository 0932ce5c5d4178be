//! One gRPC call: its attempts and its fallbacks.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use ::tonic::{Code, Status, body::Body};
use ::tower::{Service, ServiceExt as _};
use fusebox_policy::{
    Outcome,
    chaos::Fault,
    fallback::FallbackWith,
    outcome::{ErrorKind, Facts, GrpcCode, NoFacts},
};
use futures_util::future::{Ready, ready};
use http::HeaderValue;

use super::{answer::Answer, request::Request};
use crate::{
    classify::Head,
    error::{BoxError, FallbackFault},
    pipeline::{Flight, Live, Looked, Operation},
    target::{fallback_kind, fallback_with},
};

type Response = http::Response<Body>;

pub(super) struct GrpcCall<S> {
    pub(super) channel: S,
    pub(super) others: HashMap<String, S>,
    pub(super) request: Request,
    pub(super) route: String,
}

/// The code of a response, beside it, for whoever judges it.
#[derive(Clone)]
struct Said(Outcome, Option<http::HeaderMap>);

/// Sends a request. `told`: the policy's own deadline stands in its headers.
async fn send<S, B>(channel: S, request: http::Request<Body>, told: bool) -> Result<Response, Status>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let response = match channel.oneshot(request).await.map_err(|error| Status::from_error(error.into())) {
        Ok(response) => response,
        // The channel reads the deadline too. It is the policy's, whose timer fires at the same moment and says whose it was.
        Err(status) if told && has_expired(&status) => std::future::pending().await,
        Err(status) if has_expired(&status) => return Err(Status::deadline_exceeded("the caller's own deadline")),
        Err(status) => return Err(status),
    };
    let answer = Answer::read(response).await.map_err(Status::from_error)?;
    let said = Said(answer.outcome(), answer.code);
    let mut response = answer.response;
    response.extensions_mut().insert(said);
    Ok(response)
}

impl<S, B> Operation for GrpcCall<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Value = Response;
    type Error = Status;
    type Attempt = Pin<Box<dyn Future<Output = Result<Response, Status>> + Send>>;
    type Fallback = Pin<Box<dyn Future<Output = Result<Response, FallbackFault>> + Send>>;
    type Lookup = Ready<Looked<Response>>;

    fn attempt(&mut self, live: Option<&Live>, remaining: Option<Duration>) -> Self::Attempt {
        let mut request = self.request.next().expect("the core never asks twice for what can't be sent again");
        let remaining = remaining.filter(|_| live.is_some_and(propagates));
        let told = remaining.is_some_and(|remaining| propagate(request.headers_mut(), remaining));
        Box::pin(send(self.channel.clone(), request, told))
    }

    fn fallback(&mut self, live: &Live, stage: usize, _after: Outcome) -> Self::Fallback {
        let fault = match fallback_with(live, stage) {
            Some(FallbackWith::Error(text)) => FallbackFault::Asked(text.clone()),
            Some(FallbackWith::Target(target)) => match (self.others.get(target.as_str()), self.request.next()) {
                (Some(channel), Some(request)) => {
                    let sent = send(channel.clone(), request, false);
                    return Box::pin(async { sent.await.map_err(|status| FallbackFault::Failed(Box::new(status))) });
                }
                (None, _) => FallbackFault::UnknownTarget(target.to_string()),
                (Some(_), None) => FallbackFault::NotReplayable,
            },
            Some(FallbackWith::Response(_) | FallbackWith::Function(_) | FallbackWith::Stale(_)) | None => {
                FallbackFault::NoTypedValue(fallback_kind(live, stage))
            }
        };
        tracing::debug!(target: "fusebox", method = self.route, %fault, "fallback has no answer");
        Box::pin(async { Err(fault) })
    }

    fn lookup(&mut self, _live: &Arc<Live>, _stage: usize) -> Self::Lookup {
        // Whether a method only reads is not known here: calls go past the cache.
        ready(Looked::NotCacheable)
    }

    fn keep(&mut self, _flight: Flight, value: Response) -> Response {
        value
    }

    fn inject(&mut self, fault: Fault) -> Option<Result<Response, Status>> {
        match fault {
            Fault::Grpc(code) => Some(Err(Status::new(Code::from(code as i32), "chaos"))),
            Fault::Status(_) | Fault::Error(_) => None,
        }
    }

    fn judge<R>(&self, result: Result<&Response, &Status>, act: impl FnOnce(Outcome, &dyn Facts) -> R) -> R {
        match result {
            Ok(response) => match response.extensions().get::<Said>() {
                Some(Said(outcome, Some(code))) => act(*outcome, &Head(code)),
                Some(Said(outcome, None)) => act(*outcome, &NoFacts),
                None => act(Outcome::grpc(GrpcCode::Ok), &NoFacts),
            },
            Err(status) => act(transport(status), &NoFacts),
        }
    }
}

/// Whether the channel itself has cut the call at its deadline.
fn has_expired(status: &Status) -> bool {
    let chain = std::iter::successors(std::error::Error::source(status), |error| error.source());
    chain.into_iter().any(|error| error.is::<::tonic::TimeoutExpired>())
}

/// What an error of the transport is. A connection that could not be made has sent nothing.
fn transport(status: &Status) -> Outcome {
    let chain = std::iter::successors(std::error::Error::source(status), |error| error.source());
    let mut connect = false;
    for error in chain {
        let text = error.to_string();
        connect |= text.contains("tcp connect error") || text.contains("dns error");
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            connect = true;
        }
    }
    if connect {
        return Outcome::Error(ErrorKind::Connect);
    }
    if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal) {
        return Outcome::Error(ErrorKind::Reset);
    }
    Outcome::grpc(GrpcCode::from_number(status.code() as i32))
}

/// Whether a timeout of the policy asks for the time that is left to be told.
fn propagates(live: &Live) -> bool {
    let timeouts = live.pipeline().strategies().iter().filter_map(|own| own.spec().as_timeout());
    timeouts.into_iter().any(|timeout| timeout.propagate_header().is_some())
}

/// Tells the server how much time is left, if that is less than what the caller has said (gRPC over HTTP2, "Timeout").
/// Returns whether it is.
fn propagate(headers: &mut http::HeaderMap, remaining: Duration) -> bool {
    /// The largest number that the format has room for.
    const MOST: u128 = 99_999_999;
    let own = headers.get("grpc-timeout").and_then(|value| read_timeout(value.to_str().ok()?));
    if own.is_some_and(|own| own <= remaining) {
        return false;
    }
    // Rounded up: the server must not give up before the policy does.
    let text = match (remaining.as_nanos().div_ceil(1_000_000), remaining.as_secs()) {
        (millis, _) if millis <= MOST => format!("{millis}m"),
        (_, seconds) => format!("{}S", u128::from(seconds).min(MOST)),
    };
    let Ok(value) = HeaderValue::from_str(&text) else { return false };
    headers.insert("grpc-timeout", value);
    true
}

fn read_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = number.parse().ok()?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return None,
    };
    Some(unit.saturating_mul(number))
}
