//! All of it at once, and the simulation's own promise.

use std::process::Command;

use super::{NAMES, POLICY, fleet, millis, secs, some_trouble};
use crate::{
    faults::{self, Fault},
    operator::Order,
    seeds,
    target::Health,
    world::Scenario,
};

fn storm(rng: &mut fastrand::Rng) -> Scenario {
    let until = secs(45);
    let period = millis(rng, 2_000, 15_000);
    let how = some_trouble(rng);
    let mut scenario = Scenario::new(fleet(), POLICY).script(move |at, _| {
        let falls = (at.as_millis() / period.as_millis()) % 2 == 1;
        if falls && at < until { how } else { Health::Well }
    });
    scenario.faults = faults::bad_links(rng, NAMES, secs(1), until);
    scenario.faults.extend(faults::crashes(rng, secs(5), until));
    for name in &NAMES[..2] {
        let at = millis(rng, 5_000, 35_000);
        scenario.faults.push((at, Fault::Crash(name)));
        scenario.faults.push((at + millis(rng, 20, 5_000), Fault::Bounce(name)));
    }
    scenario.orders.push((millis(rng, 5_000, 20_000), Order::Apply(POLICY.replace("delay: 2s", "delay: 1s"))));
    scenario.orders.push((millis(rng, 20_000, 30_000), Order::Force { open: rng.bool(), length: secs(8) }));
    scenario.calm = until;
    scenario
}

#[test]
fn whatever_happens_the_invariants_hold_and_calm_brings_order() {
    seeds::run(2, storm, |_| {});
}

/// Each time in a process of its own: the order in which a crashed host's tasks end depends on their numbers, which tokio counts up
/// through all simulations of a process.
#[test]
#[cfg_attr(
    not(tokio_unstable),
    ignore = "needs RUSTFLAGS=\"--cfg tokio_unstable\": else tokio's select! is not seeded"
)]
fn the_same_seed_tells_the_same_story() {
    let tell = |seed: &str| -> Vec<String> {
        let test = "scenarios::everything::whatever_happens_the_invariants_hold_and_calm_brings_order";
        let program = std::env::current_exe().expect("this program has a path");
        let mut told = Command::new(program);
        told.args(["--exact", test, "--nocapture"]).env("SIM_SEED", seed).env_remove("RUST_BACKTRACE");
        let told = told.output().expect("this program runs");
        let lines = String::from_utf8(told.stderr).expect("the story is text");
        // Other lines say how long it took.
        lines.lines().filter(|line| line.starts_with(' ')).map(str::to_owned).collect()
    };
    let mut stories = Vec::new();
    for seed in ["0", "1"] {
        let (once, again) = (tell(seed), tell(seed));
        let parts = once.iter().zip(&again).find(|(once, again)| once != again);
        assert_eq!(parts, None, "seed {seed}");
        assert_eq!(once.len(), again.len(), "seed {seed}");
        assert!(once.len() > 100, "a story with everything in it is long");
        stories.push(once);
    }
    assert_ne!(stories[0], stories[1], "another seed tells another story");
}
