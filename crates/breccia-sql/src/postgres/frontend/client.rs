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
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Nothing more is read for a client that has this much still to take.
pub(super) const HIGH_WATER: usize = 256 * 1024;
/// The most a client may send ahead while it is not its turn.
pub(super) const READ_AHEAD: usize = 64 * 1024;
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
    unflushed: bool,
}

impl Outgoing {
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
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
                    self.unflushed = stream.is_tls();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
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
}

impl Client {
    pub(super) fn new(stream: Stream, scratch: Scratch) -> Self {
        Self {
            stream,
            scratch,
            inbound: BytesMut::new(),
            out: Outgoing::default(),
            wanted: 0,
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

    /// Sends all that waits, by `end` at the latest.
    pub(super) async fn send(&mut self, end: Instant) -> io::Result<()> {
        let sending = poll_fn(|context| self.out.poll_send(&mut self.stream, context));
        match tokio::time::timeout_at(end.into(), sending).await {
            Ok(done) => done,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
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
