//! Which run of a server a term belongs to.
//!
//! A store gives each run of its server a term of its own. One that was wiped, or restored from before its last start, gives out terms
//! that a run before has used already. So each run has a random id beside its term: a replica remembers whose term it has seen, and a run
//! that is told of its own term as somebody else's leaves that term behind: see
//! [`Coordinator::must_rise_to`](super::Coordinator::must_rise_to).
//!
//! # How far a term is believed
//!
//! Each end believes the other only so far, since what is believed once is stored, and never taken back. A replica follows no server that is
//! more than [`FARTHEST`] beyond the highest term that it has seen. So a server must not let the words of one replica carry it away from
//! all the others, those included that are not there to follow step by step. A run rises by claims no further than to [`reach`]:
//!
//! - up to [`CLAIMED_BY_ANY`], half of `FARTHEST`: a store that was wiped finds replicas that have seen as many starts as the store before
//!   had. Every replica can follow there, whatever it has seen, and has the other half left for what comes after.
//! - or by [`CLAIMED_OF_A_RUN`] in all, from where the run began. To leave a replica behind, each of the last 511 runs of the server would
//!   have to be raised by so much while it was away.
//!
//! And not more than [`MOST_RISES`] times: a server that has just risen learns, and opens nothing meanwhile.
//!
//! What is beyond is refused and changes nothing. A replica that was told such a term by another server comes back without its cache.

use std::num::NonZeroU64;

/// The greatest term: far beyond what a step per start can reach, and well inside what every database and JSON reader counts to.
pub const GREATEST: u64 = (1 << 53) - 1;
/// So many runs of a server are between no two streams of a replica: one that starts each minute gets there in two years.
pub const FARTHEST: u64 = 1 << 20;
/// Up to here, any claim raises a run.
pub const CLAIMED_BY_ANY: u64 = FARTHEST / 2;
/// By so much in all, claims raise a run that began wherever it did: the starts between a backup and the wish to have it back.
pub const CLAIMED_OF_A_RUN: u64 = 1 << 10;
/// So many times a run is raised by claims. A run on a healthy store is raised by none, one on a store that was wiped or restored at most as
/// often as the highest terms differ that its replicas have seen.
pub const MOST_RISES: u32 = 64;

/// The highest term to which replicas' claims raise a run that began in this one.
#[must_use]
pub const fn reach(began: u64) -> u64 {
    let own = began.saturating_add(CLAIMED_OF_A_RUN);
    let free = if own > CLAIMED_BY_ANY { own } else { CLAIMED_BY_ANY };
    if free > GREATEST { GREATEST } else { free }
}

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
