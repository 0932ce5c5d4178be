//! Which run of a server a term belongs to.
//!
//! A store gives each run of its server a term of its own. One that was wiped, or restored from before its last start, gives out terms
//! that a run before has used already. So each run has a random id beside its term: a replica remembers whose term it has seen, and a run
//! that is told of its own term as somebody else's leaves that term behind: see
//! [`Coordinator::must_rise_to`](super::Coordinator::must_rise_to).

use std::num::NonZeroU64;

/// One run of one server: a random number, drawn at its start. It is never stored: a copy of a store must not bring it along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(NonZeroU64);

impl RunId {
    /// `None` for 0, which says that nobody knows.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number, never 0.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// The highest term that a replica has ever seen, and whose it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeenTerm {
    /// The term. 0: none.
    pub term: u64,
    /// The run that used it. `None`: the replica does not know, since its server did not say, or itself is older than run ids.
    pub run: Option<RunId>,
}

impl SeenTerm {
    /// Remembers a term that a run has used, if it is higher; or whose the highest one is, if that was not known. Another run with the
    /// same term changes nothing, so that the next server is told of the one that is held here. Answers whether anything is new.
    pub fn see(&mut self, term: u64, run: Option<RunId>) -> bool {
        let newer = term > self.term;
        let better_known = term == self.term && term > 0 && self.run.is_none() && run.is_some();
        if newer || better_known {
            *self = Self { term, run };
        }
        newer || better_known
    }

    /// The number of the run; 0 if it is not known.
    #[must_use]
    pub fn run_number(&self) -> u64 {
        self.run.map_or(0, RunId::get)
    }
}
