//! How long the audit log and the log of transitions are kept.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use crate::{
    caller::Caller,
    shutdown::Shutdown,
    store::{Answer, Note, StoreHandle},
};

/// How often what is too old is looked for.
const INTERVAL: Duration = Duration::from_secs(3600);
/// Records that are dropped in one transaction: no change of a policy waits long for it.
const BATCH: u32 = 2000;
/// The least: a typing error must not empty the log.
const LEAST: Duration = Duration::from_secs(3600);

/// How long a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// For so long.
    For(Duration),
    /// It is never dropped.
    Forever,
}

/// What is no retention.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BadRetention {
    /// It can't be read.
    #[error("write a time such as 400d, or \"forever\": {0}")]
    Unreadable(humantime::DurationError),
    /// It would empty the log.
    #[error("must be at least 1h, or \"forever\"")]
    TooShort,
}

impl Default for Retention {
    /// Thirteen months: what happened at the same time last year can still be looked up.
    fn default() -> Self {
        Self::For(Duration::from_secs(400 * 24 * 3600))
    }
}

impl Retention {
    /// Long enough to look back on an incident.
    pub const A_MONTH: Self = Self::For(Duration::from_secs(30 * 24 * 3600));
}

impl FromStr for Retention {
    type Err = BadRetention;

    fn from_str(text: &str) -> Result<Self, BadRetention> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        match humantime::parse_duration(text) {
            Ok(time) if time >= LEAST => Ok(Self::For(time)),
            Ok(_) => Err(BadRetention::TooShort),
            Err(error) => Err(BadRetention::Unreadable(error)),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // In days where it is whole days: humantime would say months.
            Self::For(time) if time.as_secs() % (24 * 3600) == 0 => write!(f, "{}d", time.as_secs() / (24 * 3600)),
            Self::For(time) => humantime::format_duration(*time).fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}

/// Forgets transitions that are too old until the server ends.
pub(crate) async fn keep_transitions(retention: Retention, store: StoreHandle, shutdown: Shutdown) {
    keep_within(retention, shutdown, "transitions", |before| store.forget_transitions(before, BATCH)).await;
}

/// Drops records of the audit log that are too old until the server ends.
pub(crate) async fn keep(retention: Retention, store: StoreHandle, shutdown: Shutdown) {
    let message = format!("older than {retention}");
    let drop = |before| {
        let note = Note { caller: Caller::server("server"), message: message.clone(), at: SystemTime::now() };
        store.truncate_audit(before, BATCH, note)
    };
    keep_within(retention, shutdown, "audit", drop).await;
}

/// Drops what is too old of a log until the server ends, the oldest first, [`BATCH`] at a time.
async fn keep_within<'a>(
    retention: Retention,
    shutdown: Shutdown,
    log: &'static str,
    drop: impl Fn(SystemTime) -> Answer<'a, u64>,
) {
    let Retention::For(time) = retention else { return };
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            _ = ticks.tick() => {}
        }
        let Some(before) = SystemTime::now().checked_sub(time) else { continue };
        loop {
            match drop(before).await {
                Ok(0) => break,
                Ok(dropped) => {
                    tracing::info!(event.name = "log.truncated", log, dropped, retention = %retention, "what is too old is dropped");
                    if dropped < u64::from(BATCH) {
                        break;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, log, "cannot drop what is too old");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_read_as_it_is_written() {
        for text in ["400d", "1h", "1day 6h", "forever"] {
            let read: Retention = text.parse().unwrap();
            assert_eq!(read.to_string().parse(), Ok(read), "{text}");
        }
        assert_eq!(Retention::default().to_string(), "400d");
        assert_eq!("59m".parse::<Retention>(), Err(BadRetention::TooShort));
        for bad in ["", "400", "never", "-1d"] {
            assert!(bad.parse::<Retention>().is_err(), "{bad}");
        }
    }
}
