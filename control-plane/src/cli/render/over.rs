//! Overrides: a human's word on a breaker.

use fusebox_proto::v1::{BreakerKey, Override};
use serde_json::{Value, json};

use super::{Row, fleet_word, or_dash};
use crate::cli::{failure::Failure, span};

impl Row for Override {
    const COLUMNS: &'static [&'static str] =
        &["ID", "TARGET", "CALLER", "POLICY", "ZONE", "STATE", "LEFT", "CONFIRMED", "REASON"];
    const WIDE: &'static [&'static str] = &["NAMESPACE", "STRATEGY", "AUTHOR", "WAITING-FOR"];

    fn cells(&self) -> Vec<String> {
        let key = self.selector.clone().unwrap_or_default();
        let any = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
        vec![
            self.id.to_string(),
            any(&key.target),
            any(&key.caller),
            any(&key.policy),
            any(&key.zone),
            fleet_word(self.state).to_owned(),
            span::cell(self.remaining.as_ref()),
            confirmed(self),
            or_dash(&self.reason),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let key = self.selector.clone().unwrap_or_default();
        let any = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
        vec![any(&key.namespace), any(&key.strategy), or_dash(&self.author), or_dash(&self.unacknowledged.join(","))]
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn reference(&self) -> String {
        format!("override/{}", self.id)
    }

    fn value(&self) -> Result<Value, Failure> {
        Ok(value(self))
    }
}

/// `2/3`: of the replicas that hold a matching breaker, those that have confirmed.
fn confirmed(word: &Override) -> String {
    format!("{}/{}", word.acknowledged, word.acknowledged as usize + word.unacknowledged.len())
}

/// The JSON form.
pub(super) fn value(word: &Override) -> Value {
    json!({
        "id": word.id,
        "name": word.name,
        "etag": word.etag,
        "state": fleet_word(word.state),
        "reason": word.reason,
        "author": word.author,
        "selector": word.selector.as_ref().map(key),
        "create_time": span::stamp(word.create_time.as_ref()),
        "expire_time": span::stamp(word.expire_time.as_ref()),
        "remaining_ms": span::millis(word.remaining.as_ref()),
        "acknowledged": word.acknowledged,
        "unacknowledged": word.unacknowledged,
        "unsupported": word.unsupported,
    })
}

fn key(key: &BreakerKey) -> Value {
    json!({
        "namespace": key.namespace,
        "caller": key.caller,
        "policy": key.policy,
        "strategy": key.strategy,
        "target": key.target,
        "zone": key.zone,
    })
}
