//! When a replica trusts its own eyes more than the fleet.
//!
//! A fleet that opens stops every replica, also those whose calls go well: another zone's network, a liar with many votes, a bad
//! deployment on half of the replicas. So a replica that sees enough of the target itself, and sees that it is well, goes on by its own
//! breaker and says so. It asks for
//!
//! - **enough**: as many calls in its window as the failure rate (else the slow-call rate) asks for before it may trip; where there is
//!   neither, as many as the other rules need to trip at all;
//! - **fresh**: a call has ended within the last minute: a count window keeps calls for as long as no others come;
//! - **well**: every rule that is set is below half of its threshold: the shares of failures and of slow calls, the failures in the
//!   window, the failures in a row. So a breaker with a rule for failures in a row only, of five, disagrees after five calls, of which the
//!   last three did not all fail.
//!
//! A replica's own trouble ([`Causes::local_error`](crate::breaker::Causes::local_error)) says nothing about the target, neither way.

use std::time::Duration;

use crate::{
    Timestamp,
    breaker::{Breaker, BreakerMode, LocalState, RateRule, TripRules},
};

/// A window without a call for so long says nothing about now.
const FRESH: Duration = Duration::from_secs(60);

/// Whether what a breaker has seen itself speaks against holding its calls back.
pub(super) fn disagrees(breaker: &Breaker, now: Timestamp) -> bool {
    let spec = breaker.spec();
    if spec.mode() != BreakerMode::Enforced || breaker.state() != LocalState::Closed {
        return false;
    }
    let TripRules { failure_rate, failures, consecutive_failures, slow_call_rate } = spec.trip();
    let slow_rate = slow_call_rate.map(|(rule, _)| rule);
    let enough = failure_rate.or(slow_rate).map_or_else(|| spec.least_evidence(), |rule| rule.min_calls);
    let counts = breaker.counts(now);
    let own = counts.causes.local_error;
    let (calls, failed) = (counts.calls.saturating_sub(own), counts.failures.saturating_sub(own));
    let fresh = breaker.last_counted().is_some_and(|at| now.since(at) <= FRESH);
    let below_half = |part: u64, limit: u32| part.saturating_mul(2) < u64::from(limit);
    fresh
        && calls >= u64::from(enough).max(1)
        && failure_rate.is_none_or(|rule| share_below_half(rule, failed, calls))
        && slow_rate.is_none_or(|rule| share_below_half(rule, counts.slow, calls))
        && failures.is_none_or(|limit| below_half(failed, limit))
        && consecutive_failures.is_none_or(|limit| below_half(u64::from(breaker.consecutive_failures()), limit))
}

fn share_below_half(rule: RateRule, part: u64, calls: u64) -> bool {
    u128::from(part) * 200 < u128::from(rule.percent) * u128::from(calls)
}
