//! An operator: policies and overrides at given times, over the control plane's own services, again until the answer comes.

use std::{sync::Arc, time::Duration};

use fusebox::FleetStateShown as FleetState;
use fusebox_proto::{
    duration::to_wire,
    manifest,
    v1::{
        self, breaker_service_client::BreakerServiceClient, fleet_service_client::FleetServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    history::{History, Taken, What},
    net,
    stager::{self, Stager},
    world::PLANE_ADDRESS,
};

/// How long an answer may take before the question is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// What an operator does.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Applies a manifest.
    Apply(String),
    /// Forces service B's breakers for so long.
    Force { open: bool, length: Duration },
    /// Disables them for so long.
    Disable { length: Duration },
    /// Ends that.
    Release,
    /// Looks at the overrides.
    Overrides,
    /// Puts a restored copy in force.
    Adopt,
    /// Begins, moves or ends a rollout.
    Rollout(stager::Step),
}

/// The script, from the beginning.
pub(crate) async fn run(script: Arc<[(Duration, Order)]>, history: History) -> turmoil::Result {
    let mut stager = Stager::default();
    for (at, order) in script.iter() {
        tokio::time::sleep(at.saturating_sub(turmoil::elapsed())).await;
        let request_id = stager::request_id();
        loop {
            let asked = turmoil::elapsed();
            match tokio::time::timeout(ANSWER_WITHIN, give(order, asked, &mut stager, &request_id)).await {
                Ok(Ok(taken)) => {
                    history.record(What::Ordered(taken));
                    break;
                }
                Ok(Err(status)) => tracing::debug!(%status, ?order, "not taken"),
                Err(_) => tracing::debug!(?order, "no answer"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
    std::future::pending().await
}

fn channel() -> Channel {
    Endpoint::from_static(PLANE_ADDRESS).connect_with_connector_lazy(net::connector(|| None))
}

fn selector() -> Option<v1::BreakerKey> {
    Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() })
}

async fn force(state: FleetState, asked: Duration, length: Duration) -> Result<Taken, Status> {
    let request = v1::ForceBreakerRequest {
        selector: selector(),
        state: v1::FleetState::from(state).into(),
        reason: "drill".to_owned(),
        duration: Some(to_wire(length)),
        ..Default::default()
    };
    BreakerServiceClient::new(channel()).force_breaker(request).await?;
    Ok(Taken::Forced { state, asked, length })
}

async fn give(order: &Order, asked: Duration, stager: &mut Stager, request_id: &str) -> Result<Taken, Status> {
    match order {
        Order::Apply(text) => {
            let documents = manifest::parse("policy.yaml", text).expect("the scenario's policies are valid");
            let policies = documents.iter().map(|document| v1::Policy::from(&document.policy)).collect();
            let request = v1::ApplyPoliciesRequest { policies, ..v1::ApplyPoliciesRequest::default() };
            let answer = PolicyServiceClient::new(channel()).apply_policies(request).await?;
            Ok(Taken::Applied { revision: answer.into_inner().revision })
        }
        Order::Force { open, length } => {
            let state = if *open { FleetState::ForcedOpen } else { FleetState::ForcedClosed };
            force(state, asked, *length).await
        }
        Order::Disable { length } => force(FleetState::Disabled, asked, *length).await,
        Order::Release => {
            let request =
                v1::ReleaseBreakerRequest { selector: selector(), reason: "over".to_owned(), ..Default::default() };
            match BreakerServiceClient::new(channel()).release_breaker(request).await {
                Ok(_) => Ok(Taken::Released),
                // An answer that was lost had been given all the same.
                Err(status) if status.code() == tonic::Code::NotFound => Ok(Taken::Released),
                Err(status) => Err(status),
            }
        }
        Order::Adopt => {
            let request = v1::AdoptPresentRequest { reason: "restored".to_owned(), ..Default::default() };
            match PolicyServiceClient::new(channel()).adopt_present(request).await {
                Ok(answer) => Ok(Taken::Applied { revision: answer.into_inner().revision }),
                Err(status) => Err(status),
            }
        }
        Order::Rollout(step) => stager.say(channel(), step, request_id.to_owned()).await,
        Order::Overrides => {
            let fleet = FleetServiceClient::new(channel())
                .list_instances(v1::ListInstancesRequest::default())
                .await?
                .into_inner();
            let listed = BreakerServiceClient::new(channel())
                .list_overrides(v1::ListOverridesRequest::default())
                .await?
                .into_inner();
            let newest = listed.overrides.into_iter().next_back().unwrap_or_default();
            Ok(Taken::Overrides {
                acknowledged: newest.acknowledged,
                unacknowledged: newest.unacknowledged.into_iter().collect(),
                connected: fleet.instances.into_iter().map(|own| own.instance).collect(),
            })
        }
    }
}
