//! What is so at a moment: told once in a second by the client's task, not by calls.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use fusebox_policy::{
    Timestamp,
    breaker::{BreakerMode, LocalState},
    fleet::{BreakerKey, gate::Forced, shared::FleetState},
    pipeline::{LiveStrategy, StrategySpec},
};
use metrics::{Label, counter, gauge};

use super::Meters;
use crate::{
    pipeline::{Live, Stage, cell::Cell},
    status::PolicySource,
};

const LOCAL: [&str; 6] = ["closed", "open", "half_open", "forced_open", "forced_closed", "disabled"];

/// What was told last: what is gone must not stand there for ever.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    policies: HashMap<String, Vec<Label>>,
    /// Outcomes that breakers have ignored, and those that came late.
    outcomes: BTreeMap<BreakerKey, (u64, u64)>,
}

impl Seen {
    /// How often.
    pub(crate) const EVERY: Duration = Duration::from_secs(1);

    /// Tells all gauges of the policies in force.
    pub(crate) fn tell(&mut self, meters: &Meters, lives: &[&Live], connected: bool, now: Timestamp) {
        let own = vec![Label::new("service", meters.service.to_string())];
        gauge!("fusebox_sync_connected", own).set(f64::from(u8::from(connected)));
        let mut policies = HashMap::new();
        let mut outcomes = BTreeMap::new();
        for live in lives {
            let labels = meters.labels(&live.policy.name, live.policy.definition.selector.target());
            let mut info = labels.clone();
            info.push(Label::new("revision", live.policy.revision.to_string()));
            info.push(Label::from_static_parts("source", source(live.source)));
            gauge!("fusebox_policy_info", info.clone()).set(1.0);
            policies.insert(format!("{info:?}"), info);
            set("fusebox_retry_budget_ratio", &labels, live.budget.used(now));
            for (index, stage) in live.stages.iter().enumerate() {
                let mut labels = labels.clone();
                labels.push(Label::new("strategy", live.strategy(index).to_string()));
                match stage {
                    Stage::Breaker(cell) => {
                        breaker(cell, &labels, now);
                        let key = cell.key();
                        let told = self.outcomes.get(&*key).copied().unwrap_or_default();
                        outcomes.insert((*key).clone(), count(cell, told, &labels, now));
                    }
                    Stage::Limited(limited) => limited.look(now, |state, spec| bounds(state, spec, &labels, now)),
                    Stage::Cache(_) | Stage::Stateless => {}
                }
            }
        }
        for (gone, labels) in &self.policies {
            if !policies.contains_key(gone) {
                gauge!("fusebox_policy_info", labels.clone()).set(0.0);
            }
        }
        self.policies = policies;
        self.outcomes = outcomes;
    }
}

/// Counts what has come since `told`, and returns what has been told now. A breaker that has fewer than then started afresh.
fn count(cell: &Cell, told: (u64, u64), labels: &[Label], now: Timestamp) -> (u64, u64) {
    let (ignored, late) = cell.look(now, |gate| (gate.breaker().ignored(), gate.breaker().late()));
    let since = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
    counter!("fusebox_breaker_ignored_total", labels.to_vec()).increment(since(ignored, told.0));
    counter!("fusebox_breaker_late_total", labels.to_vec()).increment(since(late, told.1));
    (ignored, late)
}

const fn source(source: PolicySource) -> &'static str {
    match source {
        PolicySource::Stream => "stream",
        PolicySource::Disk => "disk",
        PolicySource::Builtin => "builtin",
        PolicySource::None => "none",
    }
}

fn set(name: &'static str, labels: &[Label], value: f64) {
    gauge!(name, labels.to_vec()).set(value);
}

/// Tells a breaker's gauges.
fn breaker(cell: &Cell, labels: &[Label], now: Timestamp) {
    cell.tick(now);
    let (local, fleet, vetoed, counts, open_for) = cell.look(now, |gate| {
        let forced = gate.held().override_in_force().map(|own| own.effect);
        let local = match (gate.breaker().spec().mode(), forced, gate.local_state()) {
            (_, Some(Forced::Open), _) => "forced_open",
            (_, Some(Forced::Closed), _) => "forced_closed",
            (_, Some(Forced::Disabled), _) | (BreakerMode::Disabled, None, _) => "disabled",
            (_, None, LocalState::Closed) => "closed",
            (_, None, LocalState::Open) => "open",
            (_, None, LocalState::HalfOpen) => "half_open",
        };
        (local, gate.fleet_state(), gate.vetoes(), gate.breaker().counts(now), gate.half_open_in(now))
    });
    let state = |scope: &'static str, state: &'static str, is: bool| {
        let mut labels = labels.to_vec();
        labels.push(Label::from_static_parts("scope", scope));
        labels.push(Label::from_static_parts("state", state));
        gauge!("fusebox_breaker_state", labels).set(f64::from(u8::from(is)));
    };
    for name in LOCAL {
        state("local", name, name == local);
    }
    for own in FleetState::ALL {
        state("fleet", own.name(), own == fleet);
    }
    set("fusebox_breaker_vetoed", labels, f64::from(u8::from(vetoed)));
    let ratio = |part: u64| if counts.calls == 0 { 0.0 } else { part as f64 / counts.calls as f64 };
    set("fusebox_breaker_window_calls", labels, counts.calls as f64);
    set("fusebox_breaker_failure_ratio", labels, ratio(counts.failures));
    set("fusebox_breaker_slow_ratio", labels, ratio(counts.slow));
    set("fusebox_breaker_open_until_seconds", labels, open_for.unwrap_or_default().as_secs_f64());
}

fn bounds(state: &LiveStrategy, spec: &StrategySpec, labels: &[Label], now: Timestamp) {
    match (state, spec) {
        (LiveStrategy::Bulkhead(bulkhead), StrategySpec::Bulkhead(spec)) => {
            set("fusebox_bulkhead_in_flight", labels, f64::from(bulkhead.running()));
            set("fusebox_bulkhead_limit", labels, f64::from(spec.max_concurrent()));
            set("fusebox_bulkhead_queue_depth", labels, bulkhead.waiting() as f64);
        }
        (LiveStrategy::RateLimiter(limiter), StrategySpec::RateLimiter(spec)) => {
            set("fusebox_rate_limit_available", labels, f64::from(limiter.available(spec, now)));
        }
        (LiveStrategy::ConcurrencyLimit(limit), _) => {
            set("fusebox_concurrency_in_flight", labels, f64::from(limit.in_flight()));
            set("fusebox_concurrency_limit", labels, f64::from(limit.limit()));
        }
        (_, _) => {}
    }
}
