//! What each listed thing can be filtered by.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fusebox_proto::v1;

use super::{Field, Fields, Kind, Value};

/// What the fleet does about a breaker.
const FLEET_STATES: &[&str] =
    &["RELEASED", "OPEN", "HALF_OPEN", "RAMP", "FORCED_OPEN", "FORCED_CLOSED", "DISABLED", "UNSPECIFIED"];
/// What a change of a policy was.
const ACTIONS: &[&str] = &["CREATE", "UPDATE", "DELETE", "ROLLBACK", "CANDIDATE", "PROMOTE", "UNSPECIFIED"];
/// How far a rollout is.
const ROLLOUT_STATES: &[&str] = &["RUNNING", "AWAITING_PROMOTION", "PAUSED", "PROMOTED", "ABORTED", "UNSPECIFIED"];
/// What a token allows.
const ROLES: &[&str] = &["VIEWER", "OPERATOR", "ADMIN", "AGENT", "UNSPECIFIED"];
/// What an override does.
const FORCED: &[&str] = &["FORCED_OPEN", "FORCED_CLOSED", "DISABLED"];

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind }
}

fn some(text: &str) -> Option<Value<'_>> {
    Some(Value::text(text))
}

fn word(state: i32) -> Option<Value<'static>> {
    let state = v1::FleetState::try_from(state).unwrap_or_default();
    let word = state.as_str_name();
    Some(Value::text(word.strip_prefix("FLEET_STATE_").unwrap_or(word)))
}

fn span(duration: Option<&prost_types::Duration>) -> Option<Value<'static>> {
    let duration = Duration::try_from(*duration?).ok()?;
    Some(Value::Span(duration))
}

fn moment(time: Option<&prost_types::Timestamp>) -> Option<Value<'static>> {
    let time = time?;
    let since = Duration::new(u64::try_from(time.seconds).ok()?, u32::try_from(time.nanos).ok()?);
    Some(Value::Moment(UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)))
}

fn texts<'a>(all: impl IntoIterator<Item = &'a String>) -> Option<Value<'a>> {
    Some(Value::Texts(all.into_iter().map(|text| Cow::Borrowed(text.as_str())).collect()))
}

impl Fields for v1::Policy {
    const FIELDS: &'static [Field] = &[
        field("name", Kind::Text),
        field("namespace", Kind::Text),
        field("labels", Kind::Labels),
        field("caller", Kind::Text),
        field("target", Kind::Text),
        field("routes", Kind::Texts),
        field("strategies", Kind::Texts),
        field("revision", Kind::Number),
        field("create_time", Kind::Moment),
        field("update_time", Kind::Moment),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        let spec = self.spec.as_ref();
        let selector = spec.and_then(|spec| spec.r#match.as_ref());
        match field {
            "name" => some(self.name.rsplit('/').next().unwrap_or_default()),
            "namespace" => some(self.name.split('/').nth(1).unwrap_or_default()),
            "labels" => Some(Value::Labels(&self.labels)),
            "caller" => some(&selector?.caller),
            "target" => some(&selector?.target),
            "routes" => texts(&selector?.routes),
            "strategies" => texts(spec?.pipeline.iter().map(|strategy| &strategy.name)),
            "revision" => Some(Value::number(self.revision)),
            "create_time" => moment(self.create_time.as_ref()),
            "update_time" => moment(self.update_time.as_ref()),
            _ => None,
        }
    }
}

impl Fields for v1::PolicyRevision {
    const FIELDS: &'static [Field] = &[
        field("revision", Kind::Number),
        field("action", Kind::Word(ACTIONS)),
        field("author", Kind::Text),
        field("message", Kind::Text),
        field("create_time", Kind::Moment),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "revision" => Some(Value::number(self.revision)),
            "action" => {
                let word = self.action().as_str_name();
                Some(Value::text(word.strip_prefix("ACTION_").unwrap_or(word)))
            }
            "author" => some(&self.author),
            "message" => some(&self.message),
            "create_time" => moment(self.create_time.as_ref()),
            _ => None,
        }
    }
}

impl Fields for v1::Instance {
    const FIELDS: &'static [Field] = &[
        field("service", Kind::Text),
        field("instance", Kind::Text),
        field("namespace", Kind::Text),
        field("zone", Kind::Text),
        field("labels", Kind::Labels),
        field("sdk_version", Kind::Text),
        field("policy_source", Kind::Text),
        field("applied_revision", Kind::Number),
        field("wanted_revision", Kind::Number),
        field("behind", Kind::Flag),
        field("rejected", Kind::Texts),
        field("ignores_fleet", Kind::Flag),
        field("connected_for", Kind::Span),
        field("last_seen", Kind::Span),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "service" => some(&self.service),
            "instance" => some(&self.instance),
            "namespace" => some(&self.namespace),
            "zone" => some(&self.zone),
            "labels" => Some(Value::Labels(&self.labels)),
            "sdk_version" => some(&self.sdk_version),
            "policy_source" => some(&self.policy_source),
            "applied_revision" => Some(Value::number(self.applied_revision)),
            "wanted_revision" => Some(Value::number(self.wanted_revision)),
            "behind" => Some(Value::Flag(self.applied_revision != self.wanted_revision)),
            "rejected" => texts(self.rejected.iter().map(|rejected| &rejected.policy)),
            "ignores_fleet" => Some(Value::Flag(self.ignores_fleet)),
            "connected_for" => span(self.connected_for.as_ref()),
            "last_seen" => span(self.last_seen.as_ref()),
            _ => None,
        }
    }
}

impl Fields for v1::Service {
    const FIELDS: &'static [Field] = &[
        field("service", Kind::Text),
        field("namespaces", Kind::Texts),
        field("zones", Kind::Texts),
        field("sdk_versions", Kind::Texts),
        field("targets", Kind::Texts),
        field("callers", Kind::Texts),
        field("instances", Kind::Number),
        field("behind", Kind::Number),
        field("rejecting", Kind::Number),
        field("breakers", Kind::Number),
        field("restricted", Kind::Number),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "service" => some(&self.service),
            "namespaces" => texts(&self.namespaces),
            "zones" => texts(self.zones.keys()),
            "sdk_versions" => texts(self.sdk_versions.keys()),
            "targets" => texts(&self.targets),
            "callers" => texts(&self.callers),
            "instances" => Some(Value::number(self.instances.into())),
            "behind" => Some(Value::number(self.behind.into())),
            "rejecting" => Some(Value::number(self.rejecting.into())),
            "breakers" => Some(Value::number(self.breakers.into())),
            "restricted" => Some(Value::number(self.restricted.into())),
            _ => None,
        }
    }
}

/// The parts of a key that breakers, overrides and transitions are filtered by alike. `service` is the calling one.
fn key_value<'a>(key: Option<&'a v1::BreakerKey>, field: &str) -> Option<Value<'a>> {
    let key = key?;
    match field {
        "namespace" => some(&key.namespace),
        "service" | "caller" => some(&key.caller),
        "policy" => some(&key.policy),
        "strategy" => some(&key.strategy),
        "target" => some(&key.target),
        "zone" => some(&key.zone),
        _ => None,
    }
}

impl Fields for v1::Breaker {
    const FIELDS: &'static [Field] = &[
        field("target", Kind::Text),
        field("caller", Kind::Text),
        field("service", Kind::Text),
        field("state", Kind::Word(FLEET_STATES)),
        field("policy", Kind::Text),
        field("strategy", Kind::Text),
        field("namespace", Kind::Text),
        field("zone", Kind::Text),
        field("mode", Kind::Text),
        field("overridden", Kind::Flag),
        field("since", Kind::Span),
        field("instances", Kind::Number),
        field("open_instances", Kind::Number),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        let count = |fits: fn(&v1::InstanceBreaker) -> bool| {
            Some(Value::number(self.instances.iter().filter(|one| fits(one)).count() as u64))
        };
        match field {
            "state" => word(self.fleet_state),
            "mode" => some(&self.mode),
            "overridden" => Some(Value::Flag(self.r#override.is_some())),
            "since" => span(self.since.as_ref()),
            "instances" => count(|_| true),
            "open_instances" => count(|one| one.local_state() == v1::LocalState::Open),
            _ => key_value(self.key.as_ref(), field),
        }
    }
}

impl Fields for v1::Override {
    const FIELDS: &'static [Field] = &[
        field("target", Kind::Text),
        field("caller", Kind::Text),
        field("service", Kind::Text),
        field("state", Kind::Word(FORCED)),
        field("policy", Kind::Text),
        field("strategy", Kind::Text),
        field("namespace", Kind::Text),
        field("zone", Kind::Text),
        field("author", Kind::Text),
        field("reason", Kind::Text),
        field("remaining", Kind::Span),
        field("create_time", Kind::Moment),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "state" => word(self.state),
            "author" => some(&self.author),
            "reason" => some(&self.reason),
            "remaining" => span(self.remaining.as_ref()),
            "create_time" => moment(self.create_time.as_ref()),
            _ => key_value(self.selector.as_ref(), field),
        }
    }
}

impl Fields for v1::BreakerTransition {
    const FIELDS: &'static [Field] = &[
        field("target", Kind::Text),
        field("caller", Kind::Text),
        field("service", Kind::Text),
        field("policy", Kind::Text),
        field("strategy", Kind::Text),
        field("namespace", Kind::Text),
        field("zone", Kind::Text),
        field("instance", Kind::Text),
        field("fleet", Kind::Flag),
        field("from", Kind::Text),
        field("to", Kind::Text),
        field("cause", Kind::Text),
        field("id", Kind::Number),
        field("time", Kind::Moment),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "instance" => some(&self.instance),
            "fleet" => Some(Value::Flag(self.instance.is_empty())),
            "from" => some(&self.from),
            "to" => some(&self.to),
            "cause" => some(&self.cause),
            "id" => Some(Value::number(self.id)),
            "time" => moment(self.time.as_ref()),
            _ => key_value(self.key.as_ref(), field),
        }
    }
}

impl Fields for v1::Rollout {
    const FIELDS: &'static [Field] = &[
        field("policy", Kind::Text),
        field("namespace", Kind::Text),
        field("state", Kind::Word(ROLLOUT_STATES)),
        field("stage", Kind::Number),
        field("candidate_revision", Kind::Number),
        field("stable_revision", Kind::Number),
        field("author", Kind::Text),
        field("message", Kind::Text),
        field("create_time", Kind::Moment),
        field("update_time", Kind::Moment),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "policy" => some(self.policy.rsplit('/').next().unwrap_or_default()),
            "namespace" => some(self.policy.split('/').nth(1).unwrap_or_default()),
            "state" => {
                let word = self.state().as_str_name();
                Some(Value::text(word.strip_prefix("ROLLOUT_STATE_").unwrap_or(word)))
            }
            "stage" => Some(Value::number(self.stage.into())),
            "candidate_revision" => Some(Value::number(self.candidate_revision)),
            "stable_revision" => Some(Value::number(self.stable_revision)),
            "author" => some(&self.author),
            "message" => some(&self.message),
            "create_time" => moment(self.create_time.as_ref()),
            "update_time" => moment(self.update_time.as_ref()),
            _ => None,
        }
    }
}

impl Fields for v1::Token {
    const FIELDS: &'static [Field] = &[
        field("display_name", Kind::Text),
        field("role", Kind::Word(ROLES)),
        field("namespace", Kind::Text),
        field("service", Kind::Text),
        field("creator", Kind::Text),
        field("create_time", Kind::Moment),
        field("expire_time", Kind::Moment),
        field("revoker", Kind::Text),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "display_name" => some(&self.display_name),
            "role" => {
                let word = self.role().as_str_name();
                Some(Value::text(word.strip_prefix("ROLE_").unwrap_or(word)))
            }
            "namespace" => some(&self.namespace),
            "service" => some(&self.service),
            "creator" => some(&self.creator),
            "create_time" => moment(self.create_time.as_ref()),
            "expire_time" => moment(self.expire_time.as_ref()),
            "revoker" => some(&self.revoker),
            _ => None,
        }
    }
}

impl Fields for v1::AuditEvent {
    const FIELDS: &'static [Field] = &[
        field("id", Kind::Number),
        field("time", Kind::Moment),
        field("actor", Kind::Text),
        field("authentication", Kind::Text),
        field("address", Kind::Text),
        field("request_id", Kind::Text),
        field("action", Kind::Text),
        field("object", Kind::Text),
        field("reason", Kind::Text),
        field("revision", Kind::Number),
    ];

    fn value(&self, field: &str) -> Option<Value<'_>> {
        match field {
            "id" => Some(Value::number(self.id)),
            "time" => moment(self.time.as_ref()),
            "actor" => some(&self.actor),
            "authentication" => some(&self.authentication),
            "address" => some(&self.address),
            "request_id" => some(&self.request_id),
            "action" => some(&self.action),
            "object" => some(&self.object),
            "reason" => some(&self.reason),
            "revision" => Some(Value::number(self.revision)),
            _ => None,
        }
    }
}
