//! What must hold of every run, whatever goes wrong in it: the fleet's invariants as the core states them, over what really was said,
//! shown and done. What only a simulation can see stands beside them, under the same names.

mod audited;
mod decided;
mod fails;
mod heard;
mod obeyed;
mod recorded;
mod staged;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::{
    Timestamp, Zone,
    fleet::{
        gate::ProbeId,
        held::Fence,
        history::{Event as Judged, Ledger},
        invariants::{self as check, Invariant},
    },
};
use fusebox_proto::{
    duration,
    sync::v1::{self as sync, sync_response::Message as Down},
    v1,
};

use crate::{
    faults::Fault,
    history::{Event, History, Shown, Taken, What},
    replica::{LOOK_EVERY, Replica},
    world::{self, LEASE, Terms},
};

/// What is seen late because hosts take turns, and replicas are looked at from time to time.
const SLACK: Duration = world::STEP.saturating_mul(2).saturating_add(LOOK_EVERY);
/// The policy of service B in every story.
const OWN_POLICY: &str = "namespaces/default/policies/service-b";
/// How long what a replica has seen counts.
const EVIDENCE: Duration = Duration::from_secs(60);

/// What must hold: of the fleet, or of rollouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Fleet(Invariant),
    Rollout(staged::Rule),
}

impl From<Invariant> for Rule {
    fn from(invariant: Invariant) -> Self {
        Self::Fleet(invariant)
    }
}

impl From<staged::Rule> for Rule {
    fn from(rule: staged::Rule) -> Self {
        Self::Rollout(rule)
    }
}

/// What must hold of rollouts, in words.
pub(crate) fn rules_of_rollouts() -> Vec<String> {
    staged::Rule::ALL.iter().map(ToString::to_string).collect()
}

pub(crate) use audited::check as check_audit;

/// Something that must not be.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) at: Duration,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3}: {}\n    ", self.at.as_secs_f64(), self.what)?;
        match &self.rule {
            Rule::Fleet(invariant) => write!(f, "{invariant}"),
            Rule::Rollout(rule) => write!(f, "{rule}"),
        }
    }
}

/// One run of a replica.
type Member = (String, u32);

/// A verdict that one replica was told.
struct Word {
    state: FleetState,
    policy_revision: u64,
    lease: Duration,
    /// When the replica heard it first.
    heard: Option<Duration>,
    /// When a server last stood behind it, before this replica.
    affirmed: Duration,
}

#[derive(Default)]
struct Seen {
    zone: Option<Zone>,
    run: u32,
    shown: Option<Shown>,
    /// Verdicts about service B.
    words: BTreeMap<Fence, Word>,
    /// Verdicts that were heard while nothing was held, and not confirmed yet.
    anew: BTreeSet<Fence>,
    /// Permits of the present half-open verdict that are neither used nor given back.
    permits: Vec<(String, ProbeId)>,
    /// All that it ever heard of: a permit that is told again counts once.
    heard: BTreeSet<ProbeId>,
    /// When it last heard anything from a control plane.
    last_word: Duration,
    /// The number of its newest heartbeat that has arrived, and when that was.
    beat: (u64, Duration),
    /// Versions of the overrides that it was told, and whether there were any.
    overrides: BTreeMap<(u64, u64), bool>,
    /// Whether it has acknowledged overrides, and not that there are none.
    acknowledged: bool,
    /// Its store was wiped: revisions count from one again.
    begins_again: bool,
    /// Key -> when it last reported something that speaks against the target, and what it had been told by then.
    witness: BTreeMap<String, (Duration, Fence)>,
}

/// What the server last said of a breaker.
#[derive(Clone, Copy, Debug)]
struct Said {
    fence: Fence,
    state: FleetState,
    policy_revision: u64,
}

struct Check {
    /// What the core judges by.
    ledger: Ledger<String, Member>,
    replicas: BTreeMap<String, Seen>,
    /// What the policy allows.
    terms: Terms,
    /// Everything that was said about breakers, in the order of the server's numbers.
    all_said: BTreeMap<Fence, (String, FleetState)>,
    /// Targets of the caller.
    targets: usize,
    /// Runs of the server.
    run: u64,
    said: BTreeMap<String, Said>,
    /// Permit -> key, until when it can be used: until its outcome has arrived, however long ago it was used.
    permits: BTreeMap<ProbeId, (String, Duration)>,
    /// When replicas last reported on a breaker, and when the outcome of a probe last arrived.
    reported: BTreeMap<String, Duration>,
    probed: BTreeMap<String, Duration>,
    /// Breakers of which replicas have told this run of the server that they hold a verdict.
    held: BTreeSet<String>,
    /// When a replica was last lost.
    lost: Option<Duration>,
    /// Until when a server that follows another one listens and decides nothing.
    learns_until: Duration,
    /// When this run of the server first said something about a breaker, by term.
    spoke: BTreeMap<u64, Duration>,
    /// When it was last seen to renew nothing, though it had said something, and whether that was its last answer: it does not trust
    /// itself.
    frozen: Option<(Duration, bool)>,
    records: recorded::Records,
    staging: staged::Staging,
    found: Vec<Violation>,
}

/// Checks a history.
pub(crate) fn check(events: &[Event], replicas: &[Replica], terms: Terms, recorded: bool) -> Vec<Violation> {
    let seen = |replica: &Replica| Seen {
        zone: replica.zone.map(|zone| Zone::try_new(zone).expect("a zone's name")),
        ..Seen::default()
    };
    let mut check = Check {
        ledger: Ledger::default(),
        replicas: replicas.iter().map(|replica| (replica.name.to_owned(), seen(replica))).collect(),
        terms,
        all_said: events.iter().filter_map(said).collect(),
        targets: replicas.iter().map(|replica| replica.targets.len()).max().unwrap_or_default(),
        run: 0,
        said: BTreeMap::new(),
        permits: BTreeMap::new(),
        reported: BTreeMap::new(),
        probed: BTreeMap::new(),
        held: BTreeSet::new(),
        lost: None,
        learns_until: Duration::ZERO,
        spoke: BTreeMap::new(),
        frozen: None,
        records: recorded::Records::default(),
        staging: staged::Staging::new(replicas),
        found: Vec::new(),
    };
    // A replica may have heard of an override before the operator hears that it is taken.
    for event in events {
        if let What::Ordered(Taken::Forced { length, .. }) = event.what {
            let end = stamp(event.at + length);
            check.judge(event.at, Judged::Forced { key: String::new(), end }, String::new);
        }
    }
    for event in events {
        check.event(event);
        check.enforced(event.at);
        // What is broken once stays broken for a while; the first ones tell.
        if check.found.len() > 20 {
            break;
        }
    }
    check.settle(Duration::MAX);
    if recorded {
        check.recorded();
    }
    check.found
}

/// Everything that is not in order at the end of a run that should be.
pub(crate) fn unsettled(history: &History, replicas: &[Replica], at: Duration) -> Vec<Violation> {
    let (shown, revision) = history.look(|shown, revision| (shown.clone(), revision));
    let found = replicas.iter().filter_map(|replica| {
        let own = shown.get(replica.name)?;
        let converged = world::has_converged(own, revision);
        (!world::is_in_order(own, replica, revision)).then(|| Violation {
            rule: if converged { Invariant::L1 } else { Invariant::L4 }.into(),
            at,
            what: format!("{} is not in order in the end: {own}; the newest revision is {revision}", replica.name),
        })
    });
    let mut found: Vec<Violation> = found.collect();
    if found.is_empty() {
        found.push(Violation { rule: Invariant::L1.into(), at, what: "nothing stays in order".to_owned() });
    }
    found
}

pub(crate) fn key_of(key: Option<&v1::BreakerKey>) -> String {
    key.map(|key| format!("{}/{}@{}", key.policy, key.strategy, key.zone)).unwrap_or_default()
}

fn span(wire: Option<prost_types::Duration>) -> Duration {
    wire.and_then(|wire| duration::from_wire(wire).ok()).unwrap_or_default()
}

/// The number of a verdict that somebody is told, what it is about and what it says.
fn said(event: &Event) -> Option<(Fence, (String, FleetState))> {
    let What::Issued { message, .. } = &event.what else { return None };
    let Some(Down::Verdict(verdict)) = &message.message else { return None };
    let fence = Fence { term: verdict.term, rev: verdict.rev };
    Some((fence, (key_of(verdict.key.as_ref()), state(verdict))))
}

fn state(verdict: &sync::Verdict) -> FleetState {
    FleetState::try_from(verdict.state()).expect("the control plane names a state")
}

const fn stamp(at: Duration) -> Timestamp {
    Timestamp::after_origin(at)
}

impl Check {
    fn must(&mut self, holds: bool, invariant: Invariant, at: Duration, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation { rule: invariant.into(), at, what: what() });
        }
    }

    /// Lets the core judge what happens.
    fn judge(&mut self, at: Duration, event: Judged<String, Member>, what: impl FnOnce() -> String) {
        if let Err(broken) = self.ledger.observe(stamp(at), event) {
            self.found.push(Violation { rule: broken.invariant.into(), at, what: what() });
        }
    }

    fn of(&mut self, replica: &str) -> &mut Seen {
        self.replicas.entry(replica.to_owned()).or_default()
    }

    fn event(&mut self, Event { at, what }: &Event) {
        let at = *at;
        match what {
            What::Started { replica } => {
                let seen = self.of(replica);
                *seen = Seen { zone: seen.zone.take(), run: seen.run + 1, last_word: at, ..Seen::default() };
                self.restarted(replica);
            }
            What::Shown { replica, shown } => {
                self.shown(at, replica, shown);
                self.runs(at, replica, OWN_POLICY, shown);
            }
            What::Admitted { replica, shown } => self.admitted(at, replica, shown),
            What::Refused { replica, shown } => self.refused(at, replica, shown),
            What::Told { replica, message } => self.told(at, replica, message.message.as_ref()),
            What::Arrived { replica, message } => {
                self.arrived(at, replica, message.message.as_ref());
                self.hears(at, replica, message.message.as_ref());
            }
            What::Issued { replica, message } => {
                self.issued(at, replica, message.message.as_ref());
                self.sends(at, replica, message.message.as_ref());
            }
            What::Heard { replica, message } => {
                self.heard(at, replica, message.message.as_ref());
                self.reads(at, replica, message.message.as_ref());
            }
            What::ServerUp => {
                self.anew(at);
                self.run += 1;
                self.said.clear();
                self.held.clear();
                self.spoke.clear();
                self.frozen = None;
                for seen in self.replicas.values_mut() {
                    seen.overrides.clear();
                    seen.acknowledged = false;
                }
                // The first one has nobody to learn from.
                if self.run > 1 {
                    self.learns_until = at + LEASE;
                }
            }
            What::Term(term) => {
                let taken = Judged::Term { run: self.run, term: *term, stored: true };
                self.judge(at, taken, || format!("term {term} is given out"));
            }
            What::Stored(stored) => self.stored(at, stored),
            What::Logged { key, object: _, from, to } => {
                self.records.row(at, key, from, to);
                self.opened(at, key, to);
            }
            What::Fault(fault) => {
                if let Fault::Crash(host) = fault
                    && let Some(seen) = self.replicas.get_mut(*host)
                {
                    seen.shown = None;
                    self.lost = Some(at);
                    self.restarted(host);
                }
                if matches!(fault, Fault::Wipe | Fault::Restore) {
                    self.replaced();
                }
                if *fault == Fault::Wipe {
                    self.replicas.values_mut().for_each(|seen| seen.begins_again = true);
                }
            }
            What::Ordered(Taken::Overrides { acknowledged, unacknowledged, connected }) => {
                self.listed(at, *acknowledged, unacknowledged, connected);
            }
            What::Ordered(
                Taken::Applied { .. }
                | Taken::Forced { .. }
                | Taken::Released
                | Taken::Stepped { .. }
                | Taken::Refused { .. },
            )
            | What::Ended { .. }
            | What::Reached { .. } => {}
        }
    }
}
