//! What happened in a fleet, as one who sees all of its clocks would write it down, and the check of that against the
//! [`invariants`](super::invariants).
//!
//! A [`Ledger`] takes events one by one and keeps only what later ones are judged by: a model keeps it in its states. A [`History`] keeps
//! the events themselves: a simulation records one and checks it at the end, and can then tell the whole story of a violation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use super::{
    gate::ProbeId,
    held::Fence,
    invariants::{self as check, Admission, Ground, Invariant, Phase},
    shared::FleetState,
    spec::CoordinationMode,
};
use crate::{InstanceId, Revision, Timestamp};

/// Something that happened. `K` names breakers, `M` replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<K, M> {
    /// A run of a server began to use a term.
    Term {
        /// The run: a number that never comes twice, whatever its term.
        run: u64,
        /// The term.
        term: u64,
        /// Whether the store had it by then.
        stored: bool,
    },
    /// A server decided about a breaker.
    Decided {
        /// The breaker.
        key: K,
        /// The server's run.
        run: u64,
        /// The number of the verdict.
        fence: Fence,
        /// The state before.
        from: FleetState,
        /// The state after.
        to: FleetState,
        /// What made it come about.
        ground: Ground,
        /// The mode of the policy.
        mode: CoordinationMode,
        /// For an opening on reports: whose.
        witnesses: Vec<InstanceId>,
        /// What the server was up to.
        phase: Phase,
    },
    /// A server heard what a replica's breaker has seen.
    Heard {
        /// The breaker.
        key: K,
        /// The replica.
        instance: InstanceId,
        /// Whether the breaker was disabled when the replica said so.
        disabled: bool,
    },
    /// A server told a replica that a verdict holds: it issued or renewed it.
    Affirmed {
        /// The replica.
        member: M,
        /// The breaker.
        key: K,
        /// The verdict.
        fence: Fence,
        /// For how long.
        lease: Duration,
    },
    /// A server gave leave for one probe.
    Granted {
        /// The breaker.
        key: K,
        /// The permit.
        probe: ProbeId,
        /// For how long.
        ttl: Duration,
        /// How many may be out at the same time.
        bound: u32,
        /// What the server was up to.
        phase: Phase,
    },
    /// A permit can't be used any more: its holder refused it or gave it back.
    Returned {
        /// The breaker.
        key: K,
        /// The permit.
        probe: ProbeId,
    },
    /// A replica applied a verdict.
    Applied {
        /// The replica.
        member: M,
        /// The breaker.
        key: K,
        /// The verdict.
        fence: Fence,
        /// Whether no verdict was in force before.
        lapsed: bool,
    },
    /// A replica enforces a verdict at this moment.
    Enforced {
        /// The replica.
        member: M,
        /// The breaker.
        key: K,
        /// The verdict.
        fence: Fence,
        /// The revision of the policy that the verdict is about.
        about: Revision,
        /// The revision of the policy that the replica runs.
        running: Revision,
    },
    /// A replica was asked to make a call.
    Called {
        /// The breaker.
        key: K,
        /// How it fared.
        admission: Admission,
        /// The permit that it used.
        probe: Option<ProbeId>,
    },
    /// An operator has set an override. What holds at its end is the longest that was ever said.
    Forced {
        /// The breaker.
        key: K,
        /// Its end.
        end: Timestamp,
    },
    /// A replica obeys an override at this moment.
    Obeyed {
        /// The breaker.
        key: K,
    },
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When.
    pub at: Timestamp,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}: {}", self.at.since_origin(), self.invariant)
    }
}

/// A permit that can be used, or has just been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Out {
    ends: Timestamp,
    uses: u32,
    /// Neither used nor given back.
    live: bool,
}

/// What the past means for the next event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger<K, M> {
    users: BTreeMap<u64, BTreeSet<u64>>,
    unstored: BTreeSet<u64>,
    applied: BTreeMap<(M, K), Fence>,
    affirmed: BTreeMap<(M, K, Fence), (Timestamp, Duration)>,
    permits: BTreeMap<(K, ProbeId), Out>,
    forced: BTreeMap<K, Timestamp>,
    /// The replicas whose breakers were disabled when they were last heard.
    disabled: BTreeMap<K, BTreeSet<InstanceId>>,
}

impl<K, M> Default for Ledger<K, M> {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            unstored: BTreeSet::new(),
            applied: BTreeMap::new(),
            affirmed: BTreeMap::new(),
            permits: BTreeMap::new(),
            forced: BTreeMap::new(),
            disabled: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord, M: Clone + Ord> Ledger<K, M> {
    /// Takes the next event.
    ///
    /// # Errors
    /// The first invariant that it breaks. The event counts all the same.
    pub fn observe(&mut self, at: Timestamp, event: Event<K, M>) -> Result<(), Violation> {
        let must = |holds: bool, invariant| if holds { Ok(()) } else { Err(Violation { invariant, at }) };
        match event {
            Event::Term { run, term, stored } => {
                self.users.entry(term).or_default().insert(run);
                if !stored {
                    self.unstored.insert(term);
                }
                Ok(())
            }
            Event::Decided { key, run, fence, from, to, ground, mode, witnesses, phase } => {
                let users = self.users.entry(fence.term).or_default();
                users.insert(run);
                let opens = to == FleetState::Open;
                must(check::s8_durable_term(!self.unstored.contains(&fence.term), users.len()), Invariant::S8)?;
                must(!opens || check::s7_quiescence(phase, ground), Invariant::S7)?;
                must(check::s11_denominator(from, to, ground), Invariant::S11)?;
                must(check::s13_silence_is_no_evidence(from, to, ground), Invariant::S13)?;
                let on_reports = opens && ground == Ground::Report && from == FleetState::Released;
                must(!on_reports || check::s3_no_single_witness(mode, &witnesses), Invariant::S3)?;
                let disabled = self.disabled.entry(key).or_default();
                must(!on_reports || check::s6_disabled_is_no_witness(disabled, &witnesses), Invariant::S6)
            }
            Event::Heard { key, instance, disabled } => {
                let known = self.disabled.entry(key).or_default();
                if disabled {
                    known.insert(instance);
                } else {
                    known.remove(&instance);
                }
                Ok(())
            }
            Event::Affirmed { member, key, fence, lease } => {
                self.affirmed.insert((member, key, fence), (at, lease));
                Ok(())
            }
            Event::Granted { key, probe, ttl, bound, phase } => {
                self.permits.insert((key.clone(), probe), Out { ends: at.plus(ttl), uses: 0, live: true });
                let live = |((own, _), out): &(&(K, ProbeId), &Out)| *own == key && out.live && at < out.ends;
                let live = self.permits.iter().filter(live).count();
                must(check::s4_probe_bound(live, bound), Invariant::S4)?;
                must(check::s7_quiescence(phase, Ground::Report), Invariant::S7)
            }
            Event::Returned { key, probe } => {
                if let Some(out) = self.permits.get_mut(&(key, probe)) {
                    out.live = false;
                }
                Ok(())
            }
            Event::Applied { member, key, fence, lapsed } => {
                let before = self.applied.insert((member, key), fence).unwrap_or_default();
                must(check::s1_fencing(before, lapsed, fence), Invariant::S1)
            }
            Event::Enforced { member, key, fence, about, running } => {
                let word = self.affirmed.get(&(member, key, fence));
                let lease = word.map_or(Duration::ZERO, |(_, lease)| *lease);
                must(check::s2_lease_bound(word.map(|(said, _)| *said), lease, at), Invariant::S2)?;
                must(check::s9_policy_atomicity(about, running), Invariant::S9)
            }
            Event::Called { key, admission, probe } => {
                let used = probe.map(|probe| {
                    // What has ended or was given back, and admits a call none the less, counts as used already.
                    let over = Out { ends: at, uses: 1, live: false };
                    let out = self.permits.entry((key, probe)).or_insert(over);
                    out.uses += if out.live || out.uses > 0 { 1 } else { 2 };
                    out.live = false;
                    out.uses
                });
                must(used.is_none_or(check::s4_one_call_per_permit), Invariant::S4)?;
                must(check::s5_least_admission(admission), Invariant::S5)?;
                must(check::s6_override_dominates(admission), Invariant::S6)
            }
            Event::Forced { key, end } => {
                let longest = self.forced.entry(key).or_default();
                *longest = (*longest).max(end);
                Ok(())
            }
            Event::Obeyed { key } => {
                let end = self.forced.get(&key).copied().unwrap_or_default();
                must(check::s6_override_ends(end, at), Invariant::S6)
            }
        }
    }

    /// Drops what can't matter any more, so that equal futures are equal values.
    pub fn forget(&mut self, now: Timestamp) {
        self.affirmed.retain(|_, (said, lease)| now < said.plus(*lease));
        self.permits.retain(|_, out| now < out.ends);
    }
}

/// All that happened, in order.
#[derive(Clone, Debug)]
pub struct History<K, M> {
    events: Vec<(Timestamp, Event<K, M>)>,
}

impl<K, M> Default for History<K, M> {
    fn default() -> Self {
        Self { events: Vec::new() }
    }
}

impl<K: Clone + Ord, M: Clone + Ord> History<K, M> {
    /// Adds an event. Times never go back.
    pub fn record(&mut self, at: Timestamp, event: Event<K, M>) {
        debug_assert!(self.events.last().is_none_or(|(last, _)| *last <= at), "a history is in order");
        self.events.push((at, event));
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &[(Timestamp, Event<K, M>)] {
        &self.events
    }

    /// What does not hold of it.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let mut ledger = Ledger::default();
        self.events.iter().filter_map(|(at, event)| ledger.observe(*at, event.clone()).err()).collect()
    }
}
