//! Heals a publication that was missed: a crash between commit and publish, or a change by another server.

use std::time::Duration;

use super::Hub;
use crate::{shutdown::Shutdown, store::StoreHandle};

/// How late a missed publication may be noticed.
const INTERVAL: Duration = Duration::from_secs(5);

/// Compares the store with the hub until the server ends.
pub async fn reconcile(hub: Hub, store: StoreHandle, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            _ = ticks.tick() => {}
        }
        match store.load().await {
            Ok(loaded) => {
                let revision = loaded.revision;
                if hub.replace(loaded) {
                    tracing::warn!(event.name = "hub.healed", %revision, "a publication was missed");
                    crate::recovery::alarm(&hub.current());
                }
            }
            Err(error) => tracing::error!(error = %error, "cannot read the store; what is in force goes on"),
        }
    }
}
