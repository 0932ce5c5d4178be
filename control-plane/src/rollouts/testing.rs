//! Replicas for the tests of this room.

use fusebox_policy::{CallerName, InstanceId, Namespace, Zone, fleet::evidence::MemberId};

use crate::fleet::Identity;

pub(crate) fn replica(instance: &str, zone: Option<&str>) -> Identity {
    Identity {
        namespace: Namespace::default_namespace(),
        caller: CallerName::try_new("service-a").unwrap(),
        member: MemberId { instance: InstanceId::try_new(instance).unwrap(), incarnation: 1 },
        zone: zone.map(|zone| Zone::try_new(zone).unwrap()),
        labels: std::collections::BTreeMap::new(),
        sdk_version: String::new(),
        policy_source: String::new(),
        seen: Default::default(),
        ignores_fleet: false,
        knows_disabled: true,
    }
}
