//! What this process has to tell about its breakers, on the way to the control plane.
//!
//! Latest state, not a queue: of one breaker only the newest transition waits. Without a stream nothing piles up, since the
//! next heartbeat tells every state anyway. Telling never blocks and never fails a call.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fusebox_policy::{
    Timestamp,
    breaker::Transition,
    fleet::{
        BreakerKey,
        gate::{GateEffect, ProbeId},
        held::Fence,
        shared::ProbeResult,
    },
    names::Revision,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::alarm::Alarm;

/// At most one transition of a breaker in this time, as the protocol asks.
const APART: Duration = Duration::from_millis(100);
/// Outcomes of probes that wait for the stream. A replica holds at most 16 permits of a breaker; beyond this, the server's
/// own limit of time gets the permits back.
const MAX_PROBES: usize = 256;

/// A transition to be told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) key: BreakerKey,
    pub(crate) revision: Revision,
    pub(crate) transition: Transition,
    pub(crate) own_trip: bool,
    pub(crate) held: Fence,
}

/// What became of a probe.
#[derive(Clone, Debug)]
pub(crate) struct Probed {
    pub(crate) key: BreakerKey,
    pub(crate) id: ProbeId,
    pub(crate) result: ProbeResult,
}

#[derive(Debug, Default)]
struct Waiting {
    transitions: BTreeMap<BreakerKey, Told>,
    last_sent: BTreeMap<BreakerKey, Timestamp>,
    probes: VecDeque<Probed>,
    dropped: Vec<BreakerKey>,
}

/// Written by calls, read by the link.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    /// When breakers have something to do.
    pub(crate) alarm: Alarm,
    #[cfg(feature = "test")]
    pub(crate) recorder: Option<(std::sync::Arc<crate::testing::Recorder>, crate::clock::Clock)>,
    #[cfg(feature = "metrics")]
    pub(crate) meters: Option<std::sync::Arc<crate::metrics::Meters>>,
}

impl Outbox {
    pub(crate) fn transition(&self, told: Told) {
        self.waiting.lock().transitions.insert(told.key.clone(), told);
        self.filled.notify_one();
    }

    pub(crate) fn probe(&self, probed: Probed) {
        let mut waiting = self.waiting.lock();
        if waiting.probes.len() >= MAX_PROBES {
            waiting.probes.pop_front();
            #[cfg(feature = "metrics")]
            if let Some(meters) = &self.meters {
                meters.count(crate::metrics::EVENTS_DROPPED, 1);
            }
        }
        waiting.probes.push_back(probed);
        drop(waiting);
        self.filled.notify_one();
    }

    /// A breaker is held no longer.
    pub(crate) fn dropped(&self, key: BreakerKey) {
        let mut waiting = self.waiting.lock();
        waiting.transitions.remove(&key);
        waiting.last_sent.remove(&key);
        waiting.dropped.push(key);
    }

    /// Waits until there may be something new.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The transitions that may be told now, and when the next one may.
    pub(crate) fn take_transitions(&self, now: Timestamp) -> (Vec<Told>, Option<Timestamp>) {
        let mut waiting = self.waiting.lock();
        let Waiting { transitions, last_sent, .. } = &mut *waiting;
        let mut due = Vec::new();
        let mut next: Option<Timestamp> = None;
        transitions.retain(|key, told| {
            let from = last_sent.get(key).map_or(now, |sent| sent.plus(APART));
            if from <= now {
                last_sent.insert(key.clone(), now);
                due.push(told.clone());
                false
            } else {
                next = Some(next.map_or(from, |own| own.min(from)));
                true
            }
        });
        (due, next)
    }

    pub(crate) fn take_probes(&self) -> Vec<Probed> {
        self.waiting.lock().probes.drain(..).collect()
    }

    pub(crate) fn take_dropped(&self) -> Vec<BreakerKey> {
        std::mem::take(&mut self.waiting.lock().dropped)
    }

    /// A new stream begins: it is told states, not history.
    pub(crate) fn forget(&self) {
        *self.waiting.lock() = Waiting::default();
    }
}

/// Carries out what a gate asks to be told. Never called under the gate's lock.
pub(crate) fn tell(outbox: &Outbox, key: &BreakerKey, origin: &Origin, effects: Vec<GateEffect>) {
    for effect in effects {
        match effect {
            GateEffect::Transition(transition) => {
                #[cfg(feature = "test")]
                if let Some((recorder, clock)) = &outbox.recorder {
                    let names = (&key.target, &key.policy, &key.strategy);
                    recorder.record(clock.now(), names, crate::testing::Happened::Transition(transition));
                }
                #[cfg(feature = "metrics")]
                if let Some(meters) = &outbox.meters {
                    meters.transition(key, &transition, origin.shadow);
                }
                let Transition { from, to, cause, counts } = transition;
                tracing::info!(
                    target: "fusebox",
                    target = %key.target,
                    policy = %key.policy,
                    strategy = %key.strategy,
                    from = from.name(),
                    to = to.name(),
                    cause = cause.name(),
                    calls = counts.calls,
                    failures = counts.failures,
                    "state changed from {from} to {to}"
                );
                outbox.transition(Told {
                    key: key.clone(),
                    revision: origin.revision,
                    transition,
                    own_trip: origin.own_trip,
                    held: origin.held,
                });
            }
            GateEffect::Probe(id, result) => outbox.probe(Probed { key: key.clone(), id, result }),
        }
    }
}

/// The gate at the moment of the effects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) revision: Revision,
    pub(crate) own_trip: bool,
    pub(crate) held: Fence,
    /// Whether the breaker only watches.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only metrics tell it apart"))]
    pub(crate) shadow: bool,
}
