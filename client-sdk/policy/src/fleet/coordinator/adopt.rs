//! What replicas hold of a former run, and how it goes on.
//!
//! A run that follows another learns first. A verdict that two replicas say they hold, of an earlier term and in force, may go on under
//! the new term: nobody is let loose by a restart, and nothing is opened by it that was not open. One replica's word alone is not
//! enough: a breaker that only one replica holds decays to that replica's own.
//!
//! | two replicas hold | the new run |
//! |---|---|
//! | open, and the open time is not over | goes on with what is left of it: the lesser of what both say |
//! | open, and the open time is over | leaves it to its leases |
//! | half-open or ramp | leaves it to its leases; where it goes on with an older opening, it takes this instead of that |
//! | released | ends an older opening that it goes on with |
//!
//! Left to its leases: nothing is said about it, so that it ends where it is held, and each replica probes by its own breaker. A run that
//! learns gives no permits. If it went on with what waits for permits, or for a ramp's next step, then runs that follow each other faster
//! than they learn would hold a target that is well for ever; the end of an open time comes nearer, however many runs tell of it.
//!
//! So it is where a run raises its own term ([`Coordinator::raise_term`]): what waits for permits stays shown as it is for a lease, and is
//! then released. In both cases a replica is on its own two leases after the open time that it was told is over, at most, and whatever time
//! a run that decides was probing.

use std::time::Duration;

use super::{Coordinator, Effect};
use crate::{
    Revision, Timestamp,
    fleet::{
        BreakerKey,
        evidence::{MemberId, named},
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
    /// The newest verdict that any replica holds.
    newest: Option<Claim>,
    /// The verdict that two of them hold.
    adopted: Option<Fence>,
}

/// A verdict that a replica holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Claim {
    fence: Fence,
    state: FleetState,
    /// While open: when probes were to begin.
    due: Option<Timestamp>,
    /// The first that said so.
    first: MemberId,
}

impl Claims {
    pub(super) const fn new() -> Self {
        Self { newest: None, adopted: None }
    }

    /// What the first has said, if this is the second replica that says so. Two states of one fence are of two runs with the same term:
    /// nobody confirms the other.
    fn confirmed_by(&mut self, claim: Claim) -> Option<&Claim> {
        match &self.newest {
            Some(newest) if newest.fence == claim.fence => {
                let second =
                    newest.state == claim.state && newest.first != claim.first && self.adopted != Some(claim.fence);
                if !second {
                    return None;
                }
                self.adopted = Some(claim.fence);
                self.newest.as_ref()
            }
            Some(newest) if newest.fence > claim.fence => None,
            Some(_) | None => {
                self.newest = Some(claim);
                None
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
        if ours || void {
            return Vec::new();
        }
        let due = held.half_open_in.map(|left| now.plus(left));
        let claim = Claim { fence: held.fence, state, due, first: member.clone() };
        let Some(first) = entry.claims.confirmed_by(claim) else {
            return Vec::new();
        };
        let left = first.due.min(due).map(|at| now.until(at)).filter(|left| !left.is_zero());
        let goes_on = entry.breaker.state() != FleetState::Released;
        let inherited = match state {
            FleetState::Released if goes_on => Some(Inherited::Released),
            FleetState::Open => left.map(Inherited::Open),
            FleetState::HalfOpen if goes_on => Some(Inherited::HalfOpen),
            FleetState::Ramp if goes_on => Some(Inherited::Ramp),
            FleetState::Released | FleetState::HalfOpen | FleetState::Ramp => None,
            // Overrides are no verdicts: they are durable by themselves.
            FleetState::ForcedOpen | FleetState::ForcedClosed | FleetState::Disabled => None,
        };
        let Some(inherited) = inherited else {
            return Vec::new();
        };
        let claimants = named([&first.first.instance, &member.instance]);
        let reason = format!("goes on from term {}, as {claimants} hold it", held.fence.term);
        let change = entry.breaker.inherit(inherited, reason, now);
        self.decided(key, change, now)
    }
}
