//! The retry budget of one target: calls are counted by each thread for itself, retries are taken under a lock.

use std::time::Duration;

use fusebox_policy::{
    Timestamp,
    retry::budget::{Budget, BudgetSpec},
};
use parking_lot::Mutex;
use thread_local::ThreadLocal;

use super::tally::{Apart, Shard};

/// One budget for all policies of a target. A call is counted by a plain store to its thread's own memory.
#[derive(Debug, Default)]
pub(crate) struct Purse {
    shards: ThreadLocal<Apart<Shard>>,
    budget: Mutex<Budget>,
}

/// Budgets have no epochs.
const EPOCH: u64 = 1;

impl Purse {
    pub(crate) fn call(&self, now: Timestamp) {
        let shard = &self.shards.get_or(|| Apart(Shard::new())).0;
        if shard.count_success(EPOCH, EPOCH, 0, now) {
            return;
        }
        let mut budget = self.budget.lock();
        self.drain(&mut budget);
        budget.call(now);
        shard.begin(EPOCH, EPOCH, Budget::bucket_end(now), Duration::MAX);
    }

    pub(crate) fn try_retry(&self, spec: &BudgetSpec, now: Timestamp) -> bool {
        let mut budget = self.budget.lock();
        self.drain(&mut budget);
        budget.try_retry(spec, now)
    }

    /// Retries for each call of late.
    #[cfg(feature = "metrics")]
    pub(crate) fn used(&self, now: Timestamp) -> f64 {
        let mut budget = self.budget.lock();
        self.drain(&mut budget);
        budget.used(now)
    }

    fn drain(&self, budget: &mut Budget) {
        for shard in &self.shards {
            let taken = shard.0.take();
            if taken.successes > 0 {
                // Any moment of the second does; its last one is known.
                budget.calls(taken.successes, Timestamp::from_nanos(taken.until.as_nanos().saturating_sub(1)));
            }
        }
    }
}
