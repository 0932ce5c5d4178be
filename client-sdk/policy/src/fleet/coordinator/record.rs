//! Why something was decided, or was not: for people who ask.

use std::collections::VecDeque;

use super::Coordinator;
use crate::{
    Timestamp, Zone,
    breaker::LocalState,
    fleet::{
        BreakerKey,
        coordinator::Guard,
        evidence::{Evidence, MemberId},
        held::Fence,
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
    /// Whether it had a vote, and that counted.
    pub eligible: bool,
    /// Why its vote did not count, where that was looked at: where the reports asked for an opening that nothing else held back.
    pub mute: Option<Guard>,
}

/// One automatic decision about a breaker, or one that a guard has held back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Number within the run.
    pub number: u64,
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
    /// The verdict that it became, if it did.
    pub fence: Option<Fence>,
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

    /// Adds one. Answers whether it is news, and not what the last one says already, and how it is kept.
    fn add(&mut self, record: Record, most: usize) -> (bool, Option<&Record>) {
        if let Some(last) = self.0.back_mut()
            && record.guard.is_some()
            && (last.guard, last.cause) == (record.guard, record.cause)
        {
            let (number, since, times) = (last.number, last.since, last.times + 1);
            *last = Record { number, since, times, ..record };
            return (false, self.0.back());
        }
        while self.0.len() >= most.max(1) {
            self.0.pop_front();
        }
        if most > 0 {
            self.0.push_back(record);
        }
        (true, self.0.back())
    }
}

impl Coordinator {
    /// Remembers a record. Answers whether it is news.
    pub(super) fn remember(&mut self, key: &BreakerKey, record: Record) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let record = Record { number: self.next_record, ..record };
        let (news, kept) = entry.records.add(record, self.limits.most_records);
        if let Some(kept) = kept {
            self.next_record = self.next_record.max(kept.number + 1);
            self.unwritten.insert((key.clone(), kept.number), kept.clone());
        }
        news
    }

    /// The records that are new or have changed since they were last taken, of breakers that are gone too: for whoever keeps them longer.
    pub fn take_records(&mut self) -> impl Iterator<Item = (BreakerKey, Record)> + use<> {
        std::mem::take(&mut self.unwritten).into_iter().map(|((key, _), record)| (key, record))
    }
}
