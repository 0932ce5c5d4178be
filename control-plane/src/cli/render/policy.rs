//! Policies.

use fusebox_policy::Policy;
use fusebox_proto::{
    manifest,
    v1::{self, CoordinationMode, CoordinationScope, strategy},
};
use serde_json::{Value, json};

use super::{Row, or_dash};
use crate::cli::{
    failure::{Class, Failure},
    span,
};

impl Row for v1::Policy {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "NAMESPACE", "TARGET", "CALLER", "PIPELINE", "MODE", "REV", "AGE"];
    const WIDE: &'static [&'static str] = &["ROUTES", "SCOPE", "LABELS", "ETAG", "RUN-BY"];

    fn cells(&self) -> Vec<String> {
        let selector = self.spec.as_ref().and_then(|spec| spec.r#match.as_ref());
        vec![
            self.id(),
            namespace_of(&self.name).to_owned(),
            or_dash(selector.map_or("", |selector| &selector.target)),
            or_dash(selector.map_or("", |selector| &selector.caller)),
            pipeline(self),
            mode(self).to_owned(),
            self.revision.to_string(),
            span::ago(self.update_time.as_ref()),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let routes =
            self.spec.as_ref().and_then(|spec| spec.r#match.as_ref()).map(|selector| selector.routes.join(", "));
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            or_dash(&routes.unwrap_or_default()),
            scope(self).to_owned(),
            or_dash(&labels.join(",")),
            or_dash(&self.etag),
            or_dash(&run_by(self)),
        ]
    }

    fn id(&self) -> String {
        id(&self.name).to_owned()
    }

    fn reference(&self) -> String {
        label(&self.name)
    }

    fn value(&self) -> Result<Value, Failure> {
        let mut value = manifest::to_json(&domain(self)?);
        if let Some(fields) = value.as_object_mut() {
            let mut status = json!({
                "revision": self.revision,
                "etag": self.etag,
                "createTime": span::stamp(self.create_time.as_ref()),
                "updateTime": span::stamp(self.update_time.as_ref()),
            });
            if let Some(own) = &self.status {
                status["reconciling"] = own.reconciling.into();
                status["instances"] = own.instances.into();
                status["currentInstances"] = own.current.into();
                status["rejectingInstances"] = own.rejecting.into();
            }
            fields.insert("status".to_owned(), status);
        }
        Ok(value)
    }

    fn yaml(&self) -> Result<String, Failure> {
        Ok(manifest::to_yaml(&domain(self)?))
    }

    fn yaml_list(items: &[Self]) -> Result<String, Failure> {
        let documents: Vec<_> = items.iter().map(Row::yaml).collect::<Result<_, _>>()?;
        Ok(documents.iter().map(|text| text.strip_prefix("---\n").unwrap_or(text)).collect::<Vec<_>>().join("---\n"))
    }
}

/// The policy as the core knows it.
///
/// # Errors
/// If the server knows something that this program does not.
pub(crate) fn domain(policy: &v1::Policy) -> Result<Policy, Failure> {
    Policy::try_from(policy.clone()).map_err(|invalid| {
        Failure::new(Class::Failed, format!("cannot show {}: {invalid}", label(&policy.name)))
            .fix("the server is probably newer than this program: compare `fusebox version --server`")
    })
}

/// `service-b` of `namespaces/default/policies/service-b`.
pub(crate) fn id(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, id)| id)
}

/// `default` of `namespaces/default/policies/service-b`.
pub(crate) fn namespace_of(name: &str) -> &str {
    name.split('/').nth(1).unwrap_or_default()
}

/// `policy/service-b`.
pub(crate) fn label(name: &str) -> String {
    format!("policy/{}", id(name))
}

/// `fallback(retry(circuitBreaker(timeout)))`.
fn pipeline(policy: &v1::Policy) -> String {
    let strategies = policy.spec.as_ref().map(|spec| spec.pipeline.as_slice()).unwrap_or_default();
    let kinds: Vec<_> = strategies.iter().map(kind).collect();
    format!("{}{}", kinds.join("("), ")".repeat(kinds.len().saturating_sub(1)))
}

const fn kind(strategy: &v1::Strategy) -> &'static str {
    match &strategy.kind {
        Some(strategy::Kind::Timeout(_)) => "timeout",
        Some(strategy::Kind::Retry(_)) => "retry",
        Some(strategy::Kind::CircuitBreaker(_)) => "circuitBreaker",
        Some(strategy::Kind::Fallback(_)) => "fallback",
        Some(strategy::Kind::Bulkhead(_)) => "bulkhead",
        Some(strategy::Kind::RateLimiter(_)) => "rateLimiter",
        Some(strategy::Kind::Hedge(_)) => "hedge",
        Some(strategy::Kind::ConcurrencyLimit(_)) => "concurrencyLimit",
        Some(strategy::Kind::Throttle(_)) => "throttle",
        Some(strategy::Kind::Cache(_)) => "cache",
        Some(strategy::Kind::Chaos(_)) => "chaos",
        None => "unknown",
    }
}

fn coordination(policy: &v1::Policy) -> v1::Coordination {
    policy.spec.as_ref().and_then(|spec| spec.coordination).unwrap_or_default()
}

fn mode(policy: &v1::Policy) -> &'static str {
    match coordination(policy).mode() {
        CoordinationMode::Unspecified | CoordinationMode::Balanced => "balanced",
        CoordinationMode::Quorum => "quorum",
        CoordinationMode::Pooled => "pooled",
        CoordinationMode::Any => "any",
        CoordinationMode::Local => "local",
    }
}

fn scope(policy: &v1::Policy) -> &'static str {
    match coordination(policy).scope() {
        CoordinationScope::Unspecified | CoordinationScope::Zone => "zone",
        CoordinationScope::Fleet => "fleet",
    }
}

/// A unified diff of two canonical texts, or nothing if they are equal. `before` absent means created.
pub(crate) fn unified(before: Option<&str>, after: Option<&str>, old_name: &str, new_name: &str) -> String {
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    let old_name = if before.is_none() { "/dev/null" } else { old_name };
    let new_name = if after.is_none() { "/dev/null" } else { new_name };
    similar::TextDiff::from_lines(old, new).unified_diff().context_radius(3).header(old_name, new_name).to_string()
}

/// The diff with the colours that people expect; `anstream` takes them off where they do not belong.
pub(crate) fn coloured(diff: &str) -> String {
    use anstyle::{AnsiColor, Style};
    let mut text = String::new();
    for line in diff.lines() {
        let colour = match line.as_bytes() {
            [b'+', ..] => Some(AnsiColor::Green),
            [b'-', ..] => Some(AnsiColor::Red),
            [b'@', ..] => Some(AnsiColor::Cyan),
            _ => None,
        };
        let style = Style::new().fg_color(colour.map(Into::into));
        text.push_str(&format!("{style}{line}{style:#}\n"));
    }
    text
}

/// How many of the replicas that it concerns run it: `2/3`.
fn run_by(policy: &v1::Policy) -> String {
    policy.status.as_ref().map(|own| format!("{}/{}", own.current, own.instances)).unwrap_or_default()
}
