//! A database from a backup, put where a server will find it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use fusebox_policy::Revision;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{
    DATABASE, check, failed,
    open::{LOCK, MIGRATIONS, lock},
    rows,
};
use crate::store::{Finding, StoreError};

/// What is in a backup.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Id of the data.
    pub store_id: String,
    /// Its newest revision.
    pub revision: Revision,
    /// Policies in force.
    pub policies: usize,
}

/// Why a backup is not put in place. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It is not whole.
    #[error("the backup is damaged")]
    Damaged(Vec<Finding>),
    /// It is a copy of a database in use.
    #[error(
        "{0} is there too: it was copied from a database in use and may lack its newest changes; take a copy with `fusebox backup`"
    )]
    InTwoParts(PathBuf),
    /// There is data already.
    #[error("{0} holds data already")]
    NotEmpty(PathBuf),
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What is in it.
    pub contents: Contents,
    /// Where the data that was there before is now.
    pub aside: Option<PathBuf>,
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::File { path, source }
}

/// Checks a backup: its pages, the checksum of every row, its schema, its audit log.
///
/// # Errors
/// It is not whole, or of a later version.
pub async fn examine(backup: &Path) -> Result<Contents, RestoreError> {
    one_file(backup)?;
    // What can't be opened as a file is said in the system's words.
    File::open(backup).map_err(file(backup))?;
    let options = SqliteConnectOptions::new().filename(backup).read_only(true).immutable(true);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    let contents = contents(&mut connection).await;
    connection.close().await.map_err(failed)?;
    contents
}

/// Refuses one whose newest changes are in another file.
fn one_file(backup: &Path) -> Result<(), RestoreError> {
    for ending in ["-wal", "-journal"] {
        let mut beside = backup.as_os_str().to_owned();
        beside.push(ending);
        let beside = PathBuf::from(beside);
        if fs::metadata(&beside).is_ok_and(|found| found.len() > 0) {
            return Err(RestoreError::InTwoParts(beside));
        }
    }
    Ok(())
}

async fn contents(connection: &mut SqliteConnection) -> Result<Contents, RestoreError> {
    let findings = check::check(&mut *connection).await?;
    if !findings.is_empty() {
        return Err(RestoreError::Damaged(findings));
    }
    let known = |applied: &i64| MIGRATIONS.iter().any(|(version, ..)| version == applied);
    if !check::applied(&mut *connection).await?.iter().all(known) {
        return Err(StoreError::NewerSchema.into());
    }
    let store_id: String = sqlx::query_scalar("SELECT store_id FROM server WHERE id = 1")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let revision: i64 = sqlx::query_scalar("SELECT revision FROM server WHERE id = 1")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let policies: i64 =
        sqlx::query_scalar("SELECT count(*) FROM policies").fetch_one(connection).await.map_err(failed)?;
    Ok(Contents {
        store_id,
        revision: Revision(rows::widen(revision)),
        policies: usize::try_from(policies).unwrap_or_default(),
    })
}

/// Puts a backup into a folder that no server uses. With `replace`, data that is there is moved aside.
///
/// # Errors
/// The backup is not whole, the folder is in use or not empty, or the disk did not do its part.
pub async fn restore(backup: &Path, folder: &Path, replace: bool) -> Result<Restored, RestoreError> {
    let _lock = lock(folder)?;
    let present = data_in(folder)?;
    if !present.is_empty() && !replace {
        return Err(RestoreError::NotEmpty(folder.to_owned()));
    }
    one_file(backup)?;
    // A copy first: what is looked at is what is put in place.
    let copy = tempfile::Builder::new().prefix(".restore-").tempfile_in(folder).map_err(file(folder))?;
    fs::copy(backup, copy.path()).map_err(file(backup))?;
    copy.as_file().sync_all().map_err(file(copy.path()))?;
    let contents = examine(copy.path()).await?;
    let aside = if present.is_empty() { None } else { Some(move_aside(folder, &present)?) };
    let target = folder.join(DATABASE);
    copy.persist(&target).map_err(|error| RestoreError::File { path: target.clone(), source: error.error })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(file(folder))?;
    Ok(Restored { contents, aside })
}

/// Everything in the folder but the lock.
fn data_in(folder: &Path) -> Result<Vec<PathBuf>, RestoreError> {
    let entries = fs::read_dir(folder).map_err(file(folder))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(file(folder))?.path();
        let is_aside = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ASIDE));
        if path.file_name().is_some_and(|name| name != LOCK) && !is_aside {
            found.push(path);
        }
    }
    Ok(found)
}

/// What folders of replaced data begin with.
const ASIDE: &str = "replaced-";

fn move_aside(folder: &Path, present: &[PathBuf]) -> Result<PathBuf, RestoreError> {
    let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace(':', "-");
    let aside = folder.join(format!("{ASIDE}{now}"));
    fs::create_dir(&aside).map_err(file(&aside))?;
    for path in present {
        if let Some(name) = path.file_name() {
            fs::rename(path, aside.join(name)).map_err(file(path))?;
        }
    }
    Ok(aside)
}
