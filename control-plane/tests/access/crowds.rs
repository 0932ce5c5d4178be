//! Too much of something.

use std::{num::NonZeroU32, time::Duration};

use fusebox_control_plane::{access::limits, tls::accept::Room};
use fusebox_proto::{
    sync::v1 as sync,
    v1::{self, Role},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::Code;

use crate::server::{BOOTSTRAP, LIMIT, Server, Told, end_of, refusal};

fn few() -> limits::Settings {
    let few = NonZeroU32::new(2).unwrap();
    limits::Settings { writes_per_second: few, streams: few }
}

#[tokio::test]
async fn one_identity_s_changes_and_streams_have_a_limit_that_says_when_to_come_back() {
    let server = Server::start(Told { limits: few(), ..Told::default() }).await;
    let (_, secret) = server.token("script", Role::Operator, None).await;
    let mut script = server.caller(Some(&secret)).await;
    let delete = || v1::DeletePolicyRequest {
        name: "namespaces/default/policies/none".to_owned(),
        allow_missing: true,
        ..v1::DeletePolicyRequest::default()
    };
    let mut done = 0;
    let refused = loop {
        match script.policies.delete_policy(delete()).await {
            Ok(_) => done += 1,
            Err(status) => break status,
        }
        assert!(done < 1000, "there is no limit");
    };
    assert!(done >= 10, "{done}");
    let (code, reason, details) = refusal(Err::<(), _>(refused));
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "IDENTITY_LIMIT"));
    assert!(details.retry_info().unwrap().retry_delay.unwrap() <= Duration::from_secs(1));
    script
        .policies
        .list_policies(v1::ListPoliciesRequest { parent: "namespaces/-".to_owned(), ..Default::default() })
        .await
        .unwrap();

    let mut watch = async || {
        script
            .policies
            .watch_policies(v1::WatchPoliciesRequest { parent: "namespaces/-".to_owned(), ..Default::default() })
            .await
    };
    let first = watch().await.unwrap();
    let _second = watch().await.unwrap();
    let (code, _, details) = refusal(watch().await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(details.retry_info().is_some());
    drop(first);
    let free = async { while watch().await.is_err() {} };
    tokio::time::timeout(LIMIT, free).await.expect("an ended stream makes room");
    server.stop().await;
}

#[tokio::test]
async fn failed_authentications_of_an_address_have_a_limit_and_good_ones_pass_all_the_same() {
    let server = Server::with_tokens().await;
    let mut wrong = server.caller(Some("fbx_wrong")).await;
    let mut tries = 0;
    let refused = loop {
        let status = wrong.who().await.unwrap_err();
        if status.code() != Code::Unauthenticated {
            break status;
        }
        tries += 1;
        assert!(tries < 1000, "there is no limit");
    };
    assert!(tries >= 20, "{tries}");
    let (code, _, details) = refusal(Err::<(), _>(refused));
    assert_eq!(code, Code::ResourceExhausted);
    assert!(details.retry_info().unwrap().retry_delay.unwrap() <= Duration::from_secs(6));
    server.caller(Some(BOOTSTRAP)).await.who().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_makes_no_trouble_for_the_others() {
    let room = Room { connections: 2, ..Room::default() };
    let server = Server::start(Told { room, ..Told::default() }).await;
    let mut first = server.admin().await;
    first.who().await.unwrap();
    let mut second = server.admin().await;
    second.who().await.unwrap();
    let (code, reason, details) = refusal(server.admin().await.who().await);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "TOO_MANY_CONNECTIONS"));
    assert!(details.retry_info().is_some());
    drop(second);
    let free = async { while server.admin().await.who().await.is_err() {} };
    tokio::time::timeout(LIMIT, free).await.expect("an ended connection makes room");
    first.who().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_is_cut_and_holds_up_nobody() {
    let server = Server::with_certificates(&["viewer=dns:x"]).await;
    let mut silent = TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
    server.admin().await.who().await.unwrap();
    let cut = tokio::time::timeout(LIMIT, silent.read(&mut [0; 64])).await.expect("it is cut");
    assert!(matches!(cut, Ok(0) | Err(_)));
    server.stop().await;
}

#[tokio::test]
async fn a_replica_that_tells_too_much_is_cut_and_told_when_to_come_back() {
    let server = Server::with_tokens().await;
    let (_, secret) = server.token("cart", Role::Agent, Some("service-a")).await;
    let (up, down) = server.caller(Some(&secret)).await.sync("service-a").await.unwrap();
    let flood = tokio::spawn(async move {
        for seq in 1.. {
            let heartbeat = sync::Heartbeat { seq, ..sync::Heartbeat::default() };
            let message = sync::SyncRequest { message: Some(sync::sync_request::Message::Heartbeat(heartbeat)) };
            if up.send(message).await.is_err() {
                break;
            }
        }
    });
    let (code, reason, details) = refusal(Err::<(), _>(end_of(down).await.unwrap()));
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "IDENTITY_LIMIT"));
    assert!(details.retry_info().is_some());
    flood.abort();
    server.stop().await;
}
