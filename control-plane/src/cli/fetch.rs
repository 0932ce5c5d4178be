//! Reading from the server: all pages of a list, and things by the name that a person typed.

use std::time::SystemTime;

use fusebox_proto::v1::{self, Breaker, BreakerTransition, Instance, PolicyRevision, Service};
use tonic::Status;

use super::{
    connect::Server,
    failure::{Class, Failure},
    render::{self, Row as _},
    span,
};
use crate::nearest::nearest;

/// Few round trips, and far below the largest message.
const PAGE: i32 = 500;

/// All things of a list, page by page.
async fn all<T>(
    page: impl AsyncFn(String) -> Result<(Vec<T>, String), Status>,
    doing: &str,
) -> Result<Vec<T>, Failure> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let (things, next) = page(page_token).await.map_err(Failure::to(doing))?;
        all.extend(things);
        if next.is_empty() {
            return Ok(all);
        }
        page_token = next;
    }
}

/// The policies of a namespace that a filter admits; `-` is every namespace, the empty filter admits all.
pub(crate) async fn policies(server: &Server, namespace: &str, filter: &str) -> Result<Vec<v1::Policy>, Failure> {
    let page = async |page_token| {
        let (parent, filter) = (format!("namespaces/{namespace}"), filter.to_owned());
        let request = v1::ListPoliciesRequest { parent, page_size: PAGE, page_token, filter };
        let answer = server.policies().list_policies(request).await?.into_inner();
        Ok((answer.policies, answer.next_page_token))
    };
    all(page, "list policies").await
}

/// Tokens; with `show_ended` also those that count no more.
pub(crate) async fn tokens(server: &Server, show_ended: bool) -> Result<Vec<v1::Token>, Failure> {
    let page = async |page_token| {
        let request =
            v1::ListTokensRequest { show_ended, page_size: PAGE, page_token, ..v1::ListTokensRequest::default() };
        let answer = server.admin().list_tokens(request).await?.into_inner();
        Ok((answer.tokens, answer.next_page_token))
    };
    all(page, "list tokens").await
}

/// The resource name for what was typed: a policy's id, or the whole name.
pub(crate) fn policy_name(namespace: &str, typed: &str) -> String {
    if typed.starts_with("namespaces/") { typed.to_owned() } else { format!("namespaces/{namespace}/policies/{typed}") }
}

/// One policy; if there is none, the nearest name is told.
pub(crate) async fn policy(server: &Server, namespace: &str, typed: &str) -> Result<v1::Policy, Failure> {
    let request = v1::GetPolicyRequest { name: policy_name(namespace, typed) };
    match server.policies().get_policy(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => {
            let failure = Failure::to(format!("get policy \"{typed}\""))(status);
            Err(if failure.class == Class::NotFound { no_policy(server, namespace, typed).await } else { failure })
        }
    }
}

/// The rollouts of a policy, or of all policies of a namespace, that a filter admits, newest first; `-` is every namespace.
pub(crate) async fn rollouts(
    server: &Server,
    namespace: &str,
    typed: Option<&str>,
    filter: &str,
) -> Result<Vec<v1::Rollout>, Failure> {
    let parent = typed.map_or_else(|| format!("namespaces/{namespace}"), |typed| policy_name(namespace, typed));
    let page = async |page_token| {
        let request =
            v1::ListRolloutsRequest { parent: parent.clone(), page_size: PAGE, page_token, filter: filter.to_owned() };
        let answer = server.rollouts().list_rollouts(request).await?.into_inner();
        Ok((answer.rollouts, answer.next_page_token))
    };
    all(page, "list rollouts").await
}

fn rollout_number(typed: &str) -> (&str, Option<u64>) {
    match typed.rsplit_once('/') {
        Some((policy, number)) if !typed.starts_with("namespaces/") => (policy, number.parse().ok()),
        Some(_) | None => (typed, None),
    }
}

/// Whether a typed name means this rollout: its policy, `POLICY/REV`, or the whole name.
pub(crate) fn is_rollout(rollout: &v1::Rollout, typed: &str) -> bool {
    let (policy, number) = rollout_number(typed);
    rollout.name == typed
        || ((render::id(&rollout.policy) == policy || rollout.policy == policy)
            && number.is_none_or(|number| rollout.candidate_revision == number))
}

/// The rollouts that a name means: `POLICY` all of its, `POLICY/REV` one.
pub(crate) async fn rollouts_named(server: &Server, namespace: &str, typed: &str) -> Result<Vec<v1::Rollout>, Failure> {
    let (policy, number) = rollout_number(typed);
    let mut found = rollouts(server, namespace, Some(policy), "").await?;
    found.retain(|rollout| number.is_none_or(|number| rollout.candidate_revision == number));
    if found.is_empty() {
        // Tells which policy was meant, if there is none of this name.
        rollout(server, namespace, policy).await?;
        return Err(Failure::new(Class::NotFound, format!("there is no rollout {typed}"))
            .fix(format!("`fusebox rollout list {policy}` lists those of the policy")));
    }
    Ok(found)
}

/// The newest rollout of a policy; if there never was one, the nearest name of a policy is told.
pub(crate) async fn rollout(server: &Server, namespace: &str, typed: &str) -> Result<v1::Rollout, Failure> {
    match newest_rollout(server, &policy_name(namespace, typed)).await? {
        Some(found) => Ok(found),
        None => {
            let policy = policy(server, namespace, typed).await?;
            let label = render::label(&policy.name);
            let fix = "start one: fusebox rollout start -f policy.yaml --to-percent 10 -m '...'";
            Err(Failure::new(Class::NotFound, format!("{label} has never been rolled out in stages")).fix(fix))
        }
    }
}

/// The newest rollout of a policy, by its resource name.
pub(crate) async fn newest_rollout(server: &Server, policy: &str) -> Result<Option<v1::Rollout>, Failure> {
    let request = v1::ListRolloutsRequest { parent: policy.to_owned(), page_size: 1, ..Default::default() };
    let answer = server.rollouts().list_rollouts(request).await.map_err(Failure::to("list rollouts"))?;
    Ok(answer.into_inner().rollouts.pop())
}

/// A rollout by its resource name.
pub(crate) async fn rollout_named(server: &Server, name: &str) -> Result<v1::Rollout, Failure> {
    let request = v1::GetRolloutRequest { name: name.to_owned() };
    Ok(server.rollouts().get_rollout(request).await.map_err(Failure::to("read the rollout"))?.into_inner())
}

/// The failure for a policy that does not exist.
pub(crate) async fn no_policy(server: &Server, namespace: &str, typed: &str) -> Failure {
    let name = policy_name(namespace, typed);
    let namespace = render::namespace_of(&name);
    // The look-up is a courtesy: if it fails, the answer is still "not found".
    let known = policies(server, namespace, "").await.unwrap_or_default();
    let known: Vec<_> = known.iter().map(|policy| render::id(&policy.name)).collect();
    let what = format!("there is no policy \"{}\" in namespace \"{namespace}\"", render::id(&name));
    not_found(what, render::id(&name), &known, "`fusebox get policies -A` lists all")
}

fn not_found(what: String, typed: &str, known: &[&str], otherwise: &str) -> Failure {
    let failure = Failure::new(Class::NotFound, what);
    match nearest(typed, known.iter().copied()) {
        Some(near) => failure.fix(format!("did you mean \"{near}\"?")),
        None => failure.fix(otherwise),
    }
}

/// The breakers that a filter admits, of one namespace if one is given.
pub(crate) async fn breakers(server: &Server, namespace: Option<&str>, filter: &str) -> Result<Vec<Breaker>, Failure> {
    list_breakers(server, namespace, filter, false).await
}

/// All breakers, of one namespace if one is given, and those that nobody holds any more and of which the server can tell.
pub(crate) async fn breakers_and_gone(server: &Server, namespace: Option<&str>) -> Result<Vec<Breaker>, Failure> {
    list_breakers(server, namespace, "", true).await
}

async fn list_breakers(
    server: &Server,
    namespace: Option<&str>,
    filter: &str,
    include_gone: bool,
) -> Result<Vec<Breaker>, Failure> {
    let page = async |page_token| {
        let request = v1::ListBreakersRequest {
            namespace: namespace.unwrap_or_default().to_owned(),
            page_size: PAGE,
            page_token,
            filter: filter.to_owned(),
            include_gone,
            ..Default::default()
        };
        let answer = server.breakers().list_breakers(request).await?.into_inner();
        Ok((answer.breakers, answer.next_page_token))
    };
    all(page, "list breakers").await
}

/// The overrides in force that a filter admits.
pub(crate) async fn overrides(server: &Server, filter: &str) -> Result<Vec<v1::Override>, Failure> {
    let page = async |page_token| {
        let request = v1::ListOverridesRequest { page_size: PAGE, page_token, filter: filter.to_owned() };
        let answer = server.breakers().list_overrides(request).await?.into_inner();
        Ok((answer.overrides, answer.next_page_token))
    };
    all(page, "list the overrides").await
}

/// The services that a filter admits.
pub(crate) async fn services(server: &Server, filter: &str) -> Result<Vec<Service>, Failure> {
    let page = async |page_token| {
        let request = v1::ListServicesRequest { page_size: PAGE, page_token, filter: filter.to_owned() };
        let answer = server.fleet().list_services(request).await?.into_inner();
        Ok((answer.services, answer.next_page_token))
    };
    all(page, "list services").await
}

/// The services that a name means.
///
/// # Errors
/// If it means none.
pub(crate) fn services_named(all: &[Service], typed: &str) -> Result<Vec<Service>, Failure> {
    let found: Vec<_> = all.iter().filter(|one| one.service == typed || one.name == typed).cloned().collect();
    if found.is_empty() {
        let known: Vec<_> = all.iter().map(|one| one.service.as_str()).collect();
        let what = format!("no replica connects as service \"{typed}\" or calls it");
        return Err(not_found(what, typed, &known, "`fusebox get services` lists those that do"));
    }
    Ok(found)
}

/// Whether a typed name means this breaker: its target, or its whole name.
pub(crate) fn is_breaker(breaker: &Breaker, typed: &str) -> bool {
    breaker.key.as_ref().is_some_and(|key| key.target == typed) || breaker.id() == typed || breaker.name == typed
}

/// The breakers that a name means.
///
/// # Errors
/// If it means none.
pub(crate) fn breakers_named(all: &[Breaker], typed: &str) -> Result<Vec<Breaker>, Failure> {
    let found: Vec<_> = all.iter().filter(|breaker| is_breaker(breaker, typed)).cloned().collect();
    if found.is_empty() {
        let known: Vec<_> = all.iter().filter_map(|one| one.key.as_ref()).map(|key| key.target.as_str()).collect();
        let what = format!("there is no breaker for target \"{typed}\": no connected replica holds one");
        return Err(not_found(
            what,
            typed,
            &known,
            "`fusebox get breakers` lists all; a replica's first call makes one",
        ));
    }
    Ok(found)
}

/// The connected replicas that a filter admits, of one namespace if one is given.
pub(crate) async fn instances(
    server: &Server,
    namespace: Option<&str>,
    filter: &str,
) -> Result<Vec<Instance>, Failure> {
    let page = async |page_token| {
        let filter = filter.to_owned();
        let request = v1::ListInstancesRequest { page_size: PAGE, page_token, filter, ..Default::default() };
        let answer = server.fleet().list_instances(request).await?.into_inner();
        Ok((answer.instances, answer.next_page_token))
    };
    let mut found = all(page, "list instances").await?;
    found.retain(|one| namespace.is_none_or(|wanted| one.namespace == wanted));
    Ok(found)
}

/// Whether a typed name means this replica: its id, `service/id`, or the whole name.
pub(crate) fn is_instance(instance: &Instance, typed: &str) -> bool {
    instance.instance == typed || instance.id() == typed || instance.name == typed
}

/// The replicas that a name means.
///
/// # Errors
/// If it means none.
pub(crate) fn instances_named(all: &[Instance], typed: &str) -> Result<Vec<Instance>, Failure> {
    let found: Vec<_> = all.iter().filter(|one| is_instance(one, typed)).cloned().collect();
    if found.is_empty() {
        let known: Vec<_> = all.iter().map(|one| one.instance.as_str()).collect();
        let what = format!("no replica \"{typed}\" is connected");
        return Err(not_found(what, typed, &known, "`fusebox get instances` lists those that are"));
    }
    Ok(found)
}

/// All revisions of a policy, newest first.
pub(crate) async fn revisions(server: &Server, namespace: &str, typed: &str) -> Result<Vec<PolicyRevision>, Failure> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListPolicyRevisionsRequest {
            name: policy_name(namespace, typed),
            page_size: PAGE,
            page_token,
            ..Default::default()
        };
        let answer = match server.policies().list_policy_revisions(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let failure = Failure::to(format!("read the history of \"{typed}\""))(status);
                let is_missing = failure.class == Class::NotFound;
                return Err(if is_missing { no_policy(server, namespace, typed).await } else { failure });
            }
        };
        all.extend(answer.revisions);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if all.is_empty() { Err(no_policy(server, namespace, typed).await) } else { Ok(all) }
}

/// Which transitions are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transitions {
    /// Only this target.
    pub(crate) target: String,
    /// Only this caller.
    pub(crate) caller: String,
    /// Only this namespace.
    pub(crate) namespace: Option<String>,
    /// Only this policy.
    pub(crate) policy: Option<String>,
    /// Only those since then.
    pub(crate) since: Option<SystemTime>,
    /// Only those that this filter admits.
    pub(crate) filter: String,
    /// At most this many, the newest.
    pub(crate) limit: usize,
}

impl Transitions {
    /// Whether it is one of those that the server cannot tell apart.
    pub(crate) fn admits(&self, transition: &BreakerTransition) -> bool {
        let key = transition.key.clone().unwrap_or_default();
        self.namespace.as_ref().is_none_or(|wanted| *wanted == key.namespace)
            && self.policy.as_ref().is_none_or(|wanted| *wanted == key.policy)
            && self.since.is_none_or(|since| span::point(transition.time.as_ref()).is_none_or(|time| time >= since))
    }
}

/// Past transitions, oldest first.
pub(crate) async fn transitions(server: &Server, wanted: &Transitions) -> Result<Vec<BreakerTransition>, Failure> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListBreakerTransitionsRequest {
            target: wanted.target.clone(),
            caller: wanted.caller.clone(),
            page_size: PAGE,
            page_token,
            filter: wanted.filter.clone(),
        };
        let answer = server
            .breakers()
            .list_breaker_transitions(request)
            .await
            .map_err(Failure::to("read the events"))?
            .into_inner();
        // Newest first: past the wanted time there is nothing more to find.
        let past = |time: Option<SystemTime>| wanted.since.is_some_and(|since| time.is_some_and(|time| time < since));
        let done = answer.transitions.iter().any(|one| past(span::point(one.time.as_ref())));
        all.extend(answer.transitions.into_iter().filter(|one| wanted.admits(one)));
        page_token = answer.next_page_token;
        if page_token.is_empty() || done || all.len() >= wanted.limit {
            all.truncate(wanted.limit);
            all.reverse();
            return Ok(all);
        }
    }
}
