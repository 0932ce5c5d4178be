//! What a call asks of its driver.

use crate::{Outcome, Timestamp, bulkhead::Ticket, chaos::Fault, outcome::RejectionReason};

/// What the driver does next. Whatever runs or waits is cut when [`Call::deadline`](super::Call::deadline) passes; then the
/// answer is [`Call::deadline_passed`](super::Call::deadline_passed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Run the operation afresh; then [`Call::attempt_ended`](super::Call::attempt_ended).
    Attempt,
    /// Wait until then; then [`Call::wake`](super::Call::wake).
    Wait {
        /// The end of the wait.
        until: Timestamp,
    },
    /// Wait for a place; then [`Call::queue_ended`](super::Call::queue_ended).
    Queue {
        /// The bulkhead.
        stage: usize,
        /// The place in its queue.
        ticket: Ticket,
        /// The end of patience.
        until: Option<Timestamp>,
    },
    /// Run everything inside the hedge as a race of [`Call::branch`](super::Call::branch)es; then
    /// [`Call::hedge_ended`](super::Call::hedge_ended).
    Hedge {
        /// The hedge.
        stage: usize,
    },
    /// Look the answer up; then [`Call::cache_hit`](super::Call::cache_hit) or
    /// [`Call::cache_missed`](super::Call::cache_missed).
    Lookup {
        /// The cache.
        stage: usize,
    },
    /// Keep the answer; then [`Call::kept`](super::Call::kept).
    Keep {
        /// The cache.
        stage: usize,
    },
    /// Make the answer that chaos asks for; then [`Call::injected`](super::Call::injected).
    Inject {
        /// The strategy.
        stage: usize,
        /// The answer.
        fault: Fault,
    },
    /// Carry out this fallback in place of what came; then [`Call::fallback_ended`](super::Call::fallback_ended).
    Fallback {
        /// The fallback.
        stage: usize,
        /// What it replaces.
        after: Outcome,
    },
    /// Hand this out.
    Finish(Finish),
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// What the last attempt, fallback, cache or fault gave: its response or its error.
    Value,
    /// A refusal.
    Rejected {
        /// The strategy.
        stage: usize,
        /// Why.
        reason: RejectionReason,
    },
    /// A timeout.
    Timeout {
        /// The strategy.
        stage: usize,
    },
    /// The error that a retry with `onExhausted: error` gives.
    Exhausted {
        /// The retry.
        stage: usize,
        /// Attempts made.
        attempts: u32,
    },
}
