//! Streams end with what opened them.

use std::time::{Duration, SystemTime};

use fusebox_proto::{
    duration::to_wire,
    v1::{self, Role},
};
use tonic::Code;

use crate::{
    pki::Leaf,
    server::{Caller, Server, end_of, reason},
};

#[tokio::test]
async fn revoking_a_token_ends_its_open_streams_and_no_others() {
    let server = Server::with_tokens().await;
    let (agent, agent_secret) = server.token("cart", Role::Agent, Some("service-a")).await;
    let (viewer, viewer_secret) = server.token("reader", Role::Viewer, None).await;
    let (_, other_secret) = server.token("other", Role::Viewer, None).await;
    let (_up, mut stream) = server.caller(Some(&agent_secret)).await.sync("service-a").await.unwrap();
    stream.message().await.unwrap().unwrap();
    let watch = async |secret: &str| {
        let request = v1::WatchPoliciesRequest { parent: "namespaces/-".to_owned(), ..Default::default() };
        let mut stream = server.caller(Some(secret)).await.policies.watch_policies(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stream
    };
    let (watched, mut untouched) = (watch(&viewer_secret).await, watch(&other_secret).await);

    server.revoke(&agent).await;
    let end = end_of(stream).await.unwrap();
    assert_eq!(reason(Err::<(), _>(end)), (Code::Unauthenticated, "CREDENTIALS_REVOKED".to_owned()));
    server.revoke(&viewer).await;
    assert_eq!(end_of(watched).await.unwrap().code(), Code::Unauthenticated);
    // A revoked replica counts no more either.
    let gone = async {
        let mut admin = server.admin().await;
        loop {
            let list = admin.fleet.list_instances(v1::ListInstancesRequest::default()).await.unwrap().into_inner();
            if list.instances.iter().all(|instance| instance.connected_for.is_none()) {
                return;
            }
        }
    };
    tokio::time::timeout(crate::server::LIMIT, gone).await.expect("the replica leaves");
    let still = tokio::time::timeout(Duration::from_millis(300), untouched.message()).await;
    assert!(still.is_err(), "{still:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_its_certificate_does() {
    let server = Server::with_certificates(&["agent=spiffe://test/{service}"]).await;
    let until = SystemTime::now() + Duration::from_secs(3);
    let uris = vec!["spiffe://test/service-a".to_owned()];
    let pair = server.ca.sign(Leaf { uris, until, ..Leaf::default() });
    let mut agent = Caller::new(server.channel(Some(&pair)).await.unwrap(), None);
    let (_up, stream) = agent.sync("service-a").await.unwrap();
    let end = end_of(stream).await.unwrap();
    assert_eq!(reason(Err::<(), _>(end)), (Code::Unauthenticated, "CREDENTIALS_EXPIRED".to_owned()));
    assert!(SystemTime::now() + Duration::from_secs(1) >= until, "not before");
    // The connection is as old as the certificate: nothing more comes through it.
    assert_eq!(reason(agent.who().await), (Code::Unauthenticated, "CREDENTIALS_EXPIRED".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_ends_soon_is_not_renewed_before_its_end() {
    let server = Server::with_tokens().await;
    let token = v1::Token {
        display_name: "short".to_owned(),
        role: Role::Agent.into(),
        namespace: "default".to_owned(),
        service: "service-a".to_owned(),
        ..v1::Token::default()
    };
    let request = v1::CreateTokenRequest {
        token: Some(token),
        life: Some(to_wire(Duration::from_secs(60))),
        ..Default::default()
    };
    let secret = server.admin().await.admin.create_token(request).await.unwrap().into_inner().secret;
    let (_up, mut stream) = server.caller(Some(&secret)).await.sync("service-a").await.unwrap();
    assert!(stream.message().await.unwrap().is_some());
    server.stop().await;
}
