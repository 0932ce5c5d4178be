//! Who has the candidate: after a mark at revision R, a replica's set is what it is selected for at R.

use std::collections::BTreeSet;

use fusebox_proto::v1::{self, rollout_stage::Selector};

use super::server::{Replica, Server, policy, stages, to_instance};

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_takes_the_candidate_back_as_a_later_revision_and_leaves_the_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let mut first = Replica::join(&server, "a-1", "z1").await;
    let mut second = Replica::join(&server, "a-2", "z1").await;
    let rollout = server.start_rollout(policy("2s"), to_instance("a-1")).await.unwrap();
    assert_eq!((rollout.candidate_revision, rollout.stable_revision, rollout.stage), (2, 1, 1));
    assert!(first.update().await, "it is selected");
    assert!(!second.update().await, "it is not");
    assert_eq!((first.runs(), second.runs()), (2, 1));
    let live =
        server.until(&rollout.name, "acknowledged", |own| own.progress.as_ref().unwrap().acknowledged.len() == 1).await;
    let progress = live.progress.unwrap();
    assert_eq!((progress.connected, progress.selected), (2, vec!["services/service-a/instances/a-1".to_owned()]));

    let refused = server.apply(policy("9s")).await.unwrap_err();
    assert!(refused.message().contains("promote or abort it first"), "{refused}");
    assert_eq!(server.apply(policy("1s")).await.unwrap(), 2, "what is in force may be said again");

    let aborted = server.abort(&rollout.name).await;
    assert_eq!((aborted.state(), aborted.reason.as_str()), (v1::RolloutState::Aborted, "it is no good"));
    assert!(first.update().await && !second.update().await);
    assert_eq!((first.revision, first.runs()), (3, 1), "a later revision with what was in force before");
    assert_eq!((second.revision, second.runs()), (3, 1));
    assert_eq!(first.policies, second.policies);

    let name = "namespaces/default/policies/service-b".to_owned();
    let request = v1::ListPolicyRevisionsRequest { name: name.clone(), ..Default::default() };
    let history = server.policies().list_policy_revisions(request).await.unwrap().into_inner().revisions;
    let told: Vec<_> = history.iter().map(|own| (own.revision, own.action(), own.message.as_str())).collect();
    use v1::policy_revision::Action;
    let expected = [(3, Action::Rollback, "it is no good"), (2, Action::Candidate, "try it"), (1, Action::Create, "")];
    assert_eq!(told, expected);
    // Who is in a hurry undoes after the abort too: that must not put the candidate in force.
    let undo = v1::RollbackPolicyRequest { name, ..Default::default() };
    let undone = server.policies().rollback_policy(undo).await.unwrap_err();
    assert!(undone.message().contains("no earlier revision"), "{undone}");
    assert_eq!(server.apply(policy("9s")).await.unwrap(), 4, "free for changes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn promotion_reaches_everybody_and_who_was_away_catches_up_by_its_revision() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let (mut first, mut second) = (Replica::join(&server, "a-1", "").await, Replica::join(&server, "a-2", "").await);
    let mut away = Replica::join(&server, "a-3", "").await;
    away.leave();
    let rollout = server.start_rollout(policy("2s"), to_instance("a-1")).await.unwrap();
    first.reach(2).await;
    second.reach(2).await;
    let promoted = server.force(&rollout.name).await;
    assert_eq!((promoted.state(), promoted.reason.as_str()), (v1::RolloutState::Promoted, "I know"));
    for replica in [&mut first, &mut second] {
        replica.reach(3).await;
    }
    away.rejoin(&server, "").await;
    for replica in [&first, &second, &away] {
        assert_eq!((replica.revision, replica.runs()), (3, 2), "the content keeps its number");
    }
    let undo = v1::RollbackPolicyRequest { name: rollout.policy, ..Default::default() };
    let undone = server.policies().rollback_policy(undo).await.unwrap().into_inner();
    assert_eq!(undone.revision, 4);
    assert_eq!(undone.spec, policy("1s").spec, "to what was in force before the rollout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_percentage_keeps_who_was_selected_and_newcomers_are_where_they_belong() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let mut replicas = Vec::new();
    for number in 0..40 {
        replicas.push(Replica::join(&server, &format!("a-{number}"), "").await);
    }
    let spec = stages(vec![Selector::Percent(10), Selector::Percent(50)]);
    let rollout = server.start_rollout(policy("2s"), spec).await.unwrap();
    let mut selected = Vec::new();
    for percent in [10, 50] {
        let stage = server.get(&rollout.name).await;
        for replica in &mut replicas {
            replica.reach(stage.stage_revision).await;
        }
        let now: BTreeSet<usize> = (0..40).filter(|number| replicas[*number].runs() == 2).collect();
        assert_eq!(now.len(), stage.progress.unwrap().selected.len());
        assert!(now.len() < 40, "{percent} %: {now:?}");
        selected.push(now);
        if percent == 10 {
            server.force(&rollout.name).await;
        }
    }
    assert!(selected[0].is_subset(&selected[1]) && selected[0].len() < selected[1].len(), "{selected:?}");
    // The same replica comes again as another process that holds nothing: it is where it was.
    for number in [0, 1, 2, 3] {
        replicas[number].leave();
        let again = Replica::join(&server, &format!("a-{number}"), "").await;
        assert_eq!(again.runs() == 2, selected[1].contains(&number));
        replicas[number] = again;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_comes_back_from_another_zone_is_put_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let mut mover = Replica::join(&server, "a-1", "z1").await;
    let rollout = server.start_rollout(policy("2s"), stages(vec![Selector::Zone("z1".to_owned())])).await.unwrap();
    mover.reach(2).await;
    assert_eq!(mover.runs(), 2);
    for (zone, runs) in [("z2", 1), ("z1", 2), ("z1", 2), ("z2", 1)] {
        mover.leave();
        mover.rejoin(&server, zone).await;
        assert_eq!((mover.revision, mover.runs()), (2, runs), "in {zone}, although nothing has changed in the store");
    }
    mover.leave();
    server.abort(&rollout.name).await;
    mover.rejoin(&server, "z1").await;
    assert_eq!((mover.revision, mover.runs()), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_after_a_restart_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let (mut first, mut second) = (Replica::join(&server, "a-1", "").await, Replica::join(&server, "a-2", "").await);
    let rollout = server.start_rollout(policy("2s"), to_instance("a-1")).await.unwrap();
    first.reach(2).await;
    second.reach(2).await;
    first.leave();
    second.leave();
    server.stop().await;
    let server = Server::start(folder.path()).await;
    first.rejoin(&server, "").await;
    second.rejoin(&server, "").await;
    let fresh = Replica::join(&server, "a-3", "").await;
    assert_eq!((first.runs(), second.runs(), fresh.runs()), (2, 1, 1));
    let pause =
        v1::PauseRolloutRequest { name: rollout.name.clone(), reason: "lunch".to_owned(), ..Default::default() };
    assert_eq!(server.rollouts().pause_rollout(pause).await.unwrap().into_inner().state(), v1::RolloutState::Paused);
    first.leave();
    second.leave();
    drop(fresh);
    server.stop().await;
    let server = Server::start(folder.path()).await;
    let paused = server.get(&rollout.name).await;
    assert_eq!((paused.state(), paused.reason.as_str(), paused.stage_revision), (v1::RolloutState::Paused, "lunch", 2));
    server.abort(&rollout.name).await;
    first.rejoin(&server, "").await;
    assert_eq!((first.revision, first.runs()), (4, 1), "it missed all of it and is told the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_new_can_go_to_some_first() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (mut first, mut second) = (Replica::join(&server, "a-1", "").await, Replica::join(&server, "a-2", "").await);
    let rollout = server.start_rollout(policy("1s"), to_instance("a-1")).await.unwrap();
    assert_eq!(rollout.stable_revision, 0);
    first.reach(1).await;
    second.reach(1).await;
    assert_eq!((first.runs(), second.runs()), (1, 0));
    let request = v1::GetPolicyRequest { name: rollout.policy.clone() };
    assert_eq!(server.policies().get_policy(request).await.unwrap_err().code(), tonic::Code::NotFound);
    server.abort(&rollout.name).await;
    first.reach(2).await;
    assert_eq!(first.runs(), 0);
    let undo = v1::RollbackPolicyRequest { name: rollout.policy, ..Default::default() };
    assert_eq!(server.policies().rollback_policy(undo).await.unwrap_err().code(), tonic::Code::NotFound);
}

/// Whatever operators, replicas and the server do, in whatever order.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_a_replica_has_what_it_is_selected_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path()).await;
    let mut random = fastrand::Rng::with_seed(7);
    let (mut replicas, mut here) = (Vec::new(), [true; 6]);
    server.apply(policy("1s")).await.unwrap();
    for number in 0..6 {
        replicas.push(Replica::join(&server, &format!("a-{number}"), "z1").await);
    }
    let mut rollout: Option<v1::Rollout> = None;
    for round in 2..140_u64 {
        let number = random.usize(0..6);
        match (random.u8(0..10), &rollout) {
            (0..3, None) => {
                let spec = stages(vec![Selector::Zone("z2".to_owned()), Selector::Percent(random.u32(20..60))]);
                rollout = Some(server.start_rollout(policy(&format!("{round}s")), spec).await.unwrap());
            }
            (0..2, Some(own)) => {
                let promoted = server.force(&own.name).await;
                rollout = (promoted.state() == v1::RolloutState::Running).then_some(promoted);
            }
            (2, Some(own)) => {
                server.abort(&own.name).await;
                rollout = None;
            }
            (3, None) => {
                server.apply(policy(&format!("{round}s"))).await.unwrap();
            }
            (4..7, _) if here[number] => {
                replicas[number].leave();
                here[number] = false;
            }
            (4..9, _) if !here[number] => {
                let zone = if random.bool() { "z1" } else { "z2" };
                replicas[number].rejoin(&server, zone).await;
                here[number] = true;
            }
            (9, _) if random.u8(0..4) == 0 => {
                replicas.iter_mut().for_each(Replica::leave);
                here = [false; 6];
                server.stop().await;
                server = Server::start(folder.path()).await;
            }
            _ => {}
        }
        let request = v1::ListPoliciesRequest { parent: "namespaces/default".to_owned(), ..Default::default() };
        let listed = server.policies().list_policies(request).await.unwrap().into_inner();
        let selected = match &rollout {
            Some(own) => server.get(&own.name).await.progress.unwrap().selected,
            None => Vec::new(),
        };
        for number in (0..6).filter(|number| here[*number]) {
            let replica = &mut replicas[number];
            replica.reach(listed.revision).await;
            let is_selected = selected.contains(&format!("services/service-a/instances/a-{number}"));
            let expected = match &rollout {
                Some(own) if is_selected => own.candidate_revision,
                Some(_) | None => listed.policies[0].revision,
            };
            assert_eq!((replica.revision, replica.runs()), (listed.revision, expected), "a-{number} in round {round}");
        }
    }
}
