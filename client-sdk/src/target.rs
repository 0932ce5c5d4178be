//! The handle for one callee.

use std::{pin::Pin, sync::Arc, time::Duration};

use fusebox_policy::{
    Outcome, PolicyName, StrategyName,
    chaos::Fault,
    fallback::FallbackWith,
    outcome::{ErrorKind, Facts, NoFacts},
    retry::CallRules,
    throttle::Priority,
};
use futures_util::future::{Either, MapErr, Ready, TryFutureExt as _, ready};

use crate::{
    client::Inner,
    clock::Clock,
    error::{BoxError, CallError, FallbackFault},
    pipeline::{Flight, Live, Looked, Operation, Snapshot, cache, calling},
};

/// The handle for calls to one service. Cheap to make and to clone; holds no policy, so that a changed one takes effect on the
/// next call.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) client: Arc<Inner>,
    pub(crate) name: Arc<str>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) priority: Priority,
    /// Of this name and route; shared by clones.
    pub(crate) snapshot: Arc<Snapshot>,
}

/// What a fallback is asked to stand for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The policy.
    pub policy: PolicyName,
    /// The element of its pipeline.
    pub strategy: StrategyName,
    /// What is replaced.
    pub outcome: Outcome,
    /// The name of the function, where the policy names one.
    pub function: Option<String>,
}

impl Failure {
    pub(crate) fn new(live: &Live, stage: usize, outcome: Outcome) -> Self {
        let function = match fallback_with(live, stage) {
            Some(FallbackWith::Function(name)) => Some(name.clone()),
            Some(
                FallbackWith::Response(_) | FallbackWith::Error(_) | FallbackWith::Target(_) | FallbackWith::Stale(_),
            )
            | None => None,
        };
        Self { policy: live.policy.name.clone(), strategy: live.strategy(stage).clone(), outcome, function }
    }
}

pub(crate) fn fallback_with(live: &Live, stage: usize) -> Option<&FallbackWith> {
    Some(live.pipeline().strategies().get(stage)?.spec().as_fallback()?.with())
}

/// What a policy's fallback answers with, in words.
pub(crate) fn fallback_kind(live: &Live, stage: usize) -> &'static str {
    match fallback_with(live, stage) {
        Some(FallbackWith::Error(_)) => "error",
        Some(FallbackWith::Response(_)) => "static response",
        Some(FallbackWith::Function(_)) => "function",
        Some(FallbackWith::Target(_)) => "other target",
        Some(FallbackWith::Stale(_)) => "last good response",
        None => "fallback",
    }
}

impl Target {
    pub(crate) fn new(client: Arc<Inner>, name: &str) -> Self {
        Self {
            client,
            name: name.into(),
            route: None,
            idempotent: None,
            priority: Priority::Normal,
            snapshot: Arc::default(),
        }
    }

    /// The name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names the route of the calls: `METHOD /path/template` or `package.Service/Method`. Policies for single routes apply only
    /// to calls that name theirs. HTTP calls name theirs by themselves, from the request; give a template where paths hold ids.
    #[must_use]
    pub fn route(mut self, route: &str) -> Self {
        self.route = Some(route.into());
        self.snapshot = Arc::default();
        self
    }

    /// Says whether another try does harm. Closures are taken as idempotent unless this says otherwise; HTTP requests by their
    /// method and `Idempotency-Key`.
    #[must_use]
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// Says how much the calls matter, for policies that throttle: those that matter least are refused first. Default: normal.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Runs `operation` under the policy of this target, once for each attempt.
    ///
    /// Without a policy it runs once, untouched. Dropping the future cancels the call: it counts for nothing, and everything that
    /// it holds goes back.
    ///
    /// Nothing is known of the operation's types, so each `Ok` is a success and each `Err` a failure (of the kind `other`) that may be
    /// tried again and may open breakers. An answer that is not the target's fault, as "no such article", belongs into the value.
    ///
    /// # Errors
    /// The operation's own error, or what a strategy made of it.
    pub fn call<T, E, F, O>(&self, operation: O) -> impl Future<Output = Result<T, CallError<E>>>
    where
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
    {
        self.run(operation, NoFallback, Forgetful)
    }

    /// As [`Target::call`], for an operation whose value may be answered from memory: where the policy has a cache, calls with
    /// the same `key` and type share one answer. [`Target::call`] itself always asks the target.
    ///
    /// # Errors
    /// The operation's own error, or what a strategy made of it.
    pub async fn call_cached<T, E, F, O>(&self, key: impl AsRef<[u8]>, operation: O) -> Result<T, CallError<E>>
    where
        T: Clone + Send + Sync + 'static,
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
    {
        let memory = Keyed { key: key.as_ref().into(), clock: self.client.clock };
        self.run(operation, NoFallback, memory).await
    }

    /// Gives the calls a typed fallback: it runs where the policy has a fallback strategy, whatever that answers with; but
    /// `error` stays an error.
    #[must_use]
    pub fn fallback_with<T, B, Fut>(&self, function: B) -> WithFallback<Asked<B>>
    where
        B: FnMut(Failure) -> Fut + Clone,
        Fut: Future<Output = Result<T, BoxError>>,
    {
        WithFallback { target: self.clone(), fallback: Asked(function) }
    }

    /// Gives the calls a value for where the policy has a fallback strategy.
    #[must_use]
    pub fn or_value<T: Clone>(&self, value: T) -> WithFallback<Fixed<T>> {
        WithFallback { target: self.clone(), fallback: Fixed(value) }
    }

    pub(crate) fn rules(&self, idempotent: bool, replayable: bool) -> CallRules {
        CallRules { idempotent: self.idempotent.unwrap_or(idempotent), replayable, priority: self.priority }
    }

    fn run<T, E, F, O, B, M>(
        &self,
        operation: O,
        fallback: B,
        memory: M,
    ) -> impl Future<Output = Result<T, CallError<E>>>
    where
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
        B: TypedFallback<T>,
        M: Memory<T>,
    {
        calling(self, self.rules(true, true), Closure { operation, fallback, memory })
    }

    /// Runs an operation under the policy for a route; once, if there is none.
    #[cfg(feature = "tower")]
    pub(crate) async fn drive<P: Operation>(
        &self,
        operation: &mut P,
        route: Option<&str>,
        rules: CallRules,
    ) -> Result<P::Value, CallError<P::Error>> {
        match self.client.registry.resolve(&self.name, route) {
            Some(live) => crate::pipeline::drive(self.client.clock, live, rules, operation).await.result,
            None => operation.attempt(None, None).await.map_err(CallError::Inner),
        }
    }
}

/// A target whose calls have a typed fallback.
#[derive(Clone, Debug)]
pub struct WithFallback<B> {
    target: Target,
    fallback: B,
}

impl<B> WithFallback<B> {
    /// As [`Target::call`].
    ///
    /// # Errors
    /// The operation's own error, or what a strategy made of it.
    pub async fn call<T, E, F, O>(&self, operation: O) -> Result<T, CallError<E>>
    where
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
        B: TypedFallback<T> + Clone,
    {
        self.target.run(operation, self.fallback.clone(), Forgetful).await
    }

    /// As [`Target::call_cached`].
    ///
    /// # Errors
    /// The operation's own error, or what a strategy made of it.
    pub async fn call_cached<T, E, F, O>(&self, key: impl AsRef<[u8]>, operation: O) -> Result<T, CallError<E>>
    where
        T: Clone + Send + Sync + 'static,
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
        B: TypedFallback<T> + Clone,
    {
        let memory = Keyed { key: key.as_ref().into(), clock: self.target.client.clock };
        self.target.run(operation, self.fallback.clone(), memory).await
    }
}

/// What stands in for a failed call.
pub trait TypedFallback<T>: sealed::Sealed {
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
}

/// Nothing does.
#[derive(Clone, Copy, Debug)]
pub struct NoFallback;

/// A value does.
#[derive(Clone, Debug)]
pub struct Fixed<T>(T);

/// A function does.
#[derive(Clone, Debug)]
pub struct Asked<B>(B);

#[cfg(feature = "tower")]
impl<B> Asked<B> {
    pub(crate) const fn new(function: B) -> Self {
        Self(function)
    }
}

impl<T> TypedFallback<T> for NoFallback {
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

/// How a call's answers are kept.
trait Memory<T> {
    /// A look into a cache.
    type Lookup: Future<Output = Looked<T>>;
    fn lookup(&self, live: &Live, stage: usize) -> Self::Lookup;
    fn keep(&self, flight: Flight, value: T) -> T;
}

/// Not at all: nothing is known of the value, and no key was given.
struct Forgetful;

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
struct Keyed {
    key: Arc<[u8]>,
    clock: Clock,
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

struct Closure<O, B, M> {
    operation: O,
    fallback: B,
    memory: M,
}

impl<T, E, F, O, B, M> Operation for Closure<O, B, M>
where
    O: FnMut() -> F,
    F: Future<Output = Result<T, E>>,
    B: TypedFallback<T>,
    M: Memory<T>,
{
    type Value = T;
    type Error = E;
    type Attempt = F;
    type Fallback = Either<Ready<Result<T, FallbackFault>>, B::Answer>;
    type Lookup = M::Lookup;

    const PLAIN: bool = true;

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
        act(if result.is_ok() { Outcome::OK } else { Outcome::Error(ErrorKind::Other) }, &NoFacts)
    }
}
