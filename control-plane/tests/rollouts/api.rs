//! What programs read from refusals and lists.

use fusebox_proto::v1::{self, rollout_stage::Selector};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::server::{LIMIT, Server, policy, stages, to_instance};

fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, ErrorDetails) {
    let status = result.unwrap_err();
    let details = status.get_error_details();
    let reason = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}")).reason.clone();
    (status.code(), reason, details)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_says_what_is_wrong_in_words_and_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let (code, _, details) = refusal(server.start_rollout(policy("2s"), stages(vec![Selector::Percent(0)])).await);
    let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|own| own.field.clone()).collect();
    assert_eq!((code, fields), (Code::InvalidArgument, vec!["rollout.stages[0].percent".to_owned()]));
    let (code, reason, _) = refusal(server.start_rollout(policy("1s"), to_instance("a-1")).await);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "NOTHING_TO_ROLL_OUT"));
    let rollout = server.start_rollout(policy("2s"), to_instance("a-1")).await.unwrap();
    let again = server.start_rollout(policy("3s"), to_instance("a-1")).await;
    for refused in [refusal(again), refusal(server.apply(policy("3s")).await)] {
        let (code, reason, details) = refused;
        assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "ROLLOUT_IN_PROGRESS"));
        assert_eq!(details.error_info().unwrap().metadata["rollout"], rollout.name);
    }
    let none = format!("{}9", rollout.name);
    let get = v1::GetRolloutRequest { name: none.clone() };
    let abort = v1::AbortRolloutRequest { name: none.clone(), reason: "x".to_owned(), ..Default::default() };
    for refused in
        [refusal(server.rollouts().get_rollout(get).await), refusal(server.rollouts().abort_rollout(abort).await)]
    {
        assert_eq!((refused.0, refused.1.as_str()), (Code::NotFound, "ROLLOUT_NOT_FOUND"));
    }
    let nameless = v1::PauseRolloutRequest { name: "rollouts/2".to_owned(), ..Default::default() };
    assert_eq!(refusal(server.rollouts().pause_rollout(nameless).await).0, Code::InvalidArgument);
    let unsaid = v1::AbortRolloutRequest { name: rollout.name.clone(), ..Default::default() };
    assert_eq!(refusal(server.rollouts().abort_rollout(unsaid).await).0, Code::InvalidArgument);
    let running = v1::ResumeRolloutRequest { name: rollout.name.clone(), ..Default::default() };
    assert_eq!(refusal(server.rollouts().resume_rollout(running).await).1, "ROLLOUT_NOT_PAUSED");
    let paging = v1::ListRolloutsRequest { parent: "elsewhere".to_owned(), ..Default::default() };
    assert_eq!(refusal(server.rollouts().list_rollouts(paging).await).0, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_are_listed_newest_first_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    for number in 0..3 {
        let rollout = server.start_rollout(policy(&format!("{}s", number + 2)), to_instance("a-1")).await.unwrap();
        server.abort(&rollout.name).await;
    }
    let filter = "state = ABORTED AND candidate_revision > 2".to_owned();
    let some =
        v1::ListRolloutsRequest { parent: "namespaces/-".to_owned(), filter, page_size: 1, ..Default::default() };
    let first = server.rollouts().list_rollouts(some.clone()).await.unwrap().into_inner();
    let rest = v1::ListRolloutsRequest { page_token: first.next_page_token, ..some };
    let second = server.rollouts().list_rollouts(rest).await.unwrap().into_inner();
    let numbers = [&first.rollouts, &second.rollouts].map(|page| page[0].candidate_revision);
    assert!(numbers[0] > numbers[1] && numbers[1] > 2, "{numbers:?}");
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let parent = "namespaces/default/policies/service-b".to_owned();
        let request = v1::ListRolloutsRequest { parent, page_size: 2, page_token, ..Default::default() };
        let page = server.rollouts().list_rollouts(request).await.unwrap().into_inner();
        found.extend(page.rollouts.iter().map(|own| own.candidate_revision));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, [6, 4, 2]);
    let filter = "state = ABORTED AND candidate_revision < 6".to_owned();
    let narrow =
        v1::ListRolloutsRequest { parent: "namespaces/-".to_owned(), page_size: 1, filter, ..Default::default() };
    let page = server.rollouts().list_rollouts(narrow.clone()).await.unwrap().into_inner();
    assert_eq!((page.rollouts[0].candidate_revision, page.next_page_token.is_empty()), (4, false));
    let narrow = v1::ListRolloutsRequest { page_token: page.next_page_token, ..narrow };
    let page = server.rollouts().list_rollouts(narrow).await.unwrap().into_inner();
    assert_eq!((page.rollouts[0].candidate_revision, page.next_page_token.as_str()), (2, ""));
    let elsewhere = v1::ListRolloutsRequest { parent: "namespaces/other".to_owned(), ..Default::default() };
    assert!(server.rollouts().list_rollouts(elsewhere).await.unwrap().into_inner().rollouts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_twice_is_carried_out_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let create = v1::CreateRolloutRequest {
        policy: Some(policy("2s")),
        spec: Some(to_instance("a-1")),
        request_id: "6f1c0a52-7d0e-4c3b-9a68-0d1f3f1f7b2e".to_owned(),
        ..Default::default()
    };
    let first = server.rollouts().create_rollout(create.clone()).await.unwrap().into_inner();
    assert_eq!(server.rollouts().create_rollout(create).await.unwrap().into_inner(), first);
    let abort = v1::AbortRolloutRequest {
        name: first.name.clone(),
        reason: "enough".to_owned(),
        request_id: "6f1c0a52-7d0e-4c3b-9a68-0d1f3f1f7b2f".to_owned(),
        ..Default::default()
    };
    let tried = v1::AbortRolloutRequest { validate_only: true, ..abort.clone() };
    let tried = server.rollouts().abort_rollout(tried).await.unwrap().into_inner();
    assert_eq!(tried.state(), v1::RolloutState::Aborted, "what it would be");
    let get = v1::GetRolloutRequest { name: first.name };
    let present = server.rollouts().get_rollout(get).await.unwrap().into_inner();
    assert_eq!(present.state(), v1::RolloutState::Running, "nothing was done");
    let ended = server.rollouts().abort_rollout(abort.clone()).await.unwrap().into_inner();
    assert_eq!(server.rollouts().abort_rollout(abort).await.unwrap().into_inner(), ended);
    let dry = v1::CreateRolloutRequest {
        policy: Some(policy("2s")),
        spec: Some(to_instance("a-1")),
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(server.rollouts().create_rollout(dry).await.unwrap().into_inner().candidate_revision, 4);
    let list = v1::ListRolloutsRequest { parent: "namespaces/-".to_owned(), ..Default::default() };
    assert_eq!(server.rollouts().list_rollouts(list).await.unwrap().into_inner().rollouts.len(), 1);
}

/// The next events of a watch, as kind and candidate or name.
async fn told(events: &mut tonic::Streaming<v1::WatchRolloutsResponse>, count: usize) -> Vec<String> {
    use v1::watch_rollouts_response::Event;
    let mut found = Vec::new();
    while found.len() < count {
        let next = tokio::time::timeout(LIMIT, events.message()).await.unwrap_or_else(|_| panic!("only {found:?}"));
        let line = match next.unwrap().unwrap().event.unwrap() {
            Event::Upserted(rollout) => format!("{} {}", rollout.candidate_revision, rollout.state().as_str_name()),
            Event::Deleted(name) => format!("gone {}", name.rsplit('/').next().unwrap()),
            Event::Synced(_) => "synced".to_owned(),
        };
        // What is known of replicas may be told in several steps.
        if found.last() != Some(&line) {
            found.push(line);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_all_rollouts_tells_what_is_there_then_what_begins_changes_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let first = server.start_rollout(policy("2s"), to_instance("a-1")).await.unwrap();
    server.abort(&first.name).await;
    let watch = async |filter: &str| {
        let request = v1::WatchRolloutsRequest { parent: "namespaces/default".to_owned(), filter: filter.to_owned() };
        server.rollouts().watch_rollouts(request).await.unwrap().into_inner()
    };
    let (mut all, mut running) = (watch("").await, watch("state = RUNNING").await);
    assert_eq!(told(&mut all, 2).await, ["2 ROLLOUT_STATE_ABORTED", "synced"]);
    assert_eq!(told(&mut running, 1).await, ["synced"]);
    let second = server.start_rollout(policy("3s"), to_instance("a-1")).await.unwrap();
    assert_eq!(told(&mut all, 1).await, ["4 ROLLOUT_STATE_RUNNING"]);
    assert_eq!(told(&mut running, 1).await, ["4 ROLLOUT_STATE_RUNNING"]);
    let pause = v1::PauseRolloutRequest { name: second.name.clone(), ..Default::default() };
    server.rollouts().pause_rollout(pause).await.unwrap();
    assert_eq!(told(&mut running, 1).await.last().unwrap(), "gone 4");
    server.abort(&second.name).await;
    let mut last = String::new();
    while last != "4 ROLLOUT_STATE_ABORTED" {
        last = told(&mut all, 1).await.remove(0);
    }
    let elsewhere = v1::WatchRolloutsRequest { parent: "elsewhere".to_owned(), ..Default::default() };
    assert_eq!(refusal(server.rollouts().watch_rollouts(elsewhere).await).0, Code::InvalidArgument);
    let bad = v1::WatchRolloutsRequest { parent: "namespaces/-".to_owned(), filter: "colour = red".to_owned() };
    assert_eq!(refusal(server.rollouts().watch_rollouts(bad).await).1, "FILTER_INVALID");
}

/// What is stored and what replicas show change at once, and are followed by two ways: of many watches, each meets them in its own order.
#[tokio::test(flavor = "multi_thread")]
async fn no_watch_misses_a_rollout_that_begins() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply(policy("1s")).await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..64 {
        let request = v1::WatchRolloutsRequest { parent: "namespaces/default".to_owned(), ..Default::default() };
        let mut watch = server.rollouts().watch_rollouts(request).await.unwrap().into_inner();
        assert_eq!(told(&mut watch, 1).await, ["synced"]);
        watches.push(watch);
    }
    for round in 2..6 {
        // Past the least time between two looks at the replicas: the next one follows the start at once, and meets it half told.
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        let begun = server.start_rollout(policy(&format!("{round}s")), to_instance("a-1")).await.unwrap();
        let candidate = begun.candidate_revision;
        for watch in &mut watches {
            assert_eq!(told(watch, 1).await, [format!("{candidate} ROLLOUT_STATE_RUNNING")], "round {round}");
        }
        server.abort(&begun.name).await;
        for watch in &mut watches {
            while told(watch, 1).await != [format!("{candidate} ROLLOUT_STATE_ABORTED")] {}
        }
    }
}
