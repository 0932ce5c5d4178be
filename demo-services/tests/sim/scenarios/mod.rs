//! The stories, by what they are about.

mod everything;
mod links;
mod operators;
mod outage;
mod plane;

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;

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
}
