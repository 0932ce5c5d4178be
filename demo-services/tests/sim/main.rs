//! Deterministic simulation of a fleet: the real SDK and the real control plane on a simulated network, in simulated time.
//!
//! Each scenario runs for a few seeds; `SIM_SEEDS=n` runs more, `SIM_SEED=n` one, with all that happens in it. Everything that is said on
//! a connection, and everything that replicas show and do, goes into a [`history`]; [`properties`] holds it against the invariants, and
//! each scenario against what it is about. The last part of a run is calm, and everything must be in order within a bound. What happened
//! in a run that fails is kept in a file.
//!
//! From the seed come the network's latencies, the faults, the moments of calls, and all random numbers of SDK and control plane. In an
//! ordinary build the order in which `tokio::select!` looks at its branches does not: a seed then tells much the same story, but not to
//! the millisecond, and a rare violation may need a few tries to come back. Built with `RUSTFLAGS="--cfg tokio_unstable"` (and best a
//! target folder of its own) that is seeded too, and one seed in a process of its own tells exactly one story; a test holds it to that.
//! Wall time reaches nothing that is compared.
//!
//! Not simulated: threads (all hosts share one), wall clocks, the control plane's own files (a store in memory stands for them), and retransmission: what a partition has swallowed stays lost, and
//! its connection stalls until somebody gives it up.

mod disk;
mod faults;
mod history;
mod net;
mod operator;
mod page;
mod properties;
mod relay;
mod replica;
mod scenarios;
mod seeds;
mod stager;
mod stored;
mod tap;
mod target;
mod world;
