//! What is seen of rollouts: who has the candidate, and how it does there.
//!
//! **Who runs a candidate is on its own.** Its windows and trips are about another definition than the fleet's: what is a failure, how many
//! make a trip, what stands before the breaker may all differ. So they are no evidence about the policy in force, and it has no vote; the
//! fleet's verdicts are void there by their revision, and it is given no permit to probe. Its own breaker protects it, and an operator's
//! override holds for it as for everybody. When the candidate is promoted or aborted it counts again with its next report.
//!
//! Everything here is of this run of the server and begins anew with each stage and after each pause: what nobody has watched does not count
//! as watched.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use fusebox_policy::{
    PolicyName, Revision, StrategyName, TargetName, Timestamp,
    breaker::LocalState,
    fleet::{BreakerKey, evidence::Report, rule::report_lifetime, shared::FleetState},
};

use super::{SessionId, owner::Owner, replicas::Session};
use crate::{
    rollouts::gates::Observed,
    sessions::feed::concerns,
    store::{Staged, StoredPolicy},
};

/// The newest window of one breaker of one replica, of a policy with a rollout in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrialWindow {
    revision: Revision,
    calls: u64,
    failures: u64,
    /// Until when it says something about the present.
    until: Timestamp,
}

/// Windows of a replica, by policy, strategy and target.
pub(super) type TrialWindows = BTreeMap<(PolicyName, StrategyName, TargetName), TrialWindow>;

/// What has happened in the present stage of a rollout.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// Which stage, and of which pause.
    since: SystemTime,
    begun: Timestamp,
    /// Names of replicas that tripped: of the selected, and of the others.
    tripped: (BTreeSet<String>, BTreeSet<String>),
    fleet_opens: u64,
}

/// A rollout as its replicas show it.
#[derive(Clone, Debug, Default)]
pub struct TrialView {
    /// When the stage that it is about began; `None` before the owner has heard of it.
    pub since: Option<SystemTime>,
    /// The numbers. Without the time that it has to bake.
    pub observed: Observed,
    /// Connected replicas that the policy concerns.
    pub connected: u32,
    /// Names of the selected.
    pub selected: Vec<String>,
    /// Names of those that run the candidate.
    pub acknowledged: Vec<String>,
    /// Names of those that refuse it, and why.
    pub rejected: Vec<(String, String)>,
}

impl Owner {
    /// Begins to watch what has begun, and forgets what has ended.
    pub(super) fn watch_rollouts(&mut self) {
        let now = self.now();
        let mut before = std::mem::take(&mut self.trials);
        for staged in &self.snapshot.rollouts {
            let since = staged.rollout.standing.since;
            let kept = before.remove(&staged.rollout.candidate).filter(|trial| trial.since == since);
            let anew = || Trial { since, begun: now, tripped: Default::default(), fleet_opens: 0 };
            self.trials.insert(staged.rollout.candidate, kept.unwrap_or_else(anew));
        }
        for session in self.sessions.values_mut() {
            session.trials.retain(|(policy, ..), _| {
                self.snapshot.rollouts.iter().any(|staged| {
                    staged.rollout.policy == *policy && staged.rollout.namespace == session.identity.namespace
                })
            });
        }
    }

    /// The rollout of a policy, by a replica that reports about it.
    pub(super) fn staged_for(&self, id: SessionId, policy: &str) -> Option<Arc<Staged>> {
        let namespace = &self.sessions.get(&id)?.identity.namespace;
        self.snapshot.rollout_of(&format!("namespaces/{namespace}/policies/{policy}")).map(Arc::clone)
    }

    /// Whether a replica runs the candidate, going by the revision that it reports about.
    pub(super) fn runs_candidate(&self, id: SessionId, staged: &Staged, revision: Revision) -> bool {
        revision == staged.rollout.candidate
            && self.sessions.get(&id).is_some_and(|session| staged.selects(&session.identity))
    }

    /// Notes a window of a policy with a rollout in progress, and whether the replica's breaker has just tripped.
    pub(super) fn note_trial(
        &mut self,
        id: SessionId,
        staged: &Staged,
        key: &BreakerKey,
        (revision, report): (Revision, &Report),
        changed: bool,
    ) {
        let now = self.now();
        let rollout = &staged.rollout;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let selected = staged.selects(&session.identity);
        let runs = if selected { Some(rollout.candidate) } else { rollout.stable };
        if runs != Some(revision) {
            // It is on its way to what it is to run.
            return;
        }
        let definition =
            if selected { Some(&staged.candidate) } else { self.snapshot.get(&staged.candidate.wire.name) };
        let spec = definition.and_then(|stored| breaker_of(stored, &key.strategy));
        let until = spec.map_or(now, |spec| now.plus(report_lifetime(spec)));
        let window = TrialWindow { revision, calls: report.calls, failures: report.failures, until };
        session.trials.insert((key.policy.clone(), key.strategy.clone(), key.target.clone()), window);
        if changed
            && report.own_trip
            && report.local == LocalState::Open
            && let Some(trial) = self.trials.get_mut(&rollout.candidate)
        {
            let side = if selected { &mut trial.tripped.0 } else { &mut trial.tripped.1 };
            side.insert(session.identity.name());
        }
    }

    /// Notes a decision of the fleet.
    pub(super) fn note_decision(&mut self, key: &BreakerKey, to: FleetState) {
        let name = format!("namespaces/{}/policies/{}", key.namespace, key.policy);
        if to == FleetState::Open
            && let Some(staged) = self.snapshot.rollout_of(&name)
            && let Some(trial) = self.trials.get_mut(&staged.rollout.candidate)
        {
            trial.fleet_opens += 1;
        }
    }

    /// What is seen of each rollout in progress.
    pub(super) fn trial_views(&self) -> BTreeMap<Revision, TrialView> {
        let view = |staged: &Arc<Staged>| (staged.rollout.candidate, self.trial_view(staged));
        self.snapshot.rollouts.iter().map(view).collect()
    }

    fn trial_view(&self, staged: &Staged) -> TrialView {
        let now = self.now();
        let in_force = self.snapshot.get(&staged.candidate.wire.name);
        let mut view = TrialView::default();
        for session in self.sessions.values() {
            let about = |stored: &StoredPolicy| concerns(stored, &session.identity.namespace, &session.identity.caller);
            if !about(&staged.candidate) && !in_force.is_some_and(|stored| about(stored)) {
                continue;
            }
            view.connected += 1;
            let selected = staged.selects(&session.identity);
            let side = if selected { &mut view.observed.selected } else { &mut view.observed.others };
            side.replicas += 1;
            for ((policy, ..), window) in &session.trials {
                let runs = if selected { Some(staged.rollout.candidate) } else { staged.rollout.stable };
                if *policy == staged.rollout.policy && Some(window.revision) == runs && window.until > now {
                    side.calls += window.calls;
                    side.failures += window.failures.min(window.calls);
                }
            }
            if selected {
                let name = session.identity.name();
                match refusal(session, staged) {
                    Some(reason) => view.rejected.push((name.clone(), reason.to_owned())),
                    None if session.applied >= staged.rollout.stage_revision => view.acknowledged.push(name.clone()),
                    None => {}
                }
                view.selected.push(name);
            }
        }
        view.observed.acknowledged = view.acknowledged.len() as u64;
        view.observed.rejected = view.rejected.len() as u64;
        let breakers = |stored: &StoredPolicy| stored.policy.definition.pipeline.breakers().next().is_some();
        view.observed.has_breaker = breakers(&staged.candidate) && in_force.is_some_and(|stored| breakers(stored));
        if let Some(Trial { since, begun, tripped, fleet_opens }) = self.trials.get(&staged.rollout.candidate) {
            view.since = Some(*since);
            view.observed.watched = now.since(*begun);
            view.observed.selected.tripped = tripped.0.len() as u64;
            view.observed.others.tripped = tripped.1.len() as u64;
            view.observed.fleet_opens = *fleet_opens;
        }
        view
    }
}

fn breaker_of<'a>(
    stored: &'a StoredPolicy,
    strategy: &StrategyName,
) -> Option<&'a fusebox_policy::breaker::BreakerSpec> {
    let found = stored.policy.definition.pipeline.breakers().find(|(name, _)| *name == strategy);
    found.map(|(_, spec)| spec)
}

/// Why a replica does not run the candidate, in its own words.
fn refusal<'a>(session: &'a Session, staged: &Staged) -> Option<&'a str> {
    let rollout = &staged.rollout;
    let refused = session.rejected.iter().find(|refused| {
        let candidate = refused.policy == rollout.policy.as_str() && refused.revision == rollout.candidate.0;
        // Nothing of an update could be used.
        let all = refused.policy.is_empty() && refused.revision >= rollout.stage_revision.0;
        candidate || all
    });
    refused.map(|refused| refused.reason.as_str())
}
