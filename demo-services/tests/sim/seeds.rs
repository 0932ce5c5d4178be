//! For which seeds a scenario runs, and what is said when it fails.

use std::{fmt::Write as _, path::PathBuf, time::Instant};

use crate::world::{self, Run, Scenario};

/// Says how to see a failure again.
struct Replay {
    test: &'static str,
    seed: u64,
    /// What happened, once that is known.
    story: String,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Self { test, seed, story } = self;
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{seed}.txt", test.replace("::", "-")));
        let kept = if story.is_empty() { Ok(()) } else { std::fs::write(&file, story) };
        eprintln!(
            "\nseed {seed} fails{}. All that happened: {} ({kept:?}). Once more:\n  \
             SIM_SEED={seed} RUSTFLAGS=\"--cfg tokio_unstable\" CARGO_TARGET_DIR=target/sim cargo test -p fusebox-demo --test sim {test} -- --exact --nocapture",
            if cfg!(tokio_unstable) {
                ""
            } else {
                ", in a build that does not seed tokio's choices: it may take other seeds there"
            },
            file.display()
        );
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, is {text}")))
}

/// Runs a scenario, which `make` draws from a seed, and checks what must always hold and what `holds` says. `holds` is a closure of the
/// test, which has its name from there.
pub(crate) fn run<H: Fn(&Run)>(default: u64, make: impl Fn(&mut fastrand::Rng) -> Scenario, holds: H) {
    let path = std::any::type_name::<H>();
    let test = path.trim_start_matches("sim::").trim_end_matches("::{{closure}}");
    let one = number("SIM_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(default),
    };
    for seed in seeds {
        let mut replay = Replay { test, seed, story: String::new() };
        let began = Instant::now();
        let run = world::run(seed, make(&mut fastrand::Rng::with_seed(seed)));
        for event in run.events.iter().filter(|event| !event.is_routine()) {
            let _ = writeln!(replay.story, "{event}");
        }
        if one.is_some() {
            eprintln!("{}settled at {:?}; {:?} of real time", replay.story, run.settled, began.elapsed());
        }
        let found: Vec<String> = run.violations.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "seed {seed}:\n{}", found.join("\n"));
        holds(&run);
        drop(replay);
    }
}
