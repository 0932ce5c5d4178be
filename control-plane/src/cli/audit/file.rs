//! The log as a file: a line that tells its ends, then one line per record.
//!
//! What a record says of before and after stays text here, as it is in the log: its digest is over exactly that text.

use std::time::SystemTime;

use fusebox_policy::Revision;
use serde::{Deserialize, Serialize};

use crate::{
    cli::failure::{Class, Failure},
    store::audit::{AuditChain, AuditRecord, Hash, Link},
};

/// What the first line begins with.
const FORM: &str = "fusebox audit 1";

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    form: String,
    store_id: String,
    dropped_id: u64,
    dropped_hash: String,
    last_id: u64,
    last_hash: String,
}

/// The other lines.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    id: u64,
    time: String,
    actor: String,
    authentication: String,
    address: String,
    request_id: String,
    action: String,
    object: String,
    reason: String,
    revision: u64,
    before: Option<String>,
    after: Option<String>,
    hash: String,
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|error| Failure::new(Class::Failed, format!("cannot write this as JSON: {error}")))
}

/// The first line of a file.
pub(super) fn head(store_id: &str, chain: &AuditChain) -> Result<String, Failure> {
    json(&Head {
        form: FORM.to_owned(),
        store_id: store_id.to_owned(),
        dropped_id: chain.dropped.id,
        dropped_hash: chain.dropped.hash.to_string(),
        last_id: chain.last.id,
        last_hash: chain.last.hash.to_string(),
    })
}

/// The line of a record.
pub(super) fn line(record: &AuditRecord) -> Result<String, Failure> {
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
    } = record.clone();
    json(&Line {
        id,
        time: humantime::format_rfc3339_micros(at).to_string(),
        actor,
        authentication,
        address,
        request_id,
        action,
        object,
        reason,
        revision: revision.0,
        before,
        after,
        hash: hash.to_string(),
    })
}

fn broken(number: usize, why: impl std::fmt::Display) -> Failure {
    Failure::new(Class::Failed, format!("line {number} is not of an exported audit log: {why}"))
}

fn hash(number: usize, text: &str) -> Result<Hash, Failure> {
    text.parse().map_err(|bad| broken(number, bad))
}

/// Reads the first line.
pub(super) fn read_head(text: &str) -> Result<(String, AuditChain), Failure> {
    let head: Head = serde_json::from_str(text).map_err(|error| broken(1, error))?;
    if head.form != FORM {
        return Err(broken(1, format!("its form is {:?}, not {FORM:?}", head.form)));
    }
    let chain = AuditChain {
        dropped: Link { id: head.dropped_id, hash: hash(1, &head.dropped_hash)? },
        last: Link { id: head.last_id, hash: hash(1, &head.last_hash)? },
    };
    Ok((head.store_id, chain))
}

/// Reads the line of a record. `number` is that of the line, from 1.
pub(super) fn read_line(number: usize, text: &str) -> Result<AuditRecord, Failure> {
    let line: Line = serde_json::from_str(text).map_err(|error| broken(number, error))?;
    let at: SystemTime = humantime::parse_rfc3339(&line.time).map_err(|error| broken(number, error))?;
    Ok(AuditRecord {
        id: line.id,
        at,
        actor: line.actor,
        authentication: line.authentication,
        address: line.address,
        request_id: line.request_id,
        action: line.action,
        object: line.object,
        reason: line.reason,
        revision: Revision(line.revision),
        before: line.before,
        after: line.after,
        hash: hash(number, &line.hash)?,
    })
}
