//! Rollouts as operators see them.

use fusebox_policy::Revision;
use fusebox_proto::v1::{self, RolloutState as Wire};

use super::{
    Live,
    gates::{self, Gate, Verdict},
    machine::{Standing, State},
};
use crate::store::{StoredRollout, timestamp};

/// A rollout, with what is known of its replicas if it is in progress.
#[must_use]
pub fn rollout(stored: &StoredRollout, live: Option<&Live>) -> v1::Rollout {
    let StoredRollout {
        namespace: _,
        policy: _,
        candidate,
        stable,
        spec,
        standing: Standing { stage, state, reason, since },
        stage_revision,
        author,
        message,
        created,
        changed,
    } = stored;
    let ready = live.is_some_and(|live| gates::holding(&live.gates).is_empty());
    let state = match state {
        State::Running if ready && !spec.auto => Wire::AwaitingPromotion,
        State::Running => Wire::Running,
        State::Paused => Wire::Paused,
        State::Promoted => Wire::Promoted,
        State::Aborted => Wire::Aborted,
    };
    v1::Rollout {
        name: stored.name(),
        policy: stored.policy_name(),
        candidate_revision: candidate.0,
        stable_revision: stable.unwrap_or(Revision(0)).0,
        spec: Some(spec.into()),
        stage: u32::try_from(stage + 1).unwrap_or(u32::MAX),
        state: state.into(),
        reason: reason.clone(),
        stage_revision: stage_revision.0,
        stage_time: Some(timestamp(*since)),
        create_time: Some(timestamp(*created)),
        update_time: Some(timestamp(*changed)),
        author: author.clone(),
        message: message.clone(),
        progress: live.map(progress),
    }
}

fn progress(live: &Live) -> v1::RolloutProgress {
    let Live { view, gates } = live;
    let rejection = |(instance, reason): &(String, String)| v1::RolloutRejection {
        instance: instance.clone(),
        reason: reason.clone(),
    };
    v1::RolloutProgress {
        connected: view.connected,
        selected: view.selected.clone(),
        acknowledged: view.acknowledged.clone(),
        rejected: view.rejected.iter().map(rejection).collect(),
        gates: gates.iter().map(gate).collect(),
    }
}

/// A gate.
#[must_use]
pub fn gate(gate: &Gate) -> v1::RolloutGate {
    use v1::rollout_gate::Verdict as Wire;
    let verdict = match gate.verdict {
        Verdict::Pass => Wire::Pass,
        Verdict::Waiting => Wire::Waiting,
        Verdict::InsufficientEvidence => Wire::InsufficientEvidence,
        Verdict::Fail => Wire::Fail,
    };
    v1::RolloutGate { name: gate.name.to_owned(), verdict: verdict.into(), detail: gate.detail.clone() }
}
