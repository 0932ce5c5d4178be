//! What a step of a rollout does to what is in force. No I/O: the same for every store.
//!
//! The candidate is a revision like every other: its number is the rollout's, and the policy carries it wherever it is sent. Each step of a
//! rollout takes a number of its own, so that whoever holds an earlier one is sent what became of it; what is in force keeps its own number
//! through an abort, since nothing has changed for those that run it: their breakers and the fleet's verdicts go on.

use std::{sync::Arc, time::SystemTime};

use fusebox_policy::{Invalid, Namespace, Policy, PolicyName, PolicySet, Revision};
use fusebox_proto::{manifest, v1};
use serde_json::json;

use super::{
    Expect, Loaded, Note, Quota, RevisionAction, StoreError, StoredPolicy, StoredRevision,
    audit::{AuditAction, NewAudit},
    plan::{self, Key, State},
};
use crate::{
    fleet::Identity,
    rollouts::{
        machine::{Standing, State as Progress, Step},
        select::selects,
        spec::RolloutSpec,
    },
};

/// A rollout that is to be.
#[derive(Clone, Debug)]
pub struct NewRollout {
    /// The candidate; its revision is ignored.
    pub policy: Box<Policy>,
    /// Only if the policy in force has this etag.
    pub etag: Option<String>,
    /// To whom first, and when to go on.
    pub spec: RolloutSpec,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRollout {
    /// Namespace of the policy.
    pub namespace: Namespace,
    /// The policy.
    pub policy: PolicyName,
    /// Number of the candidate, and of the rollout.
    pub candidate: Revision,
    /// Number of what was in force when it began; `None` if nothing was.
    pub stable: Option<Revision>,
    /// What was asked for.
    pub spec: RolloutSpec,
    /// How far it is.
    pub standing: Standing,
    /// The revision at which the set of selected replicas became what it is.
    pub stage_revision: Revision,
    /// Who started it.
    pub author: String,
    /// Why.
    pub message: String,
    /// When.
    pub created: SystemTime,
    /// When it was last changed.
    pub changed: SystemTime,
}

/// A rollout in progress, with what it brings.
#[derive(Clone, Debug, PartialEq)]
pub struct Staged {
    /// The rollout.
    pub rollout: StoredRollout,
    /// The candidate.
    pub candidate: Arc<StoredPolicy>,
}

/// What came of a step. With `validate_only`, what would have.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// The rollout afterwards.
    pub rollout: StoredRollout,
    /// Everything in force afterwards.
    pub state: Loaded,
}

/// Which rollouts to read.
#[derive(Clone, Debug, Default)]
pub struct RolloutFilter {
    /// Only of this namespace.
    pub namespace: Option<Namespace>,
    /// Only of this policy.
    pub policy: Option<PolicyName>,
    /// Only with a smaller number.
    pub before: Option<Revision>,
    /// At most this many.
    pub limit: u32,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct RolloutPlan {
    pub(super) rollout: StoredRollout,
    pub(super) revision: Option<StoredRevision>,
    pub(super) audit: NewAudit,
    pub(super) after: State,
}

// === impl StoredRollout ===

impl StoredRollout {
    /// `namespaces/{namespace}/policies/{policy}`.
    #[must_use]
    pub fn policy_name(&self) -> String {
        format!("namespaces/{}/policies/{}", self.namespace, self.policy)
    }

    /// `namespaces/{namespace}/policies/{policy}/rollouts/{candidate}`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/rollouts/{}", self.policy_name(), self.candidate)
    }

    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.policy.clone())
    }
}

// === impl Staged ===

impl Staged {
    /// Whether a replica is to have the candidate.
    #[must_use]
    pub fn selects(&self, replica: &Identity) -> bool {
        let Standing { stage, .. } = self.rollout.standing;
        let begun = self.rollout.spec.stages.get(..=stage).unwrap_or_default();
        replica.namespace == self.rollout.namespace && selects(self.rollout.candidate.0, begun, replica)
    }
}

// === impl RolloutFilter ===

impl RolloutFilter {
    pub(super) fn admits(&self, rollout: &StoredRollout) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == rollout.namespace)
            && self.policy.as_ref().is_none_or(|policy| *policy == rollout.policy)
            && self.before.is_none_or(|before| rollout.candidate < before)
    }
}

// === impl RolloutPlan ===

impl RolloutPlan {
    pub(super) fn stepped(&self) -> Stepped {
        Stepped { rollout: self.rollout.clone(), state: self.after.loaded() }
    }
}

// === impl State ===

impl State {
    /// Refuses to change a policy of which only some replicas have what it is to be.
    pub(super) fn refuse_rollout(&self, key: &Key) -> Result<(), StoreError> {
        match self.rollouts.get(key) {
            Some(staged) => Err(StoreError::RolloutInProgress {
                policy: staged.rollout.policy_name(),
                rollout: staged.rollout.candidate,
            }),
            None => Ok(()),
        }
    }

    /// Begins a rollout.
    pub(super) fn start_rollout(&self, new: NewRollout, note: &Note, quota: Quota) -> Result<RolloutPlan, StoreError> {
        self.refuse_regressed()?;
        let NewRollout { mut policy, etag, spec } = new;
        let key = (policy.namespace.clone(), policy.name.clone());
        self.refuse_rollout(&key)?;
        let before = self.policies.get(&key).cloned();
        plan::expect(&policy.resource_name(), &Expect::Any(etag), before.as_ref())?;
        if before.as_ref().is_some_and(|stored| plan::same(&stored.policy, &policy)) {
            return Err(StoreError::NothingToRollOut(policy.resource_name()));
        }
        let mut after = self.clone();
        after.revision = Revision(self.revision.0 + 1);
        policy.revision = after.revision;
        self.check_ties(&policy).map_err(|invalid| StoreError::Contradiction(0, invalid))?;
        let rollout = StoredRollout {
            namespace: policy.namespace.clone(),
            policy: policy.name.clone(),
            candidate: after.revision,
            stable: before.as_ref().map(|stored| stored.policy.revision),
            spec,
            standing: Standing::begin(note.at),
            stage_revision: after.revision,
            author: note.caller.name.clone(),
            message: note.message.clone(),
            created: note.at,
            changed: note.at,
        };
        let created = plan::created(before.as_deref(), note.at);
        let candidate = Arc::new(plan::stored(*policy.clone(), created, note.at));
        let namespace = key.0.clone();
        after.rollouts.insert(key, Arc::new(Staged { rollout: rollout.clone(), candidate }));
        after.check_quota(self, &namespace, quota)?;
        let revision = plan::revision(after.revision, RevisionAction::Candidate, *policy.clone(), note);
        let audit = NewAudit {
            action: AuditAction::RolloutStart,
            object: rollout.name(),
            note: note.clone(),
            revision: after.revision,
            before: before.map(|stored| manifest::to_json(&stored.policy).to_string()),
            after: Some(manifest::to_json(&policy).to_string()),
        };
        Ok(RolloutPlan { rollout, revision: Some(revision), audit, after })
    }

    /// Makes a step of a rollout. `reason` is why it then is where it is.
    pub(super) fn step_rollout(
        &self,
        namespace: &Namespace,
        policy: &PolicyName,
        candidate: Revision,
        step: Step,
        note: &Note,
    ) -> Result<RolloutPlan, StoreError> {
        self.refuse_regressed()?;
        let key = (namespace.clone(), policy.clone());
        let name = || format!("namespaces/{namespace}/policies/{policy}/rollouts/{candidate}");
        let Some(staged) = self.rollouts.get(&key).filter(|staged| staged.rollout.candidate == candidate) else {
            return Err(StoreError::NoSuchRollout(name()));
        };
        let old = &staged.rollout;
        let standing = old
            .standing
            .step(step, old.spec.stages.len(), note.message.clone(), note.at)
            .map_err(|refused| StoreError::RolloutRefuses { name: name(), refused })?;
        let mut after = self.clone();
        after.revision = Revision(self.revision.0 + 1);
        let moved = standing.stage != old.standing.stage || !standing.state.in_progress();
        let stage_revision = if moved { after.revision } else { old.stage_revision };
        let rollout = StoredRollout { standing, stage_revision, changed: note.at, ..old.clone() };
        let content = |policy: &Policy, action| Some(plan::revision(after.revision, action, policy.clone(), note));
        let revision = match rollout.standing.state {
            Progress::Running | Progress::Paused => None,
            Progress::Promoted => content(&staged.candidate.policy, RevisionAction::Promote),
            Progress::Aborted => match self.policies.get(&key) {
                Some(stable) => content(&stable.policy, RevisionAction::Rollback),
                None => content(&staged.candidate.policy, RevisionAction::Delete),
            },
        };
        if rollout.standing.state.in_progress() {
            let staged = Staged { rollout: rollout.clone(), candidate: Arc::clone(&staged.candidate) };
            after.rollouts.insert(key, Arc::new(staged));
        } else {
            after.rollouts.remove(&key);
            if rollout.standing.state == Progress::Promoted {
                let created = plan::created(self.policies.get(&key).map(Arc::as_ref), note.at);
                let promoted = plan::stored(staged.candidate.policy.clone(), created, note.at);
                after.policies.insert(key, Arc::new(promoted));
            }
        }
        let json = |rollout: &StoredRollout| {
            let Standing { stage, state, .. } = &rollout.standing;
            Some(json!({ "stage": stage + 1, "state": state.name() }).to_string())
        };
        let audit = NewAudit {
            action: match step {
                Step::Promote { .. } => AuditAction::RolloutPromote,
                Step::Pause => AuditAction::RolloutPause,
                Step::Resume => AuditAction::RolloutResume,
                Step::Abort => AuditAction::RolloutAbort,
            },
            object: rollout.name(),
            note: note.clone(),
            revision: after.revision,
            before: json(old),
            after: json(&rollout),
        };
        Ok(RolloutPlan { rollout, revision, audit, after })
    }

    /// Refuses a policy that ties with what another one is, for some replica: what is in force, or a candidate.
    pub(super) fn check_ties(&self, policy: &Policy) -> Result<(), Invalid> {
        let in_force = PolicySet::new(self.policies.values().map(|stored| Arc::new(stored.policy.clone())));
        let candidates = PolicySet::new(self.rollouts.values().map(|staged| Arc::new(staged.candidate.policy.clone())));
        in_force.check_tie(policy).and_then(|()| candidates.check_tie(policy))
    }
}

/// The bytes that are kept of what was asked for.
pub(super) fn encode(spec: &RolloutSpec) -> Vec<u8> {
    prost::Message::encode_to_vec(&v1::RolloutSpec::from(spec))
}
