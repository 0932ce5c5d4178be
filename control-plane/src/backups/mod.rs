//! Copies of everything that is stored: one at a time, each in the audit log before it leaves.

pub mod schedule;

use std::{sync::Arc, time::SystemTime};

use tempfile::NamedTempFile;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    caller::Caller,
    store::{Note, StoreError, StoreHandle, audit::NewAudit},
};

/// A cheap handle.
#[derive(Clone)]
pub struct Backups {
    store: StoreHandle,
    /// A copy reads everything and needs as much room as there is data: two at a time help nobody.
    turn: Arc<Mutex<()>>,
}

/// The right to make a copy.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "held until it is dropped")] OwnedMutexGuard<()>);

impl std::fmt::Debug for Backups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backups").finish_non_exhaustive()
    }
}

impl Backups {
    /// Over a store.
    #[must_use]
    pub fn new(store: StoreHandle) -> Self {
        Self { store, turn: Arc::default() }
    }

    /// Id of the data.
    #[must_use]
    pub fn store_id(&self) -> &str {
        self.store.store_id()
    }

    /// Takes the turn; `None` while somebody else has it.
    #[must_use]
    pub fn turn(&self) -> Option<Turn> {
        Arc::clone(&self.turn).try_lock_owned().ok().map(Turn)
    }

    /// Makes a copy. It is a file that is gone when it is dropped.
    ///
    /// # Errors
    /// What the store says.
    pub async fn make(&self, _turn: &Turn, caller: Caller, message: String) -> Result<NamedTempFile, StoreError> {
        let note = Note { caller, message, at: SystemTime::now() };
        self.store.record(NewAudit::backup(note.clone())).await?;
        let file = self.store.back_up().await?;
        tracing::info!(
            event.name = "backup.created",
            author = note.caller.name,
            why = note.message,
            "a copy of everything was made"
        );
        Ok(file)
    }
}
