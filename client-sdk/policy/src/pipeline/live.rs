//! The live state of the strategies that are shared between calls, circuit breakers aside.

use super::{
    cells::{Entry, Hold},
    spec::StrategySpec,
};
use crate::{
    Draw, Timestamp,
    breaker::Ending,
    bulkhead::{Bulkhead, Entered, Ticket},
    chaos::Chaos,
    concurrency_limit::AdaptiveLimit,
    hedge::{HedgeDelay, HedgeSpec, Latencies},
    outcome::RejectionReason,
    rate_limiter::{RateLimiter, Reserved},
    retry::CallRules,
    throttle::Throttle,
};

/// Live state that outlives the policies that describe it. The settings come with each question; a setting of another kind
/// than the state lets everything pass, which a shell that pairs them rightly never sees.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveStrategy {
    /// Of a bulkhead.
    Bulkhead(Bulkhead),
    /// Of a rate limiter.
    RateLimiter(RateLimiter),
    /// Of a hedge.
    Hedge(Latencies),
    /// Of an adaptive concurrency limit.
    ConcurrencyLimit(AdaptiveLimit),
    /// Of a throttle.
    Throttle(Throttle),
    /// Of chaos.
    Chaos(Chaos),
}

impl LiveStrategy {
    /// Fresh state, for the kinds that have one here. `chaos_until` is the end of chaos on the caller's clock.
    #[must_use]
    pub fn new(spec: &StrategySpec, chaos_until: Timestamp) -> Option<Self> {
        match spec {
            StrategySpec::Bulkhead(_) => Some(Self::Bulkhead(Bulkhead::new())),
            StrategySpec::RateLimiter(_) => Some(Self::RateLimiter(RateLimiter::new())),
            StrategySpec::Hedge(_) => Some(Self::Hedge(Latencies::default())),
            StrategySpec::ConcurrencyLimit(spec) => Some(Self::ConcurrencyLimit(AdaptiveLimit::new(spec))),
            StrategySpec::Throttle(_) => Some(Self::Throttle(Throttle::new())),
            StrategySpec::Chaos(_) => Some(Self::Chaos(Chaos::new(chaos_until))),
            StrategySpec::Timeout(_)
            | StrategySpec::Retry(_)
            | StrategySpec::CircuitBreaker(_)
            | StrategySpec::Fallback(_)
            | StrategySpec::Cache(_) => None,
        }
    }

    /// Takes the state of a former definition over to a new one of the same kind, by the rules for live change; says who may
    /// run at once. Statistics that would mean something else start fresh.
    pub fn adapt(&mut self, old: &StrategySpec, new: &StrategySpec, chaos_until: Timestamp) -> Vec<Ticket> {
        match (self, old, new) {
            (Self::Bulkhead(bulkhead), _, StrategySpec::Bulkhead(spec)) => bulkhead.resize(spec.max_concurrent()),
            (Self::Chaos(chaos), _, StrategySpec::Chaos(_)) => {
                *chaos = Chaos::new(chaos_until);
                Vec::new()
            }
            (Self::Throttle(throttle), StrategySpec::Throttle(old), StrategySpec::Throttle(new)) => {
                if old.window() != new.window() || old.classifier() != new.classifier() {
                    *throttle = Throttle::new();
                }
                Vec::new()
            }
            (Self::ConcurrencyLimit(limit), _, StrategySpec::ConcurrencyLimit(spec)) => {
                limit.adapt(spec);
                Vec::new()
            }
            // Reservations and latencies mean the same under any settings.
            (_, _, _) => Vec::new(),
        }
    }

    /// Asks for leave.
    pub fn enter(&mut self, spec: &StrategySpec, rules: CallRules, now: Timestamp, draw: Draw) -> Entry {
        match (self, spec) {
            (Self::Bulkhead(bulkhead), StrategySpec::Bulkhead(spec)) => {
                match bulkhead.enter(spec.max_concurrent(), spec.max_waiting()) {
                    Entered::Admitted(ticket) => Entry::Pass(Hold::Place(ticket)),
                    Entered::Queued(ticket) => {
                        Entry::Queue { ticket, until: spec.max_wait().map(|wait| now.plus(wait)) }
                    }
                    Entered::Full => Entry::Rejected(RejectionReason::Full),
                }
            }
            (Self::RateLimiter(limiter), StrategySpec::RateLimiter(spec)) => match limiter.reserve(spec, now) {
                Reserved::Turn(turn) if turn <= now => Entry::Pass(Hold::Turn(turn)),
                Reserved::Turn(turn) => Entry::Wait { until: turn, hold: Hold::Turn(turn) },
                Reserved::Exceeded { retry_after } => Entry::Rejected(RejectionReason::RateExceeded { retry_after }),
            },
            (Self::ConcurrencyLimit(limit), StrategySpec::ConcurrencyLimit(_)) => {
                if limit.enter() {
                    Entry::Pass(Hold::Running)
                } else {
                    Entry::Rejected(RejectionReason::ConcurrencyLimit)
                }
            }
            (Self::Throttle(throttle), StrategySpec::Throttle(spec)) => {
                if throttle.enter(spec, rules.priority, now, draw) {
                    Entry::Pass(Hold::Sent)
                } else {
                    Entry::Rejected(RejectionReason::Throttled)
                }
            }
            (Self::Chaos(chaos), StrategySpec::Chaos(spec)) => {
                chaos.strike(spec, now, draw).map_or(Entry::Pass(Hold::Nothing), Entry::Trouble)
            }
            (_, _) => Entry::Pass(Hold::Nothing),
        }
    }

    /// Gives back what is held, and tells how the call ended. Says who may run now.
    pub fn leave(&mut self, spec: &StrategySpec, hold: Hold, ending: &Ending, now: Timestamp) -> Option<Ticket> {
        match (self, hold, spec) {
            (Self::Bulkhead(bulkhead), Hold::Place(ticket), StrategySpec::Bulkhead(spec)) => {
                bulkhead.leave(ticket, spec.max_concurrent())
            }
            (Self::ConcurrencyLimit(limit), Hold::Running, StrategySpec::ConcurrencyLimit(spec)) => {
                limit.leave(spec, ending.class, ending.elapsed, now);
                None
            }
            (Self::Throttle(throttle), Hold::Sent, StrategySpec::Throttle(spec)) => {
                throttle.leave(spec, ending.class, now);
                None
            }
            // A turn is used up by its beginning; the others hold nothing.
            (_, _, _) => None,
        }
    }

    /// Gives back what is held: the call was dropped. Says who may run now.
    pub fn abandon(&mut self, spec: &StrategySpec, hold: Hold, now: Timestamp) -> Option<Ticket> {
        match (self, hold, spec) {
            (Self::Bulkhead(bulkhead), Hold::Place(ticket), StrategySpec::Bulkhead(spec)) => {
                bulkhead.leave(ticket, spec.max_concurrent())
            }
            (Self::RateLimiter(limiter), Hold::Turn(turn), StrategySpec::RateLimiter(spec)) => {
                limiter.give_back(spec, turn, now);
                None
            }
            (Self::ConcurrencyLimit(limit), Hold::Running, _) => {
                limit.abandon();
                None
            }
            (_, _, _) => None,
        }
    }

    /// How long a hedge waits before it tries beside the running try; `None` while too little is known.
    #[must_use]
    pub fn hedge_delay(&self, spec: &HedgeSpec) -> Option<std::time::Duration> {
        match (spec.delay(), self) {
            (HedgeDelay::Fixed(delay), _) => Some(delay),
            (HedgeDelay::Quantile(quantile), Self::Hedge(latencies))
                if latencies.calls() >= u64::from(quantile.warm_up()) =>
            {
                latencies.quantile(quantile.ppm())
            }
            (HedgeDelay::Quantile(_), _) => None,
        }
    }
}
