//! Connections: taken, counted, and with TLS shaken hands with, before anything is served on them.
//!
//! Each handshake has a task and a limit of its own: one that is slow holds up nobody.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::{Peer, reload::Tls};
use crate::{access::certificate::Certificate, shutdown::Shutdown};

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long a refused handshake's last words are waited for, and how many kibibytes of them are read.
const PARTED_WITHIN: Duration = Duration::from_secs(1);
const MOST_UNREAD: usize = 16;
/// After an accept that failed: no more descriptors, most likely, and they come back by themselves.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Connections beyond what is taken, each of which is told so in HTTP; the rest are closed without a word.
const TOLD_SO: usize = 256;
/// Connections that are ready and not yet served.
const READY: usize = 64;

/// Connections in all: a large fleet.
pub const DEFAULT_CONNECTIONS: NonZeroU32 = NonZeroU32::new(20_000).expect("it is not zero");
/// Connections from one address: much of such a fleet may be behind one.
pub const DEFAULT_FROM_ONE_ADDRESS: NonZeroU32 = NonZeroU32::new(5_000).expect("it is not zero");

/// How many connections are taken.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// In all.
    pub connections: usize,
    /// From one address, if it is not this machine's own.
    pub from_one_address: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            connections: DEFAULT_CONNECTIONS.get() as usize,
            from_one_address: DEFAULT_FROM_ONE_ADDRESS.get() as usize,
        }
    }
}

/// A connection that is ready to be served.
pub struct Connection {
    io: Io,
    peer: Peer,
    _place: Place,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Takes connections until the end begins. Without `tls` they are plain.
#[must_use]
pub fn incoming(
    listener: TcpListener,
    tls: Option<Tls>,
    room: Room,
    shutdown: Shutdown,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(READY);
    tokio::spawn(async move {
        let places = Places { room, taken: Arc::default() };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.begun() => return,
                () = ready.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let Some((place, one_too_many)) = places.take(address.ip()) else { continue };
                    let peer = Peer { address: Some(address), certificate: None, one_too_many };
                    let (ready, tls) = (ready.clone(), tls.clone());
                    tokio::spawn(async move {
                        // Small messages must not wait for more.
                        let _ = stream.set_nodelay(true);
                        let connection = match tls {
                            None => Connection { io: Io::Plain(stream), peer, _place: place },
                            Some(tls) => match shake(stream, &tls).await {
                                Ok(stream) => {
                                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                                    let certificate = shown.map(|der| Arc::new(Certificate::read(der)));
                                    let peer = Peer { certificate, ..peer };
                                    Connection { io: Io::Tls(Box::new(stream)), peer, _place: place }
                                }
                                Err(error) => {
                                    tracing::debug!(from = %address, %error, "no handshake");
                                    return;
                                }
                            },
                        };
                        // Nobody takes it when the end has begun.
                        let _ = ready.send(Ok(connection)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

async fn shake(stream: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let handshake = TlsAcceptor::from(tls.config()).accept(stream).into_fallible();
    match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, stream))) => {
            part(stream).await;
            Err(error)
        }
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
    }
}

/// Why a handshake is refused stands in an alert that is on its way. To close while something that the other side has sent is unread is to
/// reset the connection, and that may overtake the alert: so what else it has to say is taken, for a moment.
async fn part(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        for _ in 0..MOST_UNREAD {
            if stream.read(&mut unread).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Whoever stays is cut off, and whoever has gone needs no reason.
    let _ = tokio::time::timeout(PARTED_WITHIN, rest).await;
}

#[derive(Debug, Default)]
struct Taken {
    /// Those that are served.
    served: usize,
    /// The same by address.
    by_address: HashMap<IpAddr, usize>,
    /// Those that are told that they are too many. They take nobody's place.
    told_so: usize,
}

#[derive(Clone)]
struct Places {
    room: Room,
    taken: Arc<Mutex<Taken>>,
}

/// Counts until the connection ends.
struct Place {
    taken: Arc<Mutex<Taken>>,
    /// From where, if it is served.
    served: Option<IpAddr>,
}

impl Places {
    /// A place, and whether it is beyond what is taken. `None`: not even that.
    fn take(&self, address: IpAddr) -> Option<(Place, bool)> {
        let mut taken = self.taken.lock();
        let here = taken.by_address.get(&address).copied().unwrap_or_default();
        let crowd = here >= self.room.from_one_address && !address.is_loopback();
        let served = if crowd || taken.served >= self.room.connections {
            if taken.told_so >= TOLD_SO {
                return None;
            }
            taken.told_so += 1;
            None
        } else {
            taken.served += 1;
            *taken.by_address.entry(address).or_default() += 1;
            Some(address)
        };
        Some((Place { taken: Arc::clone(&self.taken), served }, served.is_none()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        let Some(address) = self.served else {
            taken.told_so -= 1;
            return;
        };
        taken.served -= 1;
        if let Some(here) = taken.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_come_back() {
        let places = Places { room: Room { connections: 3, from_one_address: 2 }, taken: Arc::default() };
        let here = |last: u8| IpAddr::from([10, 0, 0, last]);
        let fits = |taken: &Option<(Place, bool)>| taken.as_ref().map(|(_, beyond)| !beyond);
        let (first, second) = (places.take(here(1)), places.take(here(1)));
        assert_eq!((fits(&first), fits(&second)), (Some(true), Some(true)));
        assert_eq!(fits(&places.take(here(1))), Some(false), "one address has its own limit");
        let third = places.take(here(2));
        assert_eq!(fits(&third), Some(true));
        assert_eq!(fits(&places.take(here(3))), Some(false), "all together have another");
        drop(first);
        assert_eq!(fits(&places.take(here(1))), Some(true));
        drop((second, third));
        let own = std::iter::repeat_with(|| places.take(IpAddr::from([127, 0, 0, 1]))).take(3).collect::<Vec<_>>();
        assert!(own.iter().all(|taken| fits(taken) == Some(true)), "this machine's own are not told apart");
        let more = std::iter::repeat_with(|| places.take(here(9))).take(1000).collect::<Vec<_>>();
        assert_eq!(more.iter().flatten().count(), TOLD_SO, "the rest are closed at once");
    }
}
