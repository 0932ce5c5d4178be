//! What the policies in force say about breakers.

use std::sync::Arc;

use fusebox_policy::fleet::{BreakerKey, CoordinationScope, shared::Settings};
use fusebox_proto::v1;

use super::{SessionId, owner::Owner};
use crate::{hub::Snapshot, store::StoredPolicy};

impl Owner {
    /// Policies have changed: verdicts about older revisions are void, breakers that are gone are forgotten.
    pub(super) fn take_policies(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        self.watch_rollouts();
        for session in self.sessions.values_mut() {
            session.unshared.begin_again();
        }
        let now = self.now();
        let keys: Vec<BreakerKey> = self.coordinator.keys().cloned().collect();
        for key in keys {
            match self.settings(&key) {
                Some(settings) => {
                    let effects = self.coordinator.configure(&key, settings, now);
                    self.carry_out(effects);
                }
                None => {
                    self.coordinator.forget(&key);
                    for session in self.sessions.values_mut() {
                        session.acknowledged.remove(&key);
                    }
                }
            }
        }
    }

    /// What the policy in force says about a breaker; `None` if there is no such breaker any more.
    fn settings(&self, key: &BreakerKey) -> Option<Settings> {
        let name = format!("namespaces/{}/policies/{}", key.namespace, key.policy);
        settings(self.snapshot.get(&name)?, key)
    }

    /// The shared breaker that a replica's own one belongs to, if the policy in force knows it.
    pub(super) fn key_of(&self, id: SessionId, wire: &v1::BreakerKey) -> Option<(BreakerKey, Settings)> {
        let identity = &self.sessions.get(&id)?.identity;
        let name = format!("namespaces/{}/policies/{}", identity.namespace, wire.policy);
        self.key_in(id, self.snapshot.get(&name)?, wire)
    }

    /// The breaker that a replica's own one is, by one definition of its policy.
    pub(super) fn key_in(
        &self,
        id: SessionId,
        stored: &StoredPolicy,
        wire: &v1::BreakerKey,
    ) -> Option<(BreakerKey, Settings)> {
        let identity = &self.sessions.get(&id)?.identity;
        let own = BreakerKey::try_from(v1::BreakerKey {
            namespace: identity.namespace.to_string(),
            // Reports are believed about the replica's own service only, whatever they say.
            caller: identity.caller.to_string(),
            zone: String::new(),
            ..wire.clone()
        })
        .ok()?;
        let key = own.in_scope(stored.policy.definition.coordination.scope(), identity.zone.as_ref());
        let settings = settings(stored, &key)?;
        Some((key, settings))
    }
}

/// What a definition says about a breaker; `None` if it has no such breaker.
fn settings(stored: &StoredPolicy, key: &BreakerKey) -> Option<Settings> {
    let definition = &stored.policy.definition;
    let (_, spec) = definition.pipeline.breakers().find(|(strategy, _)| **strategy == key.strategy)?;
    let scope_fits = match definition.coordination.scope() {
        CoordinationScope::Fleet => key.zone.is_none(),
        CoordinationScope::Zone => true,
    };
    (definition.selector.admits_caller(&key.caller) && *definition.selector.target() == key.target && scope_fits).then(
        || Settings {
            breaker: Arc::new(spec.clone()),
            coordination: definition.coordination,
            policy_revision: stored.policy.revision,
        },
    )
}
