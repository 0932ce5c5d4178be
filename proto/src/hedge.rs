//! Hedge <-> wire.

use fusebox_policy::{
    Invalid,
    hedge::{HedgeDelay, HedgeInput, HedgeSpec, Quantile},
    invalid::Faults,
    retry::budget::BudgetSpec,
};

use crate::{
    condition::{ignored, pair},
    duration, v1,
};

impl TryFrom<v1::Hedge> for HedgeSpec {
    type Error = Invalid;

    fn try_from(wire: v1::Hedge) -> Result<Self, Invalid> {
        let v1::Hedge { delay, max_hedges, budget, no_budget, failure_when, ignore_when } = wire;
        let mut faults = Faults::new();
        let (failure_when, ignore_when) = pair(&mut faults, failure_when, ignore_when);
        faults.check(!(no_budget && budget.is_some()), "budget", "contradicts noBudget");
        let budget = match budget {
            Some(wire) => faults.take("budget", wire.try_into()),
            None => Some(BudgetSpec::default()).filter(|_| !no_budget),
        };
        let delay = match delay {
            None => {
                faults.push("", "must have exactly one of delay, quantile");
                None
            }
            Some(v1::hedge::Delay::Fixed(wire)) => {
                faults.take("delay", duration::from_wire(wire)).map(HedgeDelay::Fixed)
            }
            Some(v1::hedge::Delay::Quantile(wire)) => {
                let v1::Quantile { quantile, warm_up } = wire;
                let warm_up = warm_up.unwrap_or(Quantile::DEFAULT_WARM_UP);
                faults.take("quantile", Quantile::try_new(quantile, warm_up)).map(HedgeDelay::Quantile)
            }
        };
        let max_hedges = max_hedges.unwrap_or(1);
        let spec = delay.and_then(|delay| {
            let input = HedgeInput { delay, max_hedges, budget, failure_when, ignore_when };
            faults.take("", Self::try_new(input))
        });
        faults.into_result(spec)
    }
}

impl From<&HedgeSpec> for v1::Hedge {
    fn from(spec: &HedgeSpec) -> Self {
        let delay = match spec.delay() {
            HedgeDelay::Fixed(delay) => v1::hedge::Delay::Fixed(duration::to_wire(delay)),
            HedgeDelay::Quantile(quantile) => v1::hedge::Delay::Quantile(v1::Quantile {
                quantile: quantile.share(),
                warm_up: Some(quantile.warm_up()),
            }),
        };
        Self {
            delay: Some(delay),
            max_hedges: Some(spec.max_hedges()),
            budget: spec.budget().map(|budget| v1::RetryBudget {
                ratio: Some(budget.ratio()),
                min_per_second: Some(budget.min_per_second()),
            }),
            no_budget: spec.budget().is_none(),
            failure_when: Some(spec.classifier().failure_when().into()),
            ignore_when: ignored(spec.classifier().ignore_when()),
        }
    }
}
