//! The cell against the plain gate, which is its reference.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::time::Duration;

use fusebox_policy::{
    breaker::{BreakerInput, RateRule, TripRules, WindowSpec},
    fleet::{
        gate::Forced,
        held::{Fence, HeldPermit, Override, Verdict},
        shared::FleetState,
    },
    outcome::{ErrorKind, RetryHint},
};
use proptest::prelude::*;

use super::*;

fn spec(count_window: bool, percent: u8, slow: bool) -> Arc<BreakerSpec> {
    let rate = RateRule { percent, min_calls: 4 };
    let input = BreakerInput {
        window: if count_window { WindowSpec::Count(10) } else { WindowSpec::Time(Duration::from_secs(10)) },
        trip: TripRules {
            failure_rate: Some(rate),
            failures: None,
            consecutive_failures: Some(3),
            slow_call_rate: slow.then_some((rate, Duration::from_millis(100))),
        },
        delay_jitter: 0.0,
        ..BreakerInput::default()
    };
    Arc::new(BreakerSpec::try_new(input).unwrap())
}

fn key() -> BreakerKey {
    let name = "x";
    BreakerKey {
        namespace: fusebox_policy::Namespace::try_new(name).unwrap(),
        caller: fusebox_policy::CallerName::try_new(name).unwrap(),
        policy: fusebox_policy::PolicyName::try_new(name).unwrap(),
        strategy: fusebox_policy::StrategyName::try_new(name).unwrap(),
        target: fusebox_policy::TargetName::try_new(name).unwrap(),
        zone: None,
    }
}

#[derive(Clone, Debug)]
enum Action {
    Wait(u64),
    Begin,
    End { which: usize, class: Class, millis: u64 },
    Drop(usize),
    Verdict(FleetState, u64),
    Permit,
    Override(Option<(Forced, u64)>),
    Spec(bool, u8, bool),
    Tick,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let class = prop_oneof![6 => Just(Class::Success), 3 => Just(Class::Failure), 1 => Just(Class::Ignored)];
    let millis = prop_oneof![8 => Just(1_u64), 1 => Just(100), 1 => Just(101)];
    let state = prop_oneof![
        Just(FleetState::Released),
        Just(FleetState::Open),
        Just(FleetState::HalfOpen),
        Just(FleetState::Ramp)
    ];
    let forced = prop_oneof![Just(Forced::Open), Just(Forced::Closed), Just(Forced::Disabled)];
    let action = prop_oneof![
        6 => (0_u64..1500).prop_map(Action::Wait),
        20 => Just(Action::Begin),
        20 => (any::<usize>(), class, millis).prop_map(|(which, class, millis)| Action::End { which, class, millis }),
        1 => any::<usize>().prop_map(Action::Drop),
        1 => (state, 100_u64..4000).prop_map(|(state, lease)| Action::Verdict(state, lease)),
        1 => Just(Action::Permit),
        1 => proptest::option::of((forced, 100_u64..4000)).prop_map(Action::Override),
        1 => (any::<bool>(), 20_u8..80, any::<bool>()).prop_map(|(count, percent, slow)| Action::Spec(count, percent, slow)),
        1 => Just(Action::Tick),
    ];
    proptest::collection::vec(action, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same calls on the cell and on a plain gate: the same decisions, counts and states, whatever happens between.
    #[test]
    fn a_cell_decides_as_a_plain_gate(actions in actions(), count in any::<bool>(), slow in any::<bool>()) {
        let first = spec(count, 50, slow);
        let cell = Cell::new(key(), Arc::clone(&first), Revision(1), Arc::default());
        let mut gate = Gate::new(first, Revision(1));
        let mut now = Timestamp::from_nanos(1);
        let mut rev = 0;
        let mut running: Vec<(Pass, Pass)> = Vec::new();
        for action in actions {
            match action {
                Action::Wait(millis) => now = now.plus(Duration::from_millis(millis)),
                Action::Begin => {
                    let ours = cell.try_acquire(now);
                    let plain = gate.try_acquire(now, Draw::HALF).0;
                    match (ours, plain) {
                        (Ok(ours), Ok(plain)) => {
                            prop_assert_eq!(&ours, &plain);
                            running.push((ours, plain));
                        }
                        (Err(ours), Err(plain)) => prop_assert_eq!(ours, plain),
                        (ours, plain) => prop_assert!(false, "{:?} {:?}", ours, plain),
                    }
                }
                Action::End { which, class, millis } => {
                    if !running.is_empty() {
                        let (ours, plain) = running.swap_remove(which % running.len());
                        let outcome = match class {
                            Class::Success => Outcome::OK,
                            Class::Failure | Class::Ignored => Outcome::Error(ErrorKind::Other),
                        };
                        let elapsed = Duration::from_millis(millis);
                        let ending = Ending { class, outcome, elapsed, hint: RetryHint::None };
                        cell.record(ours, &ending, now);
                        gate.record(plain, &ending, now, Draw::HALF);
                    }
                }
                Action::Drop(which) => {
                    if !running.is_empty() {
                        let (ours, plain) = running.swap_remove(which % running.len());
                        cell.abandon(ours);
                        gate.abandon(plain);
                    }
                }
                Action::Verdict(state, lease) => {
                    rev += 1;
                    let verdict = Verdict {
                        fence: Fence { term: 1, rev },
                        state,
                        // All or nothing: the cell draws by itself.
                        admit_permille: 1000,
                        // What keeps calls back stays until another word: its end would be drawn.
                        expires: if state == FleetState::Released {
                            now.plus(Duration::from_millis(lease))
                        } else {
                            Timestamp::MAX
                        },
                        policy_revision: Revision(1),
                        half_open_at: None,
                        reason: String::new(),
                    };
                    cell.with(|gate| gate.apply_verdict(verdict.clone(), now));
                    gate.apply_verdict(verdict, now);
                }
                Action::Permit => {
                    let fence = Fence { term: 1, rev };
                    let permit = HeldPermit { id: now.as_nanos(), fence, expires: Timestamp::MAX };
                    cell.with(|gate| (gate.add_permit(permit, now), Vec::new()));
                    gate.add_permit(permit, now);
                }
                Action::Override(forced) => {
                    let forced = forced.map(|(effect, millis)| Override {
                        effect,
                        until: now.plus(Duration::from_millis(millis)),
                        reason: String::new(),
                    });
                    cell.with(|gate| (gate.set_override(forced.clone()), Vec::new()));
                    gate.set_override(forced);
                }
                Action::Spec(count, percent, slow) => {
                    let spec = spec(count, percent, slow);
                    cell.with(|gate| ((), gate.apply_spec(Arc::clone(&spec), Revision(1), false, now, Draw::HALF)));
                    gate.apply_spec(spec, Revision(1), false, now, Draw::HALF);
                }
                Action::Tick => {
                    cell.with(|gate| ((), gate.tick(now, Draw::HALF)));
                    gate.tick(now, Draw::HALF);
                }
            }
            let shown = |gate: &Gate| {
                let breaker = gate.breaker();
                (gate.local_state(), gate.fleet_state(), gate.vetoes(), breaker.counts(now), breaker.late())
            };
            prop_assert_eq!(cell.look(now, shown), shown(&gate));
        }
    }
}
