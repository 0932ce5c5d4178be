//! The way to an open database: one process, connections, migrations, an id.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use sqlx::{
    Connection as _, Row as _, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::SqlitePoolOptions,
};

use super::{BACKUP, PATIENCE, failed};
use crate::store::{Room, StoreError};

/// The migrations, in order. Their texts never change after a release: sqlx compares checksums.
pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "policies", include_str!("../../../../migrations/sqlite/0001_policies.sql")),
    (2, "recovery", include_str!("../../../../migrations/sqlite/0002_recovery.sql")),
    (3, "audit", include_str!("../../../../migrations/sqlite/0003_audit.sql")),
    (4, "decisions", include_str!("../../../../migrations/sqlite/0004_decisions.sql")),
    (5, "tokens", include_str!("../../../../migrations/sqlite/0005_tokens.sql")),
    (6, "rollouts", include_str!("../../../../migrations/sqlite/0006_rollouts.sql")),
    (7, "requests", include_str!("../../../../migrations/sqlite/0007_requests.sql")),
    (8, "bound_roles", include_str!("../../../../migrations/sqlite/0008_bound_roles.sql")),
    (9, "disabled", include_str!("../../../../migrations/sqlite/0009_disabled.sql")),
];

/// What says that a process uses the folder.
pub(super) const LOCK: &str = "fusebox.lock";

pub(super) fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE).before_acquire(|connection, _| {
        // SQLite ends a transaction by itself when the disk is full or fails. sqlx then fails to roll it back and takes it for open for
        // ever: no transaction could be begun on this connection any more.
        let usable = !connection.is_in_transaction();
        Box::pin(async move { Ok(usable) })
    })
}

/// Removes copies that a process did not live to finish. Nobody else is at it: the folder is locked.
pub(super) fn remove_unfinished(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(BACKUP)
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "an unfinished copy can't be removed");
        }
    }
}

/// Room on the disk of a folder. Blocks.
pub(super) fn room(folder: &Path) -> std::io::Result<Room> {
    let disk = rustix::fs::statvfs(folder)?;
    let mut used = 0;
    for entry in std::fs::read_dir(folder)?.flatten() {
        // One that is gone meanwhile takes no room.
        used += entry.metadata().map_or(0, |found| if found.is_file() { found.len() } else { 0 });
    }
    Ok(Room {
        free: disk.f_bavail.saturating_mul(disk.f_frsize),
        total: disk.f_blocks.saturating_mul(disk.f_frsize),
        used,
    })
}

/// Makes the folder if it is not there, for its owner alone, and takes it.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Folder { path: folder.display().to_string(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join(LOCK));
    let file = lock.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(folder.display().to_string())),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes an empty file for a new database. Only its owner may read it: digests of tokens and the addresses of people are in it. SQLite gives
/// the files beside it the same mode. One that is there keeps what its owner gave it.
pub(super) fn make(file: &Path) -> Result<(), StoreError> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(StoreError::Folder { path: file.display().to_string(), source }),
    }
}

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(version, name, sql)| {
            let sql = sqlx::SqlSafeStr::into_sql_str(*sql);
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(pool).await.map_err(|error| {
        if let MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) = error {
            StoreError::NewerSchema
        } else if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
            failed(error)
        } else {
            StoreError::Corrupt { table: "_sqlx_migrations", key: "-".to_owned(), reason: error.to_string() }
        }
    })
}

/// Reads the id of the data; makes one for new data.
pub(super) async fn identify(pool: &SqlitePool) -> Result<String, StoreError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| StoreError::Folder {
        path: "the system's random source".to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    let fresh: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    sqlx::query("INSERT INTO server (id, store_id, term, revision) VALUES (1, $1, 0, 0) ON CONFLICT (id) DO NOTHING")
        .bind(fresh)
        .execute(pool)
        .await
        .map_err(failed)?;
    let row = sqlx::query("SELECT store_id FROM server WHERE id = 1").fetch_one(pool).await.map_err(failed)?;
    row.try_get("store_id").map_err(failed)
}
