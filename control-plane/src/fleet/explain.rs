//! Why things were decided, for operators who ask.

use fusebox_policy::{
    Timestamp,
    fleet::{
        BreakerKey,
        coordinator::{Guard, Record, Suspicion, Witness},
    },
};
use fusebox_proto::{duration::to_wire, v1};

use super::{owner::Owner, view};

impl Owner {
    /// What was decided about the breaker of this name, and what was held back; `None` if nobody holds it.
    pub(super) fn explain(&self, name: &str) -> Option<v1::ExplainBreakerResponse> {
        let key: &BreakerKey = self.coordinator.keys().find(|key| view::name(key) == name)?;
        let now = self.now();
        let mode = self.coordinator.mode();
        let mut decisions: Vec<v1::BreakerDecision> =
            self.coordinator.explain(key).map(|record| decision(record, now)).collect();
        decisions.reverse();
        Some(v1::ExplainBreakerResponse {
            breaker: Some(self.breaker_view(key)),
            mode: mode.name().to_owned(),
            mode_ends_in: mode.until().map(|until| to_wire(now.until(until))),
            suspicion: mode.suspicion().map(Suspicion::name).unwrap_or_default().to_owned(),
            decisions,
        })
    }
}

fn decision(record: &Record, now: Timestamp) -> v1::BreakerDecision {
    let Record { since, until, times, from, to, cause, guard, detail, evidence, witnesses } = record;
    v1::BreakerDecision {
        since: Some(to_wire(now.since(*since))),
        until: Some(to_wire(now.since(*until))),
        times: *times,
        from: v1::FleetState::from(*from).into(),
        to: v1::FleetState::from(*to).into(),
        cause: (*cause).to_owned(),
        guard: guard.map(Guard::name).unwrap_or_default().to_owned(),
        detail: detail.clone(),
        evidence: Some(view::evidence(evidence)),
        witnesses: witnesses.iter().map(witness).collect(),
    }
}

fn witness(witness: &Witness) -> v1::InstanceBreaker {
    let Witness { member, zone, local, calls, failures } = witness;
    v1::InstanceBreaker {
        instance: member.instance.to_string(),
        zone: zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        local_state: v1::LocalState::from(*local).into(),
        window_calls: *calls,
        window_failures: *failures,
        eligible: true,
        ..v1::InstanceBreaker::default()
    }
}
