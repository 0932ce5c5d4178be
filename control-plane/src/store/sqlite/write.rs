//! How anything is written: whole, by a task that brings it to its end, one after the other.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::{Sqlite, Transaction};
use tokio::{task::JoinError, time::Instant};

use super::{DATABASE, SqliteStore, State, rows};
use crate::{
    metrics,
    store::{AlarmKind, StoreError},
};

/// What a full disk means.
const FULL: &str = "the disk of the database is full: changes are refused, what is in force goes on; make room, it is noticed by itself";

impl SqliteStore {
    /// Runs a write in a task of its own: a caller that goes away must not cut it in half.
    pub(super) async fn write<T, F, W>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Transaction<'static, Sqlite>) -> W + Send + 'static,
        W: Future<Output = Result<(Transaction<'static, Sqlite>, T), StoreError>> + Send,
    {
        let begun = Instant::now();
        let pool = self.writer.clone();
        let task = tokio::spawn(async move {
            let transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            let (transaction, value) = work(transaction).await?;
            transaction.commit().await.map_err(failed)?;
            Ok(value)
        });
        self.heed(begun, task.await)
    }

    /// Changes what is in force, or what is known of it, in a task of its own. The lock goes with the task: the mirror changes with the
    /// commit, whatever becomes of the caller.
    pub(super) async fn change<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(
                Transaction<'static, Sqlite>,
                State,
            ) -> BoxFuture<'static, Result<(Transaction<'static, Sqlite>, State, T), StoreError>>
            + Send
            + 'static,
    {
        let begun = Instant::now();
        let mut state = Arc::clone(&self.state).lock_owned().await;
        let pool = self.writer.clone();
        let task = tokio::spawn(async move {
            let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            rows::refresh(&mut transaction, &mut state).await?;
            let (transaction, after, answer) = work(transaction, state.clone()).await?;
            transaction.commit().await.map_err(failed)?;
            *state = after;
            Ok(answer)
        });
        self.heed(begun, task.await)
    }

    /// What came of a write: whether there is room is known from it.
    pub(super) fn heed<T>(
        &self,
        begun: Instant,
        outcome: Result<Result<T, StoreError>, JoinError>,
    ) -> Result<T, StoreError> {
        let outcome = outcome.unwrap_or_else(|_| Err(StoreError::Database(sqlx::Error::WorkerCrashed)));
        metrics::store_write(begun.elapsed(), outcome.is_ok());
        if let Err(StoreError::Full) = outcome {
            self.alarms.raise(AlarmKind::StoreFull, FULL.to_owned());
        }
        outcome
    }
}

/// What the database said, in the words of the contract.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    if matches!(error, sqlx::Error::PoolTimedOut) {
        return StoreError::Busy;
    }
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // The low byte is the primary code, the rest says more: https://www.sqlite.org/rescode.html
    let primary = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff);
    match primary {
        Some(5 | 6) => StoreError::Busy,
        Some(13) => StoreError::Full,
        Some(11 | 26) => StoreError::Corrupt { table: DATABASE, key: "-".to_owned(), reason: error.to_string() },
        Some(_) | None => StoreError::Database(error),
    }
}
