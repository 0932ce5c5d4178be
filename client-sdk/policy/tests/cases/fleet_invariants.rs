//! The invariants of the fleet over random reports, and histories that break them.

use fusebox_policy::{
    InstanceId, Revision, Zone,
    fleet::{
        BreakerKey, CoordinationMode, CoordinationScope,
        evidence::Report,
        gate::{Forced, ProbeId},
        held::Fence,
        history::{Event, History},
        invariants::{self as check, Admission, Ground, Invariant, Phase},
        shared::{FleetState, ProbeResult},
    },
};
use proptest::prelude::*;

use crate::{
    driver::{at, ms},
    fleet_driver::{Fleet, key, permits},
    fleet_rule::{saw, tripped},
};

#[derive(Clone, Debug)]
enum Happens {
    Wait(u64),
    Report(usize, bool, u64),
    Leave(usize),
    Probe(bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0..4000_u64).prop_map(Happens::Wait),
        8 => (0..3_usize, any::<bool>(), 0..3_u64).prop_map(|(who, bad, rejected)| Happens::Report(who, bad, rejected)),
        2 => (0..3_usize).prop_map(Happens::Leave),
        2 => any::<bool>().prop_map(Happens::Probe),
    ]
}

fn report(bad: bool, rejected: u64) -> Report {
    Report { rejected, ..if bad { tripped(5) } else { saw(5, 0) } }
}

proptest! {
    /// S11, S12 and S13. Three replicas: that many never leave "all at once", so that nothing freezes.
    #[test]
    fn only_reports_and_probes_decide_and_a_repeated_report_decides_nothing(
        steps in prop::collection::vec(happens(), 1..80)
    ) {
        let mut fleet = Fleet::new(CoordinationMode::Balanced);
        let (mut now, mut out) = (0, Vec::new());
        for step in steps {
            let from = fleet.state();
            let (ground, effects) = match step {
                Happens::Wait(millis) => {
                    now += millis;
                    (Ground::Time, fleet.tick(now))
                }
                Happens::Report(who, bad, rejected) => {
                    let effects = fleet.report(who, report(bad, rejected), now);
                    let once = (fleet.state(), fleet.coordinator.rev());
                    fleet.report(who, report(bad, rejected), now);
                    prop_assert!(check::s12_idempotence(&once, &(fleet.state(), fleet.coordinator.rev())));
                    (Ground::Report, effects)
                }
                Happens::Leave(who) => (Ground::Departure, fleet.leave(who, now)),
                Happens::Probe(good) => match out.pop() {
                    Some(permit) => {
                        let result = if good { ProbeResult::Success } else { ProbeResult::Failure };
                        (Ground::Probe, fleet.probe(permit, result, now))
                    }
                    None => continue,
                },
            };
            out.extend(permits(&effects));
            let to = fleet.state();
            prop_assert!(check::s11_denominator(from, to, ground), "{from} to {to} by {ground:?}");
            prop_assert!(check::s13_silence_is_no_evidence(from, to, ground), "{from} to {to} by {ground:?}");
        }
    }

    /// S10.
    #[test]
    fn a_breaker_is_shared_within_its_scope_only(zone in proptest::option::of("[a-c]"), whole in any::<bool>()) {
        let zone = zone.map(|zone| Zone::try_new(&zone).unwrap());
        let scope = if whole { CoordinationScope::Fleet } else { CoordinationScope::Zone };
        let shared: BreakerKey = key("service-b", Some("elsewhere")).in_scope(scope, zone.as_ref());
        prop_assert!(check::s10_scope_isolation(scope, shared.zone.as_ref(), zone.as_ref()));
    }
}

const LEASE: u64 = 15_000;

type Story = Vec<(u64, Event<(), u8>)>;

fn decided(ground: Ground, phase: Phase, from: FleetState, to: FleetState, witnesses: &[&str]) -> Event<(), u8> {
    Event::Decided {
        key: (),
        run: 1,
        fence: Fence { term: 1, rev: 1 },
        from,
        to,
        ground,
        mode: CoordinationMode::Balanced,
        witnesses: witnesses.iter().map(|name| InstanceId::try_new(name).unwrap()).collect(),
        phase,
    }
}

fn opened(phase: Phase, witnesses: &[&str]) -> Event<(), u8> {
    decided(Ground::Report, phase, FleetState::Released, FleetState::Open, witnesses)
}

fn affirmed(rev: u64) -> Event<(), u8> {
    Event::Affirmed { member: 0, key: (), fence: Fence { term: 1, rev }, lease: ms(LEASE) }
}

fn applied(rev: u64) -> Event<(), u8> {
    Event::Applied { member: 0, key: (), fence: Fence { term: 1, rev }, lapsed: false }
}

fn enforced(running: u64) -> Event<(), u8> {
    let fence = Fence { term: 1, rev: 1 };
    Event::Enforced { member: 0, key: (), fence, about: Revision(1), running: Revision(running) }
}

fn granted(id: u64) -> Event<(), u8> {
    Event::Granted { key: (), probe: ProbeId { term: 1, id }, ttl: ms(3000), bound: 1, phase: Phase::Active }
}

fn called(probe: Option<u64>, forced: Option<Forced>) -> Event<(), u8> {
    let admission =
        Admission { admitted: true, forced, own_allows: false, fleet_allows: false, probe: probe.is_some() };
    Event::Called { key: (), admission, probe: probe.map(|id| ProbeId { term: 1, id }) }
}

fn violated(story: Story) -> Vec<Invariant> {
    let mut history = History::default();
    for (millis, event) in story {
        history.record(at(millis), event);
    }
    history.violations().into_iter().map(|violation| violation.invariant).collect()
}

#[test]
fn a_history_in_which_all_is_well_has_no_violations() {
    let story = vec![
        (0, Event::Term { run: 1, term: 1, stored: true }),
        (0, opened(Phase::Active, &["a", "b"])),
        (0, affirmed(1)),
        (1, applied(1)),
        (LEASE - 1, enforced(1)),
        (20_000, granted(1)),
        (20_001, called(Some(1), None)),
        (20_002, granted(2)),
        (20_003, Event::Returned { key: (), probe: ProbeId { term: 1, id: 2 } }),
        (20_004, granted(3)),
        (30_000, Event::Forced { key: (), end: at(31_000) }),
        (30_999, Event::Obeyed { key: () }),
        (30_999, called(None, Some(Forced::Closed))),
    ];
    assert_eq!(violated(story), []);
}

#[test]
fn a_history_names_what_does_not_hold() {
    let taken = |stored| Event::Term { run: 1, term: 1, stored };
    let cases: Vec<(Invariant, Story)> = vec![
        (Invariant::S1, vec![(0, applied(2)), (0, applied(1))]),
        (Invariant::S2, vec![(0, affirmed(1)), (LEASE, enforced(1))]),
        (Invariant::S3, vec![(0, opened(Phase::Active, &["a", "a"]))]),
        (Invariant::S4, vec![(0, granted(1)), (2999, granted(2))]),
        (Invariant::S4, vec![(0, granted(1)), (1, called(Some(1), None)), (2, called(Some(1), None))]),
        (Invariant::S5, vec![(0, called(None, None))]),
        (Invariant::S6, vec![(0, called(None, Some(Forced::Open)))]),
        (Invariant::S6, vec![(0, Event::Forced { key: (), end: at(5) }), (5, Event::Obeyed { key: () })]),
        (Invariant::S7, vec![(0, opened(Phase::Learning, &["a", "b"]))]),
        (Invariant::S8, vec![(0, taken(false)), (0, opened(Phase::Active, &["a", "b"]))]),
        (
            Invariant::S8,
            vec![(0, Event::Term { run: 2, term: 1, stored: true }), (0, opened(Phase::Active, &["a", "b"]))],
        ),
        (Invariant::S9, vec![(0, affirmed(1)), (0, enforced(2))]),
        (
            Invariant::S11,
            vec![(0, decided(Ground::Departure, Phase::Active, FleetState::Released, FleetState::Open, &[]))],
        ),
        (
            Invariant::S13,
            vec![(0, decided(Ground::Time, Phase::Active, FleetState::HalfOpen, FleetState::Released, &[]))],
        ),
        (Invariant::S13, vec![(0, decided(Ground::Lapse, Phase::Active, FleetState::Released, FleetState::Open, &[]))]),
    ];
    for (invariant, story) in cases {
        assert_eq!(violated(story), [invariant]);
    }
}

#[test]
fn the_rest_can_fail_too() {
    let few: std::collections::BTreeSet<u8> = [1].into();
    let more: std::collections::BTreeSet<u8> = [1, 2].into();
    assert!(check::s14_blast_cap(1, 1, 50) && !check::s14_blast_cap(3, 4, 50));
    assert!(check::s15_audit(&[1, 2], &[2, 1]) && !check::s15_audit(&[1], &[1, 1]));
    assert!(check::l1_released([FleetState::Released]) && !check::l1_released([FleetState::Ramp]));
    assert!(check::l2_opens_in_time(at(0), Some(at(5)), ms(5)) && !check::l2_opens_in_time(at(0), None, ms(5)));
    let alone = |now| check::l3_decides_alone_in_time(at(0), ms(LEASE), at(now), FleetState::Open);
    assert!(alone(LEASE - 1) && !alone(LEASE));
    assert!(check::l4_converged(Revision(2), [Revision(2)]) && !check::l4_converged(Revision(2), [Revision(1)]));
    assert!(check::l5_poison_is_isolated(&few, &more) && !check::l5_poison_is_isolated(&more, &few));
    let burst = |changes: u64| check::l6_damped_by(&(0..changes).map(at).collect::<Vec<_>>(), ms(1000));
    assert!(burst(4) && !burst(5));
    assert!(check::l7_acknowledged_or_listed(&more, &few, &[2].into()));
    assert!(!check::l7_acknowledged_or_listed(&more, &few, &few));
    assert!(Invariant::ALL.iter().all(|own| !own.sentence().is_empty()) && Invariant::ALL.len() == 22);
    assert!(Invariant::L3.to_string().starts_with("L3 "));
}
