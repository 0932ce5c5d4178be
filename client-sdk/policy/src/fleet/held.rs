//! What a replica holds of the fleet's word: fenced, leased, and gone when it ends.

use std::time::Duration;

use super::{
    gate::{Forced, ProbeId},
    invariants::{Invariant, s1_fencing},
    shared::FleetState,
};
use crate::{Revision, Timestamp};

/// Order of verdicts: run of the server, then number within the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// Run of the server; durable, so that it never comes twice.
    pub term: u64,
    /// Number within the run.
    pub rev: u64,
}

/// What the fleet decided, as a replica takes it in. Times are the replica's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Its place in the order.
    pub fence: Fence,
    /// Released, open, half-open or ramp.
    pub state: FleetState,
    /// For ramp: how many of a thousand calls pass.
    pub admit_permille: u32,
    /// When the lease ends: counted from when the replica sent the heartbeat that anchors it.
    pub expires: Timestamp,
    /// Revision of the policy that it is about.
    pub policy_revision: Revision,
    /// While open: when the fleet probes.
    pub half_open_at: Option<Timestamp>,
    /// Why, in words.
    pub reason: String,
}

/// Leave for one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeldPermit {
    /// Its number.
    pub id: u64,
    /// The half-open verdict that it belongs to.
    pub fence: Fence,
    /// When it is void.
    pub expires: Timestamp,
}

impl HeldPermit {
    /// What names it to the server.
    #[must_use]
    pub const fn probe_id(&self) -> ProbeId {
        ProbeId { term: self.fence.term, id: self.id }
    }
}

/// What becomes of a permit that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Taken {
    /// It is held until a call uses it, or it ends.
    Held,
    /// It has come before, or a later one has. It counts once, whatever became of it: to give it back now would be to give back what
    /// may be in use.
    Again,
    /// It can't be used here, and goes back.
    Refused,
}

/// An operator's word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Override {
    /// What it does.
    pub effect: Forced,
    /// When it ends, whether or not a server can be reached.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// What a replica holds about one breaker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Held {
    verdict: Option<Verdict>,
    /// Of every verdict ever applied, so that an expired one can't be replaced by an older one.
    highest: Fence,
    permits: Vec<HeldPermit>,
    /// Of every permit that ever came.
    newest_permit: Option<ProbeId>,
    forced: Option<Override>,
}

/// Permits held at the same time. The server gives one at a time to each; more than this is nonsense.
const MAX_PERMITS: usize = 16;

impl Held {
    /// The verdict in force.
    #[must_use]
    pub const fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// The state of the verdict in force; released where there is none.
    #[must_use]
    pub fn verdict_state(&self) -> FleetState {
        self.verdict.as_ref().map_or(FleetState::Released, |verdict| verdict.state)
    }

    /// The newest verdict ever applied.
    #[must_use]
    pub const fn highest(&self) -> Fence {
        self.highest
    }

    /// The override in force.
    #[must_use]
    pub const fn override_in_force(&self) -> Option<&Override> {
        self.forced.as_ref()
    }

    /// Permits that may be used now.
    #[must_use]
    pub fn usable_permits(&self, now: Timestamp) -> usize {
        self.permits.iter().filter(|permit| now < permit.expires).count()
    }

    /// Takes a verdict that is newer than any before and whose lease has not ended. One that is told again after its lease has ended
    /// here, as to a replica that was cut off, holds again: nothing newer has been said.
    pub(super) fn apply(&mut self, verdict: Verdict, now: Timestamp) -> bool {
        let lapsed = self.verdict.is_none();
        let again = lapsed && verdict.fence == self.highest;
        if (verdict.fence <= self.highest && !again) || now >= verdict.expires {
            return false;
        }
        debug_assert!(s1_fencing(self.highest, lapsed, verdict.fence), "{}", Invariant::S1);
        self.highest = verdict.fence;
        // Permits of an older half-open period are void with it.
        self.permits.retain(|permit| permit.fence == verdict.fence);
        self.verdict = Some(verdict);
        true
    }

    pub(super) fn add_permit(&mut self, permit: HeldPermit, now: Timestamp) -> Taken {
        let name = Some(permit.probe_id());
        if name <= self.newest_permit {
            return Taken::Again;
        }
        self.newest_permit = name;
        let belongs = self
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.state == FleetState::HalfOpen && verdict.fence == permit.fence);
        if !belongs || now >= permit.expires || self.permits.len() >= MAX_PERMITS {
            return Taken::Refused;
        }
        self.permits.push(permit);
        Taken::Held
    }

    pub(super) fn take_permit(&mut self, now: Timestamp) -> Option<HeldPermit> {
        let index = self.permits.iter().position(|permit| now < permit.expires)?;
        Some(self.permits.swap_remove(index))
    }

    pub(super) fn renew(&mut self, term: u64, rev: u64, until: Timestamp, now: Timestamp) {
        if let Some(verdict) = &mut self.verdict
            && verdict.fence.term == term
            && verdict.fence.rev <= rev
            // What has ended stays so, also where nobody has looked since: a process that slept must not go on where it was.
            && now < verdict.expires
        {
            verdict.expires = verdict.expires.max(until);
        }
    }

    pub(super) fn set_override(&mut self, forced: Option<Override>) {
        self.forced = forced;
    }

    pub(super) fn expire_permits(&mut self, now: Timestamp) -> impl Iterator<Item = HeldPermit> + use<> {
        let (live, gone) = self.permits.drain(..).partition(|permit| now < permit.expires);
        self.permits = live;
        let gone: Vec<HeldPermit> = gone;
        gone.into_iter()
    }

    pub(super) fn drop_permits(&mut self) -> Vec<HeldPermit> {
        std::mem::take(&mut self.permits)
    }

    /// Forgets a verdict whose lease has ended, and says which state that was.
    pub(super) fn expire_verdict(&mut self, now: Timestamp) -> Option<FleetState> {
        if self.verdict.as_ref().is_some_and(|verdict| now >= verdict.expires) {
            Some(self.drop_verdict())
        } else {
            None
        }
    }

    pub(super) fn drop_verdict(&mut self) -> FleetState {
        self.verdict.take().map_or(FleetState::Released, |verdict| verdict.state)
    }

    /// Verdicts that come have another order than those before.
    pub(super) fn forget_order(&mut self) {
        self.highest = Fence::default();
    }

    pub(super) fn expire_override(&mut self, now: Timestamp) {
        if self.forced.as_ref().is_some_and(|forced| now >= forced.until) {
            self.forced = None;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let verdict = self.verdict.as_ref().map(|verdict| verdict.expires);
        let forced = self.forced.as_ref().map(|forced| forced.until);
        self.permits.iter().map(|permit| permit.expires).chain(verdict).chain(forced).min()
    }
}

/// The lease and the anchor of a verdict, as durations: when it ends on the replica's own clock.
#[must_use]
pub const fn lease_end(anchor_sent_at: Timestamp, lease: Duration) -> Timestamp {
    anchor_sent_at.plus(lease)
}
