//! A replica with more breakers than are shared, and one that makes names up.

use fusebox_proto::{
    manifest,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1::{
        self, breaker_service_client::BreakerServiceClient, fleet_service_client::FleetServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};

use super::{
    explained::key,
    server::{Replica, Server, hello},
};

/// What one replica may share, and a few more.
const SHARED: usize = 500;
const MORE: usize = 7;

/// As many policies, each with a breaker, and the revision of the newest.
async fn policies(server: &Server, count: usize) -> u64 {
    let policies = (0..count).map(|number| {
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: p-{number} }}\nspec:\n  match: {{ target: b-{number} }}\n  \
             pipeline: [{{ circuitBreaker: {{}} }}]\n"
        );
        v1::Policy::from(&manifest::parse("test", &text).unwrap().remove(0).policy)
    });
    let request = v1::ApplyPoliciesRequest { policies: policies.collect(), ..Default::default() };
    PolicyServiceClient::new(server.channel().await).apply_policies(request).await.unwrap().into_inner().revision
}

fn window(number: usize) -> sync::BreakerWindow {
    sync::BreakerWindow {
        key: Some(v1::BreakerKey { policy: format!("p-{number}"), target: format!("b-{number}"), ..key() }),
        policy_revision: 1,
        local_state: v1::LocalState::Closed.into(),
        calls: 1,
        ..sync::BreakerWindow::default()
    }
}

/// Sends a heartbeat, and answers with what was refused before it is answered.
async fn beat(replica: &mut Replica, seq: u64, windows: Vec<sync::BreakerWindow>) -> Vec<sync::BreakerRefused> {
    replica.say(Up::Heartbeat(sync::Heartbeat { seq, windows, ..sync::Heartbeat::default() })).await;
    let mut refused = Vec::new();
    let answered = |message| {
        if let Down::BreakerRefused(own) = message {
            refused.push(own);
            return None;
        }
        if let Down::HeartbeatAck(ack) = message { (ack.seq == seq).then_some(()) } else { None }
    };
    replica.until("the answer", answered).await;
    refused
}

async fn shared(server: &Server) -> usize {
    let mut breakers = BreakerServiceClient::new(server.channel().await);
    let request = v1::ListBreakersRequest { page_size: 1000, ..Default::default() };
    breakers.list_breakers(request).await.unwrap().into_inner().breakers.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn breakers_beyond_the_bound_are_refused_once_each_and_counted_and_the_others_stay_shared() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    policies(&server, SHARED + MORE).await;
    let mut replica = server.replica(hello("a-1")).await.unwrap();
    replica.welcome().await;
    let all: Vec<_> = (0..SHARED + MORE).map(window).collect();
    let refused = beat(&mut replica, 1, all.clone()).await;
    assert_eq!(refused.len(), MORE);
    for own in &refused {
        assert_eq!(own.reason, "this replica has 500 shared breakers, and no more are shared");
    }
    assert_eq!(beat(&mut replica, 2, all).await, [], "it has been told");
    assert_eq!(shared(&server).await, SHARED);
    let request = v1::GetInstanceRequest { name: "services/service-a/instances/a-1".to_owned() };
    let mut fleet = FleetServiceClient::new(server.channel().await);
    assert_eq!(fleet.get_instance(request).await.unwrap().into_inner().unshared_breakers as usize, MORE);

    // Another replica of the service has a count of its own.
    let mut other = server.replica(hello("a-2")).await.unwrap();
    other.welcome().await;
    assert_eq!(beat(&mut other, 1, (SHARED..SHARED + MORE).map(window).collect()).await, []);
    assert_eq!(shared(&server).await, SHARED + MORE);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_policy_has_are_kept_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    policies(&server, 1).await;
    let mut replica = server.replica(hello("a-1")).await.unwrap();
    replica.welcome().await;
    for seq in 1..=10 {
        let made_up = (0..1000).map(|number| window(1 + number)).collect();
        assert_eq!(beat(&mut replica, seq, made_up).await, []);
    }
    assert_eq!(shared(&server).await, 0);
    server.stop().await;
}
