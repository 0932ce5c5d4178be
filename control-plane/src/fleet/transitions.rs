//! The log of transitions: written in batches by a task of its own, so that no decision waits for the disk.

use std::{sync::Arc, time::Duration};

use fusebox_proto::v1;
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::store::{StoreHandle, StoredTransition, timestamp};

/// Transitions that may wait for the disk. Beyond it they are dropped and said so: a log must not hold up the fleet.
const WAITING: usize = 4096;
/// Transitions of one transaction.
const BATCH: usize = 256;

/// How long after a failure the store is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often the same transitions are tried when the fault may be in them. When it is the store's own (a full disk), there is no end to it:
/// the fleet stays frozen until the store can be written again.
const TRIES: u32 = 20;

/// Where the owner puts transitions.
#[derive(Clone, Debug)]
pub(super) struct Log(mpsc::Sender<StoredTransition>);

impl Log {
    pub(super) fn put(&self, transition: StoredTransition) {
        let StoredTransition { key, instance, from, to, cause, detail, .. } = &transition;
        tracing::info!(
            event.name = if instance.is_some() { "breaker.transition" } else { "fleet.verdict" },
            breaker = %key,
            service.instance.id = instance.as_ref().map_or("", |instance| instance.as_str()),
            from,
            to,
            cause,
            detail,
            "state changed from {from} to {to}"
        );
        if self.0.try_send(transition).is_err() {
            tracing::warn!("the log of transitions is behind: one is lost");
        }
    }
}

/// Starts the writer. The second part counts failures of the store.
pub(super) fn start(
    store: StoreHandle,
    live: broadcast::Sender<Arc<v1::BreakerTransition>>,
) -> (Log, watch::Receiver<u64>) {
    let (log, waiting) = mpsc::channel(WAITING);
    let (failed, unwritten) = watch::channel(0);
    tokio::spawn(Writer { store, live, failed, kept: Vec::new(), told: 0, tries: 0 }.run(waiting));
    (Log(log), unwritten)
}

struct Writer {
    store: StoreHandle,
    live: broadcast::Sender<Arc<v1::BreakerTransition>>,
    failed: watch::Sender<u64>,
    /// Not written yet, in the order in which they came.
    kept: Vec<StoredTransition>,
    /// How many of them followers know already.
    told: usize,
    /// How often the first of them have failed.
    tries: u32,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<StoredTransition>) {
        loop {
            let again = Instant::now() + TRY_AGAIN;
            let mut ended = false;
            if self.kept.is_empty() {
                ended = waiting.recv_many(&mut self.kept, BATCH).await == 0;
            } else {
                // Followers are told of what comes meanwhile, as long as there is room to keep it.
                loop {
                    let room = BATCH.min(WAITING.saturating_sub(self.kept.len()));
                    tokio::select! {
                        () = sleep_until(again) => break,
                        came = waiting.recv_many(&mut self.kept, room), if room > 0 => {
                            if came == 0 {
                                ended = true;
                                break;
                            }
                            self.tell();
                        }
                    }
                }
            }
            while !self.kept.is_empty() && self.write().await {}
            if ended {
                if !self.kept.is_empty() {
                    tracing::error!(lost = self.kept.len(), "the last transitions could not be written");
                }
                return;
            }
        }
    }

    /// Writes the oldest; whether that went well. Followers are told at once, written or not.
    async fn write(&mut self) -> bool {
        let size = BATCH.min(self.kept.len());
        let batch = &mut self.kept[..size];
        let wrote = self.store.append_transitions(batch.to_vec()).await;
        if let Ok(ids) = &wrote {
            for (transition, id) in batch.iter_mut().zip(ids) {
                transition.id = *id;
            }
        }
        self.tell();
        let Err(error) = wrote else {
            self.drop_oldest(size);
            return true;
        };
        tracing::error!(error = %error, "cannot write the log of transitions");
        self.failed.send_modify(|count| *count += 1);
        self.tries += 1;
        if !error.is_of_the_store() && self.tries >= TRIES {
            tracing::error!(lost = size, "the store does not take these transitions");
            self.drop_oldest(size);
        }
        false
    }

    fn drop_oldest(&mut self, number: usize) {
        self.kept.drain(..number);
        self.told -= number;
        self.tries = 0;
    }

    fn tell(&mut self) {
        for transition in &self.kept[self.told..] {
            // Nobody may be listening.
            let _ = self.live.send(Arc::new(wire(transition)));
        }
        self.told = self.kept.len();
    }
}

/// A transition as operators see it.
pub(crate) fn wire(stored: &StoredTransition) -> v1::BreakerTransition {
    let StoredTransition { id, key, instance, from, to, cause, detail, at, window_calls, window_failures, grounds: _ } =
        stored;
    v1::BreakerTransition {
        id: *id,
        key: Some(key.into()),
        instance: instance.as_ref().map(ToString::to_string).unwrap_or_default(),
        from: from.clone(),
        to: to.clone(),
        cause: cause.clone(),
        detail: detail.clone(),
        time: Some(timestamp(*at)),
        window_calls: *window_calls,
        window_failures: *window_failures,
    }
}
