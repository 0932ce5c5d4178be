//! Carries one call through its pipeline.
//!
//! The call's future owns the machine; dropping it at any await point, or a panic in the operation, gives everything back.

use std::{sync::Arc, time::Duration};

use fusebox_policy::{
    Outcome,
    outcome::NoFacts,
    pipeline::{Call, Finish, Step},
};
use parking_lot::Mutex;
use tracing::{Instrument as _, Span};

use super::{
    cache::Flight,
    live::Live,
    operation::{Driven, Looked, Operation, judge},
    race::race,
    spans,
    within::within,
};
use crate::{
    clock::Clock,
    error::{CallError, FallbackError},
};

/// The machine of a call, which is owed its end.
pub(super) struct Underway {
    pub(super) call: Call,
    pub(super) live: Arc<Live>,
    pub(super) clock: Clock,
}

impl Underway {
    pub(super) const fn new(call: Call, live: Arc<Live>, clock: Clock) -> Self {
        Self { call, live, clock }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.call.is_over() {
            self.call.cancel(&*self.live, self.clock.now());
        }
    }
}

/// How far a call has come when [`run`] takes it over.
pub(super) enum Begun<O: Operation> {
    /// Not at all.
    New,
    /// Its first attempt has ended, and this is what follows.
    Step(Step, Option<Result<O::Value, CallError<O::Error>>>),
}

/// Runs a call to its end.
#[cfg(feature = "http")]
pub(crate) async fn drive<O: Operation>(
    clock: Clock,
    live: Arc<Live>,
    rules: fusebox_policy::retry::CallRules,
    operation: &mut O,
) -> Driven<O::Value, O::Error> {
    let mut underway = Underway::new(Call::new(rules), live, clock);
    run(&mut underway, Begun::New, &Mutex::new(operation)).await
}

/// Runs a call, or a branch of one, to its end, inside its span where somebody wants spans.
pub(super) async fn run<O: Operation>(
    underway: &mut Underway,
    begun: Begun<O>,
    operation: &Mutex<&mut O>,
) -> Driven<O::Value, O::Error> {
    let span = if underway.call.is_branch() { Span::none() } else { spans::call(&underway.live) };
    let driven = steps(underway, begun, operation).instrument(span.clone()).await;
    spans::ended(&span, driven.outcome, driven.attempts);
    driven
}

/// Does step after step.
async fn steps<O: Operation>(
    underway: &mut Underway,
    begun: Begun<O>,
    operation: &Mutex<&mut O>,
) -> Driven<O::Value, O::Error> {
    let Underway { call, live, clock } = underway;
    let (live, clock) = (&*live, *clock);
    let (spec, cells) = (live.pipeline(), &**live);
    // What the last attempt, fallback, cache or fault gave.
    let mut slot: Option<Result<O::Value, CallError<O::Error>>> = None;
    let mut replaced = None;
    let mut flights: Vec<(usize, Flight)> = Vec::new();
    let mut step = match begun {
        Begun::New => call.start(spec, cells, clock.now()),
        Begun::Step(step, given) => {
            slot = given;
            step
        }
    };
    let finish = loop {
        // Equal calls must not wait for a flight that has come back without an answer.
        flights.retain(|(stage, _)| call.is_inside(*stage));
        step = match step {
            Step::Attempt => {
                (slot, replaced) = (None, None);
                let remaining = call.deadline_with_outer().map(|deadline| clock.now().until(deadline));
                let attempt = operation.lock().attempt(Some(live), remaining);
                let span = spans::attempt(call);
                match within(clock, call.deadline(), attempt.instrument(span.clone())).await {
                    Some(result) => {
                        let now = clock.now();
                        let step = operation.lock().judge(result.as_ref(), |outcome, facts| {
                            spans::ended(&span, outcome, call.attempts());
                            call.attempt_ended(spec, cells, outcome, facts, now)
                        });
                        slot = Some(result.map_err(CallError::Inner));
                        step
                    }
                    None => call.deadline_passed(spec, cells, clock.now()),
                }
            }
            Step::Wait { until } => {
                // A response that is not handed out must not keep its connection busy.
                slot = None;
                match within(clock, call.deadline(), clock.sleep_until(until)).await {
                    Some(()) => call.wake(spec, cells, clock.now()),
                    None => call.deadline_passed(spec, cells, clock.now()),
                }
            }
            Step::Queue { stage, ticket, until } => {
                slot = None;
                let since = clock.now();
                let admitted = within(clock, until, live.admitted(stage, ticket));
                match within(clock, call.deadline(), admitted).await {
                    Some(admitted) => {
                        let now = clock.now();
                        live.queued(now.since(since));
                        call.queue_ended(spec, cells, admitted.is_some(), now)
                    }
                    None => call.deadline_passed(spec, cells, clock.now()),
                }
            }
            Step::Hedge { stage } => {
                slot = None;
                match within(clock, call.deadline(), race(clock, live, call, stage, operation)).await {
                    Some(driven) => {
                        let Driven { result, outcome, attempts, replaced: stands_for } = driven;
                        replaced = stands_for;
                        let now = clock.now();
                        let step = judge(&**operation.lock(), &result, outcome, |_, facts| {
                            call.hedge_ended(spec, cells, outcome, attempts, facts, now)
                        });
                        slot = Some(result);
                        step
                    }
                    None => call.deadline_passed(spec, cells, clock.now()),
                }
            }
            Step::Lookup { stage } => {
                slot = None;
                let lookup = operation.lock().lookup(live, stage);
                match within(clock, call.deadline(), lookup).await {
                    Some(Looked::Hit(value)) => {
                        let now = clock.now();
                        let step = operation
                            .lock()
                            .judge(Ok(&value), |outcome, facts| call.cache_hit(spec, cells, outcome, facts, now));
                        slot = Some(Ok(value));
                        step
                    }
                    Some(Looked::Miss(flight)) => {
                        flights.push((stage, flight));
                        call.cache_missed(spec, cells, true, clock.now())
                    }
                    Some(Looked::NotCacheable) => call.cache_missed(spec, cells, false, clock.now()),
                    None => call.deadline_passed(spec, cells, clock.now()),
                }
            }
            Step::Keep { stage } => {
                let flight = flights.iter().position(|(own, _)| *own == stage).map(|index| flights.remove(index).1);
                slot = match (slot, flight) {
                    // What a fallback made up is not the target's answer.
                    (Some(Ok(value)), Some(flight)) if replaced.is_none() => {
                        Some(Ok(operation.lock().keep(flight, value)))
                    }
                    (slot, _) => slot,
                };
                let now = clock.now();
                match &slot {
                    Some(result) => judge(&**operation.lock(), result, call.outcome(), |outcome, facts| {
                        call.kept(spec, cells, outcome, facts, now)
                    }),
                    None => call.kept(spec, cells, Outcome::OK, &NoFacts, now),
                }
            }
            Step::Inject { stage, fault } => {
                let made = operation.lock().inject(fault);
                slot = Some(match made {
                    Some(result) => result.map_err(CallError::Inner),
                    None => Err(injected(live, stage, fault.outcome())),
                });
                call.injected(spec, cells, fault.outcome(), &NoFacts, clock.now())
            }
            Step::Fallback { stage, after } => {
                slot = None;
                let fallback = operation.lock().fallback(live, stage, after);
                match within(clock, call.deadline(), fallback).await {
                    Some(result) => {
                        replaced = result.is_ok().then_some((stage, after));
                        let result = result.map_err(|reason| {
                            CallError::Fallback(FallbackError {
                                policy: live.policy.name.clone(),
                                strategy: live.strategy(stage).clone(),
                                replaced: after,
                                reason,
                            })
                        });
                        let now = clock.now();
                        let failed = Outcome::Error(fusebox_policy::outcome::ErrorKind::Other);
                        let step = judge(&**operation.lock(), &result, failed, |outcome, facts| {
                            call.fallback_ended(spec, cells, outcome, facts, now)
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
    let (outcome, attempts) = (call.outcome(), call.attempts());
    let result = match finish {
        Finish::Value => slot.expect("a value is finished with only after something has given one"),
        Finish::Rejected { stage, reason } => Err(CallError::Rejected(live.rejection(stage, reason))),
        Finish::Timeout { stage } => Err(timeout(live, stage)),
        Finish::Exhausted { attempts, .. } => {
            let last = match outcome {
                Outcome::Timeout(stage) => Some(timeout(live, stage)),
                Outcome::Rejected(stage, reason) => Some(CallError::Rejected(live.rejection(stage, reason))),
                Outcome::Response(_) | Outcome::Error(_) => slot.and_then(Result::err),
            };
            Err(CallError::RetriesExhausted { attempts, last: last.map(Box::new), outcome })
        }
    };
    let replaced = replaced.filter(|_| result.is_ok());
    Driven { result, outcome, attempts, replaced }
}

pub(super) fn timeout<E>(live: &Live, stage: usize) -> CallError<E> {
    let limit = live.pipeline().strategies()[stage].spec().as_timeout().map_or(Duration::ZERO, |own| own.duration());
    CallError::Timeout { policy: live.policy.name.clone(), strategy: live.strategy(stage).clone(), limit }
}

fn injected<E>(live: &Live, stage: usize, outcome: Outcome) -> CallError<E> {
    CallError::Injected { policy: live.policy.name.clone(), strategy: live.strategy(stage).clone(), outcome }
}
