//! `restore`: a backup becomes the data of a control plane that does not run. It asks no server.

use std::path::PathBuf;

use clap::Args;

use super::{
    failure::{Class, Failure},
    output,
};
use crate::{
    config,
    store::{
        StoreError,
        sqlite::restore::{self, Contents, RestoreError, Restored},
    },
};

/// Findings that are told.
const MOST_TOLD: usize = 10;

/// Options of `restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// A file that `fusebox backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder of the database, as of `fusebox serve`
    #[arg(long, env = "FUSEBOX_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Put it in place of the data that is there, which is kept in a folder beside it
    #[arg(long)]
    force: bool,
    /// Only check the file
    #[arg(long)]
    dry_run: bool,
}

/// Runs `restore`.
pub(super) async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let told = |contents: &Contents| {
        let Contents { store_id, revision, policies } = contents;
        format!("{policies} policies at rev {revision} of store {store_id}")
    };
    if args.dry_run {
        let contents = restore::examine(&args.file).await.map_err(failure)?;
        return output::print(&format!("{} is whole: {}", args.file.display(), told(&contents)));
    }
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let data_dir = config::data_dir(args.data_dir.as_deref(), folder("XDG_DATA_HOME"), folder("HOME"))
        .map_err(|error| Failure::new(Class::Usage, error.to_string()))?;
    let Restored { contents, aside } = restore::restore(&args.file, &data_dir, args.force).await.map_err(failure)?;
    output::print(&format!("restored into {}: {}", data_dir.display(), told(&contents)))?;
    if let Some(aside) = aside {
        output::say(&format!("what was there before is in {}", aside.display()));
    }
    output::say(&format!(
        "next: fusebox serve --data-dir {}; if replicas run a later revision than {}, it says REGRESSED and takes no change until \
         `fusebox recover --adopt-present`",
        data_dir.display(),
        contents.revision
    ));
    Ok(())
}

fn failure(error: RestoreError) -> Failure {
    let what = error.to_string();
    match error {
        RestoreError::Damaged(findings) => {
            let lines: Vec<_> = findings.iter().take(MOST_TOLD).map(|finding| format!("  {finding}")).collect();
            Failure::new(Class::Invalid, format!("{what}:\n{}", lines.join("\n"))).fix("take another backup")
        }
        RestoreError::InTwoParts(_) => Failure::new(Class::Invalid, what),
        RestoreError::NotEmpty(_) => Failure::new(Class::Conflict, what).fix(
            "name another --data-dir, or say --force to put the backup in its place and keep what is there beside it",
        ),
        RestoreError::Store(StoreError::InUse(_)) => Failure::new(Class::Conflict, what),
        RestoreError::Store(error @ (StoreError::Corrupt { .. } | StoreError::NewerSchema)) => {
            Failure::new(Class::Invalid, error.to_string())
        }
        RestoreError::Store(error) => Failure::new(Class::Failed, error.to_string()),
        RestoreError::File { .. } => Failure::new(Class::Failed, what),
    }
}
