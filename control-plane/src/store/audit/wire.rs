//! Records <-> wire.

use fusebox_policy::{Invalid, Revision, invalid::Faults};
use fusebox_proto::v1;

use super::{
    AuditChain, AuditRecord, Link,
    chain::{Hash, digest},
};
use crate::store::timestamp;

impl From<&AuditRecord> for v1::AuditEvent {
    fn from(record: &AuditRecord) -> Self {
        let AuditRecord {
            id,
            at,
            actor,
            authentication,
            address,
            request_id,
            action,
            object,
            reason,
            revision,
            before,
            after,
            hash,
        } = record;
        let digest = |content: &Option<String>| {
            content.as_deref().map(|content| digest(content).to_string()).unwrap_or_default()
        };
        Self {
            id: *id,
            time: Some(timestamp(*at)),
            actor: actor.clone(),
            authentication: authentication.clone(),
            address: address.clone(),
            request_id: request_id.clone(),
            action: action.clone(),
            object: object.clone(),
            reason: reason.clone(),
            revision: revision.0,
            before_sha256: digest(before),
            after_sha256: digest(after),
            before: before.clone(),
            after: after.clone(),
            hash: hash.to_string(),
        }
    }
}

impl TryFrom<v1::AuditEvent> for AuditRecord {
    type Error = Invalid;

    fn try_from(wire: v1::AuditEvent) -> Result<Self, Invalid> {
        let v1::AuditEvent {
            id,
            time,
            actor,
            authentication,
            address,
            request_id,
            action,
            object,
            reason,
            revision,
            before,
            after,
            // What the content says of itself proves nothing: the hash is over digests that are made anew.
            before_sha256: _,
            after_sha256: _,
            hash,
        } = wire;
        let mut faults = Faults::new();
        let at = faults
            .take("time", time.and_then(|time| time.try_into().ok()).ok_or_else(|| Invalid::new("", "is no time")));
        let hash = faults.take("hash", parse(&hash));
        let record = at.zip(hash).map(|(at, hash)| Self {
            id,
            at,
            actor,
            authentication,
            address,
            request_id,
            action,
            object,
            reason,
            revision: Revision(revision),
            before,
            after,
            hash,
        });
        faults.into_result(record)
    }
}

impl From<&AuditChain> for v1::AuditChain {
    fn from(chain: &AuditChain) -> Self {
        let AuditChain { dropped, last } = chain;
        Self {
            dropped_id: dropped.id,
            dropped_hash: dropped.hash.to_string(),
            last_id: last.id,
            last_hash: last.hash.to_string(),
        }
    }
}

impl TryFrom<v1::AuditChain> for AuditChain {
    type Error = Invalid;

    fn try_from(wire: v1::AuditChain) -> Result<Self, Invalid> {
        let v1::AuditChain { dropped_id, dropped_hash, last_id, last_hash } = wire;
        let mut faults = Faults::new();
        let dropped = faults.take("dropped_hash", parse(&dropped_hash));
        let last = faults.take("last_hash", parse(&last_hash));
        let chain = dropped.zip(last).map(|(dropped, last)| Self {
            dropped: Link { id: dropped_id, hash: dropped },
            last: Link { id: last_id, hash: last },
        });
        faults.into_result(chain)
    }
}

fn parse(hash: &str) -> Result<Hash, Invalid> {
    hash.parse().map_err(|bad: super::chain::BadHash| Invalid::new("", bad.to_string()))
}
