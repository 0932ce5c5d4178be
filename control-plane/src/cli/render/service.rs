//! Services, summed up over their replicas.

use std::{collections::BTreeMap, fmt::Display};

use fusebox_proto::v1::Service;
use serde_json::{Value, json};

use super::{Row, or_dash};
use crate::cli::failure::Failure;

impl Row for Service {
    const COLUMNS: &'static [&'static str] =
        &["SERVICE", "REPLICAS", "BEHIND", "REJECTING", "REVISIONS", "BREAKERS", "RESTRICTED", "CALLS"];
    const WIDE: &'static [&'static str] = &["CALLED-BY", "NAMESPACES", "ZONES", "SDK", "SOURCES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.service.clone(),
            self.instances.to_string(),
            self.behind.to_string(),
            self.rejecting.to_string(),
            counts(&self.revisions),
            self.breakers.to_string(),
            self.restricted.to_string(),
            or_dash(&self.targets.join(",")),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![
            or_dash(&self.callers.join(",")),
            or_dash(&self.namespaces.join(",")),
            counts(&self.zones),
            counts(&self.sdk_versions),
            counts(&self.policy_sources),
        ]
    }

    fn id(&self) -> String {
        self.service.clone()
    }

    fn reference(&self) -> String {
        format!("service/{}", self.service)
    }

    fn value(&self) -> Result<Value, Failure> {
        Ok(json!({
            "name": self.name,
            "service": self.service,
            "namespaces": self.namespaces,
            "instances": self.instances,
            "behind": self.behind,
            "rejecting": self.rejecting,
            "revisions": self.revisions,
            "sdk_versions": self.sdk_versions,
            "zones": self.zones,
            "policy_sources": self.policy_sources,
            "targets": self.targets,
            "callers": self.callers,
            "breakers": self.breakers,
            "restricted": self.restricted,
        }))
    }
}

/// `41:2, 42:10`; of one kind only, its name.
pub(crate) fn counts<K: Display + Ord>(counts: &BTreeMap<K, u32>) -> String {
    let name = |key: &K| or_dash(&key.to_string());
    match counts.first_key_value() {
        None => or_dash(""),
        Some((key, _)) if counts.len() == 1 => name(key),
        Some(_) => counts.iter().map(|(key, count)| format!("{}:{count}", name(key))).collect::<Vec<_>>().join(", "),
    }
}
