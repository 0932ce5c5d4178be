//! What a replica makes of its share of a limit: fenced, leased, and something safe to act on when the lease has ended.

use std::time::Duration;

use super::{held::Fence, shares::WHOLE};
use crate::Timestamp;

/// A share, as a replica takes it in. Times are the replica's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its place in the order; shares and verdicts of a server have one order.
    pub fence: Fence,
    /// The part of the limit, in millionths. Zero: nothing is free yet.
    pub ppm: u32,
    /// Replicas that share the limit, this one included.
    pub members: u32,
    /// When the lease ends: counted from when the replica sent the heartbeat that anchors it.
    pub expires: Timestamp,
    /// How long a lease is.
    pub lease: Duration,
}

/// What a replica holds of one limit that the fleet shares, and what part it acts on.
///
/// | what it holds | the part that it acts on |
/// |---|---|
/// | nothing was ever told | the whole limit: without a control plane the limit is the replica's own |
/// | a share, on its lease | that share |
/// | "nothing is free yet", on its lease | what it acted on before, but at most limit / replicas |
/// | a lease that ended less than a lease ago | what it acted on before, but at most limit / replicas |
/// | a lease that ended earlier | limit / replicas |
///
/// The replicas' number is the one that came with the newest share. Why two steps after the end of a lease: the leases of a fleet
/// that has lost its control plane end within one lease of each other. Until the last has ended somebody may still act on more than
/// an equal part, so that nobody may act on more than it was given; after that, all are on equal parts, which sum to the limit, and
/// whoever becomes busy during the outage is not kept to the crumb that it had when it was idle.
///
/// Above the limit come, for that reason, only: replicas that were never told anything; newcomers that find nothing free, by an equal
/// part each, until the others have given theirs up; and a replica that alone has lost the control plane, by an equal part at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldShare {
    newest: Option<Share>,
    /// What was acted on when the newest came.
    before: u32,
}

impl Default for HeldShare {
    fn default() -> Self {
        Self { newest: None, before: WHOLE }
    }
}

impl HeldShare {
    /// Takes a share that is newer than any before, or brings one back whose lease has ended. Says whether it did.
    pub fn apply(&mut self, share: Share, now: Timestamp) -> bool {
        let is_news =
            self.newest.is_none_or(|own| share.fence > own.fence || (share.fence == own.fence && now >= own.expires));
        if !is_news || now >= share.expires {
            return false;
        }
        self.before = self.ppm(now);
        self.newest = Some(share);
        true
    }

    /// The share of this run of the server, up to this number, holds on. A lease that has ended is not renewed: the server may have
    /// given the share away, and says so, or tells it again.
    pub fn renew(&mut self, term: u64, rev: u64, until: Timestamp, now: Timestamp) {
        if let Some(own) = &mut self.newest
            && own.fence.term == term
            && own.fence.rev <= rev
            && now < own.expires
        {
            own.expires = own.expires.max(until);
        }
    }

    /// The part of the limit to act on, in millionths.
    #[must_use]
    pub fn ppm(&self, now: Timestamp) -> u32 {
        let Some(Share { fence: _, ppm, members, expires, lease }) = self.newest else { return WHOLE };
        let even = WHOLE / members.max(1);
        let given = if ppm > 0 { ppm } else { self.before.min(even) };
        if now < expires {
            given
        } else if now < expires.plus(lease) {
            given.min(even)
        } else {
            even
        }
    }

    /// When [`HeldShare::ppm`] changes by itself.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let own = self.newest?;
        [own.expires, own.expires.plus(own.lease)].into_iter().find(|at| now < *at)
    }

    /// The share on a lease that has not ended.
    #[must_use]
    pub fn leased(&self, now: Timestamp) -> Option<Share> {
        self.newest.filter(|own| now < own.expires)
    }

    /// The number of replicas that was told last. Zero: nothing was ever told.
    #[must_use]
    pub fn members(&self) -> u32 {
        self.newest.map_or(0, |own| own.members)
    }
}
