//! The audit log as programs read it, and how it is kept.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fusebox_control_plane::{
    caller::Caller,
    config::Limits,
    retention::Retention,
    store::{Change, Expect, Note, Store as _, memory::MemoryStore},
};
use fusebox_proto::{
    manifest,
    v1::{self, audit_service_client::AuditServiceClient},
};
use tonic::Code;

use crate::server::{Server, refusal};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn put(name: &str, body: usize) -> Vec<Change> {
    let body = "x".repeat(body);
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n  match: {{ target: {name} }}\n  \
         pipeline: [{{ fallback: {{ response: {{ status: 200, body: \"{body}\" }} }} }}, {{ timeout: 1s }}]\n"
    );
    let policy = manifest::parse("test", &text).unwrap().remove(0).policy;
    vec![Change::Put { policy: Box::new(policy), expect: Expect::Any(None), rollback: false }]
}

async fn list(server: &Server, request: v1::ListAuditEventsRequest) -> v1::ListAuditEventsResponse {
    let mut client = AuditServiceClient::new(server.channel.clone());
    client.list_audit_events(request).await.unwrap().into_inner()
}

/// A store in which something was done so many days ago.
async fn store(ages: &[u32]) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new("api"));
    for age in ages {
        let at = SystemTime::now() - *age * DAY;
        let note = Note { caller: Caller::unauthenticated("ada"), message: format!("{age} days ago"), at };
        store.apply(put(&format!("p{age}"), 1), note, false).await.unwrap();
    }
    store
}

async fn reasons(server: &Server) -> Vec<String> {
    let request = v1::ListAuditEventsRequest { oldest_first: true, ..Default::default() };
    let events = list(server, request).await.events;
    events.into_iter().filter(|event| event.action != "term.raise").map(|event| event.reason).collect()
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_dropped_and_that_is_told() {
    let kept = store(&[500, 401, 399, 1]).await;
    let server = Server::start_on(kept, Limits::default()).await;
    // The first look is at the start, beside everything else.
    let told = async {
        loop {
            let reasons = reasons(&server).await;
            if reasons.iter().any(|reason| reason == "older than 400d") {
                return reasons;
            }
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("nothing is dropped");
    assert_eq!(told, ["399 days ago", "1 days ago", "older than 400d"]);
    let page =
        list(&server, v1::ListAuditEventsRequest { action: "audit.truncate".to_owned(), ..Default::default() }).await;
    let (chain, event) = (page.chain.unwrap(), &page.events[0]);
    assert_eq!(chain.dropped_id, 2);
    assert!(event.after().contains(&chain.dropped_hash), "{event:?}");
}

#[tokio::test]
async fn a_log_that_is_kept_for_ever_loses_nothing() {
    let kept = store(&[5000, 1]).await;
    let limits = Limits { audit_retention: Retention::Forever, ..Limits::default() };
    let server = Server::start_on(kept, limits).await;
    assert_eq!(reasons(&server).await, ["5000 days ago", "1 days ago"]);
}

#[tokio::test]
async fn pages_hold_what_a_client_reads_by_default() {
    let store = store(&[]).await;
    for round in 0..30 {
        let note = Note { caller: Caller::unauthenticated("ada"), message: String::new(), at: SystemTime::now() };
        store.apply(put("large", 60_000 + round), note, false).await.unwrap();
    }
    let server = Server::start_on(store, Limits::default()).await;
    let mut request = v1::ListAuditEventsRequest { page_size: 1000, ..Default::default() };
    let (mut pages, mut ids) = (0, Vec::new());
    loop {
        let page = list(&server, request.clone()).await;
        pages += 1;
        ids.extend(page.events.iter().map(|event| event.id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert!(pages > 1, "one page holds it all");
    assert_eq!(ids, (1..=31).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_log_is_filtered_across_pages_from_either_end() {
    let server = Server::start_on(store(&[9, 8, 7, 6, 5]).await, Limits::default()).await;
    for (oldest_first, wanted) in [(true, ["9 days ago", "7 days ago"]), (false, ["7 days ago", "9 days ago"])] {
        let filter = "reason = \"9*\" OR reason = \"7*\"".to_owned();
        let mut request = v1::ListAuditEventsRequest { filter, page_size: 1, oldest_first, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let page = list(&server, request.clone()).await;
            assert!(page.events.len() <= 1 && page.chain.is_some());
            found.extend(page.events.into_iter().map(|event| event.reason));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found, wanted);
    }
}

#[tokio::test]
async fn bad_fields_are_named() {
    let server = Server::start().await;
    let mut client = AuditServiceClient::new(server.channel.clone());
    let no_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    for (request, field) in [
        (v1::ListAuditEventsRequest { page_size: -1, ..Default::default() }, "page_size"),
        (v1::ListAuditEventsRequest { page_token: "x".to_owned(), ..Default::default() }, "page_token"),
        (v1::ListAuditEventsRequest { start_time: no_time, ..Default::default() }, "start_time"),
        (v1::ListAuditEventsRequest { end_time: no_time, ..Default::default() }, "end_time"),
    ] {
        let (code, _, details) = refusal(client.list_audit_events(request).await);
        assert_eq!(
            (code, details.bad_request().unwrap().field_violations[0].field.as_str()),
            (Code::InvalidArgument, field)
        );
    }
}

#[tokio::test]
async fn what_the_caller_says_of_itself_and_of_the_request_is_kept() {
    let server = Server::start().await;
    let mut client = v1::policy_service_client::PolicyServiceClient::new(server.channel.clone());
    let wire = v1::Policy::from(&manifest::parse("test", "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: b }\nspec:\n  match: { target: b }\n  pipeline: [{ timeout: 1s }]\n").unwrap().remove(0).policy);
    let mut request = tonic::Request::new(v1::ApplyPoliciesRequest { policies: vec![wire], ..Default::default() });
    request.metadata_mut().insert("x-fusebox-author", "ada".parse().unwrap());
    request.metadata_mut().insert("x-request-id", "r-17".parse().unwrap());
    client.apply_policies(request).await.unwrap();
    let page = list(&server, v1::ListAuditEventsRequest { actor: "ada".to_owned(), ..Default::default() }).await;
    let [event] = page.events.as_slice() else { panic!("{page:?}") };
    assert_eq!((event.request_id.as_str(), event.authentication.as_str()), ("r-17", "none"));
    assert!(event.address.starts_with("127.0.0.1:"), "{event:?}");
}
