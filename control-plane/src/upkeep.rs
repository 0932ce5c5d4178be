//! Looks after the store while the server runs: is everything still as it was written, and is there room again after the disk was full?

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    condition::Condition,
    shutdown::Shutdown,
    store::{AlarmKind, StoreHandle},
};

/// How soon after there is room again changes are taken for possible.
const ROOM_INTERVAL: Duration = Duration::from_secs(5);

/// Looks until the server ends; at everything that is stored at the start, and then each time after `check_every`.
pub(crate) async fn look_after(store: StoreHandle, check_every: Duration, condition: Condition, shutdown: Shutdown) {
    let mut checks = tokio::time::interval_at(Instant::now(), check_every);
    let mut rooms = tokio::time::interval(ROOM_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rooms.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            _ = checks.tick() => check(&store, &condition).await,
            _ = rooms.tick() => {
                if store.alarms().iter().any(|alarm| alarm.kind == AlarmKind::StoreFull)
                    && let Err(error) = store.try_write().await
                {
                    tracing::debug!(%error, "there is no room yet");
                }
            }
        }
    }
}

async fn check(store: &StoreHandle, condition: &Condition) {
    match store.check().await {
        Ok(findings) => {
            condition.checked(findings.len());
            for finding in findings {
                tracing::error!(
                    event.name = "store.damaged",
                    table = finding.table,
                    key = finding.key,
                    reason = finding.reason,
                    "something stored is not as it was written"
                );
            }
        }
        Err(error) => tracing::error!(%error, "the store can't be checked"),
    }
}
