//! Transitions of breakers.

use fusebox_proto::v1::BreakerTransition;
use serde_json::{Value, json};

use super::{Row, or_dash, or_null};
use crate::cli::{failure::Failure, span};

impl Row for BreakerTransition {
    const COLUMNS: &'static [&'static str] = &["TIME", "TARGET", "CALLER", "WHO", "FROM", "TO", "CAUSE", "DETAIL"];
    const WIDE: &'static [&'static str] = &["NAMESPACE", "POLICY", "STRATEGY", "ZONE", "CALLS", "FAILURES", "ID"];

    fn cells(&self) -> Vec<String> {
        let key = self.key.clone().unwrap_or_default();
        // The exact time, not an age: events are put side by side with logs.
        let time = span::stamp(self.time.as_ref());
        let who = if self.instance.is_empty() { "fleet" } else { &self.instance };
        vec![
            time.as_str().unwrap_or("-").to_owned(),
            or_dash(&key.target),
            or_dash(&key.caller),
            who.to_owned(),
            or_dash(&self.from),
            or_dash(&self.to),
            or_dash(&self.cause),
            or_dash(&self.detail),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let key = self.key.clone().unwrap_or_default();
        vec![
            or_dash(&key.namespace),
            or_dash(&key.policy),
            or_dash(&key.strategy),
            or_dash(&key.zone),
            self.window_calls.to_string(),
            self.window_failures.to_string(),
            self.id.to_string(),
        ]
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn reference(&self) -> String {
        format!("event/{}", self.id)
    }

    fn value(&self) -> Result<Value, Failure> {
        let key = self.key.clone().unwrap_or_default();
        Ok(json!({
            "id": self.id,
            "time": span::stamp(self.time.as_ref()),
            "namespace": key.namespace,
            "caller": key.caller,
            "policy": key.policy,
            "strategy": key.strategy,
            "target": key.target,
            "zone": key.zone,
            // Null for a decision of the fleet.
            "instance": or_null(&self.instance),
            "scope": if self.instance.is_empty() { "fleet" } else { "instance" },
            "from": self.from,
            "to": self.to,
            "cause": self.cause,
            "detail": self.detail,
            "calls": self.window_calls,
            "failures": self.window_failures,
        }))
    }
}
