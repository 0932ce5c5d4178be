//! The future of a call.
//!
//! Most calls are over after their first attempt. They are carried by this future alone: while the operation is polled for the
//! first time the policy is only borrowed, and an operation that is ready at once goes through its whole pipeline without a
//! timer, an allocation or a counter that threads share. Only a call that goes on after its first attempt, or that has to
//! wait before it, gets room for the rest of the way.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use fusebox_policy::{
    pipeline::{Call, Finish, Step},
    retry::CallRules,
};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::{
    drive::{Begun, Underway, run, timeout},
    lane::Entered,
    live::Live,
    operation::Operation,
};
use crate::{clock::Clock, error::CallError, target::Target};

type Outcome<O> = Result<<O as Operation>::Value, CallError<<O as Operation>::Error>>;

pin_project! {
    /// See the module. `G` makes the future of the rest of the way, `S`.
    struct Calling<'t, O: Operation, G, S> {
        target: &'t Target,
        rules: CallRules,
        // Taken by the rest of the way.
        operation: Option<O>,
        #[pin]
        first: Option<O::Attempt>,
        // Of a call whose first attempt waits; none without a policy.
        waiting: Option<Box<Waiting>>,
        rest: G,
        slow: Option<Pin<Box<S>>>,
    }
}

struct Waiting {
    underway: Underway,
    /// Armed at the first wait.
    sleep: Option<Pin<Box<Sleep>>>,
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
    /// Gives the machine a place of its own, for a call that goes on: it is large, and calls that end at once must not carry
    /// room for it around.
    #[cold]
    fn settle(mut self, live: &Arc<Live>) -> Underway {
        let call = std::mem::replace(&mut self.call, Call::new(CallRules::default()));
        Underway::new(call, Arc::clone(live), self.clock)
    }
}

/// How the first poll of a call has ended.
enum Opened<O: Operation> {
    Done(Outcome<O>),
    Unguarded,
    Waits(Box<Waiting>),
    GoesOn(Box<(Underway, Begun<O>)>),
}

/// Runs an operation under the policy of a target.
pub(crate) fn calling<O: Operation>(
    target: &Target,
    rules: CallRules,
    operation: O,
) -> impl Future<Output = Outcome<O>> {
    Calling { target, rules, operation: Some(operation), first: None, waiting: None, rest: go_on::<O>, slow: None }
}

async fn go_on<O: Operation>(mut operation: O, begun: Box<(Underway, Begun<O>)>) -> Outcome<O> {
    let (mut underway, begun) = *begun;
    run(&mut underway, begun, &Mutex::new(&mut operation)).await.result
}

impl<O, G, S> Future for Calling<'_, O, G, S>
where
    O: Operation,
    G: Fn(O, Box<(Underway, Begun<O>)>) -> S,
    S: Future<Output = Outcome<O>>,
{
    type Output = Outcome<O>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<O>> {
        let mut this = self.project();
        if let Some(slow) = this.slow {
            return slow.as_mut().poll(cx);
        }
        let target = *this.target;
        let operation = this.operation.as_mut().expect("the operation is here until the rest of the way takes it");
        let begun = if this.first.is_some() {
            match ready!(poll_first(this.first.as_mut(), this.waiting, operation, cx)) {
                Ok(outcome) => return Poll::Ready(outcome),
                Err(begun) => begun,
            }
        } else {
            let client = &target.client;
            let opened =
                target.snapshot.with(&client.registry, &target.name, target.route.as_deref(), |live| match live {
                    Some(live) => open(client.clock, live, *this.rules, operation, this.first.as_mut(), cx),
                    None => Opened::Unguarded,
                });
            match opened {
                Opened::Done(outcome) => return Poll::Ready(outcome),
                Opened::GoesOn(begun) => begun,
                Opened::Waits(waiting) => {
                    *this.waiting = Some(waiting);
                    // The operation has been polled, but its deadline not yet.
                    match ready!(poll_first(this.first.as_mut(), this.waiting, operation, cx)) {
                        Ok(outcome) => return Poll::Ready(outcome),
                        Err(begun) => begun,
                    }
                }
                Opened::Unguarded => {
                    this.first.set(Some(operation.attempt(None, None)));
                    match ready!(poll_first(this.first.as_mut(), this.waiting, operation, cx)) {
                        Ok(outcome) => return Poll::Ready(outcome),
                        Err(begun) => begun,
                    }
                }
            }
        };
        // A response that is not handed out must not keep its connection busy.
        this.first.set(None);
        let operation = this.operation.take().expect("it was here a moment ago");
        let slow = this.slow.insert(Box::pin((this.rest)(operation, begun)));
        slow.as_mut().poll(cx)
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
    if O::PLAIN
        && let Some(entered) = Entered::enter(live, now)
    {
        return open_lane(clock, live, entered, rules, operation, first, cx);
    }
    let mut opening = Opening { call: Call::new(rules), live, clock };
    let step = opening.call.start(live.pipeline(), &**live, now);
    if step != Step::Attempt {
        return match step {
            Step::Finish(Finish::Rejected { stage, reason }) => {
                Opened::Done(Err(CallError::Rejected(live.rejection(stage, reason))))
            }
            step => Opened::GoesOn(Box::new((opening.settle(live), Begun::Step(step, None)))),
        };
    }
    let remaining = opening.call.deadline().map(|deadline| now.until(deadline));
    first.set(Some(operation.attempt(Some(live), remaining)));
    let polled = first.as_mut().as_pin_mut().map_or(Poll::Pending, |attempt| attempt.poll(cx));
    let Poll::Ready(result) = polled else {
        return Opened::Waits(Box::new(Waiting { underway: opening.settle(live), sleep: None }));
    };
    after_first(opening, live, operation, result)
}

/// The first attempt has ended in the first poll.
fn after_first<O: Operation>(
    mut opening: Opening<'_>,
    live: &Arc<Live>,
    operation: &O,
    result: Result<O::Value, O::Error>,
) -> Opened<O> {
    let now = opening.clock.now();
    let step = operation.judge(result.as_ref(), |outcome, facts| {
        opening.call.attempt_ended(live.pipeline(), &**live, outcome, facts, now)
    });
    match step {
        Step::Finish(Finish::Value) => Opened::Done(result.map_err(CallError::Inner)),
        step => {
            let slot = Some(result.map_err(CallError::Inner));
            Opened::GoesOn(Box::new((opening.settle(live), Begun::Step(step, slot))))
        }
    }
}

/// The first poll of a call in the fast lane.
#[inline]
fn open_lane<O: Operation>(
    clock: Clock,
    live: &Arc<Live>,
    entered: Entered<'_>,
    rules: CallRules,
    operation: &mut O,
    mut first: Pin<&mut Option<O::Attempt>>,
    cx: &mut Context<'_>,
) -> Opened<O> {
    // What remains is told to operations that pass it on; a plain one does not.
    first.set(Some(operation.attempt(Some(live), None)));
    let polled = first.as_mut().as_pin_mut().map_or(Poll::Pending, |attempt| attempt.poll(cx));
    match polled {
        Poll::Ready(Ok(value)) => {
            entered.succeeded(|| clock.now());
            Opened::Done(Ok(value))
        }
        polled => leave_lane(clock, live, &entered, rules, operation, polled),
    }
}

/// The machine takes over, as if it had been there from the beginning.
#[cold]
fn leave_lane<O: Operation>(
    clock: Clock,
    live: &Arc<Live>,
    entered: &Entered<'_>,
    rules: CallRules,
    operation: &O,
    polled: Poll<Result<O::Value, O::Error>>,
) -> Opened<O> {
    let mut opening = Opening { call: Call::new(rules), live, clock };
    let step = opening.call.start(live.pipeline(), entered, entered.at());
    debug_assert_eq!(step, Step::Attempt, "the lane is taken only where all strategies let a call pass");
    match polled {
        Poll::Pending => Opened::Waits(Box::new(Waiting { underway: opening.settle(live), sleep: None })),
        Poll::Ready(result) => after_first(opening, live, operation, result),
    }
}

/// A later poll of the first attempt: its outcome, or the beginning of the rest of the way.
#[expect(clippy::type_complexity, reason = "it is read once, where it is made")]
fn poll_first<O: Operation>(
    first: Pin<&mut Option<O::Attempt>>,
    waiting: &mut Option<Box<Waiting>>,
    operation: &mut O,
    cx: &mut Context<'_>,
) -> Poll<Result<Outcome<O>, Box<(Underway, Begun<O>)>>> {
    let polled = first.as_pin_mut().map_or(Poll::Pending, |attempt| attempt.poll(cx));
    let Some(own) = waiting else {
        // Without a policy there is nothing around the operation.
        return polled.map(|result| Ok(result.map_err(CallError::Inner)));
    };
    let Waiting { underway: Underway { call, live, clock }, sleep } = &mut **own;
    let (spec, cells) = (live.pipeline(), &**live);
    let (step, slot) = match polled {
        Poll::Ready(result) => {
            let now = clock.now();
            let step =
                operation.judge(result.as_ref(), |outcome, facts| call.attempt_ended(spec, cells, outcome, facts, now));
            (step, Some(result.map_err(CallError::Inner)))
        }
        Poll::Pending => {
            let Some(deadline) = call.deadline() else { return Poll::Pending };
            let sleep = sleep.get_or_insert_with(|| Box::pin(clock.sleep_until(deadline)));
            ready!(sleep.as_mut().poll(cx));
            (call.deadline_passed(spec, cells, clock.now()), None)
        }
    };
    Poll::Ready(match (step, slot) {
        (Step::Finish(Finish::Value), Some(outcome)) => Ok(outcome),
        (Step::Finish(Finish::Timeout { stage }), None) => Ok(Err(timeout(live, stage))),
        (step, slot) => match waiting.take() {
            Some(own) => Err(Box::new((own.underway, Begun::Step(step, slot)))),
            None => return Poll::Pending,
        },
    })
}
