//! Traffic: people who ask the replicas of A, busy ones and quiet ones. Bounded, and over when the story is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};

use super::cast::Cast;

/// Requests a second that each replica gets: a busy one, an ordinary one, a quiet one. A fleet is never even, and the quiet replica is the one
/// that learns most from the others.
pub(super) const RATES: [u32; 3] = [60, 30, 4];
/// Requests of one replica that may be under way.
const MOST_AT_ONCE: usize = 64;

/// What people got.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// B's own message.
    pub(super) from_b: AtomicU64,
    /// The fallback's.
    pub(super) fallback: AtomicU64,
    /// No answer.
    pub(super) failed: AtomicU64,
}

/// Counts at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) from_b: u64,
    pub(super) fallback: u64,
    pub(super) failed: u64,
}

impl Moment {
    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            from_b: self.from_b - earlier.from_b,
            fallback: self.fallback - earlier.fallback,
            failed: self.failed - earlier.failed,
        }
    }
}

/// The traffic.
#[derive(Debug)]
pub(super) struct Load {
    tasks: JoinSet<()>,
    counts: Arc<Counts>,
}

impl Load {
    pub(super) fn start(cast: &Cast) -> Self {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for (url, rate) in cast.replica_urls().into_iter().zip(RATES) {
            tasks.spawn(people(cast.http.clone(), url, rate, Arc::clone(&counts)));
        }
        Self { tasks, counts }
    }

    pub(super) fn now(&self) -> Moment {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Moment {
            from_b: read(&self.counts.from_b),
            fallback: read(&self.counts.fallback),
            failed: read(&self.counts.failed),
        }
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn people(http: reqwest::Client, url: String, rate: u32, counts: Arc<Counts>) {
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Dropped with this task, and its requests with it.
    let mut asking = JoinSet::new();
    loop {
        ticks.tick().await;
        while asking.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (http, url, counts) = (http.clone(), url.clone(), Arc::clone(&counts));
        asking.spawn(async move {
            let _place = place;
            let count = match http.get(url).send().await {
                Ok(response) if response.status().is_success() => match response.text().await {
                    Ok(body) if body.contains("error accessing") => &counts.fallback,
                    Ok(_) => &counts.from_b,
                    Err(_) => &counts.failed,
                },
                Ok(_) | Err(_) => &counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
}
