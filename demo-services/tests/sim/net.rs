//! turmoil's sockets for tonic, on both sides, and a tap that reads along.

use std::{
    future::Future,
    io,
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};
use turmoil::net::{TcpListener, TcpStream};

use crate::tap::Tap;

/// One end of a connection. With a tap it is an SDK's.
pub(crate) struct Tapped {
    stream: TcpStream,
    tap: Option<Tap>,
}

impl Connected for Tapped {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        TcpConnectInfo { local_addr: self.stream.local_addr().ok(), remote_addr: self.stream.peer_addr().ok() }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(tap) = &mut self.tap {
            tap.read(&buf.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let (Poll::Ready(Ok(written)), Some(tap)) = (&polled, &mut self.tap) {
            tap.wrote(&buf[..*written]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

type Dialling = Pin<Box<dyn Future<Output = io::Result<TokioIo<Tapped>>> + Send>>;

/// How a client dials; `tap` makes the reader of each connection.
pub(crate) fn connector(
    tap: impl Fn() -> Option<Tap> + Clone + Send + 'static,
) -> impl tower::Service<tonic::transport::Uri, Response = TokioIo<Tapped>, Error = io::Error, Future = Dialling>
+ Clone
+ Send
+ 'static {
    tower::service_fn(move |uri: tonic::transport::Uri| {
        let tap = tap();
        Box::pin(async move {
            let authority = uri.authority().ok_or_else(|| io::Error::other("an address without a host"))?;
            let stream = TcpStream::connect(authority.as_str()).await?;
            Ok(TokioIo::new(Tapped { stream, tap }))
        }) as Dialling
    })
}

/// Connections as they come in; `tap` makes the reader of a connection from the host of that name.
pub(crate) async fn incoming(
    port: u16,
    tap: impl Fn(&str) -> Option<Tap> + Send + 'static,
) -> io::Result<impl Stream<Item = io::Result<Tapped>>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    Ok(futures_util::stream::unfold((listener, tap), |(listener, tap)| async move {
        let accepted = listener.accept().await.map(|(stream, peer)| {
            let host = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
            Tapped { stream, tap: tap(&host) }
        });
        Some((accepted, (listener, tap)))
    }))
}
