//! The network between replicas and the control plane.

use std::time::Duration;

use fusebox::FleetStateShown;

use crate::{
    proxy::{Cut, Proxy, Way},
    world::{Health, Operator, Replica, applied, open, serve, until},
};

const STALLED: Way = Way { delay: Duration::ZERO, jitter: Duration::ZERO, stalled: true, pause: None };
const CLEAR: Way = Way { delay: Duration::ZERO, jitter: Duration::ZERO, stalled: false, pause: None };

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_opens_and_recovers_over_a_network_with_delay_and_jitter() {
    const LATE: Way =
        Way { delay: Duration::from_millis(100), jitter: Duration::from_millis(200), stalled: false, pause: None };
    let (folder, b) = (tempfile::tempdir().unwrap(), Health::default());
    let plane = serve(folder.path(), "127.0.0.1:0");
    let operator = Operator::of(&plane);
    let proxy = Proxy::before(&plane.url).await;
    proxy.up(LATE);
    proxy.down(LATE);
    let replicas = ["a-1", "a-2", "a-3"].map(|instance| Replica::start(instance, &proxy.url, &b));
    applied(&replicas, operator.apply("3s").await).await;
    open(&replicas, &b).await;
    b.set_sick(false);
    let before = b.probes();
    until("the fleet closes", || async {
        for replica in &replicas {
            replica.call().await;
        }
        replicas.iter().all(|replica| replica.fleet() == FleetStateShown::Released && replica.admits_all())
    })
    .await;
    // One probe is allowed; who has not heard of the end yet may not send a second.
    assert_eq!(b.probes() - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direction_that_carries_nothing_is_noticed_and_harms_no_call() {
    let (folder, b) = (tempfile::tempdir().unwrap(), Health::default());
    let plane = serve(folder.path(), "127.0.0.1:0");
    let operator = Operator::of(&plane);
    let proxy = Proxy::before(&plane.url).await;
    let replicas = [Replica::start("a-1", &proxy.url, &b)];
    let replica = &replicas[0];
    applied(&replicas, operator.apply("1s").await).await;
    for (stall, delay) in [(Proxy::up as fn(&Proxy, Way), "2s"), (Proxy::down, "3s")] {
        stall(&proxy, STALLED);
        let revision = operator.apply(delay).await;
        until("the replica notices", || async {
            assert!(replica.call().await, "no call needs the control plane");
            !replica.is_connected()
        })
        .await;
        stall(&proxy, CLEAR);
        applied(&replicas, revision).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_given_up_by_both_sides() {
    let (folder, b) = (tempfile::tempdir().unwrap(), Health::default());
    let plane = serve(folder.path(), "127.0.0.1:0");
    let operator = Operator::of(&plane);
    let proxy = Proxy::before(&plane.url).await;
    let replicas = [Replica::start("a-1", &proxy.url, &b)];
    let replica = &replicas[0];
    applied(&replicas, operator.apply("1s").await).await;
    assert_eq!(operator.instances().await, ["a-1"]);
    // New connections get nowhere either: else the new stream would take the old one's place.
    proxy.up(STALLED);
    proxy.cut(Cut::HalfOpen);
    until("the replica gives it up, and dials again", || async {
        assert!(replica.call().await, "no call needs the control plane");
        !replica.is_connected() && proxy.accepted() > 1
    })
    .await;
    until("the server frees the session", || async { operator.instances().await.is_empty() }).await;
    proxy.up(CLEAR);
    until("the replica is back, once", || async { replica.is_connected() && operator.instances().await == ["a-1"] })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_and_bytes_that_trickle_only_make_policies_late() {
    const TRICKLE: Way =
        Way { delay: Duration::ZERO, jitter: Duration::ZERO, stalled: false, pause: Some(Duration::from_millis(1)) };
    let (folder, b) = (tempfile::tempdir().unwrap(), Health::default());
    let plane = serve(folder.path(), "127.0.0.1:0");
    let operator = Operator::of(&plane);
    let proxy = Proxy::before(&plane.url).await;
    let replicas = [Replica::start("a-1", &proxy.url, &b)];
    applied(&replicas, operator.apply("1s").await).await;
    for (cut, delay) in [(Cut::Close, "2s"), (Cut::Reset, "3s")] {
        let connections = proxy.accepted();
        proxy.cut(cut);
        assert!(replicas[0].call().await, "no call needs the control plane");
        until("it dials again", || async { proxy.accepted() > connections }).await;
        applied(&replicas, operator.apply(delay).await).await;
    }
    proxy.down(TRICKLE);
    applied(&replicas, operator.apply("4s").await).await;
}
