//! Rollouts.

use super::*;

pub(super) fn rollout(policy: Policy, percents: &[u32]) -> NewRollout {
    let stage = |percent: &u32| Stage { selector: Selector::Percent(*percent), bake: Duration::from_secs(60) };
    let spec = RolloutSpec {
        stages: percents.iter().map(stage).collect(),
        gates: GateSpec { margin_points: 5, min_calls: 50 },
        auto: true,
        abort_on_failure: false,
    };
    NewRollout { policy: Box::new(policy), etag: None, spec }
}

pub(super) async fn start(store: &dyn Store, new: NewRollout) -> Result<StoredRollout, StoreError> {
    Ok(store.start_rollout(new, note(), false, None).await?.rollout)
}

pub(super) async fn step(store: &dyn Store, rollout: &StoredRollout, step: Step) -> Result<StoredRollout, StoreError> {
    let id = (rollout.namespace.clone(), rollout.policy.clone(), rollout.candidate);
    let note = Note { message: "step".to_owned(), ..note() };
    Ok(store.step_rollout(id, step, note, false, None).await?.rollout)
}

pub(super) fn promote(from: usize) -> Step {
    Step::Promote { from, force: false }
}

pub(super) async fn a_rollout_brings_its_candidate_into_force_at_its_end(store: &dyn Store) {
    store.apply(vec![put(policy("r", "tr", "1s"), Expect::Any(None))], note(), false).await.unwrap();
    let before = store.load().await.unwrap();
    let in_force = before.policies.iter().find(|stored| stored.policy.name.as_str() == "r").unwrap().policy.revision;
    let same = start(store, rollout(policy("r", "tr", "1s"), &[10])).await;
    assert!(matches!(same, Err(StoreError::NothingToRollOut(_))), "{same:?}");
    let stale = NewRollout { etag: Some("stale".to_owned()), ..rollout(policy("r", "tr", "2s"), &[10]) };
    assert!(matches!(start(store, stale).await, Err(StoreError::EtagMismatch { .. })));
    let tied = start(store, rollout(policy("r", "tb", "2s"), &[10])).await;
    assert!(matches!(tied, Err(StoreError::Contradiction(..))), "{tied:?}");
    let dry = store.start_rollout(rollout(policy("r", "tr", "2s"), &[10, 50]), note(), true, None).await.unwrap();
    assert_eq!(store.load().await.unwrap().revision, before.revision, "validate_only writes nothing");

    let started = start(store, rollout(policy("r", "tr", "2s"), &[10, 50])).await.unwrap();
    assert_eq!(started, dry.rollout);
    assert_eq!((started.stable, started.candidate), (Some(in_force), Revision(before.revision.0 + 1)));
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.policies), (started.candidate, before.policies), "nothing else is in force");
    assert_eq!(loaded.rollouts.len(), 1);
    assert_eq!(loaded.rollouts[0].candidate.policy.definition, policy("r", "tr", "2s").definition);
    assert_eq!(
        (&loaded.rollouts[0].rollout, loaded.rollouts[0].candidate.policy.revision),
        (&started, started.candidate)
    );

    let refused = start(store, rollout(policy("r", "tr", "3s"), &[10])).await;
    assert!(matches!(refused, Err(StoreError::RolloutInProgress { rollout, .. }) if rollout == started.candidate));
    for change in [put(policy("r", "tr", "3s"), Expect::Any(None)), delete("r", None)] {
        let refused = store.apply(vec![change], note(), false).await;
        assert!(matches!(refused, Err(StoreError::RolloutInProgress { .. })), "{refused:?}");
    }
    let as_it_is = vec![put(policy("r", "tr", "1s"), Expect::Any(None))];
    assert_eq!(store.apply(as_it_is, note(), false).await.unwrap().results[0].action, Action::Unchanged);

    let paused = step(store, &started, Step::Pause).await.unwrap();
    assert_eq!((paused.standing.state, paused.standing.reason.as_str()), (State::Paused, "step"));
    assert_eq!(paused.stage_revision, started.stage_revision, "nobody has moved");
    let refused = step(store, &started, promote(0)).await;
    assert!(matches!(refused, Err(StoreError::RolloutRefuses { refused: Refused::Paused, .. })), "{refused:?}");
    step(store, &started, Step::Resume).await.unwrap();
    let second = step(store, &started, promote(0)).await.unwrap();
    assert_eq!((second.standing.stage, second.stage_revision), (1, Revision(started.candidate.0 + 3)));
    let done = step(store, &started, promote(1)).await.unwrap();
    assert_eq!(done.standing.state, State::Promoted);
    let loaded = store.load().await.unwrap();
    assert!(loaded.rollouts.is_empty());
    let stored = loaded.policies.iter().find(|stored| stored.policy.name.as_str() == "r").unwrap();
    assert_eq!(
        (stored.policy.revision, &stored.policy.definition),
        (started.candidate, &policy("r", "tr", "2s").definition)
    );
    let gone = step(store, &started, Step::Abort).await;
    assert!(matches!(gone, Err(StoreError::NoSuchRollout(_))), "{gone:?}");
}

pub(super) async fn an_aborted_rollout_leaves_what_is_in_force_as_it_was(store: &dyn Store) {
    let before = store.load().await.unwrap();
    let started = start(store, rollout(policy("r", "tr", "9s"), &[10])).await.unwrap();
    let aborted = step(store, &started, Step::Abort).await.unwrap();
    assert_eq!(aborted.standing.state, State::Aborted);
    let after = store.load().await.unwrap();
    assert_eq!((after.policies, after.rollouts.len()), (before.policies, 0));
    assert_eq!(after.revision, Revision(before.revision.0 + 2), "whoever had the candidate is told");
    let name = PolicyName::try_new("r").unwrap();
    let history = store.revisions(Namespace::default_namespace(), name, None, 4).await.unwrap();
    let told: Vec<_> = history.iter().map(|stored| (stored.action, stored.policy.revision)).collect();
    let stable = started.stable.unwrap();
    let expected = [
        (RevisionAction::Rollback, stable),
        (RevisionAction::Candidate, started.candidate),
        (RevisionAction::Promote, stable),
        (RevisionAction::Candidate, stable),
    ];
    assert_eq!(told, expected);

    let new = start(store, rollout(policy("young", "ty", "1s"), &[10])).await.unwrap();
    assert_eq!(new.stable, None);
    let tied = store.apply(vec![put(policy("other", "ty", "1s"), Expect::Absent)], note(), false).await;
    assert!(matches!(tied, Err(StoreError::Contradiction(0, _))), "it would tie where the candidate runs: {tied:?}");
    let filter = RolloutFilter { policy: Some(new.policy.clone()), limit: 9, ..RolloutFilter::default() };
    assert_eq!(store.rollouts(filter).await.unwrap(), std::slice::from_ref(&new));
    step(store, &new, Step::Abort).await.unwrap();
    assert!(store.load().await.unwrap().policies.iter().all(|stored| stored.policy.name != new.policy));
    let all = store.rollouts(RolloutFilter { limit: 2, ..RolloutFilter::default() }).await.unwrap();
    assert_eq!(all.iter().map(|rollout| rollout.candidate).collect::<Vec<_>>(), [new.candidate, started.candidate]);
    let older = RolloutFilter { before: Some(started.candidate), limit: 9, ..RolloutFilter::default() };
    assert_eq!(store.rollouts(older).await.unwrap().len(), 1);

    let filter = AuditFilter { action: Some("rollout".to_owned()), limit: 100, ..AuditFilter::default() };
    let records = store.audit(filter).await.unwrap().records;
    let actions: Vec<_> = records.iter().rev().map(|record| record.action.as_str()).collect();
    let expected = [
        "rollout.start",
        "rollout.pause",
        "rollout.resume",
        "rollout.promote",
        "rollout.promote",
        "rollout.start",
        "rollout.abort",
        "rollout.start",
        "rollout.abort",
    ];
    assert_eq!(actions, expected);
    assert_eq!((records[0].object.as_str(), records[0].reason.as_str()), (new.name().as_str(), "step"));
}
