//! Three tenants of one server. What is each one's own has its mark in it; names that all of them use are the same for all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use fusebox_proto::{
    manifest,
    sync::v1 as sync,
    v1::{
        self, breaker_service_client::BreakerServiceClient, policy_service_client::PolicyServiceClient,
        rollout_service_client::RolloutServiceClient,
    },
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::server::{Caller, Server};

/// Their marks: words that are in nothing else.
pub(super) const MARKS: [&str; 3] = ["onyx", "jade", "ruby"];

/// The id of a request that every tenant makes in the same words.
pub(super) const REQUEST: &str = "6f1c0a52-7d0e-4c3b-9a68-00000000000";

/// What came on streams.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<Bytes>>>);

impl Heard {
    pub(super) fn note(&self, message: Bytes) {
        self.0.lock().unwrap().push(message);
    }

    pub(super) fn all(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().clone()
    }
}

pub(super) struct Tenant {
    pub(super) mark: &'static str,
    /// Whoever may do everything in the namespace.
    pub(super) admin: Caller,
    /// What a replica of it shows.
    pub(super) agent: Caller,
    /// Resource names of what it has.
    pub(super) rollout: String,
    pub(super) token: String,
    pub(super) breaker: String,
    /// An override that was asked for in these words.
    pub(super) force: Bytes,
    /// The replicas' streams, and what came down on them.
    pub(super) replicas: Vec<mpsc::Sender<sync::SyncRequest>>,
    pub(super) heard: Heard,
}

impl Tenant {
    /// Moves in, and makes one of everything.
    pub(super) async fn of(server: &Server, number: usize) -> Self {
        let mark = MARKS[number];
        let namespace = namespace(mark);
        let mut root = server.admin().await;
        let secret = token(&mut root, &namespace, "boss", v1::Role::Admin, "").await.1;
        let mut admin = server.caller(Some(&secret)).await;
        let (made, _) = token(&mut admin, &namespace, &format!("{mark}-reader"), v1::Role::Viewer, "").await;
        let secret = token(&mut admin, &namespace, "cart", v1::Role::Agent, "cart").await.1;
        let agent = server.caller(Some(&secret)).await;
        let heard = Heard::default();
        let mut tenant = Self {
            mark,
            admin,
            agent,
            rollout: String::new(),
            token: made.name,
            breaker: format!("breakers/{namespace}/cart/checkout/circuit-breaker/payments/-"),
            force: Bytes::new(),
            replicas: Vec::new(),
            heard,
        };
        tenant.define("checkout", "1s").await;
        tenant.define(&format!("{mark}-own"), "1s").await;
        let candidate = v1::CreateRolloutRequest {
            policy: Some(tenant.policy(&format!("{mark}-own"), "2s")),
            spec: Some(v1::RolloutSpec {
                stages: vec![v1::RolloutStage { selector: Some(v1::rollout_stage::Selector::Percent(50)), bake: None }],
                ..v1::RolloutSpec::default()
            }),
            message: format!("{mark} tries"),
            ..v1::CreateRolloutRequest::default()
        };
        tenant.rollout = tenant.rollouts().create_rollout(candidate).await.unwrap().into_inner().name;
        for instance in ["cart-1".to_owned(), format!("{mark}-2")] {
            let up = tenant.replica(&instance, tenant.heard.clone()).await;
            tenant.replicas.push(up);
        }
        tenant.trip(1).await;
        let force = v1::ForceBreakerRequest {
            request_id: format!("{REQUEST}{number}"),
            ..tenant.force(format!("{mark} drills"))
        };
        tenant.force = force.encode_to_vec().into();
        tenant.breakers().force_breaker(force).await.unwrap();
        tenant
    }

    pub(super) fn namespace(&self) -> String {
        namespace(self.mark)
    }

    pub(super) fn policies(&self) -> PolicyServiceClient<crate::server::Shown> {
        self.admin.policies.clone()
    }

    pub(super) fn breakers(&self) -> BreakerServiceClient<crate::server::Shown> {
        self.admin.breakers.clone()
    }

    fn rollouts(&self) -> RolloutServiceClient<crate::server::Shown> {
        self.admin.rollouts.clone()
    }

    pub(super) fn policy_name(&self, id: &str) -> String {
        format!("namespaces/{}/policies/{id}", self.namespace())
    }

    /// A policy with the mark all over it.
    pub(super) fn policy(&self, id: &str, duration: &str) -> v1::Policy {
        let (mark, namespace) = (self.mark, self.namespace());
        let target = if id == "checkout" { "payments".to_owned() } else { format!("{id}-target") };
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: {id}, namespace: {namespace}, labels: {{ team: {mark} }} }}\n\
             spec:\n  match: {{ caller: cart, target: {target} }}\n  pipeline:\n    - fallback: {{ response: {{ status: 200, body: \
             \"from {mark}\" }} }}\n    - circuitBreaker: {{}}\n    - timeout: {duration}\n"
        );
        v1::Policy::from(&manifest::parse("test", &text).unwrap().remove(0).policy)
    }

    pub(super) async fn define(&self, id: &str, duration: &str) {
        let policies = vec![self.policy(id, duration)];
        let message = format!("{} says {duration}", self.mark);
        let request = v1::ApplyPoliciesRequest { policies, message, ..v1::ApplyPoliciesRequest::default() };
        self.policies().apply_policies(request).await.unwrap();
    }

    /// Forces the breakers of a target that all tenants call, in the words of all of them.
    pub(super) fn force(&self, reason: String) -> v1::ForceBreakerRequest {
        v1::ForceBreakerRequest {
            selector: Some(v1::BreakerKey { target: "payments".to_owned(), ..v1::BreakerKey::default() }),
            state: v1::FleetState::ForcedOpen.into(),
            reason,
            duration: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
            ..v1::ForceBreakerRequest::default()
        }
    }

    async fn replica(&mut self, instance: &str, told: Heard) -> mpsc::Sender<sync::SyncRequest> {
        let (up, messages) = mpsc::channel(64);
        let hello = sync::Hello {
            zone: format!("{}-zone", self.mark),
            labels: BTreeMap::from([("note".to_owned(), self.mark.to_owned())]).into_iter().collect(),
            sdk_version: format!("sdk-{}", self.mark),
            ..hello(&self.namespace(), instance)
        };
        up.send(sync::SyncRequest { message: Some(sync::sync_request::Message::Hello(hello)) }).await.unwrap();
        let mut down = self.agent.sync.sync(ReceiverStream::new(messages)).await.unwrap().into_inner();
        // Welcomed: it is counted from here on.
        down.message().await.unwrap().unwrap();
        tokio::spawn(async move {
            while let Ok(Some(message)) = down.message().await {
                told.note(message.encode_to_vec().into());
            }
        });
        up
    }

    /// Every replica tells that its breakers have opened.
    pub(super) async fn trip(&self, seq: u64) {
        let mut windows = Vec::new();
        for (policy, target) in
            [("checkout".to_owned(), "payments".to_owned()), (self.own(), format!("{}-target", self.own()))]
        {
            let policy_revision = self.revision(&policy).await;
            let key = v1::BreakerKey {
                namespace: self.namespace(),
                caller: "cart".to_owned(),
                policy,
                strategy: "circuit-breaker".to_owned(),
                target,
                zone: String::new(),
            };
            windows.push(sync::BreakerWindow {
                key: Some(key),
                policy_revision,
                local_state: v1::LocalState::Open.into(),
                own_trip: true,
                calls: 20,
                failures: 20,
                ..sync::BreakerWindow::default()
            });
        }
        for up in &self.replicas {
            let heartbeat = sync::Heartbeat { seq, windows: windows.clone(), ..sync::Heartbeat::default() };
            let mut messages = vec![sync::sync_request::Message::Heartbeat(heartbeat)];
            messages.extend(windows.iter().zip(seq + 1..).map(|(window, seq)| {
                sync::sync_request::Message::Transition(sync::Transition {
                    window: Some(window.clone()),
                    from: v1::LocalState::Closed.into(),
                    cause: "consecutive_failures".to_owned(),
                    seq,
                })
            }));
            for message in messages {
                up.send(sync::SyncRequest { message: Some(message) }).await.unwrap();
            }
        }
    }

    /// The policy that no other tenant has a name like.
    pub(super) fn own(&self) -> String {
        format!("{}-own", self.mark)
    }

    async fn revision(&self, id: &str) -> u64 {
        let request = v1::GetPolicyRequest { name: self.policy_name(id) };
        self.policies().get_policy(request).await.unwrap().into_inner().revision
    }
}

fn namespace(mark: &str) -> String {
    format!("tenant-{mark}")
}

pub(super) fn hello(namespace: &str, instance: &str) -> sync::Hello {
    sync::Hello {
        protocol: 1,
        namespace: namespace.to_owned(),
        service: "cart".to_owned(),
        instance: instance.to_owned(),
        incarnation: 1,
        ..sync::Hello::default()
    }
}

pub(super) async fn token(
    by: &mut Caller,
    namespace: &str,
    name: &str,
    role: v1::Role,
    service: &str,
) -> (v1::Token, String) {
    let (namespace, service) = (namespace.to_owned(), service.to_owned());
    let token =
        v1::Token { display_name: name.to_owned(), role: role.into(), namespace, service, ..v1::Token::default() };
    let request = v1::CreateTokenRequest { token: Some(token), ..Default::default() };
    let v1::CreateTokenResponse { token, secret } = by.admin.create_token(request).await.unwrap().into_inner();
    (token.unwrap(), secret)
}
