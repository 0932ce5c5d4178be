//! The invariants of the fleet's decisions, over the structs that run. Property tests, the model checker and the control
//! plane's debug builds call them.
//!
//! Of a step of the [`Coordinator`], by [`check_step`]:
//!
//! - **S3**: what opens on reports has two witnesses, except in mode `any`.
//! - **S4**: probe permits in flight never exceed the policy's `concurrentProbes`, nor three over the zones of one breaker that probe
//!   together; a permit's number is given once.
//! - **S7**: while learning or frozen nothing is opened and no permit given; what goes on from a former run is not opened by this one.
//! - **S8**: nothing is told in a term that is not the present one, and numbers within it only grow.
//! - **S10**: what one replica says about one zone changes other zones of the same breaker only by the rule for zones, and no other
//!   breaker at all.
//! - **S11, S13**: replicas that leave, and time that passes, open nothing that was released.
//! - **S14**: an opening leaves at most `maxOpenPercent` of a caller's targets open, from four targets up.
//! - **S15**: each verdict that is told to all has exactly one transition in the log.
//!
//! Of a replica's [`Gate`], by [`check_gate`]:
//!
//! - **S1**: the fence of the newest verdict never falls, and another verdict has another fence.
//! - **S2**: no verdict is in force after its lease, and no permit is usable after its time.
//! - **S5**: without an override no more passes than the replica's own breaker admits.
//! - **S6**: an override decides alone, and not after its end; a disabled breaker stands still.
//!
//! Of both together, by [`check_permits`]:
//!
//! - **S4** across restarts: usable permits of all replicas of one scope.
//!
//! Over time:
//!
//! - **S12**: see [`same_decisions`].
//! - **L6**: see [`most_transitions_per_hour`].
//!
//! **S9** (a replica runs one complete revision) and the other liveness properties are about the link and the world around, and are
//! tested there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    Timestamp,
    breaker::{BreakerMode, BreakerSpec},
    fleet::{
        BreakerKey, CoordinationMode,
        coordinator::{Coordinator, Effect, Mode, Recipients, guards::CAPPED_FROM, zones::MOST_PROBES},
        gate::{Forced, Gate},
        held::Fence,
        shared::{FleetState, SharedBreaker},
    },
};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{id}: {detail}")]
pub struct Broken {
    /// Its id: `S7`.
    pub id: &'static str,
    /// What is wrong.
    pub detail: String,
}

fn holds(condition: bool, id: &'static str, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if condition { Ok(()) } else { Err(Broken { id, detail: detail() }) }
}

/// What a step was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A replica said something about a breaker: a report, or the outcome of a probe.
    Told(BreakerKey),
    /// A replica left, or let go of a breaker; or time passed.
    Passed,
    /// Anything else: a changed policy, a raised term, a suspicion.
    Other,
}

/// Checks one step: what was before, what came of it, and what is after.
///
/// # Errors
/// The first invariant that does not hold.
pub fn check_step(before: &Coordinator, step: &Step, effects: &[Effect], after: &Coordinator) -> Result<(), Broken> {
    check_quiescence(after.mode(), effects)?;
    check_order(before, effects, after)?;
    check_audit(effects)?;
    let mut given = BTreeSet::new();
    for effect in effects {
        match effect {
            Effect::Transition { key, from, to, cause, evidence, .. } => {
                let opened = (*from, *to) == (FleetState::Released, FleetState::Open) && *cause != "adopted";
                if opened {
                    check_opening(step, key, cause, evidence.witness_instances.len(), after)?;
                }
                if let Step::Told(told) = step {
                    let zones = same_but_zone(told, key) && *cause == "zones";
                    holds(told == key || zones, "S10", || format!("a report on {told} changed {key} by {cause}"))?;
                }
            }
            Effect::Permit { key, id, .. } => {
                holds(given.insert(*id), "S4", || format!("permit {id} is given twice"))?;
                check_budget(key, after)?;
            }
            Effect::Verdict { .. } | Effect::Canvass { .. } | Effect::Held { .. } | Effect::Mode { .. } => {}
        }
    }
    Ok(())
}

/// S7, which is cheap: `mode` is the one after the step.
///
/// # Errors
/// If something was issued that must not be.
pub fn check_quiescence(mode: Mode, effects: &[Effect]) -> Result<(), Broken> {
    if mode == Mode::Deciding {
        return Ok(());
    }
    for effect in effects {
        match effect {
            Effect::Permit { id, .. } => {
                return Err(Broken { id: "S7", detail: format!("permit {id} while {}", mode.name()) });
            }
            Effect::Transition { key, to: FleetState::Open, cause, .. } => {
                holds(*cause == "adopted", "S7", || format!("{key} opens by {cause} while {}", mode.name()))?;
            }
            Effect::Transition { .. }
            | Effect::Verdict { .. }
            | Effect::Canvass { .. }
            | Effect::Held { .. }
            | Effect::Mode { .. } => {}
        }
    }
    Ok(())
}

fn check_order(before: &Coordinator, effects: &[Effect], after: &Coordinator) -> Result<(), Broken> {
    holds(after.term() >= before.term(), "S8", || "the term has fallen".to_owned())?;
    let mut last = Fence { term: before.term(), rev: before.rev() };
    for effect in effects {
        if let Effect::Verdict { to: Recipients::Holders, decision, .. } = effect {
            let own = decision.fence;
            holds(own > last && own.term == after.term(), "S8", || format!("{own:?} after {last:?}"))?;
            last = own;
        }
    }
    Ok(())
}

fn check_audit(effects: &[Effect]) -> Result<(), Broken> {
    let mut counts: BTreeMap<&BreakerKey, (usize, usize)> = BTreeMap::new();
    for effect in effects {
        match effect {
            Effect::Verdict { key, to: Recipients::Holders, .. } => counts.entry(key).or_default().0 += 1,
            // Replicas drop these verdicts by themselves: none is told.
            Effect::Transition { cause: "policy_change", .. } => {}
            Effect::Transition { key, .. } => counts.entry(key).or_default().1 += 1,
            Effect::Verdict { .. }
            | Effect::Permit { .. }
            | Effect::Canvass { .. }
            | Effect::Held { .. }
            | Effect::Mode { .. } => {}
        }
    }
    let uneven = counts.iter().find(|(_, (told, logged))| told != logged);
    holds(uneven.is_none(), "S15", || format!("told and logged: {uneven:?}"))
}

fn check_opening(
    step: &Step,
    key: &BreakerKey,
    cause: &str,
    witnesses: usize,
    after: &Coordinator,
) -> Result<(), Broken> {
    holds(*step != Step::Passed, "S13", || format!("{key} opened by {cause}, though nobody reported"))?;
    let Some(breaker) = after.breaker(key) else {
        return Err(Broken { id: "S15", detail: format!("{key} opened and is not known") });
    };
    let coordination = breaker.settings().coordination;
    if matches!(cause, "quorum" | "pooled") {
        holds(witnesses >= 2, "S3", || format!("{key} opened by {cause} on {witnesses} witnesses"))?;
    } else {
        let said = cause == "zones" || (cause == "any" && coordination.mode() == CoordinationMode::Any);
        holds(said, "S3", || format!("{key} opened by {cause}"))?;
    }
    if breaker.is_shadow() {
        return Ok(());
    }
    let (total, open) = after.targets(key);
    let percent = usize::from(coordination.max_open_percent());
    let within = total.len() < CAPPED_FROM || open.len() * 100 <= percent * total.len();
    holds(within, "S14", || format!("{} of {} targets are open, {percent} % may", open.len(), total.len()))
}

fn same_but_zone(left: &BreakerKey, right: &BreakerKey) -> bool {
    BreakerKey { zone: None, ..left.clone() } == BreakerKey { zone: None, ..right.clone() }
}

fn check_budget(key: &BreakerKey, after: &Coordinator) -> Result<(), Broken> {
    let zones: Vec<_> =
        after.keys().filter(|other| same_but_zone(key, other)).filter_map(|other| after.breaker(other)).collect();
    let (mut probing, mut out, mut most) = (0, 0, MOST_PROBES);
    for zone in &zones {
        let budget = usize::try_from(zone.settings().breaker.half_open().concurrent_probes).unwrap_or(usize::MAX);
        let own = zone.permits_out();
        holds(own <= budget, "S4", || format!("{own} permits of a zone of {key} are out, {budget} may"))?;
        probing += usize::from(zone.state() == FleetState::HalfOpen);
        out += own;
        // A zone that probed alone may have had more out when the next one began.
        most = most.max(budget);
    }
    holds(probing < 2 || out <= most, "S4", || format!("{out} permits of all zones of {key} are out"))
}

/// Checks a replica's gate after [`Gate::tick`] at `now`; `before` is the same gate at an earlier time.
///
/// # Errors
/// The first invariant that does not hold.
pub fn check_gate(before: &Gate, after: &Gate, now: Timestamp) -> Result<(), Broken> {
    let (old, new) = (before.held().highest(), after.held().highest());
    holds(new >= old, "S1", || format!("{new:?} after {old:?}"))?;
    if let (Some(was), Some(is)) = (before.held().verdict(), after.held().verdict()) {
        let same = (was.state, was.admit_permille) == (is.state, is.admit_permille);
        holds(same || is.fence > was.fence, "S1", || format!("{:?} has changed", is.fence))?;
    }
    if let Some(verdict) = after.held().verdict() {
        holds(now < verdict.expires, "S2", || format!("{:?} is in force after its lease", verdict.fence))?;
    }
    if before.is_disabled() && after.is_disabled() {
        let (old, new) = (before.breaker().generation(), after.breaker().generation());
        holds(old == new, "S6", || format!("a disabled breaker went from generation {old} to {new}"))?;
    }
    let admission = after.admission(now);
    if let Some(forced) = after.held().override_in_force() {
        let wanted = match forced.effect {
            Forced::Open => 0.0,
            Forced::Closed | Forced::Disabled => 1.0,
        };
        let alone = after.breaker().spec().mode() == BreakerMode::Disabled || (admission - wanted).abs() < f64::EPSILON;
        holds(alone, "S6", || format!("{admission} passes"))?;
        return holds(now < forced.until, "S6", || "an override is in force after its end".to_owned());
    }
    let own = after.breaker().admission(now);
    holds(admission <= own, "S5", || format!("{admission} passes, its own breaker admits {own}"))
}

/// Checks that the usable permits of all replicas of one scope keep to the policy, whichever runs of the control plane issued them.
///
/// # Errors
/// If there are more.
pub fn check_permits<'a>(
    gates: impl IntoIterator<Item = &'a Gate>,
    spec: &BreakerSpec,
    now: Timestamp,
) -> Result<(), Broken> {
    let usable: usize = gates.into_iter().map(|gate| gate.held().usable_permits(now)).sum();
    let budget = spec.half_open().concurrent_probes;
    holds(usable <= budget as usize, "S4", || format!("{usable} permits are usable, {budget} may be"))
}

/// S12: whether two coordinators have decided the same, whatever they remember besides.
#[must_use]
pub fn same_decisions(left: &Coordinator, right: &Coordinator) -> bool {
    let decided = |of: &Coordinator| {
        let states =
            of.keys().map(|key| (key.clone(), of.breaker(key).map(SharedBreaker::state), of.newest(key).cloned()));
        states.collect::<Vec<_>>()
    };
    left.mode() == right.mode() && decided(left) == decided(right)
}

/// L6: how often one breaker can change its state in an hour at most.
#[must_use]
pub fn most_transitions_per_hour(spec: &BreakerSpec) -> u128 {
    const HOUR: Duration = Duration::from_secs(3600);
    most_transitions_within(HOUR, spec.delay())
}

/// L6: how often one breaker can change its state within a span at most, steps of a ramp aside. Each way from released back to released
/// has at most four changes, and each of them passes through an open time of at least the policy's `delay`.
#[must_use]
pub fn most_transitions_within(span: Duration, delay: Duration) -> u128 {
    4 * (span.as_nanos() / delay.as_nanos().max(1) + 1)
}
