//! Breaker keys, patterns on them, and the names of states <-> wire.

use fusebox_policy::{
    CallerName, Invalid, Namespace, PolicyName, StrategyName, TargetName, Zone,
    breaker::LocalState,
    fleet::{BreakerKey, key::KeyPattern, shared::FleetState},
    invalid::Faults,
};

use crate::v1;

impl TryFrom<v1::BreakerKey> for BreakerKey {
    type Error = Invalid;

    fn try_from(wire: v1::BreakerKey) -> Result<Self, Invalid> {
        let v1::BreakerKey { namespace, caller, policy, strategy, target, zone } = wire;
        let mut faults = Faults::new();
        let namespace = faults.take("namespace", Namespace::try_new(&namespace));
        let caller = faults.take("caller", CallerName::try_new(&caller));
        let policy = faults.take("policy", PolicyName::try_new(&policy));
        let strategy = faults.take("strategy", StrategyName::try_new(&strategy));
        let target = faults.take("target", TargetName::try_new(&target));
        let zone = part(&mut faults, "zone", &zone, Zone::try_new);
        let key = (|| {
            Some(Self {
                namespace: namespace?,
                caller: caller?,
                policy: policy?,
                strategy: strategy?,
                target: target?,
                zone,
            })
        })();
        faults.into_result(key)
    }
}

impl From<&BreakerKey> for v1::BreakerKey {
    fn from(key: &BreakerKey) -> Self {
        let BreakerKey { namespace, caller, policy, strategy, target, zone } = key;
        Self {
            namespace: namespace.to_string(),
            caller: caller.to_string(),
            policy: policy.to_string(),
            strategy: strategy.to_string(),
            target: target.to_string(),
            zone: text(zone.as_ref()),
        }
    }
}

impl TryFrom<v1::BreakerKey> for KeyPattern {
    type Error = Invalid;

    fn try_from(wire: v1::BreakerKey) -> Result<Self, Invalid> {
        let v1::BreakerKey { namespace, caller, policy, strategy, target, zone } = wire;
        let mut faults = Faults::new();
        let namespace = part(&mut faults, "namespace", &namespace, Namespace::try_new);
        let caller = part(&mut faults, "caller", &caller, CallerName::try_new);
        let policy = part(&mut faults, "policy", &policy, PolicyName::try_new);
        let strategy = part(&mut faults, "strategy", &strategy, StrategyName::try_new);
        let target = faults.take("target", TargetName::try_new(&target));
        let zone = part(&mut faults, "zone", &zone, Zone::try_new);
        faults.into_result(target.map(|target| Self { namespace, caller, policy, strategy, target, zone }))
    }
}

impl From<&KeyPattern> for v1::BreakerKey {
    fn from(pattern: &KeyPattern) -> Self {
        let KeyPattern { namespace, caller, policy, strategy, target, zone } = pattern;
        Self {
            namespace: text(namespace.as_ref()),
            caller: text(caller.as_ref()),
            policy: text(policy.as_ref()),
            strategy: text(strategy.as_ref()),
            target: target.to_string(),
            zone: text(zone.as_ref()),
        }
    }
}

/// An optional part: the empty text is "any".
fn part<T>(faults: &mut Faults, field: &str, text: &str, parse: fn(&str) -> Result<T, Invalid>) -> Option<T> {
    if text.is_empty() { None } else { faults.take(field, parse(text)) }
}

fn text<T: ToString>(part: Option<&T>) -> String {
    part.map(ToString::to_string).unwrap_or_default()
}

impl From<LocalState> for v1::LocalState {
    fn from(state: LocalState) -> Self {
        match state {
            LocalState::Closed => Self::Closed,
            LocalState::Open => Self::Open,
            LocalState::HalfOpen => Self::HalfOpen,
        }
    }
}

impl TryFrom<v1::LocalState> for LocalState {
    type Error = Invalid;

    fn try_from(wire: v1::LocalState) -> Result<Self, Invalid> {
        match wire {
            v1::LocalState::Unspecified => Err(Invalid::new("", "is required")),
            v1::LocalState::Closed => Ok(Self::Closed),
            v1::LocalState::Open => Ok(Self::Open),
            v1::LocalState::HalfOpen => Ok(Self::HalfOpen),
        }
    }
}

impl From<FleetState> for v1::FleetState {
    fn from(state: FleetState) -> Self {
        match state {
            FleetState::Released => Self::Released,
            FleetState::Open => Self::Open,
            FleetState::HalfOpen => Self::HalfOpen,
            FleetState::Ramp => Self::Ramp,
            FleetState::ForcedOpen => Self::ForcedOpen,
            FleetState::ForcedClosed => Self::ForcedClosed,
            FleetState::Disabled => Self::Disabled,
        }
    }
}

impl TryFrom<v1::FleetState> for FleetState {
    type Error = Invalid;

    fn try_from(wire: v1::FleetState) -> Result<Self, Invalid> {
        match wire {
            v1::FleetState::Unspecified => Err(Invalid::new("", "is required")),
            v1::FleetState::Released => Ok(Self::Released),
            v1::FleetState::Open => Ok(Self::Open),
            v1::FleetState::HalfOpen => Ok(Self::HalfOpen),
            v1::FleetState::Ramp => Ok(Self::Ramp),
            v1::FleetState::ForcedOpen => Ok(Self::ForcedOpen),
            v1::FleetState::ForcedClosed => Ok(Self::ForcedClosed),
            v1::FleetState::Disabled => Ok(Self::Disabled),
        }
    }
}
