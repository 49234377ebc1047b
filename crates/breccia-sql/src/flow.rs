//! Bytes between a session and a peer: read into one buffer of the worker, sent as far as the peer
//! takes them.
//!
//! Not what they mean. Invariant: what was sent is let go of, however far behind the peer is.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use breccia_net::stream::Stream;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Nothing more is read for a client that has this much still to take.
pub(crate) const HIGH_WATER: usize = 256 * 1024;
/// The most a client may send ahead while it is not its turn.
pub(crate) const READ_AHEAD: usize = 64 * 1024;
/// So much of what the other side has taken may still lie in its buffer.
const TAKEN: usize = 64 * 1024;
/// A buffer larger than this is not kept for an idle client.
pub(crate) const KEPT: usize = 4 * 1024;
/// What one read may bring.
pub(crate) const SCRATCH: usize = 64 * 1024;

/// A buffer that all sessions of a worker read into, one after the other.
pub(crate) type Scratch = Rc<RefCell<Vec<u8>>>;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    sent: usize,
    /// How many the other side has taken so far.
    pub(crate) taken: u64,
    /// TLS has taken bytes that may still wait for the socket.
    unflushed: bool,
}

impl Outgoing {
    /// Nothing yet, in memory that was let go of.
    pub(crate) fn over(spare: Vec<u8>) -> Self {
        Self {
            bytes: spare,
            ..Self::default()
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether nothing is on its way any more.
    pub(crate) fn is_out(&self) -> bool {
        self.waiting() == 0 && !self.unflushed
    }

    /// Sends what can be sent now; `Ready` once all is out.
    pub(crate) fn poll_send(
        &mut self,
        stream: &mut Stream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let rest = self.bytes.get(self.sent..).unwrap_or_default();
            match Pin::new(&mut *stream).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => {
                    self.sent += sent;
                    self.taken += sent as u64;
                    self.unflushed = stream.is_tls();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.let_go();
                    return Poll::Pending;
                }
            }
        }
        self.bytes.clear();
        self.sent = 0;
        if self.unflushed {
            match Pin::new(&mut *stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends all that waits, by `end` at the latest.
    pub(crate) async fn send(&mut self, stream: &mut Stream, end: Instant) -> io::Result<()> {
        self.send_by(stream, || end).await
    }

    /// The same; nobody asks for the end where the socket takes all at once, as it mostly does.
    pub(crate) async fn send_by(
        &mut self,
        stream: &mut Stream,
        end: impl FnOnce() -> Instant,
    ) -> io::Result<()> {
        let mut sending = poll_fn(|context| self.poll_send(stream, context));
        let at_once = poll_fn(|context| Poll::Ready(Pin::new(&mut sending).poll(context)));
        if let Poll::Ready(sent) = at_once.await {
            return sent;
        }
        let sent = tokio::time::timeout_at(end().into(), sending).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Lets go of what was sent: whoever is always a little behind may never have it all. What is
    /// moved for that is no more than what is let go.
    fn let_go(&mut self) {
        if self.sent >= self.waiting().max(TAKEN) {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Lets go of memory that only a large batch needed.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }
}

/// Reads what is there into the worker's buffer and appends it to `into`.
pub(crate) fn poll_read(
    stream: &mut Stream,
    scratch: &Scratch,
    into: &mut BytesMut,
    most: usize,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut scratch = scratch.borrow_mut();
    let most = most.min(scratch.len());
    let Some(space) = scratch.get_mut(..most) else {
        return Poll::Pending;
    };
    let mut buffer = ReadBuf::new(space);
    match Pin::new(stream).poll_read(context, &mut buffer) {
        Poll::Ready(Ok(())) => {
            into.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_the_other_side_has_taken_is_let_go_though_more_always_waits() {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let (mut stream, mut out) = (Stream::Unix(here), Outgoing::default());
        let mut scrap = vec![0; SCRATCH];
        let (mut given, mut taken, mut most) = (0, 0, 0);
        while taken < 64 << 20 {
            while out.waiting() < HIGH_WATER {
                out.bytes.extend_from_slice(&scrap);
                given += scrap.len();
            }
            let sent = poll_fn(|context| Poll::Ready(out.poll_send(&mut stream, context))).await;
            assert!(sent.is_pending(), "it takes less than there is");
            if given - out.waiting() > taken {
                taken += there.read(&mut scrap).await.expect("bytes");
            }
            // Else nobody would hear that there is room again.
            tokio::task::yield_now().await;
            most = most.max(out.bytes.capacity());
        }
        assert!(most <= 4 * HIGH_WATER, "{most} bytes are kept");
    }
}
