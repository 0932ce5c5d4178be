//! Counting without a lock what needs no decision.
//!
//! A breaker at rest lets every call pass, and a quick success changes nothing but a count. So the gate, whenever its lock is
//! held, publishes a [`Word`] that says whether it is at rest, and each thread counts successes in a [`Shard`] of its own, to
//! which no other thread writes. Whoever takes the lock next moves the counts into the gate before anything is decided: what
//! happened before a decision is seen by it. Each time that rest begins anew is an epoch; what a thread counts for an epoch
//! that is over is late, and changes nothing.

#[cfg(fusebox_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(fusebox_loom))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fusebox_policy::{Outcome, Timestamp};

use super::failure;

/// Apart from its neighbours in memory: two threads that write beside each other would wait for each other's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

/// What the gate has published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Ask it.
    Ask,
    /// At rest: every call passes.
    Rest {
        /// Which rest.
        epoch: u64,
    },
    /// Every call is refused.
    Refuse {
        /// The failure that the breaker has seen last.
        after: Option<Outcome>,
    },
}

/// A refusal, as words: it is made into what callers read where they get it, since copying that costs more than making it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    nanos: u64,
    failure: u64,
}

impl Refusal {
    /// Until the breaker has to be asked again.
    #[inline(always)]
    pub(super) const fn retry_after(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// The failure that the breaker has seen last.
    #[inline(always)]
    pub(super) fn after(self) -> Option<Outcome> {
        failure::unpack(self.failure)
    }
}

/// What a gate says to all threads, in one word and a deadline. Written under the gate's lock only.
#[derive(Debug)]
pub(super) struct Word {
    /// Two bits of kind, and the epoch or the failure.
    word: AtomicU64,
    /// Nanoseconds: from then on it must be asked.
    until: AtomicU64,
}

const REST: u64 = 1;
const REFUSE: u64 = 2;

impl Word {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), until: AtomicU64::new(0) }
    }

    pub(super) fn publish(&self, said: Said, until: Timestamp) {
        let word = match said {
            Said::Ask => 0,
            Said::Rest { epoch } => epoch << 2 | REST,
            Said::Refuse { after } => failure::pack(after).map_or(0, |failure| failure << 2 | REFUSE),
        };
        // A reader that sees a new deadline with an old word, or the other way round, must not pass by a mistake: the word is
        // taken back first, and whoever reads it between is told to ask.
        if self.word.load(Ordering::Relaxed) != word || self.until.load(Ordering::Relaxed) != until.as_nanos() {
            self.word.store(0, Ordering::Release);
            self.until.store(until.as_nanos(), Ordering::Release);
            self.word.store(word, Ordering::Release);
        }
    }

    /// Which rest it says, at a moment. The clock is asked only if the rest has an end.
    #[inline(always)]
    pub(super) fn rest(&self, now: impl FnOnce() -> Timestamp) -> Option<u64> {
        let word = self.word.load(Ordering::Acquire);
        if word & 3 != REST {
            return None;
        }
        let until = self.until.load(Ordering::Acquire);
        (until == u64::MAX || now().as_nanos() < until).then_some(word >> 2)
    }

    /// For how long it refuses every call, at a moment, and after which failure. The clock is asked only if it refuses.
    #[inline(always)]
    pub(super) fn refusal(&self, now: impl FnOnce() -> Timestamp) -> Option<Refusal> {
        let word = self.word.load(Ordering::Acquire);
        if word & 3 != REFUSE {
            return None;
        }
        let until = Timestamp::from_nanos(self.until.load(Ordering::Acquire));
        let now = now();
        // The time of a refusal is told to people: it must be of the same publication.
        let holds = now < until && self.word.load(Ordering::Acquire) == word;
        holds.then(|| Refusal { nanos: until.as_nanos() - now.as_nanos(), failure: word >> 2 })
    }

    /// Whether this is still the rest of an epoch.
    #[inline]
    pub(super) fn is_rest(&self, epoch: u64) -> bool {
        self.word.load(Ordering::Acquire) == (epoch << 2 | REST)
    }
}

/// The counts of one thread. Only its owner writes counts; only who holds the gate's lock reads them, and only the owner,
/// holding the lock, gives it to another epoch.
#[derive(Debug)]
pub(super) struct Shard {
    epoch: AtomicU64,
    /// The breaker's generation in that epoch.
    generation: AtomicU64,
    /// Nanoseconds: the end of the window's bucket that is counted for.
    until: AtomicU64,
    /// Nanoseconds: what took longer is slow, and for the gate to judge.
    slow: AtomicU64,
    successes: AtomicU64,
    rejected: AtomicU64,
    /// How much of the counts has been moved to the gate. Touched under its lock only.
    successes_taken: AtomicU64,
    rejected_taken: AtomicU64,
}

/// What was counted since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) generation: u64,
    pub(super) successes: u64,
    pub(super) rejected: u64,
    pub(super) until: Timestamp,
}

impl Shard {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            epoch: zero(),
            generation: zero(),
            until: zero(),
            slow: zero(),
            successes: zero(),
            rejected: zero(),
            successes_taken: zero(),
            rejected_taken: zero(),
        }
    }

    /// The generation of an epoch, if the shard counts for it.
    #[inline]
    pub(super) fn generation_of(&self, epoch: u64) -> Option<u64> {
        (self.epoch.load(Ordering::Relaxed) == epoch).then(|| self.generation.load(Ordering::Relaxed))
    }

    /// Whether a success is counted by when it ended or how long it took. By the owner.
    #[inline]
    pub(super) fn is_timed(&self) -> bool {
        self.until.load(Ordering::Relaxed) != u64::MAX || self.slow.load(Ordering::Relaxed) != u64::MAX
    }

    /// Counts a success of a generation, if it was not slow and the shard counts for this epoch and moment. By the owner.
    /// `took` is in nanoseconds.
    #[inline]
    pub(super) fn count_success(&self, epoch: u64, generation: u64, took: u64, now: Timestamp) -> bool {
        let counts = self.epoch.load(Ordering::Relaxed) == epoch
            && self.generation.load(Ordering::Relaxed) == generation
            && now.as_nanos() < self.until.load(Ordering::Relaxed)
            && took <= self.slow.load(Ordering::Relaxed);
        if counts {
            // One writer: no other thread's count can be lost between the load and the store.
            self.successes.store(self.successes.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
        counts
    }

    /// Counts a refusal. By the owner.
    pub(super) fn count_rejection(&self) {
        self.rejected.store(self.rejected.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Takes what was counted since the last time. Under the gate's lock.
    pub(super) fn take(&self) -> Taken {
        let successes = self.successes.load(Ordering::Acquire);
        let rejected = self.rejected.load(Ordering::Acquire);
        let taken = Taken {
            generation: self.generation.load(Ordering::Relaxed),
            successes: successes - self.successes_taken.load(Ordering::Relaxed),
            rejected: rejected - self.rejected_taken.load(Ordering::Relaxed),
            until: Timestamp::from_nanos(self.until.load(Ordering::Relaxed)),
        };
        self.successes_taken.store(successes, Ordering::Relaxed);
        self.rejected_taken.store(rejected, Ordering::Relaxed);
        taken
    }

    /// Begins to count for an epoch, up to a moment, what takes no longer than `slow`. By the owner, under the gate's lock, after
    /// everything was taken.
    pub(super) fn begin(&self, epoch: u64, generation: u64, until: Timestamp, slow: Duration) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        self.until.store(until.as_nanos(), Ordering::Relaxed);
        self.slow.store(nanos(slow), Ordering::Relaxed);
    }
}

/// At most what a word holds.
pub(super) fn nanos(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(span.subsec_nanos()))
}

#[cfg(all(test, fusebox_loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, Mutex},
        thread,
    };

    use super::*;

    /// The gate's part, as small as it can be: what it has counted, by generation.
    struct Gate {
        generation: u64,
        epoch: u64,
        counted: u64,
        late: u64,
    }

    fn drain(gate: &mut Gate, shards: &[Arc<Shard>]) {
        for shard in shards {
            let taken = shard.take();
            if taken.generation == gate.generation {
                gate.counted += taken.successes;
            } else {
                gate.late += taken.successes;
            }
        }
    }

    fn at_rest() -> (Arc<Word>, Arc<Mutex<Gate>>, Vec<Arc<Shard>>) {
        let word = Arc::new(Word::new());
        let gate = Arc::new(Mutex::new(Gate { generation: 1, epoch: 1, counted: 0, late: 0 }));
        let shards: Vec<_> = (0..2).map(|_| Arc::new(Shard::new())).collect();
        for shard in &shards {
            shard.begin(1, 1, Timestamp::MAX, Duration::MAX);
        }
        word.publish(Said::Rest { epoch: 1 }, Timestamp::MAX);
        (word, gate, shards)
    }

    /// Two threads count while a third decides: no count is lost and none is counted twice.
    #[test]
    fn every_success_is_counted_once() {
        loom::model(|| {
            let (word, gate, shards) = at_rest();
            let threads: Vec<_> = shards
                .iter()
                .map(|shard| {
                    let (word, shard) = (Arc::clone(&word), Arc::clone(shard));
                    thread::spawn(move || {
                        assert!(word.is_rest(1) && shard.count_success(1, 1, 0, Timestamp::ZERO));
                        assert!(shard.count_success(1, 1, 0, Timestamp::ZERO));
                    })
                })
                .collect();
            drain(&mut gate.lock().unwrap(), &shards);
            for thread in threads {
                thread.join().unwrap();
            }
            let mut gate = gate.lock().unwrap();
            drain(&mut gate, &shards);
            assert_eq!((gate.counted, gate.late), (4, 0));
        });
    }

    /// A success that was told to another thread before that thread decides is seen by the decision.
    #[test]
    fn what_happened_before_a_decision_is_seen_by_it() {
        loom::model(|| {
            let (_, gate, shards) = at_rest();
            let told = Arc::new(AtomicU64::new(0));
            let thread = {
                let (shard, told) = (Arc::clone(&shards[0]), Arc::clone(&told));
                thread::spawn(move || {
                    shard.count_success(1, 1, 0, Timestamp::ZERO);
                    told.store(1, Ordering::Release);
                })
            };
            if told.load(Ordering::Acquire) == 1 {
                let mut gate = gate.lock().unwrap();
                drain(&mut gate, &shards);
                assert_eq!(gate.counted, 1);
            }
            thread.join().unwrap();
        });
    }

    /// The breaker trips while a thread counts: nothing of the old generation reaches the new one.
    #[test]
    fn an_epoch_that_is_over_counts_nothing() {
        loom::model(|| {
            let (word, gate, shards) = at_rest();
            let thread = {
                let (word, gate, shard) = (Arc::clone(&word), Arc::clone(&gate), Arc::clone(&shards[0]));
                let all: Vec<_> = shards.iter().map(Arc::clone).collect();
                thread::spawn(move || {
                    if let Some(epoch) = word.rest(|| Timestamp::ZERO)
                        && shard.count_success(epoch, 1, 0, Timestamp::ZERO)
                    {
                        return;
                    }
                    // The slow way: under the lock everything is taken before the shard begins anew.
                    let mut gate = gate.lock().unwrap();
                    drain(&mut gate, &all);
                    if gate.generation == 1 {
                        gate.counted += 1;
                    } else {
                        gate.late += 1;
                    }
                    shard.begin(gate.epoch, gate.generation, Timestamp::MAX, Duration::MAX);
                })
            };
            {
                let mut gate = gate.lock().unwrap();
                word.publish(Said::Ask, Timestamp::MAX);
                drain(&mut gate, &shards);
                gate.counted = 0;
                gate.generation = 2;
                gate.epoch = 2;
                word.publish(Said::Rest { epoch: 2 }, Timestamp::MAX);
            }
            thread.join().unwrap();
            let mut gate = gate.lock().unwrap();
            drain(&mut gate, &shards);
            assert_eq!(gate.counted, 0, "a success of the first generation must not count in the second");
        });
    }

    /// The time of a refusal is of the refusal itself, never of another publication.
    #[test]
    fn a_refusal_and_its_end_belong_together() {
        loom::model(|| {
            let word = Arc::new(Word::new());
            word.publish(Said::Refuse { after: None }, Timestamp::from_nanos(10));
            let thread = {
                let word = Arc::clone(&word);
                thread::spawn(move || {
                    word.publish(Said::Rest { epoch: 1 }, Timestamp::from_nanos(99));
                })
            };
            if let Some(refusal) = word.refusal(|| Timestamp::ZERO) {
                assert_eq!((refusal.retry_after(), refusal.after()), (Duration::from_nanos(10), None));
            }
            thread.join().unwrap();
        });
    }
}
