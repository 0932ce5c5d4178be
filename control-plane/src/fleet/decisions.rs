//! Why things were decided, kept beyond a breaker's place in memory and beyond the run: written in batches by a task of its own, so that no
//! decision waits for the disk.
//!
//! What is not written yet waits here, the newest of each decision, and is found here by whoever asks. A crash loses what was decided in
//! the last half second; an end in good order loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fusebox_policy::fleet::BreakerKey;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::store::{DECISIONS_OF_BREAKER, DecisionId, StoreError, StoreHandle, StoredDecision};

/// How long the first of a batch waits for others.
const GATHERED_WITHIN: Duration = Duration::from_millis(500);
/// After the store has failed.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Decisions that may wait while it fails. Beyond it the oldest are lost, and that is said.
const MOST_WAITING: usize = 4096;

type Waiting = Arc<Mutex<BTreeMap<DecisionId, StoredDecision>>>;

/// Where the owner puts decisions.
#[derive(Debug)]
pub(super) struct Decisions {
    waiting: Waiting,
    bell: mpsc::Sender<()>,
}

/// Where decisions are read.
#[derive(Clone)]
pub(super) struct Remembered {
    waiting: Waiting,
    store: StoreHandle,
    written: watch::Receiver<()>,
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

/// Starts the writer. It ends when the first part is dropped and all is written.
pub(super) fn start(store: StoreHandle) -> (Decisions, Remembered) {
    let waiting = Waiting::default();
    let (bell, rung) = mpsc::channel(1);
    let (end, written) = watch::channel(());
    let writer = Writer { waiting: Arc::clone(&waiting), store: Arc::clone(&store), rung };
    tokio::spawn(async move {
        writer.run().await;
        drop(end);
    });
    (Decisions { waiting: Arc::clone(&waiting), bell }, Remembered { waiting, store, written })
}

impl Decisions {
    pub(super) fn put(&self, decisions: impl Iterator<Item = StoredDecision>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = 0_u64;
        for decision in decisions {
            waiting.insert(decision.id, decision);
            if waiting.len() > MOST_WAITING {
                waiting.pop_first();
                lost += 1;
            }
        }
        if lost > 0 {
            tracing::warn!(lost, "the record of decisions is behind: the oldest are lost");
        }
        // One that is waiting already will do.
        let _ = self.bell.try_send(());
    }
}

impl Remembered {
    fn waiting(&self) -> Vec<StoredDecision> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The breakers about which something was decided.
    pub(super) async fn breakers(&self) -> Result<BTreeSet<BreakerKey>, StoreError> {
        let mut keys: BTreeSet<BreakerKey> = self.waiting().into_iter().map(|own| own.key).collect();
        keys.extend(self.store.decided_breakers().await?);
        Ok(keys)
    }

    /// What was decided about a breaker, oldest first.
    pub(super) async fn of(&self, key: &BreakerKey) -> Result<Vec<StoredDecision>, StoreError> {
        // Taken first: what is written meanwhile is found in both, and not in neither.
        let waiting = self.waiting();
        let mut found = self.store.decisions(key.clone()).await?;
        overlay(&mut found, waiting.into_iter().filter(|own| own.key == *key));
        Ok(found)
    }

    /// Waits until the owner has ended and everything is written.
    pub(super) async fn written(mut self) {
        // It never changes: it ends.
        while self.written.changed().await.is_ok() {}
    }
}

/// Puts newer decisions over older ones, each in its place; as many as are kept of a breaker stay.
pub(super) fn overlay(found: &mut Vec<StoredDecision>, newer: impl Iterator<Item = StoredDecision>) {
    for decision in newer {
        match found.iter_mut().find(|own| own.id == decision.id) {
            Some(place) => *place = decision,
            None => found.push(decision),
        }
    }
    found.drain(..found.len().saturating_sub(DECISIONS_OF_BREAKER));
}

struct Writer {
    waiting: Waiting,
    store: StoreHandle,
    rung: mpsc::Receiver<()>,
}

impl Writer {
    async fn run(mut self) {
        let mut failed = false;
        loop {
            let open = failed || self.rung.recv().await.is_some();
            let open = open && self.gather(if failed { TRY_AGAIN } else { GATHERED_WITHIN }).await;
            failed = !self.write().await;
            if !open {
                return;
            }
        }
    }

    /// Lets others join the first. Answers whether there may be more afterwards.
    async fn gather(&mut self, span: Duration) -> bool {
        let over = sleep(span);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return true,
                rung = self.rung.recv() => if rung.is_none() { return false },
            }
        }
    }

    /// Writes what waits. Answers whether that went well.
    async fn write(&self) -> bool {
        let batch: Vec<_> = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        if batch.is_empty() {
            return true;
        }
        if let Err(error) = self.store.put_decisions(batch.clone()).await {
            tracing::error!(error = %error, decisions = batch.len(), "cannot write the record of decisions");
            return false;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for written in batch {
            // One that has changed meanwhile is written again.
            if waiting.get(&written.id) == Some(&written) {
                waiting.remove(&written.id);
            }
        }
        true
    }
}
