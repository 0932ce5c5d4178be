//! `fusebox.v1.RolloutService`.

mod all;
mod follow;

use std::{pin::Pin, time::SystemTime};

use fusebox_policy::{Namespace, Policy, PolicyName, Revision, invalid::Faults};
use fusebox_proto::{
    parse_policy_name,
    v1::{self, rollout_service_server::RolloutService},
};
use futures_util::{Stream, stream};
use prost::Message;
use tonic::{Request, Response, Status};

use self::{all::All, follow::Follow};
use super::{
    caller,
    pages::{self, Query},
    requests, status,
    within::Within,
};
use crate::{
    caller::Caller,
    fleet::check_reason,
    hub::Hub,
    rollouts::{RolloutId, Rollouts, StepError, machine::Step, spec::RolloutSpec, wire},
    shutdown::Shutdown,
    store::{NewRollout, Note, Once, RequestKey, RolloutFilter, Stepped, StoredRollout},
};

/// Rollouts that one page looks through for those that its filter admits.
const LOOKED_THROUGH: usize = 10_000;
/// Longest message of a change.
const LONGEST_MESSAGE: usize = 1000;

/// The service.
#[derive(Debug)]
pub struct RolloutApi {
    rollouts: Rollouts,
    hub: Hub,
    shutdown: Shutdown,
}

fn check_message(field: &str, message: &str) -> Result<(), Status> {
    if message.len() > LONGEST_MESSAGE {
        return Err(status::invalid_field(field, &format!("must be at most {LONGEST_MESSAGE} bytes")));
    }
    Ok(())
}

/// The rollout that a request names.
fn named<T>(request: &Request<T>, name: impl FnOnce(&T) -> &String) -> Result<RolloutId, Status> {
    rollout_name(&Within::of(request)?, name(request.get_ref()))
}

/// Reads `namespaces/{namespace}/policies/{policy}/rollouts/{rollout}`, of a namespace of the caller's.
fn rollout_name(within: &Within, text: &str) -> Result<RolloutId, Status> {
    let wrong = || {
        status::invalid_field(
            "name",
            "must be namespaces/{namespace}/policies/{policy}/rollouts/{rollout}, by its number",
        )
    };
    let (policy, number) = text.rsplit_once("/rollouts/").ok_or_else(wrong)?;
    let (namespace, policy) = parse_policy_name(policy).map_err(|invalid| status::invalid(&invalid.under("name")))?;
    within.check(&namespace)?;
    Ok((namespace, policy, Revision(number.parse().map_err(|_| wrong())?)))
}

/// Reads what a list is of; `None` for all.
fn parent(text: &str) -> Result<(Option<Namespace>, Option<PolicyName>), Status> {
    let bad = |invalid: fusebox_policy::Invalid| status::invalid(&invalid.under("parent"));
    if text == "namespaces/-" {
        return Ok((None, None));
    }
    if text.contains("/policies/") {
        let (namespace, policy) = parse_policy_name(text).map_err(bad)?;
        return Ok((Some(namespace), Some(policy)));
    }
    let name = text.strip_prefix("namespaces/").ok_or_else(|| {
        status::invalid_field(
            "parent",
            "must be namespaces/{namespace}, with /policies/{policy}, or namespaces/- for all",
        )
    })?;
    Ok((Some(Namespace::try_new(name).map_err(bad)?), None))
}

fn kept(stepped: &Stepped) -> Vec<u8> {
    wire::rollout(&stepped.rollout, None).encode_to_vec()
}

/// What a change of a rollout is besides its step.
struct Why {
    note: Note,
    validate_only: bool,
    once: Option<Once<Stepped>>,
}

impl Why {
    fn new(caller: Caller, message: String, validate_only: bool, key: Option<RequestKey>) -> Self {
        let key = key.filter(|_| !validate_only);
        let note = Note { caller: caller.asking(key.as_ref()), message, at: SystemTime::now() };
        Self { note, validate_only, once: key.map(|key| Once::new(key, kept)) }
    }
}

impl RolloutApi {
    /// Over the use cases.
    #[must_use]
    pub const fn new(rollouts: Rollouts, hub: Hub, shutdown: Shutdown) -> Self {
        Self { rollouts, hub, shutdown }
    }

    /// The same service, for a stream.
    fn again(&self) -> Self {
        Self { rollouts: self.rollouts.clone(), hub: self.hub.clone(), shutdown: self.shutdown.clone() }
    }

    fn respond(outcome: Result<StoredRollout, StepError>) -> Result<Response<v1::Rollout>, Status> {
        let outcome = match outcome {
            Ok(rollout) => Ok(rollout),
            Err(StepError::Store(error)) => Err(error),
            Err(error @ StepError::GatesHold { .. }) => return Err(status::gates_hold(&error)),
        };
        let render = |rollout: &StoredRollout| wire::rollout(rollout, None);
        requests::respond(outcome, render, |error| status::store(&error))
    }

    async fn step(&self, id: RolloutId, step: Step, why: Why) -> Result<Response<v1::Rollout>, Status> {
        let Why { note, validate_only, once } = why;
        Self::respond(self.rollouts.step(id, step, note, validate_only, once).await.map_err(StepError::Store))
    }

    /// A rollout that is stored, in progress or not.
    async fn stored(&self, id: &RolloutId) -> Result<StoredRollout, Status> {
        let (namespace, policy, candidate) = id.clone();
        let before = Some(Revision(candidate.0.saturating_add(1)));
        let filter = RolloutFilter { namespace: Some(namespace), policy: Some(policy), before, limit: 1 };
        let found = self.rollouts.store.rollouts(filter).await.map_err(|error| status::store(&error))?.pop();
        found.filter(|found| found.candidate == candidate).ok_or_else(|| {
            let (namespace, policy, candidate) = id;
            status::not_found("rollout", &format!("namespaces/{namespace}/policies/{policy}/rollouts/{candidate}"))
        })
    }

    async fn show(&self, stored: &StoredRollout) -> v1::Rollout {
        let present = self.hub.current();
        match present.rollouts.iter().find(|staged| staged.rollout.candidate == stored.candidate) {
            Some(staged) => wire::rollout(&staged.rollout, Some(&self.rollouts.look(staged).await)),
            None => wire::rollout(stored, None),
        }
    }
}

#[tonic::async_trait]
impl RolloutService for RolloutApi {
    async fn create_rollout(
        &self,
        request: Request<v1::CreateRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        if let Some((namespace, _)) = request.policy.as_ref().and_then(|policy| parse_policy_name(&policy.name).ok()) {
            within.check(&namespace)?;
        }
        let key = requests::key("CreateRollout", &request.request_id, &request)?;
        let v1::CreateRolloutRequest { policy, spec, message, validate_only, request_id: _ } = request;
        check_message("message", &message)?;
        let key = key.filter(|_| !validate_only);
        if let Some(answer) = requests::answered(&self.rollouts.store, key.as_ref()).await? {
            return Ok(Response::new(answer));
        }
        let mut faults = Faults::new();
        let etag = policy.as_ref().map(|policy| policy.etag.clone()).filter(|etag| !etag.is_empty());
        let policy = match policy {
            // The paths of a policy's fields are those of its manifest.
            Some(policy) => faults.take("", Policy::try_from(policy)),
            None => {
                faults.push("policy", "is required");
                None
            }
        };
        let spec = faults.take("rollout", RolloutSpec::try_from(spec.unwrap_or_default()));
        let (policy, spec) = faults.into_result(policy.zip(spec)).map_err(|invalid| status::invalid(&invalid))?;
        let Why { note, validate_only, once } = Why::new(caller, message, validate_only, key);
        let new = NewRollout { policy: Box::new(policy), etag, spec };
        let started = self.rollouts.start(new, note, validate_only, once).await;
        Self::respond(started.map_err(StepError::Store))
    }

    async fn get_rollout(&self, request: Request<v1::GetRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        let within = Within::of(&request)?;
        let v1::GetRolloutRequest { name } = request.into_inner();
        let stored = self.stored(&rollout_name(&within, &name)?).await?;
        Ok(Response::new(self.show(&stored).await))
    }

    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListRollouts",
            &v1::ListRolloutsRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListRolloutsRequest { parent: of, page_size, page_token, filter } = request;
        let (namespace, policy) = parent(&of)?;
        let namespace = within.narrow(namespace)?;
        let size = pages::size(page_size)?;
        let wanted = pages::filter::<v1::Rollout>(&filter)?;
        let mut before = query.number(&page_token)?.map(Revision);
        let limit = u32::try_from(size + 1).unwrap_or(u32::MAX);
        let mut rollouts = Vec::new();
        let mut looked_through = 0;
        let next_page_token = 'pages: loop {
            let filter = RolloutFilter { namespace: namespace.clone(), policy: policy.clone(), before, limit };
            let stored = self.rollouts.store.rollouts(filter).await.map_err(|error| status::store(&error))?;
            looked_through += stored.len();
            let is_last = stored.len() <= size;
            for stored in &stored {
                if rollouts.len() == size {
                    break 'pages before;
                }
                before = Some(stored.candidate);
                let shown = self.show(stored).await;
                if wanted.admits(&shown) {
                    rollouts.push(shown);
                }
            }
            if is_last || looked_through >= LOOKED_THROUGH {
                break before.filter(|_| !is_last);
            }
        };
        let next_page_token = next_page_token.map(|last| query.token(&last.0.to_string())).unwrap_or_default();
        Ok(Response::new(v1::ListRolloutsResponse { rollouts, next_page_token }))
    }

    type WatchRolloutStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRolloutResponse, Status>> + Send>>;

    async fn watch_rollout(
        &self,
        request: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let within = Within::of(&request)?;
        let v1::WatchRolloutRequest { name } = request.into_inner();
        let id = rollout_name(&within, &name)?;
        // Followed before it is read: what changes in between is seen.
        let (policies, lives) = (self.hub.subscribe(), self.rollouts.follow());
        let stored = self.stored(&id).await?;
        let first = self.show(&stored).await;
        let follow = Follow { api: self.again(), id, policies, lives, told: None, next: Some(first), over: false };
        Ok(Response::new(Box::pin(stream::unfold(follow, |mut follow| async {
            let event = follow.next().await?;
            Some((event, follow))
        }))))
    }

    type WatchRolloutsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRolloutsResponse, Status>> + Send>>;

    async fn watch_rollouts(
        &self,
        request: Request<v1::WatchRolloutsRequest>,
    ) -> Result<Response<Self::WatchRolloutsStream>, Status> {
        let within = Within::of(&request)?;
        let v1::WatchRolloutsRequest { parent: of, filter } = request.into_inner();
        let (namespace, policy) = parent(&of)?;
        let namespace = within.narrow(namespace)?;
        let filter = pages::filter::<v1::Rollout>(&filter)?;
        let all = All::begin(self.again(), namespace, policy, filter).await?;
        Ok(Response::new(Box::pin(stream::unfold(all, |mut all| async {
            let event = all.next().await?;
            Some((event.map(|event| v1::WatchRolloutsResponse { event: Some(event) }), all))
        }))))
    }

    async fn promote_rollout(
        &self,
        request: Request<v1::PromoteRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        let (caller, id) = (caller(&request), named(&request, |asked| &asked.name)?);
        let request = request.into_inner();
        let key = requests::key("PromoteRollout", &request.request_id, &request)?;
        let v1::PromoteRolloutRequest { name: _, force, reason, request_id: _, validate_only } = request;
        let key = key.filter(|_| !validate_only);
        if let Some(answer) = requests::answered(&self.rollouts.store, key.as_ref()).await? {
            return Ok(Response::new(answer));
        }
        check_message("reason", &reason)?;
        if force {
            let mut faults = Faults::new();
            check_reason(&reason, &mut faults);
            faults.into_result(Some(())).map_err(|invalid| status::invalid(&invalid))?;
        }
        let Why { note, validate_only, once } = Why::new(caller, reason, validate_only, key);
        Self::respond(self.rollouts.promote(id, force, note, validate_only, once).await)
    }

    async fn pause_rollout(&self, request: Request<v1::PauseRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        let (caller, id) = (caller(&request), named(&request, |asked| &asked.name)?);
        let request = request.into_inner();
        let key = requests::key("PauseRollout", &request.request_id, &request)?;
        let v1::PauseRolloutRequest { name: _, reason, request_id: _, validate_only } = request;
        check_message("reason", &reason)?;
        self.step(id, Step::Pause, Why::new(caller, reason, validate_only, key)).await
    }

    async fn resume_rollout(
        &self,
        request: Request<v1::ResumeRolloutRequest>,
    ) -> Result<Response<v1::Rollout>, Status> {
        let (caller, id) = (caller(&request), named(&request, |asked| &asked.name)?);
        let request = request.into_inner();
        let key = requests::key("ResumeRollout", &request.request_id, &request)?;
        let v1::ResumeRolloutRequest { name: _, reason, request_id: _, validate_only } = request;
        check_message("reason", &reason)?;
        self.step(id, Step::Resume, Why::new(caller, reason, validate_only, key)).await
    }

    async fn abort_rollout(&self, request: Request<v1::AbortRolloutRequest>) -> Result<Response<v1::Rollout>, Status> {
        let (caller, id) = (caller(&request), named(&request, |asked| &asked.name)?);
        let request = request.into_inner();
        let key = requests::key("AbortRollout", &request.request_id, &request)?;
        let v1::AbortRolloutRequest { name: _, reason, request_id: _, validate_only } = request;
        let mut faults = Faults::new();
        check_reason(&reason, &mut faults);
        faults.into_result(Some(())).map_err(|invalid| status::invalid(&invalid))?;
        check_message("reason", &reason)?;
        self.step(id, Step::Abort, Why::new(caller, reason, validate_only, key)).await
    }
}
