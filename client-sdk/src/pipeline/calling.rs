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
    time::Duration,
};

use fusebox_policy::{
    Rejection,
    outcome::RejectionReason,
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
    snapshot::Seen,
    spans,
};
use crate::{clock::Clock, error::CallError, target::Target};

type Outcome<O> = Result<<O as Operation>::Value, CallError<<O as Operation>::Error>>;

pin_project! {
    /// See the module. `G` makes the future of the rest of the way, `S`.
    #[project = Projection]
    struct Calling<'t, O: Operation, G, S> {
        target: &'t Target,
        rules: CallRules,
        begun: bool,
        // Taken by the rest of the way.
        operation: Option<O>,
        #[pin]
        first: Option<O::Attempt>,
        rest: G,
        later: Later<O, S>,
    }
}

/// What a call has that did not end in its first poll.
enum Later<O: Operation, S> {
    /// Nothing: it has not begun, or waits without a policy.
    Nothing,
    /// Its first attempt waits.
    Waiting(Box<Waiting>),
    /// It goes on after its first attempt, or before it.
    Onward(Box<(Underway, Begun<O>)>),
    /// The rest of the way.
    Slow(Pin<Box<S>>),
}

impl<O: Operation, S> Later<O, S> {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Nothing)
    }
}

struct Waiting {
    underway: Underway,
    /// Armed at the first wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// The machine of a call in its first poll, while the policy is only borrowed.
struct Machine<'a> {
    call: Call,
    live: &'a Live,
    clock: Clock,
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // The operation has panicked in its first poll.
        if !self.call.is_over() {
            self.call.cancel(self.live, self.clock.now());
        }
    }
}

impl Machine<'_> {
    /// Gives the machine a place of its own, for a call that goes on: it is large, and calls that end at once must not carry
    /// room for it around.
    #[cold]
    fn settle(mut self, live: &Arc<Live>) -> Underway {
        let call = std::mem::replace(&mut self.call, Call::new(CallRules::default()));
        Underway::new(call, Arc::clone(live), self.clock)
    }
}

/// Runs an operation under the policy of a target.
pub(crate) fn calling<O: Operation>(
    target: &Target,
    rules: CallRules,
    operation: O,
) -> impl Future<Output = Outcome<O>> {
    Calling {
        target,
        rules,
        begun: false,
        operation: Some(operation),
        first: None,
        rest: go_on::<O>,
        later: Later::Nothing,
    }
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<O>> {
        let this = self.as_mut().project();
        if std::mem::replace(this.begun, true) {
            return self.later(false, cx);
        }
        let target = *this.target;
        let seen = target.snapshot.seen(target);
        self.open(target.client.clock, &seen, cx)
    }
}

/// Fields are looked up where they are used: a projection that is handed around has to be written down first.
impl<O, G, S> Calling<'_, O, G, S>
where
    O: Operation,
    G: Fn(O, Box<(Underway, Begun<O>)>) -> S,
    S: Future<Output = Outcome<O>>,
{
    /// Every poll but the first, and the rest of the first where that has no outcome yet: what waits then has been `polled`, but
    /// its deadline not.
    #[cold]
    #[inline(never)]
    fn later(self: Pin<&mut Self>, polled: bool, cx: &mut Context<'_>) -> Poll<Outcome<O>> {
        let mut this = self.project();
        if let Later::Slow(slow) = this.later {
            return slow.as_mut().poll(cx);
        }
        let operation = this.operation.as_ref().expect("the operation is here until the rest of the way takes it");
        let onward = match this.later.take() {
            Later::Onward(onward) => onward,
            later @ (Later::Nothing | Later::Waiting(_) | Later::Slow(_)) => {
                *this.later = later;
                let polled = match this.first.as_mut().as_pin_mut() {
                    Some(attempt) if !polled => attempt.poll(cx),
                    Some(_) | None => Poll::Pending,
                };
                match ready!(first_polled(polled, this.later, operation, cx)) {
                    Ok(outcome) => return Poll::Ready(outcome),
                    Err(onward) => onward,
                }
            }
        };
        // A response that is not handed out must not keep its connection busy.
        this.first.set(None);
        let operation = this.operation.take().expect("only the rest of the way takes it");
        let mut slow = Box::pin((this.rest)(operation, onward));
        let polled = slow.as_mut().poll(cx);
        *this.later = Later::Slow(slow);
        polled
    }

    /// The first poll, while the policy is only borrowed. Every outcome is made where it is returned: moving it costs more than
    /// all that is decided here.
    #[inline(always)]
    fn open(mut self: Pin<&mut Self>, clock: Clock, seen: &Seen, cx: &mut Context<'_>) -> Poll<Outcome<O>> {
        let Some(live) = &seen.live else {
            return match self.begin(None, None, cx) {
                Poll::Ready(Ok(value)) => Poll::Ready(Ok(value)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(CallError::Inner(error))),
                Poll::Pending => Poll::Pending,
            };
        };
        let Some(way) = seen.way.as_ref().filter(|_| O::PLAIN && !spans::wanted()) else {
            return self.decide(clock, live, cx);
        };
        if let Some(entered) = way.enter(live, clock) {
            // What time remains is told to operations that pass it on; a plain one does not.
            return match self.as_mut().begin(Some(live), None, cx) {
                Poll::Ready(Ok(value)) => {
                    entered.succeeded(clock);
                    Poll::Ready(Ok(value))
                }
                polled @ (Poll::Ready(Err(_)) | Poll::Pending) => self.leave_lane(clock, live, &entered, polled, cx),
            };
        }
        match way.refuse(live, clock) {
            Some((refuser, refusal)) => Poll::Ready(Err(CallError::Rejected(Rejection {
                policy: refuser.policy.clone(),
                strategy: refuser.strategy.clone(),
                reason: RejectionReason::Open { retry_after: refusal.retry_after() },
                after: refusal.after(),
            }))),
            None => self.decide(clock, live, cx),
        }
    }

    /// Begins the first attempt and polls it.
    #[inline]
    fn begin(
        self: Pin<&mut Self>,
        live: Option<&Live>,
        remaining: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<O::Value, O::Error>> {
        let mut this = self.project();
        let operation = this.operation.as_mut().expect("the operation is here until the rest of the way takes it");
        this.first.set(Some(operation.attempt(live, remaining)));
        this.first.as_mut().as_pin_mut().map_or(Poll::Pending, |attempt| attempt.poll(cx))
    }

    /// Goes on after the first attempt, or before it.
    fn go_on(mut self: Pin<&mut Self>, underway: Underway, begun: Begun<O>, cx: &mut Context<'_>) -> Poll<Outcome<O>> {
        *self.as_mut().project().later = Later::Onward(Box::new((underway, begun)));
        self.later(true, cx)
    }

    /// Asks the machine.
    #[inline(never)]
    fn decide(mut self: Pin<&mut Self>, clock: Clock, live: &Arc<Live>, cx: &mut Context<'_>) -> Poll<Outcome<O>> {
        let call = Call::new(self.rules);
        if spans::wanted() {
            return self.go_on(Underway::new(call, Arc::clone(live), clock), Begun::New, cx);
        }
        let now = clock.now();
        let mut machine = Machine { call, live, clock };
        let step = machine.call.start(live.pipeline(), &**live, now);
        if let Step::Finish(Finish::Rejected { stage, reason }) = step {
            return Poll::Ready(Err(CallError::Rejected(live.rejection(stage, reason))));
        }
        if step != Step::Attempt {
            return self.go_on(machine.settle(live), Begun::Step(step, None), cx);
        }
        let remaining = machine.call.deadline().map(|deadline| now.until(deadline));
        let polled = self.as_mut().begin(Some(live), remaining, cx);
        self.after_first(machine, live, polled, cx)
    }

    /// The machine takes over, as if it had been there from the beginning.
    #[cold]
    #[inline(never)]
    fn leave_lane(
        self: Pin<&mut Self>,
        clock: Clock,
        live: &Arc<Live>,
        entered: &Entered<'_>,
        polled: Poll<Result<O::Value, O::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome<O>> {
        let mut machine = Machine { call: Call::new(self.rules), live, clock };
        let step = machine.call.start(live.pipeline(), entered, entered.at(clock));
        debug_assert_eq!(step, Step::Attempt, "the lane is taken only where all strategies let a call pass");
        self.after_first(machine, live, polled, cx)
    }

    /// The first attempt has been polled.
    fn after_first(
        mut self: Pin<&mut Self>,
        mut machine: Machine<'_>,
        live: &Arc<Live>,
        polled: Poll<Result<O::Value, O::Error>>,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome<O>> {
        let Poll::Ready(result) = polled else {
            let waiting = Waiting { underway: machine.settle(live), sleep: None };
            *self.as_mut().project().later = Later::Waiting(Box::new(waiting));
            return self.later(true, cx);
        };
        let now = machine.clock.now();
        let operation = self.operation.as_ref().expect("the operation is here until the rest of the way takes it");
        let step = operation.judge(result.as_ref(), |outcome, facts| {
            machine.call.attempt_ended(live.pipeline(), &**live, outcome, facts, now)
        });
        let result = result.map_err(CallError::Inner);
        if step == Step::Finish(Finish::Value) {
            return Poll::Ready(result);
        }
        let underway = machine.settle(live);
        self.go_on(underway, Begun::Step(step, Some(result)), cx)
    }
}

/// The first attempt has been polled once more: its outcome, or the beginning of the rest of the way.
#[expect(clippy::type_complexity, reason = "it is read once, where it is made")]
fn first_polled<O: Operation, S>(
    polled: Poll<Result<O::Value, O::Error>>,
    later: &mut Later<O, S>,
    operation: &O,
    cx: &mut Context<'_>,
) -> Poll<Result<Outcome<O>, Box<(Underway, Begun<O>)>>> {
    let Later::Waiting(own) = later else {
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
        (step, slot) => match later.take() {
            Later::Waiting(own) => Err(Box::new((own.underway, Begun::Step(step, slot)))),
            Later::Nothing | Later::Onward(_) | Later::Slow(_) => return Poll::Pending,
        },
    })
}
