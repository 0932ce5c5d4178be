//! One live breaker: the gate behind a lock that no call keeps, and the way of its effects out.

use std::sync::Arc;

use fusebox_policy::{
    Draw, Timestamp,
    breaker::BreakerSpec,
    fleet::{BreakerKey, gate::Gate, gate::GateEffect},
    names::Revision,
};
use parking_lot::Mutex;

use crate::report::{Origin, Outbox, tell};

/// One live breaker. It outlives the policies that describe it.
#[derive(Debug)]
pub(crate) struct Cell {
    /// A changed scope changes the key, and with it the cell.
    key: BreakerKey,
    gate: Mutex<Gate>,
    outbox: Arc<Outbox>,
}

impl Cell {
    pub(crate) fn new(key: BreakerKey, spec: Arc<BreakerSpec>, revision: Revision, outbox: Arc<Outbox>) -> Self {
        Self { key, gate: Mutex::new(Gate::new(spec, revision)), outbox }
    }

    pub(crate) const fn key(&self) -> &BreakerKey {
        &self.key
    }

    /// Lets `act` work on the gate, and tells the effects after the lock is free.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Gate) -> (T, Vec<GateEffect>)) -> T {
        let mut gate = self.gate.lock();
        let (value, effects) = act(&mut gate);
        if effects.is_empty() {
            return value;
        }
        let origin =
            Origin { revision: gate.revision(), own_trip: gate.breaker().own_trip(), held: gate.held().highest() };
        drop(gate);
        tell(&self.outbox, &self.key, &origin, effects);
        value
    }

    /// Lets `act` look at the gate.
    pub(crate) fn look<T>(&self, act: impl FnOnce(&Gate) -> T) -> T {
        act(&self.gate.lock())
    }

    /// Makes happen what is due, and says when there is more to do.
    pub(crate) fn tick(&self, now: Timestamp) -> Option<Timestamp> {
        self.with(|gate| {
            let effects = gate.tick(now, draw());
            (gate.next_deadline(), effects)
        })
    }
}

/// A random number. Which calls probe and how long waits are needs no cryptography.
pub(crate) fn draw() -> Draw {
    Draw::new(fastrand::f64())
}
