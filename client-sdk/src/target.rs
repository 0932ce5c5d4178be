//! The handle for one callee.

use std::sync::Arc;

use fusebox_policy::{
    Outcome, PolicyName, StrategyName,
    fallback::{Answers, FallbackWith},
    retry::CallRules,
    throttle::Priority,
};

#[cfg(feature = "tower")]
use crate::pipeline::Operation;
use crate::{
    client::Inner,
    closure::{Closure, Forgetful, Keyed, Memory},
    error::{BoxError, CallError},
    pipeline::{Live, Snapshot, calling},
    prepared::{Asked, ByResult, Fixed, JudgedBy, Judgement, NoFallback, PreparedTarget, TypedFallback},
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
        self.run(operation, NoFallback, ByResult, Forgetful)
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
        let memory = Keyed::new(key.as_ref(), self.client.clock);
        self.run(operation, NoFallback, ByResult, memory).await
    }

    /// Gives the calls a typed fallback: it runs where the policy has a fallback strategy, whatever that answers with; but
    /// `error` stays an error.
    #[must_use]
    pub fn fallback_with<T, B, Fut>(&self, function: B) -> PreparedTarget<Asked<B>, ByResult>
    where
        B: FnMut(Failure) -> Fut + Clone,
        Fut: Future<Output = Result<T, BoxError>>,
    {
        PreparedTarget { target: self.clone(), fallback: Asked(function), judge: ByResult }
    }

    /// Gives the calls a value for where the policy has a fallback strategy.
    #[must_use]
    pub fn or_value<T: Clone>(&self, value: T) -> PreparedTarget<Fixed<T>, ByResult> {
        PreparedTarget { target: self.clone(), fallback: Fixed(value), judge: ByResult }
    }

    /// Says what the results of the calls mean to the policy's rules. Without it every `Ok` is a success, and every `Err` an error
    /// of kind `other`, which retries and breakers take for a failure.
    ///
    /// ```
    /// use fusebox::{ErrorKind, Outcome};
    /// enum Lookup { NoSuchUser, Unreachable }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let client = fusebox::Client::builder("service-a").start().unwrap();
    /// let users = client.target("users").judged_by(|result: Result<&String, &Lookup>| match result {
    ///     Ok(_) | Err(Lookup::NoSuchUser) => Outcome::OK,
    ///     Err(Lookup::Unreachable) => Outcome::Error(ErrorKind::Connect),
    /// });
    /// let user = users.call(|| async { Err(Lookup::NoSuchUser) }).await;   // asked once, and no breaker minds
    /// # assert!(user.is_err());
    /// # }
    /// ```
    #[must_use]
    pub fn judged_by<T, E, J>(&self, judge: J) -> PreparedTarget<NoFallback, JudgedBy<J>>
    where
        J: Fn(Result<&T, &E>) -> Outcome + Clone,
    {
        PreparedTarget { target: self.clone(), fallback: NoFallback, judge: JudgedBy(judge) }
    }

    pub(crate) fn rules(&self, idempotent: bool, replayable: bool, answers: Answers) -> CallRules {
        CallRules { idempotent: self.idempotent.unwrap_or(idempotent), replayable, priority: self.priority, answers }
    }

    pub(crate) fn run<T, E, F, O, B, J, M>(
        &self,
        operation: O,
        fallback: B,
        judge: J,
        memory: M,
    ) -> impl Future<Output = Result<T, CallError<E>>>
    where
        O: FnMut() -> F,
        F: Future<Output = Result<T, E>>,
        B: TypedFallback<T>,
        J: Judgement<T, E>,
        M: Memory<T>,
    {
        calling(self, self.rules(true, true, B::ANSWERS), Closure { operation, fallback, judge, memory })
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
