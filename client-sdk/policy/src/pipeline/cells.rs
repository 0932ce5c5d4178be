//! What a call needs from outside: the live state that strategies share between calls.

use std::time::Duration;

use crate::{
    Draw, Outcome, Timestamp,
    breaker::Ending,
    bulkhead::Ticket,
    chaos::{Fault, Trouble},
    fleet::gate::Pass,
    outcome::RejectionReason,
    retry::{CallRules, Stop, budget::BudgetSpec},
};

/// What a call holds of a strategy's live state. It must come back: by [`Cells::leave`] or [`Cells::abandon`].
#[must_use = "what is not given back is lost to all other calls"]
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Leave of a circuit breaker.
    Breaker(Pass),
    /// A place in a bulkhead, or in its queue.
    Place(Ticket),
    /// A turn of a rate limiter, which begins then.
    Turn(Timestamp),
    /// A place under a concurrency limit.
    Running,
    /// A call that a throttle has let pass.
    Sent,
    /// Nothing.
    Nothing,
}

/// Answer of a strategy at its door.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// In.
    Pass(Hold),
    /// In, from then on.
    Wait {
        /// The end of the wait.
        until: Timestamp,
        /// What is held meanwhile and after it.
        hold: Hold,
    },
    /// In as soon as the strategy says so, if it does before `until`.
    Queue {
        /// The place in the queue.
        ticket: Ticket,
        /// The end of patience.
        until: Option<Timestamp>,
    },
    /// Something happens to the call.
    Trouble(Trouble),
    /// Refused.
    Rejected(RejectionReason),
}

/// The live state that strategies share between calls, and everything else a call needs from outside. `stage` is the index
/// of the strategy in the pipeline.
pub trait Cells {
    /// Asks a strategy for leave.
    fn enter(&self, stage: usize, rules: CallRules, now: Timestamp) -> Entry;
    /// Gives back what is held, and tells how the call ended.
    fn leave(&self, stage: usize, hold: Hold, ending: &Ending, now: Timestamp);
    /// Gives back what is held: the call was dropped.
    fn abandon(&self, stage: usize, hold: Hold, now: Timestamp);
    /// Counts a call for the budget of a retry or hedge.
    fn count_call(&self, stage: usize, now: Timestamp);
    /// Takes a further try from the budget of a retry or hedge, if there is one left.
    fn try_retry(&self, stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool;
    /// Whether a breaker lets only a few calls pass after the target was down: it, or the fleet's, is half-open or ramps up. Asked only
    /// when a retry is about to be made.
    fn is_recovering(&self, stage: usize, now: Timestamp) -> bool;
    /// A random number.
    fn draw(&self) -> Draw;
    /// Something happened that operators read about. Called while no lock is held.
    fn event(&self, event: Event);
    /// An attempt has ended, or was cut. By default nobody counts.
    fn attempt_ended(&self, attempt: AttemptEnded) {
        let _ = attempt;
    }
    /// The call has ended, or was dropped. By default nobody counts.
    fn call_ended(&self, call: CallEnded) {
        let _ = call;
    }
}

/// How an attempt came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptKind {
    /// The first of its call.
    First,
    /// It follows a failed one.
    Retry,
    /// It runs beside another one.
    Hedge,
}

/// An attempt, at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptEnded {
    /// How it came to be.
    pub kind: AttemptKind,
    /// What it ended in; [`Outcome::Timeout`] where a timeout cut it, `None` where the caller, or a faster hedge, did.
    pub outcome: Option<Outcome>,
    /// How long it took.
    pub took: Duration,
}

/// A call, at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallEnded {
    /// What it ended in; `None` where the caller has dropped it.
    pub outcome: Option<Outcome>,
    /// Attempts made, over all retries and hedges.
    pub attempts: u32,
    /// Whether the outcome is a fallback's.
    pub replaced: bool,
    /// How long it took.
    pub took: Duration,
}

/// What happened inside a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A timeout cut its inside.
    TimedOut {
        /// The timeout.
        stage: usize,
    },
    /// A retry will try again.
    RetryScheduled {
        /// The retry.
        stage: usize,
        /// Number of the retry that follows, from 1.
        retry: u32,
        /// The wait before it.
        delay: Duration,
        /// What it follows.
        after: Outcome,
    },
    /// A retry gives up on a failed outcome.
    RetryStopped {
        /// The retry.
        stage: usize,
        /// Why.
        stop: Stop,
        /// Attempts made.
        attempts: u32,
    },
    /// A hedge begins a further try.
    HedgeStarted {
        /// The hedge.
        stage: usize,
        /// Number of the further try, from 1.
        hedge: u32,
    },
    /// A hedged call is decided.
    HedgeEnded {
        /// The hedge.
        stage: usize,
        /// The try whose outcome counts; 0 is the primary.
        winner: u32,
        /// Tries begun beside the primary.
        hedges: u32,
        /// Whether none was good.
        failed: bool,
    },
    /// A fallback answers.
    FallbackExecuted {
        /// The fallback.
        stage: usize,
        /// What it replaces.
        after: Outcome,
    },
    /// A fallback can make no answer of the type that the call wants: what came goes on outward.
    FallbackSkipped {
        /// The fallback.
        stage: usize,
        /// What it would replace.
        after: Outcome,
    },
    /// A cache was asked.
    CacheAsked {
        /// The cache.
        stage: usize,
        /// Whether it had the answer.
        hit: bool,
    },
    /// Chaos struck.
    Troubled {
        /// The strategy.
        stage: usize,
        /// By how much it delays.
        latency: Duration,
        /// What it lets the call end in.
        fault: Option<Fault>,
    },
    /// A strategy refused.
    Rejected {
        /// The strategy.
        stage: usize,
        /// Why.
        reason: RejectionReason,
    },
}

impl Event {
    /// The strategy that it is about.
    #[must_use]
    pub const fn stage(&self) -> usize {
        match *self {
            Self::TimedOut { stage }
            | Self::RetryScheduled { stage, .. }
            | Self::RetryStopped { stage, .. }
            | Self::HedgeStarted { stage, .. }
            | Self::HedgeEnded { stage, .. }
            | Self::FallbackExecuted { stage, .. }
            | Self::FallbackSkipped { stage, .. }
            | Self::CacheAsked { stage, .. }
            | Self::Troubled { stage, .. }
            | Self::Rejected { stage, .. } => stage,
        }
    }
}
