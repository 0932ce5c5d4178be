//! Limits that the fleet shares: demand up, shares down.

use fusebox_policy::{
    Invalid,
    fleet::{BreakerKey, held::Fence, held_share::Share, shares::WHOLE},
};
use fusebox_proto::{duration, sync::v1 as sync, v1};

use super::{Link, receive::LONGEST_LEASE, state::Stream};
use crate::pipeline::Wanted;

impl Link {
    /// What this process wants and holds of each limit. Takes the counts of calls.
    pub(super) fn limit_reports(&self) -> Vec<sync::LimitReport> {
        self.registry.take_wanted().iter().map(|(key, wanted)| report(key, wanted)).collect()
    }

    /// A share. Says whether it is acted on from here on.
    pub(super) fn apply_share(&self, stream: &Stream, wire: sync::RateShare) -> Result<bool, Invalid> {
        let sync::RateShare { key, term, rev, ppm, members, lease, anchor_seq } = wire;
        let key = BreakerKey::try_from(key.ok_or_else(|| Invalid::new("key", "is required"))?)
            .map_err(|invalid| invalid.under("key"))?;
        if ppm > WHOLE {
            return Err(Invalid::new("ppm", format!("must be at most {WHOLE}, is {ppm}")));
        }
        if members == 0 {
            return Err(Invalid::new("members", "must be at least 1"));
        }
        let lease = lease.ok_or_else(|| Invalid::new("lease", "is required")).and_then(duration::from_wire)?;
        let lease = lease.min(LONGEST_LEASE);
        let expires = stream
            .lease_end(anchor_seq, lease)
            .ok_or_else(|| Invalid::new("anchor_seq", "is no heartbeat of this stream"))?;
        self.saw_term(term, stream.run())?;
        let share = Share { fence: Fence { term, rev }, ppm, members, expires, lease };
        let applied = self.registry.apply_share(&key, share);
        if applied {
            tracing::debug!(
                target: "fusebox", target = %key.target, policy = %key.policy, strategy = %key.strategy, ppm, members,
                "share of a rate limit changed"
            );
        }
        Ok(applied)
    }
}

fn report(key: &BreakerKey, wanted: &Wanted) -> sync::LimitReport {
    let Wanted { calls, over, leased } = *wanted;
    let fence = leased.map_or(Fence::default(), |share| share.fence);
    sync::LimitReport {
        key: Some(v1::BreakerKey::from(key)),
        wanted: calls,
        over: Some(duration::to_wire(over)),
        held_term: fence.term,
        held_rev: fence.rev,
        held_ppm: leased.map_or(0, |share| share.ppm),
    }
}
