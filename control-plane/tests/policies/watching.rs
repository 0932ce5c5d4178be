//! Watches: what is present, a mark, then every change.

use fusebox_proto::v1::{self, watch_policies_response::Event};
use tonic::{Code, Status, Streaming};

use crate::server::{LIMIT, Server, name, refusal, timeout};

#[derive(Debug)]
struct Watch(Streaming<v1::WatchPoliciesResponse>);

impl Watch {
    async fn start(server: &mut Server, parent: &str) -> Self {
        let parent = parent.to_owned();
        Self::ask(server, v1::WatchPoliciesRequest { parent, ..v1::WatchPoliciesRequest::default() }).await.unwrap()
    }

    async fn ask(server: &mut Server, request: v1::WatchPoliciesRequest) -> Result<Self, Status> {
        Ok(Self(server.client.watch_policies(request).await?.into_inner()))
    }

    async fn from(server: &mut Server, revision: u64) -> Result<Self, Status> {
        let parent = "namespaces/-".to_owned();
        let request = v1::WatchPoliciesRequest { parent, from_revision: revision, ..Default::default() };
        Self::ask(server, request).await
    }

    async fn next(&mut self) -> Result<Option<Event>, Status> {
        let message = tokio::time::timeout(LIMIT, self.0.message()).await.expect("the watch is silent")?;
        Ok(message.map(|message| message.event.unwrap()))
    }

    /// The events up to and with the bookmark of a revision.
    async fn until(&mut self, revision: u64) -> Vec<Event> {
        let mut events = Vec::new();
        while events.last() != Some(&Event::Bookmark(revision)) {
            events.push(self.next().await.unwrap().expect("the watch has ended"));
        }
        events
    }
}

fn told(events: &[Event]) -> Vec<String> {
    let words = |event: &Event| match event {
        Event::Upserted(policy) => format!("{}@{}", policy.name.rsplit('/').next().unwrap(), policy.revision),
        Event::Deleted(name) => format!("-{}", name.rsplit('/').next().unwrap()),
        Event::Bookmark(revision) => format!("={revision}"),
    };
    events.iter().map(words).collect()
}

#[tokio::test]
async fn a_watch_tells_what_is_there_then_what_changes() {
    let mut server = Server::start().await;
    server.apply(vec![timeout("a", "ta", 1), timeout("b", "tb", 1)], false).await.unwrap();
    let mut watch = Watch::start(&mut server, "namespaces/default").await;
    assert_eq!(told(&watch.until(2).await), ["a@1", "b@2", "=2"]);
    server.update(timeout("a", "ta", 2)).await.unwrap();
    assert_eq!(told(&watch.until(3).await), ["a@3", "=3"]);
    server.delete("b").await.unwrap();
    assert_eq!(told(&watch.until(4).await), ["-b", "=4"]);
    server.rollback("b", 0).await.unwrap();
    assert_eq!(told(&watch.until(5).await), ["b@5", "=5"]);
}

#[tokio::test]
async fn a_watch_that_was_cut_off_goes_on_from_its_last_mark() {
    let mut server = Server::start().await;
    server.apply(vec![timeout("a", "ta", 1), timeout("b", "tb", 1), timeout("c", "tc", 1)], false).await.unwrap();
    server.update(timeout("a", "ta", 2)).await.unwrap();
    server.delete("b").await.unwrap();
    server.update(timeout("a", "ta", 3)).await.unwrap();
    let mut watch = Watch::from(&mut server, 3).await.unwrap();
    assert_eq!(told(&watch.until(6).await), ["-b", "a@6", "=6"], "each once, and nothing of what did not change");
    server.update(timeout("c", "tc", 2)).await.unwrap();
    assert_eq!(told(&watch.until(7).await), ["c@7", "=7"]);
    let mut present = Watch::from(&mut server, 7).await.unwrap();
    assert_eq!(told(&present.until(7).await), ["=7"]);
}

#[tokio::test]
async fn a_watch_from_what_is_forgotten_or_not_yet_there_is_refused() {
    let mut server = Server::start_remembering(2).await;
    for round in 1..=4 {
        server.apply(vec![timeout("a", "ta", round)], false).await.unwrap();
    }
    let (code, reason, details) = refusal(Watch::from(&mut server, 1).await);
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "REVISION_COMPACTED"));
    assert_eq!(details.error_info().unwrap().metadata["oldest"], "2");
    assert_eq!(told(&Watch::from(&mut server, 2).await.unwrap().until(4).await), ["a@4", "=4"]);
    let (code, reason, _) = refusal(Watch::from(&mut server, 5).await);
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "REVISION_UNKNOWN"));
}

#[tokio::test]
async fn a_watch_with_a_filter_tells_what_comes_into_it_and_what_leaves_it() {
    let mut server = Server::start().await;
    let labelled = |id: &str, team: &str, seconds: i64| v1::Policy {
        labels: [("team".to_owned(), team.to_owned())].into(),
        ..timeout(id, &format!("t{id}"), seconds)
    };
    server.apply(vec![labelled("a", "x", 1), labelled("b", "y", 1)], false).await.unwrap();
    let request = v1::WatchPoliciesRequest {
        parent: "namespaces/-".to_owned(),
        filter: "labels.team = x".to_owned(),
        ..v1::WatchPoliciesRequest::default()
    };
    let mut watch = Watch::ask(&mut server, request.clone()).await.unwrap();
    assert_eq!(told(&watch.until(2).await), ["a@1", "=2"]);
    server.update(labelled("b", "y", 2)).await.unwrap();
    assert_eq!(told(&watch.until(3).await), ["=3"]);
    server.update(labelled("b", "x", 2)).await.unwrap();
    assert_eq!(told(&watch.until(4).await), ["b@4", "=4"]);
    server.update(labelled("a", "y", 1)).await.unwrap();
    assert_eq!(told(&watch.until(5).await), ["-a", "=5"]);
    // Who resumes is told of all that is out by now: it may hold it.
    let resumed = v1::WatchPoliciesRequest { from_revision: 2, ..request };
    let mut watch = Watch::ask(&mut server, resumed).await.unwrap();
    assert_eq!(told(&watch.until(5).await), ["b@4", "-a", "=5"]);
}

#[tokio::test]
async fn a_watch_of_a_namespace_hears_of_no_other() {
    let mut server = Server::start().await;
    let mut watch = Watch::start(&mut server, "namespaces/other").await;
    server.create("a", timeout("a", "ta", 1)).await.unwrap();
    assert!(watch.until(1).await.iter().all(|event| matches!(event, Event::Bookmark(_))));
    let mut all = Watch::start(&mut server, "namespaces/-").await;
    assert_eq!(told(&all.until(1).await), ["a@1", "=1"]);
}

#[tokio::test]
async fn a_watch_sees_changes_from_many_hands_in_the_order_of_revisions() {
    let mut server = Server::start().await;
    let mut watch = Watch::start(&mut server, "namespaces/-").await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..30 {
        let mut client = server.client.clone();
        tasks.spawn(async move {
            let policies = vec![timeout(&format!("p{number}"), &format!("t{number}"), 1)];
            let request = v1::ApplyPoliciesRequest { policies, ..v1::ApplyPoliciesRequest::default() };
            client.apply_policies(request).await.unwrap();
        });
    }
    tasks.join_all().await;
    let mut revisions = Vec::new();
    for event in watch.until(30).await {
        if let Event::Upserted(policy) = event {
            revisions.push(policy.revision);
        }
    }
    assert_eq!(revisions, (1..=30).collect::<Vec<u64>>(), "each once: none was changed twice");
}

#[tokio::test]
async fn a_watch_that_falls_far_behind_still_hears_what_is_gone() {
    let mut server = Server::start().await;
    server.apply(vec![timeout("gone", "t", 1), timeout("busy", "u", 1)], false).await.unwrap();
    let before = server.hub.current();
    server.delete("gone").await.unwrap();
    for round in 0..1100 {
        server.update(timeout("busy", "u", 2 + round)).await.unwrap();
    }
    let now = server.hub.current();
    assert!(now.delta_from(before.revision).is_none(), "the log is bounded");
    let changes = now.delta_since(&before);
    assert_eq!(changes.len(), 2, "{changes:?}");
    let fusebox_control_plane::hub::Change::Deleted(deleted) = &changes[0] else { panic!("{changes:?}") };
    assert_eq!(deleted.wire.name, name("gone"));
}

#[tokio::test]
async fn a_watch_ends_with_the_server_and_says_so() {
    let mut server = Server::start().await;
    let mut watch = Watch::start(&mut server, "namespaces/-").await;
    watch.until(0).await;
    server.shutdown.begin();
    let (code, _, details) = refusal(watch.next().await);
    assert_eq!(code, Code::Unavailable);
    assert!(details.retry_info().is_some());
}
