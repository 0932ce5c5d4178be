//! What every store must do, run against each of them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fusebox_policy::{
    CallerName, InstanceId, Namespace, Policy, PolicyName, Revision, StrategyName, TargetName, Zone,
    fleet::{BreakerKey, gate::Forced, key::KeyPattern, term::RunId},
};
use fusebox_proto::{manifest, v1};

use super::{
    Action, Applied, Change, DECISIONS_OF_BREAKER, DecisionId, Ending, Expect, NewOverride, NewRollout, NewToken, Note,
    Once, REQUESTS_KEPT, RequestKey, RevisionAction, Revoked, RolloutFilter, Store, StoreError, StoredDecision,
    StoredOverride, StoredRollout, StoredToken, StoredTransition, TransitionFilter,
    audit::{AuditFilter, AuditOrder, AuditRecord, Walk},
    memory::MemoryStore,
    sqlite::SqliteStore,
};
use crate::{
    access::{Role, secret::Secret},
    caller::Caller,
    rollouts::{
        machine::{Refused, State, Step},
        spec::{GateSpec, RolloutSpec, Selector, Stage},
    },
};

fn policy(name: &str, target: &str, duration: &str) -> Policy {
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n  match: {{ target: {target} }}\n  \
         pipeline: [{{ timeout: {duration} }}]\n"
    );
    manifest::parse("test", &text).unwrap().remove(0).policy
}

fn put(policy: Policy, expect: Expect) -> Change {
    Change::Put { policy: Box::new(policy), expect, rollback: false }
}

fn delete(name: &str, etag: Option<String>) -> Change {
    let namespace = Namespace::default_namespace();
    Change::Delete { namespace, name: PolicyName::try_new(name).unwrap(), etag, allow_missing: false }
}

fn note() -> Note {
    Note { caller: Caller::unauthenticated("tester"), message: "why".to_owned(), at: moment(1) }
}

/// Whole microseconds, as stores keep them.
fn moment(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

async fn revisions_grow_and_unchanged_definitions_write_none(store: &dyn Store) {
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

async fn expectations_are_checked_in_the_same_step(store: &dyn Store) {
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

async fn several_changes_are_made_all_or_none(store: &dyn Store) {
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

async fn two_policies_for_the_same_calls_are_refused(store: &dyn Store) {
    let result = store.apply(vec![put(policy("rival", "ta", "1s"), Expect::Absent)], note(), false).await;
    let Err(StoreError::Contradiction(0, invalid)) = result else { panic!("a tie must be refused") };
    assert_eq!(invalid.violations()[0].field, "spec.match");
}

async fn history_outlives_deletion(store: &dyn Store) {
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

async fn an_older_copy_takes_no_change_until_it_is_adopted(store: &dyn Store) {
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

async fn terms_only_grow(store: &dyn Store) {
    let first = store.next_term(0).await.unwrap();
    let second = store.next_term(0).await.unwrap();
    let raised = store.next_term(second + 100).await.unwrap();
    assert!(first < second);
    assert_eq!(raised, second + 100);
    assert!(store.next_term(0).await.unwrap() > raised);
}

async fn overrides_stay_until_they_are_ended(store: &dyn Store) {
    let pattern = KeyPattern {
        namespace: None,
        caller: None,
        policy: None,
        strategy: None,
        target: TargetName::try_new("tb").unwrap(),
        zone: None,
    };
    let new = NewOverride {
        pattern,
        state: Forced::Open,
        reason: "drill".to_owned(),
        caller: Caller::unauthenticated("tester"),
        created: moment(0),
        expires: moment(60),
    };
    let first = store.put_override(new.clone()).await.unwrap();
    let second = store.put_override(NewOverride { state: Forced::Closed, ..new }).await.unwrap();
    assert!(first.id < second.id);
    assert_eq!(store.overrides().await.unwrap(), [first.clone(), second.clone()]);
    store.end_overrides(vec![first.id, 999], Ending::Released, note()).await.unwrap();
    assert_eq!(store.overrides().await.unwrap(), [second]);
}

async fn transitions_are_read_newest_first_and_filtered(store: &dyn Store) {
    let transition = |caller: &str, instance: Option<&str>| StoredTransition {
        id: 0,
        key: BreakerKey {
            namespace: Namespace::default_namespace(),
            caller: CallerName::try_new(caller).unwrap(),
            policy: PolicyName::try_new("b").unwrap(),
            strategy: StrategyName::try_new("circuit-breaker").unwrap(),
            target: TargetName::try_new("tb").unwrap(),
            zone: None,
        },
        instance: instance.map(|instance| InstanceId::try_new(instance).unwrap()),
        from: "closed".to_owned(),
        to: "open".to_owned(),
        cause: "consecutive_failures".to_owned(),
        detail: "5 of 5".to_owned(),
        at: moment(3),
        window_calls: 5,
        window_failures: 5,
    };
    let ids = store
        .append_transitions(vec![transition("x", Some("x-1")), transition("y", None), transition("x", Some("x-2"))])
        .await
        .unwrap();
    assert!(ids.is_sorted_by(|left, right| left < right));
    let read = |filter: TransitionFilter| async move { store.transitions(filter).await.unwrap() };
    let all = read(TransitionFilter { limit: 10, ..TransitionFilter::default() }).await;
    assert_eq!(all.iter().map(|stored| stored.id).rev().collect::<Vec<_>>(), ids);
    assert_eq!(all[2], StoredTransition { id: ids[0], ..transition("x", Some("x-1")) });
    let own = TransitionFilter {
        caller: Some("x".to_owned()),
        before: Some(ids[2]),
        limit: 10,
        ..TransitionFilter::default()
    };
    assert_eq!(read(own).await.len(), 1);
    let other = TransitionFilter { target: Some("else".to_owned()), limit: 10, ..TransitionFilter::default() };
    assert!(read(other).await.is_empty());
    let later = read(TransitionFilter { after: Some(ids[0]), limit: 10, ..TransitionFilter::default() }).await;
    assert_eq!(later.iter().map(|stored| stored.id).collect::<Vec<_>>(), [ids[2], ids[1]]);
}

async fn old_transitions_are_forgotten_and_their_numbers_not_given_again(store: &dyn Store) {
    let (oldest, newest) = store.transitions_kept().await.unwrap().unwrap();
    assert_eq!(store.forget_transitions(moment(3), 100).await.unwrap(), 0, "none is older");
    assert_eq!(store.forget_transitions(moment(4), 1).await.unwrap(), 1);
    assert_eq!(store.transitions_kept().await.unwrap(), Some((oldest + 1, newest)));
    store.forget_transitions(moment(4), 100).await.unwrap();
    assert_eq!(store.transitions_kept().await.unwrap(), Some((newest, newest)), "the newest stays");
    let last = store.transitions(TransitionFilter { limit: 1, ..TransitionFilter::default() }).await.unwrap().remove(0);
    let ids = store.append_transitions(vec![last]).await.unwrap();
    assert_eq!(ids, [newest + 1]);
}

async fn a_prune_takes_out_what_is_not_defined_with_its_labels(store: &dyn Store) {
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

fn token(name: &str, role: Role) -> NewToken {
    let secret = Secret::generate().unwrap();
    NewToken { id: secret.id().to_owned(), name: name.to_owned(), digest: secret.digest(), role, expires: moment(60) }
}

async fn a_token_is_kept_as_it_was_made_until_it_is_revoked(store: &dyn Store) {
    let agent =
        Role::Agent { namespace: Namespace::default_namespace(), service: CallerName::try_new("service-a").unwrap() };
    let new = token("first", agent);
    let made = store.put_token(new.clone(), note()).await.unwrap();
    let NewToken { id, name, digest, role, expires } = new;
    let wanted = StoredToken {
        id,
        name,
        digest,
        role,
        expires,
        creator: "tester".to_owned(),
        created: moment(1),
        revoked: None,
    };
    assert_eq!(made, wanted);
    let second = store.put_token(token("second", Role::Viewer), note()).await.unwrap();
    assert_eq!(store.tokens().await.unwrap(), [second, made.clone()]);

    let ended = store.revoke_token(made.id.clone(), note()).await.unwrap().unwrap();
    let revoked = Some(Revoked { at: moment(1), by: "tester".to_owned(), reason: "why".to_owned() });
    assert_eq!(ended, StoredToken { revoked, ..made });
    let later = Note { message: "again".to_owned(), ..note() };
    assert_eq!(store.revoke_token(ended.id.clone(), later).await.unwrap().unwrap(), ended, "an end is an end");
    assert_eq!(store.tokens().await.unwrap().pop().unwrap(), ended);
    let of_it = AuditFilter { object: Some(format!("tokens/{}", ended.id)), ..AuditFilter::default() };
    let told: Vec<_> = read(store, of_it).await.into_iter().map(|record| (record.action, record.after)).collect();
    assert_eq!(told.iter().map(|(action, _)| action.as_str()).collect::<Vec<_>>(), ["token.revoke", "token.create"]);
    let said = told[1].1.as_ref().unwrap();
    assert!(said.contains("first") && said.contains("service-a") && !said.contains("digest"), "{said}");
    assert!(store.revoke_token("nobody".to_owned(), note()).await.unwrap().is_none());
}

async fn a_name_is_one_token_in_force_at_a_time(store: &dyn Store) {
    let at = |seconds| Note { at: moment(seconds), ..note() };
    let made = store.put_token(token("again", Role::Admin), at(1)).await.unwrap();
    let records =
        || async { read(store, AuditFilter { action: Some("token".to_owned()), ..AuditFilter::default() }).await };
    let before = records().await.len();
    let refused = store.put_token(token("again", Role::Admin), at(59)).await;
    assert!(matches!(refused, Err(StoreError::TokenExists(name)) if name == "again"));
    assert_eq!(records().await.len(), before, "what was not done is not told");
    store.put_token(token("again", Role::Admin), at(60)).await.expect("the first has expired");
    let expired = store.revoke_token(made.id, at(61)).await.unwrap().unwrap();
    assert_eq!(expired.revoked, None, "it had ended by itself");
    assert_eq!(records().await.len(), before + 1);
}

fn request(id: &str, digest: u8, seconds: u64) -> RequestKey {
    RequestKey { id: id.to_owned(), sha256: vec![digest; 32], at: moment(seconds) }
}

async fn a_request_that_comes_again_writes_nothing_and_is_answered_as_before(store: &dyn Store) {
    let once = |key: RequestKey| Some(Once::new(key, |applied: &Applied| applied.revision.to_string().into_bytes()));
    let change = |duration: &str| vec![put(policy("once", "once", duration), Expect::Any(None))];
    let key = request("r1", 1, 0);
    assert_eq!(store.answered(key.clone()).await.unwrap(), None);
    store.apply_once(change("1s"), note(), true, once(key.clone())).await.unwrap();
    assert_eq!(store.answered(key.clone()).await.unwrap(), None, "what only looks is not kept");

    let first = store.apply_once(change("1s"), note(), false, once(key.clone())).await.unwrap().revision;
    store.apply(change("2s"), note(), false).await.unwrap();
    let again = store.apply_once(change("1s"), note(), false, once(key.clone())).await;
    let Err(StoreError::Repeated(answer)) = again else { panic!("{again:?}") };
    assert_eq!(answer, first.to_string().into_bytes());
    assert_eq!(store.answered(key.clone()).await.unwrap(), Some(answer));
    assert_eq!(store.load().await.unwrap().revision, Revision(first.0 + 1), "it was written once");

    let other = RequestKey { sha256: vec![2; 32], ..key.clone() };
    let reused = store.apply_once(change("3s"), note(), false, once(other.clone())).await;
    assert!(matches!(reused, Err(StoreError::RequestIdReused(id)) if id == "r1"));
    assert!(matches!(store.answered(other).await, Err(StoreError::RequestIdReused(_))));

    // A write that fails keeps nothing: it may be tried again under its id.
    let failed = vec![put(policy("once", "once", "3s"), Expect::Absent)];
    assert!(store.apply_once(failed, note(), false, once(request("r2", 1, 0))).await.is_err());
    assert!(store.apply_once(change("4s"), note(), false, once(request("r2", 3, 0))).await.is_ok());

    let a_day_later = RequestKey { at: key.at + REQUESTS_KEPT, ..key.clone() };
    assert_eq!(store.answered(a_day_later.clone()).await.unwrap(), None);
    assert!(store.apply_once(change("5s"), note(), false, once(a_day_later)).await.is_ok());
    // The others were removed with that: one that is asked for with its own time is not there any more.
    assert_eq!(store.answered(request("r2", 3, 0)).await.unwrap(), None);
}

async fn a_repeated_override_is_set_and_ended_once(store: &dyn Store) {
    let pattern = KeyPattern {
        namespace: None,
        caller: None,
        policy: None,
        strategy: None,
        target: TargetName::try_new("once").unwrap(),
        zone: None,
    };
    let new = NewOverride {
        pattern,
        state: Forced::Open,
        reason: "drill".to_owned(),
        caller: Caller::unauthenticated("tester"),
        created: moment(0),
        expires: moment(60),
    };
    let before = store.overrides().await.unwrap().len();
    let set = |id: &str| Once::new(request(id, 1, 0), |stored: &StoredOverride| stored.id.to_string().into_bytes());
    let stored = store.put_override_once(new.clone(), Some(set("o1"))).await.unwrap();
    let again = store.put_override_once(new, Some(set("o1"))).await;
    assert!(matches!(again, Err(StoreError::Repeated(id)) if id == stored.id.to_string().into_bytes()));
    assert_eq!(store.overrides().await.unwrap().len(), before + 1);
    let end = || Some(Once::new(request("o2", 1, 0), |()| b"ended".to_vec()));
    store.end_overrides_once(vec![stored.id], Ending::Released, note(), end()).await.unwrap();
    let again = store.end_overrides_once(vec![stored.id], Ending::Released, note(), end()).await;
    assert!(matches!(again, Err(StoreError::Repeated(answer)) if answer == b"ended"));
}

async fn read(store: &dyn Store, filter: AuditFilter) -> Vec<AuditRecord> {
    store.audit(AuditFilter { limit: 1000, ..filter }).await.unwrap().records
}

async fn every_change_is_recorded_as_it_was_made(store: &dyn Store) {
    let audit = |filter: AuditFilter| read(store, filter);
    let object = "namespaces/default/policies/audited";
    let of = |object: &str| AuditFilter {
        object: Some(object.to_owned()),
        order: AuditOrder::OldestFirst(0),
        ..AuditFilter::default()
    };
    let from =
        Caller { address: "10.0.0.7:5123".to_owned(), request_id: "r-1".to_owned(), ..Caller::unauthenticated("ada") };
    let note = |message: &str| Note { caller: from.clone(), message: message.to_owned(), at: moment(9) };
    let definition = |duration: &str| policy("audited", "audited", duration);
    store.apply(vec![put(definition("1s"), Expect::Any(None))], note("new"), true).await.unwrap();
    assert!(audit(of(object)).await.is_empty(), "a dry run is no change");
    let made = store.apply(vec![put(definition("1s"), Expect::Any(None))], note("new"), false).await.unwrap();
    store.apply(vec![put(definition("1s"), Expect::Any(None))], note("again"), false).await.unwrap();
    store.apply(vec![put(definition("2s"), Expect::Any(None))], note("longer"), false).await.unwrap();
    let older = Change::Put { policy: Box::new(definition("1s")), expect: Expect::Any(None), rollback: true };
    store.apply(vec![older], note("back"), false).await.unwrap();
    assert!(store.apply(vec![put(definition("9s"), Expect::Absent)], note("never"), false).await.is_err());
    store.apply(vec![delete("audited", None)], note("gone"), false).await.unwrap();
    let found = audit(of(object)).await;
    let told: Vec<_> = found.iter().map(|record| (record.action.as_str(), record.reason.as_str())).collect();
    let wanted =
        [("policy.create", "new"), ("policy.update", "longer"), ("policy.rollback", "back"), ("policy.delete", "gone")];
    assert_eq!(told, wanted);
    let text = |duration: &str| Some(manifest::to_json(&definition(duration)).to_string());
    let states: Vec<_> = found.iter().map(|record| (record.before.clone(), record.after.clone())).collect();
    assert_eq!(states, [(None, text("1s")), (text("1s"), text("2s")), (text("2s"), text("1s")), (text("1s"), None)]);
    let AuditRecord { actor, authentication, address, request_id, at, revision, .. } = &found[0];
    assert_eq!(
        (actor.as_str(), authentication.as_str(), address.as_str(), request_id.as_str(), *at, *revision),
        ("ada", "none", "10.0.0.7:5123", "r-1", moment(9), made.revision)
    );
    assert_eq!(audit(of("namespaces/default/policies/audit")).await, [], "a part of a name is another name");
    assert_eq!(audit(of("namespaces/default")).await.last(), found.last());
    let of_actor = AuditFilter { actor: Some("ada".to_owned()), ..of("namespaces") };
    assert_eq!(audit(of_actor).await, found);
    let of_noun = AuditFilter { action: Some("policy".to_owned()), ..of(object) };
    assert_eq!(audit(of_noun).await, found);
    let of_verb = AuditFilter { action: Some("policy.rollback".to_owned()), ..of(object) };
    assert_eq!(audit(of_verb).await, found[2..3]);
    let before = AuditFilter { until: Some(moment(9)), ..of(object) };
    let since = AuditFilter { from: Some(moment(9)), until: Some(moment(10)), ..of(object) };
    assert_eq!((audit(before).await, audit(since).await), (Vec::new(), found.clone()));
    let mut newest = audit(AuditFilter { order: AuditOrder::NewestFirst(None), ..of(object) }).await;
    newest.reverse();
    assert_eq!(newest, found);
    let page = store.audit(AuditFilter { limit: 2, ..of(object) }).await.unwrap();
    assert_eq!((page.records.as_slice(), page.more), (&found[..2], true));
    let next = AuditFilter { order: AuditOrder::OldestFirst(found[1].id), limit: 2, ..of(object) };
    let page = store.audit(next).await.unwrap();
    assert_eq!((page.records.as_slice(), page.more), (&found[2..], false));
}

/// Runs last: the whole of what the others did.
async fn the_audit_log_tells_of_everything_and_is_whole_without_its_oldest(store: &dyn Store) {
    let whole = || AuditFilter { order: AuditOrder::OldestFirst(0), ..AuditFilter::default() };
    let all = read(store, whole()).await;
    let is_told = |action: &str| all.iter().any(|record| record.action == action);
    for action in ["store.regress", "store.adopt", "term.raise", "override.set", "override.release", "fleet.verdict"] {
        assert!(is_told(action), "no {action} in {all:#?}");
    }
    let verdicts: Vec<_> = all.iter().filter(|record| record.action == "fleet.verdict").collect();
    let [verdict] = verdicts.as_slice() else {
        panic!("replicas' own breakers decide nothing for others: {verdicts:?}")
    };
    assert_eq!((verdict.actor.as_str(), verdict.authentication.as_str()), ("fleet", "server"));
    assert_eq!(verdict.object, "breakers/default/y/b/circuit-breaker/tb/-");
    let check = |records: &[AuditRecord], chain: &super::audit::AuditChain| {
        let mut walk = Walk::from(chain.dropped);
        records.iter().try_for_each(|record| walk.step(record))?;
        walk.end(chain.last)
    };
    let chain = store.audit(AuditFilter { limit: 1, ..whole() }).await.unwrap().chain;
    assert_eq!(check(&all, &chain), Ok(()));

    // What is older than the ninth second goes, up to the first that is not: what is out of order stays with it.
    let first_kept = all.iter().position(|record| record.at >= moment(9)).unwrap();
    assert!(first_kept > 1, "nothing to drop");
    assert_eq!(store.truncate_audit(moment(9), 1, note()).await.unwrap(), 1, "no more than asked for");
    let rest = first_kept as u64 - 1;
    assert_eq!(store.truncate_audit(moment(9), u32::MAX, note()).await.unwrap(), rest);
    assert_eq!(store.truncate_audit(moment(9), u32::MAX, note()).await.unwrap(), 0, "and then nothing is said of it");
    let kept = read(store, whole()).await;
    let chain = store.audit(AuditFilter { limit: 1, ..whole() }).await.unwrap().chain;
    assert_eq!(check(&kept, &chain), Ok(()));
    assert_eq!(chain.dropped.hash, all[first_kept - 1].hash);
    let added: Vec<_> = kept.iter().skip(all.len() - first_kept).map(|record| record.action.as_str()).collect();
    assert_eq!(added, ["audit.truncate", "audit.truncate"]);
    assert!(kept.last().unwrap().after.as_ref().unwrap().contains(&chain.dropped.hash.to_string()));
}

fn rollout(policy: Policy, percents: &[u32]) -> NewRollout {
    let stage = |percent: &u32| Stage { selector: Selector::Percent(*percent), bake: Duration::from_secs(60) };
    let spec = RolloutSpec {
        stages: percents.iter().map(stage).collect(),
        gates: GateSpec { margin_points: 5, min_calls: 50 },
        auto: true,
        abort_on_failure: false,
    };
    NewRollout { policy: Box::new(policy), etag: None, spec }
}

async fn start(store: &dyn Store, new: NewRollout) -> Result<StoredRollout, StoreError> {
    Ok(store.start_rollout(new, note(), false, None).await?.rollout)
}

async fn step(store: &dyn Store, rollout: &StoredRollout, step: Step) -> Result<StoredRollout, StoreError> {
    let id = (rollout.namespace.clone(), rollout.policy.clone(), rollout.candidate);
    let note = Note { message: "step".to_owned(), ..note() };
    Ok(store.step_rollout(id, step, note, None).await?.rollout)
}

fn promote(from: usize) -> Step {
    Step::Promote { from, force: false }
}

async fn a_rollout_brings_its_candidate_into_force_at_its_end(store: &dyn Store) {
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

async fn an_aborted_rollout_leaves_what_is_in_force_as_it_was(store: &dyn Store) {
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

async fn all(store: Arc<dyn Store>) {
    let store = store.as_ref();
    revisions_grow_and_unchanged_definitions_write_none(store).await;
    expectations_are_checked_in_the_same_step(store).await;
    several_changes_are_made_all_or_none(store).await;
    two_policies_for_the_same_calls_are_refused(store).await;
    history_outlives_deletion(store).await;
    an_older_copy_takes_no_change_until_it_is_adopted(store).await;
    a_rollout_brings_its_candidate_into_force_at_its_end(store).await;
    an_aborted_rollout_leaves_what_is_in_force_as_it_was(store).await;
    terms_only_grow(store).await;
    overrides_stay_until_they_are_ended(store).await;
    transitions_are_read_newest_first_and_filtered(store).await;
    decisions_are_kept_by_breaker_and_the_newest_stay(store).await;
    old_transitions_are_forgotten_and_their_numbers_not_given_again(store).await;
    a_prune_takes_out_what_is_not_defined_with_its_labels(store).await;
    a_request_that_comes_again_writes_nothing_and_is_answered_as_before(store).await;
    a_repeated_override_is_set_and_ended_once(store).await;
    every_change_is_recorded_as_it_was_made(store).await;
    a_token_is_kept_as_it_was_made_until_it_is_revoked(store).await;
    a_name_is_one_token_in_force_at_a_time(store).await;
    the_audit_log_tells_of_everything_and_is_whole_without_its_oldest(store).await;
}

async fn decisions_are_kept_by_breaker_and_the_newest_stay(store: &dyn Store) {
    let key = |target: &str, zone: Option<&str>| BreakerKey {
        namespace: Namespace::default_namespace(),
        caller: CallerName::try_new("x").unwrap(),
        policy: PolicyName::try_new("b").unwrap(),
        strategy: StrategyName::try_new("circuit-breaker").unwrap(),
        target: TargetName::try_new(target).unwrap(),
        zone: zone.map(|zone| Zone::try_new(zone).unwrap()),
    };
    let decided = |run: u64, number: u64, target: &str, zone: Option<&str>| StoredDecision {
        id: DecisionId { run: RunId::new(run).unwrap(), number },
        key: key(target, zone),
        since: moment(number),
        until: moment(number),
        decision: v1::BreakerDecision {
            times: 1,
            cause: "quorum".to_owned(),
            term: 1,
            rev: number,
            ..Default::default()
        },
    };
    let (a, b) = (u64::MAX, 1);
    let own = [decided(a, 1, "tb", None), decided(a, 3, "tb", None)];
    let zoned = [decided(a, 2, "tb", Some("z1"))];
    store.put_decisions(vec![own[0].clone(), zoned[0].clone(), own[1].clone()]).await.unwrap();
    assert_eq!(store.decisions(key("tb", None)).await.unwrap(), own);
    assert_eq!(store.decisions(key("tb", Some("z1"))).await.unwrap(), zoned);
    assert!(store.decisions(key("tb", Some("z2"))).await.unwrap().is_empty());
    assert_eq!(store.decided_breakers().await.unwrap(), [key("tb", None), key("tb", Some("z1"))]);

    // The same one again, from another run one with the same number.
    let later = StoredDecision { until: moment(60), ..own[0].clone() };
    let other = decided(b, 1, "tb", None);
    store.put_decisions(vec![later.clone(), other.clone()]).await.unwrap();
    assert_eq!(store.decisions(key("tb", None)).await.unwrap(), [later, own[1].clone(), other]);

    let most = DECISIONS_OF_BREAKER as u64;
    store.put_decisions((2..most + 10).map(|number| decided(b, number, "tb", None)).collect()).await.unwrap();
    let kept: Vec<u64> = store.decisions(key("tb", None)).await.unwrap().iter().map(|own| own.id.number).collect();
    assert_eq!(kept, (10..most + 10).collect::<Vec<_>>());
    assert_eq!(store.decisions(key("tb", Some("z1"))).await.unwrap(), zoned, "each breaker for itself");
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    all(Arc::new(MemoryStore::new("memory"))).await;
}

#[tokio::test]
async fn the_sqlite_store_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    all(Arc::new(SqliteStore::open(folder.path()).await.unwrap())).await;
}

#[tokio::test]
async fn everything_is_there_after_the_database_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (id, term, before) = {
        let store = SqliteStore::open(folder.path()).await.unwrap();
        store.apply(vec![put(policy("a", "ta", "1s"), Expect::Absent)], note(), false).await.unwrap();
        start(&store, rollout(policy("a", "ta", "2s"), &[10])).await.unwrap();
        (store.store_id().to_owned(), store.next_term(7).await.unwrap(), store.load().await.unwrap())
    };
    let store = SqliteStore::open(folder.path()).await.unwrap();
    assert_eq!(store.store_id(), id);
    let after = store.load().await.unwrap();
    assert_eq!((after.policies, after.rollouts), (before.policies, before.rollouts));
    assert!(store.next_term(0).await.unwrap() > term);
}

#[tokio::test]
async fn a_folder_serves_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = SqliteStore::open(folder.path()).await.unwrap();
    assert!(matches!(SqliteStore::open(folder.path()).await, Err(StoreError::InUse(_))));
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_when_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = SqliteStore::open(folder.path()).await.unwrap();
        store.apply(vec![put(policy("a", "ta", "1s"), Expect::Absent)], note(), false).await.unwrap();
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("fusebox.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("UPDATE policies SET definition = zeroblob(length(definition))").execute(&pool).await.unwrap();
    pool.close().await;
    assert!(matches!(SqliteStore::open(folder.path()).await, Err(StoreError::Corrupt { table: "policies", .. })));
}
