//! The rate limits that the fleet shares: which limiters they are, and their shares' way to them.

use std::sync::Arc;

use fusebox_policy::{
    StrategyName, Timestamp,
    fleet::{BreakerKey, held_share::Share},
    pipeline::StrategySpec,
    rate_limiter::RateScope,
};

use super::Registry;
use crate::{
    pipeline::{Limited, Live, Stage, Wanted},
    status::LimitStatus,
};

impl Registry {
    /// What is wanted and held of each limit that the fleet shares.
    pub(crate) fn take_wanted(&self) -> Vec<(BreakerKey, Wanted)> {
        let now = self.clock.now();
        let table = self.table.load();
        let limiters = table.by_target.values().flatten().flat_map(|live| limiters(live).map(move |own| (live, own)));
        limiters
            .filter_map(|(live, (strategy, limited))| Some((self.limit_key(live, strategy), limited.take_wanted(now)?)))
            .collect()
    }

    /// Gives a share to its limiter. Says whether it is acted on there.
    pub(crate) fn apply_share(&self, key: &BreakerKey, share: Share) -> bool {
        let now = self.clock.now();
        self.table
            .load()
            .by_target
            .get(&key.target)
            .into_iter()
            .flatten()
            .flat_map(|live| limiters(live).map(move |own| (live, own)))
            .find(|(live, (strategy, _))| self.limit_key(live, strategy) == *key)
            .is_some_and(|(_, (_, limited))| limited.apply_share(share, now))
    }

    /// Shares of this run of the server, up to this number, hold on.
    pub(crate) fn renew_shares(&self, term: u64, rev: u64, until: Timestamp) {
        let now = self.clock.now();
        for (_, limited) in self.table.load().by_target.values().flatten().flat_map(|live| limiters(live)) {
            limited.renew_share(term, rev, until, now);
        }
    }

    /// What there is to show of the limits that the fleet shares, by policy.
    pub(crate) fn show_limits(&self) -> Vec<LimitStatus> {
        let now = self.clock.now();
        let table = self.table.load();
        let mut limits: Vec<LimitStatus> = table
            .by_target
            .values()
            .flatten()
            .flat_map(|live| limiters(live).map(move |own| (live, own)))
            .filter_map(|(live, (strategy, limited))| {
                let shown = limited.shown_share(now)?;
                Some(LimitStatus {
                    policy: live.policy.name.clone(),
                    strategy: strategy.clone(),
                    target: live.policy.definition.selector.target().clone(),
                    share_ppm: shown.ppm,
                    members: shown.members,
                    leased: shown.leased,
                })
            })
            .collect();
        limits.sort_by(|left, right| (&left.policy, &left.strategy).cmp(&(&right.policy, &right.strategy)));
        limits
    }

    /// A limit has no zone: all replicas of the caller share it.
    fn limit_key(&self, live: &Live, strategy: &StrategyName) -> BreakerKey {
        BreakerKey { zone: None, ..self.key(&live.policy, strategy) }
    }
}

/// The limiters of a policy whose limits the fleet shares.
fn limiters(live: &Live) -> impl Iterator<Item = (&StrategyName, &Arc<Limited>)> {
    live.pipeline().strategies().iter().zip(&live.stages).filter_map(|(strategy, stage)| {
        match (strategy.spec(), stage) {
            (StrategySpec::RateLimiter(spec), Stage::Limited(limited)) if spec.scope() == RateScope::Fleet => {
                Some((strategy.name(), limited))
            }
            (_, _) => None,
        }
    })
}
