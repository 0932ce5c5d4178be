//! `backup`: a copy of everything, from a control plane that goes on.

use std::{io::Write as _, path::PathBuf};

use clap::Args;
use fusebox_proto::v1::{self, create_backup_response::Part};
use sha2::{Digest, Sha256};

use super::{
    Session,
    atomic::{Atomic, Readers},
    failure::{Class, Failure},
    output,
};

/// Options of `backup`.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// File to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// Why, for the record
    #[arg(short = 'm', long, value_name = "TEXT", default_value_t, hide_default_value = true)]
    reason: String,
}

/// Runs `backup`.
pub(super) async fn backup(session: &Session, args: BackupArgs) -> Result<(), Failure> {
    let mut file = Atomic::create(&args.file, args.force, Readers::Owner)?;
    let server = session.server().await?;
    let request = v1::CreateBackupRequest { reason: args.reason };
    let mut chunks = server.admin().create_backup(request).await.map_err(Failure::to("make a backup"))?.into_inner();
    let (mut size, mut digest, mut summary) = (0_u64, Sha256::new(), None);
    while let Some(chunk) = chunks.message().await.map_err(Failure::to("go on with the backup"))? {
        match chunk.part {
            Some(Part::Data(data)) => {
                size += data.len() as u64;
                digest.update(&data);
                file.write_all(&data).map_err(|error| file.failed(&error))?;
            }
            Some(Part::Summary(told)) => summary = Some(told),
            None => {}
        }
    }
    let sha256: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let whole = summary.as_ref().is_some_and(|told| told.size == size && told.sha256 == sha256);
    if !whole {
        return Err(Failure::new(Class::Unavailable, "the backup did not come whole: nothing was written")
            .fix("run the command again"));
    }
    file.finish()?;
    let store_id = summary.map(|told| told.store_id).unwrap_or_default();
    output::print(&format!("{} holds store {store_id}: {size} bytes, sha256 {sha256}", args.file.display()))?;
    output::say(&format!("check it any time with: fusebox restore {} --dry-run", args.file.display()));
    Ok(())
}
