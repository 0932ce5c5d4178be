//! Servers that follow each other faster than they learn, and terms that are raised again and again: a target that is well is called again.

use std::time::Duration;

use fusebox_policy::fleet::{invariants::Step, shared::FleetState};

use crate::{driver::ms, fleet_world::World};

/// Of the small world that these run in.
const LEASE: Duration = Duration::from_secs(3);
const ALL: u8 = u8::MAX;

/// What begins the learning anew.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// The server crashes, and another starts at once.
    Restart,
    /// Somebody connects who has seen a later term.
    Raise,
}

fn strike(world: &mut World, blow: Blow) {
    match blow {
        Blow::Restart => world.restart(),
        Blow::Raise => {
            let term = world.coordinator.term() + 1;
            world.step(&Step::Other, |coordinator, now, _| coordinator.raise_term(term, now));
        }
    }
}

fn round(world: &mut World) {
    let before = world.gates();
    world.round(100, ALL, ALL);
    world.settle(&before);
}

/// Whether all pass all calls.
fn is_well(world: &World) -> bool {
    world.replicas.iter().all(|replica| (replica.gate.admission(world.now) - 1.0).abs() < f64::EPSILON)
}

/// In an outage that has opened both zones.
fn open(ramp: bool) -> World {
    let mut world = World::new(ramp, 1);
    world.well = false;
    let opened = |world: &World| {
        let mut gates = world.replicas.iter().map(|replica| replica.gate.fleet_state());
        gates.all(|state| state == FleetState::Open)
    };
    while !opened(&world) {
        round(&mut world);
    }
    world
}

/// Both sooner and later than a run has learned, and all of it while the target is well.
#[test]
fn a_target_that_is_well_is_called_again_however_often_the_server_begins_to_learn() {
    for (blow, ramp) in [(Blow::Restart, false), (Blow::Restart, true), (Blow::Raise, false), (Blow::Raise, true)] {
        for every in [500, 1000, 2000, 2900, 3000, 3100, 3300, 3700, 4500] {
            let mut world = open(ramp);
            let due = world.replicas.iter().filter_map(|replica| replica.gate.half_open_in(world.now)).max();
            world.well = true;
            let mut strikes = 0;
            // Two leases after the open time, and what a run was probing for; then what its own breaker takes: an open time, its own
            // probes, its own ramp.
            let probing = ms(every).saturating_sub(LEASE);
            let own = ms(500) + ms(500) + if ramp { ms(4000) } else { ms(0) };
            let until = world.now.plus(due.unwrap_or_default() + LEASE * 2 + probing + own);
            let begun = world.now;
            while world.now < until.plus(LEASE * 10) {
                if world.now.since(begun) >= ms(every) * strikes {
                    strike(&mut world, blow);
                    strikes += 1;
                }
                round(&mut world);
                let late = world.now >= until;
                assert!(
                    !late || is_well(&world),
                    "{blow:?} every {every} ms, ramp {ramp}, at {:?}",
                    world.now.since(begun)
                );
            }
        }
    }
}
