//! One live breaker: the gate behind a lock that no call keeps, what needs no lock beside it, and the way of its effects out.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use fusebox_policy::{
    Draw, Outcome, Timestamp,
    breaker::{BreakerMode, BreakerSpec, Ending},
    condition::Class,
    fleet::{
        BreakerKey,
        gate::{Gate, GateEffect, Pass},
    },
    names::Revision,
    outcome::RejectionReason,
};
use parking_lot::Mutex;
use thread_local::ThreadLocal;

use super::tally::{Apart, Said, Shard, Word, nanos};
use crate::report::{Origin, Outbox, tell};

/// One live breaker. It outlives the policies that describe it.
#[derive(Debug)]
pub(crate) struct Cell {
    /// A changed name or scope changes the key; what is known stays.
    key: ArcSwap<BreakerKey>,
    word: Apart<Word>,
    shards: ThreadLocal<Arc<Apart<Shard>>>,
    gate: Mutex<Guarded>,
    outbox: Arc<Outbox>,
}

#[derive(Debug)]
struct Guarded {
    gate: Gate,
    /// Of the rest that was published last.
    epoch: u64,
    generation: u64,
    spec: Arc<BreakerSpec>,
    /// The latest time that anybody came with.
    latest: Timestamp,
}

impl Cell {
    pub(crate) fn new(key: BreakerKey, spec: Arc<BreakerSpec>, revision: Revision, outbox: Arc<Outbox>) -> Self {
        let gate = Gate::new(Arc::clone(&spec), revision);
        let mut guarded =
            Guarded { generation: gate.breaker().generation(), gate, epoch: 1, spec, latest: Timestamp::ZERO };
        let word = Apart(Word::new());
        guarded.publish(&word.0);
        Self { key: ArcSwap::from_pointee(key), word, shards: ThreadLocal::new(), gate: Mutex::new(guarded), outbox }
    }

    pub(crate) fn key(&self) -> Arc<BreakerKey> {
        self.key.load_full()
    }

    pub(crate) fn has_key(&self, key: &BreakerKey) -> bool {
        **self.key.load() == *key
    }

    /// Gives it another key, under which it is told from here on.
    pub(crate) fn rename(&self, key: BreakerKey) {
        self.key.store(Arc::new(key));
    }

    /// What it says to all threads.
    #[inline]
    pub(super) const fn word(&self) -> &Word {
        &self.word.0
    }

    /// The counts of this thread.
    pub(super) fn shard(&self) -> &Arc<Apart<Shard>> {
        self.shards.get_or(|| Arc::new(Apart(Shard::new())))
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// Why it may not be made, and after which failure.
    pub(crate) fn try_acquire(&self, now: Timestamp) -> Result<Pass, RejectionReason> {
        if let Some(epoch) = self.word.0.rest(|| now) {
            if let Some(generation) = self.shards.get().and_then(|shard| shard.0.generation_of(epoch)) {
                return Ok(Gate::pass_at_rest(generation));
            }
        } else if let Some(refusal) = self.word.0.refusal(|| now) {
            self.shard().0.count_rejection();
            return Err(RejectionReason::Open { retry_after: refusal.retry_after() });
        }
        self.with_shard(now, |gate| gate.try_acquire(now, draw()))
    }

    /// Takes the outcome of a call.
    pub(crate) fn record(&self, pass: Pass, ending: &Ending, now: Timestamp) {
        if ending.class == Class::Success
            && let Some(generation) = pass.plain_generation()
            && let Some(epoch) = self.word.0.rest(|| now)
            && self
                .shards
                .get()
                .is_some_and(|shard| shard.0.count_success(epoch, generation, nanos(ending.elapsed), now))
        {
            return;
        }
        self.with_shard(now, |gate| ((), gate.record(pass, ending, now, draw())));
    }

    /// Gives a pass back: its call was dropped.
    pub(crate) fn abandon(&self, pass: Pass) {
        // What was admitted at rest holds nothing: only half-open breakers and probes count who is in.
        if let (Some(generation), Some(epoch)) = (pass.plain_generation(), self.word.0.rest(|| Timestamp::ZERO))
            && self.shards.get().is_some_and(|shard| shard.0.generation_of(epoch) == Some(generation))
        {
            return;
        }
        self.with(|gate| ((), gate.abandon(pass)));
    }

    /// As [`Cell::with`], and lets this thread count by itself from here on.
    fn with_shard<T>(&self, now: Timestamp, act: impl FnOnce(&mut Gate) -> (T, Vec<GateEffect>)) -> T {
        let shard = self.shard();
        let (value, due) = self.locked(Some(now), |guarded| {
            let done = act(&mut guarded.gate);
            guarded.publish(&self.word.0);
            if self.word.0.is_rest(guarded.epoch) {
                let breaker = guarded.gate.breaker();
                let trip = guarded.spec.trip();
                // Only rates ask for the share of successes, and so for their time; otherwise it is enough to know about when.
                let timed = trip.failure_rate.is_some() || trip.slow_call_rate.is_some();
                let until = if timed { breaker.bucket_end(now) } else { Timestamp::MAX };
                let slow = trip.slow_call_rate.map_or(Duration::MAX, |(_, limit)| limit);
                shard.0.begin(guarded.epoch, guarded.generation, until, slow);
            }
            done
        });
        self.outbox.alarm.set(due);
        value
    }

    /// Lets `act` work on the gate, and tells the effects after the lock is free.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Gate) -> (T, Vec<GateEffect>)) -> T {
        let (value, due) = self.locked(None, |guarded| act(&mut guarded.gate));
        self.outbox.alarm.set(due);
        value
    }

    /// Also says when there is something to do next.
    fn locked<T>(
        &self,
        now: Option<Timestamp>,
        act: impl FnOnce(&mut Guarded) -> (T, Vec<GateEffect>),
    ) -> (T, Option<Timestamp>) {
        let mut guarded = self.gate.lock();
        guarded.latest = guarded.latest.max(now.unwrap_or_default());
        self.drain(&mut guarded);
        let (value, effects) = act(&mut guarded);
        let due = guarded.publish(&self.word.0);
        if effects.is_empty() {
            return (value, due);
        }
        let gate = &guarded.gate;
        let origin = Origin {
            revision: gate.revision(),
            own_trip: gate.breaker().own_trip(),
            held: gate.held().highest(),
            shadow: guarded.spec.mode() == BreakerMode::Shadow,
        };
        drop(guarded);
        tell(&self.outbox, &self.key.load(), &origin, effects);
        (value, due)
    }

    /// Moves what the threads have counted to the gate.
    fn drain(&self, guarded: &mut Guarded) {
        for shard in &self.shards {
            let taken = shard.0.take();
            let current = taken.generation == guarded.gate.breaker().generation();
            let successes = if current { taken.successes } else { 0 };
            // Any moment of the bucket does; its last one is known. Where there are no buckets, the time that was told last.
            let at = match taken.until {
                Timestamp::MAX => guarded.latest,
                until => Timestamp::from_nanos(until.as_nanos().saturating_sub(1)),
            };
            guarded.gate.tally(successes, taken.rejected, at);
        }
    }

    /// Lets `act` look at the gate.
    pub(crate) fn look<T>(&self, now: Timestamp, act: impl FnOnce(&Gate) -> T) -> T {
        let mut guarded = self.gate.lock();
        guarded.latest = guarded.latest.max(now);
        self.drain(&mut guarded);
        act(&guarded.gate)
    }

    /// Whether only a few calls pass, since the target was down a moment ago.
    pub(crate) fn is_recovering(&self, now: Timestamp) -> bool {
        self.look(now, |gate| gate.is_recovering(now))
    }

    /// The last outcome that counted as a failure here.
    pub(crate) fn last_failure(&self) -> Option<Outcome> {
        self.gate.lock().gate.last_failure()
    }

    /// Makes happen what is due, and says when there is more to do.
    pub(crate) fn tick(&self, now: Timestamp) -> Option<Timestamp> {
        self.locked(Some(now), |guarded| ((), guarded.gate.tick(now, draw()))).1
    }
}

impl Guarded {
    /// Says to all threads what the gate has come to, and answers when it has something to do.
    fn publish(&mut self, word: &Word) -> Option<Timestamp> {
        let gate = &self.gate;
        let due = gate.next_deadline();
        let deadline = due.unwrap_or(Timestamp::MAX);
        if gate.is_at_rest() {
            let generation = gate.breaker().generation();
            if generation != self.generation || !Arc::ptr_eq(&self.spec, gate.breaker().spec()) {
                self.epoch += 1;
                self.generation = generation;
                self.spec = Arc::clone(gate.breaker().spec());
            }
            word.publish(Said::Rest { epoch: self.epoch }, deadline);
        } else if let Some(until) = gate.refuses_until().filter(|until| *until <= deadline) {
            word.publish(Said::Refuse { after: gate.last_failure() }, until);
        } else {
            word.publish(Said::Ask, deadline);
        }
        due
    }
}

/// A random number. Which calls probe and how long waits are needs no cryptography.
pub(crate) fn draw() -> Draw {
    Draw::new(fastrand::f64())
}

#[cfg(all(test, not(fusebox_loom)))]
mod tests;
