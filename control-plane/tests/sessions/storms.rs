//! Many at once, and those who say nothing.

use std::{num::NonZeroU32, time::Duration};

use fusebox_control_plane::config::Limits;
use fusebox_proto::sync::v1::{SyncRequest, sync_response::Message as Down, sync_service_client::SyncServiceClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::server::{LIMIT, Server, hello};

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_replicas_is_let_in_at_a_rate_and_the_rest_is_told_when_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { streams_per_second: NonZeroU32::new(5).unwrap(), ..Limits::default() };
    let server = Server::start_with(folder.path(), limits).await;
    let mut first = server.replica(hello("a-0")).await.unwrap();
    first.welcome().await;
    let mut storm = Vec::new();
    for number in 1..60 {
        storm.push(server.replica(hello(&format!("a-{number}"))).await.unwrap());
    }
    let (mut welcomed, mut refused) = (0, 0);
    for replica in &mut storm {
        match replica.next().await {
            Ok(Some(Down::Welcome(_))) => welcomed += 1,
            Ok(other) => panic!("{other:?}"),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                let details = status.get_error_details();
                assert_eq!(details.error_info().unwrap().reason, "TOO_MANY_STREAMS");
                assert!(details.retry_info().unwrap().retry_delay.unwrap() >= Duration::from_secs(2));
                refused += 1;
            }
        }
    }
    assert!(welcomed >= 4 && refused >= 1, "{welcomed} {refused}");
    // Who was there before notices nothing.
    server.apply("1s").await.unwrap();
    assert_eq!(first.snapshot_or_delta().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_server_is_held_up_by_nobody_who_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let address = server.address.strip_prefix("http://").unwrap().to_owned();
    let _silent = TcpStream::connect(&address).await.unwrap();
    let mut half = TcpStream::connect(&address).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut replica = server.replica(hello("a-1")).await.unwrap();
    replica.welcome().await;
    server.shutdown.begin();
    let delay =
        replica.until("the goodbye", |message| if let Down::GoAway(away) = message { away.delay } else { None }).await;
    assert!(delay.seconds < 2, "few come back quickly: {delay:?}");
    drop(replica);
    // Well below the bound after which what is open is cut.
    timeout(Duration::from_secs(8), server.task).await.expect("the server ends by itself").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let address = server.address.strip_prefix("http://").unwrap().to_owned();
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let mut half = TcpStream::connect(&address).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    for connection in [&mut silent, &mut half] {
        let closed = timeout(LIMIT, connection.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "it is kept");
    }
    // A head of HTTP/1 that came at once is answered as ever.
    let mut web = TcpStream::connect(&address).await.unwrap();
    web.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, web.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_hello_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut client = SyncServiceClient::new(server.channel().await);
    let mut down = client.sync(tokio_stream::pending::<SyncRequest>()).await.unwrap().into_inner();
    let status = timeout(LIMIT, down.message()).await.expect("it is ended in time").unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
}
