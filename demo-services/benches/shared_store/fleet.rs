//! A fleet on a real control plane: a process of its own, and replicas with the SDK.

use std::{
    io,
    time::{Duration, Instant},
};

use fusebox::{Client, FleetStateShown, Target};
use fusebox_proto::{
    manifest,
    v1::{self, policy_service_client::PolicyServiceClient},
};

use super::{REPLICAS, process::Process};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
/// The budget of probes is the same as of the breaker beside it.
pub(crate) const PROBES: u64 = 1;
const POLICY: &str = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: service-b }\nspec:\n  \
                      match: { target: service-b }\n  pipeline:\n    - circuitBreaker:\n        \
                      trip: { consecutiveFailures: 6 }\n        delay: 500ms\n        halfOpen: { probes: 1 }\n  \
                      coordination: { mode: balanced, scope: fleet }\n";

/// One replica.
#[derive(Clone)]
pub(crate) struct Replica {
    client: Client,
    target: Target,
}

pub(crate) struct Fleet {
    pub(crate) plane: Process,
    pub(crate) replicas: Vec<Replica>,
}

impl Fleet {
    /// Everybody runs the policy.
    pub(crate) async fn start() -> Self {
        let plane = Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0"]);
        let document = manifest::parse("policy", POLICY).expect("the policy is good").remove(0);
        let mut policies = PolicyServiceClient::connect(plane.url.clone()).await.expect("it listens");
        let request =
            v1::ApplyPoliciesRequest { policies: vec![v1::Policy::from(&document.policy)], ..Default::default() };
        policies.apply_policies(request).await.expect("the policy is taken");
        let replicas: Vec<Replica> = (0..REPLICAS).map(|number| Replica::start(number, &plane.url)).collect();
        let fleet = Self { plane, replicas };
        fleet.until("everybody runs the policy", |client| !client.status().policies.is_empty()).await;
        fleet
    }

    /// Waits until every replica is so.
    pub(crate) async fn until(&self, what: &str, fits: impl Fn(&Client) -> bool) {
        let began = Instant::now();
        while !self.replicas.iter().all(|replica| fits(&replica.client)) {
            assert!(began.elapsed() < LIMIT, "did not happen: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Replica {
    fn start(number: usize, control_plane: &str) -> Self {
        let instance = format!("a-{number}");
        let started = Client::builder("service-a").instance(instance).control_plane(control_plane).start();
        let client = started.expect("the settings are good");
        let target = client.target("service-b");
        Self { client, target }
    }

    /// Runs a request; whether it was made, and went well.
    pub(crate) async fn call<F: Future<Output = bool> + Send>(&self, mut request: impl FnMut() -> F + Send) -> bool {
        let attempt = || {
            let made = request();
            async { if made.await { Ok(()) } else { Err(io::Error::other("service B is not well")) } }
        };
        self.target.call(attempt).await.is_ok()
    }

    /// Whether the fleet's breaker is open.
    pub(crate) fn is_open(&self) -> bool {
        self.client.status().breakers.iter().any(|breaker| breaker.fleet == FleetStateShown::Open)
    }

    /// Whether calls are made again, as far as the fleet and this replica's own breaker are concerned.
    pub(crate) fn is_released(&self) -> bool {
        let breakers = self.client.status().breakers;
        breakers.iter().all(|breaker| breaker.fleet == FleetStateShown::Released && breaker.admission == 1.0)
    }

    /// Whether a request that runs now can only be a probe.
    pub(crate) fn admits_nothing(&self) -> bool {
        self.client.status().breakers.iter().any(|breaker| breaker.admission == 0.0)
    }
}
