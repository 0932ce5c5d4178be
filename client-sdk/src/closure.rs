//! Any async closure as the operation of a call.

use std::{pin::Pin, sync::Arc, time::Duration};

use fusebox_policy::{
    Outcome,
    chaos::Fault,
    fallback::FallbackWith,
    outcome::{Facts, NoFacts},
};
use futures_util::future::{Either, Ready, ready};

use crate::{
    clock::Clock,
    error::FallbackFault,
    pipeline::{Flight, Live, Looked, Operation, cache},
    prepared::{Judgement, TypedFallback},
    target::{Failure, fallback_kind, fallback_with},
};

/// How a call's answers are kept.
pub(crate) trait Memory<T> {
    /// A look into a cache.
    type Lookup: Future<Output = Looked<T>>;
    fn lookup(&self, live: &Live, stage: usize) -> Self::Lookup;
    fn keep(&self, flight: Flight, value: T) -> T;
}

/// Not at all: nothing is known of the value, and no key was given.
pub(crate) struct Forgetful;

impl<T> Memory<T> for Forgetful {
    type Lookup = Ready<Looked<T>>;

    fn lookup(&self, _live: &Live, _stage: usize) -> Self::Lookup {
        ready(Looked::NotCacheable)
    }

    fn keep(&self, _flight: Flight, value: T) -> T {
        value
    }
}

/// Under a key.
pub(crate) struct Keyed {
    key: Arc<[u8]>,
    clock: Clock,
}

impl Keyed {
    pub(crate) fn new(key: &[u8], clock: Clock) -> Self {
        Self { key: key.into(), clock }
    }
}

impl<T: Clone + Send + Sync + 'static> Memory<T> for Keyed {
    type Lookup = Pin<Box<dyn Future<Output = Looked<T>> + Send>>;

    fn lookup(&self, live: &Live, stage: usize) -> Self::Lookup {
        match live.cache(stage) {
            Some(store) => Box::pin(cache::look(Arc::clone(store), Arc::clone(&self.key), self.clock)),
            None => Box::pin(ready(Looked::NotCacheable)),
        }
    }

    fn keep(&self, flight: Flight, value: T) -> T {
        flight.land(value.clone(), self.clock.now());
        value
    }
}

/// A closure, with all that is known of its calls.
pub(crate) struct Closure<O, B, J, M> {
    pub(crate) operation: O,
    pub(crate) fallback: B,
    pub(crate) judge: J,
    pub(crate) memory: M,
}

impl<T, E, F, O, B, J, M> Operation for Closure<O, B, J, M>
where
    O: FnMut() -> F,
    F: Future<Output = Result<T, E>>,
    B: TypedFallback<T>,
    J: Judgement<T, E>,
    M: Memory<T>,
{
    type Value = T;
    type Error = E;
    type Attempt = F;
    type Fallback = Either<Ready<Result<T, FallbackFault>>, B::Answer>;
    type Lookup = M::Lookup;

    const PLAIN: bool = J::PLAIN;

    fn attempt(&mut self, _live: Option<&Live>, _remaining: Option<Duration>) -> F {
        (self.operation)()
    }

    fn fallback(&mut self, live: &Live, stage: usize, after: Outcome) -> Self::Fallback {
        if let Some(FallbackWith::Error(text)) = fallback_with(live, stage) {
            return Either::Left(ready(Err(FallbackFault::Asked(text.clone()))));
        }
        Either::Right(self.fallback.answer(Failure::new(live, stage, after), fallback_kind(live, stage)))
    }

    fn lookup(&mut self, live: &Arc<Live>, stage: usize) -> Self::Lookup {
        self.memory.lookup(live, stage)
    }

    fn keep(&mut self, flight: Flight, value: T) -> T {
        self.memory.keep(flight, value)
    }

    fn inject(&mut self, _fault: Fault) -> Option<Result<T, E>> {
        // Nothing is known of the caller's types: the pipeline's own error stands for the fault.
        None
    }

    fn judge<R>(&self, result: Result<&T, &E>, act: impl FnOnce(Outcome, &dyn Facts) -> R) -> R {
        act(self.judge.outcome(result), &NoFacts)
    }
}
