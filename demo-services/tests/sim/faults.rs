//! What goes wrong, and when: given by a scenario, or drawn from the seed.

use std::time::Duration;

use fastrand::Rng;
use turmoil::Sim;

use crate::{
    disk::{self, Slot},
    replica::Replicas,
    world::{Ending, LATENCY, PLANE},
};

/// Something done to the network, to a process or to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing passes between the two, and nobody is told.
    Partition(&'static str, &'static str),
    /// Nothing passes from the first to the second.
    OneWay(&'static str, &'static str),
    /// Both ways are open again. What was lost on the way stays lost.
    Repair(&'static str, &'static str),
    /// What is sent between the two waits.
    Hold(&'static str, &'static str),
    /// What has waited arrives, late and in a burst.
    Release(&'static str, &'static str),
    /// Each message between the two takes so long.
    Slow(&'static str, &'static str, Duration),
    /// A process ends without a word.
    Crash(&'static str),
    /// It starts again.
    Bounce(&'static str),
    /// The control plane's process is asked to end, and lets its streams end first.
    Drain,
    /// A replica's process, or the control plane's, stands still for so long, by its own clock in no time.
    Pause(&'static str, Duration),
    /// What a replica keeps on disk is overwritten with something else.
    Spoil(&'static str),
    /// The control plane's database is backed up.
    BackUp,
    /// The backup is put in its place: a server finds it at its next start.
    Restore,
    /// An empty one is put in its place.
    Wipe,
    /// The disk's health changes.
    Disk(disk::Health),
}

/// Does it.
pub(crate) fn cause(sim: &mut Sim<'_>, disk: &Slot, replicas: &Replicas, ending: &Ending, fault: Fault) {
    match fault {
        Fault::Partition(a, b) => sim.partition(a, b),
        Fault::OneWay(from, to) => sim.partition_oneway(from, to),
        Fault::Repair(a, b) => sim.repair(a, b),
        Fault::Hold(a, b) => sim.hold(a, b),
        Fault::Release(a, b) => sim.release(a, b),
        Fault::Slow(a, b, latency) => sim.set_link_latency(a, b, latency),
        Fault::Crash(host) => sim.crash(host),
        Fault::Bounce(host) => sim.bounce(host),
        Fault::Drain => ending.begin(),
        Fault::Pause(host, length) => replicas.pauses.stop(host, length),
        Fault::Spoil(host) => replicas.spoil(host),
        Fault::BackUp => disk.back_up(),
        Fault::Restore => disk.restore(),
        Fault::Wipe => disk.wipe(),
        Fault::Disk(health) => disk.falls_ill(health),
    }
}

fn millis(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..=to))
}

/// Between the control plane and a replica, for each link one trouble after the other until `until`, all mended by then.
pub(crate) fn bad_links(
    rng: &mut Rng,
    replicas: &[&'static str],
    from: Duration,
    until: Duration,
) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for replica in replicas {
        let mut at = from + millis(rng, 0, 5_000);
        loop {
            let end = at + millis(rng, 200, 8_000);
            if end >= until {
                break;
            }
            let (begin, mend) = match rng.u8(0..5) {
                0 => (Fault::Partition(PLANE, replica), Fault::Repair(PLANE, replica)),
                1 => (Fault::OneWay(PLANE, replica), Fault::Repair(PLANE, replica)),
                2 => (Fault::OneWay(replica, PLANE), Fault::Repair(PLANE, replica)),
                3 => (Fault::Hold(PLANE, replica), Fault::Release(PLANE, replica)),
                _ => (Fault::Slow(PLANE, replica, millis(rng, 50, 900)), Fault::Slow(PLANE, replica, LATENCY)),
            };
            faults.push((at, begin));
            faults.push((end, mend));
            at = end + millis(rng, 500, 10_000);
        }
    }
    faults
}

/// Crashes of the control plane, each followed by a start; the last start is before `until`.
pub(crate) fn crashes(rng: &mut Rng, from: Duration, until: Duration) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    let mut at = from + millis(rng, 0, 6_000);
    loop {
        let back = at + millis(rng, 20, 4_000);
        if back >= until {
            return faults;
        }
        faults.push((at, Fault::Crash(PLANE)));
        faults.push((back, Fault::Bounce(PLANE)));
        at = back + millis(rng, 1_000, 12_000);
    }
}
