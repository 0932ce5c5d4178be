//! When the replicas' reports open the fleet.
//!
//! Two independent rules; `balanced` takes either. Both need two witnesses, so that one sick replica never stops the others.
//!
//! **Quorum**: `max(2, ⌈q · eligible⌉)` replicas have tripped on what they saw themselves (q = 30 % by default). Eligible is who has
//! seen enough calls to be able to trip at all; idle replicas neither vote nor count.
//!
//! **Pooled**: the windows of all contributors are added, after
//! - trimming the `min(⌈n / 10⌉, n − 2)` contributors with the worst failure share: never below two;
//! - capping each contributor's weight at the larger of a quarter and 1/n of the calls;
//!
//! and the sum reaches the breaker's own failure rate with its own `minCalls`, and at least two contributors reach the rate by
//! themselves, of which those beside the one with the most failures bring half of the failures that the rate asks for, and three at
//! least (or all of them, where the rate asks for fewer). The last is what holds in small fleets, where trimming and capping can't: of
//! two replicas, one that fails every call makes a pooled rate of 50 %. And a quiet replica whose only call has failed, as one of a
//! hundred does anywhere, is no second witness beside a sick one: at 50 % of 20 calls the others need five failures.
//!
//! How many of n replicas must fail so that the fleet opens, where all have the same, sufficient, number of calls, those that fail
//! fail all of them and have tripped, the others fail none, and the policy says nothing else (failure rate 50 %):
//!
//! | n | 1 | 2 | 3 | 5 | 10 | 50 | 1000 |
//! |---|---|---|---|---|---|---|---|
//! | `quorum` | never | 2 | 2 | 2 | 3 | 15 | 300 |
//! | `pooled` | never | 2 | 2 | 3 | 6 | 28 | 550 |
//! | `balanced` | never | 2 | 2 | 2 | 3 | 15 | 300 |
//! | `any` (the target itself has answered) | 1 | 1 | 1 | 1 | 1 | 1 | 1 |
//! | `local` | never | never | never | never | never | never | never |
//! | trimmed by `pooled` | - | 0 | 1 | 1 | 1 | 5 | 100 |
//! | weight cap of `pooled` | - | 50 % | 50 % | 25 % | 25 % | 25 % | 25 % |
//!
//! **Lost** is who had reported, and says no more: it has gone, or is silent for longer than its report counts. For as long again it stays
//! in the quorum's denominator, if it had a vote, and in the pool, with those calls of its last report that went well. So nobody opens the
//! fleet by losing the others, as the two that are left of a hundred would. What failed for the lost is forgotten with them: a quiet
//! replica that calls now and then brings no success to an outage that it has seen.
//!
//! How many of those who are left of 100 such replicas must fail, if all were well before:
//!
//! | lost | 0 | 40 | 50 | 98 |
//! |---|---|---|---|---|
//! | `quorum` | 30 | 30 | 30 | never |
//! | `pooled` | 55 | 55 | never | never |
//! | `balanced` | 30 | 30 | 30 | never |
//!
//! With one replica all modes but `any` degenerate to `local`, and the breaker's reason says `INSUFFICIENT_WITNESSES`.
//!
//! **Hysteresis**: these rules only open. What is open closes on probes, and a ramp goes up on less than half of the rate that opens.

use std::time::Duration;

use super::{
    evidence::{Evidence, Member, MemberId, Members},
    spec::{Coordination, CoordinationMode},
    tally::Tally,
};
use crate::{
    Timestamp,
    breaker::{BreakerSpec, RateRule, WindowSpec},
};

/// Witnesses that any automatic decision needs, but for mode `any`.
pub(super) const MIN_WITNESSES: u64 = 2;
/// Failures that the witnesses beside the first bring at least: one or two are what a well target has now and then.
const MIN_OTHER_FAILURES: u64 = 3;
/// Names in an evidence: enough to begin looking, few enough for a header.
const MAX_NAMED: usize = 20;

/// A rule that is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Met {
    /// Enough replicas have tripped.
    Quorum {
        /// How many had to.
        needed: u32,
    },
    /// The pooled windows reach the failure rate.
    Pooled,
    /// One replica's target itself answered with failures.
    Any,
}

impl Met {
    /// The cause in one word, and the numbers in words.
    pub(super) fn words(self, evidence: &Evidence) -> (&'static str, String) {
        match self {
            Self::Quorum { needed } => (
                "quorum",
                format!(
                    "{} of {} eligible replicas are open, {needed} needed",
                    evidence.open_voters, evidence.eligible
                ),
            ),
            Self::Pooled => (
                "pooled",
                format!(
                    "{} of {} pooled calls of {} replicas failed, {} of them by themselves",
                    evidence.pooled_failures, evidence.pooled_calls, evidence.contributors, evidence.witnesses
                ),
            ),
            Self::Any => ("any", "the target itself answered one replica with failures".to_owned()),
        }
    }
}

/// How long a report counts: as long as the window that it describes, and at least a few heartbeats.
#[must_use]
pub fn report_lifetime(spec: &BreakerSpec) -> Duration {
    /// A few heartbeats.
    const LEAST: Duration = Duration::from_secs(5);
    /// A count window has no span; what came a minute ago is no longer "lately".
    const COUNT_WINDOW: Duration = Duration::from_secs(60);
    match spec.window() {
        WindowSpec::Time(span) => span.max(LEAST),
        WindowSpec::Count(_) => COUNT_WINDOW,
    }
}

/// Whether a replica has a vote.
#[must_use]
pub fn is_eligible(member: &Member, spec: &BreakerSpec, now: Timestamp) -> bool {
    counts(member, spec, now)
        && (member.report.evident_calls() >= u64::from(spec.least_evidence()) || member.report.tripped())
}

/// For how long after its last report a replica that says no more stays in the denominator: as long again as its report counted, so that
/// nobody opens the fleet by losing the others.
#[must_use]
pub fn lost_for(spec: &BreakerSpec) -> Duration {
    report_lifetime(spec).saturating_mul(2)
}

/// A replica that says no more, as it counts for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lost {
    /// Whether it had a vote.
    pub voted: bool,
    /// Calls in its last report that went well.
    pub well: u64,
}

impl Lost {
    /// What a replica leaves behind, if its last report counted when it came, and [`lost_for`] is not over.
    #[must_use]
    pub fn of(member: &Member, spec: &BreakerSpec, now: Timestamp) -> Option<Self> {
        if now.since(member.at) > lost_for(spec) || !counts(member, spec, member.at) {
            return None;
        }
        let well = member.report.evident_calls().saturating_sub(member.report.evident_failures());
        let voted = is_eligible(member, spec, member.at);
        (voted || well > 0).then_some(Self { voted, well })
    }
}

/// Whether what a replica has seen lately speaks against the target.
#[must_use]
pub fn speaks_against(member: &Member, spec: &BreakerSpec, now: Timestamp) -> bool {
    counts(member, spec, now) && accuses(member, spec)
}

/// The same, however long ago that was.
pub(super) fn accuses(member: &Member, spec: &BreakerSpec) -> bool {
    let reached = |rule: RateRule| rule.share_reached(member.report.evident_failures(), member.report.evident_calls());
    member.report.tripped() || spec.trip().failure_rate.is_some_and(reached)
}

fn counts(member: &Member, spec: &BreakerSpec, now: Timestamp) -> bool {
    member.report.current && now.since(member.at) <= report_lifetime(spec)
}

/// Adds up what the replicas report, and says whether that opens the fleet.
#[must_use]
pub fn judge(
    members: &Members,
    spec: &BreakerSpec,
    coordination: &Coordination,
    now: Timestamp,
) -> (Evidence, Option<Met>) {
    judge_among(members, &[], spec, coordination, now, |_| true)
}

/// The same, of those replicas only that may vote. The `gone` are members no more.
#[must_use]
pub fn judge_among(
    members: &Members,
    gone: &[Lost],
    spec: &BreakerSpec,
    coordination: &Coordination,
    now: Timestamp,
    may_vote: impl Fn(&MemberId) -> bool,
) -> (Evidence, Option<Met>) {
    let fresh: Vec<(&MemberId, &Member)> =
        members.iter().filter(|(id, member)| counts(member, spec, now) && may_vote(id)).collect();
    let eligible = fresh.iter().filter(|(_, member)| is_eligible(member, spec, now)).count() as u64;
    let open_voters = fresh.iter().filter(|(_, member)| member.report.tripped()).count() as u64;
    let rate = spec.trip().failure_rate;
    let windows: Vec<(u64, u64)> = fresh
        .iter()
        .map(|(_, member)| (member.report.evident_calls(), member.report.evident_failures()))
        .filter(|(calls, _)| *calls > 0)
        .collect();
    let pool = Pool::new(windows.clone(), rate);
    let mut evidence = Evidence {
        eligible: narrow(eligible),
        open_voters: narrow(open_voters),
        witnesses: narrow(pool.witnesses),
        pooled_calls: pool.calls,
        pooled_failures: pool.failures,
        contributors: narrow(pool.contributors),
        witness_instances: fresh
            .iter()
            .filter(|(_, member)| accuses(member, spec))
            .map(|(id, _)| id.instance.clone())
            .take(MAX_NAMED)
            .collect(),
        insufficient_witnesses: eligible < MIN_WITNESSES && pool.contributors < MIN_WITNESSES,
        ..Evidence::default()
    };
    for (_, member) in &fresh {
        evidence.causes.add(&member.report.causes);
    }
    // Who is left when others are lost is a biased sample (S11).
    let lost = || {
        let silent = members.values().filter(|member| !counts(member, spec, now));
        silent.filter_map(|member| Lost::of(member, spec, now)).chain(gone.iter().copied())
    };
    let quorum = || {
        let voters = eligible.saturating_add(lost().filter(|lost| lost.voted).count() as u64);
        let share = voters.saturating_mul(u64::from(coordination.quorum_percent())).div_ceil(100);
        let needed = share.max(MIN_WITNESSES);
        (open_voters >= needed).then_some(Met::Quorum { needed: narrow(needed) })
    };
    let pooled = || {
        // Those who are there must meet it by themselves; the lost can only speak against it.
        if !pool.reaches(rate) {
            return None;
        }
        let well = lost().map(|lost| (lost.well, 0)).filter(|(calls, _)| *calls > 0);
        let all: Vec<(u64, u64)> = windows.into_iter().chain(well).collect();
        Pool::new(all, rate).reaches(rate).then_some(Met::Pooled)
    };
    let met = match coordination.mode() {
        CoordinationMode::Balanced => quorum().or_else(pooled),
        CoordinationMode::Quorum => quorum(),
        CoordinationMode::Pooled => pooled(),
        CoordinationMode::Any => fresh.iter().any(|(_, member)| speaks_for_target(member)).then_some(Met::Any),
        CoordinationMode::Local => None,
    };
    (evidence, met)
}

/// Mode `any`: the replica has tripped, and every failure in its window is an answer of the target itself. A replica with a bad
/// network, clock or certificate sees timeouts and connect errors, and can't stop the others.
fn speaks_for_target(member: &Member) -> bool {
    let causes = member.report.causes;
    let answered = causes.target_error + causes.target_overload;
    member.report.tripped() && answered > 0 && causes.connect_error == 0 && causes.timeout == 0
}

/// What those reports say that count now. Whether it may meet a rule is cheaper to say than whether it does.
#[must_use]
pub fn tally(members: &Members, spec: &BreakerSpec, now: Timestamp) -> Tally {
    members
        .values()
        .filter(|member| counts(member, spec, now))
        .fold(Tally::ZERO, |sum, member| sum.plus(Tally::of(member, spec)))
}

/// The windows of all contributors, added.
struct Pool {
    contributors: u64,
    witnesses: u64,
    /// Failures of the witnesses, but for the one that has the most.
    other_failures: u64,
    calls: u64,
    failures: u64,
}

impl Pool {
    /// Of windows with calls, as (calls, failures).
    fn new(mut windows: Vec<(u64, u64)>, rate: Option<RateRule>) -> Self {
        let contributors = windows.len() as u64;
        let (mut witnesses, mut witnessed, mut most) = (0, 0, 0);
        for (_, failures) in
            windows.iter().filter(|(calls, failures)| rate.is_some_and(|rule| rule.share_reached(*failures, *calls)))
        {
            witnesses += 1;
            witnessed += failures;
            most = most.max(*failures);
        }
        // Worst share first; compared as products, so that nothing is rounded. Of equal shares the heavier goes.
        windows.sort_by(|left, right| {
            let (left_share, right_share) =
                (u128::from(left.1) * u128::from(right.0), u128::from(right.1) * u128::from(left.0));
            right_share.cmp(&left_share).then(right.0.cmp(&left.0))
        });
        let trim = contributors.div_ceil(10).min(contributors.saturating_sub(MIN_WITNESSES));
        let kept = windows.split_off(usize::try_from(trim).unwrap_or(0));
        let total: u64 = kept.iter().map(|(calls, _)| calls).sum();
        let cap = (total / 4).max(total.div_ceil((kept.len() as u64).max(1))).max(1);
        let (mut calls, mut failures) = (0, 0);
        for (own_calls, own_failures) in kept {
            let weight = own_calls.min(cap);
            calls += weight;
            failures += u64::try_from(u128::from(own_failures) * u128::from(weight) / u128::from(own_calls))
                .unwrap_or(u64::MAX);
        }
        Self { contributors, witnesses, other_failures: witnessed - most, calls, failures }
    }

    fn reaches(&self, rate: Option<RateRule>) -> bool {
        let enough = self.contributors >= MIN_WITNESSES && self.witnesses >= MIN_WITNESSES;
        enough
            && rate.is_some_and(|rule| {
                self.other_failures >= other_failures(rule) && rule.reached(self.failures, self.calls)
            })
    }
}

/// Failures that the witnesses beside the one with the most must bring, so that it is not that one alone that speaks.
fn other_failures(rule: RateRule) -> u64 {
    let asked = (u64::from(rule.percent) * u64::from(rule.min_calls)).div_ceil(100);
    asked.div_ceil(2).max(MIN_OTHER_FAILURES.min(asked))
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
