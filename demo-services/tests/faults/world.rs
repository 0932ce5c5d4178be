//! A control plane in a process of its own, replicas with the SDK in this one, and operators.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fusebox::{Client, FleetStateShown, Target};
use fusebox_proto::{
    duration::to_wire,
    manifest,
    v1::{
        self, breaker_service_client::BreakerServiceClient, fleet_service_client::FleetServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};
use tonic::{Status, transport::Channel};

use crate::process::Process;

/// Far longer than anything here takes; only a broken fleet needs it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long a verdict holds without a word from the control plane.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How often anything is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks again and again until it fits.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut fits: impl FnMut() -> F) {
    let began = Instant::now();
    while !fits().await {
        assert!(began.elapsed() < LIMIT, "did not happen: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `fusebox serve` on the data of a folder.
pub(crate) fn serve(data: &Path, listen: &str) -> Process {
    Process::start(&["fusebox", "serve", "--data-dir", data.to_str().unwrap(), "--listen", listen])
}

/// An operator.
pub(crate) struct Operator {
    channel: Channel,
}

impl Operator {
    pub(crate) fn of(plane: &Process) -> Self {
        Self { channel: Channel::from_shared(plane.url.clone()).unwrap().connect_lazy() }
    }

    /// A breaker for calls to service-b that stays open for so long; answers with its revision.
    pub(crate) async fn apply(&self, delay: &str) -> u64 {
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
             pipeline:\n    - circuitBreaker: {{ trip: {{ consecutiveFailures: 5 }}, delay: {delay}, halfOpen: {{ probes: 1 }} }}\n  \
             coordination: {{ mode: balanced, scope: fleet }}\n"
        );
        let policy = v1::Policy::from(&manifest::parse("policy", &text).unwrap().remove(0).policy);
        let request = v1::ApplyPoliciesRequest { policies: vec![policy], ..Default::default() };
        let mut policies = PolicyServiceClient::new(self.channel.clone());
        policies.apply_policies(request).await.unwrap().into_inner().revision
    }

    pub(crate) async fn force_open(&self) {
        let request = v1::ForceBreakerRequest {
            selector: Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() }),
            state: v1::FleetState::ForcedOpen.into(),
            reason: "drill".to_owned(),
            duration: Some(to_wire(Duration::from_secs(600))),
            ..Default::default()
        };
        BreakerServiceClient::new(self.channel.clone()).force_breaker(request).await.unwrap();
    }

    pub(crate) async fn overrides(&self) -> Vec<v1::Override> {
        let mut breakers = BreakerServiceClient::new(self.channel.clone());
        breakers.list_overrides(v1::ListOverridesRequest::default()).await.unwrap().into_inner().overrides
    }

    /// The names of the replicas that are connected.
    pub(crate) async fn instances(&self) -> Vec<String> {
        let mut fleet = FleetServiceClient::new(self.channel.clone());
        let answer = fleet.list_instances(v1::ListInstancesRequest::default()).await.unwrap().into_inner();
        answer.instances.into_iter().map(|own| own.instance).collect()
    }

    /// What is said about the one breaker, as soon as somebody holds it.
    pub(crate) async fn explain(&self) -> Result<v1::ExplainBreakerResponse, Status> {
        let mut breakers = BreakerServiceClient::new(self.channel.clone());
        let known = breakers.list_breakers(v1::ListBreakersRequest::default()).await?.into_inner().breakers;
        let name = known.into_iter().next().map(|breaker| breaker.name).unwrap_or_default();
        breakers.explain_breaker(v1::ExplainBreakerRequest { name }).await.map(tonic::Response::into_inner)
    }
}

/// Service B, as far as calls to it are concerned.
#[derive(Clone, Default)]
pub(crate) struct Health {
    sick: Arc<AtomicBool>,
    probes: Arc<AtomicU64>,
}

impl Health {
    pub(crate) fn set_sick(&self, sick: bool) {
        self.sick.store(sick, Ordering::SeqCst);
    }

    /// Calls that arrived although the replica that made them admitted none.
    pub(crate) fn probes(&self) -> u64 {
        self.probes.load(Ordering::SeqCst)
    }
}

/// One replica of service A.
pub(crate) struct Replica {
    client: Client,
    target: Target,
    b: Health,
}

impl Replica {
    pub(crate) fn start(instance: &str, control_plane: &str, b: &Health) -> Self {
        let client = Client::builder("service-a").instance(instance).control_plane(control_plane).start().unwrap();
        let target = client.target("service-b");
        Self { client, target, b: b.clone() }
    }

    /// Whether a call was made, and went well.
    pub(crate) async fn call(&self) -> bool {
        let attempt = || {
            if self.client.status().breakers.iter().any(|breaker| breaker.admission == 0.0) {
                self.b.probes.fetch_add(1, Ordering::SeqCst);
            }
            let sick = self.b.sick.load(Ordering::SeqCst);
            async move { if sick { Err(io::Error::other("service B is not well")) } else { Ok(()) } }
        };
        self.target.call(attempt).await.is_ok()
    }

    /// What the fleet says here.
    pub(crate) fn fleet(&self) -> FleetStateShown {
        self.client.status().breakers.first().map_or(FleetStateShown::Released, |breaker| breaker.fleet)
    }

    pub(crate) fn admits_all(&self) -> bool {
        self.client.status().breakers.iter().all(|breaker| breaker.admission == 1.0)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.status().connected
    }

    /// The revision of the policy that runs; 0 if there is none.
    pub(crate) fn revision(&self) -> u64 {
        self.client.status().policies.first().map_or(0, |policy| policy.revision.0)
    }
}

/// Waits until every replica runs this revision.
pub(crate) async fn applied(replicas: &[Replica], revision: u64) {
    until("every replica runs the policy", || async {
        replicas.iter().all(|replica| replica.revision() == revision && replica.is_connected())
    })
    .await;
}

/// Service B fails for all but the last replica, until that one, which has seen nothing, holds the verdict too.
pub(crate) async fn open(replicas: &[Replica], b: &Health) {
    b.set_sick(true);
    let (last, busy) = replicas.split_last().unwrap();
    until("the fleet opens", || async {
        for replica in busy {
            replica.call().await;
        }
        last.fleet() == FleetStateShown::Open
    })
    .await;
}
