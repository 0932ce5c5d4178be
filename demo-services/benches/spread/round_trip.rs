//! What one way there and back takes, in the same run: through the stack that verdicts take, and bare.

use std::{
    io,
    time::{Duration, Instant},
};

use fusebox_proto::sync::v1::{
    Heartbeat, Hello, SyncRequest, SyncResponse, sync_request::Message as Up, sync_response::Message as Down,
    sync_service_client::SyncServiceClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A stream that only sends heartbeats, of a service that has no policies.
pub(crate) struct Pinger {
    up: mpsc::Sender<SyncRequest>,
    down: Streaming<SyncResponse>,
    seq: u64,
}

impl Pinger {
    pub(crate) async fn connect(plane: &str) -> Self {
        let (up, outgoing) = mpsc::channel(1);
        let hello = Hello {
            protocol: 1,
            namespace: "default".to_owned(),
            service: "pinger".to_owned(),
            instance: "pinger".to_owned(),
            incarnation: 1,
            ..Hello::default()
        };
        up.send(SyncRequest { message: Some(Up::Hello(hello)) }).await.expect("there is room");
        let mut client = SyncServiceClient::connect(plane.to_owned()).await.expect("the server is there");
        let down = client.sync(ReceiverStream::new(outgoing)).await.expect("the stream begins").into_inner();
        Self { up, down, seq: 0 }
    }

    /// From heartbeats to their answers.
    pub(crate) async fn times(&mut self, count: usize) -> Vec<Duration> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            self.seq += 1;
            let heartbeat = Heartbeat { seq: self.seq, ..Heartbeat::default() };
            let sent = Instant::now();
            self.up.send(SyncRequest { message: Some(Up::Heartbeat(heartbeat)) }).await.expect("the stream is up");
            loop {
                let message = self.down.message().await.expect("the stream is up").and_then(|answer| answer.message);
                if matches!(message, Some(Down::HeartbeatAck(ack)) if ack.seq == self.seq) {
                    break;
                }
            }
            times.push(sent.elapsed());
        }
        times
    }
}

/// A few bytes there and back, with nothing between.
pub(crate) async fn bare(count: usize) -> Vec<Duration> {
    exchange(count).await.expect("loopback works")
}

async fn exchange(count: usize) -> io::Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; 64];
        // Until the other end goes.
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await?;
        }
        io::Result::Ok(())
    });
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut times = Vec::with_capacity(count);
    let mut bytes = [0; 64];
    for _ in 0..count {
        let sent = Instant::now();
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
        times.push(sent.elapsed());
    }
    drop(stream);
    echo.await??;
    Ok(times)
}
