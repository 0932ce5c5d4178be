//! The target is down for all: the fleet must open, waste little before, probe little after, and be local when the server dies.

use std::{fmt, time::Duration};

use fastrand::Rng;
use fusebox_policy::{
    Timestamp,
    breaker::{BreakerSpec, WindowSpec},
    fleet::{CoordinationMode, coordinator::Limits},
};

use crate::{
    fleet::{Fleet, Kind, Setting, Target, Trouble},
    runs::{Tally, attempts, between, breaker, coordination, latency, some_rates},
};

/// When service B goes down.
const DOWN: Duration = Duration::from_secs(15);
/// A fleet that has not opened by then has missed the outage.
const MISSED: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(crate) struct Outage {
    pub(crate) runs: u32,
    pub(crate) faults: Vec<String>,
    pub(crate) recovered: u32,
    pub(crate) most_at_once: u32,
    pub(crate) most_of_a_period: u32,
    pub(crate) died: u32,
}

fn setting(size: usize, seed: u64, rng: &mut Rng) -> Setting {
    let trouble = Trouble {
        who: None,
        from: Timestamp::ZERO.plus(DOWN),
        rate: between(rng, 0.9, 1.0),
        kind: Kind::ALL[rng.usize(..Kind::ALL.len())],
    };
    let breaker = breaker(rng);
    let mut rates = some_rates(rng, size, 0.1, 5.0);
    make_enough(&mut rates, &breaker);
    Setting {
        seed,
        breaker,
        coordination: coordination(CoordinationMode::Balanced),
        rates,
        attempts: attempts(rng),
        latency: latency(rng),
        target: Target::new(between(rng, 0.0, 0.02), trouble),
    }
}

/// Where a rate is the only rule, calls must come so often that it can be met at all: a window that never holds `minCalls` tells nobody
/// anything, and that is what the policy says. Without the busiest replica, which the pooled rule may leave out.
fn make_enough(rates: &mut [f64], breaker: &BreakerSpec) {
    let (Some(rule), WindowSpec::Time(window), None) =
        (breaker.trip().failure_rate, breaker.window(), breaker.trip().consecutive_failures)
    else {
        return;
    };
    let sum = rates.iter().sum::<f64>() - rates.iter().copied().fold(0.0, f64::max);
    let factor = 2.0 * f64::from(rule.min_calls) / (sum * window.as_secs_f64());
    if factor > 1.0 {
        rates.iter_mut().for_each(|rate| *rate *= factor);
    }
}

/// One outage. Of two runs, one recovers, and in the other the server dies while the fleet is open.
pub(crate) fn run(size: usize, seed: u64) -> Outage {
    let mut rng = Rng::with_seed(seed);
    let mut fleet = Fleet::new(setting(size, seed, &mut rng));
    fleet.run_until_open(Timestamp::ZERO.plus(DOWN + MISSED));
    let mut told = Outage { runs: 1, ..Outage::default() };
    let mut fault = |what: &str| told.faults.push(format!("seed {seed}: {what}"));
    match fleet.seen().opened.first() {
        None => fault("the outage was missed"),
        Some((at, _)) if *at < Timestamp::ZERO.plus(DOWN) => fault("the fleet was open before the outage"),
        Some(_) => {}
    }
    let goes_on = Duration::from_secs_f64(between(&mut rng, 0.0, 30.0));
    fleet.run_until(fleet.now().plus(goes_on));
    if rng.bool() {
        told.died = 1;
        fleet.kill_plane();
        let lease = Limits::default().lease;
        fleet.run_until(fleet.now().plus(lease + Duration::from_millis(1)));
        if fleet.held_back() > 0 {
            fault("a replica kept calls back for the fleet longer than one lease after the server had died");
        }
    } else {
        told.recovered = 1;
        fleet.heal();
        let healed = fleet.now();
        let limit = healed.plus(Duration::from_secs(300));
        while fleet.now() < limit && fleet.held_back() > 0 {
            fleet.run_until(fleet.now().plus(Duration::from_secs(2)));
        }
        if fleet.held_back() > 0 {
            fault("the fleet did not come back");
        }
    }
    let (seen, half_open) = (fleet.seen(), fleet.half_open());
    told.most_at_once = seen.most_at_once;
    told.most_of_a_period = seen.most_of_a_period;
    if seen.most_at_once > half_open.concurrent_probes || seen.most_of_a_period > half_open.probes {
        told.faults.push(format!("seed {seed}: more probes than the budget: {seen:?}"));
    }
    if seen.astray > 0 {
        told.faults.push(format!("seed {seed}: {} calls of replicas that had heard of the verdict", seen.astray));
    }
    told
}

impl Tally for Outage {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.faults.extend(other.faults);
        self.recovered += other.recovered;
        self.died += other.died;
        self.most_at_once = self.most_at_once.max(other.most_at_once);
        self.most_of_a_period = self.most_of_a_period.max(other.most_of_a_period);
    }

    fn faults(&self) -> Vec<String> {
        let untried = (self.runs > 100 && (self.recovered == 0 || self.died == 0 || self.most_of_a_period == 0))
            .then(|| "something was not tried".to_owned());
        self.faults.iter().cloned().chain(untried).collect()
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, faults, recovered, most_at_once, most_of_a_period, died } = self;
        write!(
            f,
            "{runs:>6} runs | {recovered} recovered, with {most_at_once} probe at once and {most_of_a_period} of a period at most | \
             server died in {died} | broken: {}",
            faults.len()
        )
    }
}
