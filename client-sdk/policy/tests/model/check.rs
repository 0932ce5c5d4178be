//! Explores a configuration, and says what was found in how many states.

#![expect(clippy::disallowed_types, reason = "how long a run took is for the table; the model has no clock")]

use std::{
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use fusebox_policy::fleet::invariants::Invariant;
use stateright::{Checker, HasDiscoveries, Model as _, Path};

use crate::{
    rules::Rules,
    world::{Step, World},
};

/// The name of what must hold always.
pub(crate) const HOLDS: &str = "every invariant holds";

/// What exploring a configuration has shown.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) unique: usize,
    pub(crate) depth: usize,
    pub(crate) took: Duration,
    /// Whether there is nothing else within the bounds.
    pub(crate) exhausted: bool,
    /// What is broken, and the shortest way there.
    pub(crate) broken: Option<(Invariant, Vec<Step>)>,
    /// What was meant to be reached, and was.
    pub(crate) reached: Vec<&'static str>,
}

/// Breadth first, until something is broken, nothing is left, or so many states were generated.
pub(crate) fn explore(rules: &Rules, most: usize) -> Found {
    let begun = Instant::now();
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let checker = rules
        .clone()
        .checker()
        .threads(threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(most)
        .spawn_bfs()
        .join();
    let discoveries = checker.discoveries();
    Found {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        exhausted: !discoveries.contains_key(HOLDS) && checker.state_count() < most,
        broken: discoveries.get(HOLDS).map(broken),
        reached: discoveries.into_keys().filter(|name| *name != HOLDS).collect(),
    }
}

/// The shortest way to what a mutant breaks, and how many states were generated until it was found.
pub(crate) fn shortest(rules: &Rules, most: usize) -> Found {
    let mut found = explore(rules, most);
    // The checker looks at states in blocks, and keeps the last violation of a block.
    while let Some((_, steps)) = &found.broken {
        let begun = Instant::now();
        let checker = rules
            .clone()
            .checker()
            .finish_when(HasDiscoveries::AnyFailures)
            .target_max_depth(steps.len() + 1)
            .spawn_bfs()
            .join();
        let Some(path) = checker.discovery(HOLDS) else { break };
        found = Found {
            states: checker.state_count(),
            unique: checker.unique_state_count(),
            depth: checker.max_depth(),
            took: begun.elapsed(),
            broken: Some(broken(&path)),
            ..found
        };
    }
    found
}

fn broken(path: &Path<World, Step>) -> (Invariant, Vec<Step>) {
    let invariant = path.last_state().broken.expect("the path leads to a state in which something is broken");
    (invariant, path.clone().into_actions())
}
