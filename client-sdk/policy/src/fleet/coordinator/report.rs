//! From a replica's report to a verdict, or to the guard that held it back.

use std::collections::BTreeMap;

use super::{Coordinator, Decision, Effect, Guard, Mode, Recipients, Record, Sighting, record::Witness};
use crate::{
    Draw, Timestamp,
    fleet::{
        BreakerKey,
        evidence::{Evidence, MemberId, Report},
        held::Fence,
        rule,
        shared::{Change, FleetState, SharedBreaker},
    },
};

/// Replicas named in a record.
const MAX_WITNESSES: usize = 20;

/// Those whose votes do not count, and why.
pub(super) type Mute = BTreeMap<MemberId, Guard>;

/// An opening that the reports ask for, and what holds it back.
pub(super) struct Held<'a> {
    pub(super) guard: Guard,
    pub(super) cause: &'static str,
    /// Numbers in words.
    pub(super) detail: String,
    pub(super) evidence: Evidence,
    pub(super) mute: &'a Mute,
}

impl Coordinator {
    /// Takes what a replica has seen. Breakers that are not [configured](Coordinator::configure) and replicas that are not
    /// connected are ignored, and so is a report that is older than one that has come before, or the same again.
    pub fn report(
        &mut self,
        key: &BreakerKey,
        member: &MemberId,
        sighting: Sighting,
        now: Timestamp,
        draw: Draw,
    ) -> Vec<Effect> {
        let Sighting { seq, report, policy_revision, held } = sighting;
        let (Some(entry), Some(replica)) =
            (self.entries.get_mut(key), self.callers.replica_mut(&key.caller_id(), member))
        else {
            return Vec::new();
        };
        // Before anything was said, a replica may obey what a former run said: its calls are kept back, and what it has seen was before.
        let obeys = !report.vetoed && held.state.is_some_and(|state| state != FleetState::Released);
        let obeys_former = matches!(self.mode, Mode::Learning { .. }) && obeys;
        let answers_newest = entry.newest.as_ref().map_or(!obeys_former, |newest| newest.fence == held.fence);
        let current = answers_newest && policy_revision == entry.breaker.settings().policy_revision;
        let report = Report { current, ..report };
        let seen = replica.keys.get(key).copied();
        // The same again, or the same from before a verdict that it had answered since.
        let repeats = |own: &Report| *own == report || *own == Report { current: true, ..report };
        let known = entry.breaker.members().get(member).is_some_and(|own| repeats(&own.report));
        if seen.is_some_and(|older| older > seq || (older == seq && known)) {
            return Vec::new();
        }
        replica.keys.insert(key.clone(), seq);
        entry.deserted = None;
        let tripped_anew = entry.breaker.observe(member, replica.zone.as_ref(), report, now);
        let mut effects = match self.mode {
            Mode::Learning { .. } => self.adopt(key, member, held, policy_revision, now),
            Mode::Deciding | Mode::Frozen { .. } => Vec::new(),
        };
        effects.extend(match self.state(key) {
            FleetState::Released => self.judge(key, now, draw),
            FleetState::Open
            | FleetState::HalfOpen
            | FleetState::Ramp
            | FleetState::ForcedOpen
            | FleetState::ForcedClosed
            | FleetState::Disabled => self.advance(key, now, draw),
        });
        let Some(entry) = self.entries.get_mut(key) else {
            return effects;
        };
        let frozen = matches!(self.mode, Mode::Frozen { .. });
        if effects.is_empty() && entry.breaker.state() == FleetState::Released && !frozen {
            let mut ask = if tripped_anew { entry.breaker.canvass(member, now, draw) } else { Vec::new() };
            ask.extend(entry.breaker.canvass_more(now));
            effects.extend(asked(key, ask));
        }
        // Whoever is new, or has missed it, is told what holds. To tell it while frozen, or when its term was left behind, would be to renew
        // its lease.
        let told = |effect: &Effect| matches!(effect, Effect::Verdict { key: about, .. } if about == key);
        if (seen.is_none() || !answers_newest)
            && !frozen
            && entry.lapses.is_none()
            && let Some(decision) = entry.newest.clone()
            && !effects.iter().any(told)
        {
            effects.push(Effect::Verdict { key: key.clone(), to: Recipients::One(member.clone()), decision });
        }
        effects
    }

    /// Asks those who are left when the time for answers is over.
    pub(super) fn canvass_more(&mut self, key: &BreakerKey, now: Timestamp) -> Option<Effect> {
        asked(key, self.entries.get_mut(key)?.breaker.canvass_more(now))
    }

    fn state(&self, key: &BreakerKey) -> FleetState {
        self.entries.get(key).map_or(FleetState::Released, |entry| entry.breaker.state())
    }

    /// Opens if the reports meet a rule and no guard holds it back.
    fn judge(&mut self, key: &BreakerKey, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let Some(entry) = self.entries.get(key) else {
            return Vec::new();
        };
        if !entry.breaker.may_open(now) {
            return self.follow_zones(key, now, draw);
        }
        let (evidence, met) = entry.breaker.judge(now);
        let Some(met) = met else {
            return self.follow_zones(key, now, draw);
        };
        let (cause, numbers) = met.words(&evidence);
        if let Some((guard, detail)) = self.held_back(key, &entry.breaker, now) {
            let held = Held { guard, cause, detail: format!("{numbers}; {detail}"), evidence, mute: &Mute::new() };
            return self.hold(key, held, now);
        }
        let mute = self.without_vote(key, now);
        let (evidence, met) = if mute.is_empty() {
            (evidence, met)
        } else {
            let (counted, still) = entry.breaker.judge_among(now, |id| !mute.contains_key(id));
            let Some(still) = still else {
                // Sick replicas are said first: they are news, newcomers are not.
                let guard = mute.values().copied().max().unwrap_or(Guard::StartupGrace);
                let names: Vec<&str> = mute.keys().map(|id| id.instance.as_str()).take(MAX_WITNESSES).collect();
                let detail = format!("{numbers}; without a vote: {}", names.join(", "));
                return self.hold(key, Held { guard, cause, detail, evidence, mute: &mute }, now);
            };
            (counted, still)
        };
        self.opening(key, now);
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let change = entry.breaker.open_on(met, evidence, now, draw);
        let mut effects = self.decided_among(key, change, &mute, now);
        effects.extend(self.spread(key, now, draw));
        effects
    }

    /// Counts a newly opened breaker's target, unless it only shows that it would open.
    pub(super) fn opening(&mut self, key: &BreakerKey, now: Timestamp) {
        if self.entries.get(key).is_some_and(|entry| entry.breaker.is_shadow()) {
            return;
        }
        if let Some(caller) = self.callers.get_mut(&key.caller_id()) {
            caller.opened(&key.target, now);
        }
    }

    /// Remembers that a guard has held an opening back, and says so if that is news.
    pub(super) fn hold(&mut self, key: &BreakerKey, held: Held<'_>, now: Timestamp) -> Vec<Effect> {
        let Some(entry) = self.entries.get(key) else {
            return Vec::new();
        };
        let Held { guard, cause, detail, evidence, mute } = held;
        let record = Record {
            number: 0,
            since: now,
            until: now,
            times: 1,
            from: FleetState::Released,
            to: FleetState::Open,
            fence: None,
            cause,
            guard: Some(guard),
            detail: detail.clone(),
            evidence,
            witnesses: witnesses(&entry.breaker, mute, now),
        };
        if self.remember(key, record) { vec![Effect::Held { key: key.clone(), guard, detail }] } else { Vec::new() }
    }

    /// Numbers a change, tells and logs it.
    pub(super) fn decided(&mut self, key: &BreakerKey, change: Change, now: Timestamp) -> Vec<Effect> {
        self.decided_among(key, change, &Mute::new(), now)
    }

    /// The same, where some have no vote.
    fn decided_among(&mut self, key: &BreakerKey, change: Change, mute: &Mute, now: Timestamp) -> Vec<Effect> {
        let fence = self.next_fence();
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let decision = Decision {
            fence,
            state: change.to,
            admit_permille: entry.breaker.admit_permille(),
            half_open_at: entry.breaker.half_open_at(),
            policy_revision: entry.breaker.settings().policy_revision,
            reason: change.reason.clone(),
        };
        entry.newest = Some(decision.clone());
        vec![
            self.log_among(key, change, Some(fence), mute, now),
            Effect::Verdict { key: key.clone(), to: Recipients::Holders, decision },
        ]
    }

    /// Records a change, for the log and for people who ask.
    pub(super) fn log(&mut self, key: &BreakerKey, change: Change, fence: Option<Fence>, now: Timestamp) -> Effect {
        self.log_among(key, change, fence, &Mute::new(), now)
    }

    fn log_among(
        &mut self,
        key: &BreakerKey,
        change: Change,
        fence: Option<Fence>,
        mute: &Mute,
        now: Timestamp,
    ) -> Effect {
        let Change { from, to, cause, reason, evidence } = change;
        if let Some(entry) = self.entries.get(key) {
            let record = Record {
                number: 0,
                since: now,
                until: now,
                times: 1,
                from,
                to,
                fence,
                cause,
                guard: None,
                detail: reason.clone(),
                evidence: evidence.clone(),
                witnesses: witnesses(&entry.breaker, mute, now),
            };
            self.remember(key, record);
        }
        Effect::Transition { key: key.clone(), from, to, cause, detail: reason, evidence }
    }
}

fn asked(key: &BreakerKey, members: Vec<MemberId>) -> Option<Effect> {
    (!members.is_empty()).then(|| Effect::Canvass { key: key.clone(), to: members })
}

fn witnesses(breaker: &SharedBreaker, mute: &Mute, now: Timestamp) -> Vec<Witness> {
    let against = breaker.members().iter().filter(|(_, member)| breaker.speaks_against(member, now));
    against
        .take(MAX_WITNESSES)
        .map(|(id, member)| Witness {
            member: id.clone(),
            zone: member.zone.clone(),
            local: member.report.local,
            calls: member.report.calls,
            failures: member.report.failures,
            eligible: !mute.contains_key(id) && rule::is_eligible(member, &breaker.settings().breaker, now),
            mute: mute.get(id).copied(),
        })
        .collect()
}
