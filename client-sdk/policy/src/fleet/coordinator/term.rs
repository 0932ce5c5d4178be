//! The term of a run, and when it must be left behind.
//!
//! | a replica says that it has seen | the term |
//! |---|---|
//! | a lower term, or none | stays |
//! | ours, of this run | stays |
//! | ours, of another run | is raised above: the store was wiped, or restored from before its last start |
//! | ours, and not whose, and this run has told its service of the term | stays: it will have been us |
//! | ours, and not whose, and this run has told nobody of its service | is raised above: it can't have been us |
//! | a higher one | is raised above |
//! | one that would raise it beyond the run's [`reach`], or too often | stays, and the replica is refused |
//!
//! By service and not by replica, since the replicas of a service may share what they keep on disk. To raise the term for everybody who
//! does not know whose it was would put the fleet into learning each time when such a replica reconnects.

use super::{Coordinator, Effect, Mode};
use crate::{
    Timestamp,
    fleet::{
        BreakerKey,
        key::CallerId,
        shared::FleetState,
        term::{MOST_RISES, RunId, SeenTerm, reach},
    },
};

impl Coordinator {
    /// The term of this run.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The id of this run.
    #[must_use]
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// The least term that will do for a replica that has seen another run's; `None` if ours does. Before the replica is told anything, a
    /// term that is at least as high must be committed, and gone on in: [`Coordinator::raise_term`].
    #[must_use]
    pub fn must_rise_to(&self, caller: &CallerId, seen: SeenTerm) -> Option<u64> {
        let is_ours = seen.run.map_or_else(|| self.told.contains(caller), |run| run == self.run);
        (seen.term > self.term || (seen.term == self.term && !is_ours)).then(|| seen.term.saturating_add(1))
    }

    /// The highest term to which claims may raise this run. Whoever asks for more is not to be believed, and told nothing.
    #[must_use]
    pub const fn reach(&self) -> u64 {
        if self.rises < MOST_RISES { reach(self.began) } else { self.term }
    }

    /// Goes on in a later term, which has been committed: a replica has seen one that is later than ours, or ours of another run, so that
    /// there was a run that this store knows nothing of.
    pub fn raise_term(&mut self, term: u64, now: Timestamp) -> Vec<Effect> {
        debug_assert!(term > self.term, "S8: a term is used once");
        if term <= self.term {
            return Vec::new();
        }
        self.term = term;
        self.rises = self.rises.saturating_add(1);
        // Whoever is connected hears of it with the next message.
        self.told = self.callers.ids().cloned().collect();
        let mut effects = Vec::new();
        let keys: Vec<BreakerKey> = self.entries.keys().cloned().collect();
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            // Leases are renewed within a term only: an opening goes on under the new one, while its open time is not over.
            if let Some(inherited) = entry.breaker.inheritance(now) {
                let change = entry.breaker.inherit(inherited, format!("goes on in term {term}"), now);
                effects.extend(self.decided(&key, change, now));
            } else if entry.breaker.state() != FleetState::Released && entry.lapses.is_none() {
                entry.lapses = Some(now.plus(self.limits.lease));
            }
        }
        effects.extend(self.enter(Mode::Learning { until: now.plus(self.limits.learning()) }));
        effects
    }

    /// A replica of this service is told of the term.
    pub(super) fn tells(&mut self, caller: &CallerId) {
        // Who is forgotten costs a term that is raised once more than need be, no more.
        if self.told.len() >= self.limits.most_runs && !self.told.contains(caller) {
            self.told.clear();
        }
        self.told.insert(caller.clone());
    }
}
