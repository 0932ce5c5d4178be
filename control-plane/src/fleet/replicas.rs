//! The replicas that are connected: who comes, who goes, and what they tell.

use std::{collections::BTreeMap, sync::Arc};

use fusebox_policy::{
    Revision, Timestamp,
    fleet::{BreakerKey, held::Fence},
};
use fusebox_proto::{sync::v1 as sync, v1};

use super::{
    Identity, JoinError, Joined, Outbox, SessionId, Told, owner::Owner, trials::TrialWindows, unshared::Unshared,
};

/// One connected replica.
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) outbox: Arc<Outbox>,
    /// The newest heartbeat: what leases are anchored at.
    pub(super) heartbeat: u64,
    /// When that came: what is left of overrides is told as of then.
    pub(super) heartbeat_came: Timestamp,
    pub(super) acknowledged: BTreeMap<BreakerKey, Fence>,
    pub(super) overrides_acknowledged: u64,
    pub(super) applied: Revision,
    pub(super) rejected: Vec<v1::RejectedPolicy>,
    pub(super) connected: Timestamp,
    pub(super) heard: Timestamp,
    /// Of policies with a rollout in progress.
    pub(super) trials: TrialWindows,
    /// Its breakers that are not shared, as it has been told.
    pub(super) unshared: Unshared,
}

impl Owner {
    pub(super) async fn join(&mut self, identity: Identity, outbox: Arc<Outbox>) -> Result<Joined, JoinError> {
        if let Some(at_least) = self.coordinator.must_rise_to(&identity.caller_id(), identity.seen) {
            // What is stored is never taken back, and goes for every service: one that would rise further would leave others behind.
            let reach = self.coordinator.reach();
            if at_least > reach {
                return Err(JoinError::TermTooFar { seen: identity.seen.term, reach });
            }
            // A restored backup or a wiped database must not fence itself out, nor speak in another run's term: the term rises above what
            // the replica has seen, and the replica is told nothing before.
            let term = self.store.next_term(at_least).await?;
            let effects = self.coordinator.raise_term(term, self.now());
            self.carry_out(effects);
            self.sharing.learn(self.now());
            tracing::warn!(
                event.name = "fleet.term",
                term,
                seen = identity.seen.term,
                "a replica has seen another run's term: raised above it"
            );
        }
        let same = |session: &Session| {
            session.identity.namespace == identity.namespace
                && session.identity.caller == identity.caller
                && session.identity.instance() == identity.instance()
        };
        let older: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| same(session)).map(|(id, _)| *id).collect();
        for id in older {
            if let Some(session) = self.sessions.get(&id) {
                session.outbox.replace();
            }
            self.leave(id);
        }
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let now = self.now();
        tracing::info!(
            event.name = "instance.joined",
            service.name = %identity.caller,
            service.instance.id = %identity.instance(),
            sdk = identity.sdk_version,
            "replica connected"
        );
        let caller = identity.caller_id();
        self.coordinator.join(&caller, &identity.member, identity.zone.as_ref(), now);
        self.by_member.insert((caller, identity.member.clone()), id);
        let session = Session {
            identity,
            outbox,
            heartbeat: 0,
            heartbeat_came: now,
            acknowledged: BTreeMap::new(),
            overrides_acknowledged: 0,
            applied: Revision(0),
            rejected: Vec::new(),
            connected: now,
            heard: now,
            trials: TrialWindows::new(),
            unshared: Unshared::default(),
        };
        session.outbox.overrides(self.overrides.set_for(&session, self.coordinator.term(), now));
        self.sessions.insert(id, session);
        Ok(Joined { session: id, term: self.coordinator.term(), run: self.coordinator.run() })
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        tracing::info!(
            event.name = "instance.left",
            service.name = %session.identity.caller,
            service.instance.id = %session.identity.instance(),
            "replica disconnected"
        );
        let run = (session.identity.caller_id(), session.identity.member);
        self.by_member.remove(&run);
        let (caller, member) = run;
        let effects = self.coordinator.leave(&caller, &member, self.now(), Self::draw());
        self.carry_out(effects);
    }

    pub(super) fn told(&mut self, id: SessionId, told: Told) {
        let now = self.now();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.heard = now;
        match told {
            Told::Heartbeat(sync::Heartbeat { seq, windows, dropped, limits }) => {
                if seq > session.heartbeat {
                    session.heartbeat = seq;
                    session.heartbeat_came = now;
                }
                let member = session.identity.member.clone();
                for window in windows {
                    self.window(id, window, None);
                }
                for key in dropped {
                    if let Some((key, _)) = self.key_of(id, &key) {
                        let effects = self.coordinator.drop_key(&key, &member, now, Self::draw());
                        self.carry_out(effects);
                    }
                }
                self.limits(id, seq, limits);
                let lease = Some(fusebox_proto::duration::to_wire(self.coordinator.limits().lease));
                let (term, rev) = (self.coordinator.term(), self.coordinator.renewable());
                let ack = sync::HeartbeatAck { seq, term, rev, lease };
                if let Some(session) = self.sessions.get(&id) {
                    session.outbox.ack(ack);
                }
            }
            Told::Transition(transition) => {
                let caller = session.identity.caller_id();
                if self.coordinator.transition_is_new(&caller, &session.identity.member, transition.seq) {
                    self.transition(id, transition);
                }
            }
            Told::Canvass(sync::CanvassAnswer { id: _, window }) => {
                if let Some(window) = window {
                    self.window(id, window, None);
                }
            }
            Told::Probe { key, probe, result } => self.probe(id, &key, probe, result),
            Told::Applied { revision, rejected } => {
                for refused in &rejected {
                    tracing::warn!(
                        event.name = "policy.rejected",
                        service.instance.id = %session.identity.member.instance,
                        policy = refused.policy,
                        revision = refused.revision,
                        reason = refused.reason,
                        "a replica refused a policy"
                    );
                }
                session.applied = revision;
                session.rejected = rejected;
            }
            Told::Refused { revision, reason } => {
                tracing::warn!(
                    event.name = "policy.rejected",
                    service.instance.id = %session.identity.member.instance,
                    revision = revision.0,
                    reason,
                    "a replica could not use an update"
                );
                session.rejected = vec![v1::RejectedPolicy { policy: String::new(), revision: revision.0, reason }];
            }
            Told::Acknowledged(sync::VerdictAck { key, term, rev }) => match key {
                Some(key) => {
                    if let Some((key, _)) = self.key_of(id, &key)
                        && let Some(session) = self.sessions.get_mut(&id)
                    {
                        session.acknowledged.insert(key, Fence { term, rev });
                    }
                }
                None if term == self.coordinator.term() => session.overrides_acknowledged = rev,
                None => {}
            },
        }
    }
}
