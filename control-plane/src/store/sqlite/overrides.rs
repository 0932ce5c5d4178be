//! The table of overrides.

use fusebox_policy::{
    CallerName, Namespace, PolicyName, StrategyName, TargetName, Zone,
    fleet::{gate::Forced, key::KeyPattern},
};
use sqlx::{Sqlite, SqlitePool, Transaction, sqlite::SqliteRow};

use super::{audit, failed, rows};
use crate::store::{Ending, NewOverride, Note, StoreError, StoredOverride, audit::NewAudit, plan};

pub(super) async fn insert(
    transaction: &mut Transaction<'static, Sqlite>,
    new: NewOverride,
) -> Result<StoredOverride, StoreError> {
    let NewOverride { pattern, state, reason, caller, created, expires, replaces } = &new;
    let effect = match state {
        Forced::Open => "open",
        Forced::Closed => "closed",
        Forced::Disabled => "disabled",
    };
    let row = sqlx::query(
        "INSERT INTO overrides (namespace, caller, policy, strategy, target, zone, effect, reason, author, created_us, expires_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
    )
    .bind(rows::text(pattern.namespace.as_ref()))
    .bind(rows::text(pattern.caller.as_ref()))
    .bind(rows::text(pattern.policy.as_ref()))
    .bind(rows::text(pattern.strategy.as_ref()))
    .bind(pattern.target.as_str())
    .bind(rows::text(pattern.zone.as_ref()))
    .bind(effect)
    .bind(reason.as_str())
    .bind(caller.name.as_str())
    .bind(plan::to_micros(*created))
    .bind(plan::to_micros(*expires))
    .fetch_one(&mut **transaction)
    .await
    .map_err(failed)?;
    let id = rows::widen(rows::get(&row, "id")?);
    let (replaces, replacement) = (replaces.clone(), new.replacement(id));
    let (stored, audit) = new.numbered(id);
    audit::append(transaction, [audit]).await?;
    for older in replaces {
        end(transaction, older, Ending::Replaced, &replacement).await?;
    }
    Ok(stored)
}

/// Ends one override; an unknown one, and one that has ended, is left alone.
pub(super) async fn end(
    transaction: &mut Transaction<'static, Sqlite>,
    id: u64,
    ending: Ending,
    note: &Note,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "UPDATE overrides SET ended_us = $1, end_reason = $2 WHERE id = $3 AND ended_us IS NULL RETURNING *",
    )
    .bind(plan::to_micros(note.at))
    .bind(note.message.as_str())
    .bind(rows::narrow(id))
    .fetch_optional(&mut **transaction)
    .await
    .map_err(failed)?;
    let Some(row) = row else { return Ok(()) };
    let ended = NewAudit::of_override(ending.action(), &stored(&row)?, note.clone());
    audit::append(transaction, [ended]).await
}

pub(super) fn stored(row: &SqliteRow) -> Result<StoredOverride, StoreError> {
    const TABLE: &str = "overrides";
    let id: i64 = rows::get(row, "id")?;
    let effect: String = rows::get(row, "effect")?;
    let state = match effect.as_str() {
        "open" => Forced::Open,
        "closed" => Forced::Closed,
        "disabled" => Forced::Disabled,
        _ => return Err(rows::corrupt(TABLE, id, format!("effect {effect:?}"))),
    };
    let target = rows::part(row, TABLE, id, "target", TargetName::try_new)?;
    Ok(StoredOverride {
        id: rows::widen(id),
        pattern: KeyPattern {
            namespace: rows::part(row, TABLE, id, "namespace", Namespace::try_new)?,
            caller: rows::part(row, TABLE, id, "caller", CallerName::try_new)?,
            policy: rows::part(row, TABLE, id, "policy", PolicyName::try_new)?,
            strategy: rows::part(row, TABLE, id, "strategy", StrategyName::try_new)?,
            target: target.ok_or_else(|| rows::corrupt(TABLE, id, "no target"))?,
            zone: rows::part(row, TABLE, id, "zone", Zone::try_new)?,
        },
        state,
        reason: rows::get(row, "reason")?,
        author: rows::get(row, "author")?,
        created: plan::from_micros(rows::get(row, "created_us")?),
        expires: plan::from_micros(rows::get(row, "expires_us")?),
    })
}

/// Those that have not ended, in the order of their numbers.
pub(super) async fn in_force(reader: &SqlitePool) -> Result<Vec<StoredOverride>, StoreError> {
    let rows = sqlx::query("SELECT * FROM overrides WHERE ended_us IS NULL ORDER BY id")
        .fetch_all(reader)
        .await
        .map_err(failed)?;
    rows.iter().map(stored).collect()
}
