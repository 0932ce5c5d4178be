//! Revisions of a policy.

use fusebox_proto::v1::{PolicyRevision, policy_revision::Action};
use serde_json::{Value, json};

use super::{Row, or_dash, policy};
use crate::cli::{failure::Failure, span};

impl Row for PolicyRevision {
    const COLUMNS: &'static [&'static str] = &["REV", "ACTION", "AGE", "AUTHOR", "MESSAGE"];
    const WIDE: &'static [&'static str] = &["TIME", "ETAG"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.revision.to_string(),
            action(self).to_owned(),
            span::ago(self.create_time.as_ref()),
            or_dash(&self.author),
            or_dash(&self.message),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let time = span::stamp(self.create_time.as_ref());
        let etag = self.snapshot.as_ref().map(|snapshot| snapshot.etag.as_str()).unwrap_or_default();
        vec![time.as_str().unwrap_or("-").to_owned(), or_dash(etag)]
    }

    fn id(&self) -> String {
        self.revision.to_string()
    }

    fn reference(&self) -> String {
        self.name.clone()
    }

    fn value(&self) -> Result<Value, Failure> {
        let manifest = match &self.snapshot {
            Some(snapshot) => fusebox_proto::manifest::to_json(&policy::domain(snapshot)?),
            None => Value::Null,
        };
        Ok(json!({
            "name": self.name,
            "revision": self.revision,
            "action": action(self),
            "time": span::stamp(self.create_time.as_ref()),
            "author": self.author,
            "message": self.message,
            "policy": manifest,
        }))
    }
}

/// What was done, in a word.
pub(crate) fn action(revision: &PolicyRevision) -> &'static str {
    match revision.action() {
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
        Action::Rollback => "rollback",
        Action::Candidate => "candidate",
        Action::Promote => "promote",
        Action::Unspecified => "unknown",
    }
}
