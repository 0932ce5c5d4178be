//! What replicas have seen, on its way into the machines.

use fusebox_policy::{
    CallerName,
    breaker::{Causes, LocalState},
    fleet::{
        evidence::Report,
        held::Fence,
        shared::{ProbeResult, SharedBreaker},
    },
};
use fusebox_proto::{sync::v1 as sync, v1};

use super::{
    SessionId,
    owner::{Entry, Owner},
};
use crate::store::StoredTransition;

/// Breakers of one service. More is a mistake (a target's name with an id in it), and each costs memory.
const MOST_KEYS: usize = 1000;

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
        } = window;
        let Some((key, settings)) = key.and_then(|key| self.key_of(id, &key)) else {
            tracing::debug!("a window of an unknown breaker");
            return;
        };
        let Ok(local) = v1::LocalState::try_from(local_state)
            .map_err(|_| ())
            .and_then(|state| LocalState::try_from(state).map_err(|_| ()))
        else {
            tracing::debug!(breaker = %key, "a window without a state");
            return;
        };
        let now = self.now();
        if !self.entries.contains_key(&key) {
            let own = |other: &CallerName| *other == key.caller;
            if self.entries.keys().filter(|other| own(&other.caller)).count() >= MOST_KEYS {
                tracing::warn!(service.name = %key.caller, "too many breakers: one is not shared");
                return;
            }
            let machine = SharedBreaker::new(settings.clone(), now);
            self.entries.insert(key.clone(), Entry { machine, newest: None });
        }
        let (Some(entry), Some(session)) = (self.entries.get_mut(&key), self.sessions.get_mut(&id)) else {
            return;
        };
        let held = Fence { term: held_term, rev: held_rev };
        let answers_newest = entry.newest.as_ref().is_none_or(|newest| newest.fence == held);
        let report = Report {
            local,
            own_trip,
            current: answers_newest && policy_revision == settings.policy_revision.0,
            calls,
            // What can't be is not believed further than it can be.
            failures: failures.min(calls),
            slow: slow.min(calls),
            rejected,
            vetoed,
            causes: read_causes(causes.unwrap_or_default()),
        };
        let joins = session.keys.insert(key.clone());
        let member = session.identity.member.clone();
        let zone = session.identity.zone.clone();
        let effects = entry.machine.report(&member, zone.as_ref(), report, now, Self::draw());
        if let Some(Change { from, cause }) = log {
            self.log.put(StoredTransition {
                id: 0,
                key: key.clone(),
                instance: Some(member.instance),
                from: from.name().to_owned(),
                to: local.name().to_owned(),
                cause,
                detail: format!("{failures} of {calls} calls in the window failed"),
                at: std::time::SystemTime::now(),
                window_calls: calls,
                window_failures: failures,
            });
        }
        self.carry_out(&key, effects, Some(id));
        // Whoever is new, or has missed it, is told what holds.
        if joins || !answers_newest {
            self.push_newest(&key, id);
        }
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

    /// Takes the outcome of a probe, from the replica that was given the permit and no other.
    pub(super) fn probe(&mut self, id: SessionId, permit: u64, term: u64, result: ProbeResult) {
        let ours = self.issued.get(&permit).is_some_and(|issued| issued.session == id);
        if term != self.term || !ours {
            tracing::debug!(permit, term, "an outcome of a permit that is not out there");
            return;
        }
        let Some(issued) = self.issued.remove(&permit) else {
            return;
        };
        let now = self.now();
        let Some(entry) = self.entries.get_mut(&issued.key) else {
            return;
        };
        let effects = entry.machine.probe_outcome(issued.number, result, now, Self::draw());
        self.carry_out(&issued.key, effects, None);
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
