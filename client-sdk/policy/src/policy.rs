//! The operator's resource: for which calls, what is done, and how a fleet shares it.

use std::collections::BTreeMap;

use crate::{
    Invalid, Namespace, PolicyName, Revision,
    fleet::{Coordination, CoordinationMode},
    invalid::Faults,
    pipeline::PipelineSpec,
    retry::CallRules,
    selector::Selector,
};

/// A policy. Equal definitions are equal values: names are filled in, defaults are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: PolicyName,
    /// Labels of the operator.
    pub labels: Labels,
    /// What the operator asks for.
    pub definition: Definition,
    /// The revision that last changed it; zero before it is stored.
    pub revision: Revision,
}

/// What the operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Definition {
    /// For which calls.
    pub selector: Selector,
    /// What is done.
    pub pipeline: PipelineSpec,
    /// How a fleet shares its breakers.
    pub coordination: Coordination,
    /// What a change does to live state.
    pub on_change: OnChange,
}

impl Definition {
    /// Checks what its parts can't check by themselves.
    ///
    /// # Errors
    /// A mode of coordination that the pipeline's breakers give nothing to decide on, strategies that can never act on the
    /// routes. Paths begin with `coordination` and `pipeline`.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut faults = Faults::new();
        let mut breakers = self.pipeline.breakers().peekable();
        if self.coordination.mode() == CoordinationMode::Pooled && breakers.peek().is_some() {
            faults.check(
                breakers.all(|(_, spec)| spec.trip().failure_rate.is_some()),
                "coordination.mode",
                "pooled adds up failure rates: every circuit breaker of the pipeline needs trip.failureRate",
            );
        }
        let routes = self.selector.routes();
        let once = |method: &str| !CallRules::IDEMPOTENT_METHODS.contains(&method);
        let never_twice = !routes.is_empty() && routes.iter().all(|route| route.method().is_some_and(once));
        for (index, strategy) in self.pipeline.strategies().iter().enumerate() {
            faults.check(
                !(never_twice && strategy.spec().as_hedge().is_some()),
                &format!("pipeline[{index}].hedge"),
                "hedges only what may be sent twice, and no route of this policy has a method of that kind",
            );
        }
        faults.finish()
    }
}

/// What the change of a definition does to live state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnChange {
    /// States, and statistics where they still mean the same, are kept.
    #[default]
    Keep,
    /// Every strategy starts fresh.
    Reset,
}

impl Policy {
    /// `namespaces/{namespace}/policies/{policy}`.
    #[must_use]
    pub fn resource_name(&self) -> String {
        format!("namespaces/{}/policies/{}", self.namespace, self.name)
    }
}

/// Checked labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Checks the labels.
    ///
    /// # Errors
    /// More than 64, or a key or value that is not up to 63 letters, digits and `- _ . /`.
    pub fn try_new(labels: BTreeMap<String, String>) -> Result<Self, Invalid> {
        const MAX: usize = 64;
        let allowed = |text: &str| {
            text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        };
        let mut faults = Faults::new();
        faults.check(labels.len() <= MAX, "", format!("must be at most {MAX}"));
        for (key, value) in &labels {
            faults.check(
                !key.is_empty() && allowed(key) && allowed(value),
                key,
                "must be at most 63 letters, digits and - _ . / in key and value",
            );
        }
        faults.into_result(Some(Self(labels)))
    }

    /// The labels by key.
    #[must_use]
    pub const fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}
