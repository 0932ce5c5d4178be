//! A policy in force, with the state that its strategies share between calls.

use std::{sync::Arc, time::Duration};

use fusebox_policy::{
    Draw, Policy, Timestamp,
    breaker::Ending,
    bulkhead::Ticket,
    hedge::HedgeSpec,
    names::StrategyName,
    outcome::{Rejection, RejectionReason},
    pipeline::{AttemptEnded, CallEnded, Cells, Entry, Event, Hold, PipelineSpec},
    retry::{CallRules, budget::BudgetSpec},
};

use super::{
    CacheStore, Limited, Purse,
    cell::{Cell, draw},
};
use crate::status::PolicySource;

/// A policy in force. Replaced as a whole when the policy changes; the live state goes on in the next one.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) policy: Arc<Policy>,
    pub(crate) source: PolicySource,
    /// One for each strategy of the pipeline.
    pub(crate) stages: Vec<Stage>,
    /// Of the target, shared by all its policies.
    pub(crate) budget: Arc<Purse>,
    #[cfg(feature = "test")]
    pub(crate) recorder: Option<(Arc<crate::testing::Recorder>, crate::clock::Clock)>,
    #[cfg(feature = "metrics")]
    pub(crate) meter: Option<crate::metrics::CallMeter>,
}

/// The live state of one strategy.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// A breaker.
    Breaker(Arc<Cell>),
    /// A strategy that bounds or observes calls.
    Limited(Arc<Limited>),
    /// A cache.
    Cache(Arc<CacheStore>),
    /// All that it has is in the call.
    Stateless,
}

impl Live {
    pub(crate) fn pipeline(&self) -> &PipelineSpec {
        &self.policy.definition.pipeline
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.stages.iter().filter_map(|stage| if let Stage::Breaker(cell) = stage { Some(cell) } else { None })
    }

    /// The live state of what has become the strategy at an index of a changed pipeline.
    pub(crate) fn former_stage(&self, changed: &PipelineSpec, index: usize) -> Option<&Stage> {
        self.stages.get(changed.former_index(index, self.pipeline())?)
    }

    /// The headers that carry the remaining time downstream.
    #[cfg(any(feature = "reqwest", feature = "tower"))]
    pub(crate) fn propagate_headers(&self) -> impl Iterator<Item = &str> {
        let timeouts = self.pipeline().strategies().iter().filter_map(|strategy| strategy.spec().as_timeout());
        timeouts.filter_map(|timeout| timeout.propagate_header())
    }

    /// The name of the strategy at an index of the pipeline.
    pub(crate) fn strategy(&self, stage: usize) -> &StrategyName {
        self.pipeline().strategies()[stage].name()
    }

    /// Whether every call is looked at, also one that needs no decision.
    pub(super) const fn is_metered(&self) -> bool {
        #[cfg(feature = "metrics")]
        return self.meter.is_some();
        #[cfg(not(feature = "metrics"))]
        false
    }

    /// A call has waited for a place in a bulkhead.
    pub(super) fn queued(&self, waited: Duration) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.queued(waited);
        }
        let _ = waited;
    }

    /// Whether every refusal is kept on record.
    #[inline]
    pub(super) const fn is_recorded(&self) -> bool {
        #[cfg(feature = "test")]
        return self.recorder.is_some();
        #[cfg(not(feature = "test"))]
        false
    }

    pub(crate) fn rejection(&self, stage: usize, reason: RejectionReason) -> Rejection {
        Rejection {
            policy: self.policy.name.clone(),
            strategy: self.strategy(stage).clone(),
            reason,
            after: self.cell(stage).and_then(Cell::last_failure),
        }
    }

    fn cell(&self, stage: usize) -> Option<&Cell> {
        if let Stage::Breaker(cell) = self.stages.get(stage)? { Some(cell) } else { None }
    }

    fn limited(&self, stage: usize) -> Option<&Limited> {
        if let Stage::Limited(limited) = self.stages.get(stage)? { Some(limited) } else { None }
    }

    /// The answers of a cache.
    pub(crate) fn cache(&self, stage: usize) -> Option<&Arc<CacheStore>> {
        if let Stage::Cache(store) = self.stages.get(stage)? { Some(store) } else { None }
    }

    /// The settings of the hedge at an index of the pipeline.
    pub(super) fn hedge(&self, stage: usize) -> &HedgeSpec {
        self.pipeline().strategies()[stage].spec().as_hedge().expect("a race is run for a hedge only")
    }

    pub(super) fn hedge_delay(&self, stage: usize) -> Option<Duration> {
        self.limited(stage)?.hedge_delay(self.hedge(stage))
    }

    pub(super) fn hedge_took(&self, stage: usize, took: Duration) {
        if let Some(limited) = self.limited(stage) {
            limited.hedge_took(took);
        }
    }

    /// Waits until a ticket of a bulkhead has turned into a place.
    pub(super) async fn admitted(&self, stage: usize, ticket: Ticket) {
        if let Some(limited) = self.limited(stage) {
            limited.admitted(ticket).await;
        }
    }
}

impl Cells for Live {
    fn enter(&self, stage: usize, rules: CallRules, now: Timestamp) -> Entry {
        match &self.stages[stage] {
            Stage::Breaker(cell) => match cell.try_acquire(now) {
                Ok(pass) => Entry::Pass(Hold::Breaker(pass)),
                Err(reason) => Entry::Rejected(reason),
            },
            Stage::Limited(limited) => {
                let entry = limited.enter(rules, now);
                #[cfg(feature = "metrics")]
                if let (Some(meter), Entry::Wait { until, hold: Hold::Turn(_) }) = (&self.meter, &entry) {
                    meter.delayed(now.until(*until));
                }
                entry
            }
            Stage::Cache(_) | Stage::Stateless => Entry::Pass(Hold::Nothing),
        }
    }

    fn leave(&self, stage: usize, hold: Hold, ending: &Ending, now: Timestamp) {
        match (&self.stages[stage], hold) {
            (Stage::Breaker(cell), Hold::Breaker(pass)) => {
                cell.record(pass, ending, now);
            }
            (Stage::Limited(limited), hold) => limited.leave(hold, ending, now),
            (Stage::Breaker(_) | Stage::Cache(_) | Stage::Stateless, _) => {}
        }
    }

    fn abandon(&self, stage: usize, hold: Hold, now: Timestamp) {
        match (&self.stages[stage], hold) {
            (Stage::Breaker(cell), Hold::Breaker(pass)) => cell.abandon(pass),
            (Stage::Limited(limited), hold) => limited.abandon(hold, now),
            (Stage::Breaker(_) | Stage::Cache(_) | Stage::Stateless, _) => {}
        }
    }

    fn count_call(&self, _stage: usize, now: Timestamp) {
        self.budget.call(now);
    }

    fn try_retry(&self, _stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool {
        self.budget.try_retry(budget, now)
    }

    fn is_recovering(&self, stage: usize, now: Timestamp) -> bool {
        self.cell(stage).is_some_and(|cell| cell.is_recovering(now))
    }

    fn draw(&self) -> Draw {
        draw()
    }

    fn attempt_ended(&self, attempt: AttemptEnded) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.attempt_ended(attempt);
        }
        let _ = attempt;
    }

    fn call_ended(&self, call: CallEnded) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.call_ended(call);
        }
        let _ = call;
    }

    fn event(&self, event: Event) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.event(event);
        }
        let strategy = self.strategy(event.stage());
        let policy = &self.policy.name;
        let service = self.policy.definition.selector.target();
        #[cfg(feature = "test")]
        if let Some((recorder, clock)) = &self.recorder {
            recorder.record(clock.now(), (service, policy, strategy), crate::testing::Happened::Call(event));
        }
        match event {
            Event::TimedOut { stage } => {
                let limit = self.pipeline().strategies()[stage].spec().as_timeout().map(|own| own.duration());
                let limit = limit.unwrap_or_default();
                tracing::info!(target: "fusebox", target = %service, %policy, %strategy, limit_ms = millis(limit), "timed out");
            }
            Event::HedgeStarted { hedge, .. } => tracing::debug!(
                target: "fusebox", target = %service, %policy, %strategy, hedge, "hedge {hedge} started"
            ),
            Event::HedgeEnded { winner, hedges, .. } => tracing::debug!(
                target: "fusebox", target = %service, %policy, %strategy, winner, hedges, "hedged call ended"
            ),
            Event::CacheAsked { hit, .. } => {
                tracing::trace!(target: "fusebox", target = %service, %policy, %strategy, hit, "cache asked");
            }
            Event::Troubled { latency, fault, .. } => tracing::warn!(
                target: "fusebox", target = %service, %policy, %strategy, latency_ms = millis(latency), fault = ?fault,
                "chaos struck"
            ),
            Event::RetryScheduled { retry, delay, after, .. } => tracing::info!(
                target: "fusebox", target = %service, %policy, %strategy, attempt = retry, delay_ms = millis(delay), cause = %after,
                "retry {retry} after {delay:?}"
            ),
            Event::RetryStopped { stop, attempts, .. } => tracing::debug!(
                target: "fusebox", target = %service, %policy, %strategy, attempts, stop = stop.name(), "retry stopped"
            ),
            Event::FallbackExecuted { after, .. } => {
                tracing::info!(target: "fusebox", target = %service, %policy, %strategy, cause = %after, "fallback executed");
            }
            Event::FallbackSkipped { after, .. } => tracing::debug!(
                target: "fusebox", target = %service, %policy, %strategy, cause = %after,
                "fallback skipped: the call has no value of its type to answer with"
            ),
            Event::Rejected { reason, .. } => {
                tracing::debug!(target: "fusebox", target = %service, %policy, %strategy, reason = %reason, "rejected");
            }
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
