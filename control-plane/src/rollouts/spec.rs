//! What an operator asks for: stages, and the gates between them. Checked once, when it is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use fusebox_policy::{InstanceId, Invalid, Zone, invalid::Faults};
use fusebox_proto::{
    duration,
    v1::{self, rollout_stage::Selector as Wire},
};

/// More stages than anybody watches.
const MOST_STAGES: usize = 10;
/// Names in one stage: who would name more uses a label.
const MOST_INSTANCES: usize = 100;
/// As many as a replica may have.
const MOST_LABELS: usize = 32;
/// Longest label, key or value, as of a replica.
const LONGEST_LABEL: usize = 256;
/// A stage that nobody looks at for a week has been forgotten.
const LONGEST_BAKE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Points of a hundred that two samples of a healthy fleet do not differ by.
const DEFAULT_MARGIN: u32 = 5;
/// Calls of either side below which a rate says little: one failure more or less is two points.
const DEFAULT_CALLS: u64 = 50;

/// Which replicas a stage adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Those of these names.
    Instances(BTreeSet<InstanceId>),
    /// Those of this zone.
    Zone(Zone),
    /// Those that have all these labels.
    Labels(BTreeMap<String, String>),
    /// So many of a hundred.
    Percent(u32),
}

/// A part of the fleet that is given the candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Which replicas it adds.
    pub selector: Selector,
    /// How long it is watched at least.
    pub bake: Duration,
}

/// When a stage may be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateSpec {
    /// Points of a hundred by which the selected may fail more.
    pub margin_points: u32,
    /// Calls of either side that make their rates comparable; zero: failures are not a gate.
    pub min_calls: u64,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutSpec {
    /// One at least.
    pub stages: Vec<Stage>,
    /// When a stage may be promoted.
    pub gates: GateSpec,
    /// Whether it promotes by itself.
    pub auto: bool,
    /// Whether a failed gate aborts it; else it pauses.
    pub abort_on_failure: bool,
}

// === impl Selector ===

impl Selector {
    fn read(wire: Option<Wire>) -> Result<Self, Invalid> {
        match wire {
            None => Err(Invalid::new("selector", "is required: instances, zone, labels or percent")),
            Some(Wire::Instances(v1::InstanceSelector { instances })) => {
                let mut faults = Faults::new();
                let fits = !instances.is_empty() && instances.len() <= MOST_INSTANCES;
                faults.check(fits, "instances.instances", format!("must be from 1 to {MOST_INSTANCES}"));
                let mut names = BTreeSet::new();
                for (index, name) in instances.iter().enumerate() {
                    names.extend(faults.take(&format!("instances.instances[{index}]"), InstanceId::try_new(name)));
                }
                faults.into_result(Some(Self::Instances(names)))
            }
            Some(Wire::Zone(zone)) => Zone::try_new(&zone).map(Self::Zone).map_err(|invalid| invalid.under("zone")),
            Some(Wire::Labels(v1::LabelSelector { labels })) => {
                let short = |text: &String| text.len() <= LONGEST_LABEL;
                let fits = (1..=MOST_LABELS).contains(&labels.len())
                    && labels.iter().all(|(key, value)| !key.is_empty() && short(key) && short(value));
                if fits {
                    Ok(Self::Labels(labels))
                } else {
                    let reason = format!("must be from 1 to {MOST_LABELS}, of 1 to {LONGEST_LABEL} bytes each");
                    Err(Invalid::new("labels.labels", reason))
                }
            }
            Some(Wire::Percent(percent @ 1..=99)) => Ok(Self::Percent(percent)),
            Some(Wire::Percent(percent)) => {
                let reason = format!("must be from 1 to 99, is {percent}; after the last stage come all");
                Err(Invalid::new("percent", reason))
            }
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instances(names) => {
                let names: Vec<_> = names.iter().map(InstanceId::as_str).collect();
                write!(f, "instance {}", names.join(", "))
            }
            Self::Zone(zone) => write!(f, "zone {zone}"),
            Self::Labels(labels) => {
                let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "label {}", labels.join(","))
            }
            Self::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

// === impl RolloutSpec ===

impl TryFrom<v1::RolloutSpec> for RolloutSpec {
    type Error = Invalid;

    fn try_from(wire: v1::RolloutSpec) -> Result<Self, Invalid> {
        let v1::RolloutSpec { stages: wire, gates, auto, abort_on_failure } = wire;
        let mut faults = Faults::new();
        let count = wire.len();
        faults.check((1..=MOST_STAGES).contains(&count), "stages", format!("must be from 1 to {MOST_STAGES}"));
        let mut stages = Vec::with_capacity(count.min(MOST_STAGES));
        let mut percent_before = 0;
        for (index, v1::RolloutStage { selector, bake }) in wire.into_iter().enumerate() {
            let at = format!("stages[{index}]");
            let selector = faults.take(&at, Selector::read(selector));
            if let Some(Selector::Percent(percent)) = selector {
                let reason = format!("must be above the {percent_before} of an earlier stage");
                faults.check(percent > percent_before, &format!("{at}.percent"), reason);
                percent_before = percent;
            }
            let bake = faults.take(&format!("{at}.bake"), bake.map_or(Ok(Duration::ZERO), duration::from_wire));
            let bake = bake.unwrap_or_default();
            faults.check(bake <= LONGEST_BAKE, &format!("{at}.bake"), "must be at most 7 days");
            stages.extend(selector.map(|selector| Stage { selector, bake }));
        }
        let v1::RolloutGates { margin_points, min_calls } = gates.unwrap_or_default();
        faults.check(margin_points <= 100, "gates.margin_points", "must be at most 100");
        let margin_points = if margin_points == 0 { DEFAULT_MARGIN } else { margin_points };
        let gates = GateSpec { margin_points, min_calls: min_calls.unwrap_or(DEFAULT_CALLS) };
        faults.into_result(Some(Self { stages, gates, auto, abort_on_failure }))
    }
}

impl From<&RolloutSpec> for v1::RolloutSpec {
    fn from(spec: &RolloutSpec) -> Self {
        let stage = |Stage { selector, bake }: &Stage| {
            let selector = match selector {
                Selector::Instances(names) => {
                    Wire::Instances(v1::InstanceSelector { instances: names.iter().map(ToString::to_string).collect() })
                }
                Selector::Zone(zone) => Wire::Zone(zone.to_string()),
                Selector::Labels(labels) => Wire::Labels(v1::LabelSelector { labels: labels.clone() }),
                Selector::Percent(percent) => Wire::Percent(*percent),
            };
            v1::RolloutStage { selector: Some(selector), bake: Some(duration::to_wire(*bake)) }
        };
        let RolloutSpec { stages, gates: GateSpec { margin_points, min_calls }, auto, abort_on_failure } = spec;
        Self {
            stages: stages.iter().map(stage).collect(),
            gates: Some(v1::RolloutGates { margin_points: *margin_points, min_calls: Some(*min_calls) }),
            auto: *auto,
            abort_on_failure: *abort_on_failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(percent: u32) -> v1::RolloutStage {
        v1::RolloutStage { selector: Some(Wire::Percent(percent)), bake: None }
    }

    fn spec(stages: Vec<v1::RolloutStage>) -> v1::RolloutSpec {
        v1::RolloutSpec { stages, ..v1::RolloutSpec::default() }
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let labels = [("tier".to_owned(), "canary".to_owned())].into();
        let instances = v1::InstanceSelector { instances: vec!["a-1".to_owned(), "a-2".to_owned()] };
        let stages = [
            Wire::Instances(instances),
            Wire::Zone("z1".to_owned()),
            Wire::Labels(v1::LabelSelector { labels }),
            Wire::Percent(50),
        ];
        let bake = Some(prost_types::Duration { seconds: 600, nanos: 0 });
        let stages = stages.into_iter().map(|selector| v1::RolloutStage { selector: Some(selector), bake }).collect();
        let gates = Some(v1::RolloutGates { margin_points: 7, min_calls: Some(0) });
        let wire = v1::RolloutSpec { stages, gates, auto: true, abort_on_failure: true };
        let read = RolloutSpec::try_from(wire.clone()).unwrap();
        assert_eq!(v1::RolloutSpec::from(&read), wire);
        let told: Vec<_> = read.stages.iter().map(|stage| stage.selector.to_string()).collect();
        assert_eq!(told, ["instance a-1, a-2", "zone z1", "label tier=canary", "50 %"]);
    }

    #[test]
    fn every_fault_is_told_with_its_path() {
        let bake = Some(prost_types::Duration { seconds: 8 * 24 * 3600, nanos: 0 });
        let zone = v1::RolloutStage { selector: Some(Wire::Zone(String::new())), bake };
        let nobody = v1::RolloutStage::default();
        let mut wire = spec(vec![percent(50), percent(50), percent(100), zone, nobody]);
        wire.gates = Some(v1::RolloutGates { margin_points: 101, min_calls: None });
        let invalid = RolloutSpec::try_from(wire).unwrap_err();
        let fields: Vec<_> = invalid.violations().iter().map(|violation| violation.field.as_str()).collect();
        let expected = [
            "stages[1].percent",
            "stages[2].percent",
            "stages[3].zone",
            "stages[3].bake",
            "stages[4].selector",
            "gates.margin_points",
        ];
        assert_eq!(fields, expected);
        assert_eq!(RolloutSpec::try_from(spec(vec![])).unwrap_err().violations()[0].field, "stages");
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let read = RolloutSpec::try_from(spec(vec![percent(10)])).unwrap();
        assert_eq!(read.gates, GateSpec { margin_points: 5, min_calls: 50 });
        assert_eq!((read.auto, read.abort_on_failure, read.stages[0].bake), (false, false, Duration::ZERO));
    }
}
