//! Carries one call through its pipeline.
//!
//! The call's future owns the machine; dropping it at any await point, or a panic in the operation, gives every permit back.
//! No timer is armed before an operation has to wait.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use fusebox_policy::{
    Draw, Timestamp,
    breaker::Ending,
    fleet::gate::Pass,
    outcome::{Facts, Outcome, RejectionReason},
    pipeline::{Call, Cells, Event, Finish, Step, StrategySpec},
    retry::{CallRules, budget::BudgetSpec},
};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::live::Live;
use crate::{
    clock::Clock,
    error::{CallError, FallbackError, FallbackFault},
};

/// What a call does: attempts, and fallbacks in their place.
pub(crate) trait Operation {
    /// What a good attempt gives.
    type Value;
    /// What a bad one gives.
    type Error;
    /// One attempt.
    type Attempt: Future<Output = Result<Self::Value, Self::Error>>;
    /// One fallback.
    type Fallback: Future<Output = Result<Self::Value, FallbackFault>>;

    /// Begins an attempt. `remaining` is the time until the nearest deadline.
    fn attempt(&mut self, remaining: Option<Duration>) -> Self::Attempt;
    /// Begins the fallback of a stage.
    fn fallback(&mut self, live: &Live, stage: usize, after: Outcome) -> Self::Fallback;
    /// What a result means to rules.
    fn judge<R>(
        &self,
        result: &Result<Self::Value, Failed<Self::Error>>,
        act: impl FnOnce(Outcome, &dyn Facts) -> R,
    ) -> R;
}

/// Why there is no value.
#[derive(Debug)]
pub(crate) enum Failed<E> {
    /// The operation's own error.
    Inner(E),
    /// The fallback's.
    Fallback(FallbackError),
}

/// What a call came to.
#[derive(Debug)]
#[cfg_attr(not(feature = "reqwest"), expect(dead_code, reason = "only responses have room to tell these"))]
pub(crate) struct Driven<V, E> {
    pub(crate) result: Result<V, CallError<E>>,
    pub(crate) attempts: u32,
    /// The fallback that gave the value, and what it stands for.
    pub(crate) replaced: Option<(usize, Outcome)>,
}

/// The machine of a call, which is owed its end.
struct Underway {
    call: Call,
    cells: Watched,
    clock: Clock,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.call.cancel(&self.cells, self.clock.now());
    }
}

/// The policy's cells, and what the strategies said last in this call.
struct Watched {
    live: Arc<Live>,
    /// The outcome that did not come from an attempt: a timeout or a rejection.
    strategy: Cell<Option<Outcome>>,
}

impl Cells for Watched {
    fn acquire(&self, stage: usize, now: Timestamp) -> Result<Pass, RejectionReason> {
        self.live.acquire(stage, now)
    }

    fn record(&self, stage: usize, pass: Pass, ending: &Ending, now: Timestamp) {
        self.live.record(stage, pass, ending, now);
    }

    fn abandon(&self, stage: usize, pass: Pass, now: Timestamp) {
        self.live.abandon(stage, pass, now);
    }

    fn count_call(&self, stage: usize, now: Timestamp) {
        self.live.count_call(stage, now);
    }

    fn try_retry(&self, stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool {
        self.live.try_retry(stage, budget, now)
    }

    fn draw(&self) -> Draw {
        self.live.draw()
    }

    fn event(&self, event: Event) {
        match event {
            Event::TimedOut { stage } => self.strategy.set(Some(Outcome::Timeout(stage))),
            Event::Rejected { stage, reason } => self.strategy.set(Some(Outcome::Rejected(stage, reason))),
            Event::RetryScheduled { .. } | Event::RetryStopped { .. } | Event::FallbackExecuted { .. } => {}
        }
        self.live.event(event);
    }
}

/// Runs a call to its end.
pub(crate) async fn drive<O: Operation>(
    clock: Clock,
    live: Arc<Live>,
    rules: CallRules,
    operation: &mut O,
) -> Driven<O::Value, O::Error> {
    let cells = Watched { live: Arc::clone(&live), strategy: Cell::new(None) };
    let mut underway = Underway { call: Call::new(rules), cells, clock };
    let spec = live.pipeline();
    let Underway { call, cells, .. } = &mut underway;
    // What the last attempt or fallback gave, and its meaning.
    let mut slot: Option<Result<O::Value, Failed<O::Error>>> = None;
    let mut outcome = Outcome::OK;
    let mut replaced = None;
    let mut step = call.start(spec, cells, clock.now());
    let finish = loop {
        step = match step {
            Step::Attempt => {
                (slot, replaced) = (None, None);
                cells.strategy.set(None);
                let deadline = call.deadline();
                let remaining = deadline.map(|deadline| clock.now().until(deadline));
                match within(clock, deadline, operation.attempt(remaining)).await {
                    Some(result) => {
                        let result = result.map_err(Failed::Inner);
                        let step = operation.judge(&result, |judged, facts| {
                            outcome = judged;
                            call.attempt_ended(spec, cells, judged, facts, clock.now())
                        });
                        slot = Some(result);
                        step
                    }
                    None => call.deadline_passed(spec, cells, clock.now()),
                }
            }
            Step::Wait { until } => {
                // A response that is not handed out must not keep its connection busy.
                slot = None;
                let deadline = call.deadline();
                let end = deadline.map_or(until, |deadline| deadline.min(until));
                clock.sleep_until(end).await;
                let now = clock.now();
                if deadline.is_some_and(|deadline| now >= deadline) {
                    call.deadline_passed(spec, cells, now)
                } else {
                    call.wake(spec, cells, now)
                }
            }
            Step::Fallback { stage, after } => {
                slot = None;
                cells.strategy.set(None);
                match within(clock, call.deadline(), operation.fallback(&live, stage, after)).await {
                    Some(result) => {
                        replaced = result.is_ok().then_some((stage, after));
                        let result = result.map_err(|reason| {
                            Failed::Fallback(FallbackError {
                                policy: live.policy.name.clone(),
                                strategy: live.strategy(stage).clone(),
                                replaced: after,
                                reason,
                            })
                        });
                        let step = operation.judge(&result, |judged, facts| {
                            outcome = judged;
                            call.fallback_ended(spec, cells, stage, judged, facts, clock.now())
                        });
                        slot = Some(result);
                        step
                    }
                    None => call.deadline_passed(spec, cells, clock.now()),
                }
            }
            Step::Finish(finish) => break finish,
        };
    };
    let attempts = call.attempts();
    let strategy = cells.strategy.get();
    let result = match finish {
        Finish::Value => into_result(slot.expect("a value is finished with only after an attempt or a fallback")),
        Finish::Rejected { stage, reason } => Err(CallError::Rejected(live.rejection(stage, reason))),
        Finish::Timeout { stage } => Err(timeout(&live, stage)),
        Finish::Exhausted { attempts, .. } => {
            let last = match strategy {
                Some(Outcome::Timeout(stage)) => Some(timeout(&live, stage)),
                Some(Outcome::Rejected(stage, reason)) => Some(CallError::Rejected(live.rejection(stage, reason))),
                Some(Outcome::Response(_) | Outcome::Error(_)) | None => slot.and_then(|slot| into_result(slot).err()),
            };
            let outcome = strategy.unwrap_or(outcome);
            Err(CallError::RetriesExhausted { attempts, last: last.map(Box::new), outcome })
        }
    };
    let replaced = replaced.filter(|_| result.is_ok());
    Driven { result, attempts, replaced }
}

fn into_result<V, E>(slot: Result<V, Failed<E>>) -> Result<V, CallError<E>> {
    slot.map_err(|failed| match failed {
        Failed::Inner(error) => CallError::Inner(error),
        Failed::Fallback(error) => CallError::Fallback(error),
    })
}

fn timeout<E>(live: &Live, stage: usize) -> CallError<E> {
    let limit = match live.pipeline().strategies()[stage].spec() {
        StrategySpec::Timeout(timeout) => timeout.duration(),
        StrategySpec::Retry(_) | StrategySpec::CircuitBreaker(_) | StrategySpec::Fallback(_) => Duration::ZERO,
    };
    CallError::Timeout { policy: live.policy.name.clone(), strategy: live.strategy(stage).clone(), limit }
}

/// Runs `inside`; `None` if the deadline came first.
fn within<F: Future>(clock: Clock, deadline: Option<Timestamp>, inside: F) -> Within<F> {
    Within { inside, deadline, clock, sleep: None }
}

pin_project! {
    struct Within<F> {
        #[pin]
        inside: F,
        deadline: Option<Timestamp>,
        clock: Clock,
        // Armed at the first wait: most of what is quick never needs it.
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(value) = this.inside.poll(cx) {
            return Poll::Ready(Some(value));
        }
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        if this.sleep.is_none() {
            this.sleep.set(Some(this.clock.sleep_until(deadline)));
        }
        if let Some(sleep) = this.sleep.as_mut().as_pin_mut() {
            ready!(sleep.poll(cx));
        }
        Poll::Ready(None)
    }
}
