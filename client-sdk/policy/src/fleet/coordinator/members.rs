//! Who is there: the replicas of each service, and which breakers they hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Timestamp, Zone,
    fleet::{BreakerKey, evidence::MemberId, key::CallerId},
};

/// One connected replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) zone: Option<Zone>,
    pub(super) joined: Timestamp,
    /// The breakers that it has reported.
    pub(super) keys: BTreeSet<BreakerKey>,
}

/// The connected replicas of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) replicas: BTreeMap<MemberId, Replica>,
}

/// All connected replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Callers(BTreeMap<CallerId, Caller>);

impl Callers {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn replica(&self, caller: &CallerId, member: &MemberId) -> Option<&Replica> {
        self.0.get(caller)?.replicas.get(member)
    }

    pub(super) fn replica_mut(&mut self, caller: &CallerId, member: &MemberId) -> Option<&mut Replica> {
        self.0.get_mut(caller)?.replicas.get_mut(member)
    }

    /// A replica has connected.
    pub(super) fn join(&mut self, caller: &CallerId, member: MemberId, zone: Option<Zone>, now: Timestamp) {
        let caller = self.0.entry(caller.clone()).or_default();
        caller.replicas.insert(member, Replica { zone, joined: now, keys: BTreeSet::new() });
    }

    /// A replica has gone. Answers with what it held.
    pub(super) fn leave(&mut self, caller: &CallerId, member: &MemberId) -> BTreeSet<BreakerKey> {
        let Some(found) = self.0.get_mut(caller) else {
            return BTreeSet::new();
        };
        let gone = found.replicas.remove(member);
        if found.replicas.is_empty() {
            self.0.remove(caller);
        }
        gone.map(|replica| replica.keys).unwrap_or_default()
    }

    /// Nobody holds the breaker any more.
    pub(super) fn forget(&mut self, key: &BreakerKey) {
        if let Some(caller) = self.0.get_mut(&key.caller_id()) {
            for replica in caller.replicas.values_mut() {
                replica.keys.remove(key);
            }
        }
    }

    /// The replicas that hold a breaker.
    pub(super) fn holders<'a>(&'a self, key: &'a BreakerKey) -> impl Iterator<Item = &'a MemberId> {
        self.0
            .get(&key.caller_id())
            .into_iter()
            .flat_map(|caller| &caller.replicas)
            .filter(|(_, replica)| replica.keys.contains(key))
            .map(|(id, _)| id)
    }
}
