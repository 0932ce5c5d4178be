//! Which breaker is meant.

use std::fmt;

use super::spec::CoordinationScope;
use crate::{CallerName, Namespace, PolicyName, StrategyName, TargetName, Zone};

/// Everything that makes one shared breaker different from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BreakerKey {
    /// Namespace of the policy.
    pub namespace: Namespace,
    /// The calling service: verdicts about A's calls never touch C's.
    pub caller: CallerName,
    /// The policy.
    pub policy: PolicyName,
    /// The element of its pipeline.
    pub strategy: StrategyName,
    /// The service that is called.
    pub target: TargetName,
    /// The zone that opens together; `None` for the whole fleet, and for replicas that name no zone.
    pub zone: Option<Zone>,
}

/// All replicas of one service in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId {
    /// Namespace whose policies they run.
    pub namespace: Namespace,
    /// The service.
    pub caller: CallerName,
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.caller)
    }
}

impl BreakerKey {
    /// Whose calls it is about.
    #[must_use]
    pub fn caller_id(&self) -> CallerId {
        CallerId { namespace: self.namespace.clone(), caller: self.caller.clone() }
    }

    /// The key that a replica in `zone` shares under `scope`.
    #[must_use]
    pub fn in_scope(mut self, scope: CoordinationScope, zone: Option<&Zone>) -> Self {
        self.zone = match scope {
            CoordinationScope::Zone => zone.cloned(),
            CoordinationScope::Fleet => None,
        };
        self
    }
}

impl fmt::Display for BreakerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, caller, policy, strategy, target, zone } = self;
        write!(f, "{namespace}/{caller}/{policy}/{strategy}/{target}/")?;
        f.write_str(zone.as_ref().map_or("-", Zone::as_str))
    }
}

/// Which breakers an override is on: every part that is set must be equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPattern {
    /// Namespace, or any.
    pub namespace: Option<Namespace>,
    /// Calling service, or any.
    pub caller: Option<CallerName>,
    /// Policy, or any.
    pub policy: Option<PolicyName>,
    /// Element of its pipeline, or any.
    pub strategy: Option<StrategyName>,
    /// The service that is called. Never "any": an override without a target is a mistake.
    pub target: TargetName,
    /// Zone, or any.
    pub zone: Option<Zone>,
}

impl KeyPattern {
    /// Whether it is on this breaker. `zone` is the zone of the replica that asks: a replica of the named zone obeys even
    /// where its breaker is shared by the whole fleet.
    #[must_use]
    pub fn matches(&self, key: &BreakerKey, zone: Option<&Zone>) -> bool {
        fn part<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        part(self.namespace.as_ref(), &key.namespace)
            && part(self.caller.as_ref(), &key.caller)
            && part(self.policy.as_ref(), &key.policy)
            && part(self.strategy.as_ref(), &key.strategy)
            && self.target == key.target
            && (self.zone.is_none() || self.zone.as_ref() == zone || self.zone == key.zone)
    }
}
