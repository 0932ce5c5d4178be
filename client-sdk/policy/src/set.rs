//! Which policy is for which call.

use std::sync::Arc;

use crate::{CallerName, Invalid, Policy};

/// The policies of one namespace, as a caller or a server holds them.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    /// Ordered by name.
    policies: Vec<Arc<Policy>>,
}

impl PolicySet {
    /// From policies in any order; of two with one name in one namespace the later wins.
    #[must_use]
    pub fn new(policies: impl IntoIterator<Item = Arc<Policy>>) -> Self {
        let mut set = Self::default();
        for policy in policies {
            set.insert(policy);
        }
        set
    }

    /// The policies, ordered by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Adds or replaces a policy.
    pub fn insert(&mut self, policy: Arc<Policy>) {
        match self.policies.binary_search_by(|own| order(own).cmp(&order(&policy))) {
            Ok(index) => self.policies[index] = policy,
            Err(index) => self.policies.insert(index, policy),
        }
    }

    /// Takes a policy out by its resource name.
    pub fn remove(&mut self, resource_name: &str) -> Option<Arc<Policy>> {
        let index = self.policies.iter().position(|own| own.resource_name() == resource_name)?;
        Some(self.policies.remove(index))
    }

    /// The policy for a call: the most specific that matches.
    #[must_use]
    pub fn resolve(&self, caller: &CallerName, target: &str, route: Option<&str>) -> Option<&Arc<Policy>> {
        self.policies
            .iter()
            .filter_map(|policy| Some((policy.definition.selector.matches(caller, target, route)?, policy)))
            .max_by(|(left, _), (right, _)| left.cmp(right))
            .map(|(_, policy)| policy)
    }

    /// Refuses a policy that describes some calls exactly as closely as another one does.
    ///
    /// # Errors
    /// Under `spec.match`, the other policy and the calls.
    pub fn check_tie(&self, policy: &Policy) -> Result<(), Invalid> {
        let rival = self
            .policies
            .iter()
            .filter(|own| own.namespace == policy.namespace && own.name != policy.name)
            .find_map(|own| Some((own, own.definition.selector.tie(&policy.definition.selector)?)));
        match rival {
            Some((own, calls)) => Err(Invalid::new(
                "spec.match",
                format!("policy \"{}\" is already for {calls}: make one of them more specific", own.name),
            )),
            None => Ok(()),
        }
    }
}

fn order(policy: &Policy) -> (&str, &str) {
    (policy.namespace.as_str(), policy.name.as_str())
}
