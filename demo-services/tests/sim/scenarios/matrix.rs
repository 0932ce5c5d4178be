//! The failure matrix: each event that a fleet must bear, by its name in `control-plane/docs/coordination.md`.

use fusebox::{FleetStateShown as FleetState, PolicySource};
use fusebox_proto::{sync::v1::sync_response::Message as Down, v1};

use super::{NAMES, NEVER, POLICY, TEN, down, fleet, millis, openings, secs, some_trouble, ten, two_sick};
use crate::{
    faults::Fault,
    history::What,
    operator::Order,
    replica::{LOOK_EVERY, Replica},
    seeds,
    world::{LATENCY, LEASE, PLANE, Scenario, TARGET},
};

#[test]
fn the_sdk_loses_the_control_plane_and_restarts_from_its_disk() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(10), secs(16)));
        scenario.caches = true;
        let crash = millis(rng, 2_000, 4_000);
        scenario.faults = vec![
            (crash, Fault::Crash(PLANE)),
            (crash + secs(2), Fault::Crash("a-1")),
            (crash + millis(rng, 2_100, 4_000), Fault::Bounce("a-1")),
            (secs(24), Fault::Bounce(PLANE)),
        ];
        scenario.calm = secs(24);
        scenario
    };
    seeds::run(1, make, |run| {
        let (back, _) = run.faults()[2];
        let shown = run.shown_at("a-1", back + LOOK_EVERY);
        assert_eq!(shown.source, PolicySource::Disk, "{shown}");
        assert!(shown.policy_revision > 0 && !shown.connected, "{shown}");
        // The policy from the disk is enforced: its own breaker trips in the outage.
        let trips = run.shown("a-1").iter().any(|(at, shown)| *at > secs(10) && *at < secs(17) && shown.refuses);
        assert!(trips, "a-1 is protected by what its disk holds");
    });
}

#[test]
fn the_control_plane_crashes_and_its_successor_learns_before_it_decides() {
    let make = |rng: &mut fastrand::Rng| {
        // Open for long enough that the time is not over when the successor comes.
        let policy = POLICY.replace("delay: 2s", "delay: 10s").replace("delayMax: 6s", "delayMax: 15s");
        let mut scenario = Scenario::new(fleet(), &policy).script(down(some_trouble(rng), secs(2), secs(20)));
        let crash = millis(rng, 5_000, 8_000);
        scenario.faults = vec![(crash, Fault::Crash(PLANE)), (crash + millis(rng, 100, 1_500), Fault::Bounce(PLANE))];
        scenario.calm = secs(20);
        scenario
    };
    seeds::run(1, make, |run| {
        let (back, _) = run.faults()[1];
        let goes_on = run.events.iter().filter(|event| event.at < back + LEASE).any(|event| {
            matches!(&event.what, What::Issued { message, .. }
                if matches!(&message.message, Some(Down::Verdict(verdict))
                    if verdict.term == 2 && verdict.state() != v1::FleetState::Released))
        });
        assert!(goes_on, "what replicas hold goes on while the successor learns");
    });
}

#[test]
fn a_control_plane_restored_from_an_older_backup_rolls_nobody_back_and_recovers() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let crash = millis(rng, 6_000, 8_000);
        scenario.orders.push((secs(4), Order::Apply(POLICY.replace("delay: 2s", "delay: 3s"))));
        scenario.orders.push((secs(18), Order::Adopt));
        scenario.faults = vec![
            (secs(3), Fault::BackUp),
            (crash, Fault::Crash(PLANE)),
            (crash, Fault::Restore),
            (crash + millis(rng, 100, 2_000), Fault::Bounce(PLANE)),
        ];
        scenario.calm = secs(19);
        scenario
    };
    seeds::run(1, make, |run| {
        for name in NAMES {
            // That it never goes back is S9. Its own revision stays until an operator puts the restored one above it.
            assert_eq!(run.shown_at(name, secs(17)).revision, 2, "{name} keeps what it runs");
            assert!(run.shown(name).iter().any(|(_, shown)| shown.connected && shown.revision == 3), "{name} recovers");
        }
    });
}

#[test]
fn a_wiped_store_neither_takes_policies_away_nor_speaks_in_a_used_term() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), secs(30)));
        let crash = millis(rng, 5_000, 8_000);
        scenario.orders.push((secs(16), Order::Apply(POLICY.to_owned())));
        scenario.faults = vec![
            (crash, Fault::Crash(PLANE)),
            (crash, Fault::Wipe),
            (crash + millis(rng, 100, 2_000), Fault::Bounce(PLANE)),
        ];
        scenario.calm = secs(30);
        scenario
    };
    seeds::run(2, make, |run| {
        for name in NAMES {
            let mut shown = run.shown(name).into_iter().skip_while(|(_, shown)| shown.policy_revision == 0);
            assert!(shown.all(|(_, shown)| shown.policy_revision > 0), "{name} is never without its policy again");
        }
        // The fleet is coordinated again, in words that replicas take.
        let again = run.shown("a-1").iter().any(|(at, shown)| *at > secs(16) && shown.is_held());
        assert!(again, "the new store's first words are obeyed");
    });
}

#[test]
fn a_partition_that_splits_the_fleet_opens_nothing_on_the_side_that_is_left() {
    let make = |rng: &mut fastrand::Rng| {
        // Two are sick: less than the quorum of ten, and enough for one of five.
        let mut scenario = Scenario::new(ten(), POLICY).script(two_sick);
        let cut = millis(rng, 10_000, 12_000);
        for name in &TEN[5..] {
            scenario.faults.push((cut, Fault::Partition(PLANE, name)));
            scenario.faults.push((cut + LEASE + secs(5), Fault::Repair(PLANE, name)));
        }
        scenario.calm = cut + LEASE;
        scenario.settles_within = None;
        scenario
    };
    seeds::run(1, make, |run| {
        assert_eq!(openings(run), NEVER, "who is left is a biased sample");
        for name in &TEN[2..] {
            let (well, all) = run.calls(name);
            assert!(well * 100 >= all * 99, "{name}: {well} of {all}");
        }
    });
}

#[test]
fn a_zone_cut_off_from_the_control_plane_but_not_from_the_target_goes_on_alone() {
    let make = |rng: &mut fastrand::Rng| {
        let names = ["a-1", "a-2", "a-3", "a-4"];
        let zones = ["z1", "z1", "z2", "z2"];
        let replicas = names.iter().zip(zones).map(|(name, zone)| Replica::busy(name).in_zone(zone)).collect();
        let mut scenario = Scenario::new(replicas, &POLICY.replace("scope: fleet", "scope: zone")).script(down(
            some_trouble(rng),
            secs(2),
            secs(12),
        ));
        let cut = millis(rng, 5_000, 9_000);
        for name in ["a-1", "a-2"] {
            scenario.faults.push((cut, Fault::Partition(PLANE, name)));
            scenario.faults.push((secs(40), Fault::Repair(PLANE, name)));
        }
        scenario.calm = secs(40);
        scenario
    };
    seeds::run(1, make, |run| {
        let (cut, _) = run.faults()[0];
        for name in ["a-1", "a-2"] {
            let alone = run.shown_at(name, cut + LEASE + LOOK_EVERY * 2);
            assert_eq!(alone.fleet, FleetState::Released, "{name}: {alone}");
            let calls = run.events.iter().any(|event| {
                matches!(&event.what, What::Ended { replica, ok: true } if replica == name)
                    && event.at > secs(30)
                    && event.at < secs(40)
            });
            assert!(calls, "{name} reaches the target all the same");
        }
    });
}

#[test]
fn an_sdk_that_stood_still_for_longer_than_the_lease_obeys_nothing_that_it_held() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), secs(20)));
        let at = millis(rng, 5_000, 9_000);
        // What was told before arrives after: verdicts, permits and answers to heartbeats.
        scenario.faults = vec![
            (at, Fault::Hold(PLANE, "a-1")),
            (at + LATENCY * 100, Fault::Pause("a-1", LEASE + secs(5))),
            (at + LATENCY * 110, Fault::Release(PLANE, "a-1")),
        ];
        scenario.calm = secs(20);
        scenario
    };
    seeds::run(2, make, |run| {
        let (wakes, _) = run.faults()[1];
        let shown = run.shown_at("a-1", wakes + LOOK_EVERY * 2);
        assert_eq!(shown.fleet, FleetState::Released, "a-1 wakes at {wakes:?}: {shown}");
    });
}

/// The simulation has no wall clock: what could step isn't read where anything is decided.
#[test]
fn a_step_of_the_wall_clock_can_reach_no_decision() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut reads = Vec::new();
    let mut folders =
        ["client-sdk/policy/src", "client-sdk/src", "control-plane/src/fleet", "control-plane/src/sessions"]
            .map(|folder| root.join(folder))
            .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).expect("a source").contains("SystemTime::now()") {
                let own = path.strip_prefix(root).expect("in the workspace");
                reads.push(own.to_string_lossy().into_owned());
            }
        }
    }
    reads.sort();
    let allowed = [
        // `Retry-After` as a date.
        "client-sdk/src/classify.rs",
        "client-sdk/src/clock.rs",
        // How old the file is, and what is left of an override over a restart.
        "client-sdk/src/link/cache.rs",
        // Shown, and never compared.
        "client-sdk/src/metrics/mod.rs",
        "control-plane/src/fleet/effects.rs",
        "control-plane/src/fleet/explain.rs",
        // An override ends at a date: what is left of it is counted once, when a server starts.
        "control-plane/src/fleet/overrides.rs",
        // The dates of what is on record.
        "control-plane/src/fleet/owner.rs",
        "control-plane/src/fleet/windows.rs",
        // When what a replica proves itself by runs out.
        "control-plane/src/sessions/mod.rs",
    ];
    assert_eq!(reads, allowed, "a new place reads the wall clock: say here why no decision hangs on it");
}

#[test]
fn a_policy_changed_while_open_voids_the_verdict_about_the_old_one() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), secs(20)));
        let changed = POLICY.replace("delay: 2s", "delay: 1500ms");
        scenario.orders.push((millis(rng, 4_000, 9_000), Order::Apply(changed)));
        scenario.calm = secs(20);
        scenario
    };
    seeds::run(1, make, |run| {
        for name in NAMES {
            let shown = run.shown(name);
            let held = shown.iter().any(|(_, shown)| shown.policy_revision == 1 && shown.is_held());
            let (_, first) = shown.iter().find(|(_, shown)| shown.policy_revision == 2).expect("the change arrives");
            assert!(held && !first.is_held(), "{name} obeys what was said of another policy: {first}");
            let again = shown.iter().any(|(_, shown)| shown.policy_revision == 2 && shown.is_held());
            assert!(again, "{name} is told about the changed policy");
        }
    });
}

#[test]
fn a_reporter_that_dies_leaves_neither_a_vote_nor_a_permit_behind() {
    let make = |rng: &mut fastrand::Rng| {
        let sick = *rng.choice(&NAMES[..2]).expect("there are some");
        let mut scenario = Scenario::new(fleet(), POLICY);
        let from = millis(rng, 1_000, 3_000);
        scenario.faults = vec![(from, Fault::Partition(sick, TARGET)), (from + secs(6), Fault::Crash(sick))];
        // Long after it has died another one is sick: together they would be two.
        let next = *NAMES[..2].iter().find(|name| **name != sick).expect("there are two");
        scenario.faults.push((from + secs(80), Fault::Partition(next, TARGET)));
        scenario.calm = from + secs(90);
        scenario.settles_within = None;
        scenario
    };
    seeds::run(1, make, |run| assert_eq!(openings(run), NEVER));
}
