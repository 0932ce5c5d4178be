//! `fusebox.v1.PolicyService`.

mod adopt;
mod follow;
mod mask;
mod resolve;
mod standing;

use adopt::adopt;
use follow::{Events, Wanted, follow};
use fusebox_policy::{Invalid, Namespace, Policy, PolicyName, Revision, invalid::Faults, policy::Labels};
use fusebox_proto::{
    parse_policy_name,
    v1::{self, policy_service_server::PolicyService},
};
use prost::Message;
use resolve::{Asked, resolve};
use standing::Replicas;
use tonic::{Request, Response, Status};

use super::{
    caller,
    pages::{self, Query},
    requests, status,
    within::Within,
};
use crate::{
    caller::Caller,
    filter::Filter,
    fleet::Fleet,
    policies::Policies,
    shutdown::Shutdown,
    store::{
        Action, Applied, Change, ChangeResult, Expect, Once, RequestKey, RevisionAction, StoreError, StoredPolicy,
        StoredRevision, timestamp,
    },
};

/// Policies in one ApplyPolicies.
const MOST_APPLIED: usize = 1000;
/// Longest message of a change.
const LONGEST_MESSAGE: usize = 1000;

/// The service.
#[derive(Debug)]
pub struct PolicyApi {
    policies: Policies,
    fleet: Fleet,
    shutdown: Shutdown,
}

impl PolicyApi {
    /// Over the use cases; the fleet tells who runs what.
    #[must_use]
    pub const fn new(policies: Policies, fleet: Fleet, shutdown: Shutdown) -> Self {
        Self { policies, fleet, shutdown }
    }

    /// Makes changes, and answers with what `render` makes of them, or with what the same request was answered before.
    async fn write<R: Message + Default + 'static>(
        &self,
        changes: Vec<Change>,
        why: Why,
        render: fn(&Applied) -> R,
        refuse: fn(StoreError) -> Status,
    ) -> Result<Response<R>, Status> {
        let Why { caller, message, validate_only, key } = why;
        let once = key.map(|key| Once::new(key, move |applied| render(applied).encode_to_vec()));
        let applied = self.policies.apply(changes, caller, message, validate_only, once).await;
        requests::respond(applied, render, refuse)
    }

    /// What the same request was answered before, if it was. Asked first: the policies may have changed since.
    async fn answered<R: Message + Default>(&self, why: &Why) -> Result<Option<Response<R>>, Status> {
        let key = why.key.as_ref().filter(|_| !why.validate_only);
        Ok(requests::answered(&self.policies.store, key).await?.map(Response::new))
    }
}

/// Everything about a write but what is written.
struct Why {
    caller: Caller,
    message: String,
    validate_only: bool,
    key: Option<RequestKey>,
}

impl Why {
    fn new(caller: Caller, message: String, validate_only: bool, key: Option<RequestKey>) -> Self {
        Self { caller: caller.asking(key.as_ref()), message, validate_only, key }
    }
}

fn bad(invalid: Invalid) -> Status {
    status::invalid(&invalid)
}

fn check_message(message: &str) -> Result<(), Status> {
    if message.len() > LONGEST_MESSAGE {
        return Err(status::invalid_field("message", &format!("must be at most {LONGEST_MESSAGE} bytes")));
    }
    Ok(())
}

fn parent(text: &str) -> Result<Option<Namespace>, Status> {
    let wrong = || status::invalid_field("parent", "must be namespaces/{namespace}, or namespaces/- for all");
    match text.strip_prefix("namespaces/").ok_or_else(wrong)? {
        "-" => Ok(None),
        name => Namespace::try_new(name).map(Some).map_err(|invalid| bad(invalid.under("parent"))),
    }
}

fn policy_name(text: &str) -> Result<(Namespace, PolicyName), Status> {
    parse_policy_name(text).map_err(|invalid| bad(invalid.under("name")))
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn refuse(error: StoreError) -> Status {
    status::store(&error)
}

/// The one policy that was written.
fn single(applied: &Applied) -> v1::Policy {
    let after = applied.results.first().and_then(|result| result.after.as_ref());
    after.map(|stored| stored.wire.clone()).unwrap_or_default()
}

/// What became of each policy.
fn each(applied: &Applied) -> v1::ApplyPoliciesResponse {
    let result = |result: &ChangeResult| {
        let action = match result.action {
            Action::Created => v1::applied_policy::Action::Created,
            Action::Configured => v1::applied_policy::Action::Configured,
            Action::Unchanged => v1::applied_policy::Action::Unchanged,
            Action::Deleted => v1::applied_policy::Action::Deleted,
        };
        v1::AppliedPolicy {
            action: action.into(),
            policy: result.after.as_ref().map(|stored| stored.wire.clone()),
            previous: result.before.as_ref().map(|stored| stored.wire.clone()),
        }
    };
    v1::ApplyPoliciesResponse { results: applied.results.iter().map(result).collect(), revision: applied.revision.0 }
}

/// Which policies an application deletes.
fn pruning(wire: v1::Prune) -> Result<Change, Invalid> {
    let v1::Prune { parent, labels } = wire;
    let mut faults = Faults::new();
    let namespace = match parent.strip_prefix("namespaces/") {
        Some(name) => faults.take("parent", Namespace::try_new(name)),
        None => {
            faults.push("parent", "must be namespaces/{namespace}: pruning is of one namespace");
            None
        }
    };
    let labels = faults.take("labels", Labels::try_new(labels));
    let change =
        namespace.zip(labels).map(|(namespace, labels)| Change::Prune { namespace, labels: labels.as_map().clone() });
    faults.into_result(change)
}

fn shows(stored: &StoredPolicy, namespace: Option<&Namespace>, filter: &Filter) -> bool {
    namespace.is_none_or(|namespace| stored.policy.namespace == *namespace) && filter.admits(&stored.wire)
}

/// The policy and the number of a revision's name; `None` if it is no such name.
fn revision_name(name: &str) -> Result<Option<(&str, u64)>, Status> {
    let Some((policy, number)) = name.split_once("/revisions/") else { return Ok(None) };
    let wrong = |_| status::invalid_field("name", "must end with /revisions/{revision}, a number");
    number.parse().map(|number| Some((policy, number))).map_err(wrong)
}

#[tonic::async_trait]
impl PolicyService for PolicyApi {
    async fn create_policy(&self, request: Request<v1::CreatePolicyRequest>) -> Result<Response<v1::Policy>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        let key = requests::key("CreatePolicy", &request.request_id, &request)?;
        let v1::CreatePolicyRequest { parent: namespace, policy_id, policy, validate_only, message, request_id: _ } =
            request;
        check_message(&message)?;
        let namespace = parent(&namespace)?
            .ok_or_else(|| status::invalid_field("parent", "must name one namespace to create in"))?;
        within.check(&namespace)?;
        let why = Why::new(caller, message, validate_only, key);
        if let Some(answer) = self.answered(&why).await? {
            return Ok(answer);
        }
        let id = PolicyName::try_new(&policy_id).map_err(|invalid| bad(invalid.under("policy_id")))?;
        let wire = policy.ok_or_else(|| status::invalid_field("policy", "is required"))?;
        let name = format!("namespaces/{namespace}/policies/{id}");
        let policy = Policy::try_from(v1::Policy { name, ..wire }).map_err(bad)?;
        let change = Change::Put { policy: Box::new(policy), expect: Expect::Absent, rollback: false };
        self.write(vec![change], why, single, refuse).await
    }

    async fn get_policy(&self, request: Request<v1::GetPolicyRequest>) -> Result<Response<v1::Policy>, Status> {
        let within = Within::of(&request)?;
        let v1::GetPolicyRequest { name } = request.into_inner();
        within.check(&policy_name(&name)?.0)?;
        let snapshot = self.policies.hub().current();
        let stored = snapshot.get(&name).ok_or_else(|| status::not_found("policy", &name))?;
        let view = self.fleet.view().await.map_err(|ended| status::unavailable(&ended.to_string()))?;
        Ok(Response::new(Replicas::new(&view).with_status(stored)))
    }

    /// A token is the revision of the first page and a place in it. The hub keeps the last few snapshots, so that a change between two pages
    /// does not show; a reader that is slower than that is told to begin again rather than shown a mixture.
    async fn list_policies(
        &self,
        request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListPolicies",
            &v1::ListPoliciesRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListPoliciesRequest { parent: namespace, page_size, page_token, filter } = request;
        let namespace = within.narrow(parent(&namespace)?)?;
        let size = pages::size(page_size)?;
        let filter = pages::filter::<v1::Policy>(&filter)?;
        let (snapshot, skip) = match query.place(&page_token)? {
            None => (self.policies.hub().current(), 0),
            Some(token) => {
                let (revision, place) = token
                    .split_once('.')
                    .and_then(|(revision, place)| Some((revision.parse().ok()?, place.parse::<usize>().ok()?)))
                    .ok_or_else(pages::foreign)?;
                let snapshot = self.policies.hub().at(Revision(revision)).ok_or_else(|| {
                    status::refused(
                        status::Reason::PagesOutdated,
                        "policies have changed too often between two pages: begin again",
                    )
                })?;
                (snapshot, place)
            }
        };
        let namespace = namespace.as_ref();
        // Places count what the list is of: how much there is in other namespaces does not show.
        let own = snapshot.policies.iter().filter(|stored| shows(stored, namespace, &Filter::default()));
        let mut rest = own.enumerate().skip(skip).filter(|(_, stored)| shows(stored, namespace, &filter));
        let view = self.fleet.view().await.map_err(|ended| status::unavailable(&ended.to_string()))?;
        let replicas = Replicas::new(&view);
        let policies = rest.by_ref().take(size).map(|(_, stored)| replicas.with_status(stored)).collect();
        let next_page_token =
            rest.next().map_or_else(String::new, |(place, _)| query.token(&format!("{}.{place}", snapshot.revision)));
        Ok(Response::new(v1::ListPoliciesResponse { policies, next_page_token, revision: snapshot.revision.0 }))
    }

    async fn update_policy(&self, request: Request<v1::UpdatePolicyRequest>) -> Result<Response<v1::Policy>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        let key = requests::key("UpdatePolicy", &request.request_id, &request)?;
        let v1::UpdatePolicyRequest { policy, update_mask, allow_missing, validate_only, message, request_id: _ } =
            request;
        check_message(&message)?;
        let wire = policy.ok_or_else(|| status::invalid_field("policy", "is required"))?;
        let (namespace, _) = policy_name(&wire.name)
            .map_err(|_| status::invalid_field("policy.name", "must be namespaces/{namespace}/policies/{policy}"))?;
        within.check(&namespace)?;
        let why = Why::new(caller, message, validate_only, key);
        if let Some(answer) = self.answered(&why).await? {
            return Ok(answer);
        }
        let mask = mask::parse(update_mask, &wire)?;
        let mut etag = optional(wire.etag.clone());
        let snapshot = self.policies.hub().current();
        let wire = match (snapshot.get(&wire.name), mask) {
            (None, _) if !allow_missing => return Err(status::not_found("policy", &wire.name)),
            (Some(stored), Some(paths)) => {
                // What the mask leaves out is taken from what was read just now: a change in between must not be lost.
                etag = etag.or_else(|| Some(stored.etag().to_owned()));
                mask::take(stored.wire.clone(), wire, &paths)
            }
            (None, _) | (Some(_), None) => wire,
        };
        let policy = Policy::try_from(wire).map_err(bad)?;
        let expect = if allow_missing { Expect::Any(etag) } else { Expect::Present(etag) };
        let change = Change::Put { policy: Box::new(policy), expect, rollback: false };
        self.write(vec![change], why, single, refuse).await
    }

    async fn delete_policy(&self, request: Request<v1::DeletePolicyRequest>) -> Result<Response<()>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        let key = requests::key("DeletePolicy", &request.request_id, &request)?;
        let v1::DeletePolicyRequest { name, etag, allow_missing, validate_only, message, request_id: _ } = request;
        check_message(&message)?;
        let why = Why::new(caller, message, validate_only, key);
        let (namespace, name) = policy_name(&name)?;
        within.check(&namespace)?;
        let change = Change::Delete { namespace, name, etag: optional(etag), allow_missing };
        self.write(vec![change], why, |_| (), refuse).await
    }

    async fn apply_policies(
        &self,
        request: Request<v1::ApplyPoliciesRequest>,
    ) -> Result<Response<v1::ApplyPoliciesResponse>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        let key = requests::key("ApplyPolicies", &request.request_id, &request)?;
        let v1::ApplyPoliciesRequest { policies, validate_only, message, request_id: _, prune } = request;
        check_message(&message)?;
        let why = Why::new(caller, message, validate_only, key);
        if policies.is_empty() || policies.len() > MOST_APPLIED {
            let reason = format!("must be from 1 to {MOST_APPLIED}, are {}", policies.len());
            return Err(status::invalid_field("policies", &reason));
        }
        let mut faults = Faults::new();
        let mut changes = Vec::with_capacity(policies.len());
        let mut names: Vec<String> = Vec::with_capacity(policies.len());
        for (index, wire) in policies.into_iter().enumerate() {
            let at = format!("policies[{index}]");
            if names.contains(&wire.name) {
                faults.push(format!("{at}.name"), format!("\"{}\" is there twice", wire.name));
            }
            names.push(wire.name.clone());
            if let Ok((namespace, _)) = parse_policy_name(&wire.name) {
                within.check(&namespace)?;
            }
            let etag = optional(wire.etag.clone());
            if let Some(policy) = faults.take(&at, Policy::try_from(wire)) {
                changes.push(Change::Put { policy: Box::new(policy), expect: Expect::Any(etag), rollback: false });
            }
        }
        let prune = prune.and_then(|prune| faults.take("prune", pruning(prune)));
        if let Some(Change::Prune { namespace, .. }) = &prune {
            within.check(namespace)?;
        }
        faults.finish().map_err(bad)?;
        changes.extend(prune);
        self.write(changes, why, each, |error| {
            if let StoreError::Contradiction(index, invalid) = error {
                bad(invalid.under(&format!("policies[{index}]")))
            } else {
                status::store(&error)
            }
        })
        .await
    }

    async fn list_policy_revisions(
        &self,
        request: Request<v1::ListPolicyRevisionsRequest>,
    ) -> Result<Response<v1::ListPolicyRevisionsResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let query = Query::of(
            "ListPolicyRevisions",
            &v1::ListPolicyRevisionsRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let v1::ListPolicyRevisionsRequest { name: full_name, page_size, page_token, filter } = request;
        let (namespace, name) = policy_name(&full_name)?;
        within.check(&namespace)?;
        let size = pages::size(page_size)?;
        let filter = pages::filter::<v1::PolicyRevision>(&filter)?;
        let mut before = query.number(&page_token)?.map(Revision);
        let limit = u32::try_from(size + 1).unwrap_or(u32::MAX);
        let mut revisions = Vec::new();
        loop {
            let stored = self.policies.revisions(namespace.clone(), name.clone(), before, limit).await;
            let stored = stored.map_err(|error| status::store(&error))?;
            if stored.is_empty() && before.is_none() {
                return Err(status::not_found("policy", &full_name));
            }
            let is_last = stored.len() <= size;
            for own in stored.into_iter().map(revision) {
                if revisions.len() == size {
                    let next_page_token = before.map(|last| query.token(&last.to_string())).unwrap_or_default();
                    return Ok(Response::new(v1::ListPolicyRevisionsResponse { revisions, next_page_token }));
                }
                before = Some(Revision(own.revision));
                if filter.admits(&own) {
                    revisions.push(own);
                }
            }
            if is_last {
                let next_page_token = String::new();
                return Ok(Response::new(v1::ListPolicyRevisionsResponse { revisions, next_page_token }));
            }
        }
    }

    async fn get_policy_revision(
        &self,
        request: Request<v1::GetPolicyRevisionRequest>,
    ) -> Result<Response<v1::PolicyRevision>, Status> {
        let within = Within::of(&request)?;
        let v1::GetPolicyRevisionRequest { name: full_name } = request.into_inner();
        let (policy, number) = revision_name(&full_name)?.ok_or_else(|| {
            status::invalid_field("name", "must be namespaces/{namespace}/policies/{policy}/revisions/{revision}")
        })?;
        let (namespace, name) = policy_name(policy)?;
        within.check(&namespace)?;
        let after = Some(Revision(number.saturating_add(1)));
        let found = self.policies.revisions(namespace, name, after, 1).await.map_err(|error| status::store(&error))?;
        let found = found.into_iter().map(revision).find(|own| own.revision == number);
        found.map(Response::new).ok_or_else(|| status::not_found("revision", &full_name))
    }

    async fn rollback_policy(
        &self,
        request: Request<v1::RollbackPolicyRequest>,
    ) -> Result<Response<v1::Policy>, Status> {
        let (caller, within) = (caller(&request), Within::of(&request)?);
        let request = request.into_inner();
        let key = requests::key("RollbackPolicy", &request.request_id, &request)?;
        let v1::RollbackPolicyRequest { name, revision, etag, message, request_id: _, validate_only } = request;
        check_message(&message)?;
        // The revision may be named as the resource that it is.
        let (name, revision) = match revision_name(&name)? {
            Some((policy, named)) if revision == 0 || revision == named => (policy.to_owned(), named),
            Some(_) => return Err(status::invalid_field("revision", "is another one than the name says")),
            None => (name, revision),
        };
        let (namespace, name) = policy_name(&name)?;
        within.check(&namespace)?;
        let why = Why::new(caller, message, validate_only, key);
        if let Some(answer) = self.answered(&why).await? {
            return Ok(answer);
        }
        let change = self
            .policies
            .rollback(namespace, name, (revision != 0).then_some(Revision(revision)), optional(etag))
            .await
            .map_err(|error| status::rollback(&error))?;
        let message = if why.message.is_empty() { change.reason } else { why.message };
        self.write(vec![change.change], Why { message, ..why }, single, refuse).await
    }

    async fn adopt_present(
        &self,
        request: Request<v1::AdoptPresentRequest>,
    ) -> Result<Response<v1::AdoptPresentResponse>, Status> {
        let caller = caller(&request);
        adopt(&self.policies, caller, request.into_inner()).await
    }

    async fn resolve_policy(
        &self,
        request: Request<v1::ResolvePolicyRequest>,
    ) -> Result<Response<v1::ResolvePolicyResponse>, Status> {
        let within = Within::of(&request)?;
        let request = request.into_inner();
        let namespace = parent(&request.parent)?.ok_or_else(|| {
            status::invalid_field("parent", "must name one namespace: a service runs the policies of one")
        })?;
        within.check(&namespace)?;
        let asked = Asked::try_new(namespace, request).map_err(bad)?;
        let view = self.fleet.view().await.map_err(|ended| status::unavailable(&ended.to_string()))?;
        let mut resolved = resolve(&asked, &self.policies.hub().current(), &view);
        for breaker in resolved.strategies.iter_mut().flat_map(|strategy| &mut strategy.breakers) {
            breaker.r#override = breaker.r#override.take().and_then(|own| within.shown(own));
        }
        Ok(Response::new(resolved))
    }

    type WatchPoliciesStream = Events;

    async fn watch_policies(
        &self,
        request: Request<v1::WatchPoliciesRequest>,
    ) -> Result<Response<Self::WatchPoliciesStream>, Status> {
        let within = Within::of(&request)?;
        let v1::WatchPoliciesRequest { parent: namespace, filter, from_revision } = request.into_inner();
        let wanted = Wanted {
            namespace: within.narrow(parent(&namespace)?)?,
            filter: pages::filter::<v1::Policy>(&filter)?,
            from: (from_revision > 0).then_some(Revision(from_revision)),
        };
        follow(self.policies.hub().subscribe(), wanted, self.shutdown.clone()).map(Response::new)
    }
}

fn revision(stored: StoredRevision) -> v1::PolicyRevision {
    let StoredRevision { revision, action, policy, author, message, at } = stored;
    let action = match action {
        RevisionAction::Create => v1::policy_revision::Action::Create,
        RevisionAction::Update => v1::policy_revision::Action::Update,
        RevisionAction::Delete => v1::policy_revision::Action::Delete,
        RevisionAction::Rollback => v1::policy_revision::Action::Rollback,
        RevisionAction::Candidate => v1::policy_revision::Action::Candidate,
        RevisionAction::Promote => v1::policy_revision::Action::Promote,
    };
    v1::PolicyRevision {
        name: format!("{}/revisions/{revision}", policy.resource_name()),
        revision: revision.0,
        action: action.into(),
        snapshot: Some(v1::Policy::from(&policy)),
        create_time: Some(timestamp(at)),
        author,
        message,
    }
}
