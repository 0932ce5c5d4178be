//! How far policies have got: which connected replicas run them.

use std::collections::BTreeMap;

use fusebox_proto::v1;

use crate::{fleet::View, store::StoredPolicy};

/// Whether a replica runs a policy as it is now. It runs everything up to the revision that it has applied, but for what it refused.
pub(super) fn runs(instance: &v1::Instance, stored: &StoredPolicy) -> bool {
    instance.applied_revision >= stored.wire.revision && !rejects(instance, stored)
}

fn rejects(instance: &v1::Instance, stored: &StoredPolicy) -> bool {
    instance.rejected.iter().any(|own| own.policy == stored.policy.name.as_str())
}

/// Connected replicas by namespace and service.
pub(super) struct Replicas<'a>(BTreeMap<(&'a str, &'a str), Vec<&'a v1::Instance>>);

impl<'a> Replicas<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for instance in view.instances.values() {
            found.entry((instance.namespace.as_str(), instance.service.as_str())).or_default().push(instance);
        }
        Self(found)
    }

    /// A policy with what has become of it.
    pub(super) fn with_status(&self, stored: &StoredPolicy) -> v1::Policy {
        let mut status = v1::PolicyStatus::default();
        let caller = stored.policy.definition.selector.caller();
        let concerned = self.0.iter().filter(|((namespace, service), _)| {
            *namespace == stored.policy.namespace.as_str() && caller.is_none_or(|caller| caller.as_str() == *service)
        });
        for instance in concerned.flat_map(|(_, instances)| instances) {
            status.instances += 1;
            status.current += u32::from(runs(instance, stored));
            status.rejecting += u32::from(rejects(instance, stored));
        }
        status.reconciling = status.current < status.instances;
        v1::Policy { status: Some(status), ..stored.wire.clone() }
    }
}
