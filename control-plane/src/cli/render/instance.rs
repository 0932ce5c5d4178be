//! Connected replicas.

use fusebox_proto::v1::{Instance, LimitShare};
use serde_json::{Value, json};

use super::{Row, or_dash};
use crate::cli::{failure::Failure, span};

impl Row for Instance {
    const COLUMNS: &'static [&'static str] =
        &["SERVICE", "INSTANCE", "ZONE", "STATE", "REV", "WANTED", "SDK", "CONNECTED"];
    const WIDE: &'static [&'static str] = &["NAMESPACE", "SOURCE", "FLEET", "LAST-SEEN", "LABELS", "REJECTED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.service.clone(),
            self.instance.clone(),
            or_dash(&self.zone),
            state(self).to_owned(),
            self.applied_revision.to_string(),
            self.wanted_revision.to_string(),
            or_dash(&self.sdk_version),
            span::cell(self.connected_for.as_ref()),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let rejected: Vec<_> =
            self.rejected.iter().map(|one| format!("{}@{}: {}", one.policy, one.revision, one.reason)).collect();
        vec![
            or_dash(&self.namespace),
            or_dash(&self.policy_source),
            if self.ignores_fleet { "ignored" } else { "obeyed" }.to_owned(),
            span::cell(self.last_seen.as_ref()),
            or_dash(&labels.join(",")),
            or_dash(&rejected.join("; ")),
        ]
    }

    fn id(&self) -> String {
        format!("{}/{}", self.service, self.instance)
    }

    fn reference(&self) -> String {
        format!("instance/{}", self.id())
    }

    fn value(&self) -> Result<Value, Failure> {
        Ok(json!({
            "name": self.name,
            "namespace": self.namespace,
            "service": self.service,
            "instance": self.instance,
            "zone": self.zone,
            "labels": self.labels,
            // As text: JSON readers that keep numbers as doubles would change it.
            "incarnation": self.incarnation.to_string(),
            "sdk_version": self.sdk_version,
            "policy_source": self.policy_source,
            "ignores_fleet": self.ignores_fleet,
            "applied_revision": self.applied_revision,
            "wanted_revision": self.wanted_revision,
            "state": state(self),
            "unshared_breakers": self.unshared_breakers,
            "rejected": self.rejected.iter().map(|one| json!({
                "policy": one.policy,
                "revision": one.revision,
                "reason": one.reason,
            })).collect::<Vec<_>>(),
            "limits": self.limits.iter().map(|one| json!({
                "policy": one.policy,
                "strategy": one.strategy,
                "target": one.target,
                "share_ppm": one.ppm,
                "acknowledged": one.acknowledged,
                "wanted_per_second": one.wanted_per_second,
            })).collect::<Vec<_>>(),
            "connected_for_ms": span::millis(self.connected_for.as_ref()),
            "last_seen_ms": span::millis(self.last_seen.as_ref()),
        }))
    }
}

/// Whether it runs what it should. Ahead is who runs something later than a database that was restored from an older backup.
pub(crate) const fn state(instance: &Instance) -> &'static str {
    if !instance.rejected.is_empty() {
        "rejecting"
    } else if instance.applied_revision < instance.wanted_revision {
        "behind"
    } else if instance.applied_revision > instance.wanted_revision {
        "ahead"
    } else {
        "current"
    }
}

/// The part of a limit that the fleet shares, as people read it: `33.3%`.
pub(crate) fn share(limit: &LimitShare) -> String {
    match limit.ppm {
        0 => "none free yet".to_owned(),
        ppm => format!("{:.1}%", f64::from(ppm) / 10_000.0),
    }
}

/// The calls that a replica wants to make: `120/s`.
pub(crate) fn wanted(limit: &LimitShare) -> String {
    limit.wanted_per_second.map_or_else(|| or_dash(""), |rate| format!("{rate:.1}/s"))
}
