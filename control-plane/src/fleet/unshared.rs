//! Breakers that are not shared, since there are too many: told to their replica once, and logged once.

use std::collections::BTreeSet;

use fusebox_policy::fleet::{BreakerKey, coordinator::NoRoom};
use fusebox_proto::{sync::v1 as sync, v1};

use super::{SessionId, owner::Owner};

/// Breakers of one replica that are remembered as told. A client that goes on about more of them is not answered.
const MOST_TOLD: usize = 1000;

/// What a replica has been told, since policies changed last.
#[derive(Debug, Default)]
pub(super) struct Unshared {
    told: BTreeSet<BreakerKey>,
    logged: bool,
}

impl Unshared {
    /// Policies have changed: it asks again.
    pub(super) fn begin_again(&mut self) {
        self.told.clear();
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.told.len()).unwrap_or(u32::MAX)
    }
}

impl Owner {
    /// Tells a replica that one of its breakers is not shared, if it does not know.
    pub(super) fn refuse(&mut self, id: SessionId, key: BreakerKey, wire: &v1::BreakerKey, no_room: NoRoom) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Unshared { told, logged } = &mut session.unshared;
        if told.len() >= MOST_TOLD || !told.insert(key.clone()) {
            return;
        }
        let reason = no_room.to_string();
        if !std::mem::replace(logged, true) {
            tracing::warn!(
                event.name = "breaker.refused",
                service.name = %session.identity.caller,
                service.instance.id = %session.identity.member.instance,
                breaker = %key,
                reason,
                "a breaker is not shared, and others of this replica may not be: there are too many"
            );
        }
        session.outbox.refuse(key, sync::BreakerRefused { key: Some(wire.clone()), reason });
    }
}
