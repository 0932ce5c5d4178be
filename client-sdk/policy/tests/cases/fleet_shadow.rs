//! Breakers in shadow mode, as the fleet decides about them: a dry run that takes nothing from those that are enforced.

use fusebox_policy::{
    breaker::{BreakerInput, BreakerMode},
    fleet::{
        BreakerKey, CoordinationMode,
        coordinator::Guard,
        shared::{FleetState, Settings},
    },
};

use crate::{
    driver::{at, breaker_input, breaker_spec},
    fleet_driver::{Fleet, held, key, settings, verdict},
    fleet_rule::{saw, tripped},
};

/// Breakers of so many targets in this mode, which three replicas hold and find well.
fn add(fleet: &mut Fleet, name: &str, count: usize, mode: BreakerMode) -> Vec<BreakerKey> {
    let breaker = breaker_spec(BreakerInput { mode, ..breaker_input(5) });
    let keys: Vec<BreakerKey> = (0..count).map(|number| key(&format!("{name}-{number}"), None)).collect();
    for key in &keys {
        let settings = Settings { breaker: breaker.clone(), ..settings(CoordinationMode::Balanced) };
        fleet.coordinator.configure(key, settings, at(0));
        for number in 0..3 {
            fleet.report_on(key, number, saw(5, 0), 0);
        }
    }
    keys
}

fn both(shadows: usize, enforced: usize) -> (Fleet, Vec<BreakerKey>, Vec<BreakerKey>) {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.coordinator.forget(&fleet.key.clone());
    let shadows = add(&mut fleet, "shadow", shadows, BreakerMode::Shadow);
    let enforced = add(&mut fleet, "enforced", enforced, BreakerMode::Enforced);
    (fleet, shadows, enforced)
}

fn trip(fleet: &mut Fleet, key: &BreakerKey, millis: u64) -> (Option<FleetState>, Option<Guard>) {
    let mut effects = fleet.report_on(key, 0, tripped(5), millis);
    effects.extend(fleet.report_on(key, 1, tripped(5), millis));
    (verdict(&effects), held(&effects))
}

const OPENS: (Option<FleetState>, Option<Guard>) = (Some(FleetState::Open), None);

#[test]
fn a_dry_run_takes_no_share_of_the_targets_that_may_be_open() {
    let (mut fleet, shadows, enforced) = both(4, 4);
    for key in &shadows {
        assert_eq!(trip(&mut fleet, key, 100), OPENS, "nor is it held to one");
    }
    for key in &enforced[..2] {
        assert_eq!(trip(&mut fleet, key, 100), OPENS);
    }
    assert_eq!(trip(&mut fleet, &enforced[2], 100), (None, Some(Guard::BlastRadius)), "half of four");
}

#[test]
fn a_dry_run_takes_no_place_among_those_that_open_within_ten_seconds() {
    let (mut fleet, shadows, enforced) = both(12, 30);
    for key in &shadows {
        assert_eq!(trip(&mut fleet, key, 100), OPENS);
    }
    for key in &enforced[..10] {
        assert_eq!(trip(&mut fleet, key, 100), OPENS);
    }
    assert_eq!(trip(&mut fleet, &enforced[10], 100), (None, Some(Guard::OpeningRate)));
}
