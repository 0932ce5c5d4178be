//! What waits to be sent to one replica: the newest state of each thing, never a history.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use fusebox_policy::fleet::BreakerKey;
use fusebox_proto::sync::v1 as sync;
use tokio::sync::Notify;

/// Permits and canvasses that may wait. A replica that does not take them in time could not use them either.
const MOST_WAITING: usize = 64;

/// A cell that the owner fills and one session empties.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    verdicts: BTreeMap<BreakerKey, sync::Verdict>,
    shares: BTreeMap<BreakerKey, sync::RateShare>,
    overrides: Option<sync::OverrideSet>,
    refused: BTreeMap<BreakerKey, sync::BreakerRefused>,
    permits: VecDeque<sync::ProbePermit>,
    canvasses: VecDeque<sync::Canvass>,
    ack: Option<sync::HeartbeatAck>,
    replaced: bool,
}

/// What a session finds.
#[derive(Debug)]
pub struct Found {
    /// To be sent in this order.
    pub messages: Vec<sync::sync_response::Message>,
    /// Another stream has taken this replica's place.
    pub replaced: bool,
}

impl Outbox {
    fn fill(&self, fill: impl FnOnce(&mut Waiting)) {
        fill(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.filled.notify_one();
    }

    pub(super) fn verdict(&self, key: BreakerKey, verdict: sync::Verdict) {
        self.fill(|waiting| {
            waiting.verdicts.insert(key, verdict);
        });
    }

    pub(super) fn share(&self, key: BreakerKey, share: sync::RateShare) {
        self.fill(|waiting| {
            waiting.shares.insert(key, share);
        });
    }

    pub(super) fn overrides(&self, set: sync::OverrideSet) {
        self.fill(|waiting| waiting.overrides = Some(set));
    }

    pub(super) fn refuse(&self, key: BreakerKey, refused: sync::BreakerRefused) {
        self.fill(|waiting| {
            waiting.refused.insert(key, refused);
        });
    }

    pub(super) fn permit(&self, permit: sync::ProbePermit) {
        self.fill(|waiting| bounded(&mut waiting.permits, permit));
    }

    pub(super) fn canvass(&self, canvass: sync::Canvass) {
        self.fill(|waiting| bounded(&mut waiting.canvasses, canvass));
    }

    pub(super) fn ack(&self, ack: sync::HeartbeatAck) {
        self.fill(|waiting| waiting.ack = Some(ack));
    }

    pub(super) fn replace(&self) {
        self.fill(|waiting| waiting.replaced = true);
    }

    /// Waits until there is something.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes everything. Verdicts and shares go first and the acknowledgement last: it renews the leases of what was sent before it.
    #[must_use]
    pub fn take(&self) -> Found {
        use sync::sync_response::Message;
        let Waiting { verdicts, shares, overrides, refused, permits, canvasses, ack, replaced } =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let messages = verdicts
            .into_values()
            .map(Message::Verdict)
            .chain(shares.into_values().map(Message::RateShare))
            .chain(overrides.map(Message::Overrides))
            .chain(refused.into_values().map(Message::BreakerRefused))
            .chain(permits.into_iter().map(Message::ProbePermit))
            .chain(canvasses.into_iter().map(Message::Canvass))
            .chain(ack.map(Message::HeartbeatAck))
            .collect();
        Found { messages, replaced }
    }
}

fn bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= MOST_WAITING {
        queue.pop_front();
    }
    queue.push_back(item);
}
