//! The hedge of one call: when a further try begins, and which one wins.

use std::time::Duration;

use crate::{Timestamp, condition::Class};

/// The race of one call's tries. Try 0 is the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeRun {
    delay: Option<Duration>,
    started: u32,
    ended: u32,
    limit: u32,
    last_start: Timestamp,
}

/// What the end of a try means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Race {
    /// Others still run.
    GoesOn,
    /// It wins: the others are dropped.
    Won,
    /// None has won: the primary's outcome counts.
    Lost,
}

impl HedgeRun {
    /// The primary begins. `delay: None` is no hedge at all: the call may not be made twice, or too little is known yet.
    #[must_use]
    pub const fn start(delay: Option<Duration>, max_hedges: u32, now: Timestamp) -> Self {
        let limit = if delay.is_none() { 1 } else { max_hedges + 1 };
        Self { delay, started: 1, ended: 0, limit, last_start: now }
    }

    /// Tries begun, the primary included.
    #[must_use]
    pub const fn started(&self) -> u32 {
        self.started
    }

    /// When the next try is due, if there is one left.
    #[must_use]
    pub fn next_start(&self) -> Option<Timestamp> {
        if self.started < self.limit { self.delay.map(|delay| self.last_start.plus(delay)) } else { None }
    }

    /// Begins the next try. Says its number.
    pub const fn begin(&mut self, now: Timestamp) -> u32 {
        self.started += 1;
        self.last_start = now;
        self.started - 1
    }

    /// The budget allows no more: those that run go on.
    pub const fn give_up_starting(&mut self) {
        self.limit = self.started;
    }

    /// A try has ended. What is not a failure wins. When all that run have failed the race is over: another try is a retry's
    /// business.
    pub const fn ended(&mut self, class: Class) -> Race {
        self.ended += 1;
        match class {
            Class::Success | Class::Ignored => Race::Won,
            Class::Failure if self.ended == self.started => Race::Lost,
            Class::Failure => Race::GoesOn,
        }
    }
}
