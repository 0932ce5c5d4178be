//! What the link knows of the stream that it is on: staging of snapshots, fences, and when which heartbeat was sent.
//!
//! Pure: messages and times come in, values go out.

use std::{collections::VecDeque, time::Duration};

use fusebox_policy::{Timestamp, fleet::term::RunId};
use fusebox_proto::{sync::v1 as sync, v1};

/// Bytes of policies of one snapshot. What is above is no set of policies, but a mistake or an attack.
const MAX_STAGED: usize = 8 * 1024 * 1024;
/// Heartbeats whose sending times are remembered: far more than a living server leaves unanswered, and so many that a burst of them,
/// when shares come, does not make a server's word about overrides too old to be dated.
const MAX_SENT: usize = 1024;

/// The stream at hand.
#[derive(Debug)]
pub(super) struct Stream {
    staged: Option<Staged>,
    /// Number and sending time of the latest heartbeats; Hello is number 0.
    sent: VecDeque<(u64, Timestamp)>,
    pub(super) welcome: Option<Welcome>,
    pub(super) heard_at: Timestamp,
}

#[derive(Debug)]
struct Staged {
    revision: u64,
    policies: Vec<v1::Policy>,
    bytes: usize,
}

/// What the server said of itself.
#[derive(Clone, Debug)]
pub(super) struct Welcome {
    pub(super) store_id: String,
    pub(super) term: u64,
    pub(super) heartbeat: Duration,
    pub(super) lease: Duration,
    /// Whose terms these are.
    pub(super) run: Option<RunId>,
}

/// An update that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct Unusable {
    pub(super) revision: u64,
    pub(super) reason: String,
}

impl Stream {
    /// A stream on which Hello has been sent.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { staged: None, sent: VecDeque::from([(0, now)]), welcome: None, heard_at: now }
    }

    /// The number of the next heartbeat, which is sent now.
    pub(super) fn heartbeat(&mut self, now: Timestamp) -> u64 {
        let seq = self.sent.back().map_or(1, |(seq, _)| seq + 1);
        if self.sent.len() >= MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((seq, now));
        seq
    }

    /// When a lease ends that counts from the sending of a heartbeat. `None` if that was never sent, or too long ago.
    pub(super) fn lease_end(&self, anchor: u64, lease: Duration) -> Option<Timestamp> {
        Some(fusebox_policy::fleet::held::lease_end(self.sent_at(anchor)?, lease))
    }

    /// When a heartbeat was sent. `None` if it never was, or too long ago.
    pub(super) fn sent_at(&self, anchor: u64) -> Option<Timestamp> {
        // They are numbered without gaps.
        let (oldest, _) = self.sent.front()?;
        let place = usize::try_from(anchor.checked_sub(*oldest)?).ok()?;
        self.sent.get(place).map(|(_, at)| *at)
    }

    /// The run of the server, as far as it is known.
    pub(super) fn run(&self) -> Option<RunId> {
        self.welcome.as_ref()?.run
    }

    pub(super) fn begin(&mut self, begin: sync::SnapshotBegin) {
        let sync::SnapshotBegin { revision } = begin;
        self.staged = Some(Staged { revision, policies: Vec::new(), bytes: 0 });
    }

    pub(super) fn chunk(&mut self, chunk: sync::PolicyChunk) -> Result<(), Unusable> {
        let sync::PolicyChunk { policies } = chunk;
        let Some(staged) = &mut self.staged else {
            return Err(Unusable { revision: 0, reason: "a chunk came outside of a snapshot".to_owned() });
        };
        staged.bytes += policies.iter().map(prost::Message::encoded_len).sum::<usize>();
        if staged.bytes > MAX_STAGED {
            let revision = staged.revision;
            self.staged = None;
            return Err(Unusable { revision, reason: format!("the snapshot has more than {MAX_STAGED} bytes") });
        }
        staged.policies.extend(policies);
        Ok(())
    }

    /// The whole set, if it is whole.
    pub(super) fn end(&mut self, end: &sync::SnapshotEnd) -> Result<Vec<v1::Policy>, Unusable> {
        let sync::SnapshotEnd { revision, policies, empty_is_meant: _ } = *end;
        let fault = |reason: String| Unusable { revision, reason };
        let staged = self.staged.take().ok_or_else(|| fault("a snapshot ended that had not begun".to_owned()))?;
        if staged.revision != revision {
            return Err(fault(format!("the snapshot began at revision {}", staged.revision)));
        }
        let found = staged.policies.len();
        if u32::try_from(found) != Ok(policies) {
            return Err(fault(format!("the snapshot should hold {policies} policies and holds {found}")));
        }
        Ok(staged.policies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(5);

    fn end(revision: u64, policies: u32) -> sync::SnapshotEnd {
        sync::SnapshotEnd { revision, policies, empty_is_meant: false }
    }

    #[test]
    fn a_snapshot_counts_only_when_it_is_whole() {
        let mut stream = Stream::new(NOW);
        assert!(stream.end(&end(1, 0)).is_err(), "not begun");
        stream.begin(sync::SnapshotBegin { revision: 1 });
        stream.chunk(sync::PolicyChunk { policies: vec![v1::Policy::default()] }).unwrap();
        assert!(stream.end(&end(1, 2)).is_err(), "one is missing");
        stream.begin(sync::SnapshotBegin { revision: 1 });
        assert!(stream.end(&end(2, 0)).is_err(), "another one's end");
        stream.begin(sync::SnapshotBegin { revision: 3 });
        stream.chunk(sync::PolicyChunk { policies: vec![v1::Policy::default()] }).unwrap();
        stream.begin(sync::SnapshotBegin { revision: 4 });
        assert_eq!(stream.end(&end(4, 0)), Ok(vec![]), "the older one is dropped");
    }

    #[test]
    fn a_lease_counts_from_the_sending_of_its_heartbeat() {
        let mut stream = Stream::new(NOW);
        let lease = Duration::from_nanos(10);
        assert_eq!(stream.lease_end(0, lease), Some(Timestamp::from_nanos(15)));
        assert_eq!(stream.heartbeat(Timestamp::from_nanos(100)), 1);
        assert_eq!(stream.heartbeat(Timestamp::from_nanos(200)), 2);
        assert_eq!(stream.lease_end(1, lease), Some(Timestamp::from_nanos(110)));
        assert_eq!(stream.lease_end(3, lease), None, "never sent");
    }
}
