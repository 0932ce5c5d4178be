//! What replicas show and do.

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::breaker::LocalState;

use super::{Check, SLACK, UNDER_WAY, Violation};
use crate::history::Shown;

impl Check {
    pub(super) fn shown(&mut self, at: Duration, replica: &str, shown: &Shown) {
        let forced_until = self.forced_until + UNDER_WAY;
        let seen = self.of(replica);
        let before = seen.shown.replace(shown.clone()).map_or(0, |before| before.revision);
        self.must(shown.revision >= before, "S9", at, || {
            format!("{replica} goes back from revision {before} to {}", shown.revision)
        });
        self.must(!shown.is_forced() || at <= forced_until, "S6", at, || {
            format!("{replica} obeys an override that ended at {forced_until:?} at the latest")
        });
    }

    pub(super) fn admitted(&mut self, at: Duration, replica: &str, shown: &Shown) {
        let held = shown.is_held() && shown.refuses;
        self.must(!(held && shown.fleet == FleetState::Open), "S5", at, || {
            format!("{replica} lets a call through that the fleet refuses")
        });
        let own = shown.fleet == FleetState::Released && shown.local == LocalState::Open;
        self.must(!own, "S5", at, || format!("{replica} lets a call through that its own breaker refuses"));
        self.must(shown.fleet != FleetState::ForcedOpen, "S6", at, || {
            format!("{replica} lets a call through though an operator forces it open")
        });
        if held && shown.fleet == FleetState::HalfOpen {
            let left = self.of(replica).permits.checked_sub(1);
            self.of(replica).permits = left.unwrap_or_default();
            self.must(left.is_some(), "S4", at, || format!("{replica} probes without a permit"));
        }
    }

    /// What replicas obey at this moment.
    pub(super) fn enforced(&mut self, at: Duration) {
        let mut found = Vec::new();
        for (name, seen) in &self.replicas {
            let Some(shown) = seen.shown.as_ref().filter(|shown| shown.is_held()) else { continue };
            let words = seen.words.values().filter(|word| {
                word.heard && word.state == shown.fleet && word.policy_revision == shown.policy_revision
            });
            let Some(word) = words.max_by_key(|word| word.affirmed + word.lease) else {
                let what = format!("{name} obeys a verdict that nobody gave about what it runs: {shown}");
                found.push(Violation { invariant: "S9", at, what });
                continue;
            };
            if at >= word.affirmed + word.lease + SLACK {
                let what = format!("{name} obeys what a server last stood behind at {:?}: {shown}", word.affirmed);
                found.push(Violation { invariant: "S2", at, what });
            }
        }
        self.found.extend(found);
    }
}
