//! The store of a single control plane: one SQLite file in WAL mode.
//!
//! Every acknowledged write is fsynced (`synchronous = FULL`: with NORMAL a power cut loses acknowledged commits). There is one writer
//! connection, so that nobody waits in SQLite's lock queue, and a few readers. One process owns the folder; a file lock says so. What is
//! in force is mirrored in memory, and brought up to the stored revision inside each transaction: after a commit whose outcome is
//! unknown, whoever comes next learns what became of it.

mod audit;
mod check;
mod decisions;
mod open;
mod overrides;
mod requests;
pub mod restore;
mod rollouts;
mod rows;
#[cfg(test)]
mod tests;
mod tokens;
mod transitions;
mod write;

use std::{
    fs::File,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_policy::{Namespace, PolicyName, Revision, fleet::BreakerKey};
use futures_util::future::FutureExt;
use sqlx::{
    Connection as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tempfile::NamedTempFile;
use tokio::{sync::Mutex, time::Instant};

use self::{
    open::{identify, lock, make, migrate, pool, remove_unfinished},
    write::failed,
};
use super::{
    Adoption, Alarm, AlarmKind, Answer, Applied, Change, Ending, Finding, Loaded, NewOverride, NewRollout, NewToken,
    Note, Once, Quota, RequestKey, RevisionAction, RolloutFilter, Room, Stepped, Store, StoreError, StoredDecision,
    StoredOverride, StoredRevision, StoredRollout, StoredToken, StoredTransition, TransitionFilter,
    alarm::Alarms,
    audit::{AuditFilter, AuditPage, NewAudit},
    plan::{self, Plan, State},
    request,
};
use crate::rollouts::machine::Step;

/// The file in the data folder.
const DATABASE: &str = "fusebox.db";
/// The least that a database has: one page of the smallest size.
const SMALLEST: u64 = 512;
/// What copies that are being made begin with.
const BACKUP: &str = ".backup-";

/// Readers that can work beside the writer.
const READERS: u32 = 4;

/// How long anything waits for its turn; then it is told so.
const PATIENCE: Duration = Duration::from_secs(5);

/// One SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    store_id: String,
    writer: SqlitePool,
    reader: SqlitePool,
    /// What is in force. Locked for the length of a write, so that a plan is never made on what is about to change.
    state: Arc<Mutex<State>>,
    alarms: Arc<Alarms>,
    quota: Quota,
    /// Where copies are made.
    folder: PathBuf,
    /// Held as long as the store lives.
    _lock: File,
}

impl SqliteStore {
    /// Opens, or creates, the database in a folder.
    ///
    /// # Errors
    /// The folder can't be used, another process uses it, or what is in it can't be read.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = lock(folder)?;
        remove_unfinished(folder);
        let file = folder.join(DATABASE);
        // SQLite takes a file without a whole head for an empty one, and would begin anew in it.
        if std::fs::metadata(&file).is_ok_and(|found| (1..SMALLEST).contains(&found.len())) {
            let reason = "the file was cut".to_owned();
            return Err(StoreError::Corrupt { table: DATABASE, key: "-".to_owned(), reason });
        }
        make(&file)?;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            // A checkpoint cuts the log back to this, so that a burst does not keep its disk for ever.
            .pragma("journal_size_limit", (64 << 20).to_string());
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        migrate(&writer).await?;
        let reader = pool(READERS).connect_with(options.read_only(true)).await.map_err(failed)?;
        let store_id = identify(&writer).await?;
        let state = {
            let mut transaction = reader.begin().await.map_err(failed)?;
            rows::load_state(&mut transaction).await?
        };
        Ok(Self {
            store_id,
            writer,
            reader,
            state: Arc::new(Mutex::new(state)),
            alarms: Arc::default(),
            quota: Quota::default(),
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// The same, whose namespaces take so much.
    #[must_use]
    pub const fn with_quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// Ends the use of the database, and brings all that is in it into its one file, if nobody else reads it. After that nothing can be read
    /// or written.
    pub async fn end(&self) {
        self.reader.close().await;
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await {
            tracing::warn!(%error, "the log of the database could not be brought into it: the next start reads both");
        }
        self.writer.close().await;
    }
}

impl Store for SqliteStore {
    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn load(&self) -> Answer<'_, Loaded> {
        async move {
            let mut state = self.state.lock().await;
            let mut transaction = self.reader.begin().await.map_err(failed)?;
            rows::refresh(&mut transaction, &mut state).await?;
            Ok(state.loaded())
        }
        .boxed()
    }

    fn apply_once(
        &self,
        changes: Vec<Change>,
        note: Note,
        validate_only: bool,
        once: Option<Once<Applied>>,
    ) -> Answer<'_, Applied> {
        async move {
            let begun = Instant::now();
            let once = once.filter(|_| !validate_only);
            let mut state = Arc::clone(&self.state).lock_owned().await;
            let (pool, quota) = (self.writer.clone(), self.quota);
            // The lock goes with the task: what is in force changes with the commit, whatever becomes of the caller.
            let task = tokio::spawn(async move {
                let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
                requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
                rows::refresh(&mut transaction, &mut state).await?;
                let Plan { applied, revisions, audit, after } = state.plan(changes, &note, quota)?;
                if !validate_only && (!revisions.is_empty() || once.is_some()) {
                    rows::write_revisions(&mut transaction, &revisions, &after).await?;
                    audit::append(&mut transaction, audit).await?;
                    requests::keep(&mut transaction, once, &applied).await?;
                    transaction.commit().await.map_err(failed)?;
                    *state = after;
                }
                Ok(applied)
            });
            self.heed(begun, task.await)
        }
        .boxed()
    }

    fn start_rollout(
        &self,
        new: NewRollout,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        let quota = self.quota;
        if validate_only {
            let dry = async move {
                let mut state = self.state.lock().await;
                let mut transaction = self.reader.begin().await.map_err(failed)?;
                rows::refresh(&mut transaction, &mut state).await?;
                Ok(state.start_rollout(new, &note, quota)?.stepped())
            };
            return dry.boxed();
        }
        self.change(move |mut transaction, state| {
            async move {
                requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
                let plan = state.start_rollout(new, &note, quota)?;
                let (after, stepped) = rollouts::write(&mut transaction, plan, once).await?;
                Ok((transaction, after, stepped))
            }
            .boxed()
        })
        .boxed()
    }

    fn step_rollout(
        &self,
        (namespace, policy, candidate): (Namespace, PolicyName, Revision),
        step: Step,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        if validate_only {
            let dry = async move {
                let mut state = self.state.lock().await;
                let mut transaction = self.reader.begin().await.map_err(failed)?;
                rows::refresh(&mut transaction, &mut state).await?;
                Ok(state.step_rollout(&namespace, &policy, candidate, step, &note)?.stepped())
            };
            return dry.boxed();
        }
        self.change(move |mut transaction, state| {
            async move {
                requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
                let plan = state.step_rollout(&namespace, &policy, candidate, step, &note)?;
                let (after, stepped) = rollouts::write(&mut transaction, plan, once).await?;
                Ok((transaction, after, stepped))
            }
            .boxed()
        })
        .boxed()
    }

    fn rollouts(&self, filter: RolloutFilter) -> Answer<'_, Vec<StoredRollout>> {
        async move {
            let mut connection = self.reader.acquire().await.map_err(failed)?;
            rollouts::read(&mut connection, filter).await
        }
        .boxed()
    }

    fn answered(&self, key: RequestKey) -> Answer<'_, Option<Vec<u8>>> {
        async move {
            let mut connection = self.reader.acquire().await.map_err(failed)?;
            request::recall(requests::kept(&mut connection, &key.id).await?, &key)
        }
        .boxed()
    }

    fn saw_revision(&self, revision: Revision) -> Answer<'_, Loaded> {
        self.change(move |mut transaction, state| {
            async move {
                rows::write_seen(&mut transaction, revision).await?;
                let before = (state.seen, state.revision);
                let after = State { seen: state.seen.max(revision), ..state };
                if after.is_regressed() && after.seen > before.0 {
                    let regress = NewAudit::regress(before.1, (before.0, after.seen));
                    audit::append(&mut transaction, [regress]).await?;
                }
                let loaded = after.loaded();
                Ok((transaction, after, loaded))
            }
            .boxed()
        })
        .boxed()
    }

    fn adopt_present_once(&self, note: Note, once: Option<Once<Adoption>>) -> Answer<'_, Adoption> {
        self.change(move |mut transaction, state| {
            async move {
                requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
                if !state.is_regressed() {
                    let loaded = state.loaded();
                    return Ok((transaction, state, (None, loaded)));
                }
                let after = state.adopted();
                rows::write_recovery(&mut transaction, &state, &after, &note).await?;
                audit::append(&mut transaction, [NewAudit::adopt(&state, &after, note)]).await?;
                let answer = (Some(state.loaded()), after.loaded());
                requests::keep(&mut transaction, once, &answer).await?;
                Ok((transaction, after, answer))
            }
            .boxed()
        })
        .boxed()
    }

    fn revisions(
        &self,
        namespace: Namespace,
        name: PolicyName,
        before: Option<Revision>,
        limit: u32,
    ) -> Answer<'_, Vec<StoredRevision>> {
        async move {
            let before = before.map_or(i64::MAX, |revision| rows::narrow(revision.0));
            let rows = sqlx::query(
                "SELECT revision, action, definition, sha256, author, message, at_us FROM policy_revisions \
                 WHERE namespace = $1 AND name = $2 AND revision < $3 ORDER BY revision DESC LIMIT $4",
            )
            .bind(namespace.as_str())
            .bind(name.as_str())
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.reader)
            .await
            .map_err(failed)?;
            rows.iter().map(rows::revision).collect()
        }
        .boxed()
    }

    fn next_term(&self, at_least: u64) -> Answer<'_, u64> {
        self.write(move |mut transaction| async move {
            let row = sqlx::query("SELECT term FROM server WHERE id = 1")
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed)?;
            let before = rows::widen(rows::get(&row, "term")?);
            let term = plan::check_term(at_least.max(before + 1))?;
            sqlx::query("UPDATE server SET term = $1 WHERE id = 1")
                .bind(rows::narrow(term))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            audit::append(&mut transaction, [NewAudit::term(before, term)]).await?;
            Ok((transaction, term))
        })
        .boxed()
    }

    fn put_override_once(&self, new: NewOverride, once: Option<Once<StoredOverride>>) -> Answer<'_, StoredOverride> {
        self.write(move |mut transaction| async move {
            requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
            let stored = overrides::insert(&mut transaction, new).await?;
            requests::keep(&mut transaction, once, &stored).await?;
            Ok((transaction, stored))
        })
        .boxed()
    }

    fn end_overrides_once(&self, ids: Vec<u64>, ending: Ending, note: Note, once: Option<Once<()>>) -> Answer<'_, ()> {
        self.write(move |mut transaction| async move {
            requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
            for id in ids {
                overrides::end(&mut transaction, id, ending, &note).await?;
            }
            requests::keep(&mut transaction, once, &()).await?;
            Ok((transaction, ()))
        })
        .boxed()
    }

    fn overrides(&self) -> Answer<'_, Vec<StoredOverride>> {
        async move { overrides::in_force(&self.reader).await }.boxed()
    }

    fn append_transitions(&self, transitions: Vec<StoredTransition>) -> Answer<'_, Vec<u64>> {
        self.write(move |mut transaction| async move {
            let mut ids = Vec::with_capacity(transitions.len());
            for stored in &transitions {
                ids.push(transitions::insert(&mut transaction, stored).await?);
            }
            audit::append(&mut transaction, transitions.iter().filter_map(NewAudit::verdict)).await?;
            Ok((transaction, ids))
        })
        .boxed()
    }

    fn transitions(&self, filter: TransitionFilter) -> Answer<'_, Vec<StoredTransition>> {
        async move { transitions::list(&self.reader, filter).await }.boxed()
    }

    fn transitions_kept(&self) -> Answer<'_, Option<(u64, u64)>> {
        async move { transitions::kept(&self.reader).await }.boxed()
    }

    fn forget_transitions(&self, before: SystemTime, most: u32) -> Answer<'_, u64> {
        self.write(move |mut transaction| async move {
            let gone = transitions::forget(&mut transaction, before, most).await?;
            Ok((transaction, gone))
        })
        .boxed()
    }

    fn audit(&self, filter: AuditFilter) -> Answer<'_, AuditPage> {
        async move {
            let mut transaction = self.reader.begin().await.map_err(failed)?;
            audit::read(&mut transaction, &filter).await
        }
        .boxed()
    }

    fn record(&self, new: NewAudit) -> Answer<'_, ()> {
        self.write(|mut transaction| async move {
            audit::append(&mut transaction, [new]).await?;
            Ok((transaction, ()))
        })
        .boxed()
    }

    fn back_up(&self) -> Answer<'_, NamedTempFile> {
        async move {
            let unusable = |source| StoreError::Folder { path: self.folder.display().to_string(), source };
            let file = tempfile::Builder::new().prefix(BACKUP).tempfile_in(&self.folder).map_err(unusable)?;
            let Some(path) = file.path().to_str() else {
                return Err(unusable(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is no UTF-8")));
            };
            let mut connection = self.reader.acquire().await.map_err(failed)?;
            sqlx::query("VACUUM INTO $1").bind(path).execute(&mut *connection).await.map_err(failed)?;
            Ok(file)
        }
        .boxed()
    }

    fn check(&self) -> Answer<'_, Vec<Finding>> {
        async move {
            let mut reader = self.reader.acquire().await.map_err(failed)?;
            // What the connection has read before is in its memory, where it is as it was.
            sqlx::query("PRAGMA shrink_memory").execute(&mut *reader).await.map_err(failed)?;
            let mut transaction = reader.begin().await.map_err(failed)?;
            let findings = check::check(&mut transaction).await?;
            match findings.as_slice() {
                [] => self.alarms.clear(AlarmKind::StoreCorrupt),
                [first, rest @ ..] => {
                    let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                    let advice = "what is in force goes on; restore a backup with `fusebox restore`";
                    let message = format!("the database is damaged: {first}{more}; {advice}");
                    self.alarms.raise(AlarmKind::StoreCorrupt, message);
                }
            }
            Ok(findings)
        }
        .boxed()
    }

    fn try_write(&self) -> Answer<'_, ()> {
        async move {
            // Small rows may fit into what the files have to spare: room is when something larger can be committed.
            self.write(|mut transaction| async move {
                for statement in [
                    "CREATE TABLE IF NOT EXISTS room (content BLOB NOT NULL) STRICT",
                    "INSERT INTO room (content) VALUES (zeroblob(262144))",
                ] {
                    sqlx::query(statement).execute(&mut *transaction).await.map_err(failed)?;
                }
                Ok((transaction, ()))
            })
            .await?;
            self.write(|mut transaction| async move {
                sqlx::query("DROP TABLE room").execute(&mut *transaction).await.map_err(failed)?;
                Ok((transaction, ()))
            })
            .await?;
            self.alarms.clear(AlarmKind::StoreFull);
            Ok(())
        }
        .boxed()
    }

    fn room(&self) -> Answer<'_, Option<Room>> {
        let folder = self.folder.clone();
        Box::pin(async move {
            let path = folder.display().to_string();
            let look = tokio::task::spawn_blocking(move || open::room(&folder)).await.map_err(std::io::Error::other);
            look.flatten().map(Some).map_err(|source| StoreError::Folder { path, source })
        })
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.alarms.list()
    }

    fn truncate_audit(&self, before: SystemTime, most: u32, note: Note) -> Answer<'_, u64> {
        self.write(move |mut transaction| async move {
            let dropped = audit::truncate(&mut transaction, plan::to_micros(before), most, note).await?;
            Ok((transaction, dropped))
        })
        .boxed()
    }

    fn put_decisions(&self, decisions: Vec<StoredDecision>) -> Answer<'_, ()> {
        self.write(move |mut transaction| async move {
            for stored in &decisions {
                decisions::put(&mut transaction, stored).await?;
            }
            decisions::prune(&mut transaction).await?;
            Ok((transaction, ()))
        })
        .boxed()
    }

    fn decisions(&self, key: BreakerKey) -> Answer<'_, Vec<StoredDecision>> {
        async move { decisions::of(&self.reader, &key).await }.boxed()
    }

    fn decided_breakers(&self) -> Answer<'_, Vec<BreakerKey>> {
        async move { decisions::breakers(&self.reader).await }.boxed()
    }

    fn put_token_once(&self, new: NewToken, note: Note, once: Option<Once<StoredToken>>) -> Answer<'_, StoredToken> {
        self.write(move |mut transaction| async move {
            requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
            let stored = tokens::insert(&mut transaction, new, note).await?;
            requests::keep(&mut transaction, once, &stored).await?;
            Ok((transaction, stored))
        })
        .boxed()
    }

    fn revoke_token_once(
        &self,
        id: String,
        note: Note,
        once: Option<Once<StoredToken>>,
    ) -> Answer<'_, Option<StoredToken>> {
        self.write(move |mut transaction| async move {
            requests::refuse_repeated(&mut transaction, once.as_ref()).await?;
            let stored = tokens::revoke(&mut transaction, &id, note).await?;
            if let Some(stored) = &stored {
                requests::keep(&mut transaction, once, stored).await?;
            }
            Ok((transaction, stored))
        })
        .boxed()
    }

    fn tokens(&self) -> Answer<'_, Vec<StoredToken>> {
        async move {
            let rows = sqlx::query("SELECT * FROM tokens ORDER BY created_us DESC, rowid DESC")
                .fetch_all(&self.reader)
                .await
                .map_err(failed)?;
            rows.iter().map(tokens::stored).collect()
        }
        .boxed()
    }
}

impl FromStr for RevisionAction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "create" => Ok(Self::Create),
            "update" => Ok(Self::Update),
            "delete" => Ok(Self::Delete),
            "rollback" => Ok(Self::Rollback),
            "candidate" => Ok(Self::Candidate),
            "promote" => Ok(Self::Promote),
            _ => Err(()),
        }
    }
}
