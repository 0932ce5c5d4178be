//! Files that are there as a whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::failure::{Class, Failure};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner: it tells what is nobody else's business.
    Owner,
    /// Whomever the umask lets.
    All,
}

/// A file that gets its name when it is finished.
#[derive(Debug)]
pub(crate) struct Atomic {
    file: BufWriter<NamedTempFile>,
    target: PathBuf,
    replace: bool,
}

impl Atomic {
    /// Begins a file beside where it will be.
    ///
    /// # Errors
    /// The file is there already and may not be replaced, or the folder can't be written to.
    pub(crate) fn create(target: &Path, replace: bool, readers: Readers) -> Result<Self, Failure> {
        if !replace && fs::symlink_metadata(target).is_ok() {
            return Err(exists(target));
        }
        let file = tempfile::Builder::new()
            .prefix(".fusebox-")
            .permissions(fs::Permissions::from_mode(match readers {
                Readers::Owner => 0o600,
                Readers::All => 0o666,
            }))
            .tempfile_in(folder(target))
            .map_err(|error| cannot_write(target, &error))?;
        Ok(Self { file: BufWriter::new(file), target: target.to_owned(), replace })
    }

    /// What to say when a write failed.
    pub(crate) fn failed(&self, error: &io::Error) -> Failure {
        cannot_write(&self.target, error)
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// The disk did not do its part, or somebody made a file of that name meanwhile.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { file, target, replace } = self;
        let file = file.into_inner().map_err(|error| cannot_write(&target, error.error()))?;
        file.as_file().sync_all().map_err(|error| cannot_write(&target, &error))?;
        let named = if replace { file.persist(&target) } else { file.persist_noclobber(&target) };
        if let Err(error) = named {
            let is_there = error.error.kind() == io::ErrorKind::AlreadyExists;
            return Err(if is_there { exists(&target) } else { cannot_write(&target, &error.error) });
        }
        // The name is in the folder, which has to be synced as well.
        File::open(folder(&target)).and_then(|folder| folder.sync_all()).map_err(|error| cannot_write(&target, &error))
    }
}

impl Write for Atomic {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

fn exists(target: &Path) -> Failure {
    Failure::new(Class::Conflict, format!("{} is there already", target.display()))
        .fix("name another file, or say --force to replace it")
}

fn cannot_write(target: &Path, error: &io::Error) -> Failure {
    Failure::new(Class::Failed, format!("cannot write {}: {error}", target.display()))
}
