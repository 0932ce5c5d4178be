//! Whether a stage may be promoted. No I/O, no clock.
//!
//! Six gates, each with the numbers behind it. A stage is promoted when all pass. One that *fails* stops the rollout: it shows that the
//! candidate does harm. One that waits, or knows too little, only holds it; nothing is promoted on no news.
//!
//! | gate | passes | fails |
//! |---|---|---|
//! | `bake` | the stage has been watched for its bake time | never |
//! | `acknowledged` | 95 % of the connected selected replicas run the candidate, and there is one | never |
//! | `rejected` | no selected replica refuses it | one does |
//! | `fleet_opens` | the fleet has opened no breaker of the policy since the stage began | it has |
//! | `trips` | of the selected, no larger part has tripped by itself than of the others | a larger part has |
//! | `failures` | the selected fail no more than the others, within the margin | they fail more |
//!
//! **What is measured**: calls and failures of the circuit breakers' windows, as heartbeats bring them, so one attempt is one call, and what
//! the breaker ignores is in neither; and the breakers' transitions. A policy without a circuit breaker measures nothing: `failures` then
//! says INSUFFICIENT_EVIDENCE, and so it does where the windows of either side hold too few calls. An operator who wants to go on
//! all the same says so: with no `min_calls`, or by force and with a reason.

use std::time::Duration;

use super::spec::GateSpec;

/// Part of the selected that must run the candidate: one that is just restarting holds nobody up.
const ACKNOWLEDGED_PERCENT: u64 = 95;

/// What a gate says. Ordered by how bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing speaks against promotion.
    Pass,
    /// Not yet.
    Waiting,
    /// Too little is known.
    InsufficientEvidence,
    /// The candidate does harm.
    Fail,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub verdict: Verdict,
    /// The numbers behind it.
    pub detail: String,
}

/// What is known of the replicas of one side: those that are selected, or the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Connected ones.
    pub replicas: u64,
    /// Replicas whose own breaker has opened since the stage began.
    pub tripped: u64,
    /// Calls in the windows of those that run what they should.
    pub calls: u64,
    /// Failures in them.
    pub failures: u64,
}

/// What is known of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How long it has been watched.
    pub watched: Duration,
    /// How long it has to be.
    pub bake: Duration,
    /// Replicas that are selected.
    pub selected: Side,
    /// All others that the policy concerns.
    pub others: Side,
    /// Of the selected, those that run the candidate.
    pub acknowledged: u64,
    /// Of the selected, those that refuse it.
    pub rejected: u64,
    /// Breakers of the policy that the fleet has opened since the stage began.
    pub fleet_opens: u64,
    /// Whether either definition has a breaker that could tell.
    pub has_breaker: bool,
}

impl Verdict {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Waiting => "WAITING",
            Self::InsufficientEvidence => "INSUFFICIENT_EVIDENCE",
            Self::Fail => "FAIL",
        }
    }
}

/// What the gates of a stage say, by name.
#[must_use]
pub fn judge(observed: &Observed, spec: &GateSpec) -> Vec<Gate> {
    vec![
        acknowledged(observed),
        bake(observed),
        failures(observed, spec),
        fleet_opens(observed),
        rejected(observed),
        trips(observed),
    ]
}

/// The first gate that fails.
#[must_use]
pub fn failed(gates: &[Gate]) -> Option<&Gate> {
    gates.iter().find(|gate| gate.verdict == Verdict::Fail)
}

/// The gates that hold the promotion, in words; empty if none does.
#[must_use]
pub fn holding(gates: &[Gate]) -> String {
    let holding = gates.iter().filter(|gate| gate.verdict != Verdict::Pass);
    let words: Vec<_> = holding.map(|gate| format!("{} {}: {}", gate.name, gate.verdict.name(), gate.detail)).collect();
    words.join("; ")
}

fn acknowledged(observed: &Observed) -> Gate {
    let Observed { selected: Side { replicas, .. }, acknowledged, .. } = observed;
    let (verdict, detail) = if *replicas == 0 {
        (Verdict::InsufficientEvidence, "no connected replica is selected".to_owned())
    } else {
        let enough = acknowledged * 100 >= replicas * ACKNOWLEDGED_PERCENT;
        let verdict = if enough { Verdict::Pass } else { Verdict::Waiting };
        (verdict, format!("{acknowledged} of {replicas} selected replicas run it, {ACKNOWLEDGED_PERCENT} % needed"))
    };
    Gate { name: "acknowledged", verdict, detail }
}

fn bake(observed: &Observed) -> Gate {
    let Observed { watched, bake, .. } = observed;
    let verdict = if watched >= bake { Verdict::Pass } else { Verdict::Waiting };
    let whole = |span: &Duration| humantime::format_duration(Duration::from_secs(span.as_secs())).to_string();
    let detail = if bake.is_zero() {
        "none asked for".to_owned()
    } else {
        format!("watched for {} of {}", whole(watched.min(bake)), whole(bake))
    };
    Gate { name: "bake", verdict, detail }
}

fn rejected(observed: &Observed) -> Gate {
    let Observed { selected: Side { replicas, .. }, rejected, .. } = observed;
    let verdict = if *rejected == 0 { Verdict::Pass } else { Verdict::Fail };
    Gate { name: "rejected", verdict, detail: format!("{rejected} of {replicas} selected replicas refuse it") }
}

fn fleet_opens(observed: &Observed) -> Gate {
    let opens = observed.fleet_opens;
    let verdict = if opens == 0 { Verdict::Pass } else { Verdict::Fail };
    Gate {
        name: "fleet_opens",
        verdict,
        detail: format!("the fleet has opened {opens} breakers since the stage began"),
    }
}

fn trips(observed: &Observed) -> Gate {
    let Observed { selected, others, .. } = observed;
    // As parts of either side, without dividing. Where there are no others, none may have tripped.
    let more = selected.tripped * others.replicas.max(1) > others.tripped * selected.replicas.max(1);
    let verdict = if more { Verdict::Fail } else { Verdict::Pass };
    let detail = format!(
        "{} of {} selected replicas tripped, {} of {} others",
        selected.tripped, selected.replicas, others.tripped, others.replicas
    );
    Gate { name: "trips", verdict, detail }
}

fn failures(observed: &Observed, spec: &GateSpec) -> Gate {
    let Observed { selected, others, has_breaker, .. } = observed;
    let GateSpec { margin_points, min_calls } = *spec;
    let say = |verdict, detail| Gate { name: "failures", verdict, detail };
    if min_calls == 0 {
        return say(Verdict::Pass, "not asked for".to_owned());
    }
    if !has_breaker {
        return say(Verdict::InsufficientEvidence, "the policy has no circuit breaker, which would count".to_owned());
    }
    let numbers = format!(
        "{} of {} calls of the selected failed, {} of {} of the others",
        selected.failures, selected.calls, others.failures, others.calls
    );
    if selected.calls < min_calls || others.calls < min_calls {
        return say(Verdict::InsufficientEvidence, format!("{numbers}; {min_calls} calls of either are needed"));
    }
    // In points of a hundred, without dividing; a window's numbers are far from the ends of the type.
    let (own, other) = (u128::from(selected.failures), u128::from(others.failures));
    let (own_calls, other_calls) = (u128::from(selected.calls), u128::from(others.calls));
    let allowed = other * own_calls * 100 + u128::from(margin_points) * own_calls * other_calls;
    let verdict = if own * other_calls * 100 > allowed { Verdict::Fail } else { Verdict::Pass };
    say(verdict, format!("{numbers}; at most {margin_points} points more are well"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEC: GateSpec = GateSpec { margin_points: 5, min_calls: 50 };

    /// All is well.
    fn well() -> Observed {
        Observed {
            watched: Duration::from_secs(60),
            bake: Duration::from_secs(60),
            selected: Side { replicas: 20, tripped: 0, calls: 100, failures: 2 },
            others: Side { replicas: 80, tripped: 0, calls: 400, failures: 4 },
            acknowledged: 19,
            rejected: 0,
            fleet_opens: 0,
            has_breaker: true,
        }
    }

    fn says(name: &str, observed: &Observed) -> Verdict {
        judge(observed, &SPEC).into_iter().find(|gate| gate.name == name).unwrap().verdict
    }

    #[test]
    fn a_stage_without_trouble_passes() {
        let gates = judge(&well(), &SPEC);
        assert_eq!((holding(&gates).as_str(), failed(&gates)), ("", None));
        assert!(gates.is_sorted_by_key(|gate| gate.name));
    }

    #[test]
    fn each_gate_holds_or_fails_by_its_own_numbers() {
        let well = well();
        let side = well.selected;
        let cases = [
            ("bake", Verdict::Waiting, Observed { watched: Duration::from_secs(59), ..well }),
            ("acknowledged", Verdict::Waiting, Observed { acknowledged: 18, ..well }),
            (
                "acknowledged",
                Verdict::InsufficientEvidence,
                Observed { selected: Side { replicas: 0, ..side }, acknowledged: 0, ..well },
            ),
            ("rejected", Verdict::Fail, Observed { rejected: 1, ..well }),
            ("fleet_opens", Verdict::Fail, Observed { fleet_opens: 1, ..well }),
            ("trips", Verdict::Fail, Observed { selected: Side { tripped: 1, ..side }, ..well }),
            ("failures", Verdict::Pass, Observed { selected: Side { failures: 6, ..side }, ..well }),
            ("failures", Verdict::Fail, Observed { selected: Side { failures: 7, ..side }, ..well }),
            ("failures", Verdict::InsufficientEvidence, Observed { selected: Side { calls: 49, ..side }, ..well }),
            (
                "failures",
                Verdict::InsufficientEvidence,
                Observed { others: Side { calls: 0, failures: 0, ..well.others }, ..well },
            ),
            ("failures", Verdict::InsufficientEvidence, Observed { has_breaker: false, ..well }),
        ];
        for (name, verdict, observed) in cases {
            assert_eq!(says(name, &observed), verdict, "{name} of {observed:?}");
            let gates = judge(&observed, &SPEC);
            let others = gates.iter().filter(|gate| gate.name != name && gate.verdict > Verdict::Waiting);
            assert_eq!(others.count(), 0, "{name} alone: {gates:?}");
        }
    }

    #[test]
    fn the_same_trouble_on_both_sides_is_not_the_candidates() {
        let mut observed = well();
        observed.selected.tripped = 5;
        observed.others.tripped = 20;
        assert_eq!(says("trips", &observed), Verdict::Pass);
        observed.others.tripped = 19;
        assert_eq!(says("trips", &observed), Verdict::Fail);
        observed.others = Side::default();
        observed.selected.tripped = 0;
        assert_eq!(says("trips", &observed), Verdict::Pass);
    }

    #[test]
    fn without_a_number_of_calls_failures_are_no_gate() {
        let observed = Observed { has_breaker: false, ..well() };
        assert_eq!(holding(&judge(&observed, &GateSpec { min_calls: 0, ..SPEC })), "");
    }

    proptest! {
        #[test]
        fn more_failures_of_the_selected_never_make_it_better(
            calls in 1_u64..10_000, failures in 0_u64..10_000, more in 0_u64..10_000, other in 1_u64..10_000, other_failures in 0_u64..10_000,
        ) {
            let side = |calls, failures: u64| Side { replicas: 2, tripped: 0, calls, failures: failures.min(calls) };
            let observed = |failures| Observed { selected: side(calls, failures), others: side(other, other_failures), ..well() };
            prop_assert!(says("failures", &observed(failures)) <= says("failures", &observed(failures.saturating_add(more))));
        }
    }
}
