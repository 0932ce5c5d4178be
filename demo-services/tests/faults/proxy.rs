//! A bad network of our own: a proxy whose faults change while connections are open.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

/// Pieces on their way. A network has little memory: beyond it the sender waits.
const ON_THE_WAY: usize = 256;

/// What happens to bytes in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    /// How long each piece is on its way, at least; order is kept.
    pub(crate) delay: Duration,
    /// At most so much longer, at random.
    pub(crate) jitter: Duration,
    /// Nothing arrives until this ends. Then all does, as TCP has it after loss.
    pub(crate) stalled: bool,
    /// One byte at a time, with this pause after each.
    pub(crate) pause: Option<Duration>,
}

/// How connections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// With FIN.
    Close,
    /// With RST.
    Reset,
    /// Without a word: both ends believe in it, and whatever they say is lost.
    HalfOpen,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    up: Way,
    down: Way,
    /// The newest cut, and the first connection that it does not concern.
    cut: Option<(Cut, u64)>,
}

/// Stands before a server. Ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) url: String,
    line: watch::Sender<Line>,
    accepted: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(url: &str) -> Self {
        let server: SocketAddr =
            url.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (line, _) = watch::channel(Line::default());
        let (count, accepted) = watch::channel(0);
        let lines = line.clone();
        let task = tokio::spawn(async move {
            // Connections end with the proxy.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let number = *count.borrow();
                count.send_replace(number + 1);
                connections.spawn(connection(client, server, number, lines.subscribe()));
            }
        });
        Self { url, line, accepted, task }
    }

    /// From the client to the server.
    pub(crate) fn up(&self, way: Way) {
        self.line.send_modify(|line| line.up = way);
    }

    /// From the server to the client.
    pub(crate) fn down(&self, way: Way) {
        self.line.send_modify(|line| line.down = way);
    }

    /// Ends the connections that there are. New ones are not concerned.
    pub(crate) fn cut(&self, how: Cut) {
        let next = *self.accepted.borrow();
        self.line.send_modify(|line| line.cut = Some((how, next)));
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> u64 {
        *self.accepted.borrow()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(mut client: TcpStream, server: SocketAddr, number: u64, mut line: watch::Receiver<Line>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    // The proxy's own buffering is no fault of the network.
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
    }
    let how = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (up, down) = (line.clone(), line.clone());
        let carried = async {
            tokio::try_join!(
                carry(from_client, to_server, up, |line| line.up),
                carry(from_server, to_client, down, |line| line.down),
            )
        };
        let cut = async {
            // The proxy goes with its last knob.
            let cut = line.wait_for(|line| line.cut.is_some_and(|(_, next)| number < next)).await;
            cut.ok().and_then(|line| line.cut).map_or(Cut::Close, |(how, _)| how)
        };
        tokio::select! {
            _ = carried => Cut::Close,
            how = cut => how,
        }
    };
    match how {
        Cut::Close => {}
        Cut::Reset => {
            for stream in [&client, &server] {
                let _ = stream.set_zero_linger();
            }
        }
        Cut::HalfOpen => {
            tokio::join!(swallow(client), swallow(server));
        }
    }
}

/// Takes whatever comes, and never says anything, not even goodbye.
async fn swallow(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(1..) = stream.read(&mut bytes).await {}
    std::future::pending::<()>().await;
}

async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut line: watch::Receiver<Line>,
    way: fn(&Line) -> Way,
) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let lines = line.clone();
    let take = async move {
        let mut last = Instant::now();
        loop {
            let mut bytes = vec![0; 4096];
            let length = from.read(&mut bytes).await?;
            if length == 0 {
                return Ok(());
            }
            bytes.truncate(length);
            let Way { delay, jitter, .. } = way(&lines.borrow());
            last = last.max(Instant::now() + delay + jitter.mul_f64(fastrand::f64()));
            if sender.send((last, bytes)).await.is_err() {
                return Ok(());
            }
        }
    };
    let bring = async move {
        while let Some((due, bytes)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let Ok(now) = line.wait_for(|line| !way(line).stalled).await.map(|line| way(&line)) else {
                    return Ok(());
                };
                let (next, later) = left.split_at(now.pause.map_or(left.len(), |_| 1));
                to.write_all(next).await?;
                if let Some(pause) = now.pause {
                    tokio::time::sleep(pause).await;
                }
                left = later;
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(take, bring).map(|((), ())| ())
}
