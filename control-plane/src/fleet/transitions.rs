//! The log of transitions: written in batches by a task of its own, so that no decision waits for the disk.

use std::sync::Arc;

use fusebox_proto::v1;
use tokio::sync::{broadcast, mpsc};

use crate::store::{StoreHandle, StoredTransition, timestamp};

/// Transitions that may wait for the disk. Beyond it they are dropped and said so: a log must not hold up the fleet.
const WAITING: usize = 4096;
/// Transitions of one transaction.
const BATCH: usize = 256;

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

pub(super) fn start(store: StoreHandle, live: broadcast::Sender<Arc<v1::BreakerTransition>>) -> Log {
    let (log, mut waiting) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            match store.append_transitions(batch.clone()).await {
                Ok(ids) => {
                    for (transition, id) in batch.iter_mut().zip(ids) {
                        transition.id = id;
                    }
                }
                Err(error) => tracing::error!(error = %error, "cannot write the log of transitions"),
            }
            for transition in batch.drain(..) {
                // Nobody may be listening.
                let _ = live.send(Arc::new(wire(&transition)));
            }
        }
    });
    Log(log)
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
