//! Whom to ask for their windows when a replica has tripped, and when to ask more of them.
//!
//! In waves, each twice as large as the one before: a few dozen answers decide nearly always, and to ask a thousand replicas would hold
//! up the verdict about what is known by then. The next wave goes out as soon as half of the last one has answered, and everybody who
//! is left is asked when the time for answers is over. Up to [`FIRST_WAVE`] others are asked at once.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    Draw, Timestamp,
    fleet::evidence::{MemberId, Members},
};

/// Asked at once: several times of what most policies ask for, and few enough to take no time.
pub(super) const FIRST_WAVE: usize = 32;
/// The deadline for answers, and the least time between two canvasses of one breaker.
const DEADLINE: Duration = Duration::from_millis(50);

/// The present canvass of one breaker, or what is left of the last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Canvass {
    begun: Option<Timestamp>,
    /// Asked with the last wave, and silent so far. Only kept while there is somebody to ask next.
    silent: BTreeSet<MemberId>,
    /// Those who may be silent while the next wave goes out.
    patience: usize,
    wave: usize,
    /// Asked next, last first.
    later: Vec<MemberId>,
}

impl Canvass {
    /// Nobody was ever asked.
    pub(super) const fn new() -> Self {
        Self { begun: None, silent: BTreeSet::new(), patience: 0, wave: 0, later: Vec::new() }
    }

    /// Begins to ask everybody but the one that has tripped, if that was not done just now; those to ask at once. Who has had calls is
    /// asked before who has not, beginning anywhere, so that it is not always the same.
    pub(super) fn begin(&mut self, members: &Members, tripped: &MemberId, now: Timestamp, draw: Draw) -> Vec<MemberId> {
        if self.begun.is_some_and(|last| now.since(last) < DEADLINE) {
            return Vec::new();
        }
        let others = || members.iter().filter(|(id, _)| *id != tripped);
        let ids = |busy: bool| others().filter(move |(_, member)| (member.report.calls > 0) == busy);
        let (mut busy, mut idle): (Vec<MemberId>, Vec<MemberId>) =
            (ids(true).map(|(id, _)| id.clone()).collect(), ids(false).map(|(id, _)| id.clone()).collect());
        if busy.is_empty() && idle.is_empty() {
            return Vec::new();
        }
        for list in [&mut busy, &mut idle] {
            let middle = draw.below(list.len());
            list.rotate_left(middle);
        }
        busy.append(&mut idle);
        busy.reverse();
        *self = Self { begun: Some(now), wave: FIRST_WAVE, later: busy, ..Self::new() };
        self.next_wave()
    }

    /// Somebody has answered, or told by itself.
    pub(super) fn heard(&mut self, member: &MemberId) {
        self.silent.remove(member);
    }

    /// Somebody has gone.
    pub(super) fn left(&mut self, member: &MemberId) {
        self.silent.remove(member);
        self.later.retain(|other| other != member);
    }

    /// Those to ask now.
    pub(super) fn more(&mut self, now: Timestamp) -> Vec<MemberId> {
        if self.deadline().is_some_and(|at| now >= at) {
            self.wave = usize::MAX;
        } else if self.later.is_empty() || self.silent.len() > self.patience {
            return Vec::new();
        }
        self.next_wave()
    }

    fn next_wave(&mut self) -> Vec<MemberId> {
        let wave = self.later.split_off(self.later.len().saturating_sub(self.wave));
        self.patience = wave.len() / 2;
        self.wave = self.wave.saturating_mul(2);
        self.silent = if self.later.is_empty() { BTreeSet::new() } else { wave.iter().cloned().collect() };
        wave
    }

    /// It is decided: nobody else needs to be asked.
    pub(super) fn end(&mut self) {
        *self = Self { begun: self.begun, ..Self::new() };
    }

    /// When all who are left are asked.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.begun.filter(|_| !self.later.is_empty()).map(|at| at.plus(DEADLINE))
    }
}
