//! What the control plane takes in and gives out.

use std::{collections::BTreeMap, time::Duration};

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::{
    InstanceId,
    fleet::{
        gate::ProbeId,
        held::Fence,
        history::Event as Judged,
        invariants::{self as check, Ground, Invariant, Phase},
    },
};
use fusebox_proto::sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down};

use super::{Check, EVIDENCE, SLACK, Said, Word, key_of, span, state};
use crate::{
    history::{Shown, is_held},
    target::SERVICE_B,
    world::LEASE,
};

/// Of a caller's targets, how many automatic verdicts may hold: the policies' default.
const MAX_OPEN_PERCENT: u8 = 50;
/// From so many targets up.
const CAPPED_FROM: usize = 4;

impl Check {
    pub(super) fn arrived(&mut self, at: Duration, replica: &str, message: Option<&Up>) {
        if let Some(Up::Heartbeat(heartbeat)) = message {
            self.of(replica).beat = (heartbeat.seq, at);
        }
        let windows: Vec<&sync::BreakerWindow> = match message {
            Some(Up::Heartbeat(heartbeat)) => heartbeat.windows.iter().collect(),
            Some(Up::Transition(transition)) => transition.window.iter().collect(),
            Some(Up::CanvassAnswer(answer)) => answer.window.iter().collect(),
            Some(Up::VerdictAck(ack)) if ack.key.is_none() => {
                let seen = self.of(replica);
                seen.acknowledged = seen.overrides.get(&(ack.term, ack.rev)).copied().unwrap_or_default();
                Vec::new()
            }
            Some(Up::ProbeOutcome(outcome)) => {
                let probe = ProbeId { term: outcome.term, id: outcome.id };
                let key = key_of(outcome.key.as_ref());
                if self.permits.remove(&probe).is_some() {
                    self.judge(at, Judged::Returned { key: key.clone(), probe }, String::new);
                }
                self.probed.insert(key, at);
                Vec::new()
            }
            _ => Vec::new(),
        };
        for window in windows {
            let key = key_of(window.key.as_ref());
            self.reported.insert(key.clone(), at);
            let instance = InstanceId::try_new(replica).expect("a replica's name");
            self.judge(at, Judged::Heard { key: key.clone(), instance, disabled: window.disabled }, String::new);
            if FleetState::try_from(window.held_state()).is_ok_and(is_held) {
                self.held.insert(key.clone());
            }
            let witness = &mut self.of(replica).witness;
            if !window.disabled && (window.own_trip || window.calls > 0 && window.failures * 2 >= window.calls) {
                let told = Fence { term: window.held_term, rev: window.held_rev };
                witness.insert(key, (at, told));
            } else {
                witness.remove(&key);
            }
        }
    }

    pub(super) fn issued(&mut self, at: Duration, replica: &str, message: Option<&Down>) {
        match message {
            Some(Down::Verdict(verdict)) => {
                self.spoke.entry(verdict.term).or_insert(at);
                self.verdict(at, replica, verdict);
            }
            Some(Down::Overrides(set)) => {
                let any = !set.overrides.is_empty();
                self.of(replica).overrides.insert((set.term, set.version), any);
            }
            Some(Down::HeartbeatAck(ack)) => {
                let lease = span(ack.lease);
                // Only who does not trust itself answers so what has come after it had said something.
                let (seq, came) = self.of(replica).beat;
                if ack.rev > 0 {
                    self.frozen = self.frozen.map(|(last, _)| (last, false));
                } else if ack.seq == seq && self.spoke.get(&ack.term).is_some_and(|spoke| *spoke < came) {
                    self.frozen = Some((at, true));
                }
                for (fence, word) in &mut self.of(replica).words {
                    if fence.term == ack.term && fence.rev <= ack.rev {
                        (word.affirmed, word.lease) = (at, lease);
                    }
                }
            }
            Some(Down::ProbePermit(permit)) => {
                let (key, ttl) = (key_of(permit.key.as_ref()), span(permit.ttl));
                let probe = ProbeId { term: permit.term, id: permit.id };
                self.permits.retain(|_, (_, until)| at < *until);
                self.permits.insert(probe, (key.clone(), at + ttl));
                let live: Vec<ProbeId> =
                    self.permits.iter().filter(|(_, (own, _))| *own == key).map(|(id, _)| *id).collect();
                let bound = self.terms.probes;
                // Used ones count too, as long as nobody knows what came of them.
                self.must(check::s4_probe_bound(live.len(), bound), Invariant::S4, at, || {
                    format!("permits {live:?} are out at the same time, and at most {bound} may be")
                });
                let phase = self.phase(at);
                let granted = Judged::Granted { key, probe, ttl, bound, phase };
                self.judge(at, granted, || format!("permit {probe:?} is given while {phase:?}"));
            }
            _ => {}
        }
    }

    fn phase(&self, at: Duration) -> Phase {
        // It was frozen then, and learns for a lease at least once it is not.
        match self.frozen {
            Some((last, true)) if at < last + LEASE => Phase::Frozen,
            Some((last, false)) if at < last + LEASE => Phase::Learning,
            Some(_) | None if at < self.learns_until => Phase::Learning,
            Some(_) | None => Phase::Active,
        }
    }

    fn verdict(&mut self, at: Duration, replica: &str, verdict: &sync::Verdict) {
        let (fence, to) = (Fence { term: verdict.term, rev: verdict.rev }, state(verdict));
        let policy_revision = verdict.policy_revision;
        if verdict.key.as_ref().is_some_and(|key| key.target == SERVICE_B) {
            let word = Word { state: to, policy_revision, lease: span(verdict.lease), heard: None, affirmed: at };
            let words = &mut self.of(replica).words;
            let heard = words.get(&fence).and_then(|word| word.heard);
            words.insert(fence, Word { heard, ..word });
        }
        let key = key_of(verdict.key.as_ref());
        let before = self.said.get(&key).copied();
        if before.is_some_and(|said| fence <= said.fence) {
            // Said again, to one who missed it.
            return;
        }
        self.said.insert(key.clone(), Said { fence, state: to, policy_revision });
        // A verdict about another revision of the policy is void.
        let valid = before.filter(|said| said.policy_revision == policy_revision);
        let from = valid.map_or(FleetState::Released, |said| said.state);
        // A server that has just started may stand behind what an earlier one had decided.
        let obeyed = self.replicas.values().any(|seen| seen.shown.as_ref().is_some_and(Shown::is_held));
        // An override may hide from view what is held.
        let adopted = before.is_none() && (obeyed || self.held.contains(&key));
        // What has opened the zones that a zone follows speaks for it too.
        let zones = if to == FleetState::Open { self.open_zones(&key, fence) } else { Vec::new() };
        let ground = if to == FleetState::Released && !obeyed {
            Ground::Lapse
        } else {
            let own = self.ground(at, &key, adopted, before.is_some() && valid.is_none());
            let grounds = zones.iter().map(|zone| self.ground(at, zone, false, false)).filter(|_| own == Ground::Time);
            grounds.max_by_key(|ground| *ground == Ground::Report).unwrap_or(own)
        };
        // What was seen before the fleet was released led to that outage, and not to another one.
        let counts = |(seen_at, told): (Duration, Fence)| {
            at <= seen_at + EVIDENCE && valid.is_none_or(|said| told == said.fence)
        };
        let lately = |(seen_at, _): (Duration, Fence)| at <= seen_at + EVIDENCE;
        let speaks = self.replicas.iter().filter(|(_, seen)| {
            let of = |key: &str| seen.witness.get(key).copied();
            of(&key).is_some_and(counts) || zones.iter().any(|zone| of(zone).is_some_and(lately))
        });
        let witnesses: Vec<InstanceId> =
            speaks.map(|(name, _)| InstanceId::try_new(name).expect("a replica's name")).collect();
        let decided = Judged::Decided {
            key: key.clone(),
            run: self.run,
            fence,
            from,
            to,
            ground,
            mode: self.terms.mode,
            witnesses: witnesses.clone(),
            phase: self.phase(at),
        };
        self.judge(at, decided, || {
            format!(
                "{key} goes from {from} to {to} by {ground:?}; {witnesses:?} speak against the target since {before:?}"
            )
        });
        if from != to && !adopted && valid.is_some() {
            self.records.decided(at, &key, from, to);
        }
        if to == FleetState::Open && from == FleetState::Released && !adopted && self.targets >= CAPPED_FROM {
            let (open, targets) = (self.said.values().filter(|said| is_held(said.state)).count(), self.targets);
            self.must(check::s14_blast_cap(open, targets, MAX_OPEN_PERCENT), Invariant::S14, at, || {
                format!("{open} of {targets} targets are held")
            });
        }
    }

    /// The other zones of a breaker that were held when something was decided about it, if they are enough for it to follow them.
    fn open_zones(&self, key: &str, fence: Fence) -> Vec<String> {
        const LEAST: usize = 2;
        let breaker = |key: &str| key.split_once('@').map(|(breaker, _)| breaker.to_owned());
        let mut zones = BTreeMap::new();
        for (other, state) in self.all_said.range(Fence { rev: 0, ..fence }..fence).map(|(_, said)| said) {
            if other != key && breaker(other) == breaker(key) {
                zones.insert(other, *state);
            }
        }
        let open: Vec<String> =
            zones.into_iter().filter(|(_, state)| is_held(*state)).map(|(zone, _)| zone.clone()).collect();
        if open.len() < LEAST { Vec::new() } else { open }
    }

    /// What made a decision come about, as far as can be seen from outside.
    fn ground(&self, at: Duration, key: &str, adopted: bool, changed: bool) -> Ground {
        let just = |last: Option<Duration>| last.is_some_and(|last| at <= last + SLACK);
        if adopted {
            Ground::Inherited
        } else if changed {
            Ground::Policy
        } else if just(self.probed.get(key).copied()) {
            Ground::Probe
        } else if just(self.reported.get(key).copied()) {
            Ground::Report
        } else if just(self.lost) {
            Ground::Departure
        } else {
            Ground::Time
        }
    }
}
