//! Rollouts.

use fusebox_proto::v1::{Rollout, RolloutStage, RolloutState, rollout_gate::Verdict, rollout_stage::Selector};
use serde_json::{Value, json};

use super::{Row, id, label, namespace_of, or_dash};
use crate::cli::{apply::in_namespace, failure::Failure, output, span};

impl Row for Rollout {
    const COLUMNS: &'static [&'static str] =
        &["POLICY", "REV", "STATE", "STAGE", "SELECTED", "RUN IT", "AGE", "REASON"];
    const WIDE: &'static [&'static str] = &["NAMESPACE", "STAGES", "AUTHOR", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        let stages = stages(self).len();
        let (selected, acknowledged) = match &self.progress {
            Some(progress) => (progress.selected.len().to_string(), progress.acknowledged.len().to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        vec![
            id(&self.policy).to_owned(),
            self.candidate_revision.to_string(),
            state(self).to_owned(),
            format!("{}/{stages}", self.stage),
            selected,
            acknowledged,
            span::ago(self.create_time.as_ref()),
            or_dash(&self.reason),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![
            namespace_of(&self.policy).to_owned(),
            stages(self).join("; "),
            or_dash(&self.author),
            or_dash(&self.message),
        ]
    }

    fn news(&self) -> Option<Vec<String>> {
        Some(Self { create_time: None, ..self.clone() }.cells())
    }

    fn id(&self) -> String {
        format!("{}/{}", id(&self.policy), self.candidate_revision)
    }

    fn reference(&self) -> String {
        format!("rollout/{}", self.id())
    }

    fn value(&self) -> Result<Value, Failure> {
        let spec = self.spec.clone().unwrap_or_default();
        let gates = spec.gates.unwrap_or_default();
        let stage =
            |stage: &RolloutStage| json!({ "selector": selector(stage), "bake_ms": span::millis(stage.bake.as_ref()) });
        let progress = self.progress.as_ref().map(|progress| {
            let gates = progress.gates.iter();
            let gates = gates
                .map(|gate| json!({ "name": gate.name, "verdict": verdict(gate.verdict()), "detail": gate.detail }));
            let rejected = progress.rejected.iter();
            let rejected = rejected.map(|one| json!({ "instance": one.instance, "reason": one.reason }));
            json!({
                "connected": progress.connected,
                "selected": progress.selected,
                "acknowledged": progress.acknowledged,
                "rejected": rejected.collect::<Vec<_>>(),
                "gates": gates.collect::<Vec<_>>(),
            })
        });
        Ok(json!({
            "name": self.name,
            "policy": id(&self.policy),
            "namespace": namespace_of(&self.policy),
            "candidate_revision": self.candidate_revision,
            "stable_revision": (self.stable_revision != 0).then_some(self.stable_revision),
            "state": state(self),
            "stage": self.stage,
            "stages": spec.stages.iter().map(stage).collect::<Vec<_>>(),
            "auto": spec.auto,
            "abort_on_failure": spec.abort_on_failure,
            "margin_points": gates.margin_points,
            "min_calls": gates.min_calls,
            "stage_revision": self.stage_revision,
            "reason": self.reason,
            "author": self.author,
            "message": self.message,
            "stageTime": span::stamp(self.stage_time.as_ref()),
            "createTime": span::stamp(self.create_time.as_ref()),
            "updateTime": span::stamp(self.update_time.as_ref()),
            "progress": progress,
        }))
    }
}

/// Its state in a word.
pub(crate) fn state(rollout: &Rollout) -> &'static str {
    match rollout.state() {
        RolloutState::Running => "RUNNING",
        RolloutState::AwaitingPromotion => "AWAITING_PROMOTION",
        RolloutState::Paused => "PAUSED",
        RolloutState::Promoted => "PROMOTED",
        RolloutState::Aborted => "ABORTED",
        RolloutState::Unspecified => "UNKNOWN",
    }
}

/// Whether some replicas have what others have not.
pub(crate) fn in_progress(rollout: &Rollout) -> bool {
    match rollout.state() {
        RolloutState::Running | RolloutState::AwaitingPromotion | RolloutState::Paused => true,
        RolloutState::Promoted | RolloutState::Aborted | RolloutState::Unspecified => false,
    }
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Waiting => "WAITING",
        Verdict::InsufficientEvidence => "INSUFFICIENT_EVIDENCE",
        Verdict::Fail => "FAIL",
        Verdict::Unspecified => "UNKNOWN",
    }
}

/// Whom a stage adds, in words.
pub(crate) fn selector(stage: &RolloutStage) -> String {
    match &stage.selector {
        Some(Selector::Instances(instances)) => format!("instance {}", instances.instances.join(", ")),
        Some(Selector::Zone(zone)) => format!("zone {zone}"),
        Some(Selector::Labels(labels)) => {
            let labels: Vec<_> = labels.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("label {}", labels.join(","))
        }
        Some(Selector::Percent(percent)) => format!("{percent} %"),
        None => "unknown".to_owned(),
    }
}

/// Its stages, in words.
pub(crate) fn stages(rollout: &Rollout) -> Vec<String> {
    let spec = rollout.spec.clone().unwrap_or_default();
    spec.stages.iter().map(selector).collect()
}

/// Everything about a rollout, for a person.
pub(crate) fn status(rollout: &Rollout) -> String {
    let stages = stages(rollout);
    let of = |number: u32| stages.get((number as usize).saturating_sub(1)).cloned().unwrap_or_default();
    let mut why = format!("{} ago", span::ago(rollout.create_time.as_ref()));
    for (word, value) in [(" by ", &rollout.author), (": ", &rollout.message)] {
        if !value.is_empty() {
            why.push_str(word);
            why.push_str(value);
        }
    }
    let stable = match rollout.stable_revision {
        0 => "nothing before".to_owned(),
        stable => format!("rev {stable} before"),
    };
    let mut facts = vec![
        ("Rollout", format!("{} rev {}, {stable}", label(&rollout.policy), rollout.candidate_revision)),
        ("State", state(rollout).to_owned()),
        ("Stage", format!("{} of {}: {}", rollout.stage, stages.len(), of(rollout.stage))),
        ("Started", why),
    ];
    if !rollout.reason.is_empty() {
        facts.push(("Reason", rollout.reason.clone()));
    }
    if let Some(progress) = &rollout.progress {
        let selected = progress.selected.len();
        facts.push(("Selected", format!("{selected} of {} connected{}", progress.connected, some(&progress.selected))));
        facts.push(("Run it", format!("{} of {selected}", progress.acknowledged.len())));
        for one in &progress.rejected {
            facts.push(("Refused by", format!("{}: {}", id(&one.instance), one.reason)));
        }
    }
    let rows: Vec<_> = facts.iter().map(|(name, value)| vec![format!("{name}:"), value.clone()]).collect();
    let mut text = output::columns(None, &rows, &[]).0;
    if let Some(progress) = &rollout.progress {
        let rows: Vec<_> = progress
            .gates
            .iter()
            .map(|gate| vec![gate.name.clone(), verdict(gate.verdict()).to_owned(), gate.detail.clone()])
            .collect();
        text.push_str("\nGates:\n");
        let table = output::columns(None, &rows, &[]).0;
        text.push_str(&table.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"));
    }
    if let Some(next) = next(rollout) {
        text.push_str(&format!("\nNext: {next}"));
    }
    text
}

/// What decides whether a rollout is news: all but numbers that move with every call.
pub(crate) fn news(rollout: &Rollout) -> impl PartialEq + use<> {
    let mut rollout = rollout.clone();
    if let Some(progress) = &mut rollout.progress {
        progress.gates.iter_mut().for_each(|gate| gate.detail.clear());
    }
    rollout
}

/// What an operator does next.
fn next(rollout: &Rollout) -> Option<String> {
    let name = format!("{}{}", label(&rollout.policy), in_namespace(&rollout.policy));
    let auto = rollout.spec.as_ref().is_some_and(|spec| spec.auto);
    let abort = format!("give up: fusebox rollout abort {name} -m '...'");
    match rollout.state() {
        RolloutState::AwaitingPromotion => Some(format!("fusebox rollout promote {name}; or {abort}")),
        RolloutState::Running if auto => Some(format!("it goes on by itself when all gates pass; {abort}")),
        RolloutState::Running => Some(format!("when all gates pass: fusebox rollout promote {name}; {abort}")),
        RolloutState::Paused => Some(format!("fusebox rollout resume {name}; or {abort}")),
        RolloutState::Promoted | RolloutState::Aborted | RolloutState::Unspecified => None,
    }
}

/// A few of the replicas' names.
fn some(names: &[String]) -> String {
    const MOST: usize = 5;
    let mut text = names.iter().take(MOST).map(|name| id(name)).collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        text.push_str(", ...");
    }
    if text.is_empty() { text } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use fusebox_proto::v1::{RolloutGate, RolloutProgress, RolloutRejection, RolloutSpec};

    use super::*;

    fn rollout(state: RolloutState) -> Rollout {
        let stage = |percent| RolloutStage { selector: Some(Selector::Percent(percent)), bake: None };
        let gate = |name: &str, verdict: Verdict| RolloutGate {
            name: name.to_owned(),
            verdict: verdict.into(),
            detail: "in numbers".to_owned(),
        };
        Rollout {
            name: "namespaces/default/policies/b/rollouts/43".to_owned(),
            policy: "namespaces/default/policies/b".to_owned(),
            candidate_revision: 43,
            stable_revision: 41,
            spec: Some(RolloutSpec { stages: vec![stage(10), stage(50)], ..RolloutSpec::default() }),
            stage: 2,
            state: state.into(),
            author: "dan".to_owned(),
            message: "longer timeout".to_owned(),
            progress: Some(RolloutProgress {
                connected: 9,
                selected: vec!["services/a/instances/a-1".to_owned(), "services/a/instances/a-2".to_owned()],
                acknowledged: vec!["services/a/instances/a-1".to_owned()],
                rejected: vec![RolloutRejection {
                    instance: "services/a/instances/a-2".to_owned(),
                    reason: "too old".to_owned(),
                }],
                gates: vec![gate("acknowledged", Verdict::Waiting), gate("bake", Verdict::Pass)],
            }),
            ..Rollout::default()
        }
    }

    #[test]
    fn a_status_tells_stage_replicas_gates_and_what_to_do() {
        let text = status(&rollout(RolloutState::Paused));
        for part in [
            "policy/b rev 43, rev 41 before",
            "PAUSED",
            "2 of 2: 50 %",
            "by dan: longer timeout",
            "2 of 9 connected: a-1, a-2",
            "1 of 2",
            "a-2: too old",
            "  acknowledged  WAITING  in numbers",
            "Next: fusebox rollout resume policy/b; or give up: fusebox rollout abort policy/b -m '...'",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!status(&rollout(RolloutState::Promoted)).contains("Next:"));
    }

    #[test]
    fn numbers_alone_are_no_news() {
        let one = rollout(RolloutState::Running);
        let mut other = one.clone();
        other.progress.as_mut().unwrap().gates[0].detail = "other numbers".to_owned();
        assert!(news(&one) == news(&other));
        other.progress.as_mut().unwrap().gates[0].verdict = Verdict::Pass.into();
        assert!(news(&one) != news(&other));
    }
}
