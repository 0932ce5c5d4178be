//! What must hold of every run, whatever goes wrong in it: checked on the history, by the names of the fleet's invariants.

mod decided;
mod obeyed;

use std::{collections::BTreeMap, fmt, time::Duration};

use fusebox::FleetStateShown as FleetState;
use fusebox_proto::{
    duration,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use crate::{
    faults::Fault,
    history::{Event, History, Shown, Taken, What},
    replica::{LOOK_EVERY, Replica},
    world::{self, LEASE},
};

/// What is seen late because hosts take turns, and replicas are looked at from time to time.
const SLACK: Duration = world::STEP.saturating_mul(2).saturating_add(LOOK_EVERY);
/// How long a message may be under way before its connection is given up: heartbeats are missed, and what was held arrives.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// How long what a replica has seen counts.
const EVIDENCE: Duration = Duration::from_secs(60);

/// Something that must not be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) at: Duration,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3}: {}", self.invariant, self.at.as_secs_f64(), self.what)
    }
}

type Fence = (u64, u64);

/// A verdict that one replica was told.
struct Word {
    state: FleetState,
    policy_revision: u64,
    lease: Duration,
    heard: bool,
    /// When a server last stood behind it, before this replica.
    affirmed: Duration,
}

#[derive(Default)]
struct Seen {
    zone: String,
    shown: Option<Shown>,
    words: BTreeMap<Fence, Word>,
    applied: BTreeMap<String, Fence>,
    /// Permits of the present half-open verdict that are neither used nor given back.
    permits: u32,
    /// When it last reported something that speaks against the target, and what it had been told by then.
    witness: Option<(Duration, Fence)>,
}

struct Check {
    replicas: BTreeMap<String, Seen>,
    /// Probes that may be out at the same time.
    bound: u32,
    terms: Vec<u64>,
    /// Key -> what the server last said: fence, state, revision of the policy.
    said: BTreeMap<String, (Fence, FleetState, u64)>,
    /// Permit -> key, until when it can be used.
    permits: BTreeMap<Fence, (String, Duration)>,
    last_report: Option<Duration>,
    /// Until when a server that follows another one listens and decides nothing.
    learns_until: Duration,
    /// The latest end of any override.
    forced_until: Duration,
    found: Vec<Violation>,
}

/// Checks a history.
pub(crate) fn check(events: &[Event], replicas: &[Replica], bound: u32) -> Vec<Violation> {
    let seen = |replica: &Replica| Seen { zone: replica.zone.unwrap_or_default().to_owned(), ..Seen::default() };
    let forced_until = events.iter().filter_map(|event| {
        let What::Ordered(Taken::Forced { length, .. }) = event.what else { return None };
        Some(event.at + length)
    });
    let mut check = Check {
        replicas: replicas.iter().map(|replica| (replica.name.to_owned(), seen(replica))).collect(),
        bound,
        terms: Vec::new(),
        said: BTreeMap::new(),
        permits: BTreeMap::new(),
        last_report: None,
        learns_until: Duration::ZERO,
        forced_until: forced_until.max().unwrap_or_default(),
        found: Vec::new(),
    };
    for event in events {
        check.event(event);
        check.enforced(event.at);
        // What is broken once stays broken for a while; the first ones tell.
        if check.found.len() > 20 {
            break;
        }
    }
    check.found
}

/// Everything that is not in order at the end of a run that should be.
pub(crate) fn unsettled(history: &History, replicas: &[Replica], at: Duration) -> Vec<Violation> {
    let (shown, revision) = history.look(|shown, revision| (shown.clone(), revision));
    let found = replicas.iter().filter_map(|replica| {
        let own = shown.get(replica.name)?;
        let invariant = if own.connected && own.revision == revision { "L1" } else { "L4" };
        (!world::is_in_order(own, replica, revision)).then(|| Violation {
            invariant,
            at,
            what: format!("{} is not in order in the end: {own}; the newest revision is {revision}", replica.name),
        })
    });
    let mut found: Vec<Violation> = found.collect();
    if found.is_empty() {
        found.push(Violation { invariant: "L1", at, what: "nothing stays in order".to_owned() });
    }
    found
}

fn key_of(key: Option<&v1::BreakerKey>) -> String {
    key.map(|key| format!("{}/{}@{}", key.policy, key.strategy, key.zone)).unwrap_or_default()
}

fn span(wire: Option<prost_types::Duration>) -> Duration {
    wire.and_then(|wire| duration::from_wire(wire).ok()).unwrap_or_default()
}

fn state(verdict: &sync::Verdict) -> FleetState {
    FleetState::try_from(verdict.state()).expect("the control plane names a state")
}

impl Check {
    fn must(&mut self, holds: bool, invariant: &'static str, at: Duration, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation { invariant, at, what: what() });
        }
    }

    fn of(&mut self, replica: &str) -> &mut Seen {
        self.replicas.entry(replica.to_owned()).or_default()
    }

    fn event(&mut self, Event { at, what }: &Event) {
        let at = *at;
        match what {
            What::Started { replica } => {
                let zone = std::mem::take(&mut self.of(replica).zone);
                *self.of(replica) = Seen { zone, ..Seen::default() };
            }
            What::Shown { replica, shown } => self.shown(at, replica, shown),
            What::Admitted { replica, shown } => self.admitted(at, replica, shown),
            What::Refused { replica, shown } => {
                self.must(shown.fleet != FleetState::ForcedClosed, "S6", at, || {
                    format!("{replica} refuses a call though an operator forces it closed")
                });
            }
            What::Told { replica, message } => match &message.message {
                Some(Up::VerdictAck(ack)) if ack.key.is_some() => {
                    let (key, fence) = (key_of(ack.key.as_ref()), (ack.term, ack.rev));
                    let seen = self.of(replica);
                    // One whose lease had ended may be told again: nothing newer has been said.
                    let lapsed = !seen.shown.as_ref().is_some_and(Shown::is_held);
                    let before = seen.applied.insert(key, fence).unwrap_or_default();
                    let holds = fence > before || (lapsed && fence == before);
                    self.must(holds, "S1", at, || format!("{replica} applies {fence:?} after {before:?}"));
                }
                Some(Up::ProbeOutcome(outcome)) if outcome.result() == sync::probe_outcome::Result::Inconclusive => {
                    let seen = self.of(replica);
                    seen.permits = seen.permits.saturating_sub(1);
                }
                _ => {}
            },
            What::Arrived { replica, message } => self.arrived(at, replica, message.message.as_ref()),
            What::Issued { replica, message } => self.issued(at, replica, message.message.as_ref()),
            What::Heard { replica, message } => match &message.message {
                Some(Down::Verdict(verdict)) => {
                    let fence = (verdict.term, verdict.rev);
                    let seen = self.of(replica);
                    if let Some(word) = seen.words.get_mut(&fence)
                        && !std::mem::replace(&mut word.heard, true)
                    {
                        // Permits of an older verdict are void; one that is only said again changes nothing.
                        seen.permits = 0;
                    }
                    let key = verdict.key.clone().unwrap_or_default();
                    let fits = key.zone.is_empty() || key.zone == seen.zone;
                    self.must(fits, "S10", at, || format!("{replica} is told of zone {}", key.zone));
                }
                Some(Down::ProbePermit(_)) => self.of(replica).permits += 1,
                _ => {}
            },
            What::ServerUp => {
                self.said.clear();
                // The first one has nobody to learn from.
                if !self.terms.is_empty() {
                    self.learns_until = at + LEASE;
                }
            }
            What::Term(term) => {
                let last = self.terms.last().copied().unwrap_or_default();
                self.terms.push(*term);
                self.must(*term > last, "S8", at, || format!("term {term} is given out after {last}"));
            }
            What::Fault(Fault::Crash(host)) => {
                if let Some(seen) = self.replicas.get_mut(*host) {
                    seen.shown = None;
                }
            }
            What::Fault(_) | What::Ordered(_) | What::Ended { .. } | What::Reached { .. } => {}
        }
    }
}
