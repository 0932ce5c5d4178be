//! A copy of everything on its way to an operator.

use std::pin::Pin;

use fusebox_proto::v1::{self, create_backup_response::Part};
use futures_util::Stream;
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncReadExt as _, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::status::{self, Reason};
use crate::{
    backups::{Backups, Turn},
    caller::Caller,
};

/// The answer of CreateBackup.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<v1::CreateBackupResponse, Status>> + Send>>;

/// Bytes of a chunk: far below what a client reads in one message.
const CHUNK: usize = 256 << 10;
/// Chunks that may wait for a slow reader.
const WAITING: usize = 4;

/// Begins a copy. It is made while the stream is open already: how long it takes depends on the data.
///
/// # Errors
/// Another copy is being made.
pub(super) fn stream(backups: &Backups, caller: Caller, reason: String) -> Result<Chunks, Status> {
    let turn = backups
        .turn()
        .ok_or_else(|| status::refused(Reason::BackupInProgress, "another backup is being made: try again"))?;
    let (chunks, waiting) = mpsc::channel(WAITING);
    let backups = backups.clone();
    tokio::spawn(async move {
        let sent = tokio::select! {
            sent = send(&backups, &turn, caller, reason, &chunks) => sent,
            // Whoever has gone needs no copy.
            () = chunks.closed() => return,
        };
        if let Err(status) = sent {
            let _ = chunks.send(Err(status)).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(waiting)))
}

type Sender = mpsc::Sender<Result<v1::CreateBackupResponse, Status>>;

async fn send(backups: &Backups, turn: &Turn, caller: Caller, reason: String, chunks: &Sender) -> Result<(), Status> {
    let copy = backups.make(turn, caller, reason).await.map_err(|error| status::store(&error))?;
    let unreadable = |error: std::io::Error| {
        tracing::error!(%error, "a backup can't be read");
        status::unavailable("the copy can't be read on the server")
    };
    let mut file = File::open(copy.path()).await.map_err(unreadable)?;
    let (mut size, mut digest) = (0_u64, Sha256::new());
    let part = |part| Ok(v1::CreateBackupResponse { part: Some(part) });
    loop {
        let mut data = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut data).await.map_err(unreadable)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        digest.update(&data);
        // A reader that has gone is noticed outside.
        let _ = chunks.send(part(Part::Data(data))).await;
    }
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let summary = v1::BackupSummary { size, sha256, store_id: backups.store_id().to_owned() };
    let _ = chunks.send(part(Part::Summary(summary))).await;
    Ok(())
}
