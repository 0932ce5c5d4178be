//! What the machines want done: verdicts, permits and canvasses on their way to the replicas.

use std::time::SystemTime;

use fusebox_policy::fleet::{
    BreakerKey,
    held::Fence,
    shared::{Effect, FleetState},
};
use fusebox_proto::{duration::to_wire, sync::v1 as sync, v1};

use super::{
    LEASE, SessionId,
    owner::{Issued, Newest, Owner},
};
use crate::store::StoredTransition;

/// Permits remembered. Lost ones stay until their number is this old.
const MOST_ISSUED: usize = 10_000;

impl Owner {
    /// Does what a machine asked for. `reporter` is the session whose report caused it.
    pub(super) fn carry_out(&mut self, key: &BreakerKey, effects: Vec<Effect>, reporter: Option<SessionId>) {
        for effect in effects {
            match effect {
                Effect::Verdict { state, half_open_in, reason } => {
                    self.rev += 1;
                    let half_open_at = half_open_in.map(|wait| self.now().plus(wait));
                    let fence = Fence { term: self.term, rev: self.rev };
                    let Some(entry) = self.entries.get_mut(key) else { continue };
                    entry.newest = Some(Newest { fence, state, half_open_at, reason });
                    let holders: Vec<SessionId> = self
                        .sessions
                        .iter()
                        .filter(|(_, session)| session.keys.contains(key))
                        .map(|(id, _)| *id)
                        .collect();
                    for id in holders {
                        self.push_newest(key, id);
                    }
                }
                Effect::Permit { member, id: number, ttl } => self.push_permit(key, &member, number, ttl),
                Effect::Canvass => {
                    let id = self.next_canvass;
                    self.next_canvass += 1;
                    for (session_id, session) in &self.sessions {
                        if session.keys.contains(key) && Some(*session_id) != reporter {
                            session.outbox.canvass(sync::Canvass { id, key: Some(key.into()) });
                        }
                    }
                }
                Effect::Transition { from, to, cause, detail } => {
                    self.log_decision(key.clone(), from, to, cause, detail);
                }
            }
        }
    }

    pub(super) fn log_decision(&self, key: BreakerKey, from: FleetState, to: FleetState, cause: &str, detail: String) {
        let counts = self.entries.get(&key).map(|entry| entry.machine.view(self.now()).evidence);
        self.log.put(StoredTransition {
            id: 0,
            key,
            instance: None,
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            cause: cause.to_owned(),
            detail,
            at: SystemTime::now(),
            window_calls: counts.as_ref().map_or(0, |evidence| evidence.pooled_calls),
            window_failures: counts.as_ref().map_or(0, |evidence| evidence.pooled_failures),
        });
    }

    /// Tells one replica the newest verdict about a breaker, if there is one.
    pub(super) fn push_newest(&self, key: &BreakerKey, id: SessionId) {
        let (Some(entry), Some(session)) = (self.entries.get(key), self.sessions.get(&id)) else {
            return;
        };
        let Some(Newest { fence, state, half_open_at, reason }) = &entry.newest else {
            return;
        };
        let now = self.now();
        session.outbox.verdict(
            key.clone(),
            sync::Verdict {
                key: Some(key.into()),
                term: fence.term,
                rev: fence.rev,
                state: v1::FleetState::from(*state).into(),
                admit_permille: if *state == FleetState::Released { 1000 } else { 0 },
                lease: Some(to_wire(LEASE)),
                anchor_seq: session.heartbeat,
                policy_revision: entry.machine.settings().policy_revision.0,
                reason: reason.clone(),
                half_open_in: half_open_at.map(|at| to_wire(now.until(at))),
            },
        );
    }

    fn push_permit(
        &mut self,
        key: &BreakerKey,
        member: &fusebox_policy::fleet::evidence::MemberId,
        number: u64,
        ttl: std::time::Duration,
    ) {
        let holder = self.sessions.iter().find(|(_, session)| {
            session.identity.member == *member && session.identity.caller == key.caller && session.keys.contains(key)
        });
        let newest = self.entries.get(key).and_then(|entry| entry.newest.as_ref());
        let (Some((id, session)), Some(newest)) = (holder, newest) else {
            // The machine counts it as lost after its time, as with a replica that vanishes with its permit.
            return;
        };
        let permit = self.next_permit;
        session.outbox.permit(sync::ProbePermit {
            key: Some(key.into()),
            id: permit,
            term: newest.fence.term,
            rev: newest.fence.rev,
            ttl: Some(to_wire(ttl)),
            anchor_seq: session.heartbeat,
        });
        let issued = Issued { key: key.clone(), number, session: *id };
        self.next_permit += 1;
        self.issued.insert(permit, issued);
        while self.issued.len() > MOST_ISSUED {
            self.issued.pop_first();
        }
    }
}
