//! Rows <-> domain. What can't be read is an error that names table and row, never a default.

use std::sync::Arc;

use fusebox_policy::{
    CallerName, Invalid, Namespace, Policy, PolicyName, Revision, StrategyName, TargetName, Zone, fleet::BreakerKey,
};
use fusebox_proto::v1;
use prost::Message;
use sqlx::{Row, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};

use super::{failed, rollouts};
use crate::store::{
    Note, RevisionAction, StoreError, StoredPolicy, StoredRevision,
    plan::{self, State},
};

pub(super) fn narrow(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn widen(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn get<'r, T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>>(
    row: &'r SqliteRow,
    column: &str,
) -> Result<T, StoreError> {
    row.try_get(column).map_err(failed)
}

pub(super) fn corrupt(table: &'static str, key: impl ToString, reason: impl ToString) -> StoreError {
    StoreError::Corrupt { table, key: key.to_string(), reason: reason.to_string() }
}

fn decode(table: &'static str, key: &str, row: &SqliteRow) -> Result<Policy, StoreError> {
    let bytes: Vec<u8> = get(row, "definition")?;
    let digest: Vec<u8> = get(row, "sha256")?;
    if plan::digest(&bytes) != digest {
        return Err(corrupt(table, key, "the digest differs"));
    }
    let wire = v1::Policy::decode(bytes.as_slice()).map_err(|error| corrupt(table, key, error))?;
    Policy::try_from(wire).map_err(|invalid| corrupt(table, key, invalid))
}

/// The newest revision, and the highest one that a replica was seen to run.
async fn stored_revisions(connection: &mut SqliteConnection) -> Result<(Revision, Revision), StoreError> {
    let row = sqlx::query("SELECT revision, seen_revision FROM server WHERE id = 1")
        .fetch_one(connection)
        .await
        .map_err(failed)?;
    Ok((Revision(widen(get(&row, "revision")?)), Revision(widen(get(&row, "seen_revision")?))))
}

/// Reads everything anew unless the mirror is of the stored revision.
pub(super) async fn refresh(connection: &mut SqliteConnection, state: &mut State) -> Result<(), StoreError> {
    let (revision, seen) = stored_revisions(&mut *connection).await?;
    if revision != state.revision {
        *state = load_state(connection).await?;
    }
    state.seen = seen;
    Ok(())
}

/// Reads what is in force; inside a transaction, so that it is of one revision.
pub(super) async fn load_state(connection: &mut SqliteConnection) -> Result<State, StoreError> {
    let (revision, seen) = stored_revisions(&mut *connection).await?;
    let rows =
        sqlx::query("SELECT namespace, name, revision, definition, sha256, created_us, updated_us FROM policies")
            .fetch_all(&mut *connection)
            .await
            .map_err(failed)?;
    let mut state = State { revision, seen, ..State::default() };
    for row in &rows {
        let stored = policy(row)?;
        let name = (stored.policy.namespace.clone(), stored.policy.name.clone());
        state.policies.insert(name, Arc::new(stored));
    }
    state.rollouts = rollouts::load(connection, &state).await?;
    Ok(state)
}

/// A policy in force. What its columns say of it is what it says itself.
pub(super) fn policy(row: &SqliteRow) -> Result<StoredPolicy, StoreError> {
    let key = format!("{}/{}", get::<String>(row, "namespace")?, get::<String>(row, "name")?);
    let policy = decode("policies", &key, row)?;
    let number: i64 = get(row, "revision")?;
    if format!("{}/{}", policy.namespace, policy.name) != key || policy.revision.0 != widen(number) {
        return Err(corrupt(
            "policies",
            key,
            format!("holds {} of revision {}", policy.resource_name(), policy.revision),
        ));
    }
    let created = plan::from_micros(get(row, "created_us")?);
    let updated = plan::from_micros(get(row, "updated_us")?);
    Ok(plan::stored(policy, created, updated))
}

/// Writes revisions, and brings the tables of what is in force up to them.
pub(super) async fn write_revisions(
    transaction: &mut Transaction<'static, Sqlite>,
    revisions: &[StoredRevision],
    after: &State,
) -> Result<(), StoreError> {
    for stored in revisions {
        let StoredRevision { revision, action, policy, author, message, at } = stored;
        let bytes = plan::encode(policy);
        let digest = plan::digest(&bytes);
        sqlx::query(
            "INSERT INTO policy_revisions (revision, namespace, name, action, definition, sha256, author, message, at_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(narrow(revision.0))
        .bind(policy.namespace.as_str())
        .bind(policy.name.as_str())
        .bind(action.name())
        .bind(bytes.as_slice())
        .bind(digest.as_slice())
        .bind(author.as_str())
        .bind(message.as_str())
        .bind(plan::to_micros(*at))
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
        let key = (policy.namespace.clone(), policy.name.clone());
        // What a rollout brings to some replicas is not in force, and what its abort leaves in force was so before.
        let in_force = match action {
            RevisionAction::Create | RevisionAction::Update | RevisionAction::Delete | RevisionAction::Promote => true,
            RevisionAction::Rollback => policy.revision == *revision,
            RevisionAction::Candidate => false,
        };
        if !in_force {
            continue;
        }
        let query = if after.policies.contains_key(&key) {
            sqlx::query(
                "INSERT INTO policies (namespace, name, revision, definition, sha256, created_us, updated_us) \
                 VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (namespace, name) DO UPDATE SET \
                 revision = excluded.revision, definition = excluded.definition, sha256 = excluded.sha256, \
                 updated_us = excluded.updated_us",
            )
            .bind(policy.namespace.as_str())
            .bind(policy.name.as_str())
            .bind(narrow(policy.revision.0))
            .bind(bytes.as_slice())
            .bind(digest.as_slice())
            .bind(plan::to_micros(*at))
        } else {
            sqlx::query("DELETE FROM policies WHERE namespace = $1 AND name = $2")
                .bind(policy.namespace.as_str())
                .bind(policy.name.as_str())
        };
        query.execute(&mut **transaction).await.map_err(failed)?;
    }
    sqlx::query("UPDATE server SET revision = $1 WHERE id = 1")
        .bind(narrow(after.revision.0))
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Remembers the highest revision that a replica was seen to run.
pub(super) async fn write_seen(
    transaction: &mut Transaction<'static, Sqlite>,
    seen: Revision,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE server SET seen_revision = max(seen_revision, $1) WHERE id = 1")
        .bind(narrow(seen.0))
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Writes that a restored copy is in force as a new revision.
pub(super) async fn write_recovery(
    transaction: &mut Transaction<'static, Sqlite>,
    before: &State,
    after: &State,
    note: &Note,
) -> Result<(), StoreError> {
    let Note { caller, message, at } = note;
    sqlx::query(
        "INSERT INTO recoveries (revision, restored_revision, seen_revision, author, reason, at_us) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(narrow(after.revision.0))
    .bind(narrow(before.revision.0))
    .bind(narrow(before.seen.0))
    .bind(caller.name.as_str())
    .bind(message.as_str())
    .bind(plan::to_micros(*at))
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    sqlx::query("UPDATE server SET revision = $1 WHERE id = 1")
        .bind(narrow(after.revision.0))
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    Ok(())
}

pub(super) fn revision(row: &SqliteRow) -> Result<StoredRevision, StoreError> {
    let number: i64 = get(row, "revision")?;
    let action: String = get(row, "action")?;
    let action = action.parse().map_err(|()| corrupt("policy_revisions", number, format!("action {action:?}")))?;
    Ok(StoredRevision {
        revision: Revision(widen(number)),
        action,
        policy: decode("policy_revisions", &number.to_string(), row)?,
        author: get(row, "author")?,
        message: get(row, "message")?,
        at: plan::from_micros(get(row, "at_us")?),
    })
}

pub(super) fn part<T>(
    row: &SqliteRow,
    table: &'static str,
    id: impl ToString,
    column: &str,
    parse: fn(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, StoreError> {
    let text: String = get(row, column)?;
    if text.is_empty() {
        return Ok(None);
    }
    parse(&text).map(Some).map_err(|invalid| corrupt(table, id, format!("{column}: {invalid}")))
}

pub(super) fn text<T: ToString>(part: Option<&T>) -> String {
    part.map(ToString::to_string).unwrap_or_default()
}

/// The breaker that a row is about.
pub(super) fn key(row: &SqliteRow, table: &'static str) -> Result<BreakerKey, StoreError> {
    let id: i64 = get(row, "id")?;
    let missing = |column: &str| corrupt(table, id, format!("no {column}"));
    Ok(BreakerKey {
        namespace: part(row, table, id, "namespace", Namespace::try_new)?.ok_or_else(|| missing("namespace"))?,
        caller: part(row, table, id, "caller", CallerName::try_new)?.ok_or_else(|| missing("caller"))?,
        policy: part(row, table, id, "policy", PolicyName::try_new)?.ok_or_else(|| missing("policy"))?,
        strategy: part(row, table, id, "strategy", StrategyName::try_new)?.ok_or_else(|| missing("strategy"))?,
        target: part(row, table, id, "target", TargetName::try_new)?.ok_or_else(|| missing("target"))?,
        zone: part(row, table, id, "zone", Zone::try_new)?,
    })
}
