//! The chain of hashes that makes a changed, removed or inserted record show.
//!
//! A record's hash is the SHA-256 of the text `fusebox audit 1`, the hash of the record before it (32 zero bytes before the first), and its
//! fields in this order: id, time in microseconds since 1970, actor, authentication, address, request id, action, object, reason, revision,
//! digest of before, digest of after. Each of these parts is preceded by its length in bytes as a 64-bit big-endian number. Numbers are
//! decimal text; a digest is the SHA-256 of the content, and empty if there is none.
//!
//! The chain shows what somebody changed in the middle. Who can write the whole database can also make a new chain: against that, keep the
//! last link somewhere else and compare.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use super::{AuditRecord, NewAudit};
use crate::{
    caller::Caller,
    store::{Note, plan},
};

/// What the hash of a record begins with.
const FORM: &str = "fusebox audit 1";

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

/// A record and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Link {
    /// The record's number; zero before the first.
    pub id: u64,
    /// Its hash.
    pub hash: Hash,
}

/// Both ends of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AuditChain {
    /// The record before the oldest that is kept.
    pub dropped: Link,
    /// The newest record.
    pub last: Link,
}

/// Walks a log from its oldest record.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    at: Link,
}

/// The first record that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Records between this one and the one before are gone, or the order is another.
    #[error("record {expected} is missing: record {found} follows")]
    Missing {
        /// What should follow.
        expected: u64,
        /// What does.
        found: u64,
    },
    /// It, or the record before it, was changed.
    #[error("record {0} is not as it was written")]
    Changed(u64),
    /// The newest records are gone, or the last link was changed.
    #[error("the log ends with record {found}, and record {expected} was written")]
    Ends {
        /// The last one that was written.
        expected: u64,
        /// The last one that is there.
        found: u64,
    },
}

// === impl Hash ===

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal digits")]
pub struct BadHash;

impl FromStr for Hash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(BadHash);
        }
        for (place, byte) in hash.iter_mut().enumerate() {
            let digits = text.get(2 * place..2 * place + 2).ok_or(BadHash)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BadHash)?;
        }
        Ok(Self(hash))
    }
}

// === impl AuditChain ===

impl AuditChain {
    /// Makes the next record.
    pub(in crate::store) fn append(&mut self, new: NewAudit) -> AuditRecord {
        let NewAudit { action, object, note, revision, before, after } = new;
        let Note { caller, message, at } = note;
        let Caller { name, authentication, address, request_id } = caller;
        let mut record = AuditRecord {
            id: self.last.id + 1,
            // As it is read back.
            at: plan::from_micros(plan::to_micros(at)),
            actor: name,
            authentication: authentication.name().to_owned(),
            address,
            request_id,
            action: action.name().to_owned(),
            object,
            reason: message,
            revision,
            before,
            after,
            hash: Hash::default(),
        };
        record.hash = hash(&self.last.hash, &record);
        self.last = Link { id: record.id, hash: record.hash };
        record
    }
}

// === impl Walk ===

impl Walk {
    /// From the record before the oldest.
    #[must_use]
    pub const fn from(dropped: Link) -> Self {
        Self { at: dropped }
    }

    /// The last record that was good.
    #[must_use]
    pub const fn at(&self) -> Link {
        self.at
    }

    /// Checks the next record.
    ///
    /// # Errors
    /// It is not the next one, or not as it was written.
    pub fn step(&mut self, record: &AuditRecord) -> Result<(), Broken> {
        let expected = self.at.id + 1;
        if record.id != expected {
            return Err(Broken::Missing { expected, found: record.id });
        }
        if hash(&self.at.hash, record) != record.hash {
            return Err(Broken::Changed(record.id));
        }
        self.at = Link { id: record.id, hash: record.hash };
        Ok(())
    }

    /// Checks that the walk has come to the end.
    ///
    /// # Errors
    /// The newest records are missing.
    pub fn end(&self, last: Link) -> Result<(), Broken> {
        if self.at.id != last.id {
            return Err(Broken::Ends { expected: last.id, found: self.at.id });
        }
        if self.at.hash == last.hash { Ok(()) } else { Err(Broken::Changed(last.id)) }
    }
}

/// The digest of what a record says of before or after.
#[must_use]
pub fn digest(content: &str) -> Hash {
    Hash(Sha256::digest(content).into())
}

fn hash(previous: &Hash, record: &AuditRecord) -> Hash {
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
        hash: _,
    } = record;
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    };
    add(FORM.as_bytes());
    add(&previous.0);
    add(id.to_string().as_bytes());
    add(plan::to_micros(*at).to_string().as_bytes());
    for text in [actor, authentication, address, request_id, action, object, reason] {
        add(text.as_bytes());
    }
    add(revision.0.to_string().as_bytes());
    for content in [before, after] {
        add(content.as_deref().map(digest).as_ref().map_or(&[], |digest| &digest.0));
    }
    Hash(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use fusebox_policy::Revision;

    use super::*;
    use crate::store::audit::AuditAction;

    fn log(length: usize) -> (Vec<AuditRecord>, AuditChain) {
        let mut chain = AuditChain::default();
        let record = |index: usize| NewAudit {
            action: AuditAction::PolicyUpdate,
            object: format!("namespaces/default/policies/p{index}"),
            note: Note {
                caller: Caller::unauthenticated("ada"),
                message: "why".to_owned(),
                at: plan::from_micros(index as i64),
            },
            revision: Revision(index as u64),
            before: (index > 0).then(|| "{}".to_owned()),
            after: Some("{\"a\":1}".to_owned()),
        };
        ((0..length).map(|index| chain.append(record(index))).collect(), chain)
    }

    fn walk(records: &[AuditRecord], chain: &AuditChain) -> Result<(), Broken> {
        let mut walk = Walk::from(chain.dropped);
        records.iter().try_for_each(|record| walk.step(record))?;
        walk.end(chain.last)
    }

    #[test]
    fn a_change_of_any_part_of_any_record_is_named() {
        type Change = fn(&mut AuditRecord);
        let changes: [Change; 13] = [
            |record| record.at += std::time::Duration::from_micros(1),
            |record| record.actor.push('x'),
            |record| record.authentication.push('x'),
            |record| record.address.push('x'),
            |record| record.request_id.push('x'),
            |record| record.action.push('x'),
            |record| record.object.push('x'),
            |record| record.reason.push('x'),
            |record| record.revision = Revision(99),
            |record| record.before = Some("{\"b\":1}".to_owned()),
            |record| record.after = None,
            |record| record.hash.0[31] ^= 1,
            // What leaves one field and enters the next.
            |record| record.actor = std::mem::take(&mut record.authentication),
        ];
        let (good, chain) = log(4);
        assert_eq!(walk(&good, &chain), Ok(()));
        for change in changes {
            let mut records = good.clone();
            change(&mut records[1]);
            assert_eq!(walk(&records, &chain), Err(Broken::Changed(2)));
        }
    }

    #[test]
    fn a_record_that_is_gone_is_named_wherever_it_was() {
        let (good, chain) = log(4);
        let without = |index: usize| {
            let mut records = good.clone();
            records.remove(index);
            walk(&records, &chain)
        };
        assert_eq!(without(0), Err(Broken::Missing { expected: 1, found: 2 }));
        assert_eq!(without(2), Err(Broken::Missing { expected: 3, found: 4 }));
        assert_eq!(without(3), Err(Broken::Ends { expected: 4, found: 3 }));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let (records, _) = log(1);
        let text = records[0].hash.to_string();
        assert_eq!(text.parse(), Ok(records[0].hash));
        for bad in ["", "00", &text[1..], &text.replace(&text[..1], "g")] {
            assert_eq!(bad.parse::<Hash>(), Err(BadHash), "{bad}");
        }
    }
}
