//! Audit events.

use fusebox_proto::v1::AuditEvent;
use serde_json::{Value, json};

use super::{Row, or_dash, or_null};
use crate::cli::{failure::Failure, span};

impl Row for AuditEvent {
    const COLUMNS: &'static [&'static str] = &["TIME", "ACTOR", "ACTION", "OBJECT", "REV", "REASON"];
    const WIDE: &'static [&'static str] = &["AUTHENTICATION", "ADDRESS", "REQUEST", "ID"];

    fn cells(&self) -> Vec<String> {
        // The exact time, not an age: who looks here puts it side by side with logs.
        let time = span::stamp(self.time.as_ref());
        vec![
            time.as_str().unwrap_or("-").to_owned(),
            or_dash(&self.actor),
            or_dash(&self.action),
            or_dash(&self.object),
            if self.revision == 0 { "-".to_owned() } else { self.revision.to_string() },
            or_dash(&self.reason),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![or_dash(&self.authentication), or_dash(&self.address), or_dash(&self.request_id), self.id.to_string()]
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn reference(&self) -> String {
        format!("audit/{}", self.id)
    }

    fn value(&self) -> Result<Value, Failure> {
        // What is no JSON is shown as the text that it is.
        let content = |content: Option<&String>| {
            content.map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()))
        };
        Ok(json!({
            "id": self.id,
            "time": span::stamp(self.time.as_ref()),
            "actor": self.actor,
            "authentication": self.authentication,
            "address": or_null(&self.address),
            "requestId": or_null(&self.request_id),
            "action": self.action,
            "object": self.object,
            "reason": self.reason,
            "revision": if self.revision == 0 { Value::Null } else { self.revision.into() },
            "before": content(self.before.as_ref()),
            "after": content(self.after.as_ref()),
            "beforeSha256": or_null(&self.before_sha256),
            "afterSha256": or_null(&self.after_sha256),
            "hash": self.hash,
        }))
    }
}
