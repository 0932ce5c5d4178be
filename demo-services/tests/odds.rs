//! A fleet decides rightly in some hundreds of simulated runs of each kind: the fast version of `cargo bench -p fusebox-demo --bench odds`,
//! which runs tens of thousands.

#[path = "../benches/odds/fleet/mod.rs"]
mod fleet;
#[path = "../benches/odds/outage.rs"]
mod outage;
#[path = "../benches/odds/runs.rs"]
mod runs;
#[path = "../benches/odds/sick.rs"]
mod sick;
#[path = "../benches/odds/waste.rs"]
mod waste;

use runs::{Tally, many};
use waste::Traffic;

/// Of each kind and size.
const RUNS: [(usize, u64); 3] = [(3, 300), (10, 150), (50, 30)];

fn check<T: Tally>(run: impl Fn(usize, u64) -> T + Sync) {
    for (size, runs) in RUNS {
        let faults = many(1, runs, |seed| run(size, seed)).faults();
        assert!(faults.is_empty(), "fleet of {size}: {faults:#?}");
    }
}

#[test]
fn one_ill_replica_never_opens_the_fleet() {
    check(sick::run);
}

#[test]
fn an_outage_opens_every_fleet_which_probes_within_its_budget_and_is_local_when_the_server_dies() {
    check(outage::run);
}

#[test]
fn a_fleet_of_quiet_replicas_pays_less_for_an_outage_than_each_alone() {
    for (traffic, most) in [(Traffic::Rare, 0.4), (Traffic::Some, 0.6), (Traffic::SomeShort, 0.5)] {
        let share = many(1, 15, |seed| waste::run(traffic, 10, seed)).share();
        assert!(share < most, "{traffic:?}: {share}");
    }
}
