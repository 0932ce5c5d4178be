//! What stops a rollout, and what lets it go on.

use fusebox_proto::v1::{self, RolloutState, rollout_gate::Verdict, rollout_stage::Selector};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::server::{Replica, Server, policy, stages, to_instance};

fn gate<'a>(rollout: &'a v1::Rollout, name: &str) -> &'a v1::RolloutGate {
    let gates = &rollout.progress.as_ref().unwrap().gates;
    gates.iter().find(|gate| gate.name == name).unwrap()
}

/// A server with two replicas, and a rollout to the first.
async fn begun(folder: &std::path::Path, spec: v1::RolloutSpec) -> (Server, Replica, Replica, v1::Rollout) {
    let server = Server::start(folder).await;
    server.apply(policy("1s")).await.unwrap();
    let (mut first, mut second) = (Replica::join(&server, "a-1", "").await, Replica::join(&server, "a-2", "").await);
    let rollout = server.start_rollout(policy("2s"), spec).await.unwrap();
    first.reach(2).await;
    second.reach(2).await;
    (server, first, second, rollout)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_refuses_the_candidate_pauses_it_and_keeps_what_it_ran() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let mut first = Replica::join(&server, "a-1", "").await;
    first.refuses = Some(2);
    let rollout = server.start_rollout(policy("2s"), to_instance("a-1")).await.unwrap();
    first.reach(2).await;
    assert_eq!(first.runs(), 1);
    let paused = server.until(&rollout.name, "paused", |own| own.state() == RolloutState::Paused).await;
    assert!(paused.reason.contains("rejected failed: 1 of 1 selected replicas refuse it"), "{}", paused.reason);
    let paused = server.until(&rollout.name, "told with its reason", |own| {
        own.progress.as_ref().is_some_and(|progress| progress.rejected.len() == 1)
    });
    let progress = paused.await.progress.unwrap();
    assert_eq!(progress.rejected[0].reason, "this replica is too old for it");
    assert!(progress.acknowledged.is_empty());

    let resume = v1::ResumeRolloutRequest { name: rollout.name.clone(), ..Default::default() };
    server.rollouts().resume_rollout(resume).await.unwrap();
    server.until(&rollout.name, "paused again", |own| own.state() == RolloutState::Paused).await;
    server.abort(&rollout.name).await;
    first.reach(5).await;
    assert_eq!(first.runs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_gate_aborts_where_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let spec = v1::RolloutSpec { abort_on_failure: true, ..to_instance("a-1") };
    let (server, mut first, mut second, rollout) = begun(folder.path(), spec).await;
    second.beat(100, 1).await;
    first.beat(100, 30).await;
    let aborted = server.until(&rollout.name, "aborted", |own| own.state() == RolloutState::Aborted).await;
    assert!(
        aborted.reason.contains("30 of 100 calls of the selected failed, 1 of 100 of the others"),
        "{}",
        aborted.reason
    );
    first.reach(3).await;
    assert_eq!((first.revision, first.runs()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_promoted_on_no_news_but_by_force_and_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut first, mut second, rollout) = begun(folder.path(), to_instance("a-1")).await;
    server.until(&rollout.name, "acknowledged", |own| gate(own, "acknowledged").verdict() == Verdict::Pass).await;
    first.beat(100, 0).await;
    let refused = server.promote(&rollout.name).await.unwrap_err();
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((refused.code(), info.reason.as_str()), (Code::FailedPrecondition, "GATES_HOLD"));
    assert!(info.metadata["failures"].starts_with("INSUFFICIENT_EVIDENCE"), "{info:?}");
    assert_eq!(info.metadata["rollout"], rollout.name);
    let unsaid = v1::PromoteRolloutRequest { name: rollout.name.clone(), force: true, ..Default::default() };
    assert_eq!(server.rollouts().promote_rollout(unsaid).await.unwrap_err().code(), Code::InvalidArgument);

    second.beat(100, 2).await;
    let waits = server.until(&rollout.name, "ready", |own| own.state() == RolloutState::AwaitingPromotion).await;
    assert_eq!(gate(&waits, "failures").verdict(), Verdict::Pass);
    assert_eq!(server.promote(&rollout.name).await.unwrap().state(), RolloutState::Promoted);
    let ended = server.promote(&rollout.name).await.unwrap_err();
    assert_eq!(ended.get_error_details().error_info().unwrap().reason, "ROLLOUT_ENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_may_goes_through_its_stages_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let instances = |names: &[&str]| {
        Selector::Instances(v1::InstanceSelector { instances: names.iter().map(|name| (*name).to_owned()).collect() })
    };
    let mut spec = stages(vec![instances(&["a-1"]), instances(&["a-2"])]);
    spec.auto = true;
    spec.stages[0].bake = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let (server, mut first, mut second, rollout) = begun(folder.path(), spec).await;
    let mut third = Replica::join(&server, "a-3", "").await;
    let baking = server.until(&rollout.name, "seen", |own| gate(own, "acknowledged").verdict() == Verdict::Pass).await;
    assert_eq!((baking.state(), baking.stage), (RolloutState::Running, 1));
    for replica in [&mut first, &mut second, &mut third] {
        replica.beat(100, 0).await;
    }
    let stage = server.until(&rollout.name, "at its second stage", |own| own.stage == 2).await;
    assert_eq!(stage.reason, "all gates pass");
    // Who watches never sees what the stage before has shown as if it were of this one.
    assert_eq!(stage.progress.as_ref().unwrap().selected.len(), 2);
    for replica in [&mut first, &mut second, &mut third] {
        replica.reach(stage.stage_revision).await;
    }
    assert_eq!((first.runs(), second.runs(), third.runs()), (2, 2, 1));
    second.beat(100, 0).await;
    third.beat(100, 0).await;
    let done = server.until(&rollout.name, "promoted", |own| own.state() == RolloutState::Promoted).await;
    assert_eq!((done.stage, done.candidate_revision), (2, 2));
    third.reach(done.stage_revision).await;
    assert_eq!(third.runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trip_where_the_candidate_runs_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, mut first, _second, rollout) = begun(folder.path(), to_instance("a-1")).await;
    first.trip().await;
    let paused = server.until(&rollout.name, "paused", |own| own.state() == RolloutState::Paused).await;
    assert!(paused.reason.contains("1 of 1 selected replicas tripped, 0 of 1 others"), "{}", paused.reason);
    assert_eq!(first.runs(), 2, "a pause takes nothing back");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_a_candidate_is_no_witness_and_a_fleet_that_opens_stops_the_rollout() {
    let folder = tempfile::tempdir().unwrap();
    let spec = stages(vec![Selector::Zone("z1".to_owned())]);
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let mut selected = Vec::new();
    for name in ["a-1", "a-2", "a-3"] {
        selected.push(Replica::join(&server, name, "z1").await);
    }
    let mut others = [Replica::join(&server, "a-4", "").await, Replica::join(&server, "a-5", "").await];
    // All are members of the one breaker at first.
    for replica in selected.iter_mut().chain(&mut others) {
        replica.beat(30, 0).await;
    }
    let breaker = || async {
        let answer = server.breakers().list_breakers(v1::ListBreakersRequest::default()).await.unwrap();
        answer.into_inner().breakers.into_iter().next()
    };
    let members = |count: usize| {
        let breaker = &breaker;
        async move {
            for _ in 0..1000 {
                if breaker().await.is_some_and(|breaker| breaker.instances.len() == count) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            panic!("not {count} members: {:?}", breaker().await);
        }
    };
    members(5).await;
    let rollout = server.start_rollout(policy("2s"), spec).await.unwrap();
    for replica in selected.iter_mut().chain(&mut others) {
        replica.reach(2).await;
    }
    // Three trip, which would open a fleet of five.
    for replica in &mut selected {
        replica.trip().await;
    }
    members(2).await;
    let seen = breaker().await.unwrap();
    assert_eq!((seen.fleet_state(), seen.instances.len()), (v1::FleetState::Released, 2));
    server.until(&rollout.name, "paused", |own| own.state() == RolloutState::Paused).await;

    // Those that run what is in force open the fleet, which is a reason to stop by itself.
    let resume = v1::ResumeRolloutRequest { name: rollout.name.clone(), ..Default::default() };
    server.rollouts().resume_rollout(resume).await.unwrap();
    for replica in &mut others {
        replica.trip().await;
    }
    let paused = server
        .until(&rollout.name, "paused by the fleet", |own| {
            own.state() == RolloutState::Paused && own.reason.contains("fleet")
        })
        .await;
    assert!(paused.reason.contains("fleet_opens failed"), "{}", paused.reason);
    assert_eq!(breaker().await.unwrap().fleet_state(), v1::FleetState::Open);
    // An abort must not lift what protects those that were never selected.
    server.abort(&rollout.name).await;
    others[0].update().await;
    assert_eq!(others[0].runs(), 1);
    assert_eq!(breaker().await.unwrap().fleet_state(), v1::FleetState::Open, "what is in force has not changed");
    selected[0].reach(6).await;
    selected[0].beat(30, 0).await;
    members(3).await;
}
