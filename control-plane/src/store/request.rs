//! Writes that may arrive twice: a client that never got its answer sends the same request again, under the same id.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::StoreError;

/// How long an answer is kept. A client that tries for longer than a day has given up.
pub const REQUESTS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Which request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The client's id of it, a UUID in lower case.
    pub id: String,
    /// Digest of what is asked for.
    pub sha256: Vec<u8>,
    /// When it came.
    pub at: SystemTime,
}

/// Turns what came of a write into the bytes that are answered.
type Render<T> = Box<dyn FnOnce(&T) -> Vec<u8> + Send + Sync>;

/// A write to be made once, and what to answer when it has been made.
pub struct Once<T> {
    pub(super) key: RequestKey,
    answer: Render<T>,
}

impl<T> Once<T> {
    /// `answer` turns what came of the write into the bytes that are answered, now and when the request comes again.
    pub fn new(key: RequestKey, answer: impl FnOnce(&T) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { key, answer: Box::new(answer) }
    }

    /// The request, and what is to be kept of its outcome.
    pub(super) fn into_kept(self, outcome: &T) -> (RequestKey, Vec<u8>) {
        (self.key, (self.answer)(outcome))
    }
}

impl<T> fmt::Debug for Once<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What is kept of a request.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) sha256: Vec<u8>,
    pub(super) answer: Vec<u8>,
    pub(super) at: SystemTime,
}

/// The answer that a request had before, if it came before; an error if its id was another request's.
pub(super) fn recall(kept: Option<Kept>, key: &RequestKey) -> Result<Option<Vec<u8>>, StoreError> {
    match kept {
        Some(kept) if kept.at + REQUESTS_KEPT <= key.at => Ok(None),
        Some(kept) if kept.sha256 == key.sha256 => Ok(Some(kept.answer)),
        Some(_) => Err(StoreError::RequestIdReused(key.id.clone())),
        None => Ok(None),
    }
}

/// Refuses a write that was made before.
pub(super) fn refuse_repeated(kept: Option<Kept>, key: &RequestKey) -> Result<(), StoreError> {
    recall(kept, key)?.map_or(Ok(()), |answer| Err(StoreError::Repeated(answer)))
}
