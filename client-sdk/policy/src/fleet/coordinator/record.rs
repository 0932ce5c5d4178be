//! Why something was decided, or was not: for people who ask.

use std::collections::VecDeque;

use crate::{
    Timestamp, Zone,
    breaker::LocalState,
    fleet::{
        coordinator::Guard,
        evidence::{Evidence, MemberId},
        shared::FleetState,
    },
};

/// What one replica had seen at the moment of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Which.
    pub member: MemberId,
    /// Its zone.
    pub zone: Option<Zone>,
    /// Its own breaker.
    pub local: LocalState,
    /// Calls in its window.
    pub calls: u64,
    /// Failures in its window.
    pub failures: u64,
}

/// One automatic decision about a breaker, or one that a guard has held back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// When it was first so.
    pub since: Timestamp,
    /// When it was last so: the same guard holds the same opening back many times.
    pub until: Timestamp,
    /// How many times.
    pub times: u64,
    /// The state before.
    pub from: FleetState,
    /// The state after; where a guard held it back, the state that it would have been.
    pub to: FleetState,
    /// The rule, in one word.
    pub cause: &'static str,
    /// What held it back.
    pub guard: Option<Guard>,
    /// Numbers in words.
    pub detail: String,
    /// The numbers.
    pub evidence: Evidence,
    /// Those whose own windows speak against the target, at most 20.
    pub witnesses: Vec<Witness>,
}

/// The newest records of one breaker, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Records(VecDeque<Record>);

impl Records {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.0.iter()
    }

    /// Adds one. Answers whether it is news, and not what the last one says already.
    pub(super) fn add(&mut self, record: Record, most: usize) -> bool {
        if let Some(last) = self.0.back_mut()
            && record.guard.is_some()
            && (last.guard, last.cause) == (record.guard, record.cause)
        {
            let (since, times) = (last.since, last.times + 1);
            *last = Record { since, times, ..record };
            return false;
        }
        while self.0.len() >= most.max(1) {
            self.0.pop_front();
        }
        if most > 0 {
            self.0.push_back(record);
        }
        true
    }
}
