//! What replicas have seen, on its way into the machines.

use fusebox_policy::{
    Revision,
    breaker::{Causes, LocalState},
    fleet::{
        BreakerKey,
        coordinator::{Holding, Sighting},
        evidence::Report,
        gate::ProbeId,
        held::Fence,
        shared::{FleetState, ProbeResult},
    },
};
use fusebox_proto::{duration, sync::v1 as sync, v1};

use super::{SessionId, owner::Owner};
use crate::store::StoredTransition;

impl Owner {
    /// Takes a window in. `log` is the transition that it came with.
    pub(super) fn window(&mut self, id: SessionId, window: sync::BreakerWindow, log: Option<Change>) {
        let sync::BreakerWindow {
            key,
            policy_revision,
            local_state,
            own_trip,
            calls,
            failures,
            slow,
            rejected,
            causes,
            held_term,
            held_rev,
            vetoed,
            held_state,
            held_half_open_in,
            disabled,
        } = window;
        let Ok(local) = v1::LocalState::try_from(local_state)
            .map_err(|_| ())
            .and_then(|state| LocalState::try_from(state).map_err(|_| ()))
        else {
            tracing::debug!("a window without a state");
            return;
        };
        let Some(wire) = key else {
            tracing::debug!("a window of no breaker");
            return;
        };
        let policy_revision = Revision(policy_revision);
        let report = if disabled {
            Report::disabled(local)
        } else {
            Report {
                local,
                own_trip,
                current: true,
                calls,
                // What can't be is not believed further than it can be.
                failures: failures.min(calls),
                slow: slow.min(calls),
                rejected,
                vetoed,
                causes: read_causes(causes.unwrap_or_default()),
                disabled,
            }
        };
        let staged = self.staged_for(id, &wire.policy);
        let candidate = staged.as_ref().filter(|staged| self.runs_candidate(id, staged, policy_revision));
        let on_its_own = candidate.is_some();
        let known = match candidate {
            Some(staged) => self.key_in(id, &staged.candidate, &wire),
            None => self.key_of(id, &wire),
        };
        let Some((key, settings)) = known else {
            tracing::debug!("a window of an unknown breaker");
            return;
        };
        if let Some(staged) = staged {
            self.note_trial(id, &staged, &key, (policy_revision, &report), log.is_some());
        }
        if on_its_own {
            self.log_change(id, &key, local, &report, log);
            self.count_out(id, &wire);
            return;
        }
        let now = self.now();
        let Some((member, seq)) =
            self.sessions.get(&id).map(|session| (session.identity.member.clone(), session.heartbeat))
        else {
            return;
        };
        if let Err(no_room) = self.coordinator.make_room(&key, &member, now) {
            self.refuse(id, key, &wire, no_room);
            return;
        }
        if self.coordinator.breaker(&key).is_none() {
            let effects = self.coordinator.configure(&key, settings, now);
            self.carry_out(effects);
        }
        self.log_change(id, &key, local, &report, log);
        let held = Holding {
            fence: Fence { term: held_term, rev: held_rev },
            state: v1::FleetState::try_from(held_state).ok().and_then(|state| FleetState::try_from(state).ok()),
            // What can't be read is not known, and the policy's own delay is taken.
            half_open_in: held_half_open_in.and_then(|wire| duration::from_wire(wire).ok()),
        };
        let sighting = Sighting { seq, report, policy_revision, held };
        let effects = self.coordinator.report(&key, &member, sighting, now, Self::draw());
        self.carry_out(effects);
    }

    /// A replica that runs a candidate is no member of the breaker that the others share.
    fn count_out(&mut self, id: SessionId, wire: &v1::BreakerKey) {
        let Some(member) = self.sessions.get(&id).map(|session| session.identity.member.clone()) else { return };
        if let Some((shared, _)) = self.key_of(id, wire) {
            let effects = self.coordinator.drop_key(&shared, &member, self.now(), Self::draw());
            self.carry_out(effects);
        }
    }

    /// Logs the transition that a window came with.
    fn log_change(&self, id: SessionId, key: &BreakerKey, to: LocalState, report: &Report, change: Option<Change>) {
        let (Some(Change { from, cause }), Some(session)) = (change, self.sessions.get(&id)) else { return };
        let Report { calls, failures, .. } = *report;
        self.log.put(StoredTransition {
            id: 0,
            key: key.clone(),
            instance: Some(session.identity.member.instance.clone()),
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            cause,
            detail: format!("{failures} of {calls} calls in the window failed"),
            at: std::time::SystemTime::now(),
            window_calls: calls,
            window_failures: failures,
            grounds: None,
        });
    }

    pub(super) fn transition(&mut self, id: SessionId, transition: sync::Transition) {
        let sync::Transition { window, from, cause, seq: _ } = transition;
        let from = v1::LocalState::try_from(from).ok().and_then(|state| LocalState::try_from(state).ok());
        if let (Some(window), Some(from)) = (window, from) {
            /// Longest word that a cause may be.
            const LONGEST: usize = 64;
            let cause = cause.chars().filter(|c| c.is_ascii_lowercase() || *c == '_').take(LONGEST).collect();
            self.window(id, window, Some(Change { from, cause }));
        }
    }

    /// Takes the outcome of a probe.
    pub(super) fn probe(&mut self, id: SessionId, key: &v1::BreakerKey, probe: ProbeId, result: ProbeResult) {
        let Some((key, _)) = self.key_of(id, key) else {
            tracing::debug!(permit = probe.id, term = probe.term, "an outcome of a permit that is not out there");
            return;
        };
        let Some(member) = self.sessions.get(&id).map(|session| session.identity.member.clone()) else {
            return;
        };
        let effects = self.coordinator.probe_outcome(&key, &member, probe, result, self.now(), Self::draw());
        self.carry_out(effects);
    }
}

/// What a replica's breaker changed from, and why.
pub(super) struct Change {
    from: LocalState,
    cause: String,
}

const fn read_causes(wire: sync::CauseCounts) -> Causes {
    let sync::CauseCounts { connect_error, timeout, target_error, target_overload, local_error } = wire;
    Causes { connect_error, timeout, target_error, target_overload, local_error }
}
