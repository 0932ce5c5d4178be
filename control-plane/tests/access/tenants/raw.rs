//! Calls that take and give bytes as they are: what is in an answer is looked for in all of it, known fields or not.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tokio::time::timeout;
use tonic::{
    Request, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::server::{Caller, LIMIT};

/// How long a stream must be silent to have told what it has to tell.
const SILENCE: Duration = Duration::from_millis(60);

/// Bytes are messages, and messages bytes.
#[derive(Clone, Copy, Default)]
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Answer {
    /// Every message.
    pub(super) messages: Vec<Bytes>,
    /// How it was refused, at once or later.
    pub(super) refused: Option<Status>,
}

/// Opens a stream, whatever the RPC is.
pub(super) async fn open(caller: &Caller, path: &str, message: Bytes) -> Result<Streaming<Bytes>, Status> {
    let mut raw = caller.raw.clone();
    raw.ready().await.unwrap();
    let path: PathAndQuery = path.parse().unwrap();
    let requests = Request::new(futures_util::stream::iter([message]));
    let streamed = raw.streaming(requests, path, AsItIs);
    Ok(timeout(LIMIT, streamed).await.expect("an answer in time")?.into_inner())
}

/// Calls any RPC, and reads what it tells until it ends or falls silent.
pub(super) async fn call(caller: &Caller, path: &str, message: Bytes) -> Answer {
    let mut messages = Vec::new();
    let mut stream = match open(caller, path, message).await {
        Ok(stream) => stream,
        Err(status) => return Answer { messages, refused: Some(status) },
    };
    // The first word of an answer may take its time; what follows is there.
    let mut patience = LIMIT;
    loop {
        match timeout(patience, stream.message()).await {
            Ok(Ok(Some(message))) => messages.push(message),
            Ok(Ok(None)) | Err(_) => return Answer { messages, refused: None },
            Ok(Err(status)) => return Answer { messages, refused: Some(status) },
        }
        patience = SILENCE;
    }
}
