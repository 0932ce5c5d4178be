//! The log of transitions: written in batches by a task of its own, so that no decision waits for the disk.

use std::{sync::Arc, time::Duration};

use fusebox_proto::v1;
use tokio::sync::{broadcast, mpsc, watch};

use crate::store::{StoreHandle, StoredTransition, timestamp};

/// Transitions that may wait for the disk. Beyond it they are dropped and said so: a log must not hold up the fleet.
const WAITING: usize = 4096;
/// Transitions of one transaction.
const BATCH: usize = 256;

/// How often a transaction that failed is tried again, and after how long. Longer than a lease, so that a store that is back after a
/// restart loses nothing; not for ever, since the fault may be in what is written.
const TRIES: u32 = 20;
const TRY_AGAIN: Duration = Duration::from_secs(1);

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
    let (log, mut waiting) = mpsc::channel(WAITING);
    let (failed, unwritten) = watch::channel(0);
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let mut told = false;
            for _ in 0..TRIES {
                let wrote = store.append_transitions(batch.clone()).await;
                if let Ok(ids) = &wrote {
                    for (transition, id) in batch.iter_mut().zip(ids) {
                        transition.id = *id;
                    }
                }
                // Whoever follows is told at once, written or not.
                if !std::mem::replace(&mut told, true) {
                    for transition in &batch {
                        // Nobody may be listening.
                        let _ = live.send(Arc::new(wire(transition)));
                    }
                }
                let Err(error) = wrote else { break };
                tracing::error!(error = %error, "cannot write the log of transitions");
                failed.send_modify(|count| *count += 1);
                tokio::time::sleep(TRY_AGAIN).await;
            }
            batch.clear();
        }
    });
    (Log(log), unwritten)
}

/// A transition as operators see it.
pub(crate) fn wire(stored: &StoredTransition) -> v1::BreakerTransition {
    let StoredTransition { id, key, instance, from, to, cause, detail, at, window_calls, window_failures } = stored;
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
