//! What every store must do, run against each of them.

mod audit;
mod breakers;
mod policies;
mod quota;
mod requests;
mod rollouts;
mod tokens;

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
    Action, Applied, Change, DECISIONS_OF_BREAKER, DecisionId, Ending, Expect, Measure, NewOverride, NewRollout,
    NewToken, Note, Once, Quota, REQUESTS_KEPT, RequestKey, RevisionAction, Revoked, RolloutFilter, Store, StoreError,
    StoredDecision, StoredOverride, StoredRollout, StoredToken, StoredTransition, TransitionFilter,
    audit::{AuditFilter, AuditOrder, AuditRecord, Walk},
    memory::MemoryStore,
    sqlite::SqliteStore,
};
use crate::{
    access::{Role, Scope, secret::Secret},
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

/// An override of a minute on all breakers of a target.
fn forced(target: &str) -> NewOverride {
    let pattern = KeyPattern {
        namespace: None,
        caller: None,
        policy: None,
        strategy: None,
        target: TargetName::try_new(target).unwrap(),
        zone: None,
    };
    NewOverride {
        pattern,
        state: Forced::Open,
        reason: "drill".to_owned(),
        caller: Caller::unauthenticated("tester"),
        created: moment(0),
        expires: moment(60),
        replaces: Vec::new(),
    }
}

/// Whole microseconds, as stores keep them.
fn moment(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

async fn all(store: Arc<dyn Store>) {
    let store = store.as_ref();
    policies::revisions_grow_and_unchanged_definitions_write_none(store).await;
    policies::expectations_are_checked_in_the_same_step(store).await;
    policies::several_changes_are_made_all_or_none(store).await;
    policies::two_policies_for_the_same_calls_are_refused(store).await;
    policies::history_outlives_deletion(store).await;
    policies::an_older_copy_takes_no_change_until_it_is_adopted(store).await;
    rollouts::a_rollout_brings_its_candidate_into_force_at_its_end(store).await;
    rollouts::an_aborted_rollout_leaves_what_is_in_force_as_it_was(store).await;
    policies::terms_only_grow(store).await;
    breakers::overrides_stay_until_they_are_ended(store).await;
    breakers::transitions_are_read_newest_first_and_filtered(store).await;
    breakers::decisions_are_kept_by_breaker_and_the_newest_stay(store).await;
    breakers::old_transitions_are_forgotten_and_their_numbers_not_given_again(store).await;
    policies::a_prune_takes_out_what_is_not_defined_with_its_labels(store).await;
    requests::a_request_that_comes_again_writes_nothing_and_is_answered_as_before(store).await;
    requests::a_repeated_override_is_set_and_ended_once(store).await;
    breakers::an_override_takes_the_place_of_others_in_one_step(store).await;
    audit::every_change_is_recorded_as_it_was_made(store).await;
    tokens::a_token_is_kept_as_it_was_made_until_it_is_revoked(store).await;
    tokens::a_name_is_one_token_in_force_at_a_time(store).await;
    audit::records_of_a_namespace_are_those_of_its_things_and_no_others(store).await;
    audit::the_audit_log_tells_of_everything_and_is_whole_without_its_oldest(store).await;
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
async fn every_store_holds_its_namespaces_to_what_they_may_hold() {
    let memory = async |quota| MemoryStore::new("memory").with_quota(quota);
    quota::a_namespace_takes_what_it_may_hold_and_nothing_more(memory).await;
    quota::bytes_are_counted_to_the_last_one(memory).await;
    // Kept until the stores in them are gone.
    let folders = std::cell::RefCell::new(Vec::new());
    let sqlite = async |quota| {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).await.unwrap().with_quota(quota);
        folders.borrow_mut().push(folder);
        store
    };
    quota::a_namespace_takes_what_it_may_hold_and_nothing_more(sqlite).await;
    quota::bytes_are_counted_to_the_last_one(sqlite).await;
}

#[tokio::test]
async fn a_namespace_that_holds_too_much_may_become_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let one = std::num::NonZeroUsize::MIN;
    {
        let store = SqliteStore::open(folder.path()).await.unwrap();
        let changes = ["a", "b", "c"].map(|name| put(policy(name, &format!("t{name}"), "10s"), Expect::Absent));
        store.apply(changes.to_vec(), note(), false).await.unwrap();
    }
    // The limit is lowered.
    let store = SqliteStore::open(folder.path()).await.unwrap().with_quota(Quota { policies: one, bytes: one });
    let apply = async |change| store.apply(vec![change], note(), false).await;
    apply(put(policy("a", "ta", "1s"), Expect::Any(None))).await.expect("it is shorter by a byte");
    assert!(matches!(
        apply(put(policy("a", "ta", "100ms"), Expect::Any(None))).await,
        Err(StoreError::NamespaceFull { .. })
    ));
    assert!(matches!(
        apply(put(policy("d", "td", "1s"), Expect::Any(None))).await,
        Err(StoreError::NamespaceFull { .. })
    ));
    apply(delete("b", None)).await.unwrap();
}

#[tokio::test]
async fn everything_is_there_after_the_database_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let (id, term, before) = {
        let store = SqliteStore::open(folder.path()).await.unwrap();
        store.apply(vec![put(policy("a", "ta", "1s"), Expect::Absent)], note(), false).await.unwrap();
        rollouts::start(&store, rollouts::rollout(policy("a", "ta", "2s"), &[10])).await.unwrap();
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
