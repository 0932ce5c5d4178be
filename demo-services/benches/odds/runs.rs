//! Many runs on all cores, and what is drawn for them.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use fusebox_policy::{
    breaker::{BreakerInput, BreakerSpec, RateRule, TripRules, WindowSpec},
    fleet::{Coordination, CoordinationMode, CoordinationScope},
};

/// What several runs have shown together.
pub(crate) trait Tally: Default + Send {
    fn add(&mut self, other: Self);

    /// What must not be, with its seed.
    fn faults(&self) -> Vec<String>;
}

/// So many runs, from this seed on.
pub(crate) fn many<T: Tally>(first: u64, runs: u64, one: impl Fn(u64) -> T + Sync) -> T {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut all = T::default();
    std::thread::scope(|scope| {
        let one = &one;
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut own = T::default();
                    for seed in (first + worker..first + runs).step_by(threads as usize) {
                        own.add(one(seed));
                    }
                    own
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(own) => all.add(own),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    all
}

pub(crate) fn between(rng: &mut Rng, from: f64, to: f64) -> f64 {
    from + (to - from) * rng.f64()
}

/// Calls in a second for each of them, from rare to many: as many within each factor.
pub(crate) fn some_rates(rng: &mut Rng, size: usize, from: f64, to: f64) -> Vec<f64> {
    (0..size).map(|_| from * (to / from).powf(rng.f64())).collect()
}

pub(crate) fn attempts(rng: &mut Rng) -> u32 {
    rng.u32(1..=3)
}

/// The longest way of a message, from one rack to half of the world.
pub(crate) fn latency(rng: &mut Rng) -> Duration {
    Duration::from_micros(500).mul_f64(300_f64.powf(rng.f64()))
}

pub(crate) fn coordination(mode: CoordinationMode) -> Coordination {
    Coordination::try_new(mode, CoordinationScope::Zone, false, None, None).expect("the settings can be")
}

/// What people write.
pub(crate) fn breaker(rng: &mut Rng) -> Arc<BreakerSpec> {
    let rate = |percent, min_calls| Some(RateRule { percent, min_calls });
    let only = TripRules { failure_rate: None, failures: None, consecutive_failures: None, slow_call_rate: None };
    let trip = match rng.u32(..5) {
        0 | 1 => TripRules::default(),
        2 => TripRules { failure_rate: rate(50, 20), ..only },
        3 => TripRules { failure_rate: rate(25, 20), ..only },
        _ => TripRules { consecutive_failures: Some(5), ..only },
    };
    let window = if rng.bool() { WindowSpec::default() } else { WindowSpec::Time(Duration::from_secs(30)) };
    Arc::new(
        BreakerSpec::try_new(BreakerInput { trip, window, ..BreakerInput::default() }).expect("the settings can be"),
    )
}
