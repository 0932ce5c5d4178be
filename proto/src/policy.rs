//! Policy, selector and pipeline <-> wire.

use fusebox_policy::{
    CallerName, Invalid, Namespace, Policy, PolicyName, Revision, StrategyName, TargetName,
    fleet::Coordination,
    invalid::Faults,
    pipeline::{PipelineSpec, StrategySpec},
    policy::{Definition, Labels, OnChange},
    selector::{RoutePattern, Selector},
};

use crate::v1;

/// Reads `namespaces/{namespace}/policies/{policy}`.
///
/// # Errors
/// What is wrong with it, with an empty path.
pub fn parse_policy_name(name: &str) -> Result<(Namespace, PolicyName), Invalid> {
    let parts = name.strip_prefix("namespaces/").and_then(|rest| rest.split_once("/policies/")).ok_or_else(|| {
        Invalid::new("", format!("must be namespaces/{{namespace}}/policies/{{policy}}, not {name:?}"))
    })?;
    Ok((Namespace::try_new(parts.0)?, PolicyName::try_new(parts.1)?))
}

impl TryFrom<v1::Policy> for Policy {
    type Error = Invalid;

    fn try_from(wire: v1::Policy) -> Result<Self, Invalid> {
        /// A policy travels in one message; so large a one was not written by anybody.
        const LARGEST: usize = 1024 * 1024;
        let size = prost::Message::encoded_len(&wire);
        if size > LARGEST {
            return Err(Invalid::new("", format!("must be at most {LARGEST} bytes, is {size}")));
        }
        // The etag, the times and the status are the store's business, and no part of what is asked for.
        let v1::Policy { name, labels, spec, revision, etag: _, create_time: _, update_time: _, status: _ } = wire;
        let mut faults = Faults::new();
        let name = faults.take("name", parse_policy_name(&name));
        let labels = faults.take("labels", Labels::try_new(labels));
        let definition = match spec {
            Some(spec) => faults.take("spec", Definition::try_from(spec)),
            None => {
                faults.push("spec", "is required");
                None
            }
        };
        let policy = name.zip(labels).zip(definition).map(|(((namespace, name), labels), definition)| Self {
            namespace,
            name,
            labels,
            definition,
            revision: Revision(revision),
        });
        faults.into_result(policy)
    }
}

impl From<&Policy> for v1::Policy {
    fn from(policy: &Policy) -> Self {
        Self {
            name: policy.resource_name(),
            labels: policy.labels.as_map().clone(),
            spec: Some((&policy.definition).into()),
            revision: policy.revision.0,
            etag: String::new(),
            create_time: None,
            update_time: None,
            status: None,
        }
    }
}

impl TryFrom<v1::PolicySpec> for Definition {
    type Error = Invalid;

    fn try_from(wire: v1::PolicySpec) -> Result<Self, Invalid> {
        let v1::PolicySpec { r#match, pipeline, coordination, on_change } = wire;
        let mut faults = Faults::new();
        let selector = match r#match {
            Some(wire) => faults.take("match", Selector::try_from(wire)),
            None => {
                faults.push("match", "is required");
                None
            }
        };
        let pipeline = read_pipeline(pipeline, &mut faults);
        let coordination = match coordination {
            Some(wire) => faults.take("coordination", wire.try_into()),
            None => Some(Coordination::default()),
        };
        let on_change = match v1::OnChange::try_from(on_change) {
            Ok(v1::OnChange::Unspecified | v1::OnChange::Keep) => OnChange::Keep,
            Ok(v1::OnChange::Reset) => OnChange::Reset,
            Err(_) => {
                faults.push("onChange", format!("{on_change} is not a choice"));
                OnChange::default()
            }
        };
        let definition = selector.zip(pipeline).zip(coordination).map(|((selector, pipeline), coordination)| Self {
            selector,
            pipeline,
            coordination,
            on_change,
        });
        if let Some(definition) = &definition {
            faults.take("", definition.check());
        }
        faults.into_result(definition)
    }
}

fn read_pipeline(wire: Vec<v1::Strategy>, faults: &mut Faults) -> Option<PipelineSpec> {
    let count = wire.len();
    let mut strategies = Vec::with_capacity(count);
    for (index, strategy) in wire.into_iter().enumerate() {
        let v1::Strategy { name, kind } = strategy;
        let at = format!("pipeline[{index}]");
        let name =
            if name.is_empty() { None } else { faults.take(&format!("{at}.name"), StrategyName::try_new(&name)) };
        let Some(kind) = kind else {
            faults.push(at, format!("must be one of {}", StrategySpec::KINDS.join(", ")));
            continue;
        };
        let spec = read_strategy(kind, &at, faults);
        strategies.extend(spec.map(|spec| (name, spec)));
    }
    // With a strategy missing, what is said about the whole would be about another pipeline.
    if strategies.len() < count { None } else { faults.take("pipeline", PipelineSpec::try_new(strategies)) }
}

fn read_strategy(kind: v1::strategy::Kind, at: &str, faults: &mut Faults) -> Option<StrategySpec> {
    use v1::strategy::Kind;
    let under = |name: &str| format!("{at}.{name}");
    match kind {
        Kind::Timeout(wire) => faults.take(&under("timeout"), wire.try_into()).map(StrategySpec::Timeout),
        Kind::Retry(wire) => faults.take(&under("retry"), wire.try_into()).map(StrategySpec::Retry),
        Kind::CircuitBreaker(wire) => {
            faults.take(&under("circuitBreaker"), wire.try_into()).map(StrategySpec::CircuitBreaker)
        }
        Kind::Fallback(wire) => faults.take(&under("fallback"), wire.try_into()).map(StrategySpec::Fallback),
        Kind::Bulkhead(wire) => faults.take(&under("bulkhead"), wire.try_into()).map(StrategySpec::Bulkhead),
        Kind::RateLimiter(wire) => faults.take(&under("rateLimiter"), wire.try_into()).map(StrategySpec::RateLimiter),
        Kind::Hedge(wire) => faults.take(&under("hedge"), wire.try_into()).map(StrategySpec::Hedge),
        Kind::ConcurrencyLimit(wire) => {
            faults.take(&under("concurrencyLimit"), wire.try_into()).map(StrategySpec::ConcurrencyLimit)
        }
        Kind::Throttle(wire) => faults.take(&under("throttle"), wire.try_into()).map(StrategySpec::Throttle),
        Kind::Cache(wire) => faults.take(&under("cache"), wire.try_into()).map(StrategySpec::Cache),
        Kind::Chaos(wire) => faults.take(&under("chaos"), wire.try_into()).map(StrategySpec::Chaos),
    }
}

impl From<&Definition> for v1::PolicySpec {
    fn from(definition: &Definition) -> Self {
        let Definition { selector, pipeline, coordination, on_change } = definition;
        let on_change = match on_change {
            OnChange::Keep => v1::OnChange::Keep,
            OnChange::Reset => v1::OnChange::Reset,
        };
        let strategy = |strategy: &fusebox_policy::pipeline::Strategy| v1::Strategy {
            name: strategy.name().to_string(),
            kind: Some(match strategy.spec() {
                StrategySpec::Timeout(spec) => v1::strategy::Kind::Timeout(spec.into()),
                StrategySpec::Retry(spec) => v1::strategy::Kind::Retry(spec.into()),
                StrategySpec::CircuitBreaker(spec) => v1::strategy::Kind::CircuitBreaker(spec.into()),
                StrategySpec::Fallback(spec) => v1::strategy::Kind::Fallback(spec.into()),
                StrategySpec::Bulkhead(spec) => v1::strategy::Kind::Bulkhead(spec.into()),
                StrategySpec::RateLimiter(spec) => v1::strategy::Kind::RateLimiter(spec.into()),
                StrategySpec::Hedge(spec) => v1::strategy::Kind::Hedge(spec.into()),
                StrategySpec::ConcurrencyLimit(spec) => v1::strategy::Kind::ConcurrencyLimit(spec.into()),
                StrategySpec::Throttle(spec) => v1::strategy::Kind::Throttle(spec.into()),
                StrategySpec::Cache(spec) => v1::strategy::Kind::Cache(spec.into()),
                StrategySpec::Chaos(spec) => v1::strategy::Kind::Chaos(spec.into()),
            }),
        };
        Self {
            r#match: Some(selector.into()),
            pipeline: pipeline.strategies().iter().map(strategy).collect(),
            coordination: Some(coordination.into()),
            on_change: on_change.into(),
        }
    }
}

impl TryFrom<v1::Selector> for Selector {
    type Error = Invalid;

    fn try_from(wire: v1::Selector) -> Result<Self, Invalid> {
        let v1::Selector { caller, target, routes } = wire;
        let mut faults = Faults::new();
        let caller = if caller.is_empty() { None } else { faults.take("caller", CallerName::try_new(&caller)) };
        let target = faults.take("target", TargetName::try_new(&target));
        let mut patterns = Vec::with_capacity(routes.len());
        for (index, route) in routes.iter().enumerate() {
            patterns.extend(faults.take(&format!("routes[{index}]"), RoutePattern::parse(route)));
        }
        let selector = target.and_then(|target| faults.take("", Self::try_new(caller, target, patterns)));
        faults.into_result(selector)
    }
}

impl From<&Selector> for v1::Selector {
    fn from(selector: &Selector) -> Self {
        Self {
            caller: selector.caller().map(ToString::to_string).unwrap_or_default(),
            target: selector.target().to_string(),
            routes: selector.routes().iter().map(ToString::to_string).collect(),
        }
    }
}
