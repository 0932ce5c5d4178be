//! Services, summed up over what is connected.

use std::collections::{BTreeMap, BTreeSet};

use fusebox_proto::v1;

use super::View;
use crate::access::Scope;

impl View {
    /// Every service that replicas connect as, or that they call through a breaker, by resource name: as far as a scope goes.
    #[must_use]
    pub fn services(&self, scope: &Scope) -> BTreeMap<String, v1::Service> {
        let mut found: BTreeMap<&str, v1::Service> = BTreeMap::new();
        let mut namespaces: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for instance in self.instances.values().filter(|instance| scope.covers_text(&instance.namespace)) {
            let service = found.entry(&instance.service).or_default();
            service.instances += 1;
            service.behind += u32::from(instance.applied_revision != instance.wanted_revision);
            service.rejecting += u32::from(!instance.rejected.is_empty());
            *service.revisions.entry(instance.applied_revision).or_default() += 1;
            *service.sdk_versions.entry(instance.sdk_version.clone()).or_default() += 1;
            *service.zones.entry(instance.zone.clone()).or_default() += 1;
            *service.policy_sources.entry(instance.policy_source.clone()).or_default() += 1;
            namespaces.entry(&instance.service).or_default().insert(&instance.namespace);
        }
        let mut calls: BTreeSet<(&str, &str)> = BTreeSet::new();
        for breaker in self.breakers.values() {
            let Some(key) = breaker.key.as_ref().filter(|key| scope.covers_text(&key.namespace)) else { continue };
            let service = found.entry(&key.caller).or_default();
            service.breakers += 1;
            service.restricted += u32::from(breaker.fleet_state() != v1::FleetState::Released);
            calls.insert((&key.caller, &key.target));
        }
        for (caller, target) in calls {
            found.entry(caller).or_default().targets.push(target.to_owned());
            found.entry(target).or_default().callers.push(caller.to_owned());
        }
        let named = found.into_iter().map(|(id, service)| {
            let name = format!("services/{id}");
            let within = namespaces.remove(id).unwrap_or_default();
            let namespaces = within.into_iter().map(str::to_owned).collect();
            (name.clone(), v1::Service { name, service: id.to_owned(), namespaces, ..service })
        });
        named.collect()
    }
}
