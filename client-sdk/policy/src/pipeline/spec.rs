//! What the operator wrote: strategies, outermost first.

use crate::{
    Invalid, StrategyName, breaker::BreakerSpec, bulkhead::BulkheadSpec, cache::CacheSpec, chaos::ChaosSpec,
    concurrency_limit::ConcurrencyLimitSpec, fallback::FallbackSpec, hedge::HedgeSpec, invalid::Faults,
    rate_limiter::RateLimiterSpec, retry::RetrySpec, throttle::ThrottleSpec, timeout::TimeoutSpec,
};

/// Most strategies of one pipeline. Calls keep their state of each inline, so the bound is also one on their size.
pub const MAX_STRATEGIES: usize = 16;

/// Settings of one element of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StrategySpec {
    /// Limits how long the inside may take.
    Timeout(TimeoutSpec),
    /// Runs the inside again.
    Retry(RetrySpec),
    /// Stops calling a target that fails.
    CircuitBreaker(BreakerSpec),
    /// Answers in place of a failed inside.
    Fallback(FallbackSpec),
    /// Bounds how many calls run at the same time.
    Bulkhead(BulkheadSpec),
    /// Bounds how many calls begin in a time.
    RateLimiter(RateLimiterSpec),
    /// Tries again before the first try has ended.
    Hedge(HedgeSpec),
    /// Finds by itself how many calls may run at the same time.
    ConcurrencyLimit(ConcurrencyLimitSpec),
    /// Refuses calls in the measure in which the target does.
    Throttle(ThrottleSpec),
    /// Answers from memory.
    Cache(CacheSpec),
    /// Trouble on purpose.
    Chaos(ChaosSpec),
}

impl StrategySpec {
    /// The kinds as the manifest spells them.
    pub const KINDS: [&str; 11] = [
        "timeout",
        "retry",
        "circuitBreaker",
        "fallback",
        "bulkhead",
        "rateLimiter",
        "hedge",
        "concurrencyLimit",
        "throttle",
        "cache",
        "chaos",
    ];

    /// The kind as the manifest spells it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Retry(_) => "retry",
            Self::CircuitBreaker(_) => "circuitBreaker",
            Self::Fallback(_) => "fallback",
            Self::Bulkhead(_) => "bulkhead",
            Self::RateLimiter(_) => "rateLimiter",
            Self::Hedge(_) => "hedge",
            Self::ConcurrencyLimit(_) => "concurrencyLimit",
            Self::Throttle(_) => "throttle",
            Self::Cache(_) => "cache",
            Self::Chaos(_) => "chaos",
        }
    }

    /// The kind in kebab case: the default name.
    #[must_use]
    pub const fn default_name(&self) -> &'static str {
        match self {
            Self::CircuitBreaker(_) => "circuit-breaker",
            Self::RateLimiter(_) => "rate-limiter",
            Self::ConcurrencyLimit(_) => "concurrency-limit",
            Self::Timeout(_)
            | Self::Retry(_)
            | Self::Fallback(_)
            | Self::Bulkhead(_)
            | Self::Hedge(_)
            | Self::Throttle(_)
            | Self::Cache(_)
            | Self::Chaos(_) => self.kind(),
        }
    }

    /// Its settings, if it is a timeout.
    #[must_use]
    pub const fn as_timeout(&self) -> Option<&TimeoutSpec> {
        if let Self::Timeout(spec) = self { Some(spec) } else { None }
    }

    /// Its settings, if it is a retry.
    #[must_use]
    pub const fn as_retry(&self) -> Option<&RetrySpec> {
        if let Self::Retry(spec) = self { Some(spec) } else { None }
    }

    /// Its settings, if it is a circuit breaker.
    #[must_use]
    pub const fn as_circuit_breaker(&self) -> Option<&BreakerSpec> {
        if let Self::CircuitBreaker(spec) = self { Some(spec) } else { None }
    }

    /// Its settings, if it is a fallback.
    #[must_use]
    pub const fn as_fallback(&self) -> Option<&FallbackSpec> {
        if let Self::Fallback(spec) = self { Some(spec) } else { None }
    }

    /// Its settings, if it is a hedge.
    #[must_use]
    pub const fn as_hedge(&self) -> Option<&HedgeSpec> {
        if let Self::Hedge(spec) = self { Some(spec) } else { None }
    }

    /// Its settings, if it is a cache.
    #[must_use]
    pub const fn as_cache(&self) -> Option<&CacheSpec> {
        if let Self::Cache(spec) = self { Some(spec) } else { None }
    }

    /// Its settings, if it is chaos.
    #[must_use]
    pub const fn as_chaos(&self) -> Option<&ChaosSpec> {
        if let Self::Chaos(spec) = self { Some(spec) } else { None }
    }
}

/// One element of a pipeline: a name that is unique in it, and settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Strategy {
    name: StrategyName,
    spec: StrategySpec,
}

impl Strategy {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &StrategyName {
        &self.name
    }

    /// Its settings.
    #[must_use]
    pub const fn spec(&self) -> &StrategySpec {
        &self.spec
    }
}

/// Strategies, outermost first: `[fallback, retry, circuitBreaker, timeout]` is
/// `fallback(retry(circuitBreaker(timeout(call))))`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PipelineSpec {
    strategies: Vec<Strategy>,
}

impl PipelineSpec {
    /// Names the unnamed (the kind in kebab case, then `-2`, `-3`...) and checks the whole.
    ///
    /// # Errors
    /// No or too many strategies, a name twice, and combinations that can never do what they say. Paths begin with `[i]`.
    pub fn try_new(strategies: Vec<(Option<StrategyName>, StrategySpec)>) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        if strategies.is_empty() {
            faults.push("", "must have at least one strategy");
        }
        faults.check(
            strategies.len() <= MAX_STRATEGIES,
            "",
            format!("must have at most {MAX_STRATEGIES} strategies, has {}", strategies.len()),
        );
        let mut taken: Vec<StrategyName> = Vec::with_capacity(strategies.len());
        for (index, (name, _)) in strategies.iter().enumerate() {
            if let Some(name) = name {
                if taken.contains(name) {
                    faults.push(format!("[{index}].name"), format!("\"{name}\" is there twice"));
                }
                taken.push(name.clone());
            }
        }
        let mut named = Vec::with_capacity(strategies.len());
        for (name, spec) in strategies {
            let name = match name {
                Some(name) => name,
                None => {
                    let name = free_name(spec.default_name(), &taken)?;
                    taken.push(name.clone());
                    name
                }
            };
            named.push(Strategy { name, spec });
        }
        super::check::contradictions(&named, &mut faults);
        faults.into_result(Some(Self { strategies: named }))
    }

    /// The strategies, outermost first.
    #[must_use]
    pub fn strategies(&self) -> &[Strategy] {
        &self.strategies
    }

    /// Which strategy of the definition before has become the one at `index`: that of the same kind and name, or else the one that
    /// was renamed. Where of one kind as many names have come as have gone, they are paired in their order; otherwise what
    /// has a new name is new.
    #[must_use]
    pub fn former_index(&self, index: usize, before: &Self) -> Option<usize> {
        let own = self.strategies.get(index)?;
        let same = |left: &Strategy, right: &Strategy| left.name == right.name && left.spec.kind() == right.spec.kind();
        if let Some(found) = before.strategies.iter().position(|former| same(former, own)) {
            return Some(found);
        }
        let alone = |here: &Self, there: &Self| -> Vec<usize> {
            let of_kind = here.strategies.iter().enumerate().filter(|(_, one)| one.spec.kind() == own.spec.kind());
            of_kind
                .filter(|(_, one)| !there.strategies.iter().any(|other| same(one, other)))
                .map(|(at, _)| at)
                .collect()
        };
        let (come, gone) = (alone(self, before), alone(before, self));
        let place = come.iter().position(|at| *at == index)?;
        if come.len() == gone.len() { gone.get(place).copied() } else { None }
    }

    /// Where the circuit breakers are, from an index on.
    pub(crate) fn breaker_stages_from(&self, first: usize) -> impl Iterator<Item = usize> {
        let stages = self.strategies.iter().enumerate().skip(first);
        stages.filter(|(_, strategy)| strategy.spec().as_circuit_breaker().is_some()).map(|(index, _)| index)
    }

    /// The circuit breakers among them.
    pub fn breakers(&self) -> impl Iterator<Item = (&StrategyName, &BreakerSpec)> {
        self.strategies.iter().filter_map(|strategy| Some((strategy.name(), strategy.spec().as_circuit_breaker()?)))
    }
}

fn free_name(base: &str, taken: &[StrategyName]) -> Result<StrategyName, Invalid> {
    let mut number = 1;
    loop {
        let text = if number == 1 { base.to_owned() } else { format!("{base}-{number}") };
        let name = StrategyName::try_new(&text)?;
        if !taken.contains(&name) {
            return Ok(name);
        }
        number += 1;
    }
}
