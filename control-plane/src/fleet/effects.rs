//! What the coordinator wants done: verdicts, permits and canvasses on their way to the replicas.

use std::time::SystemTime;

use fusebox_policy::fleet::{
    BreakerKey,
    coordinator::{Decision, Effect, Recipients, Suspicion},
    evidence::{Evidence, MemberId},
    invariants,
    shared::FleetState,
};
use fusebox_proto::{duration::to_wire, sync::v1 as sync, v1};

use super::{SessionId, owner::Owner, replicas::Session};
use crate::{
    metrics,
    store::{Grounds, StoredTransition},
};

impl Owner {
    /// Does what the coordinator asked for.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        debug_assert_eq!(invariants::check_quiescence(self.coordinator.mode(), &effects), Ok(()));
        let mut effects = effects.into_iter().peekable();
        while let Some(effect) = effects.next() {
            match effect {
                Effect::Verdict { key, to, decision } => {
                    for id in self.recipients(&key, &to) {
                        self.push_verdict(&key, id, &decision);
                    }
                }
                Effect::Permit { key, member, id, fence, ttl } => {
                    let permit = sync::ProbePermit {
                        key: Some((&key).into()),
                        id,
                        term: fence.term,
                        rev: fence.rev,
                        ttl: Some(to_wire(ttl)),
                        anchor_seq: 0,
                    };
                    // Whoever has gone meanwhile: the coordinator counts the permit as lost after its time.
                    for id in self.recipients(&key, &Recipients::One(member)) {
                        if let Some(session) = self.sessions.get(&id) {
                            session
                                .outbox
                                .permit(sync::ProbePermit { anchor_seq: session.heartbeat, ..permit.clone() });
                        }
                    }
                }
                Effect::Canvass { key, to } => {
                    let id = self.next_canvass;
                    self.next_canvass += 1;
                    for session in to.iter().filter_map(|member| self.session_of(&key, member)) {
                        session.outbox.canvass(sync::Canvass { id, key: Some((&key).into()) });
                    }
                }
                Effect::Transition { key, from, to, cause, detail, evidence } => {
                    metrics::verdict(to);
                    self.note_decision(&key, to);
                    // A change that replicas are told of comes right before what they are told.
                    let grounds = match effects.peek() {
                        Some(Effect::Verdict { key: told, decision, .. }) if *told == key => Some(Grounds {
                            term: decision.fence.term,
                            rev: decision.fence.rev,
                            policy_revision: decision.policy_revision,
                            witnesses: evidence.witness_instances.clone(),
                        }),
                        Some(_) | None => None,
                    };
                    self.log_decision(key, (from, to), cause, detail, &evidence, grounds);
                }
                Effect::Held { key, guard, detail } => {
                    metrics::held(guard.name());
                    tracing::warn!(
                        event.name = "fleet.held",
                        breaker = %key,
                        guard = guard.name(),
                        detail,
                        "an opening is held back"
                    );
                }
                Effect::Mode { from, to } => {
                    tracing::warn!(
                        event.name = "fleet.mode",
                        from = from.name(),
                        to = to.name(),
                        suspicion = to.suspicion().map_or("", Suspicion::name),
                        "the fleet's decisions changed from {} to {}",
                        from.name(),
                        to.name()
                    );
                }
            }
        }
    }

    /// The session of a replica that holds a breaker.
    pub(super) fn session_of(&self, key: &BreakerKey, member: &MemberId) -> Option<&Session> {
        self.sessions.get(self.by_member.get(&(key.caller_id(), member.clone()))?)
    }

    /// The sessions of the replicas that are meant.
    fn recipients(&self, key: &BreakerKey, to: &Recipients) -> Vec<SessionId> {
        let caller = key.caller_id();
        let session = |member: &MemberId| self.by_member.get(&(caller.clone(), member.clone())).copied();
        match to {
            Recipients::Holders => self.coordinator.holders(key).filter_map(session).collect(),
            Recipients::One(member) => session(member).into_iter().collect(),
        }
    }

    pub(super) fn log_decision(
        &self,
        key: BreakerKey,
        (from, to): (FleetState, FleetState),
        cause: &str,
        detail: String,
        evidence: &Evidence,
        grounds: Option<Grounds>,
    ) {
        self.log.put(StoredTransition {
            id: 0,
            key,
            instance: None,
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            cause: cause.to_owned(),
            detail,
            at: SystemTime::now(),
            window_calls: evidence.pooled_calls,
            window_failures: evidence.pooled_failures,
            grounds,
        });
    }

    /// Tells one replica a verdict about a breaker.
    fn push_verdict(&self, key: &BreakerKey, id: SessionId, decision: &Decision) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Decision { fence, state, admit_permille, half_open_at, policy_revision, reason } = decision;
        let now = self.now();
        session.outbox.verdict(
            key.clone(),
            sync::Verdict {
                key: Some(key.into()),
                term: fence.term,
                rev: fence.rev,
                state: v1::FleetState::from(*state).into(),
                admit_permille: *admit_permille,
                lease: Some(to_wire(self.coordinator.limits().lease)),
                anchor_seq: session.heartbeat,
                policy_revision: policy_revision.0,
                reason: reason.clone(),
                half_open_in: half_open_at.map(|at| to_wire(now.until(at))),
            },
        );
    }

    /// The breakers that the replica of a session holds.
    pub(super) fn keys_of(&self, session: &Session) -> impl Iterator<Item = &BreakerKey> {
        self.coordinator.held_by(&session.identity.caller_id(), &session.identity.member)
    }
}
