//! The retry of one call.

use std::time::Duration;

use super::{MaxAttempts, RetrySpec};
use crate::{
    Draw, Timestamp,
    condition::Class,
    fallback::Answers,
    outcome::{ErrorKind, Facts, Outcome, Response, RetryHint},
    throttle::Priority,
};

/// What one call has tried so far. State is per inner call: nested retries know nothing of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryRun {
    attempts: u32,
    started: Timestamp,
    previous_delay: Option<Duration>,
}

/// What to do with an attempt's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Hand it out.
    Return(Stop),
    /// Try again after this long.
    Again {
        /// The wait; zero means at once.
        delay: Duration,
    },
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// It went well.
    Success,
    /// Another try would not help.
    NotRetryable,
    /// Another try might do it twice.
    NotIdempotent,
    /// The request's body can't be sent again.
    NotReplayable,
    /// The attempts are used up.
    MaxAttempts,
    /// The next attempt could not begin in time.
    MaxDuration,
    /// The target asked for a longer wait than is allowed.
    RetryAfterTooLong,
    /// The target asked not to be tried again.
    Pushback,
    /// The target has been retried too much lately.
    Budget,
    /// A breaker inside of the retry is half-open or ramps up: the target is just coming back.
    Recovering,
}

impl Stop {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::NotRetryable,
        Self::NotIdempotent,
        Self::NotReplayable,
        Self::MaxAttempts,
        Self::MaxDuration,
        Self::RetryAfterTooLong,
        Self::Pushback,
        Self::Budget,
        Self::Recovering,
    ];

    /// In lower case with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NotRetryable => "not_retryable",
            Self::NotIdempotent => "not_idempotent",
            Self::NotReplayable => "not_replayable",
            Self::MaxAttempts => "max_attempts",
            Self::MaxDuration => "max_duration",
            Self::RetryAfterTooLong => "retry_after_too_long",
            Self::Pushback => "pushback",
            Self::Budget => "budget",
            Self::Recovering => "recovering",
        }
    }
}

/// What strategies may know of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CallRules {
    /// Doing it twice is as good as once.
    pub idempotent: bool,
    /// It can be sent again.
    pub replayable: bool,
    /// How much it matters.
    pub priority: Priority,
    /// What fallbacks can answer it with.
    pub answers: Answers,
}

impl CallRules {
    /// HTTP methods that are as good twice as once (RFC 9110, 9.2.2).
    pub const IDEMPOTENT_METHODS: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
}

/// How an attempt ended, as the retry around it sees it.
#[expect(missing_debug_implementations, reason = "facts are a window on a foreign response")]
pub struct Attempt<'a> {
    /// What it ended in.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// What else there is to know.
    pub facts: &'a dyn Facts,
    /// The nearest deadline around the retry.
    pub deadline: Option<Timestamp>,
}

impl RetryRun {
    /// A call begins, with its first attempt.
    #[must_use]
    pub const fn start(now: Timestamp) -> Self {
        Self { attempts: 1, started: now, previous_delay: None }
    }

    /// Attempts so far, the first included.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Decides what follows an attempt. `objection` is asked last, about a try that would be made, with whether it sends anything: then
    /// it takes from the budget. What it answers ends the call instead.
    pub fn answer(
        &mut self,
        spec: &RetrySpec,
        rules: CallRules,
        attempt: &Attempt<'_>,
        now: Timestamp,
        draw: impl FnOnce() -> Draw,
        objection: impl FnOnce(bool) -> Option<Stop>,
    ) -> Answer {
        let outcome = attempt.outcome;
        let waits_for_breaker = match outcome {
            Outcome::Rejected(_, reason) if spec.wait_for_breaker() => reason.retry_after(),
            Outcome::Rejected(..) | Outcome::Response(_) | Outcome::Error(_) | Outcome::Timeout(_) => None,
        };
        if waits_for_breaker.is_none() {
            match spec.classifier().classify(outcome, attempt.elapsed, attempt.facts) {
                // The policy names it as one that no further try follows.
                Class::Ignored => return Answer::Return(Stop::NotRetryable),
                Class::Success => {
                    let failed = matches!(outcome, Outcome::Error(_) | Outcome::Timeout(_) | Outcome::Rejected(..));
                    return Answer::Return(if failed { Stop::NotRetryable } else { Stop::Success });
                }
                Class::Failure => {}
            }
        }
        let left_here = !matches!(outcome, Outcome::Error(ErrorKind::Connect) | Outcome::Rejected(..));
        if left_here && !rules.idempotent && !spec.non_idempotent() {
            return Answer::Return(Stop::NotIdempotent);
        }
        if !rules.replayable {
            return Answer::Return(Stop::NotReplayable);
        }
        if let MaxAttempts::Limited(limit) = spec.max_attempts()
            && self.attempts >= limit.get()
        {
            return Answer::Return(Stop::MaxAttempts);
        }
        let mut delay = spec.backoff().delay(self.attempts, self.previous_delay, draw());
        self.previous_delay = Some(delay);
        match asked_wait(spec, outcome, attempt.facts, waits_for_breaker) {
            RetryHint::None => {}
            RetryHint::Never => return Answer::Return(Stop::Pushback),
            RetryHint::After(asked) => {
                let beyond = attempt.deadline.is_some_and(|deadline| now.plus(asked) >= deadline);
                if asked > spec.retry_after_max() || beyond {
                    return Answer::Return(Stop::RetryAfterTooLong);
                }
                // Never earlier than asked; the backoff with its jitter can only make it later.
                delay = delay.max(asked);
            }
        }
        if spec.max_duration().is_some_and(|limit| now.plus(delay) >= self.started.plus(limit)) {
            return Answer::Return(Stop::MaxDuration);
        }
        // Waiting for a breaker sends nothing: it takes nothing from the budget.
        if let Some(stop) = objection(waits_for_breaker.is_none()) {
            return Answer::Return(stop);
        }
        self.attempts = self.attempts.saturating_add(1);
        Answer::Again { delay }
    }
}

fn asked_wait(spec: &RetrySpec, outcome: Outcome, facts: &dyn Facts, breaker: Option<Duration>) -> RetryHint {
    if let Some(wait) = breaker {
        return RetryHint::After(wait);
    }
    // RFC 9110 gives Retry-After a meaning for 503 and 3xx, RFC 6585 for 429; on other failures it is noise.
    let honoured = match outcome {
        Outcome::Response(Response { status: Some(status), .. }) => matches!(status, 429 | 503),
        Outcome::Response(Response { status: None, .. }) => true,
        Outcome::Error(_) | Outcome::Timeout(_) | Outcome::Rejected(..) => false,
    };
    if spec.respect_retry_after() && honoured { facts.retry_hint() } else { RetryHint::None }
}
