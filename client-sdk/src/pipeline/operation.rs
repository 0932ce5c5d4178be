//! What a call does, seen from the pipeline.

use std::{sync::Arc, time::Duration};

use fusebox_policy::{
    Outcome,
    chaos::Fault,
    outcome::{Facts, NoFacts},
};

use super::{Flight, Live};
use crate::error::{CallError, FallbackFault};

/// What a call does: attempts, and what may stand in their place.
pub(crate) trait Operation {
    /// What a good attempt gives.
    type Value;
    /// What a bad one gives.
    type Error;
    /// One attempt.
    type Attempt: Future<Output = Result<Self::Value, Self::Error>>;
    /// One fallback.
    type Fallback: Future<Output = Result<Self::Value, FallbackFault>>;
    /// One look into a cache.
    type Lookup: Future<Output = Looked<Self::Value>>;

    /// Whether a good value says nothing more than that it is one.
    const PLAIN: bool = false;

    /// Begins an attempt. `live` is the policy, if there is one; `remaining` the time until its nearest deadline.
    fn attempt(&mut self, live: Option<&Live>, remaining: Option<Duration>) -> Self::Attempt;
    /// Begins the fallback of a stage.
    fn fallback(&mut self, live: &Live, stage: usize, after: Outcome) -> Self::Fallback;
    /// Begins to look into the cache of a stage.
    fn lookup(&mut self, live: &Arc<Live>, stage: usize) -> Self::Lookup;
    /// Keeps a good value in the cache of a stage; the value goes on.
    fn keep(&mut self, flight: Flight, value: Self::Value) -> Self::Value;
    /// Makes the answer that chaos asks for, where this kind of call can.
    fn inject(&mut self, fault: Fault) -> Option<Result<Self::Value, Self::Error>>;
    /// What an attempt's result means to rules.
    fn judge<R>(&self, result: Result<&Self::Value, &Self::Error>, act: impl FnOnce(Outcome, &dyn Facts) -> R) -> R;
}

/// What a look into a cache gives.
#[derive(Debug)]
pub(crate) enum Looked<V> {
    /// The answer.
    Hit(V),
    /// No answer, and leave to keep one.
    Miss(Flight),
    /// This call can't be answered from memory.
    NotCacheable,
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Driven<V, E> {
    pub(crate) result: Result<V, CallError<E>>,
    pub(crate) outcome: Outcome,
    pub(crate) attempts: u32,
    /// The fallback that gave the value, and what it stands for.
    pub(crate) replaced: Option<(usize, Outcome)>,
}

/// What a result of any origin means to rules. `known` is what the pipeline itself has made of it.
pub(super) fn judge<O: Operation, R>(
    operation: &O,
    result: &Result<O::Value, CallError<O::Error>>,
    known: Outcome,
    act: impl FnOnce(Outcome, &dyn Facts) -> R,
) -> R {
    match result {
        Ok(value) => operation.judge(Ok(value), act),
        Err(CallError::Inner(error)) => operation.judge(Err(error), act),
        Err(_) => act(known, &NoFacts),
    }
}
