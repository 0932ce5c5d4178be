//! What holds for every input.

use std::collections::BTreeSet;

use fusebox_policy::{
    Draw,
    breaker::{Breaker, BreakerInput, BreakerMode, HalfOpenSpec, LocalState, Sample, Window, WindowSpec},
    condition::Class,
    fleet::{
        CoordinationMode,
        evidence::Report,
        shared::{FleetState, ProbeResult},
    },
    pipeline::{Finish, StrategySpec},
};
use proptest::prelude::*;

use crate::{
    breaker_closed::ending,
    driver::{FAILED, OK, Process, at, breaker, breaker_input, breaker_spec, does, fallback, ms, retry, slow, timeout},
    fleet_driver::{Fleet, permits},
    fleet_rule::{saw, tripped},
};

#[derive(Clone, Debug)]
enum Happens {
    Acquire,
    End(prop::sample::Index, u8),
    Drop(prop::sample::Index),
    Pass(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Acquire),
        4 => (any::<prop::sample::Index>(), 0..3_u8).prop_map(|(which, class)| Happens::End(which, class)),
        1 => any::<prop::sample::Index>().prop_map(Happens::Drop),
        2 => (0..4000_u64).prop_map(Happens::Pass),
    ]
}

proptest! {
    /// A half-open breaker lets at most its probes pass, an open one nothing before its time, and nothing ever gets stuck.
    #[test]
    fn a_breaker_keeps_its_limits_and_never_sticks(
        steps in prop::collection::vec(happens(), 1..200),
        probes in 1..4_u32,
        concurrent in 1..4_u32,
    ) {
        let concurrent = concurrent.min(probes);
        let half_open = HalfOpenSpec { probes, concurrent_probes: concurrent, successes: probes, max_duration: None };
        let mut breaker = Breaker::new(breaker_spec(BreakerInput { half_open, ..breaker_input(2) }));
        let mut out = Vec::new();
        let mut now = 0;
        let mut half_open_permits = 0_usize;
        for step in steps {
            let before = breaker.state();
            breaker.advance(at(now), Draw::ZERO);
            if before != breaker.state() {
                half_open_permits = 0;
            }
            match step {
                Happens::Acquire => {
                    let until = breaker.half_open_in(at(now));
                    if let Ok(permit) = breaker.try_acquire(at(now), Draw::ZERO) {
                        prop_assert!(until.is_none(), "an open breaker admits nobody before its time");
                        if breaker.state() == LocalState::HalfOpen {
                            half_open_permits += 1;
                            prop_assert!(half_open_permits <= probes as usize);
                        }
                        out.push((permit, breaker.state() == LocalState::HalfOpen));
                    }
                }
                Happens::End(which, class) if !out.is_empty() => {
                    let (permit, probe) = out.swap_remove(which.index(out.len()));
                    let class = [Class::Success, Class::Failure, Class::Ignored][class as usize];
                    let changed = breaker.record(permit, &ending(class, ms(0)), at(now), Draw::ZERO);
                    if changed.is_some() {
                        half_open_permits = 0;
                    } else if probe && class == Class::Ignored {
                        half_open_permits = half_open_permits.saturating_sub(1);
                    }
                }
                Happens::Drop(which) if !out.is_empty() => {
                    let (permit, probe) = out.swap_remove(which.index(out.len()));
                    breaker.abandon(permit);
                    if probe {
                        half_open_permits = half_open_permits.saturating_sub(1);
                    }
                }
                Happens::End(..) | Happens::Drop(_) => {}
                Happens::Pass(millis) => now += millis,
            }
        }
        // Whatever happened: when all calls are back and the target is well, it closes.
        for (permit, _) in out {
            breaker.abandon(permit);
        }
        for _ in 0..200 {
            now += 60_000;
            breaker.advance(at(now), Draw::ZERO);
            if let Ok(permit) = breaker.try_acquire(at(now), Draw::ZERO) {
                breaker.record(permit, &ending(Class::Success, ms(0)), at(now), Draw::ZERO);
            }
        }
        prop_assert_eq!(breaker.state(), LocalState::Closed);
    }

    /// Whatever settings come while it is in use: when all calls are back and the target is well, it closes.
    #[test]
    fn a_breaker_whose_settings_change_never_sticks(
        steps in prop::collection::vec((happens(), prop::option::weighted(0.3, (0..3_u8, 1..5_u32, 1..5_u32, 1..5_u32))), 1..100),
    ) {
        let spec = |mode: u8, probes: u32, concurrent: u32, successes: u32| {
            let (concurrent_probes, successes) = (concurrent.min(probes), successes.min(probes));
            let half_open = HalfOpenSpec { probes, concurrent_probes, successes, max_duration: None };
            let mode = [BreakerMode::Enforced, BreakerMode::Shadow, BreakerMode::Disabled][mode as usize];
            breaker_spec(BreakerInput { half_open, mode, ..breaker_input(2) })
        };
        let mut breaker = Breaker::new(spec(0, 3, 1, 3));
        let mut out = Vec::new();
        let mut now = 0;
        for (step, change) in steps {
            if let Some((mode, probes, concurrent, successes)) = change {
                breaker.apply(spec(mode, probes, concurrent, successes));
            }
            breaker.advance(at(now), Draw::ZERO);
            match step {
                Happens::Acquire => out.extend(breaker.try_acquire(at(now), Draw::ZERO)),
                Happens::End(which, class) if !out.is_empty() => {
                    let permit = out.swap_remove(which.index(out.len()));
                    let class = [Class::Success, Class::Failure, Class::Ignored][class as usize];
                    breaker.record(permit, &ending(class, ms(0)), at(now), Draw::ZERO);
                }
                Happens::Drop(which) if !out.is_empty() => breaker.abandon(out.swap_remove(which.index(out.len()))),
                Happens::End(..) | Happens::Drop(_) => {}
                Happens::Pass(millis) => now += millis,
            }
        }
        for permit in out {
            breaker.abandon(permit);
        }
        breaker.apply(spec(0, 2, 1, 2));
        for _ in 0..20 {
            now += 60_000;
            breaker.advance(at(now), Draw::ZERO);
            if let Ok(permit) = breaker.try_acquire(at(now), Draw::ZERO) {
                breaker.record(permit, &ending(Class::Success, ms(0)), at(now), Draw::ZERO);
            }
        }
        prop_assert_eq!(breaker.state(), LocalState::Closed);
    }

    /// A time window never counts a call that is older than its span, nor misses one younger than nine tenths of it.
    #[test]
    fn a_time_window_counts_what_is_in_it(mut times in prop::collection::vec(0..30_000_u64, 0..100), read in 0..40_000_u64) {
        times.sort_unstable();
        times.retain(|time| *time <= read);
        let mut window = Window::new(WindowSpec::Time(ms(10_000)));
        for time in &times {
            window.record(Sample { failure: None, slow: false }, at(*time));
        }
        let counted = window.counts(at(read)).calls;
        let sure = times.iter().filter(|time| read - **time <= 9000).count() as u64;
        let most = times.iter().filter(|time| read - **time < 10_000).count() as u64;
        prop_assert!((sure..=most).contains(&counted), "{sure} <= {counted} <= {most}");
    }

    /// Any order of any strategies ends, leaks no permit, and attempts no more than its retries allow.
    #[test]
    fn any_pipeline_ends_within_its_attempts(
        kinds in prop::collection::vec(0..4_u8, 1..6),
        script in prop::collection::vec((any::<bool>(), 0..30_u64), 1..50),
    ) {
        let mut limit = 1_u32;
        let strategies: Vec<StrategySpec> = kinds.iter().enumerate().map(|(index, kind)| match kind {
            0 => timeout(10_000 - 1000 * index as u64),
            1 => { limit *= 3; retry(3, 0) }
            2 => breaker(1000),
            _ => fallback(),
        }).collect();
        let valid = fusebox_policy::pipeline::PipelineSpec::try_new(strategies.iter().cloned().map(|spec| (None, spec)).collect());
        prop_assume!(valid.is_ok());
        let mut process = Process::new(strategies);
        let finish = process.call(|attempt| {
            let (good, takes) = script[attempt as usize % script.len()];
            if takes == 0 { does(if good { OK } else { FAILED }) } else { slow(if good { OK } else { FAILED }, takes) }
        });
        prop_assert!(process.executed >= 1 && process.executed <= limit);
        prop_assert!(finish == Finish::Value, "{finish:?}");
    }

    /// The fleet opens only on two witnesses, and never has more permits out than its budget, whatever is reported in whatever
    /// order.
    #[test]
    fn the_fleet_needs_witnesses_and_keeps_its_probe_budget(
        steps in prop::collection::vec((0..5_usize, 0..6_u8, 0..2000_u64), 1..200),
    ) {
        let mut fleet = Fleet::new(CoordinationMode::Balanced);
        let mut now = 0;
        let mut out: Vec<(usize, u64)> = Vec::new();
        let mut given: BTreeSet<u64> = BTreeSet::new();
        for (who, what, passes) in steps {
            now += passes;
            let before = fleet.state();
            let effects = match what {
                0 => fleet.report(who, tripped(5), now),
                1 => fleet.report(who, saw(20, 0), now),
                2 => fleet.report(who, Report { rejected: 3, ..tripped(5) }, now),
                3 => fleet.leave(who, now),
                4 => fleet.tick(now),
                _ => match out.pop() {
                    Some(permit) => {
                        let result = [ProbeResult::Success, ProbeResult::Failure, ProbeResult::Inconclusive][who % 3];
                        fleet.probe(permit, result, now)
                    }
                    None => Vec::new(),
                },
            };
            if before == FleetState::Released && fleet.state() == FleetState::Open {
                prop_assert!(fleet.view(now).evidence.open_voters >= 2);
            }
            for permit in permits(&effects) {
                prop_assert_eq!(fleet.state(), FleetState::HalfOpen);
                prop_assert!(given.insert(permit.1), "a permit is given once");
                out.push(permit);
            }
            if fleet.coordinator.breaker(&fleet.key).is_some() {
                let view = fleet.view(now);
                prop_assert!(view.probes_issued <= 3);
                prop_assert!(view.probes_issued - view.probes_succeeded <= 1, "one in flight at a time");
            }
        }
    }
}
