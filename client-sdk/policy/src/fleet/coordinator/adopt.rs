//! What replicas hold of a former run, and how it goes on.
//!
//! A run that follows another learns first. A verdict that two replicas say they hold, of an earlier term and in force, goes on under
//! the new term: nobody is let loose by a restart, and nothing is opened by it that was not open. One replica's word alone is not
//! enough: a breaker that only one replica holds decays to that replica's own.

use std::time::Duration;

use super::{Coordinator, Effect};
use crate::{
    Revision, Timestamp,
    fleet::{
        BreakerKey,
        evidence::MemberId,
        held::Fence,
        shared::{FleetState, Inherited},
    },
};

/// What a replica holds of the fleet's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holding {
    /// The newest verdict that it has ever applied.
    pub fence: Fence,
    /// The state of that verdict, if its lease has not ended.
    pub state: Option<FleetState>,
    /// While that is open: until probes.
    pub half_open_in: Option<Duration>,
}

/// What replicas have said in a learning mode about one breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Claims {
    /// The newest verdict that any replica holds, its state, and the first that said so.
    newest: Option<(Fence, FleetState, MemberId)>,
    /// The verdict that goes on.
    adopted: Option<Fence>,
}

impl Claims {
    pub(super) const fn new() -> Self {
        Self { newest: None, adopted: None }
    }

    /// Whether this is the second replica that says so. Two states of one fence are of two runs with the same term: nobody confirms
    /// the other.
    fn confirmed_by(&mut self, fence: Fence, state: FleetState, member: &MemberId) -> bool {
        match &self.newest {
            Some((newest, told, first)) if *newest == fence => {
                let second = *told == state && *first != *member && self.adopted != Some(fence);
                if second {
                    self.adopted = Some(fence);
                }
                second
            }
            Some((newest, ..)) if *newest > fence => false,
            Some(_) | None => {
                self.newest = Some((fence, state, member.clone()));
                false
            }
        }
    }
}

impl Coordinator {
    /// Goes on with what a replica says that it holds, where that may be.
    pub(super) fn adopt(
        &mut self,
        key: &BreakerKey,
        member: &MemberId,
        held: Holding,
        policy_revision: Revision,
        now: Timestamp,
    ) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let Some(state) = held.state else {
            return Vec::new();
        };
        let ours = entry.breaker.state() != FleetState::Released && entry.claims.adopted.is_none();
        let void = policy_revision != entry.breaker.settings().policy_revision || held.fence.term >= self.term;
        if ours || void || !entry.claims.confirmed_by(held.fence, state, member) {
            return Vec::new();
        }
        let inherited = match state {
            FleetState::Released if entry.breaker.state() == FleetState::Released => return Vec::new(),
            FleetState::Released => Inherited::Released,
            FleetState::Open => Inherited::Open(held.half_open_in.unwrap_or(entry.breaker.settings().breaker.delay())),
            FleetState::HalfOpen => Inherited::HalfOpen,
            FleetState::Ramp => Inherited::Ramp,
            // Overrides are no verdicts: they are durable by themselves.
            FleetState::ForcedOpen | FleetState::ForcedClosed | FleetState::Disabled => return Vec::new(),
        };
        let reason = format!("goes on from term {}", held.fence.term);
        let change = entry.breaker.inherit(inherited, reason, now);
        self.decided(key, change, now)
    }
}
