//! What only a database on a disk can do wrong.

mod damage;
mod migrations;

use fusebox_policy::{
    Policy, PolicyName, TargetName,
    fleet::{gate::Forced, key::KeyPattern},
};
use fusebox_proto::manifest;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::*;
use crate::{
    caller::Caller,
    store::{
        Action, Expect,
        audit::{AuditOrder, Broken, Walk},
    },
};

fn policy(name: &str, payload: usize) -> Policy {
    let body = "x".repeat(payload);
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n  match: {{ target: {name} }}\n  \
         pipeline: [{{ fallback: {{ response: {{ status: 200, body: \"{body}\" }} }} }}, {{ timeout: 1s }}]\n"
    );
    manifest::parse("test", &text).unwrap().remove(0).policy
}

fn put(name: &str, payload: usize) -> Vec<Change> {
    vec![Change::Put { policy: Box::new(policy(name, payload)), expect: Expect::Any(None), rollback: false }]
}

fn note() -> Note {
    Note { caller: Caller::unauthenticated("tester"), message: String::new(), at: SystemTime::UNIX_EPOCH }
}

async fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path()).await.unwrap()
}

/// A hand that does not go through the store.
async fn outside(folder: &TempDir, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(folder.path().join("fusebox.db"));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(statement).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test]
async fn every_acknowledged_write_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.writer).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.writer).await.unwrap();
    assert_eq!((journal.as_str(), synchronous), ("wal", 2));
}

#[tokio::test]
async fn readers_can_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    assert!(sqlx::query("UPDATE server SET term = 99").execute(&store.reader).await.is_err());
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.apply(put("kept", 1), note(), false).await.unwrap();
    // SQLite's own limit; a database at its limit answers as one whose disk has no room.
    sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let refused = store.apply(put("large", 50_000), note(), false).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.policies.len()), (Revision(1), 1), "what is in force can be read");
    let name = PolicyName::try_new("kept").unwrap();
    assert_eq!(store.revisions(Namespace::default_namespace(), name, None, 9).await.unwrap().len(), 1);
    sqlx::query("PRAGMA max_page_count = 1000000").execute(&store.writer).await.unwrap();
    assert_eq!(store.apply(put("large", 50_000), note(), false).await.unwrap().revision, Revision(2));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder).await);
    outside(
        &folder,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'of the future', TRUE, x'00', 0)",
    )
    .await;
    assert!(matches!(SqliteStore::open(folder.path()).await, Err(StoreError::NewerSchema)));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fusebox.db"), "not a database".repeat(1000)).unwrap();
    let refused = SqliteStore::open(folder.path()).await;
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_stored_counts_whatever_the_process_believes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.apply(put("a", 1), note(), false).await.unwrap();
    store.apply(put("b", 1), note(), false).await.unwrap();
    // As after a commit that was reported as failed.
    store.state.lock().await.revision = Revision(1);
    store.state.lock().await.policies.clear();
    assert_eq!(store.load().await.unwrap().policies.len(), 2);
    store.state.lock().await.revision = Revision(1);
    store.state.lock().await.policies.clear();
    let again = store.apply(put("a", 1), note(), false).await.unwrap();
    assert_eq!((again.revision, again.results[0].action), (Revision(2), Action::Unchanged));
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_cut_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    for round in 1..=30 {
        let mut change = store.apply(put("a", round), note(), false);
        // One poll begins it, then nobody waits for it any more.
        let _ = futures_util::poll!(&mut change);
        drop(change);
    }
    let loaded = store.load().await.unwrap();
    let name = PolicyName::try_new("a").unwrap();
    let revisions = store.revisions(Namespace::default_namespace(), name, None, 100).await.unwrap();
    assert_eq!(revisions.len() as u64, loaded.revision.0, "each change is there as a whole or not at all");
    assert_eq!(revisions.first().map(|newest| &newest.policy), loaded.policies.first().map(|own| &own.policy));
}

#[tokio::test]
async fn a_term_that_can_not_be_counted_on_from_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    assert!(matches!(store.next_term(u64::MAX).await, Err(StoreError::TermTooHigh(u64::MAX))));
    assert_eq!(store.next_term(0).await.unwrap(), 1);
}

#[tokio::test]
async fn an_override_is_not_set_if_the_one_that_it_replaces_can_not_be_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let of_all = |replaces: Vec<u64>| NewOverride {
        pattern: KeyPattern {
            namespace: None,
            caller: None,
            policy: None,
            strategy: None,
            target: TargetName::try_new("b").unwrap(),
            zone: None,
        },
        state: Forced::Open,
        reason: "drill".to_owned(),
        caller: Caller::unauthenticated("tester"),
        created: SystemTime::UNIX_EPOCH,
        expires: SystemTime::UNIX_EPOCH,
        replaces,
    };
    let first = store.put_override(of_all(Vec::new())).await.unwrap();
    outside(
        &folder,
        "CREATE TRIGGER refuse BEFORE UPDATE ON overrides BEGIN SELECT RAISE(ABORT, 'this one stays'); END",
    )
    .await;
    assert!(store.put_override(of_all(vec![first.id])).await.is_err());
    assert_eq!(store.overrides().await.unwrap(), [first], "it can be asked for again");
}

async fn walk(store: &SqliteStore) -> Result<(), Broken> {
    let filter = AuditFilter { order: AuditOrder::OldestFirst(0), limit: 1000, ..AuditFilter::default() };
    let page = store.audit(filter).await.unwrap();
    let mut walk = Walk::from(page.chain.dropped);
    page.records.iter().try_for_each(|record| walk.step(record))?;
    walk.end(page.chain.last)
}

#[tokio::test]
async fn a_hand_that_changes_the_audit_log_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    for round in 1..=5 {
        store.apply(put("a", round), note(), false).await.unwrap();
    }
    assert_eq!(walk(&store).await, Ok(()));
    for (tamper, undo, found) in [
        (
            "UPDATE audit SET actor = 'x' WHERE id = 3",
            "UPDATE audit SET actor = 'tester' WHERE id = 3",
            Broken::Changed(3),
        ),
        (
            "UPDATE audit SET id = 9 WHERE id = 2",
            "UPDATE audit SET id = 2 WHERE id = 9",
            Broken::Missing { expected: 2, found: 3 },
        ),
        ("DELETE FROM audit WHERE id = 5", "", Broken::Ends { expected: 5, found: 4 }),
    ] {
        outside(&folder, tamper).await;
        assert_eq!(walk(&store).await, Err(found), "{tamper}");
        if !undo.is_empty() {
            outside(&folder, undo).await;
        }
    }
}

#[tokio::test]
async fn a_change_that_can_not_be_recorded_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.apply(put("a", 1), note(), false).await.unwrap();
    outside(&folder, "CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END").await;
    assert!(store.apply(put("a", 2), note(), false).await.is_err());
    assert_eq!(store.load().await.unwrap().revision, Revision(1));
}
