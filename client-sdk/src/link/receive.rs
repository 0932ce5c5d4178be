//! What comes down the stream, turned into domain types and put in force.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

#[cfg(feature = "metrics")]
use fusebox_policy::breaker::BreakerMode;
use fusebox_policy::{
    Invalid, Policy, PolicySet, Revision, Timestamp,
    fleet::{
        BreakerKey,
        gate::Forced,
        held::{Fence, HeldPermit, Taken, Verdict},
        key::KeyPattern,
        shared::{FleetState, ProbeResult},
        term::{FARTHEST, GREATEST, RunId},
    },
};
use fusebox_proto::{duration, sync::v1 as sync, v1};

use super::{
    Link, send,
    state::{Stream, Unusable, Welcome},
};
use crate::{
    pipeline::cell::draw,
    registry::{Caller, Held, HeldOverride, Origin},
    status::RejectedPolicy,
};

/// A heartbeat faster than this is a mistake.
const FASTEST_HEARTBEAT: Duration = Duration::from_millis(50);
/// Slower than this, and a lost stream would be noticed too late.
const SLOWEST_HEARTBEAT: Duration = Duration::from_secs(60);
/// A verdict that nobody renews is forgotten after this, whatever it says.
pub(super) const LONGEST_LEASE: Duration = Duration::from_secs(30);
/// Overrides end: the protocol has none that is longer.
const LONGEST_OVERRIDE: Duration = Duration::from_secs(7 * 24 * 3600);
/// An id is short.
const LONGEST_STORE_ID: usize = 128;

/// Trouble on purpose is for processes that have asked for it.
fn refuse_chaos(policy: &Policy) -> Result<(), Invalid> {
    let chaos = policy.definition.pipeline.strategies().iter().position(|own| own.spec().as_chaos().is_some());
    chaos.map_or(Ok(()), |index| {
        let reason = "this instance has not opted in to chaos (ClientBuilder::allow_chaos)";
        Err(Invalid::new(format!("spec.pipeline[{index}].chaos"), reason))
    })
}

/// Checks each policy for itself; a refused one leaves its last good version in place.
pub(super) fn check(wire: Vec<v1::Policy>, caller: &Caller, last_good: &PolicySet) -> (PolicySet, Vec<RejectedPolicy>) {
    let namespace = &caller.namespace;
    let mut set = PolicySet::default();
    let mut rejected = Vec::new();
    for wire in wire {
        let (name, revision) = (wire.name.clone(), Revision(wire.revision));
        let checked = Policy::try_from(wire).and_then(|policy| {
            if policy.namespace != *namespace {
                return Err(Invalid::new("name", format!("is not in namespace {namespace}")));
            }
            if !caller.allow_chaos {
                refuse_chaos(&policy)?;
            }
            set.check_tie(&policy)?;
            Ok(policy)
        });
        match checked {
            Ok(policy) => set.insert(Arc::new(policy)),
            Err(invalid) => {
                if let Some(good) = last_good.iter().find(|own| own.resource_name() == name) {
                    set.insert(Arc::clone(good));
                }
                rejected.push(RejectedPolicy { name, revision, reason: invalid.to_string() });
            }
        }
    }
    (set, rejected)
}

pub(super) fn welcome(wire: sync::Welcome) -> Result<Welcome, Invalid> {
    let sync::Welcome { store_id, term, heartbeat_interval, lease, server_version: _, run_id } = wire;
    let heartbeat = heartbeat_interval
        .ok_or_else(|| Invalid::new("heartbeat_interval", "is required"))
        .and_then(duration::from_wire)?
        .clamp(FASTEST_HEARTBEAT, SLOWEST_HEARTBEAT);
    let lease =
        lease.ok_or_else(|| Invalid::new("lease", "is required")).and_then(duration::from_wire)?.min(LONGEST_LEASE);
    if store_id.is_empty() || store_id.len() > LONGEST_STORE_ID {
        return Err(Invalid::new("store_id", format!("must be of 1 to {LONGEST_STORE_ID} bytes")));
    }
    Ok(Welcome { store_id, term, heartbeat, lease, run: RunId::new(run_id) })
}

impl Link {
    /// A complete set.
    pub(super) fn apply_snapshot(
        &self,
        store_id: &str,
        end: sync::SnapshotEnd,
        wire: Vec<v1::Policy>,
    ) -> Result<sync::Ack, Unusable> {
        let sync::SnapshotEnd { revision, policies: _, empty_is_meant } = end;
        let held = self.registry.held();
        check_order(&held, store_id, revision)?;
        let other_store = !held.store_id.is_empty() && held.store_id != store_id;
        if wire.is_empty() && other_store && !empty_is_meant && !held.policies.is_empty() {
            let reason = "another database has no policies: those that are held stay until it has some".to_owned();
            return Err(Unusable { revision, reason });
        }
        if wire.is_empty() && revision == 0 {
            // A store into which nothing was ever written has nothing to say: what protects the calls stays. After any change its
            // revision is above zero, and an empty set then means what it says.
            self.registry.hold(Held { store_id: store_id.to_owned(), revision: Revision(0), ..held });
            return Ok(sync::Ack { revision, rejected: Vec::new() });
        }
        let (policies, rejected) = check(wire, self.registry.caller(), &held.policies);
        Ok(self.put_in_force(store_id, revision, policies, rejected))
    }

    /// What changed since the held set.
    pub(super) fn apply_delta(&self, store_id: &str, delta: sync::Delta) -> Result<sync::Ack, Unusable> {
        let sync::Delta { from_revision, revision, upserted, deleted } = delta;
        let held = self.registry.held();
        let same_store = held.store_id == store_id || held.store_id.is_empty();
        check_order(&held, store_id, revision)?;
        if held.revision.0 != from_revision || !same_store {
            let reason = format!("it is based on revision {from_revision}, but {} is held", held.revision);
            return Err(Unusable { revision, reason });
        }
        if from_revision == revision && upserted.is_empty() && deleted.is_empty() && held.origin.is_none() {
            return Ok(sync::Ack { revision, rejected: Vec::new() });
        }
        // Before the first change of a store there is nothing in it, whatever another store has left here.
        let base = if from_revision == 0 && revision > 0 { PolicySet::default() } else { held.policies.clone() };
        let named: Vec<String> = upserted.iter().map(|policy| policy.name.clone()).collect();
        let gone = |name: &String| named.contains(name) || deleted.contains(name);
        // What replaces and what goes is taken out first, so that two policies can exchange their selectors.
        let rest: Vec<Arc<Policy>> =
            base.iter().filter(|policy| !gone(&policy.resource_name())).map(Arc::clone).collect();
        let (changed, mut rejected) = check(upserted, self.registry.caller(), &held.policies);
        let mut policies = PolicySet::new(rest);
        for policy in changed.iter() {
            match policies.check_tie(policy) {
                Ok(()) => policies.insert(Arc::clone(policy)),
                Err(invalid) => {
                    let name = policy.resource_name();
                    if let Some(good) = held.policies.iter().find(|own| own.resource_name() == name) {
                        policies.insert(Arc::clone(good));
                    }
                    rejected.push(RejectedPolicy { name, revision: policy.revision, reason: invalid.to_string() });
                }
            }
        }
        rejected.extend(held.rejected.iter().filter(|own| !gone(&own.name)).cloned());
        Ok(self.put_in_force(store_id, revision, policies, rejected))
    }

    fn put_in_force(
        &self,
        store_id: &str,
        revision: u64,
        policies: PolicySet,
        rejected: Vec<RejectedPolicy>,
    ) -> sync::Ack {
        for refused in &rejected {
            tracing::warn!(
                target: "fusebox", policy = refused.name, revision = refused.revision.0, reason = refused.reason,
                "a policy is refused; its last good version stays"
            );
        }
        tracing::info!(
            target: "fusebox", revision, policies = policies.len(), rejected = rejected.len(), "policies applied"
        );
        #[cfg(feature = "metrics")]
        if let Some(meters) = self.registry.meters() {
            meters.synced();
            meters.count(crate::metrics::POLICY_REJECTED, rejected.len() as u64);
        }
        let ack = sync::Ack {
            revision,
            rejected: rejected
                .iter()
                .map(|own| sync::PolicyRejection {
                    name: own.name.clone(),
                    revision: own.revision.0,
                    reason: own.reason.clone(),
                })
                .collect(),
        };
        self.registry.hold(Held {
            origin: Some(Origin::Stream),
            store_id: store_id.to_owned(),
            revision: Revision(revision),
            policies,
            rejected,
        });
        self.leave_behind(&ack);
        self.stale_cache.notify_one();
        ack
    }

    /// Breakers whose policy has a newer revision that can't be used here: what the fleet decides is about that one.
    fn leave_behind(&self, ack: &sync::Ack) {
        let now = self.clock.now();
        for cell in self.registry.cells() {
            let name = format!("namespaces/{}/policies/{}", cell.key().namespace, cell.key().policy);
            if ack.rejected.iter().any(|refused| refused.name == name) {
                cell.with(|gate| ((), gate.fall_behind(now, draw())));
            } else {
                cell.with(|gate| (gate.catch_up(), Vec::new()));
            }
        }
    }

    /// A verdict of the fleet. The answer says that it is in force; there is none if it is not.
    pub(super) fn apply_verdict(
        &self,
        stream: &Stream,
        wire: sync::Verdict,
    ) -> Result<Option<sync::VerdictAck>, Invalid> {
        let sync::Verdict {
            key,
            term,
            rev,
            state,
            admit_permille,
            lease,
            anchor_seq,
            policy_revision,
            reason,
            half_open_in,
        } = wire;
        let now = self.clock.now();
        let key = BreakerKey::try_from(key.ok_or_else(|| Invalid::new("key", "is required"))?)?;
        let state = fleet_state(state)?;
        match state {
            FleetState::Released | FleetState::Open | FleetState::HalfOpen | FleetState::Ramp => {}
            FleetState::ForcedOpen | FleetState::ForcedClosed | FleetState::Disabled => {
                return Err(Invalid::new("state", "is an operator's and comes as an override"));
            }
        }
        let lease = lease.ok_or_else(|| Invalid::new("lease", "is required")).and_then(duration::from_wire)?;
        let lease = lease.min(LONGEST_LEASE);
        let half_open_at = half_open_in.map(duration::from_wire).transpose()?.map(|span| now.plus(span));
        let expires = stream
            .lease_end(anchor_seq, lease)
            .ok_or_else(|| Invalid::new("anchor_seq", "is no heartbeat of this stream"))?;
        self.saw_term(term, stream.run())?;
        let Some(cell) = self.registry.cell(&key) else { return Ok(None) };
        let fence = Fence { term, rev };
        let policy_revision = Revision(policy_revision);
        let verdict = Verdict {
            fence,
            state,
            admit_permille: admit_permille.min(1000),
            expires,
            policy_revision,
            half_open_at,
            reason: reason.clone(),
        };
        let (before, applied, after, vetoed) = cell.with(|gate| {
            let before = gate.fleet_state();
            let (applied, effects) = gate.apply_verdict(verdict, now);
            ((before, applied, gate.fleet_state(), gate.vetoes()), effects)
        });
        if !applied {
            return Ok(None);
        }
        if before != after {
            #[cfg(feature = "metrics")]
            if let Some(meters) = self.registry.meters()
                && after == FleetState::Open
                && !vetoed
                && cell.with(|gate| (gate.breaker().spec().mode() == BreakerMode::Shadow, Vec::new()))
            {
                meters.would_open_by_fleet(&key);
            }
            tracing::info!(
                target: "fusebox", target = %key.target, policy = %key.policy, strategy = %key.strategy,
                from = before.name(), to = after.name(), vetoed, reason, "fleet state changed from {} to {}", before.name(), after.name()
            );
        }
        Ok(Some(sync::VerdictAck { key: Some(v1::BreakerKey::from(&key)), term, rev }))
    }

    /// The server does not share a breaker: there are too many. One that is not here any more is no matter.
    pub(super) fn keep_to_itself(&self, wire: sync::BreakerRefused) {
        let sync::BreakerRefused { key, reason } = wire;
        let Some(cell) = key.and_then(|key| BreakerKey::try_from(key).ok()).and_then(|key| self.registry.cell(&key))
        else {
            return;
        };
        let key = cell.key();
        let news = cell.with(|gate| {
            let news = !gate.is_unshared();
            gate.keep_to_itself();
            (news, Vec::new())
        });
        if news {
            tracing::warn!(
                target: "fusebox", target = %key.target, policy = %key.policy, strategy = %key.strategy, reason,
                "a breaker is not shared with the fleet; it goes on by itself"
            );
        }
    }

    /// Leave for a probe. The answer gives one back that is not for this process.
    pub(super) fn add_permit(
        &self,
        stream: &Stream,
        wire: sync::ProbePermit,
    ) -> Result<Option<sync::ProbeOutcome>, Invalid> {
        let sync::ProbePermit { key, id, term, rev, ttl, anchor_seq } = wire;
        let key = BreakerKey::try_from(key.ok_or_else(|| Invalid::new("key", "is required"))?)?;
        let ttl = ttl.ok_or_else(|| Invalid::new("ttl", "is required")).and_then(duration::from_wire)?;
        let expires = stream
            .lease_end(anchor_seq, ttl)
            .ok_or_else(|| Invalid::new("anchor_seq", "is no heartbeat of this stream"))?;
        let permit = HeldPermit { id, fence: Fence { term, rev }, expires };
        let now = self.clock.now();
        let cell = self.registry.cell(&key);
        let taken = cell.map_or(Taken::Refused, |cell| cell.with(|gate| (gate.add_permit(permit, now), vec![])));
        Ok(match taken {
            Taken::Held | Taken::Again => None,
            Taken::Refused => Some(send::probe_outcome(&key, permit.probe_id(), ProbeResult::Inconclusive)),
        })
    }

    /// Verdicts and shares hold on.
    pub(super) fn renew(&self, stream: &Stream, ack: sync::HeartbeatAck) -> Result<(), Invalid> {
        let sync::HeartbeatAck { seq, term, rev, lease } = ack;
        self.saw_term(term, stream.run())?;
        let lease = match (lease, &stream.welcome) {
            (Some(lease), _) => duration::from_wire(lease)?.min(LONGEST_LEASE),
            (None, Some(welcome)) => welcome.lease,
            (None, None) => return Err(Invalid::new("lease", "is required")),
        };
        #[cfg(feature = "metrics")]
        if let Some(meters) = self.registry.meters() {
            meters.synced();
        }
        let Some(until) = stream.lease_end(seq, lease) else { return Ok(()) };
        let now = self.clock.now();
        for cell in self.registry.cells() {
            cell.with(|gate| (gate.renew(term, rev, until, now), Vec::new()));
        }
        self.registry.renew_shares(term, rev, until);
        Ok(())
    }

    /// All overrides.
    pub(super) fn set_overrides(
        &self,
        stream: &Stream,
        store_id: &str,
        wire: sync::OverrideSet,
    ) -> Result<Option<sync::VerdictAck>, Invalid> {
        let sync::OverrideSet { version, term, overrides, anchor_seq } = wire;
        self.saw_term(term, stream.run())?;
        let sent =
            stream.sent_at(anchor_seq).ok_or_else(|| Invalid::new("anchor_seq", "is no heartbeat of this stream"))?;
        let now = self.clock.now();
        let overrides = overrides
            .into_iter()
            .enumerate()
            .map(|(index, wire)| {
                held_override(wire, sent, Duration::ZERO)
                    .map_err(|invalid| invalid.under(&format!("overrides[{index}]")))
            })
            .filter(|own| own.as_ref().map_or(true, |own| own.until > now))
            .collect::<Result<Vec<_>, _>>()?;
        let count = overrides.len();
        if !self.registry.set_overrides(overrides, store_id) {
            tracing::info!(target: "fusebox", overrides = count, "overrides are not taken: the fleet is ignored, or another database has none");
            return Ok(None);
        }
        tracing::info!(target: "fusebox", overrides = count, "overrides applied");
        self.stale_cache.notify_one();
        Ok(Some(sync::VerdictAck { key: None, term, rev: version }))
    }

    /// Remembers a term of a run of the server, if it can be one: terms grow by one at a time, and one from far away would fence every
    /// honest server out.
    pub(super) fn saw_term(&self, term: u64, run: Option<RunId>) -> Result<(), Invalid> {
        let mut seen = self.seen_term.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = seen.term;
        if term > GREATEST || (highest > 0 && term > highest.saturating_add(FARTHEST)) {
            return Err(Invalid::new("term", format!("{term} is implausible after {highest}")));
        }
        if seen.see(term, run) {
            self.stale_cache.notify_one();
        }
        Ok(())
    }
}

/// What is older than what is held never replaces it: a server that was restored from a backup, or lies, rolls nobody back.
fn check_order(held: &Held, store_id: &str, revision: u64) -> Result<(), Unusable> {
    if held.store_id == store_id && revision < held.revision.0 {
        let reason = format!("it is older than revision {}, which is held", held.revision);
        return Err(Unusable { revision, reason });
    }
    Ok(())
}

fn fleet_state(wire: i32) -> Result<FleetState, Invalid> {
    v1::FleetState::try_from(wire)
        .map_err(|_| Invalid::new("state", format!("{wire} is not known")))
        .and_then(|state| FleetState::try_from(state).map_err(|invalid| invalid.under("state")))
}

/// An override whose rest counts from a time, of which `age` had passed by then.
pub(super) fn held_override(wire: sync::Override, from: Timestamp, age: Duration) -> Result<HeldOverride, Invalid> {
    let sync::Override { id, selector, state, remaining, reason } = wire;
    let pattern = KeyPattern::try_from(selector.ok_or_else(|| Invalid::new("selector", "is required"))?)
        .map_err(|invalid| invalid.under("selector"))?;
    let effect = match fleet_state(state)? {
        FleetState::ForcedOpen => Forced::Open,
        FleetState::ForcedClosed => Forced::Closed,
        FleetState::Disabled => Forced::Disabled,
        FleetState::Released | FleetState::Open | FleetState::HalfOpen | FleetState::Ramp => {
            return Err(Invalid::new("state", "must be FORCED_OPEN, FORCED_CLOSED or DISABLED"));
        }
    };
    let remaining = remaining.ok_or_else(|| Invalid::new("remaining", "is required")).and_then(duration::from_wire)?;
    let left = remaining.min(LONGEST_OVERRIDE).saturating_sub(age);
    Ok(HeldOverride { id, pattern, effect, until: from.plus(left), reason })
}
