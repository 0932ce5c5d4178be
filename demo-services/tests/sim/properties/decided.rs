//! What the control plane takes in and gives out.

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;
use fusebox_proto::sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down};

use super::{Check, EVIDENCE, Fence, SLACK, Word, key_of, span, state};
use crate::history::Shown;

impl Check {
    pub(super) fn arrived(&mut self, at: Duration, replica: &str, message: Option<&Up>) {
        let windows: Vec<&sync::BreakerWindow> = match message {
            Some(Up::Heartbeat(heartbeat)) => heartbeat.windows.iter().collect(),
            Some(Up::Transition(transition)) => transition.window.iter().collect(),
            Some(Up::CanvassAnswer(answer)) => answer.window.iter().collect(),
            Some(Up::ProbeOutcome(outcome)) => {
                self.permits.remove(&(outcome.term, outcome.id));
                Vec::new()
            }
            _ => Vec::new(),
        };
        if windows.is_empty() {
            return;
        }
        self.last_report = Some(at);
        let speaks_against = |window: &&sync::BreakerWindow| {
            window.own_trip || (window.calls > 0 && window.failures * 2 >= window.calls)
        };
        let witness = windows.into_iter().find(speaks_against);
        self.of(replica).witness = witness.map(|window| (at, (window.held_term, window.held_rev)));
    }

    pub(super) fn issued(&mut self, at: Duration, replica: &str, message: Option<&Down>) {
        match message {
            Some(Down::Verdict(verdict)) => self.verdict(at, replica, verdict),
            Some(Down::HeartbeatAck(ack)) => {
                let lease = span(ack.lease);
                for (fence, word) in &mut self.of(replica).words {
                    if fence.0 == ack.term && fence.1 <= ack.rev {
                        (word.affirmed, word.lease) = (at, lease);
                    }
                }
            }
            Some(Down::ProbePermit(permit)) => {
                let key = key_of(permit.key.as_ref());
                self.permits.retain(|_, (_, until)| at < *until);
                self.permits.insert((permit.term, permit.id), (key.clone(), at + span(permit.ttl)));
                let live: Vec<Fence> =
                    self.permits.iter().filter(|(_, (own, _))| *own == key).map(|(id, _)| *id).collect();
                self.must(at >= self.learns_until, "S7", at, || "a server that still learns gives a permit".to_owned());
                let bound = self.bound;
                self.must(live.len() <= bound as usize, "S4", at, || {
                    format!("permits {live:?} are out at the same time, and at most {bound} may be")
                });
            }
            _ => {}
        }
    }

    pub(super) fn verdict(&mut self, at: Duration, replica: &str, verdict: &sync::Verdict) {
        let (fence, to) = ((verdict.term, verdict.rev), state(verdict));
        let word = Word {
            state: to,
            policy_revision: verdict.policy_revision,
            lease: span(verdict.lease),
            heard: false,
            affirmed: at,
        };
        let heard = self.of(replica).words.get(&fence).is_some_and(|word| word.heard);
        self.of(replica).words.insert(fence, Word { heard, ..word });
        let stored = self.terms.contains(&verdict.term);
        self.must(stored, "S8", at, || format!("term {} is used before it is stored", verdict.term));
        let key = key_of(verdict.key.as_ref());
        let before = self.said.get(&key).copied();
        if before.is_some_and(|(said, _, _)| fence <= said) {
            // Said again, to one who missed it.
            return;
        }
        self.said.insert(key, (fence, to, verdict.policy_revision));
        // A verdict about another revision of the policy is void.
        let released = before.filter(|(_, _, revision)| *revision == verdict.policy_revision);
        let from = released.map_or(FleetState::Released, |(_, from, _)| from);
        // A server that has just started may stand behind what an earlier one had decided.
        let adopted =
            before.is_none() && self.replicas.values().any(|seen| seen.shown.as_ref().is_some_and(Shown::is_held));
        if to != FleetState::Open || from != FleetState::Released || adopted {
            return;
        }
        self.must(at >= self.learns_until, "S7", at, || "a server that still learns opens".to_owned());
        // What was seen before the fleet was released led to that outage, and not to another one.
        let counts = |(seen_at, told): (Duration, Fence)| {
            at <= seen_at + EVIDENCE && released.is_none_or(|(said, _, _)| told == said)
        };
        let witnesses = self.replicas.values().filter(|seen| seen.witness.is_some_and(counts)).count();
        self.must(witnesses >= 2, "S3", at, || {
            format!("it opens, and {witnesses} replicas have spoken against the target since {before:?} was said")
        });
        let reported = self.last_report.is_some_and(|report| at <= report + SLACK);
        self.must(reported, "S13", at, || "it opens, and nobody has reported anything".to_owned());
    }
}
