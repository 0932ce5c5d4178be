//! Processes that stand still for longer than a lease, and go on.

use std::{sync::Mutex, time::Duration};

use fusebox::FleetStateShown;

use crate::{
    services::Services,
    signal::signal,
    world::{Health, LEASE, Operator, Replica, applied, open, serve, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_of_a_control_plane_that_stands_still_end_and_it_does_not_trust_itself_when_it_goes_on() {
    let (folder, b) = (tempfile::tempdir().unwrap(), Health::default());
    let plane = serve(folder.path(), "127.0.0.1:0");
    let operator = Operator::of(&plane);
    let replicas = ["a-1", "a-2", "a-3"].map(|instance| Replica::start(instance, &plane.url, &b));
    let revision = operator.apply("2s").await;
    applied(&replicas, revision).await;
    open(&replicas, &b).await;
    signal(&plane.child, "STOP");
    b.set_sick(false);
    let held = |state| replicas.iter().all(|replica| replica.fleet() == state);
    until("the verdicts end", || async { held(FleetStateShown::Released) }).await;
    until("each replica finds out by itself that service B is well", || async {
        for replica in &replicas {
            replica.call().await;
        }
        replicas.iter().all(Replica::admits_all)
    })
    .await;
    assert!(replicas.iter().all(|replica| replica.revision() == revision), "policies have no end");

    signal(&plane.child, "CONT");
    let said = Mutex::new(Vec::new());
    until("it decides again", || async {
        for replica in &replicas {
            assert!(replica.call().await, "what it decided before it stood still is old");
        }
        let Ok(explained) = operator.explain().await else { return false };
        let decides = explained.mode == "deciding";
        let mut said = said.lock().unwrap();
        let now = (explained.mode, explained.suspicion);
        if said.last() != Some(&now) {
            said.push(now);
        }
        decides
    })
    .await;
    let said = said.into_inner().unwrap();
    let said: Vec<_> = said.iter().map(|(mode, suspicion)| (mode.as_str(), suspicion.as_str())).collect();
    assert_eq!(said, [("frozen", "stall"), ("learning", ""), ("deciding", "")]);
    applied(&replicas, revision).await;
    open(&replicas, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stood_still_holds_neither_verdict_nor_permit_when_it_makes_its_first_call() {
    let mut services = Services::start().await;
    services.hold_permit(2).await;
    signal(&services.replicas[2].child, "STOP");
    // Nobody is to tell it anything new.
    services.plane.child.kill().unwrap();
    services.plane.child.wait().unwrap();
    // Not to wait for something: this time is what the case is about.
    tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
    signal(&services.replicas[2].child, "CONT");
    services.call(2).await;
    let status = services.status(2).await;
    let breaker = &status["breakers"][0];
    assert_eq!(breaker["fleet"], "released", "{status}");
    assert_ne!(breaker["local"], "closed", "it begins with its own breaker, and not all replicas at once: {status}");
    until("it finds out by itself that service B is well", || async {
        services.call(2).await["messageB"] == "hello from service B"
    })
    .await;
}
