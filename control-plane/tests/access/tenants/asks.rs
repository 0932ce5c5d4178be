//! What a tenant may ask for of another one's, by every RPC. A new row of the table of access without requests here fails.

use bytes::Bytes;
use fusebox_control_plane::access::rules::Row;
use fusebox_proto::{sync::v1 as sync, v1};
use prost::Message;

use super::tenant::{Tenant, hello};

/// What must come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It names what is another's: it is refused alike, whether that exists or not.
    Refused,
    /// It names what is another's, and its name does not tell: it is as if that were not there.
    Absent,
    /// It is about the whole server: a role of a namespace does not suffice.
    Whole,
    /// It is an agent's, which speaks for its own service only.
    NotOwnService,
    /// Whatever comes, nothing of another's is in it.
    Own,
}

/// A request, encoded.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) message: Bytes,
    pub(super) wanted: Wanted,
    /// By a replica of the tenant's, not by its admin.
    pub(super) by_agent: bool,
}

fn ask(wanted: Wanted, message: &impl Message) -> Ask {
    Ask { message: message.encode_to_vec().into(), wanted, by_agent: false }
}

/// A request of every kind by one tenant about another one.
pub(super) fn asks(row: &Row, own: &Tenant, other: &Tenant) -> Vec<Ask> {
    match row.service {
        "fusebox.v1.PolicyService" => policies(row.method, own, other),
        "fusebox.v1.RolloutService" => rollouts(row.method, own, other),
        "fusebox.v1.BreakerService" => breakers(row.method, own, other),
        "fusebox.v1.FleetService" => fleet(row.method, other),
        "fusebox.v1.AuditService" => audit(row.method, other),
        "fusebox.v1.AdminService" => admin(row, other),
        "fusebox.sync.v1.SyncService" => replicas(row.method, other),
        "grpc.health.v1.Health"
        | "grpc.reflection.v1.ServerReflection"
        | "grpc.reflection.v1alpha.ServerReflection" => {
            vec![ask(Wanted::Own, &())]
        }
        unknown => panic!("no requests of {unknown}"),
    }
}

fn policies(method: &str, own: &Tenant, other: &Tenant) -> Vec<Ask> {
    use Wanted::{Own, Refused, Whole};
    let parent = format!("namespaces/{}", other.namespace());
    let all = || "namespaces/-".to_owned();
    // One that is there, and one that is not.
    let names = [other.policy_name("checkout"), other.policy_name("nothing")];
    let named = |make: &dyn Fn(String) -> Ask| names.iter().cloned().map(make).collect::<Vec<_>>();
    match method {
        "GetPolicy" => named(&|name| ask(Refused, &v1::GetPolicyRequest { name })),
        "ListPolicyRevisions" => {
            named(&|name| ask(Refused, &v1::ListPolicyRevisionsRequest { name, ..Default::default() }))
        }
        "GetPolicyRevision" => named(&|name| {
            let name = format!("{name}/revisions/1");
            ask(Refused, &v1::GetPolicyRevisionRequest { name })
        }),
        "DeletePolicy" => {
            named(&|name| ask(Refused, &v1::DeletePolicyRequest { name, allow_missing: true, ..Default::default() }))
        }
        "RollbackPolicy" => {
            let mut all = named(&|name| ask(Refused, &v1::RollbackPolicyRequest { name, ..Default::default() }));
            let name = format!("{}/revisions/1", names[0]);
            all.push(ask(Refused, &v1::RollbackPolicyRequest { name, ..Default::default() }));
            all
        }
        "ListPolicies" => {
            let list = |parent| v1::ListPoliciesRequest { parent, page_size: 1, ..Default::default() };
            let second = v1::ListPoliciesRequest { page_token: "1.0".to_owned(), ..list(all()) };
            vec![ask(Refused, &list(parent)), ask(Own, &list(all())), ask(Own, &second)]
        }
        "WatchPolicies" => {
            let watch = |parent| v1::WatchPoliciesRequest { parent, ..Default::default() };
            let later = v1::WatchPoliciesRequest { from_revision: 1, ..watch(all()) };
            vec![ask(Refused, &watch(parent)), ask(Own, &watch(all())), ask(Own, &later)]
        }
        "ResolvePolicy" => {
            let (service, target) = ("cart".to_owned(), "payments".to_owned());
            let resolve = |parent| v1::ResolvePolicyRequest {
                parent,
                service: service.clone(),
                target: target.clone(),
                ..Default::default()
            };
            let mine = format!("namespaces/{}", own.namespace());
            vec![ask(Refused, &resolve(parent)), ask(Own, &resolve(mine))]
        }
        "CreatePolicy" => {
            let policy = Some(other.policy("checkout", "9s"));
            let policy_id = "checkout".to_owned();
            vec![ask(Refused, &v1::CreatePolicyRequest { parent, policy_id, policy, ..Default::default() })]
        }
        "UpdatePolicy" => ["checkout", "nothing"]
            .map(|id| {
                let policy = Some(other.policy(id, "9s"));
                ask(Refused, &v1::UpdatePolicyRequest { policy, allow_missing: true, ..Default::default() })
            })
            .to_vec(),
        "ApplyPolicies" => {
            let apply = |policies| v1::ApplyPoliciesRequest { policies, ..Default::default() };
            let mixed = apply(vec![own.policy("checkout", "3s"), other.policy("checkout", "9s")]);
            let prune = Some(v1::Prune { parent, ..Default::default() });
            let pruning = v1::ApplyPoliciesRequest { prune, ..apply(vec![own.policy("checkout", "3s")]) };
            let tried = v1::ApplyPoliciesRequest { validate_only: true, ..mixed.clone() };
            vec![ask(Refused, &mixed), ask(Refused, &pruning), ask(Refused, &tried)]
        }
        "AdoptPresent" => vec![ask(Whole, &v1::AdoptPresentRequest { reason: "why".to_owned(), ..Default::default() })],
        unknown => panic!("no requests of {unknown}"),
    }
}

fn rollouts(method: &str, own: &Tenant, other: &Tenant) -> Vec<Ask> {
    use Wanted::{Own, Refused};
    let reason = "why".to_owned();
    let names = [other.rollout.clone(), format!("{}/rollouts/999", other.policy_name("nothing"))];
    let named = |make: &dyn Fn(String) -> Ask| names.iter().cloned().map(make).collect::<Vec<_>>();
    match method {
        "GetRollout" => named(&|name| ask(Refused, &v1::GetRolloutRequest { name })),
        "WatchRollout" => {
            let mut all = named(&|name| ask(Refused, &v1::WatchRolloutRequest { name }));
            all.push(ask(Own, &v1::WatchRolloutRequest { name: own.rollout.clone() }));
            all
        }
        "ListRollouts" => [
            (Refused, format!("namespaces/{}", other.namespace())),
            (Refused, other.policy_name(&other.own())),
            (Own, "namespaces/-".to_owned()),
        ]
        .map(|(wanted, parent)| ask(wanted, &v1::ListRolloutsRequest { parent, ..Default::default() }))
        .to_vec(),
        "WatchRollouts" => [
            (Refused, format!("namespaces/{}", other.namespace())),
            (Refused, other.policy_name(&other.own())),
            (Own, "namespaces/-".to_owned()),
        ]
        .map(|(wanted, parent)| ask(wanted, &v1::WatchRolloutsRequest { parent, ..Default::default() }))
        .to_vec(),
        "CreateRollout" => {
            let policy = Some(other.policy("checkout", "9s"));
            vec![ask(Refused, &v1::CreateRolloutRequest { policy, ..Default::default() })]
        }
        "PromoteRollout" => named(&|name| {
            ask(Refused, &v1::PromoteRolloutRequest { name, force: true, reason: reason.clone(), ..Default::default() })
        }),
        "PauseRollout" => {
            named(&|name| ask(Refused, &v1::PauseRolloutRequest { name, reason: reason.clone(), ..Default::default() }))
        }
        "ResumeRollout" => named(&|name| {
            ask(Refused, &v1::ResumeRolloutRequest { name, reason: reason.clone(), ..Default::default() })
        }),
        "AbortRollout" => {
            named(&|name| ask(Refused, &v1::AbortRolloutRequest { name, reason: reason.clone(), ..Default::default() }))
        }
        unknown => panic!("no requests of {unknown}"),
    }
}

fn breakers(method: &str, own: &Tenant, other: &Tenant) -> Vec<Ask> {
    use Wanted::{Own, Refused};
    let names = [other.breaker.clone(), other.breaker.replace("checkout", "nothing")];
    let theirs = other.namespace();
    let selector = |namespace: &str| {
        let (target, namespace) = ("payments".to_owned(), namespace.to_owned());
        Some(v1::BreakerKey { target, namespace, ..Default::default() })
    };
    match method {
        "GetBreaker" => {
            let mut all = names.map(|name| ask(Refused, &v1::GetBreakerRequest { name })).to_vec();
            all.push(ask(Own, &v1::GetBreakerRequest { name: own.breaker.clone() }));
            all
        }
        "ExplainBreaker" => {
            let mut all = names.map(|name| ask(Refused, &v1::ExplainBreakerRequest { name })).to_vec();
            all.push(ask(Own, &v1::ExplainBreakerRequest { name: own.breaker.clone() }));
            all
        }
        "ListBreakers" => {
            let list =
                |namespace: &str| v1::ListBreakersRequest { namespace: namespace.to_owned(), ..Default::default() };
            let gone = v1::ListBreakersRequest { include_gone: true, ..list("") };
            vec![ask(Refused, &list(&theirs)), ask(Own, &list("")), ask(Own, &gone)]
        }
        "WatchBreakers" => {
            let watch =
                |namespace: &str| v1::WatchBreakersRequest { namespace: namespace.to_owned(), ..Default::default() };
            vec![ask(Refused, &watch(&theirs)), ask(Own, &watch(""))]
        }
        "ForceBreaker" => {
            let force = |namespace: &str| v1::ForceBreakerRequest {
                selector: selector(namespace),
                validate_only: true,
                ..own.force("why".to_owned())
            };
            // The other's words, once more.
            let replayed = Ask { message: other.force.clone(), wanted: Own, by_agent: false };
            vec![ask(Refused, &force(&theirs)), ask(Own, &force("")), replayed]
        }
        "ReleaseBreaker" => {
            let release = |namespace: &str| v1::ReleaseBreakerRequest {
                selector: selector(namespace),
                reason: "why".to_owned(),
                validate_only: true,
                ..Default::default()
            };
            vec![ask(Refused, &release(&theirs)), ask(Own, &release(""))]
        }
        // The owner's on everybody, and one of each tenant: another's is as if it were not there.
        "GetOverride" => {
            (1..=4).map(|number| ask(Own, &v1::GetOverrideRequest { name: format!("overrides/{number}") })).collect()
        }
        "ListOverrides" => vec![ask(Own, &v1::ListOverridesRequest::default())],
        "ListBreakerTransitions" => ["", &format!("{}-target", other.own())]
            .map(|target| {
                let target = target.to_owned();
                ask(Own, &v1::ListBreakerTransitionsRequest { target, page_size: 3, ..Default::default() })
            })
            .to_vec(),
        "WatchBreakerTransitions" => {
            vec![ask(Own, &v1::WatchBreakerTransitionsRequest { past: 100, ..Default::default() })]
        }
        unknown => panic!("no requests of {unknown}"),
    }
}

fn fleet(method: &str, other: &Tenant) -> Vec<Ask> {
    use Wanted::{Absent, Own};
    let instance = |instance: &str| format!("services/cart/instances/{instance}");
    match method {
        // Both have the one, and only the other has the other one.
        "GetInstance" => [(Own, "cart-1"), (Absent, &format!("{}-2", other.mark))]
            .map(|(wanted, name)| ask(wanted, &v1::GetInstanceRequest { name: instance(name) }))
            .to_vec(),
        "ListInstances" => vec![ask(Own, &v1::ListInstancesRequest { page_size: 1, ..Default::default() })],
        "WatchFleet" => vec![ask(Own, &v1::WatchFleetRequest::default())],
        "GetService" => [(Own, "cart".to_owned()), (Absent, format!("{}-target", other.own()))]
            .map(|(wanted, service)| ask(wanted, &v1::GetServiceRequest { name: format!("services/{service}") }))
            .to_vec(),
        "ListServices" => vec![ask(Own, &v1::ListServicesRequest::default())],
        "GetServerInfo" => vec![ask(Own, &v1::GetServerInfoRequest {})],
        unknown => panic!("no requests of {unknown}"),
    }
}

fn audit(method: &str, other: &Tenant) -> Vec<Ask> {
    assert_eq!(method, "ListAuditEvents", "no requests of it");
    ["", "overrides", "tokens", "breakers", &format!("namespaces/{}", other.namespace())]
        .map(|object| {
            let object = object.to_owned();
            ask(Wanted::Own, &v1::ListAuditEventsRequest { object, page_size: 1000, ..Default::default() })
        })
        .to_vec()
}

fn admin(row: &Row, other: &Tenant) -> Vec<Ask> {
    use Wanted::{Absent, Own, Refused, Whole};
    match row.method {
        "CreateToken" => {
            let create = |namespace: String, role: v1::Role, service: &str| {
                let service = service.to_owned();
                let display_name = "new".to_owned();
                let token = v1::Token { display_name, role: role.into(), namespace, service, ..Default::default() };
                ask(Refused, &v1::CreateTokenRequest { token: Some(token), ..Default::default() })
            };
            vec![
                create(other.namespace(), v1::Role::Viewer, ""),
                create(other.namespace(), v1::Role::Agent, "cart"),
                // For all of them.
                create(String::new(), v1::Role::Viewer, ""),
                create(String::new(), v1::Role::Admin, ""),
            ]
        }
        "ListTokens" => vec![ask(Own, &v1::ListTokensRequest { show_ended: true, ..Default::default() })],
        "GetToken" => vec![ask(Absent, &v1::GetTokenRequest { name: other.token.clone() })],
        "RevokeToken" => {
            let (name, reason) = (other.token.clone(), "why".to_owned());
            vec![ask(Absent, &v1::RevokeTokenRequest { name, reason, ..Default::default() })]
        }
        "CreateBackup" => vec![ask(Whole, &v1::CreateBackupRequest::default())],
        "WhoAmI" => vec![ask(Own, &v1::WhoAmIRequest {})],
        "CheckAccess" => {
            let (verb, kind) = (row.verb.to_owned(), row.kind.to_owned());
            vec![ask(Own, &v1::CheckAccessRequest { verb, r#type: kind })]
        }
        unknown => panic!("no requests of {unknown}"),
    }
}

fn replicas(method: &str, other: &Tenant) -> Vec<Ask> {
    let by_agent =
        |message: &dyn Fn() -> Bytes| Ask { message: message(), wanted: Wanted::NotOwnService, by_agent: true };
    match method {
        "Sync" => {
            let hello = sync::SyncRequest {
                message: Some(sync::sync_request::Message::Hello(hello(&other.namespace(), "cart-9"))),
            };
            vec![by_agent(&|| hello.encode_to_vec().into())]
        }
        "FetchSnapshot" => {
            let fetch = sync::FetchSnapshotRequest { namespace: other.namespace(), service: "cart".to_owned() };
            vec![ask(Wanted::Refused, &fetch), by_agent(&|| fetch.encode_to_vec().into())]
        }
        unknown => panic!("no requests of {unknown}"),
    }
}
