//! Calls and attempts under one policy.

use std::time::Duration;

use fusebox_policy::{
    Outcome, Policy,
    condition::{Class, Classifier, Conditions, breaker_default},
    outcome::{NoFacts, Refuser},
    pipeline::{AttemptEnded, AttemptKind, CallEnded, Event},
    retry::Stop,
};
use metrics::{Counter, Histogram, Label, counter, histogram};

use super::Meters;

/// What a call or an attempt came to, as a label.
const OUTCOMES: [&str; 10] = [
    "success",
    "failure",
    "timeout",
    "breaker_open",
    "bulkhead_full",
    "rate_limited",
    "concurrency_limited",
    "throttled",
    "fallback",
    "cancelled",
];
const KINDS: [&str; 3] = ["first", "retry", "hedge"];

/// Registered handles: a call only counts.
#[derive(Debug)]
pub(crate) struct CallMeter {
    classifier: Option<Classifier>,
    calls: [(Counter, Histogram); OUTCOMES.len()],
    attempts: [[(Counter, Histogram); OUTCOMES.len()]; KINDS.len()],
    suppressed: Vec<(Stop, Counter)>,
    hedges: [Counter; 3],
    waits: [Histogram; 2],
    cache: [Counter; 2],
    chaos: Counter,
}

impl CallMeter {
    pub(crate) fn new(meters: &Meters, policy: &Policy) -> Self {
        let labels = meters.labels(&policy.name, policy.definition.selector.target());
        let with = |more: &[(&'static str, &'static str)]| {
            let mut labels = labels.clone();
            labels.extend(more.iter().map(|(key, value)| Label::from_static_parts(key, value)));
            labels
        };
        let suppressed = Stop::ALL.into_iter().filter(|stop| *stop != Stop::Success);
        Self {
            classifier: Classifier::try_new(None, Conditions::default(), breaker_default).ok(),
            calls: OUTCOMES.map(|outcome| {
                let labels = with(&[("outcome", outcome)]);
                (counter!("fusebox_calls_total", labels.clone()), histogram!("fusebox_call_duration_seconds", labels))
            }),
            attempts: KINDS.map(|kind| {
                OUTCOMES.map(|outcome| {
                    let labels = with(&[("kind", kind), ("outcome", outcome)]);
                    let took = histogram!("fusebox_attempt_duration_seconds", labels.clone());
                    (counter!("fusebox_attempts_total", labels), took)
                })
            }),
            suppressed: suppressed
                .map(|stop| (stop, counter!("fusebox_retries_suppressed_total", with(&[("reason", stop.name())]))))
                .collect(),
            hedges: ["won", "lost", "failed"]
                .map(|result| counter!("fusebox_hedges_total", with(&[("result", result)]))),
            waits: ["fusebox_bulkhead_wait_seconds", "fusebox_rate_limit_wait_seconds"]
                .map(|name| histogram!(name, labels.clone())),
            cache: ["hit", "miss"].map(|result| counter!("fusebox_cache_lookups_total", with(&[("result", result)]))),
            chaos: counter!("fusebox_chaos_injected_total", labels.clone()),
        }
    }

    fn outcome(&self, outcome: Option<Outcome>, replaced: bool) -> usize {
        let label = match outcome {
            None => "cancelled",
            Some(_) if replaced => "fallback",
            Some(Outcome::Timeout(_)) => "timeout",
            Some(Outcome::Rejected(_, reason)) => match reason.refuser() {
                Refuser::Bulkhead => "bulkhead_full",
                Refuser::RateLimiter => "rate_limited",
                Refuser::ConcurrencyLimit => "concurrency_limited",
                Refuser::Throttle => "throttled",
                Refuser::CircuitBreaker => "breaker_open",
            },
            Some(Outcome::Error(_)) => "failure",
            Some(outcome @ Outcome::Response(_)) => {
                let class = self.classifier.as_ref().map(|own| own.classify(outcome, Duration::ZERO, &NoFacts));
                if class == Some(Class::Failure) { "failure" } else { "success" }
            }
        };
        OUTCOMES.iter().position(|own| *own == label).unwrap_or_default()
    }

    pub(crate) fn call_ended(&self, call: CallEnded) {
        let (count, took) = &self.calls[self.outcome(call.outcome, call.replaced)];
        count.increment(1);
        took.record(call.took);
    }

    pub(crate) fn attempt_ended(&self, attempt: AttemptEnded) {
        let kind = match attempt.kind {
            AttemptKind::First => 0,
            AttemptKind::Retry => 1,
            AttemptKind::Hedge => 2,
        };
        let (count, took) = &self.attempts[kind][self.outcome(attempt.outcome, false)];
        count.increment(1);
        took.record(attempt.took);
    }

    pub(crate) fn event(&self, event: Event) {
        match event {
            Event::RetryStopped { stop, .. } => {
                if let Some((_, counter)) = self.suppressed.iter().find(|(own, _)| *own == stop) {
                    counter.increment(1);
                }
            }
            Event::HedgeEnded { winner, hedges, failed, .. } => {
                let [won, lost, all_failed] = &self.hedges;
                match (failed, winner) {
                    (true, _) => all_failed.increment(u64::from(hedges)),
                    (false, 0) => lost.increment(u64::from(hedges)),
                    (false, _) => {
                        won.increment(1);
                        lost.increment(u64::from(hedges) - 1);
                    }
                }
            }
            Event::CacheAsked { hit, .. } => self.cache[usize::from(!hit)].increment(1),
            Event::Troubled { .. } => self.chaos.increment(1),
            Event::TimedOut { .. }
            | Event::RetryScheduled { .. }
            | Event::HedgeStarted { .. }
            | Event::FallbackExecuted { .. }
            | Event::FallbackSkipped { .. }
            | Event::Rejected { .. } => {}
        }
    }

    /// A call has waited for a place in a bulkhead.
    pub(crate) fn queued(&self, waited: Duration) {
        self.waits[0].record(waited);
    }

    /// A call has to wait for its turn.
    pub(crate) fn delayed(&self, wait: Duration) {
        self.waits[1].record(wait);
    }
}
