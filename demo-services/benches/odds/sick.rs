//! One replica is ill, the target is well: the fleet must not open.

use std::{fmt, time::Duration};

use fastrand::Rng;
use fusebox_policy::{Timestamp, fleet::CoordinationMode};

use crate::{
    fleet::{Fleet, Kind, Setting, Target, Trouble},
    runs::{Tally, attempts, between, breaker, coordination, latency, some_rates},
};

/// How long each run is watched.
const WATCHED: Duration = Duration::from_secs(25);

#[derive(Debug, Default)]
pub(crate) struct Sick {
    pub(crate) runs: u32,
    /// Runs in which the ill replica kept its own calls back or failed at all: else they would show nothing.
    pub(crate) ill: u32,
    /// The runs in which the fleet opened.
    pub(crate) opened: Vec<String>,
}

pub(crate) fn run(size: usize, seed: u64) -> Sick {
    let mut rng = Rng::with_seed(seed);
    let trouble = Trouble {
        who: Some(rng.usize(..size)),
        from: Timestamp::ZERO.plus(Duration::from_secs_f64(between(&mut rng, 1.0, 8.0))),
        rate: between(&mut rng, 0.3, 1.0),
        kind: Kind::ALL[rng.usize(..Kind::ALL.len())],
    };
    let target = Target::new(between(&mut rng, 0.0, 0.01), trouble);
    let rates = some_rates(&mut rng, size, 0.05, 10.0);
    let setting = Setting {
        seed,
        breaker: breaker(&mut rng),
        coordination: coordination(CoordinationMode::Balanced),
        rates,
        attempts: attempts(&mut rng),
        latency: latency(&mut rng),
        target,
    };
    let mut fleet = Fleet::new(setting);
    fleet.run_until(Timestamp::ZERO.plus(WATCHED));
    let seen = fleet.seen();
    let opened = seen.opened.first().map(|(at, why)| {
        format!("seed {seed}: one ill replica opened the fleet after {:.1} s: {why}", at.since_origin().as_secs_f64())
    });
    Sick { runs: 1, ill: u32::from(seen.wasted > 0), opened: opened.into_iter().collect() }
}

impl Tally for Sick {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.ill += other.ill;
        self.opened.extend(other.opened);
    }

    fn faults(&self) -> Vec<String> {
        let idle = (self.ill * 2 < self.runs).then(|| "in most runs nothing failed".to_owned());
        self.opened.iter().cloned().chain(idle).collect()
    }
}

impl fmt::Display for Sick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, ill, opened } = self;
        write!(f, "{runs:>6} runs, {ill:>6} with failures of the ill one | false opens: {}", opened.len())
    }
}
