//! kill -9 of the control plane, and of a replica.

use fusebox::FleetStateShown;

use crate::{
    services::Services,
    world::{Health, Operator, Replica, applied, serve, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_the_control_plane_was_killed_is_there_after_it() {
    let (folder, b) = (tempfile::tempdir().unwrap(), Health::default());
    let mut plane = serve(folder.path(), "127.0.0.1:0");
    let address = plane.url.trim_start_matches("http://").to_owned();
    let replicas = ["a-1", "a-2"].map(|instance| Replica::start(instance, &plane.url, &b));
    let operator = Operator::of(&plane);
    applied(&replicas, operator.apply("1s").await).await;

    // Its answer is all that is waited for.
    let revision = operator.apply("2s").await;
    plane.child.kill().unwrap();
    assert!(replicas[0].call().await, "no call needs the control plane");
    plane.child.wait().unwrap();
    let mut plane = serve(folder.path(), &address);
    applied(&replicas, revision).await;

    let operator = Operator::of(&plane);
    operator.force_open().await;
    plane.child.kill().unwrap();
    plane.child.wait().unwrap();
    let plane = serve(folder.path(), &address);
    assert_eq!(Operator::of(&plane).overrides().await.len(), 1);
    until("the override is obeyed", || async {
        let obeyed = |replica: &Replica| replica.fleet() == FleetStateShown::ForcedOpen && replica.is_connected();
        replicas.iter().all(obeyed)
    })
    .await;
    assert!(!replicas[0].call().await);
    assert_eq!(replicas[0].revision(), revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_of_a_replica_that_was_killed_goes_to_another() {
    let mut services = Services::start().await;
    services.hold_permit(2).await;
    services.replicas[2].child.kill().unwrap();
    services.replicas[2].child.wait().unwrap();
    let before = services.probes().await;
    until("the others close the fleet", || async {
        for index in [0, 1] {
            services.call(index).await;
        }
        services.fleet(0).await == "released" && services.fleet(1).await == "released"
    })
    .await;
    let probes = services.probes().await - before;
    assert!((1..=3).contains(&probes), "{probes} probes; the policy asks for 3, and the dead one sent none");
}
