//! How many breakers are shared: bounds beyond which no replica, service or namespace makes the fleet's state grow.
//!
//! Who is refused loses nothing but the fleet: the breaker goes on in its own process. A breaker that no replica has held for a lease gives
//! its place to one that comes.

use std::{collections::BTreeMap, fmt};

use super::{Coordinator, Entry, Limits};
use crate::{
    Namespace, Timestamp,
    fleet::{BreakerKey, evidence::MemberId, key::CallerId, shared::FleetState},
};

/// Why one more breaker is not shared: the bound that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoRoom {
    /// One replica holds so many.
    Replica(usize),
    /// The replicas of one service hold so many.
    Service(usize),
    /// The services of one namespace hold so many.
    Namespace(usize),
    /// There are so many in all.
    Server(usize),
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, most) = match self {
            Self::Replica(most) => ("this replica", most),
            Self::Service(most) => ("its service", most),
            Self::Namespace(most) => ("its namespace", most),
            Self::Server(most) => ("the control plane", most),
        };
        write!(f, "{who} has {most} shared breakers, and no more are shared")
    }
}

/// The breakers of each service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Room {
    by_caller: BTreeMap<CallerId, usize>,
    all: usize,
    /// When it was last looked for breakers that nobody holds.
    swept: Option<Timestamp>,
}

impl Room {
    pub(super) const fn new() -> Self {
        Self { by_caller: BTreeMap::new(), all: 0, swept: None }
    }

    pub(super) fn taken(&mut self, key: &BreakerKey) {
        *self.by_caller.entry(key.caller_id()).or_default() += 1;
        self.all += 1;
    }

    pub(super) fn freed(&mut self, key: &BreakerKey) {
        let caller = key.caller_id();
        if let Some(count) = self.by_caller.get_mut(&caller) {
            *count -= 1;
            self.all -= 1;
            if *count == 0 {
                self.by_caller.remove(&caller);
            }
        }
    }

    fn in_namespace(&self, namespace: &Namespace) -> usize {
        self.by_caller.iter().filter(|(caller, _)| caller.namespace == *namespace).map(|(_, count)| count).sum()
    }

    fn for_one_more(&self, key: &BreakerKey, limits: &Limits) -> Result<(), NoRoom> {
        let of_service = self.by_caller.get(&key.caller_id()).copied().unwrap_or_default();
        if of_service >= limits.most_keys {
            return Err(NoRoom::Service(limits.most_keys));
        }
        if self.all >= limits.most_keys_in_all {
            return Err(NoRoom::Server(limits.most_keys_in_all));
        }
        // Of so few in all none can have too many.
        if self.all >= limits.most_keys_of_namespace
            && self.in_namespace(&key.namespace) >= limits.most_keys_of_namespace
        {
            return Err(NoRoom::Namespace(limits.most_keys_of_namespace));
        }
        Ok(())
    }
}

impl Coordinator {
    /// Whether a breaker of a replica is shared, or may be. Makes room by forgetting what nobody holds.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn make_room(&mut self, key: &BreakerKey, member: &MemberId, now: Timestamp) -> Result<(), NoRoom> {
        let most = self.limits.most_keys_of_replica;
        let full = self
            .callers
            .replica_mut(&key.caller_id(), member)
            .is_some_and(|replica| replica.keys.len() >= most && !replica.keys.contains_key(key));
        if full {
            return Err(NoRoom::Replica(most));
        }
        if self.entries.contains_key(key) {
            return Ok(());
        }
        self.room.for_one_more(key, &self.limits).or_else(|_| {
            self.sweep(now);
            self.room.for_one_more(key, &self.limits)
        })
    }

    /// Forgets the breakers that nobody has held for a lease: no verdict or permit of theirs can be in force.
    fn sweep(&mut self, now: Timestamp) {
        let lease = self.limits.lease;
        if self.room.swept.is_some_and(|last| now.since(last) < lease) {
            return;
        }
        self.room.swept = Some(now);
        let deserted = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) >= lease);
        let gone: Vec<BreakerKey> =
            self.entries.iter().filter(|(_, entry)| deserted(entry.deserted)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// When a breaker is forgotten that nobody holds and that has nothing in force.
    pub(super) fn forgotten_at(&self, entry: &Entry) -> Option<Timestamp> {
        let released = entry.breaker.state() == FleetState::Released;
        entry.deserted.filter(|_| released).map(|at| at.plus(self.limits.lease))
    }

    /// Forgets the breakers whose time for that has come.
    pub(super) fn forget_deserted(&mut self, now: Timestamp) {
        let over = |entry: &Entry| self.forgotten_at(entry).is_some_and(|at| at <= now);
        let gone: Vec<BreakerKey> =
            self.entries.iter().filter(|(_, entry)| over(entry)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Forgets a breaker.
    pub(super) fn remove(&mut self, key: &BreakerKey) {
        if self.entries.remove(key).is_some() {
            self.room.freed(key);
        }
    }
}
