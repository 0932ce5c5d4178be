//! One request to a service: its attempts and its fallbacks.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use ::tower::{Service, util::Oneshot};
use fusebox_policy::{
    Outcome,
    chaos::Fault,
    fallback::FallbackWith,
    outcome::{Facts, NoFacts},
};
use futures_util::future::{Either, Ready, ready};

use super::Protocol;
use crate::{
    error::FallbackFault,
    pipeline::{Flight, Live, Looked, Operation},
    prepared::TypedFallback,
    target::{Failure, fallback_kind, fallback_with},
};

pub(crate) struct ServiceCall<S, R, P, F> {
    service: S,
    request: Option<R>,
    replayable: bool,
    protocol: P,
    fallback: F,
    _request: PhantomData<fn(R)>,
}

impl<S, R, P, F> ServiceCall<S, R, P, F> {
    pub(crate) const fn new(service: S, request: R, replayable: bool, protocol: P, fallback: F) -> Self {
        Self { service, request: Some(request), replayable, protocol, fallback, _request: PhantomData }
    }
}

impl<S, R, P, F> Operation for ServiceCall<S, R, P, F>
where
    S: Service<R> + Clone,
    P: Protocol<R, S::Response, S::Error>,
    F: TypedFallback<S::Response>,
{
    type Value = S::Response;
    type Error = S::Error;
    type Attempt = Oneshot<S, R>;
    type Fallback = Either<Ready<Result<S::Response, FallbackFault>>, F::Answer>;
    type Lookup = Ready<Looked<S::Response>>;

    fn attempt(&mut self, live: Option<&Live>, remaining: Option<Duration>) -> Oneshot<S, R> {
        let request = if self.replayable {
            self.request.as_ref().and_then(|request| self.protocol.again(request))
        } else {
            self.request.take()
        };
        let mut request = request.expect("the core never asks twice for what can't be made again");
        if let Some((live, remaining)) = live.zip(remaining) {
            for header in live.propagate_headers() {
                self.protocol.propagate(&mut request, header, remaining);
            }
        }
        Oneshot::new(self.service.clone(), request)
    }

    fn fallback(&mut self, live: &Live, stage: usize, after: Outcome) -> Self::Fallback {
        if let Some(FallbackWith::Error(text)) = fallback_with(live, stage) {
            return Either::Left(ready(Err(FallbackFault::Asked(text.clone()))));
        }
        Either::Right(self.fallback.answer(Failure::new(live, stage, after), fallback_kind(live, stage)))
    }

    fn lookup(&mut self, _live: &Arc<Live>, _stage: usize) -> Self::Lookup {
        // Responses of any type can't be kept: the call goes past the cache.
        ready(Looked::NotCacheable)
    }

    fn keep(&mut self, _flight: Flight, value: S::Response) -> S::Response {
        value
    }

    fn inject(&mut self, _fault: Fault) -> Option<Result<S::Response, S::Error>> {
        None
    }

    fn judge<T>(&self, result: Result<&S::Response, &S::Error>, act: impl FnOnce(Outcome, &dyn Facts) -> T) -> T {
        let mut act = Some(act);
        let mut told = None;
        self.protocol.judge(result, &mut |outcome, facts| told = act.take().map(|act| act(outcome, facts)));
        // A protocol that says nothing leaves nothing to go by: its result is taken as it is.
        match (told, act) {
            (Some(told), _) => told,
            (None, Some(act)) => act(Outcome::OK, &NoFacts),
            (None, None) => unreachable!("what has acted has told"),
        }
    }
}
