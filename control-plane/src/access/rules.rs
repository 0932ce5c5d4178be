//! The table of access: each RPC, and who may call it. What is not in it is not served.
//!
//! A test holds it to the descriptor of the services: an RPC without a row, a row without an RPC and a stream that is not marked as one
//! fail it.

use super::principal::{Kind, Principal, Role};

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everybody, known or not: what load balancers ask.
    Everyone,
    /// Everybody that the server knows.
    Known,
    /// Viewers, and whoever may do more.
    Viewer,
    /// Operators and admins.
    Operator,
    /// Admins.
    Admin,
    /// A service's replicas, for their own service: the handler compares.
    Agent,
    /// Those, and viewers and whoever may do more, for any service.
    AgentOrViewer,
}

/// How an RPC weighs on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It reads, and answers once.
    Read,
    /// It changes something: metered by identity.
    Write,
    /// It goes on: counted by identity, and ended with the credential.
    Stream,
}

/// What an RPC is about: whether a role that is bound to a namespace suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Things of namespaces: the handler keeps to the caller's, and refuses others before it looks anything up.
    Namespaced,
    /// The server as a whole: only for roles that are bound to no namespace.
    Server,
    /// Nothing of any namespace.
    Neutral,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The service, with its package.
    pub service: &'static str,
    /// The method.
    pub method: &'static str,
    /// What it does, in one word, as `fusebox can-i` takes it.
    pub verb: &'static str,
    /// To what kind of thing.
    pub kind: &'static str,
    /// Who may call it.
    pub rule: Rule,
    /// How it weighs.
    pub weight: Weight,
    /// What it is about.
    pub extent: Extent,
}

const POLICIES: &str = "fusebox.v1.PolicyService";
const BREAKERS: &str = "fusebox.v1.BreakerService";
const ROLLOUTS: &str = "fusebox.v1.RolloutService";
const FLEET: &str = "fusebox.v1.FleetService";
const AUDIT: &str = "fusebox.v1.AuditService";
const ADMIN: &str = "fusebox.v1.AdminService";
const SYNC: &str = "fusebox.sync.v1.SyncService";
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const OLD_REFLECTION: &str = "grpc.reflection.v1alpha.ServerReflection";

const fn row(
    service: &'static str,
    method: &'static str,
    what: (&'static str, &'static str),
    rule: Rule,
    weight: Weight,
    extent: Extent,
) -> Row {
    Row { service, method, verb: what.0, kind: what.1, rule, weight, extent }
}

/// Every RPC.
pub const TABLE: &[Row] = &[
    row(POLICIES, "GetPolicy", ("get", "policies"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(POLICIES, "ListPolicies", ("list", "policies"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(POLICIES, "WatchPolicies", ("watch", "policies"), Rule::Viewer, Weight::Stream, Extent::Namespaced),
    row(POLICIES, "ResolvePolicy", ("resolve", "policies"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(POLICIES, "ListPolicyRevisions", ("history", "policies"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(POLICIES, "GetPolicyRevision", ("get", "revisions"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(POLICIES, "CreatePolicy", ("create", "policies"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(POLICIES, "UpdatePolicy", ("update", "policies"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(POLICIES, "DeletePolicy", ("delete", "policies"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(POLICIES, "ApplyPolicies", ("apply", "policies"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(POLICIES, "RollbackPolicy", ("rollback", "policies"), Rule::Operator, Weight::Write, Extent::Namespaced),
    // It gives up what was written after a backup.
    row(POLICIES, "AdoptPresent", ("recover", "store"), Rule::Admin, Weight::Write, Extent::Server),
    row(ROLLOUTS, "GetRollout", ("get", "rollouts"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(ROLLOUTS, "ListRollouts", ("list", "rollouts"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(ROLLOUTS, "WatchRollout", ("watch", "rollouts"), Rule::Viewer, Weight::Stream, Extent::Namespaced),
    row(ROLLOUTS, "WatchRollouts", ("watch", "rollouts"), Rule::Viewer, Weight::Stream, Extent::Namespaced),
    row(ROLLOUTS, "CreateRollout", ("create", "rollouts"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(ROLLOUTS, "PromoteRollout", ("promote", "rollouts"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(ROLLOUTS, "PauseRollout", ("pause", "rollouts"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(ROLLOUTS, "ResumeRollout", ("resume", "rollouts"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(ROLLOUTS, "AbortRollout", ("abort", "rollouts"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(BREAKERS, "GetBreaker", ("get", "breakers"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(BREAKERS, "ListBreakers", ("list", "breakers"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(BREAKERS, "ExplainBreaker", ("explain", "breakers"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(BREAKERS, "WatchBreakers", ("watch", "breakers"), Rule::Viewer, Weight::Stream, Extent::Namespaced),
    row(BREAKERS, "ForceBreaker", ("force", "breakers"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(BREAKERS, "ReleaseBreaker", ("release", "breakers"), Rule::Operator, Weight::Write, Extent::Namespaced),
    row(BREAKERS, "GetOverride", ("get", "overrides"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(BREAKERS, "ListOverrides", ("list", "overrides"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(BREAKERS, "ListBreakerTransitions", ("list", "events"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(BREAKERS, "WatchBreakerTransitions", ("watch", "events"), Rule::Viewer, Weight::Stream, Extent::Namespaced),
    row(FLEET, "GetInstance", ("get", "instances"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(FLEET, "ListInstances", ("list", "instances"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(FLEET, "WatchFleet", ("watch", "instances"), Rule::Viewer, Weight::Stream, Extent::Namespaced),
    row(FLEET, "GetService", ("get", "services"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(FLEET, "ListServices", ("list", "services"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(FLEET, "GetServerInfo", ("get", "server"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(AUDIT, "ListAuditEvents", ("list", "audit"), Rule::Viewer, Weight::Read, Extent::Namespaced),
    row(ADMIN, "CreateToken", ("create", "tokens"), Rule::Admin, Weight::Write, Extent::Namespaced),
    row(ADMIN, "GetToken", ("get", "tokens"), Rule::Admin, Weight::Read, Extent::Namespaced),
    row(ADMIN, "ListTokens", ("list", "tokens"), Rule::Admin, Weight::Read, Extent::Namespaced),
    row(ADMIN, "RevokeToken", ("revoke", "tokens"), Rule::Admin, Weight::Write, Extent::Namespaced),
    // Everything is in it, digests of tokens too.
    row(ADMIN, "CreateBackup", ("backup", "store"), Rule::Admin, Weight::Stream, Extent::Server),
    row(ADMIN, "WhoAmI", ("get", "self"), Rule::Known, Weight::Read, Extent::Neutral),
    row(ADMIN, "CheckAccess", ("check", "access"), Rule::Known, Weight::Read, Extent::Neutral),
    row(SYNC, "Sync", ("sync", "snapshots"), Rule::Agent, Weight::Stream, Extent::Namespaced),
    row(SYNC, "FetchSnapshot", ("get", "snapshots"), Rule::AgentOrViewer, Weight::Read, Extent::Namespaced),
    row(HEALTH, "Check", ("get", "health"), Rule::Everyone, Weight::Read, Extent::Neutral),
    row(HEALTH, "Watch", ("watch", "health"), Rule::Viewer, Weight::Stream, Extent::Neutral),
    row(REFLECTION, "ServerReflectionInfo", ("get", "reflection"), Rule::Viewer, Weight::Stream, Extent::Neutral),
    row(OLD_REFLECTION, "ServerReflectionInfo", ("get", "reflection"), Rule::Viewer, Weight::Stream, Extent::Neutral),
];

/// What is served over plain HTTP, and to whom.
pub const PAGES: &[(&str, Rule)] = &[("/healthz", Rule::Everyone), ("/readyz", Rule::Everyone)];

/// The row of an RPC's path, `/{service}/{method}`.
#[must_use]
pub fn of(path: &str) -> Option<&'static Row> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    TABLE.iter().find(|row| row.service == service && row.method == method)
}

impl Row {
    /// Whether it lets somebody in.
    ///
    /// # Errors
    /// What they lack.
    pub fn admits(&self, principal: &Principal) -> Result<(), Lack> {
        if !self.rule.allows(principal) {
            return Err(Lack::Role(self.rule));
        }
        match (self.extent, principal.role.namespace()) {
            (Extent::Server, Some(_)) => Err(Lack::Scope(self.rule)),
            (Extent::Server, None) | (Extent::Namespaced | Extent::Neutral, _) => Ok(()),
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The role is less than what is needed.
    Role(Rule),
    /// The role would do, and is bound to a namespace.
    Scope(Rule),
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Role(rule) => f.write_str(rule.needs()),
            Self::Scope(rule) => write!(f, "{} for all namespaces: it is about the whole server", rule.needs()),
        }
    }
}

impl Rule {
    /// Whether it lets somebody in. On an open server it does.
    #[must_use]
    pub fn allows(self, principal: &Principal) -> bool {
        let is_agent = matches!(principal.role, Role::Agent { .. });
        match self {
            _ if principal.kind() == Kind::Anonymous => true,
            Self::Everyone | Self::Known | Self::AgentOrViewer => true,
            Self::Viewer => !is_agent,
            Self::Operator => matches!(principal.role, Role::Operator(_) | Role::Admin(_)),
            Self::Admin => matches!(principal.role, Role::Admin(_)),
            Self::Agent => is_agent,
        }
    }

    /// Whom it lets in, for people.
    #[must_use]
    pub const fn needs(self) -> &'static str {
        match self {
            Self::Everyone => "nothing",
            Self::Known => "a credential",
            Self::Viewer => "the role viewer",
            Self::Operator => "the role operator",
            Self::Admin => "the role admin",
            Self::Agent => "the role agent of the service",
            Self::AgentOrViewer => "the role agent of the service, or viewer",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fusebox_policy::{CallerName, Namespace};
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::access::{Method, Scope};

    /// Every RPC that the server describes of itself, and whether it streams its answer.
    fn described() -> BTreeSet<(String, bool)> {
        [
            fusebox_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ]
        .into_iter()
        .flat_map(|set| FileDescriptorSet::decode(set).unwrap().file)
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.service.into_iter().flat_map(move |service| {
                let name = format!("{package}.{}", service.name());
                service.method.into_iter().map(move |own| (format!("/{name}/{}", own.name()), own.server_streaming()))
            })
        })
        .collect()
    }

    #[test]
    fn every_rpc_has_a_row_and_every_row_an_rpc() {
        let rows = TABLE
            .iter()
            .map(|row| (format!("/{}/{}", row.service, row.method), row.weight == Weight::Stream))
            .collect::<BTreeSet<_>>();
        assert_eq!(rows.len(), TABLE.len(), "one row each");
        assert_eq!(rows, described());
    }

    #[test]
    fn what_has_no_row_is_found_nowhere() {
        for path in ["/fusebox.v1.PolicyService/Other", "/fusebox.v1.PolicyService", "/", "", "GetPolicy"] {
            assert!(of(path).is_none(), "{path}");
        }
    }

    /// Who may do what, said a second time and by hand: v viewer, o operator, a admin, s a service's replica.
    const MATRIX: &[(&str, &[&str])] = &[
        (
            "voa",
            &[
                "get policies",
                "list policies",
                "watch policies",
                "history policies",
                "resolve policies",
                "get breakers",
                "list breakers",
                "explain breakers",
                "watch breakers",
                "get revisions",
                "get overrides",
                "list overrides",
                "list events",
                "watch events",
                "get instances",
                "list instances",
                "watch instances",
                "get services",
                "get rollouts",
                "list rollouts",
                "watch rollouts",
                "list services",
                "list audit",
                "get rollouts",
                "list rollouts",
                "watch rollouts",
                "get server",
                "watch health",
                "get reflection",
            ],
        ),
        (
            "oa",
            &[
                "create policies",
                "update policies",
                "delete policies",
                "apply policies",
                "rollback policies",
                "create rollouts",
                "promote rollouts",
                "pause rollouts",
                "resume rollouts",
                "abort rollouts",
                "force breakers",
                "release breakers",
                "create rollouts",
                "promote rollouts",
                "pause rollouts",
                "resume rollouts",
                "abort rollouts",
            ],
        ),
        ("a", &["recover store", "backup store", "create tokens", "get tokens", "list tokens", "revoke tokens"]),
        ("s", &["sync snapshots"]),
        ("voas", &["get snapshots", "get self", "check access", "get health"]),
    ];

    #[test]
    fn each_role_may_do_what_the_matrix_says_and_nothing_else() {
        let service = CallerName::try_new("service-a").unwrap();
        let agent = Role::Agent { namespace: Namespace::default_namespace(), service };
        let all = Scope::Everything;
        let roles = [
            ('v', Role::Viewer(all.clone())),
            ('o', Role::Operator(all.clone())),
            ('a', Role::Admin(all)),
            ('s', agent),
        ];
        let mut seen = 0;
        for row in TABLE {
            let what = format!("{} {}", row.verb, row.kind);
            let line = MATRIX.iter().filter(|(_, whats)| whats.contains(&what.as_str())).collect::<Vec<_>>();
            let [(who, _)] = line[..] else { panic!("{what} stands {} times in the matrix", line.len()) };
            for (letter, role) in &roles {
                let principal = Principal { role: role.clone(), method: Method::Token, ..Principal::anonymous("x") };
                assert_eq!(row.admits(&principal).is_ok(), who.contains(*letter), "{what}: {role}");
                seen += 1;
            }
        }
        assert_eq!(seen, TABLE.len() * roles.len());
    }

    #[test]
    fn a_role_that_is_bound_to_a_namespace_does_not_reach_the_server_as_a_whole() {
        let shop = Scope::Namespace(Namespace::try_new("shop").unwrap());
        for (bound, all) in [
            (Role::Viewer(shop.clone()), Role::Viewer(Scope::Everything)),
            (Role::Operator(shop.clone()), Role::Operator(Scope::Everything)),
            (Role::Admin(shop), Role::Admin(Scope::Everything)),
        ] {
            let by = |role: &Role| Principal { role: role.clone(), method: Method::Token, ..Principal::anonymous("x") };
            for row in TABLE {
                let may = row.admits(&by(&bound)).is_ok();
                let wanted = row.admits(&by(&all)).is_ok() && row.extent != Extent::Server;
                assert_eq!(may, wanted, "{} {}: {bound}", row.verb, row.kind);
            }
        }
        let whole: Vec<_> = TABLE.iter().filter(|row| row.extent == Extent::Server).map(|row| row.method).collect();
        assert_eq!(whole, ["AdoptPresent", "CreateBackup"]);
    }

    #[test]
    fn on_an_open_server_everybody_may_do_everything() {
        assert!(TABLE.iter().all(|row| row.admits(&Principal::anonymous("x")).is_ok()));
    }
}
