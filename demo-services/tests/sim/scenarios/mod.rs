//! The stories, by what they are about.

mod changes;
mod disks;
mod everything;
mod hostile;
mod links;
mod matrix;
mod operators;
mod outage;
mod plane;
mod rollouts;
mod ways;
mod witnesses;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::{Timestamp, fleet::invariants as check};
use fusebox_proto::{
    sync::v1::{sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use crate::{
    faults::Fault,
    history::{Shown, What},
    replica::Replica,
    target::Health,
    world::Run,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(rng: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..=to))
}

/// The policy of most stories: a breaker that trips soon and is shared by the whole fleet.
const POLICY: &str = "
apiVersion: fusebox/v1
kind: Policy
metadata: { name: service-b }
spec:
  match: { caller: service-a, target: service-b }
  pipeline:
    - circuitBreaker:
        window: { time: 10s }
        trip: { failureRate: { percent: 50, minCalls: 10 }, consecutiveFailures: 5 }
        delay: 2s
        delayFactor: 1.5
        delayMax: 6s
        halfOpen: { probes: 3 }
    - timeout: 300ms
  coordination: { mode: balanced, scope: fleet }
";

/// Three busy replicas and one that makes no calls.
fn fleet() -> Vec<Replica> {
    vec![Replica::busy("a-1"), Replica::busy("a-2").every(200), Replica::busy("a-3").every(400), Replica::idle("a-4")]
}

const NAMES: &[&str] = &["a-1", "a-2", "a-3", "a-4"];

/// Down, for all, from one time to another.
fn down(how: Health, from: Duration, until: Duration) -> impl Fn(Duration, &Replica) -> Health + Send + Sync + 'static {
    move |at, _| if at >= from && at < until { how } else { Health::Well }
}

fn some_trouble(rng: &mut fastrand::Rng) -> Health {
    if rng.bool() { Health::Failing } else { Health::Hanging }
}

/// What the control plane decided, and when, each once.
fn verdicts(run: &Run) -> Vec<(Duration, v1::FleetState)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for event in &run.events {
        if let What::Issued { message, .. } = &event.what
            && let Some(Down::Verdict(verdict)) = &message.message
            && seen.insert((verdict.term, verdict.rev))
        {
            found.push((event.at, verdict.state()));
        }
    }
    found
}

/// The times at which nothing opened.
const NEVER: [Duration; 0] = [];

/// When it opened.
fn openings(run: &Run) -> Vec<Duration> {
    let opened = verdicts(run).into_iter().filter(|(_, state)| *state == v1::FleetState::Open);
    opened.map(|(at, _)| at).collect()
}

/// How soon every replica is open once enough have tripped: a message to the control plane, one back, and a look.
const OPENS_WITHIN: Duration = Duration::from_millis(100);

/// L2, of a fleet of a few: two that have tripped, or a decision before, open all of these replicas in time.
fn open_in_time(run: &Run, names: &[&str]) {
    let mut tripped: BTreeMap<&str, Duration> = BTreeMap::new();
    for event in &run.events {
        if let What::Told { replica, message } = &event.what
            && let Some(Up::Transition(transition)) = &message.message
            && transition.window.as_ref().is_some_and(|window| window.own_trip)
        {
            tripped.entry(replica).or_insert(event.at);
        }
    }
    let mut enough: Vec<Duration> = tripped.into_values().collect();
    enough.sort();
    let enough =
        enough.get(1).into_iter().chain(openings(run).first()).min().copied().expect("somebody sees an outage");
    let first =
        |name: &&str| run.shown(name).iter().find(|(_, shown)| shown.fleet == FleetState::Open).map(|(at, _)| *at);
    let open: Option<Vec<Duration>> = names.iter().map(first).collect();
    let last = open.as_ref().and_then(|open| open.iter().max()).copied();
    let in_time = check::l2_opens_in_time(stamp(enough), last.map(stamp), OPENS_WITHIN);
    assert!(in_time, "enough have tripped at {enough:?}, and {names:?} are open at {open:?}");
}

const fn stamp(at: Duration) -> Timestamp {
    Timestamp::after_origin(at)
}

impl Run {
    /// What went wrong, and when.
    fn faults(&self) -> Vec<(Duration, Fault)> {
        self.events
            .iter()
            .filter_map(|event| {
                let What::Fault(fault) = event.what else { return None };
                Some((event.at, fault))
            })
            .collect()
    }

    /// What a replica showed, from when on.
    fn shown(&self, name: &str) -> Vec<(Duration, &Shown)> {
        self.events
            .iter()
            .filter_map(|event| {
                let What::Shown { replica, shown } = &event.what else { return None };
                (replica == name).then_some((event.at, shown))
            })
            .collect()
    }

    /// What a replica showed at a time.
    fn shown_at(&self, name: &str, at: Duration) -> &Shown {
        let before = self.shown(name).into_iter().take_while(|(from, _)| *from <= at);
        before.last().unwrap_or_else(|| panic!("{name} is not there at {at:?}")).1
    }

    /// Whether a replica ever showed this state of the fleet.
    fn ever(&self, name: &str, state: FleetState) -> bool {
        self.shown(name).iter().any(|(_, shown)| shown.fleet == state)
    }

    /// Of a replica's calls, how many have succeeded, and how many there were.
    fn calls(&self, name: &str) -> (usize, usize) {
        let own = self.events.iter().filter_map(|event| {
            if let What::Ended { replica, ok } = &event.what {
                return (replica == name).then_some(*ok);
            }
            matches!(&event.what, What::Refused { replica, .. } if replica == name).then_some(false)
        });
        own.fold((0, 0), |(well, all), ok| (well + usize::from(ok), all + 1))
    }
}

const TEN: &[&str] = &["a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8", "a-9", "a-10"];

fn ten() -> Vec<Replica> {
    TEN.iter().map(|name| Replica::busy(name).every(200)).collect()
}

/// Two of ten are sick once all have a vote: less than the quorum of ten, and enough for one of five.
fn two_sick(at: Duration, asks: &Replica) -> Health {
    let sick = at > secs(6) && ["a-1", "a-2"].contains(&asks.name);
    if sick { Health::Failing } else { Health::Well }
}
