//! A Redis of our own for the time of the experiment, and the few words of its protocol that are needed.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// How long the server may take to answer for the first time.
const START_WITHIN: Duration = Duration::from_secs(10);

/// `redis-server` on a free port of the loopback, which keeps nothing. It is ended when this is dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Redis {
    /// `None` if it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        // Redis takes no port 0: this one was free a moment ago.
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.expect("a port is free");
        let port = address.port().to_string();
        let started = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => panic!("redis-server does not start: {error}"),
        };
        let redis = Self { child, address };
        let began = Instant::now();
        while !matches!(Connection::new(address).ask(&["PING"]).await, Ok(Reply::Text(_))) {
            assert!(began.elapsed() < START_WITHIN, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(redis)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is ours to kill");
        self.child.wait().expect("it is ours to wait for");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Redis answers, as far as it is asked here.
#[derive(Debug)]
pub(crate) enum Reply {
    Text(String),
    Number(i64),
    Nothing,
}

/// One connection, made when it is first needed and again after a fault. One question at a time.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    /// Questions that were answered.
    pub(crate) round_trips: u64,
}

impl Connection {
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, round_trips: 0 }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let mut question = format!("*{}\r\n", words.len());
        for word in words {
            question.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(question.as_bytes()).await?;
        let reply = reply(&mut stream).await?;
        self.round_trips += 1;
        // Only a connection on which nothing is left to read is kept.
        self.stream = Some(stream);
        reply.map_err(io::Error::other)
    }
}

/// One answer; the inner error is what Redis says against the question.
async fn reply(stream: &mut BufReader<TcpStream>) -> io::Result<Result<Reply, String>> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let number = || rest.parse::<i64>().map_err(io::Error::other);
    Ok(match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        "-" => Err(rest.to_owned()),
        ":" => Ok(Reply::Number(number()?)),
        "$" => match usize::try_from(number()?) {
            // -1: no such key, or the condition of SET did not hold.
            Err(_) => Ok(Reply::Nothing),
            Ok(length) => {
                let mut bytes = vec![0; length + "\r\n".len()];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8(bytes).map_err(io::Error::other)?))
            }
        },
        other => return Err(io::Error::other(format!("an answer of kind {other} was not asked for"))),
    })
}
