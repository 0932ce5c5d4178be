//! Policies, their history, and what is in force.

use super::*;

pub(super) async fn revisions_grow_and_unchanged_definitions_write_none(store: &dyn Store) {
    let first = store.apply(vec![put(policy("a", "ta", "1s"), Expect::Absent)], note(), false).await.unwrap();
    assert_eq!((first.revision, first.results[0].action), (Revision(1), Action::Created));
    let again = store.apply(vec![put(policy("a", "ta", "1s"), Expect::Any(None))], note(), false).await.unwrap();
    assert_eq!((again.revision, again.results[0].action), (Revision(1), Action::Unchanged));
    let changed = store.apply(vec![put(policy("a", "ta", "2s"), Expect::Any(None))], note(), false).await.unwrap();
    assert_eq!((changed.revision, changed.results[0].action), (Revision(2), Action::Configured));
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.revision, Revision(2));
    assert_eq!(loaded.policies[0].policy.revision, Revision(2));
    assert_eq!(loaded.policies[0].policy.definition, policy("a", "ta", "2s").definition);
}

pub(super) async fn expectations_are_checked_in_the_same_step(store: &dyn Store) {
    let result = store.apply(vec![put(policy("a", "ta", "3s"), Expect::Absent)], note(), false).await;
    assert!(matches!(result, Err(StoreError::AlreadyExists(_))));
    let result = store.apply(vec![put(policy("none", "tn", "3s"), Expect::Present(None))], note(), false).await;
    assert!(matches!(result, Err(StoreError::NotFound(_))));
    let stale = Some("stale".to_owned());
    let result = store.apply(vec![put(policy("a", "ta", "3s"), Expect::Any(stale.clone()))], note(), false).await;
    let Err(StoreError::EtagMismatch { current, .. }) = result else { panic!("a stale etag must be refused") };
    assert!(matches!(store.apply(vec![delete("a", stale)], note(), false).await, Err(StoreError::EtagMismatch { .. })));
    let fresh = put(policy("a", "ta", "3s"), Expect::Present(Some(current)));
    assert_eq!(store.apply(vec![fresh], note(), false).await.unwrap().revision, Revision(3));
}

pub(super) async fn several_changes_are_made_all_or_none(store: &dyn Store) {
    let before = store.load().await.unwrap().revision;
    let changes = vec![put(policy("b", "tb", "1s"), Expect::Absent), put(policy("a", "ta", "9s"), Expect::Absent)];
    assert!(store.apply(changes, note(), false).await.is_err());
    assert_eq!(store.load().await.unwrap().revision, before);
    let changes = vec![put(policy("b", "tb", "1s"), Expect::Absent), put(policy("c", "tc", "1s"), Expect::Absent)];
    let tried = store.apply(changes.clone(), note(), true).await.unwrap();
    assert_eq!(store.load().await.unwrap().revision, before, "validate_only writes nothing");
    let done = store.apply(changes, note(), false).await.unwrap();
    assert_eq!(tried.revision, done.revision);
    assert_eq!(done.revision, Revision(before.0 + 2), "each policy has a revision of its own");
}

pub(super) async fn two_policies_for_the_same_calls_are_refused(store: &dyn Store) {
    let result = store.apply(vec![put(policy("rival", "ta", "1s"), Expect::Absent)], note(), false).await;
    let Err(StoreError::Contradiction(0, invalid)) = result else { panic!("a tie must be refused") };
    assert_eq!(invalid.violations()[0].field, "spec.match");
}

pub(super) async fn history_outlives_deletion(store: &dyn Store) {
    store.apply(vec![delete("a", None)], note(), false).await.unwrap();
    assert!(matches!(store.apply(vec![delete("a", None)], note(), false).await, Err(StoreError::NotFound(_))));
    let name = PolicyName::try_new("a").unwrap();
    let all = store.revisions(Namespace::default_namespace(), name.clone(), None, 100).await.unwrap();
    let actions: Vec<_> = all.iter().map(|stored| stored.action).collect();
    assert_eq!(
        actions,
        [RevisionAction::Delete, RevisionAction::Update, RevisionAction::Update, RevisionAction::Create]
    );
    assert_eq!((all[0].author.as_str(), all[0].message.as_str(), all[0].at), ("tester", "why", moment(1)));
    assert!(all.is_sorted_by(|newer, older| newer.revision > older.revision));
    let page = store.revisions(Namespace::default_namespace(), name, Some(all[0].revision), 2).await.unwrap();
    assert_eq!(page, all[1..3]);
}

pub(super) async fn an_older_copy_takes_no_change_until_it_is_adopted(store: &dyn Store) {
    let before = store.load().await.unwrap();
    assert_eq!(store.saw_revision(before.revision).await.unwrap().revision, before.revision);
    let change = || vec![put(policy("late", "late", "1s"), Expect::Any(None))];
    assert!(store.apply(change(), note(), true).await.is_ok(), "what is stored may be seen");
    assert!(store.adopt_present(note()).await.unwrap().0.is_none(), "there is nothing to adopt");

    let seen = Revision(before.revision.0 + 10);
    assert_eq!(store.saw_revision(seen).await.unwrap().seen, seen);
    assert_eq!(store.saw_revision(before.revision).await.unwrap().seen, seen, "what was seen was seen");
    assert_eq!(store.load().await.unwrap().seen, seen);
    for dry in [true, false] {
        let refused = store.apply(change(), note(), dry).await;
        assert!(matches!(refused, Err(StoreError::Regressed { seen: told, .. }) if told == seen), "{refused:?}");
    }
    let (restored, after) = store.adopt_present(note()).await.unwrap();
    assert_eq!(restored.unwrap().revision, before.revision);
    assert_eq!((after.revision, after.policies), (Revision(seen.0 + 1), before.policies));
    assert_eq!(store.apply(change(), note(), false).await.unwrap().revision, Revision(seen.0 + 2));
}

pub(super) async fn terms_only_grow(store: &dyn Store) {
    let first = store.next_term(0).await.unwrap();
    let second = store.next_term(0).await.unwrap();
    let raised = store.next_term(second + 100).await.unwrap();
    assert!(first < second);
    assert_eq!(raised, second + 100);
    assert!(store.next_term(0).await.unwrap() > raised);
}

pub(super) async fn a_prune_takes_out_what_is_not_defined_with_its_labels(store: &dyn Store) {
    let labelled = |name: &str, team: &str| {
        let labels = [("team".to_owned(), team.to_owned())].into();
        let labels = fusebox_policy::policy::Labels::try_new(labels).unwrap();
        put(Policy { labels, ..policy(name, name, "1s") }, Expect::Any(None))
    };
    let team = || [("team".to_owned(), "prune".to_owned())].into();
    let prune = || Change::Prune { namespace: Namespace::default_namespace(), labels: team() };
    let all = vec![labelled("p1", "prune"), labelled("p2", "prune"), labelled("p3", "other")];
    store.apply(all, note(), false).await.unwrap();
    let names = async || {
        let loaded = store.load().await.unwrap();
        loaded
            .policies
            .iter()
            .map(|stored| stored.policy.name.to_string())
            .filter(|name| name.starts_with('p'))
            .collect::<Vec<_>>()
    };
    let tried = store.apply(vec![labelled("p1", "prune"), prune()], note(), true).await.unwrap();
    assert_eq!(
        tried.results.iter().map(|result| result.action).collect::<Vec<_>>(),
        [Action::Unchanged, Action::Deleted]
    );
    assert_eq!(names().await, ["p1", "p2", "p3"]);
    // A policy that takes over the calls of one that goes is no tie.
    let heir = put(policy("p4", "p2", "1s"), Expect::Absent);
    let done = store.apply(vec![labelled("p1", "prune"), heir, prune()], note(), false).await.unwrap();
    assert_eq!(done.results[2].before.as_ref().unwrap().policy.name.as_str(), "p2");
    assert_eq!(names().await, ["p1", "p3", "p4"]);
    let name = PolicyName::try_new("p2").unwrap();
    let history = store.revisions(Namespace::default_namespace(), name, None, 1).await.unwrap();
    assert_eq!(history[0].action, RevisionAction::Delete);
}
