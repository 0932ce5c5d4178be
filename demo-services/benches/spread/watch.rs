//! When breakers change, by what the SDK says in its log at that moment: nobody has to ask a thousand clients.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tracing::{Event, Level, Subscriber, field::Field, field::Visit};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt as _},
    util::SubscriberInitExt as _,
};

/// For everything that is not measured.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<HashMap<String, Seen>>>);

/// What happened to the breakers of one target.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<(Mutex<Moments>, Notify)>);

#[derive(Default)]
struct Moments {
    tripped: Option<Instant>,
    opened: Vec<Instant>,
}

impl Watch {
    pub(crate) fn install() -> Self {
        let watch = Self::default();
        let fusebox = Targets::new().with_target("fusebox", Level::INFO);
        tracing_subscriber::registry().with(watch.clone().with_filter(fusebox)).init();
        watch
    }

    /// From now on what happens to a target is kept.
    pub(crate) fn look_at(&self, target: &str) -> Seen {
        let seen = Seen::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned(), seen.clone());
        seen
    }
}

impl Seen {
    /// How many replicas the fleet has opened.
    pub(crate) fn opened(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).opened.len()
    }

    /// How long after the first trip each replica was open, when so many are.
    pub(crate) async fn all(&self, size: usize) -> Vec<Duration> {
        let done = async {
            while self.opened() < size {
                self.0.1.notified().await;
            }
        };
        let open = tokio::time::timeout(PATIENCE, done).await;
        let moments = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(open.is_ok(), "only {} of {size} replicas are open", moments.opened.len());
        let tripped = moments.tripped.expect("the first replica has tripped");
        moments.opened.iter().map(|at| at.duration_since(tripped)).collect()
    }
}

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = Instant::now();
        let mut said = Said::default();
        event.record(&mut said);
        if said.to != "open" {
            return;
        }
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&said.target).cloned();
        let Some(Seen(seen)) = seen else { return };
        let mut moments = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What the fleet says has a reason in words; what a replica sees itself has a cause.
        if said.by_fleet {
            moments.opened.push(now);
        } else {
            moments.tripped.get_or_insert(now);
        }
        drop(moments);
        seen.1.notify_one();
    }
}

#[derive(Default)]
struct Said {
    target: String,
    to: String,
    by_fleet: bool,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "to" => value.clone_into(&mut self.to),
            "reason" => self.by_fleet = true,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "target" {
            self.target = format!("{value:?}");
        }
    }
}
