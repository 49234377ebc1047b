//! The client's connection: bytes in, bytes out.
//!
//! Not what they mean. Invariant: a client that is silent holds no buffer, and what waits for one
//! that does not read is bounded by [`HIGH_WATER`] and one frame.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use breccia_net::stream::Stream;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::postgres::codec::{self, CodecError};

/// Nothing more is read for a client that has this much still to take.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// The most a client may send ahead while it is not its turn.
pub(super) const READ_AHEAD: usize = 64 * 1024;
/// So much of what the other side has taken may still lie in its buffer.
const TAKEN: usize = 64 * 1024;
/// A buffer larger than this is not kept for an idle client.
const KEPT: usize = 4 * 1024;
/// What one read may bring.
pub(super) const SCRATCH: usize = 64 * 1024;

/// A buffer that all sessions of a worker read into, one after the other.
pub(super) type Scratch = Rc<RefCell<Vec<u8>>>;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    sent: usize,
    /// How many the other side has taken so far.
    pub(super) taken: u64,
    /// TLS has taken bytes that may still wait for the socket.
    unflushed: bool,
}

impl Outgoing {
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether nothing is on its way any more.
    pub(super) fn is_out(&self) -> bool {
        self.waiting() == 0 && !self.unflushed
    }

    /// Sends what can be sent now; `Ready` once all is out.
    pub(super) fn poll_send(
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

    /// Lets go of what was sent: whoever is always a little behind may never have it all. What is
    /// moved for that is no more than what is let go.
    fn let_go(&mut self) {
        if self.sent >= self.waiting().max(TAKEN) {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Lets go of memory that only a large batch needed.
    pub(super) fn rest(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
    }
}

/// Reads what is there into the worker's buffer and appends it to `into`.
pub(super) fn poll_read(
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

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) scratch: Scratch,
    /// Read and not yet looked at.
    pub(super) inbound: BytesMut,
    pub(super) out: Outgoing,
    /// How many bytes of `inbound` it takes to go on.
    pub(super) wanted: usize,
    /// What the client sends while its one read runs may wait, until the session looks around again.
    pub(super) unwatched: bool,
    /// How many bytes of a frame that nobody wants still follow.
    unwanted: usize,
}

impl Client {
    pub(super) fn new(stream: Stream, scratch: Scratch) -> Self {
        Self {
            stream,
            scratch,
            inbound: BytesMut::new(),
            out: Outgoing::default(),
            wanted: 0,
            unwatched: false,
            unwanted: 0,
        }
    }

    /// Reads more; 0 at the end.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            let (stream, into) = (&mut self.stream, &mut self.inbound);
            poll_read(stream, &self.scratch, into, SCRATCH, context)
        })
        .await
    }

    /// Ends when the client has left. What it sends meanwhile is read ahead, and not more than
    /// [`READ_AHEAD`]: behind that nobody sees it leave.
    pub(super) async fn left(&mut self) {
        while self.inbound.len() < READ_AHEAD {
            if matches!(self.read().await, Ok(0) | Err(_)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Sends all that waits, by `end` at the latest.
    pub(super) async fn send(&mut self, end: Instant) -> io::Result<()> {
        let sending = poll_fn(|context| self.out.poll_send(&mut self.stream, context));
        match tokio::time::timeout_at(end.into(), sending).await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Drops copied data that has come before anything else: it is left over of a copy that failed, and
    /// a server would ignore it.
    pub(super) fn drop_copied(&mut self) -> Result<(), CodecError> {
        loop {
            self.drop_unwanted();
            match codec::head(&self.inbound)? {
                Some(head) if matches!(head.tag, b'd' | b'c' | b'f') => self.unwanted = head.length,
                _ => return Ok(()),
            }
        }
    }

    /// Drops the frame of `length` bytes that comes next, as far as it is here and as it comes.
    pub(super) fn drop_frame(&mut self, length: usize) {
        self.unwanted = length;
        self.drop_unwanted();
    }

    /// Drops what nobody wants; whether all of that has come.
    pub(super) fn drop_unwanted(&mut self) -> bool {
        let here = self.unwanted.min(self.inbound.len());
        self.inbound.advance(here);
        self.unwanted -= here;
        self.unwanted == 0
    }

    /// Takes the first `length` bytes; without a copy, and without sharing if there are no others.
    pub(super) fn take(&mut self, length: usize) -> BytesMut {
        if length == self.inbound.len() {
            std::mem::take(&mut self.inbound)
        } else {
            self.inbound.split_to(length)
        }
    }

    /// Gives back what [`Client::take`] took, for the next bytes.
    pub(super) fn reuse(&mut self, mut taken: BytesMut) {
        if self.inbound.capacity() == 0 && taken.capacity() <= KEPT {
            taken.clear();
            self.inbound = taken;
        }
    }

    /// Lets go of buffers before a wait that may be long.
    pub(super) fn rest(&mut self) {
        if self.inbound.is_empty() && self.inbound.capacity() > KEPT {
            self.inbound = BytesMut::new();
        }
        self.out.rest();
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
