//! What the calls of a target have in common beyond its name: a typed fallback, and what their results mean.

use fusebox_policy::{Outcome, fallback::Answers, outcome::ErrorKind};
use futures_util::future::{MapErr, Ready, TryFutureExt as _, ready};

use crate::{
    closure::{Forgetful, Keyed},
    error::{BoxError, CallError, FallbackFault},
    target::{Failure, Target},
};

/// A target, and what its calls have in common: a typed fallback, and what their results mean.
#[derive(Clone, Debug)]
pub struct PreparedTarget<B, J> {
    pub(crate) target: Target,
    pub(crate) fallback: B,
    pub(crate) judge: J,
}

impl<B, J> PreparedTarget<B, J> {
    /// As [`Target::call`].
    ///
    /// # Errors
    /// The operation's own error, or what a strategy made of it.
    pub async fn call<T, E, F, O>(&self, operation: O) -> Result<T, CallError<E>>
    where
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
        B: TypedFallback<T> + Clone,
        J: Judgement<T, E> + Clone,
    {
        self.target.run(operation, self.fallback.clone(), self.judge.clone(), Forgetful).await
    }

    /// As [`Target::call_cached`]. What the fallback gives is not kept.
    ///
    /// # Errors
    /// The operation's own error, or what a strategy made of it.
    pub async fn call_cached<T, E, F, O>(&self, key: impl AsRef<[u8]>, operation: O) -> Result<T, CallError<E>>
    where
        T: Clone + Send + Sync + 'static,
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
        B: TypedFallback<T> + Clone,
        J: Judgement<T, E> + Clone,
    {
        let memory = Keyed::new(key.as_ref(), self.target.client.clock);
        self.target.run(operation, self.fallback.clone(), self.judge.clone(), memory).await
    }
}

impl<J> PreparedTarget<NoFallback, J> {
    /// As [`Target::fallback_with`].
    #[must_use]
    pub fn fallback_with<T, B, Fut>(self, function: B) -> PreparedTarget<Asked<B>, J>
    where
        B: FnMut(Failure) -> Fut + Clone,
        Fut: Future<Output = Result<T, BoxError>>,
    {
        PreparedTarget { target: self.target, fallback: Asked(function), judge: self.judge }
    }

    /// As [`Target::or_value`].
    #[must_use]
    pub fn or_value<T: Clone>(self, value: T) -> PreparedTarget<Fixed<T>, J> {
        PreparedTarget { target: self.target, fallback: Fixed(value), judge: self.judge }
    }
}

impl<B> PreparedTarget<B, ByResult> {
    /// As [`Target::judged_by`].
    #[must_use]
    pub fn judged_by<T, E, J>(self, judge: J) -> PreparedTarget<B, JudgedBy<J>>
    where
        J: Fn(Result<&T, &E>) -> Outcome + Clone,
    {
        PreparedTarget { target: self.target, fallback: self.fallback, judge: JudgedBy(judge) }
    }
}

/// What results mean.
pub trait Judgement<T, E>: sealed::Sealed {
    /// Whether every value is a plain success.
    const PLAIN: bool;
    /// What a result means to rules.
    fn outcome(&self, result: Result<&T, &E>) -> Outcome;
}

/// A value is a success, an error an error of kind `other`.
#[derive(Clone, Copy, Debug)]
pub struct ByResult;

/// A function says it.
#[derive(Clone, Debug)]
pub struct JudgedBy<J>(pub(crate) J);

impl<T, E> Judgement<T, E> for ByResult {
    const PLAIN: bool = true;

    fn outcome(&self, result: Result<&T, &E>) -> Outcome {
        if result.is_ok() { Outcome::OK } else { Outcome::Error(ErrorKind::Other) }
    }
}

impl<T, E, J: Fn(Result<&T, &E>) -> Outcome> Judgement<T, E> for JudgedBy<J> {
    const PLAIN: bool = false;

    fn outcome(&self, result: Result<&T, &E>) -> Outcome {
        (self.0)(result)
    }
}

/// What stands in for a failed call.
pub trait TypedFallback<T>: sealed::Sealed {
    /// What the policy's fallbacks can answer with then.
    const ANSWERS: Answers = Answers::Anything;
    /// Its answer.
    type Answer: Future<Output = Result<T, FallbackFault>>;
    /// Asks for it.
    fn answer(&mut self, failure: Failure, kind: &'static str) -> Self::Answer;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NoFallback {}
    impl<T> Sealed for super::Fixed<T> {}
    impl<B> Sealed for super::Asked<B> {}
    impl Sealed for super::ByResult {}
    impl<J> Sealed for super::JudgedBy<J> {}
}

/// Nothing does.
#[derive(Clone, Copy, Debug)]
pub struct NoFallback;

/// A value does.
#[derive(Clone, Debug)]
pub struct Fixed<T>(pub(crate) T);

/// A function does.
#[derive(Clone, Debug)]
pub struct Asked<B>(pub(crate) B);

impl<T> TypedFallback<T> for NoFallback {
    const ANSWERS: Answers = Answers::Error;

    type Answer = Ready<Result<T, FallbackFault>>;

    fn answer(&mut self, failure: Failure, kind: &'static str) -> Self::Answer {
        ready(Err(failure.function.map_or(FallbackFault::NoTypedValue(kind), FallbackFault::UnknownFunction)))
    }
}

impl<T: Clone> TypedFallback<T> for Fixed<T> {
    type Answer = Ready<Result<T, FallbackFault>>;

    fn answer(&mut self, _failure: Failure, _kind: &'static str) -> Self::Answer {
        ready(Ok(self.0.clone()))
    }
}

impl<T, B, Fut> TypedFallback<T> for Asked<B>
where
    B: FnMut(Failure) -> Fut,
    Fut: Future<Output = Result<T, BoxError>>,
{
    type Answer = MapErr<Fut, fn(BoxError) -> FallbackFault>;

    fn answer(&mut self, failure: Failure, _kind: &'static str) -> Self::Answer {
        (self.0)(failure).map_err(FallbackFault::Failed)
    }
}
