//! The table of transitions.

use std::time::SystemTime;

use fusebox_policy::InstanceId;
use sqlx::{Row, Sqlite, SqlitePool, Transaction, sqlite::SqliteRow};

use super::{failed, rows};
use crate::store::{StoreError, StoredTransition, TransitionFilter, plan};

pub(super) async fn insert(
    transaction: &mut Transaction<'static, Sqlite>,
    transition: &StoredTransition,
) -> Result<u64, StoreError> {
    let StoredTransition {
        id: _,
        key,
        instance,
        from,
        to,
        cause,
        detail,
        at,
        window_calls,
        window_failures,
        grounds: _,
    } = transition;
    let row = sqlx::query(
        "INSERT INTO transitions (namespace, caller, policy, strategy, target, zone, instance, from_state, to_state, cause, \
         detail, at_us, window_calls, window_failures) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) RETURNING id",
    )
    .bind(key.namespace.as_str())
    .bind(key.caller.as_str())
    .bind(key.policy.as_str())
    .bind(key.strategy.as_str())
    .bind(key.target.as_str())
    .bind(rows::text(key.zone.as_ref()))
    .bind(rows::text(instance.as_ref()))
    .bind(from.as_str())
    .bind(to.as_str())
    .bind(cause.as_str())
    .bind(detail.as_str())
    .bind(plan::to_micros(*at))
    .bind(rows::narrow(*window_calls))
    .bind(rows::narrow(*window_failures))
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(rows::widen(rows::get(&row, "id")?))
}

/// The newest first.
pub(super) async fn list(reader: &SqlitePool, filter: TransitionFilter) -> Result<Vec<StoredTransition>, StoreError> {
    let TransitionFilter { target, caller, namespace, before, after, limit } = filter;
    let rows = sqlx::query(
        "SELECT * FROM transitions WHERE ($1 = '' OR target = $1) AND ($2 = '' OR caller = $2) AND id < $3 AND id > $4 \
                 AND ($5 = '' OR namespace = $5) ORDER BY id DESC LIMIT $6",
    )
    .bind(target.unwrap_or_default())
    .bind(caller.unwrap_or_default())
    .bind(before.map_or(i64::MAX, rows::narrow))
    .bind(after.map_or(0, rows::narrow))
    .bind(namespace.map(|namespace| namespace.to_string()).unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    rows.iter().map(stored).collect()
}

/// The numbers of the oldest and the newest.
pub(super) async fn kept(reader: &SqlitePool) -> Result<Option<(u64, u64)>, StoreError> {
    let row = sqlx::query("SELECT min(id) AS oldest, max(id) AS newest FROM transitions")
        .fetch_one(reader)
        .await
        .map_err(failed)?;
    let number = |column| row.try_get::<Option<i64>, _>(column).map_err(failed);
    Ok(number("oldest")?.zip(number("newest")?).map(|(oldest, newest)| (rows::widen(oldest), rows::widen(newest))))
}

/// Removes at most so many that are older. Says how many.
pub(super) async fn forget(
    transaction: &mut Transaction<'static, Sqlite>,
    before: SystemTime,
    most: u32,
) -> Result<u64, StoreError> {
    // In the order of numbers, which is that of time: no index of times is needed. A clock that was set back delays it, and no more.
    let gone = sqlx::query(
                "DELETE FROM transitions WHERE id IN (SELECT id FROM transitions WHERE id < (SELECT max(id) FROM transitions) \
                 AND id < coalesce((SELECT id FROM transitions WHERE at_us >= $1 ORDER BY id LIMIT 1), 9223372036854775807) \
                 ORDER BY id LIMIT $2)",
            )
            .bind(plan::to_micros(before))
            .bind(i64::from(most))
            .execute(&mut **transaction)
            .await
            .map_err(failed)?;
    Ok(gone.rows_affected())
}

pub(super) fn stored(row: &SqliteRow) -> Result<StoredTransition, StoreError> {
    const TABLE: &str = "transitions";
    let id: i64 = rows::get(row, "id")?;
    Ok(StoredTransition {
        id: rows::widen(id),
        key: rows::key(row, TABLE)?,
        instance: rows::part(row, TABLE, id, "instance", InstanceId::try_new)?,
        from: rows::get(row, "from_state")?,
        to: rows::get(row, "to_state")?,
        cause: rows::get(row, "cause")?,
        detail: rows::get(row, "detail")?,
        at: plan::from_micros(rows::get(row, "at_us")?),
        window_calls: rows::widen(rows::get(row, "window_calls")?),
        window_failures: rows::widen(rows::get(row, "window_failures")?),
        grounds: None,
    })
}
