//! Requests that may come twice: their ids, and their earlier answers.

use std::time::SystemTime;

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Response, Status};
use uuid::Uuid;

use super::status;
use crate::store::{RequestKey, StoreError, StoreHandle};

/// Which request this is; `None` if it has no id. `method` sets requests apart that look alike.
pub(super) fn key(method: &str, id: &str, request: &impl Message) -> Result<Option<RequestKey>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = Uuid::try_parse(id).ok().filter(|id| !id.is_nil()).ok_or_else(|| {
        status::invalid_field("request_id", "must be a UUID like 6f1c0a52-7d0e-4c3b-9a68-0d1f3f1f7b2e")
    })?;
    let sha256 = Sha256::new().chain_update(method).chain_update([0]).chain_update(request.encode_to_vec()).finalize();
    Ok(Some(RequestKey { id: id.to_string(), sha256: sha256.to_vec(), at: SystemTime::now() }))
}

/// The answer that the request had when it came before, if it did.
pub(super) async fn answered<R: Message + Default>(
    store: &StoreHandle,
    key: Option<&RequestKey>,
) -> Result<Option<R>, Status> {
    let Some(key) = key else { return Ok(None) };
    let answer = store.answered(key.clone()).await.map_err(|error| status::store(&error))?;
    answer.map(|bytes| decode(&bytes)).transpose()
}

/// The outcome of a write as a response: what came of it, or what was answered when it came before.
pub(super) fn respond<T, R: Message + Default>(
    outcome: Result<T, StoreError>,
    render: impl FnOnce(&T) -> R,
    refuse: impl FnOnce(StoreError) -> Status,
) -> Result<Response<R>, Status> {
    match outcome {
        Ok(outcome) => Ok(Response::new(render(&outcome))),
        Err(StoreError::Repeated(bytes)) => decode(&bytes).map(Response::new),
        Err(error) => Err(refuse(error)),
    }
}

/// Reads what was answered.
pub(super) fn decode<R: Message + Default>(bytes: &[u8]) -> Result<R, Status> {
    R::decode(bytes).map_err(|error| {
        let error = StoreError::Corrupt { table: "requests", key: "answer".to_owned(), reason: error.to_string() };
        status::store(&error)
    })
}
