//! Field masks: which parts of a policy an update takes.

use fusebox_proto::v1;
use tonic::Status;

use crate::grpc::status;

/// One part of a policy that can be changed by itself.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Labels,
    Spec,
    Match,
    Pipeline,
    Coordination,
    OnChange,
}

/// The parts that a mask names; `None` for all of them. Without a mask, those that the new policy has.
pub(super) fn parse(mask: Option<prost_types::FieldMask>, new: &v1::Policy) -> Result<Option<Vec<Part>>, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Ok(Some(populated(new)));
    }
    if paths == ["*"] {
        return Ok(None);
    }
    let part = |path: &String| match path.as_str() {
        "labels" => Ok(Part::Labels),
        "spec" => Ok(Part::Spec),
        "spec.match" => Ok(Part::Match),
        "spec.pipeline" => Ok(Part::Pipeline),
        "spec.coordination" => Ok(Part::Coordination),
        "spec.on_change" => Ok(Part::OnChange),
        _ => {
            let parts = "labels, spec, spec.match, spec.pipeline, spec.coordination, spec.on_change or * alone";
            Err(status::invalid_field("update_mask", &format!("{path:?} can't be changed by itself: use {parts}")))
        }
    };
    paths.iter().map(part).collect::<Result<_, _>>().map(Some)
}

fn populated(policy: &v1::Policy) -> Vec<Part> {
    let has = |spec: fn(&v1::PolicySpec) -> bool| policy.spec.as_ref().is_some_and(spec);
    let parts = [
        (Part::Labels, !policy.labels.is_empty()),
        (Part::Match, has(|spec| spec.r#match.is_some())),
        (Part::Pipeline, has(|spec| !spec.pipeline.is_empty())),
        (Part::Coordination, has(|spec| spec.coordination.is_some())),
        (Part::OnChange, has(|spec| spec.on_change != 0)),
    ];
    parts.into_iter().filter(|(_, has)| *has).map(|(part, _)| part).collect()
}

/// A stored policy with some parts of a new one.
pub(super) fn take(mut stored: v1::Policy, new: v1::Policy, parts: &[Part]) -> v1::Policy {
    let new_spec = new.spec.unwrap_or_default();
    for part in parts {
        let spec = stored.spec.get_or_insert_default();
        match part {
            Part::Labels => stored.labels.clone_from(&new.labels),
            Part::Spec => *spec = new_spec.clone(),
            Part::Match => spec.r#match.clone_from(&new_spec.r#match),
            Part::Pipeline => spec.pipeline.clone_from(&new_spec.pipeline),
            Part::Coordination => spec.coordination = new_spec.coordination,
            Part::OnChange => spec.on_change = new_spec.on_change,
        }
    }
    stored
}
