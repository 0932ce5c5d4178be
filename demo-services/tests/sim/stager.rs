//! An operator who brings a policy to some replicas first.

use std::{sync::Arc, time::Duration};

use fusebox_proto::{
    duration::to_wire,
    manifest,
    v1::{self, rollout_service_client::RolloutServiceClient, rollout_stage::Selector},
};
use tonic::{Code, Response, Status, transport::Channel};

use crate::history::Taken;

/// What is done with the rollout of service B's policy.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Begins one with this manifest.
    Start(String, v1::RolloutSpec),
    /// Goes on to the next stage.
    Promote {
        /// Whatever the gates say.
        force: bool,
    },
    Pause,
    Resume,
    Abort,
}

/// What an operator says who does not wait for the gates. Nobody else gives this reason.
pub(crate) const BY_FORCE: &str = "by force";

/// Stages for these replicas, each to be watched for so long.
pub(crate) fn stages(bake: Duration, stages: Vec<Selector>) -> v1::RolloutSpec {
    let stage = |selector| v1::RolloutStage { selector: Some(selector), bake: Some(to_wire(bake)) };
    v1::RolloutSpec { stages: stages.into_iter().map(stage).collect(), ..v1::RolloutSpec::default() }
}

/// The replicas of these names.
pub(crate) fn named(names: &[&str]) -> Selector {
    Selector::Instances(v1::InstanceSelector { instances: names.iter().map(|name| (*name).to_owned()).collect() })
}

/// The operator's memory: the rollout that was started last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stager {
    name: String,
}

impl Stager {
    /// Says it once, or once more: `request_id` is the same then.
    pub(crate) async fn say(&mut self, channel: Channel, step: &Step, request_id: String) -> Result<Taken, Status> {
        let mut client = RolloutServiceClient::new(channel);
        let name = self.name.clone();
        let answer = match step {
            Step::Start(text, spec) => {
                let document =
                    manifest::parse("policy.yaml", text).expect("the scenario's policies are valid").remove(0);
                let request = v1::CreateRolloutRequest {
                    policy: Some(v1::Policy::from(&document.policy)),
                    spec: Some(spec.clone()),
                    message: "try it".to_owned(),
                    validate_only: false,
                    request_id,
                };
                client.create_rollout(request).await
            }
            Step::Promote { force } => {
                let reason = if *force { BY_FORCE } else { "it does well" }.to_owned();
                client
                    .promote_rollout(v1::PromoteRolloutRequest {
                        name,
                        force: *force,
                        reason,
                        request_id,
                        ..Default::default()
                    })
                    .await
            }
            Step::Pause => {
                let reason = "wait".to_owned();
                client.pause_rollout(v1::PauseRolloutRequest { name, reason, request_id, ..Default::default() }).await
            }
            Step::Resume => {
                let reason = "go on".to_owned();
                client.resume_rollout(v1::ResumeRolloutRequest { name, reason, request_id, ..Default::default() }).await
            }
            Step::Abort => {
                let reason = "no good".to_owned();
                client.abort_rollout(v1::AbortRolloutRequest { name, reason, request_id, ..Default::default() }).await
            }
        };
        match answer.map(Response::into_inner) {
            Ok(rollout) => {
                self.name.clone_from(&rollout.name);
                Ok(Taken::Stepped { state: rollout.state(), stage: rollout.stage })
            }
            // It was heard, and the answer is no.
            Err(status) if [Code::FailedPrecondition, Code::Aborted].contains(&status.code()) => {
                Ok(Taken::Refused { why: Arc::from(status.message()) })
            }
            Err(status) => Err(status),
        }
    }
}

/// A request's id, of the seed.
pub(crate) fn request_id() -> String {
    let number = fastrand::u128(1..);
    let text = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}
