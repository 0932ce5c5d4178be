//! Why breakers were opened can be asked when all replicas have gone, and after a restart.

use std::{path::Path, process::Stdio};

use fusebox_proto::{
    manifest,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1::{
        self, audit_service_client::AuditServiceClient, breaker_service_client::BreakerServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};
use tonic::Code;

use super::server::{Replica, Server, hello};

pub(crate) const BREAKER: &str = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: service-b }\nspec:\n  match: { target: service-b }\n  \
                       pipeline: [{ circuitBreaker: { trip: { consecutiveFailures: 5 }, delay: 60s } }]\n";

pub(crate) fn key() -> v1::BreakerKey {
    v1::BreakerKey {
        namespace: "default".to_owned(),
        caller: "service-a".to_owned(),
        policy: "service-b".to_owned(),
        strategy: "circuit-breaker".to_owned(),
        target: "service-b".to_owned(),
        ..v1::BreakerKey::default()
    }
}

/// Applies a manifest, and answers with the revision.
pub(crate) async fn apply(server: &Server, manifest: &str) -> u64 {
    let policy = v1::Policy::from(&manifest::parse("test", manifest).unwrap().remove(0).policy);
    let request = v1::ApplyPoliciesRequest { policies: vec![policy], ..Default::default() };
    let mut policies = PolicyServiceClient::new(server.channel().await);
    policies.apply_policies(request).await.unwrap().into_inner().revision
}

/// Two replicas have tripped, and the server knows.
async fn tripped(server: &Server) -> Vec<Replica> {
    tripped_under(server, BREAKER).await
}

async fn tripped_under(server: &Server, policy: &str) -> Vec<Replica> {
    let revision = apply(server, policy).await;
    let window = sync::BreakerWindow {
        key: Some(key()),
        policy_revision: revision,
        local_state: v1::LocalState::Open.into(),
        own_trip: true,
        calls: 20,
        failures: 20,
        ..sync::BreakerWindow::default()
    };
    let mut replicas = Vec::new();
    for instance in ["a-1", "a-2"] {
        let mut replica = server.replica(hello(instance)).await.unwrap();
        replica.welcome().await;
        replicas.push(replica);
    }
    for replica in &replicas {
        let heartbeat = sync::Heartbeat { seq: 1, windows: vec![window.clone()], ..sync::Heartbeat::default() };
        replica.say(Up::Heartbeat(heartbeat)).await;
    }
    for replica in &mut replicas {
        let answered = |message| if let Down::HeartbeatAck(_) = message { Some(()) } else { None };
        replica.until("the answer", answered).await;
    }
    replicas
}

async fn explained(server: &Server, name: &str) -> Result<v1::ExplainBreakerResponse, Code> {
    let mut breakers = BreakerServiceClient::new(server.channel().await);
    let request = v1::ExplainBreakerRequest { name: name.to_owned() };
    breakers.explain_breaker(request).await.map(tonic::Response::into_inner).map_err(|status| status.code())
}

async fn names(server: &Server, include_gone: bool) -> Vec<String> {
    let mut breakers = BreakerServiceClient::new(server.channel().await);
    let request = v1::ListBreakersRequest { include_gone, ..Default::default() };
    let listed = breakers.list_breakers(request).await.unwrap().into_inner().breakers;
    listed.into_iter().map(|breaker| breaker.name).collect()
}

/// What the command line prints.
async fn told(server: &Server) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fusebox"));
    command.args(["explain", "breaker", "service-b", "--address", &server.address]).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn restarted(server: Server, folder: &Path) -> Server {
    server.stop().await;
    Server::start(folder).await
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_breaker_was_opened_is_known_after_all_have_gone_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let replicas = tripped(&server).await;
    let name = names(&server, false).await.remove(0);
    let held = explained(&server, &name).await.unwrap();
    let opening = held.decisions[0].clone();
    let witnesses: Vec<_> = opening.witnesses.iter().map(|own| own.instance.as_str()).collect();
    assert_eq!((opening.cause.as_str(), witnesses, opening.times), ("quorum", vec!["a-1", "a-2"], 1));
    assert_eq!((opening.from(), opening.to()), (v1::FleetState::Released, v1::FleetState::Open));
    assert_eq!((opening.term, opening.rev), (1, 1));

    drop(replicas);
    let server = restarted(server, folder.path()).await;
    assert!(names(&server, false).await.is_empty(), "nobody holds it");
    assert_eq!(names(&server, true).await, [name.as_str()]);
    let gone = explained(&server, &name).await.unwrap();
    assert_eq!(gone.breaker.unwrap().reason, "no connected replica holds it");
    let ageless = |decision: &v1::BreakerDecision| v1::BreakerDecision { since: None, until: None, ..decision.clone() };
    let past: Vec<_> = gone.decisions.iter().map(ageless).collect();
    assert_eq!(past, held.decisions.iter().map(ageless).collect::<Vec<_>>(), "nothing of it is lost");
    assert_eq!(explained(&server, "breakers/default/service-a/x/y/z/-").await, Err(Code::NotFound));
    let text = told(&server).await;
    assert!(text.contains("released -> open") && text.contains("a-1 20/20 open, a-2 20/20 open"), "{text}");

    // The next run's decisions join them: it learns at first.
    let replicas = tripped(&server).await;
    let joined = explained(&server, &name).await.unwrap().decisions;
    assert_eq!(joined.iter().skip(1).map(ageless).collect::<Vec<_>>(), past);
    assert_eq!((joined[0].guard.as_str(), joined[0].term), ("learning", 0));
    drop(replicas);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_breaker_was_opened_is_known_when_its_policy_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let _replicas = tripped(&server).await;
    let name = names(&server, false).await.remove(0);
    let held = explained(&server, &name).await.unwrap().decisions;
    let mut policies = PolicyServiceClient::new(server.channel().await);
    let name_of_policy = "namespaces/default/policies/service-b".to_owned();
    policies.delete_policy(v1::DeletePolicyRequest { name: name_of_policy, ..Default::default() }).await.unwrap();
    while !names(&server, false).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let gone = explained(&server, &name).await.unwrap();
    assert_eq!((gone.decisions.len(), gone.decisions[0].rev), (held.len(), held[0].rev), "written or not yet");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_verdict_says_by_what_it_is_known_and_whose_word_counted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let replicas = tripped(&server).await;
    let name = names(&server, false).await.remove(0);
    let decision = explained(&server, &name).await.unwrap().decisions.remove(0);
    let mut audit = AuditServiceClient::new(server.channel().await);
    let request = v1::ListAuditEventsRequest { action: "fleet.verdict".to_owned(), ..Default::default() };
    // The record is written a moment later.
    let event = loop {
        let answer = audit.list_audit_events(request.clone()).await.unwrap().into_inner();
        if let Some(event) = answer.events.into_iter().next() {
            break event;
        }
        tokio::task::yield_now().await;
    };
    let after: serde_json::Value = serde_json::from_str(event.after()).unwrap();
    assert_eq!(after["state"], "open");
    let told = &after["verdict"];
    assert_eq!((told["term"].as_u64(), told["rev"].as_u64()), (Some(decision.term), Some(decision.rev)));
    assert_eq!((told["policyRevision"].as_u64(), &told["witnesses"]), (Some(1), &serde_json::json!(["a-1", "a-2"])));
    drop(replicas);
    server.stop().await;
}

/// A dry run says that it is one, wherever it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_in_shadow_mode_is_shown_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let shadow = BREAKER.replace("circuitBreaker: {", "circuitBreaker: { mode: shadow,");
    let replicas = tripped_under(&server, &shadow).await;
    let name = names(&server, false).await.remove(0);
    let breaker = explained(&server, &name).await.unwrap().breaker.unwrap();
    assert_eq!((breaker.fleet_state(), breaker.shadow), (v1::FleetState::Open, true));
    let text = told(&server).await;
    assert!(text.contains("open (shadow)") && text.contains("no call is refused"), "{text}");
    drop(replicas);
    server.stop().await;
}
