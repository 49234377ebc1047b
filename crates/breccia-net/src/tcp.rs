//! A TCP connection whose small writes leave together with those of other connections.
//!
//! Not a buffer against many small writes: what is written in one turn of a worker leaves at its end
//! ([`crate::sends`]). Invariant: bytes leave in the order they were written, whoever sends them, and
//! what was taken in is sent even if the connection is dropped right behind it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::sends;

/// The most that waits for the end of the turn. Larger writes are worth a system call of their own,
/// and no copy.
const JOINED: usize = 16 * 1024;
/// How long a peer of a connection that was dropped may take for the last bytes it has room for.
const LAST_BYTES_LIMIT: Duration = Duration::from_secs(10);

/// A TCP connection.
#[derive(Debug)]
pub struct Tcp {
    read: OwnedReadHalf,
    outbox: Arc<Outbox>,
}

/// Where the writes of one connection wait for the end of the turn.
#[derive(Debug)]
pub(crate) struct Outbox(Mutex<State>);

/// What an outbox holds.
#[derive(Debug)]
pub(crate) struct State {
    /// `None` once it was taken out again.
    write: Option<OwnedWriteHalf>,
    waiting: Vec<u8>,
    /// Whether the worker will look here at the end of its turn.
    pub(crate) queued: bool,
    /// Whether a task sends what the socket had no room for.
    driven: bool,
    /// Whether the socket had no room for all of the last write of its own.
    full: bool,
    /// Who waits for room. There is one place in the runtime for that, and the task takes it.
    waker: Option<Waker>,
    /// Whether bytes could not be sent: then none behind them are.
    failed: bool,
    /// Why; told once.
    error: Option<io::Error>,
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        let state = State {
            write: Some(write),
            waiting: Vec::new(),
            queued: false,
            driven: false,
            full: false,
            waker: None,
            failed: false,
            error: None,
        };
        Self {
            read,
            outbox: Arc::new(Outbox(Mutex::new(state))),
        }
    }
}

impl Tcp {
    /// Reads what is there, without waiting.
    pub fn try_read(&self, space: &mut [u8]) -> io::Result<usize> {
        self.read.try_read(space)
    }

    /// Waits for bytes and looks at them without taking them.
    pub async fn peek(&self, space: &mut [u8]) -> io::Result<usize> {
        self.read.as_ref().peek(space).await
    }

    /// The socket, out of the runtime it is registered with. `WouldBlock` if the peer has no room for
    /// what was written before.
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        let mut state = self.outbox.lock();
        state.whole()?;
        state.send_waiting()?;
        let write = state.write.take().ok_or(io::ErrorKind::NotConnected)?;
        drop(state);
        let whole = self.read.reunite(write).map_err(io::Error::other)?;
        whole.into_std()
    }

    /// Ready once nothing that was written waits here any more.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.lock().poll_empty(context)
    }

    fn poll_write_pieces(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut state = self.outbox.lock();
        state.whole()?;
        let small = state.waiting.len() + length <= JOINED;
        if small && !state.driven && !state.full && sends::are_joined() {
            if state.waiting.capacity() == 0 {
                state.waiting = sends::spare();
            }
            for piece in pieces {
                state.waiting.extend_from_slice(piece);
            }
            if !state.queued {
                state.queued = true;
                drop(state);
                sends::join(&self.outbox);
            }
            return Poll::Ready(Ok(length));
        }
        if !state.driven {
            drop(state);
            // The small ones that wait shall not wait for this as well.
            sends::send_all();
            state = self.outbox.lock();
        }
        ready!(state.poll_empty(context))?;
        let written = ready!(state.poll_now(context, pieces))?;
        state.full = written < length;
        Poll::Ready(Ok(written))
    }
}

impl Outbox {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what the socket had no room for, as room comes. For whom [`State::sent`] has said so.
    pub(crate) fn drive(self: &Arc<Self>) {
        let outbox = Arc::clone(self);
        tokio::spawn(async move {
            let sending = || std::future::poll_fn(|context| outbox.lock().poll_waiting(context));
            // As long as the connection is in use, and one whole round behind its end.
            let mut alone = false;
            let sent = loop {
                match tokio::time::timeout(LAST_BYTES_LIMIT, sending()).await {
                    Ok(sent) => break sent,
                    Err(_) if alone => return,
                    Err(_) => alone = Arc::strong_count(&outbox) == 1,
                }
            };
            let mut state = outbox.lock();
            state.driven = false;
            if let Err(error) = sent {
                state.fail(error);
            }
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        });
    }
}

impl State {
    /// The socket and what waits for it, if anything does.
    pub(crate) fn piece(&self) -> Option<(BorrowedFd<'_>, &[u8])> {
        let socket: &TcpStream = self.write.as_ref()?.as_ref();
        let idle = self.driven || self.waiting.is_empty();
        (!idle).then_some((socket.as_fd(), &self.waiting))
    }

    /// Sends the piece, if there is one, without the ring; whether the rest must be driven.
    pub(crate) fn send_alone(&mut self) -> bool {
        match &self.write {
            Some(write) if self.piece().is_some() => {
                let outcome = write.try_write(&self.waiting);
                self.sent(outcome)
            }
            _ => false,
        }
    }

    /// Takes note of what became of the piece; whether the rest must be driven.
    pub(crate) fn sent(&mut self, outcome: io::Result<usize>) -> bool {
        match outcome {
            Ok(sent) => self.let_go(sent),
            Err(error) if is_of_the_peer(&error) => self.fail(error),
            // No room; or the ring's own trouble, of which the socket knows nothing.
            Err(_) => {}
        }
        self.driven |= !self.waiting.is_empty();
        if !self.driven
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
        self.driven
    }

    /// Sends what waits, as far as the socket takes it, without the ring; `WouldBlock` if it does not
    /// take all.
    fn send_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let write = self.write.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            match write.try_write(&self.waiting)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => self.let_go(sent),
            }
        }
        Ok(())
    }

    /// The socket has taken so many bytes.
    fn let_go(&mut self, sent: usize) {
        if sent >= self.waiting.len() {
            sends::keep(std::mem::take(&mut self.waiting));
        } else {
            self.waiting.drain(..sent);
        }
    }

    /// An error if bytes could not be sent that were taken in.
    fn whole(&mut self) -> io::Result<()> {
        if self.failed {
            let told = || io::ErrorKind::BrokenPipe.into();
            return Err(self.error.take().unwrap_or_else(told));
        }
        Ok(())
    }

    /// An error if the network, and not the peer, has ended the connection.
    fn why_unreachable(&mut self) -> io::Result<()> {
        let by_peer = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        match &self.error {
            Some(error) if !by_peer.contains(&error.kind()) => self.whole(),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.waiting = Vec::new();
        self.failed = true;
        self.error = Some(error);
    }

    /// Ready once nothing waits.
    fn poll_empty(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        let polled = if self.driven {
            Poll::Pending
        } else {
            self.poll_waiting(context)
        };
        if polled.is_pending() {
            self.waker = Some(context.waker().clone());
        }
        polled
    }

    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.send_waiting() {
                Err(error) if again(&error) => ready!(self.poll_room(context))?,
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Sends without the ring, as a socket alone would.
    fn poll_now(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_room(context))?;
            let write = self.write.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            match write.try_write_vectored(pieces) {
                Err(error) if again(&error) => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket: &TcpStream = self
            .write
            .as_ref()
            .ok_or(io::ErrorKind::NotConnected)?
            .as_ref();
        socket.poll_write_ready(context)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // The whole socket is closed, as it would be without halves.
        if let Some(write) = self.write.take() {
            write.forget();
        }
    }
}

/// Whether the connection itself has ended.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

fn again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl AsyncRead for Tcp {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.read).poll_read(context, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            // A send may have been told why the connection ended; to the reader it looks closed.
            this.outbox.lock().why_unreachable()?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_write_pieces(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_pieces(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Ready but for who has no room: what was written leaves by itself.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.outbox.lock();
        if state.driven {
            state.poll_empty(context)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(context))?;
        let socket: &TcpStream = self.read.as_ref();
        match SockRef::from(socket).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests;
