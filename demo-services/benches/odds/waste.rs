//! What an outage costs before replicas are protected, as a fleet and each alone.

use std::{fmt, sync::Arc, time::Duration};

use fastrand::Rng;
use fusebox_policy::{
    Timestamp,
    breaker::{BreakerInput, BreakerSpec, WindowSpec},
    fleet::CoordinationMode,
};

use crate::{
    fleet::{Fleet, Kind, Setting, Target, Trouble},
    runs::{Tally, between, coordination, latency, some_rates},
};

/// When service B goes down.
const DOWN: Duration = Duration::from_secs(90);
/// Long enough for the quietest to trip by itself.
const WATCHED: Duration = Duration::from_secs(1200);

const SHORT: Duration = Duration::from_secs(5);

/// How often replicas call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Traffic {
    /// Once in ten seconds to once in a minute; the window is a minute.
    Rare,
    /// One to five times in five seconds; the window is that of the default policy.
    Some,
    /// As often; the window is half as long, which a fleet can afford: its replicas fill it together.
    SomeShort,
}

#[derive(Debug, Default)]
pub(crate) struct Waste {
    runs: u32,
    together: u64,
    alone: u64,
}

/// The same outage twice.
pub(crate) fn run(traffic: Traffic, size: usize, seed: u64) -> Waste {
    let wasted = |mode| {
        let mut rng = Rng::with_seed(seed);
        let (rates, window) = match traffic {
            Traffic::Rare => (some_rates(&mut rng, size, 1.0 / 60.0, 0.1), WindowSpec::Time(Duration::from_secs(60))),
            Traffic::Some => (some_rates(&mut rng, size, 0.2, 1.0), WindowSpec::default()),
            Traffic::SomeShort => (some_rates(&mut rng, size, 0.2, 1.0), WindowSpec::Time(SHORT)),
        };
        let breaker = BreakerSpec::try_new(BreakerInput { window, ..BreakerInput::default() });
        let kind = Kind::ALL[rng.usize(..Kind::ALL.len())];
        let trouble = Trouble { who: None, from: Timestamp::ZERO.plus(DOWN), rate: between(&mut rng, 0.9, 1.0), kind };
        let mut fleet = Fleet::new(Setting {
            seed,
            breaker: Arc::new(breaker.expect("the settings can be")),
            coordination: coordination(mode),
            rates,
            attempts: 1,
            latency: latency(&mut rng),
            target: Target::new(0.01, trouble),
        });
        let end = Timestamp::ZERO.plus(DOWN + WATCHED);
        while fleet.now() < end && !fleet.all_protected() {
            fleet.run_until(fleet.now().plus(Duration::from_secs(10)));
        }
        u64::from(fleet.seen().wasted)
    };
    Waste { runs: 1, together: wasted(CoordinationMode::Balanced), alone: wasted(CoordinationMode::Local) }
}

impl Waste {
    /// What the fleet wastes of what each alone wastes.
    pub(crate) fn share(&self) -> f64 {
        self.together as f64 / self.alone as f64
    }
}

impl Tally for Waste {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.together += other.together;
        self.alone += other.alone;
    }

    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

impl fmt::Display for Waste {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = |sum: u64| sum as f64 / f64::from(self.runs);
        write!(
            f,
            "{:>6} runs | failed calls before protection: {:.1} as a fleet, {:.1} each alone: {:.0} %",
            self.runs,
            mean(self.together),
            mean(self.alone),
            self.share() * 100.0
        )
    }
}
