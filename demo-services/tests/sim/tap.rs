//! Reads along on a connection of the sync protocol: HTTP/2 frames, the gRPC messages in them, and what they say.
//!
//! So the history holds what was really said and heard, and when, without a word from the code under test. An SDK's connection carries
//! one stream and nothing else, so that DATA frames need no sorting.

use fusebox_proto::sync::v1::{SyncRequest, SyncResponse};
use prost::Message;

use crate::history::{History, What};

/// On which end it sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Replica,
    Server,
}

/// The reader of one connection.
pub(crate) struct Tap {
    history: History,
    replica: String,
    end: End,
    read: Frames,
    wrote: Frames,
}

impl Tap {
    pub(crate) fn new(history: History, replica: String, end: End) -> Self {
        let (requests, responses) = (Frames::new(PREFACE), Frames::new(0));
        let (read, wrote) = match end {
            End::Replica => (responses, requests),
            End::Server => (requests, responses),
        };
        Self { history, replica, end, read, wrote }
    }

    pub(crate) fn read(&mut self, bytes: &[u8]) {
        for message in self.read.feed(bytes) {
            let replica = self.replica.clone();
            self.history.record(match self.end {
                End::Replica => What::Heard { replica, message: response(&message) },
                End::Server => What::Arrived { replica, message: request(&message) },
            });
        }
    }

    pub(crate) fn wrote(&mut self, bytes: &[u8]) {
        for message in self.wrote.feed(bytes) {
            let replica = self.replica.clone();
            self.history.record(match self.end {
                End::Replica => What::Told { replica, message: request(&message) },
                End::Server => What::Issued { replica, message: response(&message) },
            });
        }
    }
}

fn request(bytes: &[u8]) -> Box<SyncRequest> {
    Box::new(SyncRequest::decode(bytes).expect("the SDK speaks its own protocol"))
}

fn response(bytes: &[u8]) -> Box<SyncResponse> {
    Box::new(SyncResponse::decode(bytes).expect("the control plane speaks its own protocol"))
}

/// `PRI * HTTP/2.0` and so on: what a client says first.
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const PADDED: u8 = 0x8;
const MESSAGE_HEAD: usize = 5;

/// One direction of a connection.
struct Frames {
    skip: usize,
    bytes: Vec<u8>,
    data: Vec<u8>,
}

impl Frames {
    const fn new(skip: usize) -> Self {
        Self { skip, bytes: Vec::new(), data: Vec::new() }
    }

    /// Takes what went over the wire, and gives the messages that are whole now.
    fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.bytes.extend_from_slice(&bytes[skipped..]);
        while let Some(head) = self.bytes.get(..FRAME_HEAD) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            if self.bytes.len() < FRAME_HEAD + length {
                break;
            }
            let frame: Vec<u8> = self.bytes.drain(..FRAME_HEAD + length).skip(FRAME_HEAD).collect();
            if kind == DATA {
                assert_eq!(flags & PADDED, 0, "padding is not read here");
                self.data.extend(frame);
            }
        }
        let mut messages = Vec::new();
        while let Some(head) = self.data.get(..MESSAGE_HEAD) {
            assert_eq!(head[0], 0, "compression is not read here");
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if self.data.len() < MESSAGE_HEAD + length {
                break;
            }
            messages.push(self.data.drain(..MESSAGE_HEAD + length).skip(MESSAGE_HEAD).collect());
        }
        messages
    }
}
