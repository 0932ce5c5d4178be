//! The audit log at the end of a run: a whole chain, a record for each change that the run has seen, and no record of what was not.

use std::{collections::BTreeMap, time::Duration};

use fusebox_control_plane::store::audit::{AuditChain, AuditRecord, Walk};
use fusebox_policy::fleet::invariants::Invariant;
use fusebox_proto::sync::v1::sync_response::Message as Down;
use serde_json::Value;

use super::{Violation, state};
use crate::history::{Event, Taken, What};

/// What was changed: the action, the object, and more that tells one from another.
type Change = (String, String, String);

/// Holds the history against the logs of all disks that there have been, each with both ends of its chain.
pub(crate) fn check(events: &[Event], audits: &[(Vec<AuditRecord>, AuditChain)]) -> Vec<Violation> {
    let end = events.last().map_or(Duration::ZERO, |event| event.at);
    let mut found = Vec::new();
    let mut broken = |at, what: String| found.push(Violation { rule: Invariant::S15.into(), at, what });
    let mut records: BTreeMap<(u64, [u8; 32]), &AuditRecord> = BTreeMap::new();
    for (log, chain) in audits {
        let mut walk = Walk::from(chain.dropped);
        let whole = log.iter().try_for_each(|record| walk.step(record)).and_then(|()| walk.end(chain.last));
        if let Err(why) = whole {
            broken(end, format!("the chain of the audit log is broken: {why}"));
        }
        // A restored copy begins with the very records of the disk that it is a copy of.
        records.extend(log.iter().map(|record| ((record.id, record.hash.0), record)));
    }
    let mut recorded: BTreeMap<Change, i64> = BTreeMap::new();
    for record in records.values() {
        if let Some(change) = change_of(record) {
            *recorded.entry(change).or_default() += 1;
        }
    }
    for Event { at, what } in events {
        let Some(change) = changes(what) else { continue };
        let left = recorded.entry(change.clone()).or_default();
        *left -= 1;
        if *left < 0 {
            broken(*at, format!("{change:?} is not on record"));
        }
    }
    for (change, _) in recorded.iter().filter(|(_, left)| **left > 0) {
        broken(end, format!("{change:?} is on record, and did not happen"));
    }
    for record in records.values().filter(|record| record.action == "fleet.verdict") {
        if let Some(what) = contradicts(record, events) {
            broken(end, what);
        }
    }
    found
}

/// What a record tells of, if the history tells of it too.
fn change_of(record: &AuditRecord) -> Option<Change> {
    let AuditRecord { action, object, revision, before, after, .. } = record;
    let of = |text: &Option<String>, name: &str| -> String {
        let json: Value = text.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        json[name].as_str().map_or_else(|| json[name].to_string(), ToOwned::to_owned)
    };
    let detail = match action.as_str() {
        "fleet.verdict" => format!("{} to {}", of(before, "state"), of(after, "state")),
        "term.raise" => of(after, "term"),
        "rollout.start" => String::new(),
        "rollout.promote" | "rollout.pause" | "rollout.resume" | "rollout.abort" => of(after, "state"),
        _ => return None,
    };
    let detail = if action.starts_with("rollout") { format!("{revision}: {detail}") } else { detail };
    Some((action.clone(), object.clone(), detail))
}

/// The same of what happened.
fn changes(what: &What) -> Option<Change> {
    use fusebox_control_plane::rollouts::machine::State;
    match what {
        What::Logged { key: _, object, from, to } => {
            Some(("fleet.verdict".to_owned(), object.clone(), format!("{from} to {to}")))
        }
        What::Term(term) => Some(("term.raise".to_owned(), "store".to_owned(), term.to_string())),
        What::Stored(stored) => {
            let rollout = stored.stepped.as_ref()?;
            let begun = stored.revision == rollout.candidate.0;
            let action = match rollout.standing.state {
                State::Running if begun => "start",
                State::Running if rollout.stage_revision.0 < stored.revision => "resume",
                State::Running | State::Promoted => "promote",
                State::Paused => "pause",
                State::Aborted => "abort",
            };
            let state = if begun { "" } else { rollout.standing.state.name() };
            Some((format!("rollout.{action}"), rollout.name(), format!("{}: {state}", stored.revision)))
        }
        What::Started { .. }
        | What::Shown { .. }
        | What::Admitted { .. }
        | What::Refused { .. }
        | What::Ended { .. }
        | What::Reached { .. }
        | What::Told { .. }
        | What::Arrived { .. }
        | What::Issued { .. }
        | What::Heard { .. }
        | What::ServerUp
        | What::Fault(_)
        | What::Ordered(
            Taken::Applied { .. }
            | Taken::Forced { .. }
            | Taken::Released
            | Taken::Stepped { .. }
            | Taken::Refused { .. }
            | Taken::Overrides { .. },
        ) => None,
    }
}

/// Whether replicas were told something else under the number of a verdict that is on record.
fn contradicts(record: &AuditRecord, events: &[Event]) -> Option<String> {
    let after: Value = serde_json::from_str(record.after.as_deref()?).ok()?;
    let verdict = after.get("verdict")?;
    let number = |name: &str| verdict[name].as_u64();
    let told = events.iter().find_map(|event| {
        let What::Issued { message, .. } = &event.what else { return None };
        let Some(Down::Verdict(told)) = &message.message else { return None };
        let policy = told.key.as_ref().map(|key| key.policy.as_str()).unwrap_or_default();
        let same = Some(told.term) == number("term") && Some(told.rev) == number("rev");
        (same && record.object.contains(policy)).then_some(told)
    })?;
    let agrees = after["state"] == state(told).name() && Some(told.policy_revision) == number("policyRevision");
    (!agrees).then(|| format!("replicas were told {told:?}, and {after} is on record"))
}

#[test]
fn a_change_without_a_record_and_a_record_without_a_change_are_found() {
    use fusebox_control_plane::store::{Store as _, audit::AuditFilter, memory::MemoryStore};
    use futures_util::future::FutureExt as _;

    let store = MemoryStore::new("audited");
    let term = store.next_term(7).now_or_never().expect("memory answers at once").expect("memory can be written");
    let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
    let page = store.audit(filter).now_or_never().expect("memory answers at once").expect("memory can be read");
    let mut logs = [(page.records, page.chain)];
    let happened = Event { at: Duration::ZERO, what: What::Term(term) };
    assert!(check(std::slice::from_ref(&happened), &logs).is_empty());
    assert_eq!(check(&[], &logs).len(), 1, "it did not happen");
    assert_eq!(check(&[happened.clone(), happened.clone()], &logs).len(), 1, "it is recorded once");
    logs[0].0[0].reason = "another one".to_owned();
    assert_eq!(check(&[happened], &logs).len(), 1, "the chain is broken");
}
