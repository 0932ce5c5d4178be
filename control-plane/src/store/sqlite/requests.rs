//! The table of requests that came with an id.

use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use super::failed;
use crate::store::{
    Once, REQUESTS_KEPT, RequestKey, StoreError, plan,
    request::{self, Kept},
};

/// What is kept under an id.
pub(super) async fn kept(connection: &mut SqliteConnection, id: &str) -> Result<Option<Kept>, StoreError> {
    let row = sqlx::query("SELECT sha256, answer, at_us FROM requests WHERE id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
        .map_err(failed)?;
    row.map(|row| {
        Ok(Kept {
            sha256: row.try_get("sha256").map_err(failed)?,
            answer: row.try_get("answer").map_err(failed)?,
            at: plan::from_micros(row.try_get("at_us").map_err(failed)?),
        })
    })
    .transpose()
}

/// Refuses a write that was made before.
pub(super) async fn refuse_repeated<T>(
    transaction: &mut Transaction<'static, Sqlite>,
    once: Option<&Once<T>>,
) -> Result<(), StoreError> {
    let Some(once) = once else { return Ok(()) };
    request::refuse_repeated(kept(transaction, &once.key.id).await?, &once.key)
}

/// Keeps what is answered to a request, and forgets those that are too old to come again.
pub(super) async fn keep<T>(
    transaction: &mut Transaction<'static, Sqlite>,
    once: Option<Once<T>>,
    outcome: &T,
) -> Result<(), StoreError> {
    let Some(once) = once else { return Ok(()) };
    let (RequestKey { id, sha256, at }, answer) = once.into_kept(outcome);
    sqlx::query("DELETE FROM requests WHERE at_us <= $1")
        .bind(plan::to_micros(at - REQUESTS_KEPT))
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    sqlx::query("INSERT INTO requests (id, sha256, answer, at_us) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(sha256)
        .bind(answer)
        .bind(plan::to_micros(at))
        .execute(&mut **transaction)
        .await
        .map_err(failed)?;
    Ok(())
}
