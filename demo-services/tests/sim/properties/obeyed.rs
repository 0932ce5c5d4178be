//! What replicas show and do.

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::{
    Revision,
    breaker::LocalState,
    fleet::{
        gate::Forced,
        history::Event as Judged,
        invariants::{self as check, Admission, Invariant},
    },
};

use super::{Check, SLACK, Violation, stamp};
use crate::{history::Shown, target::SERVICE_B, world::LEASE};

const fn forced(state: FleetState) -> Option<Forced> {
    match state {
        FleetState::ForcedOpen => Some(Forced::Open),
        FleetState::ForcedClosed => Some(Forced::Closed),
        FleetState::Disabled => Some(Forced::Disabled),
        FleetState::Released | FleetState::Open | FleetState::HalfOpen | FleetState::Ramp => None,
    }
}

impl Check {
    pub(super) fn shown(&mut self, at: Duration, replica: &str, shown: &Shown) {
        let seen = self.of(replica);
        let before = seen.shown.replace(shown.clone()).map_or(0, |before| before.revision);
        let begins = shown.revision < before && std::mem::take(&mut seen.begins_again);
        self.must(shown.revision >= before || begins, Invariant::S9, at, || {
            format!("{replica} goes back from revision {before} to {}", shown.revision)
        });
        if shown.is_forced() {
            let obeyed = Judged::Obeyed { key: String::new() };
            self.judge(at.saturating_sub(SLACK), obeyed, || format!("{replica} obeys an override that has ended"));
        }
    }

    pub(super) fn admitted(&mut self, at: Duration, replica: &str, shown: &Shown) {
        // In a ramp it is the own breaker that refuses all but its own probes: the fleet lets a part pass.
        let held = shown.refuses && matches!(shown.fleet, FleetState::Open | FleetState::HalfOpen);
        let alone = matches!(shown.fleet, FleetState::Released | FleetState::Ramp);
        let permits = &mut self.of(replica).permits;
        let probe = (held && shown.fleet == FleetState::HalfOpen).then(|| permits.pop()).flatten();
        let admission = Admission {
            admitted: true,
            forced: forced(shown.fleet),
            own_allows: self.terms.shadow || !alone || shown.local != LocalState::Open,
            fleet_allows: !held,
            probe: probe.is_some(),
        };
        let (key, probe) = probe.map_or((SERVICE_B.to_owned(), None), |(key, probe)| (key, Some(probe)));
        let called = Judged::Called { key, admission, probe };
        self.judge_call(at, replica, shown, called);
    }

    pub(super) fn refused(&mut self, at: Duration, replica: &str, shown: &Shown) {
        let admission = Admission {
            admitted: false,
            forced: forced(shown.fleet),
            own_allows: false,
            fleet_allows: false,
            probe: false,
        };
        self.judge_call(at, replica, shown, Judged::Called { key: SERVICE_B.to_owned(), admission, probe: None });
    }

    fn judge_call(&mut self, at: Duration, replica: &str, shown: &Shown, called: Judged<String, super::Member>) {
        let admitted = matches!(called, Judged::Called { admission, .. } if admission.admitted);
        let what = if admitted { "lets a call through" } else { "refuses a call" };
        self.judge(at, called, || format!("{replica} {what}, and shows {shown}"));
    }

    /// What replicas obey at this moment.
    pub(super) fn enforced(&mut self, at: Duration) {
        let mut found = Vec::new();
        for (name, seen) in &self.replicas {
            let Some(shown) = seen.shown.as_ref().filter(|shown| shown.is_held()) else { continue };
            let running = Revision(shown.policy_revision);
            let alone = check::l3_decides_alone_in_time(stamp(seen.last_word), LEASE + SLACK, stamp(at), shown.fleet);
            if !alone {
                let what = format!("{name} last heard a word at {:?}: {shown}", seen.last_word);
                found.push(Violation { rule: Invariant::L3.into(), at, what });
            }
            let about = seen.words.iter().filter(|(_, word)| {
                word.heard.is_some() && check::s9_policy_atomicity(Revision(word.policy_revision), running)
            });
            // What has come just now may not show yet.
            let settled = about.clone().filter(|(_, word)| word.heard.is_some_and(|heard| heard + SLACK < at));
            let newest = settled.map(|(fence, _)| *fence).max().unwrap_or_default();
            let words = about.filter(|(_, word)| word.state == shown.fleet);
            let Some((fence, word)) = words.max_by_key(|(fence, word)| (**fence >= newest, word.affirmed + word.lease))
            else {
                let what = format!("{name} obeys a verdict that nobody gave about what it runs: {shown}");
                found.push(Violation { rule: Invariant::S9.into(), at, what });
                continue;
            };
            if !check::s1_fencing(newest, true, *fence) {
                let what = format!("{name} has heard {newest:?}, and obeys {fence:?}: {shown}");
                found.push(Violation { rule: Invariant::S1.into(), at, what });
            }
            if !check::s2_lease_bound(Some(stamp(word.affirmed)), word.lease + SLACK, stamp(at)) {
                let what = format!("{name} obeys what a server last stood behind at {:?}: {shown}", word.affirmed);
                found.push(Violation { rule: Invariant::S2.into(), at, what });
            }
        }
        self.found.extend(found);
    }
}
