//! How likely it is that a fleet decides wrongly, and what an outage costs it: tens of thousands of simulated fleets.
//!
//! ```sh
//! cargo bench -p fusebox-demo --bench odds
//! ```
//!
//! Prints a table, and fails where a count is not what is promised. `ODDS_SEED` is the first seed, `ODDS_RUNS` how many each row has.

mod fleet;
mod outage;
mod runs;
mod sick;
mod waste;

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
    time::Instant,
};

use runs::{Tally, many};
use waste::Traffic;

const SIZES: [usize; 3] = [3, 10, 50];
/// What is measured of an outage's cost, and from which size on a fleet must waste at most a third of what each alone wastes. Of three
/// replicas two must see the outage anyway.
const WASTE: [(&str, Traffic, Option<usize>); 3] = [
    ("waste, rare", Traffic::Rare, Some(10)),
    ("waste, some", Traffic::Some, None),
    ("waste, short", Traffic::SomeShort, Some(50)),
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn show(what: &str, size: usize, took: Instant, tally: &(impl Tally + Display)) -> bool {
    let mut out = io::stdout();
    let _ = writeln!(out, "{what:<14} fleet of {size:>2}: {tally} ({:.1} s)", took.elapsed().as_secs_f64());
    let faults = tally.faults();
    for fault in faults.iter().take(10) {
        let _ = writeln!(out, "  BROKEN: {fault}");
    }
    faults.is_empty()
}

fn main() -> ExitCode {
    let first = number("ODDS_SEED", 1);
    // Without cargo's word this is a test: only whether it works at all.
    let long = std::env::args().any(|arg| arg == "--bench");
    let runs = number("ODDS_RUNS", if long { 10_000 } else { 20 });
    let _ = writeln!(io::stdout(), "seeds {first} to {}", first + runs - 1);
    let mut holds = true;
    for size in SIZES {
        let began = Instant::now();
        holds &= show("one ill replica", size, began, &many(first, runs, |seed| sick::run(size, seed)));
    }
    for size in SIZES {
        let began = Instant::now();
        holds &= show("outage", size, began, &many(first, runs, |seed| outage::run(size, seed)));
    }
    for (what, traffic, save_from) in WASTE {
        for size in SIZES {
            let began = Instant::now();
            let waste = many(first, runs.min(200), |seed| waste::run(traffic, size, seed));
            holds &= show(what, size, began, &waste);
            if save_from.is_some_and(|from| size >= from) && waste.share() > 1.0 / 3.0 {
                let _ = writeln!(io::stdout(), "  BROKEN: more than a third");
                holds = false;
            }
        }
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
