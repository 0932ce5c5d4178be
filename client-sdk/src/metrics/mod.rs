//! What the client tells through the [`metrics`] facade.
//!
//! The names are listed in `docs/metrics.md`, and a test holds that page to them. Handles are registered once for each policy in force, when it takes effect: the
//! recorder must be installed before the client starts. Labels are policy, target and service, never a URL or an instance; a process
//! that calls more than [`MAX_TARGETS`] targets has the others under one label.

mod call;
mod gauges;

use std::collections::HashSet;

use fusebox_policy::{PolicyName, TargetName, breaker::Transition, fleet::BreakerKey, names::CallerName};
use metrics::{Label, counter};
use parking_lot::Mutex;

pub(crate) use self::call::CallMeter;
pub(crate) use self::gauges::Seen;

/// So many targets have a label of their own.
const MAX_TARGETS: usize = 200;
/// The label of the others.
const OTHER: &str = "other";
/// Uses of that label.
const LABEL_OVERFLOW: &str = "fusebox_label_overflow_total";
/// Ends of the stream to the control plane, and dials that came to nothing.
pub(crate) const RECONNECTS: &str = "fusebox_sync_reconnects_total";
/// Policies that this process has refused.
pub(crate) const POLICY_REJECTED: &str = "fusebox_policy_rejected_total";
/// The last-good file could not be written, or was not used.
pub(crate) const CACHE_FAULTS: &str = "fusebox_cache_faults_total";
/// Outcomes of probes that could not be told.
pub(crate) const EVENTS_DROPPED: &str = "fusebox_events_dropped_total";

/// The meters of one client.
#[derive(Debug)]
pub(crate) struct Meters {
    service: CallerName,
    targets: Mutex<HashSet<TargetName>>,
}

impl Meters {
    pub(crate) fn new(service: CallerName) -> Self {
        let meters = Self { service, targets: Mutex::default() };
        // What stands at zero from the start can be watched before it happens for the first time.
        for name in [LABEL_OVERFLOW, RECONNECTS, POLICY_REJECTED, EVENTS_DROPPED, CACHE_FAULTS] {
            meters.count(name, 0);
        }
        meters
    }

    /// The labels of everything about a policy and its target.
    fn labels(&self, policy: &PolicyName, target: &TargetName) -> Vec<Label> {
        vec![
            Label::new("service", self.service.to_string()),
            Label::new("policy", policy.to_string()),
            Label::new("target", self.target(target)),
        ]
    }

    fn target(&self, target: &TargetName) -> String {
        let mut targets = self.targets.lock();
        if targets.contains(target) {
            return target.to_string();
        }
        if targets.len() < MAX_TARGETS {
            targets.insert(target.clone());
            return target.to_string();
        }
        drop(targets);
        self.count(LABEL_OVERFLOW, 1);
        OTHER.to_owned()
    }

    /// A breaker has changed its state. `shadow`: it only watches.
    pub(crate) fn transition(&self, key: &BreakerKey, transition: &Transition, shadow: bool) {
        let mut labels = self.labels(&key.policy, &key.target);
        labels.push(Label::new("strategy", key.strategy.to_string()));
        if shadow && transition.to == fusebox_policy::breaker::LocalState::Open {
            counter!("fusebox_breaker_would_open_total", labels.clone()).increment(1);
        }
        labels.push(Label::from_static_parts("from", transition.from.name()));
        labels.push(Label::from_static_parts("to", transition.to.name()));
        labels.push(Label::from_static_parts("cause", transition.cause.name()));
        counter!("fusebox_breaker_transitions_total", labels).increment(1);
    }

    /// The fleet has opened a breaker that only watches.
    pub(crate) fn would_open_by_fleet(&self, key: &BreakerKey) {
        let mut labels = self.labels(&key.policy, &key.target);
        labels.push(Label::new("strategy", key.strategy.to_string()));
        counter!("fusebox_breaker_would_open_by_fleet_total", labels).increment(1);
    }

    /// The control plane was heard of.
    pub(crate) fn synced(&self) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let labels = vec![Label::new("service", self.service.to_string())];
        metrics::gauge!("fusebox_last_sync_timestamp_seconds", labels).set(since.as_secs_f64());
    }

    /// Something of the link is counted.
    pub(crate) fn count(&self, name: &'static str, count: u64) {
        counter!(name, vec![Label::new("service", self.service.to_string())]).increment(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_of_a_process_are_capped() {
        let meters = Meters::new(CallerName::try_new("a").unwrap());
        for number in 0..MAX_TARGETS {
            let target = TargetName::try_new(&format!("t{number}")).unwrap();
            assert_eq!(meters.target(&target), format!("t{number}"));
        }
        assert_eq!(meters.target(&TargetName::try_new("one-more").unwrap()), OTHER);
        assert_eq!(meters.target(&TargetName::try_new("t0").unwrap()), "t0");
    }
}
