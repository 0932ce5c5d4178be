//! Rate limits that fleets share: reports in, shares out.
//!
//! Nothing of it is stored. A server that has just started does not know what an earlier run has given out, but every lease of it ends
//! within the time of a lease: until then it grants replicas what they say they hold, and nobody more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fusebox_policy::{
    InstanceId, Timestamp,
    fleet::{
        BreakerKey,
        evidence::MemberId,
        held::Fence,
        shares::{Grant, Holding, LimitReport, ShareView, Shares, WHOLE},
    },
    pipeline::StrategySpec,
    rate_limiter::{RateLimiterSpec, RateScope},
};
use fusebox_proto::{
    duration::{from_wire, to_wire},
    sync::v1 as sync,
    v1,
};

use super::{Identity, SessionId, owner::Owner, replicas::Session};
use crate::hub::Snapshot;

/// The shared limits of all fleets.
pub(super) struct Sharing {
    /// How long a share holds without a heartbeat: as long as a verdict.
    lease: Duration,
    limits: BTreeMap<BreakerKey, Limit>,
    /// Policies that were in force when this run began, by resource name: the run before may have shared their limits out.
    inherited: BTreeSet<String>,
    /// When all leases of others than this run have ended.
    learning_until: Timestamp,
}

struct Limit {
    shares: Shares,
    /// Where each replica's newest report came from: the stream, and the heartbeat that anchors its lease.
    anchors: BTreeMap<InstanceId, (SessionId, u64)>,
}

impl Sharing {
    /// At the beginning of a run, which is the origin of its time.
    pub(super) fn new(snapshot: &Snapshot, lease: Duration) -> Self {
        let inherited = snapshot.policies.iter().map(|stored| stored.wire.name.clone()).collect();
        Self { lease, limits: BTreeMap::new(), inherited, learning_until: Timestamp::ZERO.plus(lease) }
    }

    /// Another server has spoken to these fleets, with a later term: it may have given out shares just now.
    pub(super) fn learn(&mut self, now: Timestamp) {
        let until = now.plus(self.lease);
        self.learning_until = until;
        self.limits.values_mut().for_each(|limit| limit.shares.learn(until));
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.limits.values().filter_map(|limit| limit.shares.due()).min()
    }

    /// What operators see of one replica's shares.
    pub(super) fn views(&self, identity: &Identity) -> Vec<v1::LimitShare> {
        let mut views: Vec<_> = self
            .limits
            .iter()
            .filter(|(key, _)| key.caller == identity.caller && key.namespace == identity.namespace)
            .filter_map(|(key, limit)| Some(view(key, limit.shares.member(&identity.member.instance)?)))
            .collect();
        views.sort_by(|left, right| (&left.policy, &left.strategy).cmp(&(&right.policy, &right.strategy)));
        views
    }
}

fn view(key: &BreakerKey, share: ShareView) -> v1::LimitShare {
    let ShareView { ppm, acknowledged, wanted_per_second } = share;
    v1::LimitShare {
        policy: key.policy.to_string(),
        strategy: key.strategy.to_string(),
        target: key.target.to_string(),
        ppm,
        acknowledged,
        wanted_per_second,
    }
}

impl Owner {
    /// Takes in what a heartbeat says of limits. Whoever does not hold its newest share is told it again, before the heartbeat is answered:
    /// the answer renews what is held.
    pub(super) fn limits(&mut self, id: SessionId, seq: u64, reports: Vec<sync::LimitReport>) {
        for report in reports {
            if let Some((key, report)) = self.read(id, report) {
                self.limit(id, seq, key, report);
            }
        }
    }

    fn read(&self, id: SessionId, report: sync::LimitReport) -> Option<(BreakerKey, LimitReport)> {
        let sync::LimitReport { key, wanted, over, held_term, held_rev, held_ppm } = report;
        let Some(key) = key.and_then(|key| self.limit_key(id, key)) else {
            tracing::debug!("a report about a limit that is not shared");
            return None;
        };
        let over = match over.map(from_wire).transpose() {
            Ok(over) => over.unwrap_or_default(),
            Err(invalid) => {
                tracing::debug!(limit = %key, reason = %invalid, "a report about a limit over no time");
                return None;
            }
        };
        let holding = if held_term == 0 {
            Holding::Nothing
        } else {
            Holding::Leased {
                rev: (held_term == self.coordinator.term()).then_some(held_rev),
                ppm: held_ppm.min(WHOLE),
            }
        };
        Some((key, LimitReport { wanted, over, holding }))
    }

    fn limit(&mut self, id: SessionId, seq: u64, key: BreakerKey, report: LimitReport) {
        let now = self.now();
        let Some(session) = self.sessions.get(&id) else { return };
        let Sharing { lease, limits, inherited, learning_until } = &mut self.sharing;
        let limit = limits.entry(key.clone()).or_insert_with(|| {
            let may_be_out = inherited.contains(&policy_name(&key));
            let until = if may_be_out { *learning_until } else { Timestamp::ZERO };
            Limit { shares: Shares::new(*lease, until), anchors: BTreeMap::new() }
        });
        if matches!(report.holding, Holding::Leased { rev: None, .. }) {
            // Somebody has shared it out, and it was not this run.
            limit.shares.learn(*learning_until);
        }
        match limit.shares.report(&session.identity.member, report, now) {
            Ok(again) => {
                limit.anchors.insert(session.identity.member.instance.clone(), (id, seq));
                if let Some(grant) = again {
                    self.push_share(&key, grant);
                }
            }
            Err(crowded) => tracing::warn!(
                limit = %key,
                service.instance.id = %session.identity.member.instance,
                reason = %crowded,
                "a replica gets no share of a limit"
            ),
        }
    }

    /// Divides the limits whose time it is, and forgets those of which nobody has a share any more.
    pub(super) fn divide_limits(&mut self) {
        let now = self.now();
        let due = |limit: &Limit| limit.shares.due().is_some_and(|at| at <= now);
        let keys: Vec<BreakerKey> =
            self.sharing.limits.iter().filter(|(_, limit)| due(limit)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let spec = self.limit_spec(&key).cloned();
            let Some(limit) = self.sharing.limits.get_mut(&key) else { continue };
            let grants = match spec {
                Some(spec) => limit.shares.divide(&spec, self.coordinator.rev() + 1, now),
                // No policy shares it any more. Until the leases end it is remembered: it may come back.
                None => {
                    limit.shares.expire(now);
                    Vec::new()
                }
            };
            let Limit { shares, anchors } = limit;
            anchors.retain(|instance, _| shares.member(instance).is_some());
            if shares.is_empty() {
                self.sharing.limits.remove(&key);
            }
            if !grants.is_empty() {
                let Fence { rev, .. } = self.coordinator.next_fence();
                tracing::debug!(limit = %key, changed = grants.len(), rev, "a limit was divided anew");
            }
            for grant in grants {
                self.push_share(&key, grant);
            }
        }
    }

    /// Tells a share to the stream that the replica's newest report came from. If that has ended, the next report asks for it.
    fn push_share(&self, key: &BreakerKey, grant: Grant) {
        let Grant { member: MemberId { instance, incarnation }, rev, ppm, members } = grant;
        let anchor = self.sharing.limits.get(key).and_then(|limit| limit.anchors.get(&instance));
        let Some((id, seq)) = anchor else { return };
        let Some(session) = self.sessions.get(id).filter(|own| is(own, &instance, incarnation)) else { return };
        session.outbox.share(
            key.clone(),
            sync::RateShare {
                key: Some(key.into()),
                term: self.coordinator.term(),
                rev,
                ppm,
                members,
                lease: Some(to_wire(self.sharing.lease)),
                anchor_seq: *seq,
            },
        );
    }

    /// The shared limit that a replica's limiter belongs to, if the policy in force knows it.
    fn limit_key(&self, id: SessionId, wire: v1::BreakerKey) -> Option<BreakerKey> {
        let identity = &self.sessions.get(&id)?.identity;
        let key = BreakerKey::try_from(v1::BreakerKey {
            namespace: identity.namespace.to_string(),
            // Reports are believed about the replica's own service only, whatever they say.
            caller: identity.caller.to_string(),
            zone: String::new(),
            ..wire
        })
        .ok()?;
        self.limit_spec(&key)?;
        Some(key)
    }

    /// What the policy in force says about a shared limit; `None` if there is no such limit any more.
    fn limit_spec(&self, key: &BreakerKey) -> Option<&RateLimiterSpec> {
        let definition = &self.snapshot.get(&policy_name(key))?.policy.definition;
        let strategy = definition.pipeline.strategies().iter().find(|strategy| *strategy.name() == key.strategy)?;
        let StrategySpec::RateLimiter(spec) = strategy.spec() else { return None };
        (spec.scope() == RateScope::Fleet
            && definition.selector.admits_caller(&key.caller)
            && *definition.selector.target() == key.target)
            .then_some(spec)
    }
}

fn is(session: &Session, instance: &InstanceId, incarnation: u64) -> bool {
    session.identity.member.instance == *instance && session.identity.member.incarnation == incarnation
}

fn policy_name(key: &BreakerKey) -> String {
    format!("namespaces/{}/policies/{}", key.namespace, key.policy)
}
