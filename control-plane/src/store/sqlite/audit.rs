//! The rows of the audit log.

use fusebox_policy::Revision;
use futures_util::TryStreamExt as _;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};

use super::{
    failed,
    rows::{corrupt, get, narrow, widen},
};
use crate::store::{
    Note, StoreError,
    audit::{AuditChain, AuditFilter, AuditOrder, AuditPage, AuditRecord, Hash, Link, NewAudit, Page},
    plan,
};

/// Writes records, in the transaction of the change that they tell of.
pub(super) async fn append(
    transaction: &mut Transaction<'static, Sqlite>,
    new: impl IntoIterator<Item = NewAudit>,
) -> Result<(), StoreError> {
    let mut chain = chain(transaction).await?;
    for new in new {
        let record = chain.append(new);
        insert(transaction, &record).await?;
    }
    store_chain(transaction, &chain).await
}

async fn insert(transaction: &mut Transaction<'static, Sqlite>, record: &AuditRecord) -> Result<(), StoreError> {
    let AuditRecord {
        id,
        at,
        actor,
        authentication,
        address,
        request_id,
        action,
        object,
        reason,
        revision,
        before,
        after,
        hash,
    } = record;
    sqlx::query(
        "INSERT INTO audit (id, at_us, actor, authentication, address, request_id, action, object, reason, revision, before, after, \
         hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(narrow(*id))
    .bind(plan::to_micros(*at))
    .bind(actor.as_str())
    .bind(authentication.as_str())
    .bind(address.as_str())
    .bind(request_id.as_str())
    .bind(action.as_str())
    .bind(object.as_str())
    .bind(reason.as_str())
    .bind(narrow(revision.0))
    .bind(before.as_deref())
    .bind(after.as_deref())
    .bind(hash.0.as_slice())
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(())
}

async fn store_chain(transaction: &mut Transaction<'static, Sqlite>, chain: &AuditChain) -> Result<(), StoreError> {
    let AuditChain { dropped, last } = chain;
    sqlx::query("UPDATE audit_chain SET dropped_id = $1, dropped_hash = $2, last_id = $3, last_hash = $4 WHERE id = 1")
        .bind(narrow(dropped.id))
        .bind(dropped.hash.0.as_slice())
        .bind(narrow(last.id))
        .bind(last.hash.0.as_slice())
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Both ends of the log.
pub(super) async fn chain(connection: &mut SqliteConnection) -> Result<AuditChain, StoreError> {
    let row = sqlx::query("SELECT dropped_id, dropped_hash, last_id, last_hash FROM audit_chain WHERE id = 1")
        .fetch_optional(connection)
        .await
        .map_err(failed)?
        .ok_or_else(|| corrupt("audit_chain", 1, "is missing"))?;
    let link = |id: &str, of: &str| Ok(Link { id: widen(get(&row, id)?), hash: hash(&row, of, "audit_chain", 1)? });
    Ok(AuditChain { dropped: link("dropped_id", "dropped_hash")?, last: link("last_id", "last_hash")? })
}

fn hash(row: &SqliteRow, column: &str, table: &'static str, id: i64) -> Result<Hash, StoreError> {
    let bytes: Vec<u8> = get(row, column)?;
    bytes.try_into().map(Hash).map_err(|_| corrupt(table, id, format!("{column} is not a SHA-256")))
}

fn record(row: &SqliteRow) -> Result<AuditRecord, StoreError> {
    let id: i64 = get(row, "id")?;
    Ok(AuditRecord {
        id: widen(id),
        at: plan::from_micros(get(row, "at_us")?),
        actor: get(row, "actor")?,
        authentication: get(row, "authentication")?,
        address: get(row, "address")?,
        request_id: get(row, "request_id")?,
        action: get(row, "action")?,
        object: get(row, "object")?,
        reason: get(row, "reason")?,
        revision: Revision(widen(get(row, "revision")?)),
        before: get(row, "before")?,
        after: get(row, "after")?,
        hash: hash(row, "hash", "audit", id)?,
    })
}

/// What [`AuditRecord::is_of`] says, for the database.
fn of_namespace(query: &mut QueryBuilder<Sqlite>, namespace: &str) {
    query.push(" AND (object = ").push_bind(format!("namespaces/{namespace}"));
    for collection in ["namespaces", "breakers"] {
        query.push(" OR (object >= ").push_bind(format!("{collection}/{namespace}/"));
        query.push(" AND object < ").push_bind(format!("{collection}/{namespace}0")).push(")");
    }
    for (collection, path) in [("overrides", "$.selector.namespace"), ("tokens", "$.namespace")] {
        query.push(" OR (object >= ").push_bind(format!("{collection}/"));
        query.push(" AND object < ").push_bind(format!("{collection}0"));
        // What is damaged is for nobody here: the check of the log tells of it.
        query.push(" AND CASE WHEN json_valid(coalesce(after, before)) THEN json_extract(coalesce(after, before), ");
        query.push_bind(path).push(") = ").push_bind(namespace.to_owned()).push(" ELSE FALSE END)");
    }
    query.push(")");
}

/// Reads records; inside a transaction, so that they fit the ends of the log.
pub(super) async fn read(connection: &mut SqliteConnection, filter: &AuditFilter) -> Result<AuditPage, StoreError> {
    let AuditFilter { actor, action, object, from, until, order, namespace, limit } = filter;
    let chain = chain(&mut *connection).await?;
    let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM audit WHERE TRUE");
    if let Some(actor) = actor {
        query.push(" AND actor = ").push_bind(actor.as_str());
    }
    // Names and what is below them: from "a/" up to where "a" with the character after "/" begins.
    if let Some(action) = action {
        query.push(" AND (action = ").push_bind(action.as_str());
        query.push(" OR action >= ").push_bind(format!("{action}."));
        query.push(" AND action < ").push_bind(format!("{action}/")).push(")");
    }
    if let Some(object) = object {
        query.push(" AND (object = ").push_bind(object.as_str());
        query.push(" OR object >= ").push_bind(format!("{object}/"));
        query.push(" AND object < ").push_bind(format!("{object}0")).push(")");
    }
    if let Some(from) = from {
        query.push(" AND at_us >= ").push_bind(plan::to_micros(*from));
    }
    if let Some(until) = until {
        query.push(" AND at_us < ").push_bind(plan::to_micros(*until));
    }
    if let Some(namespace) = namespace {
        of_namespace(&mut query, namespace.as_str());
    }
    match order {
        AuditOrder::NewestFirst(before) => {
            let before = before.map_or(i64::MAX, narrow);
            query.push(" AND id < ").push_bind(before).push(" ORDER BY id DESC")
        }
        AuditOrder::OldestFirst(after) => query.push(" AND id > ").push_bind(narrow(*after)).push(" ORDER BY id"),
    };
    // One more than asked for says whether there are more.
    query.push(" LIMIT ").push_bind(i64::from(*limit) + 1);
    let mut page = Page::new(*limit);
    let mut rows = query.build().fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if !page.push(record(&row)?) {
            break;
        }
    }
    Ok(page.done(chain))
}

/// Drops the oldest records, and writes that they are gone.
pub(super) async fn truncate(
    transaction: &mut Transaction<'static, Sqlite>,
    before: i64,
    most: u32,
    note: Note,
) -> Result<u64, StoreError> {
    let mut ends = chain(transaction).await?;
    let first_kept = sqlx::query("SELECT min(id) AS id FROM audit WHERE at_us >= $1")
        .bind(before)
        .fetch_one(&mut **transaction)
        .await
        .map_err(failed)?;
    let first_kept = get::<Option<i64>>(&first_kept, "id")?.unwrap_or(i64::MAX);
    let last = sqlx::query("SELECT id, hash FROM audit WHERE id < $1 AND id <= $2 ORDER BY id DESC LIMIT 1")
        .bind(first_kept)
        .bind(narrow(ends.dropped.id + u64::from(most)))
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed)?;
    let Some(last) = last else { return Ok(0) };
    let id: i64 = get(&last, "id")?;
    ends.dropped = Link { id: widen(id), hash: hash(&last, "hash", "audit", id)? };
    let dropped = sqlx::query("DELETE FROM audit WHERE id <= $1")
        .bind(id)
        .execute(&mut **transaction)
        .await
        .map_err(failed)?
        .rows_affected();
    let record = ends.append(NewAudit::truncate(&ends.dropped, note));
    insert(transaction, &record).await?;
    store_chain(transaction, &ends).await?;
    Ok(dropped)
}
