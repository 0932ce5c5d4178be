//! A model check of the fleet's protocol: the structs that run, in every order of events within bounds.
//!
//! One control plane ([`server`]: the coordinator), two or three replicas ([`replica`]: the gates), each with a clock of its own that
//! shows another time and runs alike, and messages under way between them ([`world`]). Time passes in ticks, draws are zero, a call ends
//! when it begins, and every replica that refuses calls has calls to refuse. After each step the ledger of
//! [`fusebox_policy::fleet::history`] judges what has happened by [`fusebox_policy::fleet::invariants`].
//!
//! Two kinds of network: streams as they are (in order, any delay, cut with what is on them), and chaos (reordered, repeated, lost), in
//! which the protocol need not work well but must do no harm. One thing is not asked of it in chaos: that an acknowledgement never
//! renews a verdict that was replaced. It does if it overtakes the new one, which is why the server's sessions send verdicts first.
//!
//! [`mutation`] takes guards away, one at a time, and each must be missed: a check that can't fail shows nothing.
//!
//! `cargo test` explores a little of each configuration. This explores more, and prints what it explored and the table of mutants:
//!
//! ```text
//! cargo test -p fusebox-policy --release --test model -- --ignored --nocapture
//! MODEL=freezes cargo test -p fusebox-policy --release --test model -- --ignored --nocapture    # what has that in its name
//! ```
//!
//! What it does not show: ramps, zones, the pooled rule, guards over several breakers, vetoes (one breaker is all there is, and its windows
//! hold one call); that losing members opens nothing because they stay in the denominator (S11 is checked of departures as such: grace is
//! zero, and two witnesses are all the quorum there is); liveness beyond that releases and openings can be reached (`eventually` is sound on paths without cycles only;
//! the simulation states bounds instead); messages that outlive
//! their stream; clocks that run at different rates; calls that take time, so that a probe's permit is used and
//! its call still runs. Replicas are not reduced by symmetry: of equal candidates the coordinator gives the permit to the one with the
//! smallest name, so that exchanging two replicas does not always give the same future.

mod check;
mod mutation;
mod replica;
mod rules;
mod server;
mod wire;
mod world;

use check::{explore, shortest};
use mutation::Mutation;
use rules::Rules;

/// States of each configuration in `cargo test`: some seconds for all of them.
const FEW: usize = 30_000;
/// States of each configuration in the long run.
const MANY: usize = 3_000_000;
/// A mutant that survives so many is not caught.
const MUTANT: usize = 300_000;

#[test]
fn every_invariant_holds_in_every_configuration() {
    for rules in Rules::all() {
        let found = explore(&rules, FEW);
        assert_eq!(found.broken, None, "{}", rules.name);
        assert!(found.reached.contains(&world::ALL_OPEN), "{}: no replica obeys the fleet", rules.name);
    }
}

#[test]
fn a_fleet_that_has_opened_probes_and_is_released() {
    let found = explore(&Rules::streams(), 200_000);
    assert!(found.exhausted);
    let mut reached = found.reached;
    reached.sort_unstable();
    assert_eq!(reached, [world::PROBED, world::ALL_OPEN, world::RELEASED]);
}

#[test]
fn every_guard_is_missed_when_it_is_taken_away() {
    for mutant in Mutation::all() {
        let found = shortest(&mutant.rules, MUTANT);
        let broken = found.broken.map(|(invariant, _)| invariant);
        assert_eq!(broken, Some(mutant.breaks), "without {}", mutant.guard);
    }
}

#[test]
#[ignore = "explores for minutes, and prints tables"]
#[expect(clippy::print_stdout, reason = "the tables are what it is for")]
fn tables() {
    println!("| configuration | states | unique | depth | seconds | result |\n|---|---|---|---|---|---|");
    let asked = std::env::var("MODEL").unwrap_or_default();
    for rules in Rules::all().into_iter().filter(|rules| rules.name.contains(&asked)) {
        let found = explore(&rules, MANY);
        let result = match &found.broken {
            Some((invariant, steps)) => format!("{} broken: {steps:?}", invariant.id()),
            None if found.exhausted => "exhausted, all hold".to_owned(),
            None => "all hold so far".to_owned(),
        };
        let (states, unique, depth) = (found.states, found.unique, found.depth);
        println!("| {} | {states} | {unique} | {depth} | {:.1} | {result} |", rules.name, found.took.as_secs_f64());
    }
    println!("\n| without | in | breaks | states | steps | shortest trace |\n|---|---|---|---|---|---|");
    for mutant in Mutation::all().into_iter().filter(|mutant| mutant.rules.name.contains(&asked)) {
        let found = shortest(&mutant.rules, MUTANT);
        let (invariant, steps) = found.broken.expect("every mutant is caught");
        let (guard, name, count) = (mutant.guard, mutant.rules.name, steps.len());
        println!("| {guard} | {name} | {} | {} | {count} | {steps:?} |", invariant.id(), found.states);
    }
}
