//! `export`: every policy as a file of its own, for a repository; `apply -f DIR -R` takes them back unchanged.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;
use fusebox_proto::v1;

use super::{
    Session,
    atomic::{Atomic, Readers},
    failure::{Class, Failure},
    fetch, output,
    render::{self, Row as _},
};

/// What an exported file begins with: what does not, is somebody's own and is left alone.
const MARK: &str = "# exported by fusebox: ";

/// Options of `export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Folder to write NAMESPACE/POLICY.yaml into; made if it is missing
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    output: PathBuf,
    /// Replace files that were not exported
    #[arg(long)]
    force: bool,
}

/// Runs `export`.
pub(super) async fn export(session: &Session, args: ExportArgs) -> Result<(), Failure> {
    let server = session.server().await?;
    let namespace = session.given_namespace();
    let policies = fetch::policies(&server, namespace.unwrap_or("-"), "").await?;
    let mut files = Vec::with_capacity(policies.len());
    for policy in &policies {
        files.push((path_of(&args.output, policy), text_of(policy)?));
    }
    if !args.force {
        for (path, _) in &files {
            if is_foreign(path).map_err(|error| failed("read", path, &error))? {
                return Err(Failure::new(Class::Conflict, format!("{} was not exported by fusebox", path.display()))
                    .fix("name another folder, or say --force to replace it"));
            }
        }
    }
    let mut written = 0;
    for (path, text) in &files {
        // What is so already keeps its time, so that nobody thinks that it changed.
        if fs::read_to_string(path).is_ok_and(|present| present == *text) {
            continue;
        }
        let folder = path.parent().unwrap_or(&args.output);
        fs::create_dir_all(folder).map_err(|error| failed("make", folder, &error))?;
        let mut file = Atomic::create(path, true, Readers::All)?;
        file.write_all(text.as_bytes()).map_err(|error| file.failed(&error))?;
        file.finish()?;
        written += 1;
    }
    let kept: BTreeSet<&PathBuf> = files.iter().map(|(path, _)| path).collect();
    let gone = remove_stale(&args.output, namespace, &kept)?;
    output::print(&format!(
        "{} policies in {}: {written} files written, {} unchanged, {gone} removed",
        files.len(),
        args.output.display(),
        files.len() - written
    ))?;
    output::say(&format!("put them back with: fusebox apply -f {} -R", args.output.display()));
    Ok(())
}

fn path_of(folder: &Path, policy: &v1::Policy) -> PathBuf {
    folder.join(render::namespace_of(&policy.name)).join(format!("{}.yaml", render::id(&policy.name)))
}

fn text_of(policy: &v1::Policy) -> Result<String, Failure> {
    Ok(format!("{MARK}{}\n{}", policy.name, policy.yaml()?))
}

/// Whether there is a file that no export has written.
fn is_foreign(path: &Path) -> io::Result<bool> {
    match fs::read(path) {
        Ok(bytes) => Ok(!bytes.starts_with(MARK.as_bytes())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what an earlier export wrote of policies that are no longer in force: `apply` would bring them back.
fn remove_stale(folder: &Path, namespace: Option<&str>, kept: &BTreeSet<&PathBuf>) -> Result<usize, Failure> {
    let mut gone = 0;
    let namespaces = match namespace {
        Some(namespace) => vec![folder.join(namespace)],
        None => entries(folder)?,
    };
    for namespace in namespaces.iter().filter(|path| path.is_dir()) {
        for path in entries(namespace)? {
            let is_manifest = path.extension().is_some_and(|ending| ending == "yaml") && path.is_file();
            if is_manifest
                && !kept.contains(&path)
                && !is_foreign(&path).map_err(|error| failed("read", &path, &error))?
            {
                fs::remove_file(&path).map_err(|error| failed("remove", &path, &error))?;
                gone += 1;
            }
        }
    }
    Ok(gone)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    match read() {
        Ok(entries) => Ok(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", folder, &error)),
    }
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(Class::Failed, format!("cannot {doing} {}: {error}", path.display()))
}
