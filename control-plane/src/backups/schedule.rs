//! Copies that the server makes by itself, into a folder that is better on another disk.

use std::{
    fs::{self, File},
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tempfile::NamedTempFile;

use super::Backups;
use crate::{caller::Caller, condition::Condition, shutdown::Shutdown};

/// What a file of the schedule begins and ends with. Others in the folder are somebody's own.
const NAME: (&str, &str) = ("fusebox-", ".db");
/// How soon one that failed is tried again, if the schedule is slower.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// When copies are made, and how many stay.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Where they go; made if it is missing.
    pub folder: PathBuf,
    /// How old the newest may get.
    pub every: Duration,
    /// How many stay: the newest.
    pub keep: NonZeroUsize,
}

/// Makes copies until the server ends. A restart makes none before its time: one that fails again and again must not push the good ones out.
pub(crate) async fn keep(schedule: Schedule, backups: Backups, condition: Condition, shutdown: Shutdown) {
    let mut failing = false;
    loop {
        let newest = newest(&schedule.folder);
        if !failing {
            condition.backed_up(schedule.every, newest);
        }
        let wait = match newest {
            Some(time) => schedule.every.saturating_sub(time.elapsed().unwrap_or_default()),
            None => Duration::ZERO,
        };
        tokio::select! {
            () = shutdown.begun() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let made = make(&schedule, &backups).await;
        failing = made.is_err();
        if let Err(why) = made {
            tracing::error!(event.name = "backup.failed", folder = %schedule.folder.display(), why, "the scheduled backup was not made");
            condition.backup_failed(schedule.every, self::newest(&schedule.folder), why);
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(schedule.every.min(TRY_AGAIN)) => {}
            }
        }
    }
}

async fn make(schedule: &Schedule, backups: &Backups) -> Result<(), String> {
    let turn = backups.turn().ok_or("another one is being made")?;
    let message = format!("every {}", humantime::format_duration(schedule.every));
    let copy = backups.make(&turn, Caller::server("server"), message).await.map_err(|error| error.to_string())?;
    let schedule = schedule.clone();
    let placed = tokio::task::spawn_blocking(move || place(&copy, &schedule)).await;
    placed.map_err(|_| "the copy could not be put in place".to_owned())?.map_err(|error| error.to_string())
}

/// Puts a copy into the folder, whole or not at all, and removes the oldest.
fn place(copy: &NamedTempFile, schedule: &Schedule) -> io::Result<()> {
    fs::create_dir_all(&schedule.folder)?;
    let target = tempfile::Builder::new().prefix(".backup-").tempfile_in(&schedule.folder)?;
    fs::copy(copy.path(), target.path())?;
    target.as_file().sync_all()?;
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string().replace(':', "-");
    target.persist(schedule.folder.join(format!("{}{time}{}", NAME.0, NAME.1))).map_err(|error| error.error)?;
    File::open(&schedule.folder)?.sync_all()?;
    let present = present(&schedule.folder)?;
    for old in present.iter().rev().skip(schedule.keep.get()) {
        fs::remove_file(old)?;
    }
    Ok(())
}

/// The files of the schedule, oldest first: their names say when.
fn present(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(NAME.0) && name.ends_with(NAME.1) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// When the newest was made; `None` if there is none that can be seen.
fn newest(folder: &Path) -> Option<SystemTime> {
    let present = present(folder).ok()?;
    fs::metadata(present.last()?).ok()?.modified().ok()
}
