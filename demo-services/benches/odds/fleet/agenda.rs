//! What happens, in the order of time; at the same moment in the order in which it was put down.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

use fusebox_policy::{
    Outcome, Timestamp,
    fleet::{
        coordinator::{Decision, Holding},
        evidence::Report,
        gate::{Pass, ProbeId},
        held::Fence,
        shared::ProbeResult,
    },
};

pub(super) enum Event {
    Joins(usize),
    Beats(usize),
    Calls(usize),
    Attempts { who: usize, left: u32 },
    Ended(Ended),
    Tells(usize),
    GateIsDue(usize),
    PlaneIsDue,
    Up(usize, Up),
    Down(usize, Down),
}

/// An attempt that is over.
pub(super) struct Ended {
    pub(super) who: usize,
    pub(super) pass: Pass,
    pub(super) outcome: Outcome,
    pub(super) elapsed: Duration,
    /// Attempts that the call still has.
    pub(super) left: u32,
    pub(super) probes: bool,
}

/// From a replica.
pub(super) enum Up {
    Heartbeat { seq: u64, window: Option<(Report, Holding)> },
    Window(Report, Holding),
    Probe(ProbeId, ProbeResult),
}

/// To a replica. Leases and permits are anchored at a heartbeat.
pub(super) enum Down {
    Verdict { decision: Decision, half_open_in: Option<Duration>, anchor: u64 },
    Permit { probe: ProbeId, fence: Fence, ttl: Duration, anchor: u64 },
    Canvass,
    Ack { seq: u64, fence: Fence },
}

struct Entry {
    at: Timestamp,
    number: u64,
    event: Event,
}

impl Entry {
    const fn place(&self) -> (Timestamp, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

#[derive(Default)]
pub(super) struct Agenda {
    entries: BinaryHeap<Reverse<Entry>>,
    number: u64,
}

impl Agenda {
    pub(super) fn put(&mut self, at: Timestamp, event: Event) {
        self.number += 1;
        self.entries.push(Reverse(Entry { at, number: self.number, event }));
    }

    pub(super) fn next_before(&mut self, end: Timestamp) -> Option<(Timestamp, Event)> {
        if self.entries.peek()?.0.at >= end {
            return None;
        }
        self.entries.pop().map(|Reverse(Entry { at, event, .. })| (at, event))
    }
}
