//! Breakers that an operator disables, with replicas whose SDK knows that and replicas whose SDK does not.

use std::time::Duration;

use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1::{self, breaker_service_client::BreakerServiceClient},
};

use super::{
    explained::{BREAKER, apply, key},
    server::{Replica, Server, hello},
};

fn knowing(instance: &str) -> sync::Hello {
    // What it does not know it ignores.
    let capabilities = vec![99, sync::Capability::DisabledOverrides.into()];
    sync::Hello { capabilities, ..hello(instance) }
}

/// Tells of its breaker, and is answered.
async fn beat(replica: &mut Replica, seq: u64, window: sync::BreakerWindow) {
    replica.say(Up::Heartbeat(sync::Heartbeat { seq, windows: vec![window], ..sync::Heartbeat::default() })).await;
    let answered = |message| if let Down::HeartbeatAck(ack) = message { (ack.seq == seq).then_some(()) } else { None };
    replica.until("the answer", answered).await;
}

/// The next set of overrides, acknowledged.
async fn overrides(replica: &mut Replica) -> Vec<sync::Override> {
    let set = replica.until("overrides", |message| if let Down::Overrides(set) = message { Some(set) } else { None });
    let sync::OverrideSet { version, term, overrides, .. } = set.await;
    replica.say(Up::VerdictAck(sync::VerdictAck { key: None, term, rev: version })).await;
    overrides
}

async fn force(server: &Server, state: v1::FleetState, caller: &str) -> v1::Override {
    let request = v1::ForceBreakerRequest {
        selector: Some(v1::BreakerKey {
            target: "service-b".to_owned(),
            caller: caller.to_owned(),
            ..v1::BreakerKey::default()
        }),
        state: state.into(),
        reason: "drill".to_owned(),
        duration: Some(to_wire(Duration::from_secs(600))),
        ..Default::default()
    };
    BreakerServiceClient::new(server.channel().await).force_breaker(request).await.unwrap().into_inner()
}

async fn breaker(server: &Server) -> v1::Breaker {
    let request = v1::ListBreakersRequest::default();
    let mut breakers = BreakerServiceClient::new(server.channel().await);
    breakers.list_breakers(request).await.unwrap().into_inner().breakers.remove(0)
}

/// Until the acknowledgements on the streams have been heard.
async fn confirmed(server: &Server, count: u32) -> v1::Override {
    let heard = async {
        loop {
            let word = breaker(server).await.r#override.unwrap();
            if word.acknowledged >= count {
                return word;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("it is acknowledged in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_what_disabled_means_is_not_told_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let revision = apply(&server, BREAKER).await;
    let mut new = server.replica(knowing("a-new")).await.unwrap();
    let mut old = server.replica(hello("a-old")).await.unwrap();
    let window = sync::BreakerWindow {
        key: Some(key()),
        policy_revision: revision,
        local_state: v1::LocalState::Closed.into(),
        calls: 1,
        ..sync::BreakerWindow::default()
    };
    for replica in [&mut new, &mut old] {
        assert!(overrides(replica).await.is_empty());
        beat(replica, 1, window.clone()).await;
    }
    // An older, broader word that both know.
    force(&server, v1::FleetState::ForcedOpen, "").await;
    for replica in [&mut new, &mut old] {
        assert_eq!(overrides(replica).await.len(), 1);
    }
    let set = force(&server, v1::FleetState::Disabled, "service-a").await;
    assert_eq!((set.state(), set.unsupported.as_slice()), (v1::FleetState::Disabled, ["a-old".to_owned()].as_slice()));
    assert_eq!(overrides(&mut new).await.len(), 2);
    let states: Vec<_> = overrides(&mut old).await.iter().map(sync::Override::state).collect();
    assert_eq!(states, [v1::FleetState::ForcedOpen], "it goes on under what it knows");

    let word = confirmed(&server, 1).await;
    assert_eq!(word.unacknowledged, ["a-old"], "though it has acknowledged its set");
    assert_eq!(word.unsupported, ["a-old"]);
    let shown = breaker(&server).await;
    assert_eq!(shown.fleet_state(), v1::FleetState::Disabled);
    let parts: Vec<_> =
        shown.instances.iter().map(|own| (own.instance.as_str(), own.acknowledged, own.unsupported)).collect();
    assert_eq!(parts, [("a-new", true, false), ("a-old", false, true)]);
    server.stop().await;

    // It is durable, and told again to who knows it.
    let server = Server::start(folder.path()).await;
    let mut new = server.replica(knowing("a-new")).await.unwrap();
    assert_eq!(overrides(&mut new).await.len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disabled_breaker_tells_is_shown_and_is_no_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let revision = apply(&server, BREAKER).await;
    // A client that says numbers all the same.
    let window = sync::BreakerWindow {
        key: Some(key()),
        policy_revision: revision,
        local_state: v1::LocalState::Open.into(),
        own_trip: true,
        calls: 20,
        failures: 20,
        rejected: 5,
        disabled: true,
        ..sync::BreakerWindow::default()
    };
    let mut replicas = Vec::new();
    for instance in ["a-1", "a-2"] {
        let mut replica = server.replica(knowing(instance)).await.unwrap();
        beat(&mut replica, 1, window.clone()).await;
        replicas.push(replica);
    }
    let shown = breaker(&server).await;
    assert_eq!(shown.fleet_state(), v1::FleetState::Released);
    let parts: Vec<_> = shown
        .instances
        .iter()
        .map(|own| (own.local_state(), own.disabled, own.window_calls, own.rejected, own.eligible))
        .collect();
    assert_eq!(parts, [(v1::LocalState::Open, true, 0, 0, false); 2]);
    for replica in &mut replicas {
        beat(replica, 2, sync::BreakerWindow { disabled: false, ..window.clone() }).await;
    }
    assert_eq!(breaker(&server).await.fleet_state(), v1::FleetState::Open, "they count again");
    server.stop().await;
}
