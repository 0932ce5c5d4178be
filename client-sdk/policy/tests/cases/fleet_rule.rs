//! When reports open the fleet, for fleets of many sizes.

use fusebox_policy::{
    InstanceId,
    breaker::{BreakerInput, BreakerSpec, Causes, LocalState},
    fleet::{
        Coordination, CoordinationMode, CoordinationScope,
        evidence::{Member, MemberId, Members, Report},
        rule::{Lost, Met, judge, judge_among, tally},
    },
};

use proptest::prelude::*;

use crate::driver::at;

pub(crate) fn member(number: usize) -> MemberId {
    MemberId { instance: InstanceId::try_new(&format!("a-{number:04}")).unwrap(), incarnation: 1 }
}

pub(crate) fn saw(calls: u64, failures: u64) -> Report {
    Report {
        local: LocalState::Closed,
        own_trip: false,
        current: true,
        calls,
        failures,
        slow: 0,
        rejected: 0,
        vetoed: false,
        causes: Causes { target_error: failures, ..Causes::default() },
        disabled: false,
    }
}

pub(crate) fn tripped(calls: u64) -> Report {
    Report { local: LocalState::Open, own_trip: true, ..saw(calls, calls) }
}

pub(crate) fn coordination(mode: CoordinationMode) -> Coordination {
    let any = mode == CoordinationMode::Any;
    let scope = if any { CoordinationScope::Zone } else { CoordinationScope::Fleet };
    Coordination::try_new(mode, scope, any, None, None).unwrap()
}

fn fleet(reports: impl IntoIterator<Item = Report>) -> Members {
    reports
        .into_iter()
        .enumerate()
        .map(|(number, report)| (member(number), Member { zone: None, report, at: at(0), demand_at: None, permits: 0 }))
        .collect()
}

fn judged(members: &Members, mode: CoordinationMode) -> Option<Met> {
    let spec = BreakerSpec::try_new(BreakerInput::default()).unwrap();
    let met = judge(members, &spec, &coordination(mode), at(100)).1;
    assert!(
        met.is_none() || tally(members, &spec, at(100)).may_meet(&spec, &coordination(mode)),
        "it was worth judging"
    );
    met
}

proptest! {
    /// The short cut that spares a fleet of a thousand most of its judging never hides an opening.
    #[test]
    fn whatever_meets_a_rule_was_worth_judging(
        reports in proptest::collection::vec((0_u64..60, 0_u64..=100, any::<bool>(), any::<bool>()), 0..40),
    ) {
        let members = fleet(reports.into_iter().map(|(calls, percent, own_trip, current)| {
            let report = saw(calls, calls * percent / 100);
            let local = if own_trip { LocalState::Open } else { LocalState::Closed };
            Report { own_trip, local, current, ..report }
        }));
        for mode in [
            CoordinationMode::Balanced,
            CoordinationMode::Quorum,
            CoordinationMode::Pooled,
            CoordinationMode::Any,
            CoordinationMode::Local,
        ] {
            judged(&members, mode);
        }
    }
}

#[test]
fn the_quorum_is_a_share_and_never_less_than_two() {
    for (eligible, needed) in [(2, 2), (3, 2), (5, 2), (10, 3), (50, 15), (1000, 300)] {
        let with =
            |open: usize| fleet((0..eligible).map(|number| if number < open { tripped(20) } else { saw(20, 0) }));
        assert_eq!(judged(&with(needed - 1), CoordinationMode::Quorum), None, "{eligible}");
        let met = judged(&with(needed), CoordinationMode::Quorum);
        assert_eq!(met, Some(Met::Quorum { needed: u32::try_from(needed).unwrap() }), "{eligible}");
    }
}

/// The table in the module's documentation.
#[test]
fn how_many_must_fail_in_each_mode_and_size_of_fleet() {
    const SIZES: [usize; 7] = [1, 2, 3, 5, 10, 50, 1000];
    let never = None;
    for (mode, needed) in [
        (CoordinationMode::Quorum, [never, Some(2), Some(2), Some(2), Some(3), Some(15), Some(300)]),
        (CoordinationMode::Pooled, [never, Some(2), Some(2), Some(3), Some(6), Some(28), Some(550)]),
        (CoordinationMode::Balanced, [never, Some(2), Some(2), Some(2), Some(3), Some(15), Some(300)]),
        (CoordinationMode::Any, [Some(1); 7]),
        (CoordinationMode::Local, [never; 7]),
    ] {
        for (size, needed) in SIZES.into_iter().zip(needed) {
            let with = |ill: usize| fleet((0..size).map(|number| if number < ill { tripped(20) } else { saw(20, 0) }));
            let opens = |ill: usize| judged(&with(ill), mode).is_some();
            match needed {
                Some(needed) => {
                    assert!(opens(needed), "{mode:?}: {needed} of {size}");
                    assert!(!opens(needed - 1), "{mode:?}: fewer than {needed} of {size}");
                }
                None => assert!(!opens(size) && !opens(size / 2), "{mode:?}: of {size}"),
            }
        }
    }
}

/// The table of the lost in the module's documentation.
#[test]
fn how_many_of_those_who_are_left_must_fail() {
    let spec = BreakerSpec::try_new(BreakerInput::default()).unwrap();
    for (mode, needed) in [
        (CoordinationMode::Quorum, [Some(30), Some(30), Some(30), None]),
        (CoordinationMode::Pooled, [Some(55), Some(55), None, None]),
        (CoordinationMode::Balanced, [Some(30), Some(30), Some(30), None]),
    ] {
        for (lost, needed) in [0, 40, 50, 98].into_iter().zip(needed) {
            let gone = vec![Lost { voted: true, well: 20 }; lost];
            let opens = |ill: usize| {
                let left = fleet((0..100 - lost).map(|number| if number < ill { tripped(20) } else { saw(20, 0) }));
                judge_among(&left, &gone, &spec, &coordination(mode), at(100), |_| true).1.is_some()
            };
            match needed {
                Some(needed) => assert!(opens(needed) && !opens(needed - 1), "{mode:?}: {needed}, {lost} lost"),
                None => assert!(!opens(100 - lost), "{mode:?}: {lost} lost"),
            }
        }
    }
}

/// In an outage of replicas that call now and then, most are silent at any time: that they failed before does not hold it back.
#[test]
fn what_failed_for_the_lost_is_forgotten() {
    let spec = BreakerSpec::try_new(BreakerInput::default()).unwrap();
    let left = fleet((0..10).map(|_| saw(3, 3)));
    let opens = |well: u64| {
        let gone = [Lost { voted: false, well }; 20];
        judge_among(&left, &gone, &spec, &coordination(CoordinationMode::Pooled), at(100), |_| true).1.is_some()
    };
    assert!(opens(0) && !opens(3));
}

#[test]
fn one_replica_alone_never_opens_the_fleet() {
    for others in [0, 1, 2, 4, 9, 49] {
        let members = fleet(std::iter::once(tripped(1000)).chain((0..others).map(|_| saw(20, 1))));
        assert_eq!(judged(&members, CoordinationMode::Balanced), None, "one of {}", others + 1);
    }
}

#[test]
fn idle_replicas_neither_vote_nor_count() {
    let idle = (0..100).map(|_| saw(1, 0));
    assert!(judged(&fleet([tripped(5), tripped(5)].into_iter().chain(idle)), CoordinationMode::Quorum).is_some());
}

#[test]
fn quiet_replicas_open_together_what_none_could_open_alone() {
    let members = fleet((0..10).map(|_| saw(3, 3)));
    assert_eq!(judged(&members, CoordinationMode::Pooled), Some(Met::Pooled));
    assert_eq!(judged(&members, CoordinationMode::Quorum), None);
    assert_eq!(judged(&members, CoordinationMode::Local), None);
}

#[test]
fn a_busy_sick_replica_does_not_outweigh_the_healthy() {
    for healthy in [1, 2, 4, 9, 49] {
        let members = fleet(std::iter::once(saw(10_000, 10_000)).chain((0..healthy).map(|_| saw(20, 0))));
        assert_eq!(judged(&members, CoordinationMode::Pooled), None, "{healthy} healthy");
    }
}

/// A quiet replica whose only calls have failed, as some do anywhere, must not be the second witness of a sick one.
#[test]
fn a_few_failed_calls_are_no_second_witness() {
    let judged = |calls: u64| judged(&fleet([saw(40, 25), saw(calls, calls)]), CoordinationMode::Pooled);
    for calls in 1..5 {
        assert_eq!(judged(calls), None, "{calls}");
    }
    assert_eq!(judged(5), Some(Met::Pooled), "half of the 10 failures that the rate asks for");
}

#[test]
fn a_replicas_own_trouble_is_no_evidence() {
    let own = Report { causes: Causes { local_error: 20, ..Causes::default() }, ..saw(20, 20) };
    assert_eq!(judged(&fleet([own, own, own]), CoordinationMode::Pooled), None);
}

#[test]
fn old_reports_and_answers_to_older_verdicts_do_not_count() {
    let stale = Report { current: false, ..tripped(20) };
    assert_eq!(judged(&fleet([stale, stale, stale]), CoordinationMode::Balanced), None);
    let spec = BreakerSpec::try_new(BreakerInput::default()).unwrap();
    let members = fleet([tripped(20), tripped(20)]);
    let mode = coordination(CoordinationMode::Balanced);
    assert!(judge(&members, &spec, &mode, at(10_000)).1.is_some());
    assert!(judge(&members, &spec, &mode, at(10_001)).1.is_none());
}

#[test]
fn any_believes_only_what_the_target_itself_answered() {
    assert_eq!(judged(&fleet([tripped(20)]), CoordinationMode::Any), Some(Met::Any));
    let network = Report { causes: Causes { timeout: 20, ..Causes::default() }, ..tripped(20) };
    assert_eq!(judged(&fleet([network]), CoordinationMode::Any), None);
}

#[test]
fn any_must_be_acknowledged_and_stays_in_a_zone() {
    let make = |scope, acknowledged| Coordination::try_new(CoordinationMode::Any, scope, acknowledged, None, None);
    assert!(make(CoordinationScope::Zone, false).is_err());
    assert!(make(CoordinationScope::Fleet, true).is_err());
    assert!(make(CoordinationScope::Zone, true).is_ok());
}

#[test]
fn with_one_eligible_replica_it_says_that_witnesses_are_missing() {
    let spec = BreakerSpec::try_new(BreakerInput::default()).unwrap();
    let (evidence, _) = judge(&fleet([tripped(20)]), &spec, &coordination(CoordinationMode::Balanced), at(0));
    assert!(evidence.insufficient_witnesses);
}
