//! What happened in a run, in order, as somebody who sees everything would write it down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fusebox::{Client, FleetStateShown as FleetState, PolicySource};
use fusebox_policy::breaker::LocalState;
use fusebox_proto::{
    sync::v1::{self as sync, SyncRequest, SyncResponse, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use crate::{faults::Fault, stored::Stored, target::SERVICE_B};

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Since the simulation began.
    pub(crate) at: Duration,
    pub(crate) what: What,
}

/// What.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A replica's process began.
    Started { replica: String },
    /// A replica's status is another one.
    Shown { replica: String, shown: Shown },
    /// A replica's call was let through; what its status was right after.
    Admitted { replica: String, shown: Shown },
    /// A replica's call was refused; what its status was right after.
    Refused { replica: String, shown: Shown },
    /// A call that was let through has ended.
    Ended { replica: String, ok: bool },
    /// A call arrived at the target.
    Reached { replica: String },
    /// An SDK wrote a message to its connection.
    Told { replica: String, message: Box<SyncRequest> },
    /// The control plane read it.
    Arrived { replica: String, message: Box<SyncRequest> },
    /// The control plane wrote a message to a connection.
    Issued { replica: String, message: Box<SyncResponse> },
    /// The SDK read it.
    Heard { replica: String, message: Box<SyncResponse> },
    /// A control plane's process began.
    ServerUp,
    /// The store gave out a term.
    Term(u64),
    /// The store holds something else than before.
    Stored(Box<Stored>),
    /// The store took a row about a decision of the fleet.
    Logged { key: String, object: String, from: String, to: String },
    /// The network or a process was hurt, or mended.
    Fault(Fault),
    /// An operator's word was taken.
    Ordered(Taken),
}

/// What became of an operator's word.
#[derive(Clone, Debug)]
pub(crate) enum Taken {
    /// Policies are stored, and the newest revision is this.
    Applied { revision: u64 },
    /// Breakers are forced for so long, asked for at that time.
    Forced { state: FleetState, asked: Duration, length: Duration },
    /// Overrides have been ended.
    Released,
    /// A rollout is so far, its stages counted from 1.
    Stepped { state: v1::RolloutState, stage: u32 },
    /// A step of a rollout is not made.
    Refused { why: Arc<str> },
    /// What an operator saw: replicas that have acknowledged the override, and those that have not.
    Overrides { acknowledged: u32, unacknowledged: BTreeSet<String>, connected: BTreeSet<String> },
}

/// What a replica shows of its one breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) connected: bool,
    /// The store's revision that runs.
    pub(crate) revision: u64,
    /// The revision of the policy of the breaker; zero without one.
    pub(crate) policy_revision: u64,
    pub(crate) local: LocalState,
    pub(crate) fleet: FleetState,
    /// Whether no call passes, but for probes.
    pub(crate) refuses: bool,
    /// How many breakers of other targets a verdict of the fleet holds.
    pub(crate) others_held: usize,
    /// The policies in force: resource name -> number of the definition.
    pub(crate) policies: BTreeMap<String, u64>,
    /// Numbers of the definitions that the replica could not use.
    pub(crate) rejected: BTreeSet<u64>,
    /// Where its policies come from.
    pub(crate) source: PolicySource,
}

impl Shown {
    pub(crate) fn of(client: &Client) -> Self {
        let status = client.status();
        let (own, others): (Vec<_>, Vec<_>) =
            status.breakers.iter().partition(|breaker| breaker.target.as_str() == SERVICE_B);
        let breaker = own.first();
        Self {
            connected: status.connected,
            revision: status.revision.0,
            policy_revision: breaker.map_or(0, |breaker| breaker.revision.0),
            local: breaker.map_or(LocalState::Closed, |breaker| breaker.local),
            fleet: breaker.map_or(FleetState::Released, |breaker| breaker.fleet),
            refuses: breaker.is_some_and(|breaker| breaker.admission <= 0.0),
            others_held: others.iter().filter(|breaker| is_held(breaker.fleet)).count(),
            policies: status
                .policies
                .iter()
                .map(|own| (format!("namespaces/{}/policies/{}", status.namespace, own.name), own.revision.0))
                .collect(),
            rejected: status.rejected.iter().map(|own| own.revision.0).collect(),
            source: status.source,
        }
    }

    /// Whether a verdict of the fleet keeps calls back: an operator's word is none.
    pub(crate) fn is_held(&self) -> bool {
        is_held(self.fleet)
    }

    pub(crate) fn is_forced(&self) -> bool {
        matches!(self.fleet, FleetState::ForcedOpen | FleetState::ForcedClosed | FleetState::Disabled)
    }
}

/// Whether a verdict of the fleet keeps calls back.
pub(crate) const fn is_held(state: FleetState) -> bool {
    matches!(state, FleetState::Open | FleetState::HalfOpen | FleetState::Ramp)
}

/// A cheap handle on the events of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    events: Vec<Event>,
    shown: BTreeMap<String, Shown>,
    revision: u64,
    stored: Option<Stored>,
    /// The end of the present step: a host whose clock has jumped is not ahead of the others.
    latest: Duration,
}

impl History {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happens on a simulated host, now.
    pub(crate) fn record(&self, what: What) {
        let at = turmoil::sim_elapsed().expect("only hosts record");
        let latest = self.inner().latest;
        self.record_at(at.min(latest), what);
    }

    pub(crate) fn record_at(&self, at: Duration, what: What) {
        let mut inner = self.inner();
        if let What::Shown { replica, shown } = &what {
            inner.shown.insert(replica.clone(), shown.clone());
        }
        if let What::Stored(stored) = &what {
            inner.revision = stored.revision;
            inner.stored = Some(Stored::clone(stored));
        }
        inner.events.push(Event { at, what });
    }

    /// Begins a step that ends at that time.
    pub(crate) fn step(&self, until: Duration) {
        self.inner().latest = until;
    }

    /// Writes down what the store holds, if that is something else than before.
    pub(crate) fn stored(&self, stored: Stored) {
        let known = self.inner().stored.as_ref().is_some_and(|known| known.is_as(&stored));
        if !known {
            self.record(What::Stored(Box::new(stored)));
        }
    }

    /// What the replicas show now, and the newest revision that is stored.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&BTreeMap<String, Shown>, u64) -> T) -> T {
        let inner = self.inner();
        look(&inner.shown, inner.revision)
    }

    /// Takes everything, in order of time. Hosts of one step take their turns, and each may run ahead of the others by that step.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.inner().events);
        events.sort_by_key(|event| event.at);
        events
    }
}

impl Event {
    /// Whether it tells little: what comes again and again.
    pub(crate) fn is_routine(&self) -> bool {
        let beats = |message: &SyncRequest| matches!(message.message, Some(Up::Heartbeat(_)));
        let acks = |message: &SyncResponse| matches!(message.message, Some(Down::HeartbeatAck(_)));
        match &self.what {
            // What was told has arrived, or has not: the faults say which.
            What::Arrived { .. } | What::Ended { .. } | What::Reached { .. } | What::Refused { .. } => true,
            What::Told { message, .. } => beats(message),
            What::Issued { message, .. } | What::Heard { message, .. } => acks(message),
            What::Admitted { shown, .. } => !shown.refuses,
            What::Started { .. }
            | What::Shown { .. }
            | What::ServerUp
            | What::Term(_)
            | What::Stored(_)
            | What::Logged { .. }
            | What::Fault(_)
            | What::Ordered(_) => false,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} ", self.at.as_secs_f64())?;
        match &self.what {
            What::Started { replica } => write!(f, "{replica} starts"),
            What::Shown { replica, shown } => write!(f, "{replica} shows {shown}"),
            What::Admitted { replica, shown } => write!(f, "{replica} lets a call through: {shown}"),
            What::Refused { replica, shown } => write!(f, "{replica} refuses a call: {shown}"),
            What::Ended { replica, ok } => write!(f, "{replica} call {}", if *ok { "succeeds" } else { "fails" }),
            What::Reached { replica } => write!(f, "{replica} -> target"),
            What::Told { replica, message } => write!(f, "{replica} tells {}", up(message)),
            What::Arrived { replica, message } => write!(f, "plane hears {replica}: {}", up(message)),
            What::Issued { replica, message } => write!(f, "plane tells {replica}: {}", down(message)),
            What::Heard { replica, message } => write!(f, "{replica} hears {}", down(message)),
            What::ServerUp => write!(f, "plane starts"),
            What::Term(term) => write!(f, "plane has term {term}"),
            What::Stored(stored) => write!(f, "store: {stored}"),
            What::Logged { key, object: _, from, to } => write!(f, "store: {key} goes from {from} to {to}"),
            What::Fault(fault) => write!(f, "--- {fault:?}"),
            What::Ordered(taken) => write!(f, "operator: {taken:?}"),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connected,
            revision,
            policy_revision,
            local,
            fleet,
            refuses,
            others_held,
            policies: _,
            rejected,
            source: _,
        } = self;
        let rejected = rejected.len();
        let connected = if *connected { "connected" } else { "alone" };
        let refuses = if *refuses { ", refuses" } else { "" };
        write!(f, "{connected} at {revision} ({policy_revision}), local {}, fleet {fleet}{refuses}", local.name())?;
        if *others_held + rejected > 0 {
            write!(f, "; {others_held} others held, {rejected} policies rejected")?;
        }
        Ok(())
    }
}

fn outcome(window: Option<&sync::BreakerWindow>) -> String {
    window.map_or_else(String::new, |window| {
        let trip = if window.own_trip { ", tripped" } else { "" };
        let local = window.local_state();
        format!("{local:?}{trip}, {}/{} failed, {} rejected", window.failures, window.calls, window.rejected)
    })
}

fn up(message: &SyncRequest) -> String {
    match &message.message {
        Some(Up::Hello(hello)) => format!("Hello, revision {}, term {}", hello.policy_revision, hello.highest_term),
        Some(Up::Heartbeat(heartbeat)) => {
            let windows: Vec<String> = heartbeat.windows.iter().map(|window| outcome(Some(window))).collect();
            format!("Heartbeat {}: {}", heartbeat.seq, windows.join("; "))
        }
        Some(Up::Transition(own)) => format!("Transition, {}: {}", own.cause, outcome(own.window.as_ref())),
        Some(Up::CanvassAnswer(answer)) => format!("CanvassAnswer {}: {}", answer.id, outcome(answer.window.as_ref())),
        Some(Up::ProbeOutcome(probe)) => {
            format!("ProbeOutcome of {}, term {}: {:?}", probe.id, probe.term, probe.result())
        }
        Some(Up::VerdictAck(ack)) => {
            let what = if ack.key.is_some() { "verdict" } else { "overrides" };
            format!("Ack of {what} ({}, {})", ack.term, ack.rev)
        }
        Some(Up::Ack(ack)) => format!("Ack of revision {}, {} rejected", ack.revision, ack.rejected.len()),
        Some(Up::Nack(nack)) => format!("{nack:?}"),
        None => "nothing".to_owned(),
    }
}

/// Without what is left of an override: that alone depends on wall time.
fn down(message: &SyncResponse) -> String {
    match &message.message {
        Some(Down::Welcome(welcome)) => format!("Welcome, term {}", welcome.term),
        Some(Down::Overrides(set)) => {
            format!("{} overrides, version {} of term {}", set.overrides.len(), set.version, set.term)
        }
        Some(Down::PolicyChunk(chunk)) => format!("{} policies", chunk.policies.len()),
        Some(Down::Delta(delta)) => format!("Delta from {} to {}", delta.from_revision, delta.revision),
        Some(Down::Verdict(verdict)) => {
            let zone = verdict.key.as_ref().map(|key| key.zone.as_str()).unwrap_or_default();
            let sync::Verdict { term, rev, policy_revision, anchor_seq, reason, .. } = verdict;
            let state = verdict.state();
            format!("Verdict {state:?} ({term}, {rev}) of {policy_revision}@{zone}, anchor {anchor_seq}: {reason}")
        }
        Some(Down::ProbePermit(permit)) => {
            format!("ProbePermit {} of ({}, {}), anchor {}", permit.id, permit.term, permit.rev, permit.anchor_seq)
        }
        Some(Down::Canvass(canvass)) => format!("Canvass {}", canvass.id),
        Some(Down::SnapshotBegin(begin)) => format!("{begin:?}"),
        Some(Down::SnapshotEnd(end)) => format!("{end:?}"),
        Some(Down::HeartbeatAck(ack)) => format!("HeartbeatAck {} of ({}, {})", ack.seq, ack.term, ack.rev),
        Some(Down::GoAway(away)) => format!("GoAway: {}", away.reason),
        Some(Down::RateShare(share)) => format!("{share:?}"),
        Some(Down::BreakerRefused(refused)) => format!("BreakerRefused: {}", refused.reason),
        None => "nothing".to_owned(),
    }
}
