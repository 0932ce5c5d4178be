//! Carries one call through its pipeline.
//!
//! The call's future owns the machine; dropping it at any await point, or a panic in the operation, gives everything back.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use fusebox_policy::{
    Outcome,
    outcome::NoFacts,
    pipeline::{Call, Finish, Step},
    retry::CallRules,
};
use parking_lot::Mutex;

use super::{
    cache::Flight,
    live::Live,
    operation::{Driven, Looked, Operation, judge},
    race::race,
    within::within,
};
use crate::{
    clock::Clock,
    error::{CallError, FallbackError},
    target::Target,
};

/// The machine of a call, which is owed its end.
pub(super) struct Underway {
    call: Call,
    live: Arc<Live>,
    clock: Clock,
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
pub(super) enum Begun<'a, O: Operation> {
    /// Not at all.
    New,
    /// Its first attempt waits.
    Attempt(Pin<&'a mut O::Attempt>),
    /// Its first attempt has ended, and this is what follows.
    Step(Step, Option<Result<O::Value, CallError<O::Error>>>),
}

/// The machine of a call in its first poll, while the policy is only borrowed.
struct Opening<'a> {
    call: Call,
    live: &'a Live,
    clock: Clock,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        // The operation has panicked in its first poll.
        if !self.call.is_over() {
            self.call.cancel(self.live, self.clock.now());
        }
    }
}

impl Opening<'_> {
    /// Takes the machine out, for a call that goes on.
    fn into_call(mut self) -> Call {
        std::mem::replace(&mut self.call, Call::new(CallRules::default()))
    }
}

/// How the first poll of a call has ended.
enum Opened<O: Operation> {
    Done(Result<O::Value, CallError<O::Error>>),
    Unguarded,
    Waits(Call, Arc<Live>),
    GoesOn(Call, Arc<Live>, Step, Option<Result<O::Value, CallError<O::Error>>>),
}

/// Runs a call to its end. An operation that is ready at once goes through its whole pipeline in one poll: with the policy
/// borrowed, and without a timer, an allocation or a counter that threads share.
pub(crate) async fn begin<O: Operation>(
    target: &Target,
    rules: CallRules,
    mut operation: O,
) -> Result<O::Value, CallError<O::Error>> {
    let client = &target.client;
    let clock = client.clock;
    let mut first = pin!(None::<O::Attempt>);
    let opened = poll_fn(|cx| {
        let opened = target.snapshot.with(&client.registry, &target.name, target.route.as_deref(), |live| match live {
            Some(live) => open(clock, live, rules, &mut operation, first.as_mut(), cx),
            None => Opened::Unguarded,
        });
        Poll::Ready(opened)
    })
    .await;
    match opened {
        Opened::Done(result) => result,
        Opened::Unguarded => operation.attempt(None, None).await.map_err(CallError::Inner),
        // Only calls that wait, or whose first attempt was not the last, need room for the rest of the way.
        Opened::Waits(call, live) => {
            let mut underway = Underway::new(call, live, clock);
            let attempt = first.as_pin_mut().expect("a call that waits has begun an attempt");
            Box::pin(run(&mut underway, Begun::Attempt(attempt), &Mutex::new(&mut operation))).await.result
        }
        Opened::GoesOn(call, live, step, slot) => {
            first.set(None);
            let mut underway = Underway::new(call, live, clock);
            Box::pin(run(&mut underway, Begun::Step(step, slot), &Mutex::new(&mut operation))).await.result
        }
    }
}

/// The first poll.
fn open<O: Operation>(
    clock: Clock,
    live: &Arc<Live>,
    rules: CallRules,
    operation: &mut O,
    mut first: Pin<&mut Option<O::Attempt>>,
    cx: &mut Context<'_>,
) -> Opened<O> {
    let now = clock.now();
    let mut opening = Opening { call: Call::new(rules), live, clock };
    let step = opening.call.start(live.pipeline(), &**live, now);
    if step != Step::Attempt {
        return finish_or_go_on(opening, live, step, None);
    }
    let remaining = opening.call.deadline().map(|deadline| now.until(deadline));
    first.set(Some(operation.attempt(Some(live), remaining)));
    let Some(attempt) = first.as_mut().as_pin_mut() else { unreachable!("it has just been set") };
    let Poll::Ready(result) = attempt.poll(cx) else {
        return Opened::Waits(opening.into_call(), Arc::clone(live));
    };
    let now = clock.now();
    let step = operation.judge(result.as_ref(), |outcome, facts| {
        opening.call.attempt_ended(live.pipeline(), &**live, outcome, facts, now)
    });
    finish_or_go_on(opening, live, step, Some(result.map_err(CallError::Inner)))
}

fn finish_or_go_on<O: Operation>(
    opening: Opening<'_>,
    live: &Arc<Live>,
    step: Step,
    slot: Option<Result<O::Value, CallError<O::Error>>>,
) -> Opened<O> {
    match (step, slot) {
        (Step::Finish(Finish::Value), Some(result)) => Opened::Done(result),
        (Step::Finish(Finish::Rejected { stage, reason }), _) => {
            Opened::Done(Err(CallError::Rejected(live.rejection(stage, reason))))
        }
        (step, slot) => Opened::GoesOn(opening.into_call(), Arc::clone(live), step, slot),
    }
}

/// Runs a call to its end.
pub(crate) async fn drive<O: Operation>(
    clock: Clock,
    live: Arc<Live>,
    rules: CallRules,
    operation: &mut O,
) -> Driven<O::Value, O::Error> {
    let mut underway = Underway::new(Call::new(rules), live, clock);
    run(&mut underway, Begun::New, &Mutex::new(operation)).await
}

/// Does step after step.
pub(super) async fn run<O: Operation>(
    underway: &mut Underway,
    begun: Begun<'_, O>,
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
        Begun::Attempt(attempt) => match within(clock, call.deadline(), attempt).await {
            Some(result) => {
                let now = clock.now();
                let step = operation.lock().judge(result.as_ref(), |outcome, facts| {
                    call.attempt_ended(spec, cells, outcome, facts, now)
                });
                slot = Some(result.map_err(CallError::Inner));
                step
            }
            None => call.deadline_passed(spec, cells, clock.now()),
        },
    };
    let finish = loop {
        // Equal calls must not wait for a flight that has come back without an answer.
        flights.retain(|(stage, _)| call.is_inside(*stage));
        step = match step {
            Step::Attempt => {
                (slot, replaced) = (None, None);
                let remaining = call.deadline_with_outer().map(|deadline| clock.now().until(deadline));
                let attempt = operation.lock().attempt(Some(live), remaining);
                match within(clock, call.deadline(), attempt).await {
                    Some(result) => {
                        let now = clock.now();
                        let step = operation.lock().judge(result.as_ref(), |outcome, facts| {
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
                let admitted = within(clock, until, live.admitted(stage, ticket));
                match within(clock, call.deadline(), admitted).await {
                    Some(admitted) => call.queue_ended(spec, cells, admitted.is_some(), clock.now()),
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
                        let step = operation.lock().judge(Ok(&value), |outcome, facts| {
                            call.cache_hit(spec, cells, outcome, facts, now)
                        });
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

fn timeout<E>(live: &Live, stage: usize) -> CallError<E> {
    let limit = live.pipeline().strategies()[stage].spec().as_timeout().map_or(Duration::ZERO, |own| own.duration());
    CallError::Timeout { policy: live.policy.name.clone(), strategy: live.strategy(stage).clone(), limit }
}

fn injected<E>(live: &Live, stage: usize, outcome: Outcome) -> CallError<E> {
    CallError::Injected { policy: live.policy.name.clone(), strategy: live.strategy(stage).clone(), outcome }
}
