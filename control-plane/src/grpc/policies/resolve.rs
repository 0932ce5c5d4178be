//! `ResolvePolicy`: which policy is for a call, and why.

use std::collections::BTreeMap;

use fusebox_policy::{
    CallerName, Invalid, Namespace, TargetName,
    invalid::Faults,
    pipeline::{Strategy, StrategySpec, worst_case_attempts},
    retry::CallRules,
    selector::{Judgement, Specificity},
};
use fusebox_proto::v1;

use crate::{fleet::View, hub::Snapshot, store::StoredPolicy};

/// Candidates in one answer.
const MOST: usize = 100;
/// Longest route: as long as what an SDK takes for one.
const LONGEST_ROUTE: usize = 2048;

/// A call that is asked about.
pub(super) struct Asked {
    namespace: Namespace,
    service: CallerName,
    target: TargetName,
    route: Option<String>,
    has_idempotency_key: bool,
}

impl Asked {
    /// Reads a request whose namespace has been read.
    ///
    /// # Errors
    /// Every bad field.
    pub(super) fn try_new(namespace: Namespace, wire: v1::ResolvePolicyRequest) -> Result<Self, Invalid> {
        let v1::ResolvePolicyRequest { parent: _, service, target, route, headers } = wire;
        let mut faults = Faults::new();
        let service = faults.take("service", CallerName::try_new(&service));
        let target = faults.take("target", TargetName::try_new(&target));
        faults.check(route.len() <= LONGEST_ROUTE, "route", format!("must be at most {LONGEST_ROUTE} bytes"));
        let is_route = match route.split_once(' ') {
            Some((method, path)) => !method.is_empty() && path.starts_with('/') && !path.contains(' '),
            None => route.contains('/') && !route.starts_with('/'),
        };
        let what = "must be \"METHOD /path\" or \"package.Service/Method\"";
        faults.check(route.is_empty() || is_route, "route", what);
        let has_idempotency_key = headers.keys().any(|name| name.eq_ignore_ascii_case("idempotency-key"));
        let route = (!route.is_empty()).then_some(route);
        let asked = service.zip(target).map(|(service, target)| Self {
            namespace,
            service,
            target,
            route,
            has_idempotency_key,
        });
        faults.into_result(asked)
    }

    /// Whether the call may be made twice, as SDKs judge it without a word from the application.
    fn is_idempotent(&self) -> bool {
        let method = self.route.as_deref().and_then(|route| route.split_once(' ')).map(|(method, _)| method);
        self.has_idempotency_key || method.is_some_and(|method| CallRules::IDEMPOTENT_METHODS.contains(&method))
    }
}

/// Answers from what is in force and who is connected.
pub(super) fn resolve(asked: &Asked, snapshot: &Snapshot, view: &View) -> v1::ResolvePolicyResponse {
    let route = asked.route.as_deref();
    let mut matching: Vec<(Specificity, &StoredPolicy, String)> = Vec::new();
    let mut others = Vec::new();
    let own = snapshot.policies.iter().filter(|stored| stored.policy.namespace == asked.namespace);
    for stored in own {
        let selector = &stored.policy.definition.selector;
        let why = match selector.judge(&asked.service, asked.target.as_str(), route) {
            Judgement::Matches { specificity, route } => {
                let route = route.map(ToString::to_string).unwrap_or_default();
                matching.push((specificity, stored, route));
                continue;
            }
            Judgement::OtherTarget => continue,
            Judgement::OtherCaller => {
                format!("it is for calls from {}", selector.caller().map_or("nobody", CallerName::as_str))
            }
            Judgement::NeedsRoute => "it is for some routes, and the call has none".to_owned(),
            Judgement::OtherRoutes => {
                let routes: Vec<_> = selector.routes().iter().map(|own| format!("\"{own}\"")).collect();
                format!("it is for {}", routes.join(", "))
            }
        };
        others.push(candidate(stored, false, String::new(), why));
    }
    matching.sort_by(|(left, ..), (right, ..)| right.cmp(left));
    let chosen = matching.first().map(|(specificity, stored, _)| (*specificity, *stored));
    let candidates = matching.iter().enumerate().map(|(place, (specificity, stored, route))| {
        let reason = match (place, chosen) {
            (0, _) => match matching.get(1) {
                None => "the only one for this call".to_owned(),
                Some((next, other, _)) => {
                    let why = specificity.closer_than(next).unwrap_or("it is as close, and the first by name");
                    format!("closer than \"{}\": {why}", other.policy.name)
                }
            },
            (_, Some((best, winner))) => {
                let why = best.closer_than(specificity).unwrap_or("it is as close, and the first by name");
                format!("\"{}\" is closer: {why}", winner.policy.name)
            }
            (_, None) => String::new(),
        };
        candidate(stored, true, route.clone(), reason)
    });
    let candidates = candidates.chain(others).take(MOST).collect();
    let instances: Vec<_> = view.instances.values().filter(|instance| concerns_replica(asked, instance)).collect();
    let is_current = |stored: &StoredPolicy| {
        let current = instances.iter().filter(|instance| super::standing::runs(instance, stored));
        u32::try_from(current.count()).unwrap_or(u32::MAX)
    };
    let strategies = |stored: &StoredPolicy| {
        let pipeline = stored.policy.definition.pipeline.strategies();
        pipeline.iter().map(|strategy| resolved(asked, stored, strategy, view)).collect()
    };
    v1::ResolvePolicyResponse {
        policy: chosen.map(|(_, stored)| stored.wire.clone()),
        candidates,
        strategies: chosen.map(|(_, stored)| strategies(stored)).unwrap_or_default(),
        instances: u32::try_from(instances.len()).unwrap_or(u32::MAX),
        instances_current: chosen.map_or(0, |(_, stored)| is_current(stored)),
        worst_case_attempts: chosen
            .map(|(_, stored)| worst_case_attempts(&stored.policy.definition.pipeline).unwrap_or(u64::MAX))
            .unwrap_or_default(),
    }
}

/// Whether it is a replica of the caller's.
fn concerns_replica(asked: &Asked, instance: &v1::Instance) -> bool {
    instance.namespace == asked.namespace.as_str() && instance.service == asked.service.as_str()
}

fn candidate(stored: &StoredPolicy, matches: bool, route: String, reason: String) -> v1::PolicyCandidate {
    let (name, revision) = (stored.wire.name.clone(), stored.wire.revision);
    v1::PolicyCandidate { name, revision, matches, route, reason }
}

fn resolved(asked: &Asked, stored: &StoredPolicy, strategy: &Strategy, view: &View) -> v1::ResolvedStrategy {
    let mut notes = Vec::new();
    let mut breakers = Vec::new();
    match strategy.spec() {
        StrategySpec::Retry(spec) if !asked.is_idempotent() && !spec.non_idempotent() => {
            notes.push(
                "the call is not known to be repeatable (no repeatable method, no idempotency-key): it is tried again only if it \
                 never left, or if the application says that it may be"
                    .to_owned(),
            );
        }
        StrategySpec::Hedge(_) if !asked.is_idempotent() => {
            notes.push(
                "the call is not known to be repeatable: it is not hedged unless the application says that it may be"
                    .to_owned(),
            );
        }
        StrategySpec::CircuitBreaker(_) => {
            let parts: BTreeMap<&str, &str> = [
                ("namespace", asked.namespace.as_str()),
                ("caller", asked.service.as_str()),
                ("policy", stored.policy.name.as_str()),
                ("strategy", strategy.name().as_str()),
                ("target", asked.target.as_str()),
            ]
            .into();
            let concerns = |key: &v1::BreakerKey| exact(key, &parts);
            breakers =
                view.breakers.values().filter(|own| own.key.as_ref().is_some_and(concerns)).map(breaker).collect();
            let forced =
                view.overrides.iter().filter(|own| own.selector.as_ref().is_some_and(|key| pattern(key, &parts)));
            notes.extend(forced.map(|own| format!("{} by override {}: {}", done(own.state()), own.id, own.reason)));
            if view.instances.values().any(|one| concerns_replica(asked, one) && one.ignores_fleet) {
                notes.push("some replicas obey neither the fleet nor overrides: their kill switch is on".to_owned());
            }
        }
        StrategySpec::Timeout(_)
        | StrategySpec::Retry(_)
        | StrategySpec::Fallback(_)
        | StrategySpec::Bulkhead(_)
        | StrategySpec::RateLimiter(_)
        | StrategySpec::Hedge(_)
        | StrategySpec::ConcurrencyLimit(_)
        | StrategySpec::Throttle(_)
        | StrategySpec::Cache(_)
        | StrategySpec::Chaos(_) => {}
    }
    let (name, kind) = (strategy.name().to_string(), strategy.spec().kind().to_owned());
    v1::ResolvedStrategy { name, kind, breakers, notes }
}

/// What an override does.
fn done(state: v1::FleetState) -> &'static str {
    match state {
        v1::FleetState::ForcedOpen => "forced open",
        v1::FleetState::ForcedClosed => "forced closed",
        v1::FleetState::Disabled => "disabled",
        // Of no override.
        v1::FleetState::Unspecified
        | v1::FleetState::Released
        | v1::FleetState::Open
        | v1::FleetState::HalfOpen
        | v1::FleetState::Ramp => state.as_str_name(),
    }
}

fn parts_of(key: &v1::BreakerKey) -> [(&'static str, &str); 5] {
    [
        ("namespace", &key.namespace),
        ("caller", &key.caller),
        ("policy", &key.policy),
        ("strategy", &key.strategy),
        ("target", &key.target),
    ]
}

fn exact(key: &v1::BreakerKey, wanted: &BTreeMap<&str, &str>) -> bool {
    parts_of(key).iter().all(|(part, value)| wanted.get(part) == Some(value))
}

/// Empty parts match everything.
fn pattern(key: &v1::BreakerKey, wanted: &BTreeMap<&str, &str>) -> bool {
    parts_of(key).iter().all(|(part, value)| value.is_empty() || wanted.get(part) == Some(value))
}

fn breaker(own: &v1::Breaker) -> v1::ResolvedBreaker {
    v1::ResolvedBreaker {
        name: own.name.clone(),
        fleet_state: own.fleet_state,
        reason: own.reason.clone(),
        r#override: own.r#override.clone(),
    }
}
