//! Connections that say nothing.
//!
//! HTTP/2's own limits begin after the client's preface: a peer that connects and is silent, or stops half-way, would be kept for ever,
//! and would hold up the end of the server. So a connection must bring its preface in time. One that begins otherwise speaks HTTP/1, whose
//! head has a limit of its own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tonic::transport::server::Connected;

use crate::shutdown::Shutdown;

/// How every HTTP/2 client begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long that may take.
const WITHIN: Duration = Duration::from_secs(5);

/// A connection that must speak in time, and is cut at once when the server ends before it has.
pub(crate) struct Opening<IO> {
    io: IO,
    /// Until it has spoken.
    waiting: Option<Waiting>,
}

struct Waiting {
    /// How much of the preface has come.
    seen: usize,
    limit: Pin<Box<Sleep>>,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<IO> Opening<IO> {
    pub(crate) fn new(io: IO, shutdown: &Shutdown) -> Self {
        let limit = Box::pin(tokio::time::sleep(WITHIN));
        Self { io, waiting: Some(Waiting { seen: 0, limit, end: Box::pin(shutdown.begun()) }) }
    }
}

impl Waiting {
    /// Takes what has come; says whether the peer has spoken.
    fn hear(&mut self, bytes: &[u8]) -> bool {
        let wanted = PREFACE.iter().skip(self.seen);
        let same = bytes.iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
        self.seen += same;
        // What differs is no HTTP/2.
        self.seen == PREFACE.len() || same < bytes.len()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Opening<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        let Some(waiting) = &mut this.waiting else { return polled };
        match polled {
            Poll::Ready(Ok(())) => {
                let came = buf.filled().get(before..).unwrap_or_default();
                // Nothing means that the peer has gone, which whoever reads finds out.
                if came.is_empty() || waiting.hear(came) {
                    this.waiting = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if waiting.limit.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer says nothing")));
                }
                if waiting.end.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server ends")));
                }
                Poll::Pending
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Opening<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO: Connected> Connected for Opening<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_or_half_of_it_is_cut_in_time() {
        for said in [&b""[..], &PREFACE[..1], &PREFACE[..23]] {
            let (mut far, near) = tokio::io::duplex(64);
            let mut opening = Opening::new(near, &Shutdown::new());
            far.write_all(said).await.unwrap();
            let begun = tokio::time::Instant::now();
            let error = opening.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, WITHIN), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_spoken_may_be_silent_afterwards() {
        for said in [&PREFACE[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/1.1\r\n"] {
            let (mut far, near) = tokio::io::duplex(64);
            let mut opening = Opening::new(near, &Shutdown::new());
            // In pieces: where they are cut makes no difference.
            let mut byte = [0];
            for piece in said {
                far.write_all(&[*piece]).await.unwrap();
                opening.read_exact(&mut byte).await.unwrap();
            }
            let silence = tokio::time::timeout(WITHIN * 10, opening.read(&mut byte)).await;
            assert!(silence.is_err(), "{said:?}: {silence:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_server_waits_for_nobody_who_says_nothing() {
        let (_far, near) = tokio::io::duplex(64);
        let shutdown = Shutdown::new();
        let mut opening = Opening::new(near, &shutdown);
        shutdown.begin();
        let error = opening.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
