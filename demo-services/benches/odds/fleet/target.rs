//! Service B, as each replica meets it.

use std::time::Duration;

use fastrand::Rng;
use fusebox_policy::{Outcome, Timestamp, outcome::ErrorKind};

/// How calls fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Connect,
    Timeout,
    Status503,
    /// One of the others, each time anew.
    Mixed,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Connect, Self::Timeout, Self::Status503, Self::Mixed];

    fn answer(self, rng: &mut Rng) -> (Outcome, Duration) {
        let millis = |from: u64, to: u64, rng: &mut Rng| Duration::from_millis(rng.u64(from..to));
        match self {
            Self::Connect => (Outcome::Error(ErrorKind::Connect), millis(1, 10, rng)),
            Self::Timeout => (Outcome::Timeout(0), millis(500, 501, rng)),
            Self::Status503 => (Outcome::status(503), millis(5, 50, rng)),
            Self::Mixed => Self::ALL[rng.usize(..3)].answer(rng),
        }
    }
}

/// Something that is wrong for a while.
pub(crate) struct Trouble {
    /// For whom; `None` for all.
    pub(crate) who: Option<usize>,
    pub(crate) from: Timestamp,
    /// The share of attempts that fail.
    pub(crate) rate: f64,
    pub(crate) kind: Kind,
}

pub(crate) struct Target {
    /// The share of attempts that fail when nothing is wrong.
    pub(crate) noise: f64,
    pub(crate) trouble: Trouble,
    until: Timestamp,
}

impl Target {
    pub(crate) const fn new(noise: f64, trouble: Trouble) -> Self {
        Self { noise, trouble, until: Timestamp::MAX }
    }

    pub(super) const fn heal(&mut self, now: Timestamp) {
        self.until = now;
    }

    /// Whether something is wrong for this replica now.
    pub(super) fn is_wrong(&self, who: usize, now: Timestamp) -> bool {
        let Trouble { who: whom, from, .. } = self.trouble;
        whom.is_none_or(|whom| whom == who) && now >= from && now < self.until
    }

    /// What an attempt that begins now ends in, and how long it takes.
    pub(super) fn answer(&self, who: usize, now: Timestamp, rng: &mut Rng) -> (Outcome, Duration) {
        let wrong = self.is_wrong(who, now);
        let share = if wrong { self.trouble.rate } else { self.noise };
        if rng.f64() >= share {
            return (Outcome::status(200), Duration::from_millis(rng.u64(5..50)));
        }
        let kind = if wrong { self.trouble.kind } else { Kind::Mixed };
        kind.answer(rng)
    }
}
