//! How stages are written on the command line, and how a rollout goes on from one to the next.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use fusebox_proto::{
    duration::to_wire,
    v1::{self, rollout_stage::Selector},
};

/// How a rollout goes on from stage to stage.
#[derive(Clone, Debug, Args)]
pub struct PaceArgs {
    /// How long each stage is watched at least
    #[arg(long, requires = "stages", value_parser = humantime::parse_duration, value_name = "TIME")]
    bake: Option<Duration>,
    /// Promote by itself as soon as all gates pass
    #[arg(long, requires = "bake")]
    pub(in crate::cli) auto: bool,
    /// Abort, instead of pause, when a gate fails
    #[arg(long, requires = "stages")]
    abort_on_failure: bool,
    /// Points of a hundred by which the selected replicas may fail more than the others
    #[arg(long, requires = "stages", default_value_t = 5, value_name = "POINTS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    margin: u32,
    /// Calls of either side that are needed to compare failures; 0: do not compare, as for a policy without a circuit breaker
    #[arg(long, requires = "stages", default_value_t = 50, value_name = "N")]
    min_calls: u64,
}

impl PaceArgs {
    /// The whole of what is asked for.
    pub(in crate::cli) fn spec(&self, stages: impl IntoIterator<Item = Selector>) -> v1::RolloutSpec {
        let bake = self.bake.map(to_wire);
        let stages = stages.into_iter().map(|selector| v1::RolloutStage { selector: Some(selector), bake });
        v1::RolloutSpec {
            stages: stages.collect(),
            gates: Some(v1::RolloutGates { margin_points: self.margin, min_calls: Some(self.min_calls) }),
            auto: self.auto,
            abort_on_failure: self.abort_on_failure,
        }
    }
}

/// Reads `10%`, `zone=eu-1`, `instance=a-1,a-2` or `label=KEY=VALUE,KEY=VALUE`.
pub(in crate::cli) fn parse(text: &str) -> Result<Selector, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse() {
            Ok(percent @ 1..=99) => Ok(Selector::Percent(percent)),
            Ok(_) | Err(_) => Err("a percentage is from 1% to 99%; all come after the last stage".to_owned()),
        };
    }
    match text.split_once('=') {
        Some(("zone", zone)) if !zone.is_empty() => Ok(Selector::Zone(zone.to_owned())),
        Some(("instance", names)) if !names.is_empty() => {
            let instances = names.split(',').map(str::to_owned).collect();
            Ok(Selector::Instances(v1::InstanceSelector { instances }))
        }
        Some(("label", labels)) => {
            let labels = labels.split(',').map(label).collect::<Result<BTreeMap<_, _>, _>>()?;
            Ok(Selector::Labels(v1::LabelSelector { labels }))
        }
        Some(_) | None => Err("give N%, zone=ZONE, instance=NAME,... or label=KEY=VALUE,...".to_owned()),
    }
}

/// Reads `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("give KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_stage_is_read() {
        assert_eq!(parse("10%"), Ok(Selector::Percent(10)));
        assert_eq!(parse("zone=eu-1"), Ok(Selector::Zone("eu-1".to_owned())));
        let instances = vec!["a-1".to_owned(), "a-2".to_owned()];
        assert_eq!(parse("instance=a-1,a-2"), Ok(Selector::Instances(v1::InstanceSelector { instances })));
        let labels = [("tier".to_owned(), "canary".to_owned()), ("a".to_owned(), "b=c".to_owned())].into();
        assert_eq!(parse("label=tier=canary,a=b=c"), Ok(Selector::Labels(v1::LabelSelector { labels })));
    }

    #[test]
    fn what_is_no_stage_is_refused() {
        for text in ["", "10", "0%", "100%", "x%", "zone=", "instance=", "label=", "label=tier", "all"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
