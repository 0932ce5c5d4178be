//! The replicas of service A: real clients, each with its own connection.

use std::time::Duration;

use fusebox::{CallError, Client, FleetStateShown as FleetState};
use fusebox_proto::{
    manifest,
    v1::{self, policy_service_client::PolicyServiceClient},
};

/// For everything that is not measured.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn target(trip: usize) -> String {
    format!("service-b-{trip:02}")
}

fn policy(trip: usize, min_calls: usize) -> String {
    let target = target(trip);
    format!(
        "apiVersion: fusebox/v1
kind: Policy
metadata: {{ name: {target} }}
spec:
  match: {{ caller: service-a, target: {target} }}
  coordination: {{ maxOpenPercent: 100 }}
  pipeline:
    - circuitBreaker:
        trip: {{ failureRate: {{ percent: 50, minCalls: {min_calls} }}, consecutiveFailures: 5 }}
        delay: 10m
        delayMax: 10m
"
    )
}

pub(crate) struct Replicas(Vec<Client>);

impl Replicas {
    /// Writes a policy for each trip, and connects everybody.
    pub(crate) async fn start(size: usize, trips: usize, min_calls: usize, plane: &str) -> Self {
        let text: Vec<String> = (0..trips).map(|trip| policy(trip, min_calls)).collect();
        let documents = manifest::parse("spread", &text.join("---\n")).expect("the policies are valid");
        let policies = documents.iter().map(|document| v1::Policy::from(&document.policy)).collect();
        let mut operator = PolicyServiceClient::connect(plane.to_owned()).await.expect("the server is there");
        let request = v1::ApplyPoliciesRequest { policies, ..v1::ApplyPoliciesRequest::default() };
        operator.apply_policies(request).await.expect("the policies are taken");
        let start = |number| {
            Client::builder("service-a")
                .instance(format!("a-{number:04}"))
                .control_plane(plane)
                .start()
                .expect("it starts")
        };
        let clients: Vec<Client> = (0..size).map(start).collect();
        for client in &clients {
            assert!(client.wait_ready(PATIENCE).await, "a replica does not connect");
        }
        // Newcomers have no vote for five seconds, and those who came last are some.
        tokio::time::sleep(Duration::from_secs(7)).await;
        Self(clients)
    }

    pub(crate) async fn fail_four_times(&self, trip: usize) {
        let target = target(trip);
        for client in &self.0 {
            for _ in 0..4 {
                fail(client, &target).await;
            }
        }
    }

    pub(crate) async fn trip_first(&self, trip: usize) {
        fail(&self.0[0], &target(trip)).await;
    }

    /// What the events said is so.
    pub(crate) fn all_obey(&self, trip: usize) {
        let target = target(trip);
        for client in &self.0 {
            let status = client.status();
            let breaker = status.breakers.iter().find(|breaker| breaker.target.as_str() == target);
            let breaker = breaker.expect("the policy has a breaker");
            assert_eq!((breaker.fleet, breaker.vetoed), (FleetState::Open, false), "{target}");
        }
    }
}

async fn fail(client: &Client, target: &str) {
    let ended: Result<(), CallError<&str>> = client.target(target).call(|| async { Err("service B is down") }).await;
    assert!(ended.is_err(), "it fails");
}
