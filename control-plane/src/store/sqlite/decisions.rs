//! The table of decisions.

use fusebox_policy::fleet::{BreakerKey, term::RunId};
use fusebox_proto::v1;
use prost::Message;
use sqlx::{Sqlite, SqlitePool, Transaction, sqlite::SqliteRow};

use super::{failed, rows};
use crate::store::{DECISIONS_KEPT, DECISIONS_OF_BREAKER, DecisionId, StoreError, StoredDecision, plan};

const TABLE: &str = "decisions";

/// Writes a decision in place of what was kept under its id, and removes what is too much of its breaker.
pub(super) async fn put(
    transaction: &mut Transaction<'static, Sqlite>,
    stored: &StoredDecision,
) -> Result<(), StoreError> {
    let StoredDecision { id, key, since, until, decision } = stored;
    let BreakerKey { namespace, caller, policy, strategy, target, zone } = key;
    sqlx::query(
        "INSERT INTO decisions (run, number, namespace, caller, policy, strategy, target, zone, since_us, until_us, decision) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (run, number) DO UPDATE SET \
         since_us = excluded.since_us, until_us = excluded.until_us, decision = excluded.decision",
    )
    .bind(format!("{:016x}", id.run.get()))
    .bind(rows::narrow(id.number))
    .bind(namespace.as_str())
    .bind(caller.as_str())
    .bind(policy.as_str())
    .bind(strategy.as_str())
    .bind(target.as_str())
    .bind(rows::text(zone.as_ref()))
    .bind(plan::to_micros(*since))
    .bind(plan::to_micros(*until))
    .bind(decision.encode_to_vec())
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    sqlx::query(
        "DELETE FROM decisions WHERE id <= (SELECT id FROM decisions WHERE namespace = $1 AND caller = $2 AND policy = $3 \
         AND strategy = $4 AND target = $5 AND zone = $6 ORDER BY id DESC LIMIT 1 OFFSET $7) \
         AND namespace = $1 AND caller = $2 AND policy = $3 AND strategy = $4 AND target = $5 AND zone = $6",
    )
    .bind(namespace.as_str())
    .bind(caller.as_str())
    .bind(policy.as_str())
    .bind(strategy.as_str())
    .bind(target.as_str())
    .bind(rows::text(zone.as_ref()))
    .bind(rows::narrow(DECISIONS_OF_BREAKER as u64))
    .execute(&mut **transaction)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Removes the oldest of all.
pub(super) async fn prune(transaction: &mut Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM decisions WHERE id <= (SELECT id FROM decisions ORDER BY id DESC LIMIT 1 OFFSET $1)")
        .bind(rows::narrow(DECISIONS_KEPT as u64))
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    Ok(())
}

/// What is kept of one breaker, oldest first.
pub(super) async fn of(reader: &SqlitePool, key: &BreakerKey) -> Result<Vec<StoredDecision>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM decisions WHERE namespace = $1 AND caller = $2 AND policy = $3 AND strategy = $4 AND target = $5 AND zone = $6 \
         ORDER BY id",
    )
    .bind(key.namespace.as_str())
    .bind(key.caller.as_str())
    .bind(key.policy.as_str())
    .bind(key.strategy.as_str())
    .bind(key.target.as_str())
    .bind(rows::text(key.zone.as_ref()))
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    rows.iter().map(decision).collect()
}

/// The breakers of which something is kept.
pub(super) async fn breakers(reader: &SqlitePool) -> Result<Vec<BreakerKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT min(id) AS id, namespace, caller, policy, strategy, target, zone FROM decisions \
         GROUP BY namespace, caller, policy, strategy, target, zone ORDER BY namespace, caller, policy, strategy, target, zone",
    )
    .fetch_all(reader)
    .await
    .map_err(failed)?;
    rows.iter().map(|row| rows::key(row, TABLE)).collect()
}

pub(super) fn decision(row: &SqliteRow) -> Result<StoredDecision, StoreError> {
    let id: i64 = rows::get(row, "id")?;
    let run: String = rows::get(row, "run")?;
    let number = u64::from_str_radix(&run, 16).ok().and_then(RunId::new);
    let bytes: Vec<u8> = rows::get(row, "decision")?;
    Ok(StoredDecision {
        id: DecisionId {
            run: number.ok_or_else(|| rows::corrupt(TABLE, id, format!("run {run:?}")))?,
            number: rows::widen(rows::get(row, "number")?),
        },
        key: rows::key(row, TABLE)?,
        since: plan::from_micros(rows::get(row, "since_us")?),
        until: plan::from_micros(rows::get(row, "until_us")?),
        decision: v1::BreakerDecision::decode(bytes.as_slice()).map_err(|error| rows::corrupt(TABLE, id, error))?,
    })
}
