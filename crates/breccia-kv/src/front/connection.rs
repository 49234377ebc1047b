//! A client's socket: reads requests into the dialogue, writes replies from the ring. It knows no
//! protocol and no shard.
//!
//! Invariant: one turn reads first and writes last, so all replies of a turn leave in one write;
//! a client at one of its limits is not read until it is below it again.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use breccia_net::clock;
use breccia_net::drain::{Drain, Phase};
use breccia_net::stream::{Stream, close_gently};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::{Client, Ending, KILLED};
use super::limits::ListenerLimits;
use crate::turn::{Pace, wake_after_others};

/// Why a dialogue stopped consuming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The bytes left over are the beginning of a request.
    NeedMore,
    /// It waits for replies of its own; it is asked again with the same bytes when it is woken.
    Paused,
    /// Its turn is over: it goes on with the same bytes after others had theirs.
    Yield,
    /// The client is to be closed after its replies.
    Close,
}

/// How much of the bytes a dialogue consumed, and why it stopped.
#[derive(Clone, Copy, Debug)]
pub struct Consumed {
    /// Bytes of whole requests.
    pub bytes: usize,
    /// Why it stopped.
    pub next: Next,
}

/// The protocol side of a connection.
pub trait Dialogue {
    /// Takes whole requests from `bytes`, in order, until it must stop.
    fn consume(&mut self, bytes: &[u8]) -> Consumed;
    /// The limits that hold for this client now.
    fn limits(&self) -> &ListenerLimits;
    /// Whether a part of a request was taken, and its rest is to come.
    fn is_mid_request(&self) -> bool {
        false
    }
    /// Lets work of the dialogue's own go on (a request answered by a future, say).
    fn advance(&mut self, context: &mut Context<'_>);
    /// The connection ends: gives back what the client holds.
    fn leave(&mut self);
}

/// The bytes read in one go; one buffer serves all connections of a worker.
pub type Scratch = Rc<RefCell<Vec<u8>>>;

/// The size of a [`Scratch`] buffer.
pub const SCRATCH_BYTES: usize = 64 * 1024;
/// Requests of one client in one turn; then others get theirs.
pub const REQUESTS_PER_TURN: usize = 512;
/// Reads in one turn before other connections get theirs.
const READS_PER_TURN: usize = 4;
/// A carry larger than this is given back when it is empty.
const KEEP_CARRY_BYTES: usize = 4 * 1024;
/// How long a closed client may take to read its last reply.
const LINGER: Duration = Duration::from_secs(2);

/// Makes a worker's scratch buffer.
#[must_use]
pub fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; SCRATCH_BYTES]))
}

/// One client's socket and the bytes of requests that are not consumed yet.
pub struct Connection<D> {
    stream: Stream,
    client: Rc<Client>,
    dialogue: D,
    scratch: Scratch,
    drain: Drain,
    carry: Vec<u8>,
    /// Start of what is not consumed in `carry`.
    start: usize,
    paused: bool,
    /// Whether this turn stopped only to let others have theirs.
    yielding: bool,
    ended: bool,
    /// While draining: everything that had arrived was read, and no more will be.
    drained: bool,
    unflushed: bool,
    pace: Pace,
}

/// The connection is over.
struct Over;

impl<D: Dialogue> Connection<D> {
    /// A connection about to be served.
    pub fn new(
        stream: Stream,
        client: Rc<Client>,
        dialogue: D,
        scratch: Scratch,
        drain: Drain,
    ) -> Self {
        Self {
            stream,
            client,
            dialogue,
            scratch,
            drain,
            carry: Vec::new(),
            start: 0,
            paused: false,
            yielding: false,
            ended: false,
            drained: false,
            unflushed: false,
            pace: Pace::default(),
        }
    }

    /// Serves the client until one side closes. Whoever changes the drain's phase wakes clients.
    pub async fn serve(mut self) {
        let mut begun = false;
        poll_fn(|context| {
            self.client.park(context);
            if !std::mem::replace(&mut begun, true) {
                self.client.handle.begin(context.waker());
            }
            match self.turn(context) {
                Ok(()) => Poll::Pending,
                Err(Over) => Poll::Ready(()),
            }
        })
        .await;
        self.dialogue.leave();
        let gently = !matches!(self.client.ending(), Some(Ending::Now(_)));
        self.client.leave();
        if gently {
            let limit = self.dialogue.limits().write_timeout;
            self.stream.sent(limit, &self.drain).await;
            close_gently(&mut self.stream, LINGER).await;
        }
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Result<(), Over> {
        if self.client.handle.is_closed() {
            self.client.end(Ending::Now(KILLED));
            return Err(Over);
        }
        self.dialogue.advance(context);
        loop {
            if self.paused {
                self.consume_carry();
                self.client.owes_more(clock::now(), self.is_owed_more());
            }
            self.read(context)?;
            let was_full = self.is_full();
            self.write(context)?;
            // Only a write that made room can let more be consumed in the same turn; whatever
            // else a paused dialogue waits for wakes this task.
            if !was_full || self.is_full() {
                break;
            }
        }
        if std::mem::take(&mut self.yielding) {
            wake_after_others(context);
        }
        if self.is_over() { Err(Over) } else { Ok(()) }
    }

    /// Whether everything asked for is answered and written, and somebody wants to leave.
    fn is_over(&self) -> bool {
        let phase = self.drain.phase();
        let hurried = self.ended || phase != Phase::Running;
        if phase == Phase::Closing || (hurried && self.client.patient.get()) {
            return true;
        }
        if self.ended && self.dialogue.is_mid_request() {
            return true;
        }
        let leaving = self.ended || self.drained;
        let ring = self.client.ring().borrow();
        let quiet = ring.in_flight() == 0 && ring.buffered() == 0 && !self.unflushed;
        quiet && (self.client.ending().is_some() || (leaving && !self.paused))
    }

    fn may_read(&self) -> bool {
        if self.ended || self.drained || self.client.ending().is_some() {
            return false;
        }
        if self.paused {
            // A client that blocks is read a little further, so that its leaving is noticed.
            return self.client.patient.get() && !self.dialogue.is_mid_request();
        }
        self.below_limits()
    }

    fn is_full(&self) -> bool {
        self.client.ring().borrow().buffered() > self.dialogue.limits().reply_buffer
    }

    fn below_limits(&self) -> bool {
        let limits = self.dialogue.limits();
        if self.dialogue.is_mid_request() {
            // The request has its place already: more of it is no further reply.
            return self.client.may_go_on(limits);
        }
        self.client.may_ask(limits)
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Over> {
        for reads in 0..READS_PER_TURN {
            if !self.may_read() {
                return Ok(());
            }
            let begun = self.dialogue.is_mid_request();
            if begun && reads > 0 {
                break;
            }
            if begun && !self.pace.may_pass(context) {
                return Ok(());
            }
            let scratch = Rc::clone(&self.scratch);
            let mut scratch = scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => {
                    self.drained = self.client.is_hurried() && !self.dialogue.is_mid_request();
                    return Ok(());
                }
                Poll::Ready(Err(_)) => return Err(Over),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.ended = true;
                    return Ok(());
                }
                Poll::Ready(Ok(())) => {
                    if begun {
                        self.pace.pass(buffer.filled().len());
                    } else {
                        self.pace.hurry();
                    }
                    self.take(buffer.filled());
                }
            }
        }
        self.yielding = true;
        Ok(())
    }

    /// Consumes fresh bytes, in place if nothing was left over before them.
    fn take(&mut self, bytes: &[u8]) {
        if self.start == self.carry.len() {
            let consumed = self.consume(bytes);
            let rest = bytes.get(consumed..).unwrap_or_default();
            self.carry.clear();
            self.start = 0;
            self.carry.extend_from_slice(rest);
        } else {
            self.carry.extend_from_slice(bytes);
            self.consume_carry();
            if self.paused && self.carry.len() - self.start > self.dialogue.limits().held_request()
            {
                self.client.end(Ending::Now("max-held-request"));
            }
        }
        self.client
            .heard(clock::now(), bytes.len(), self.is_owed_more());
    }

    /// Whether the client is in the middle of a request, and is read.
    fn is_owed_more(&self) -> bool {
        !self.paused && (self.start < self.carry.len() || self.dialogue.is_mid_request())
    }

    fn consume_carry(&mut self) {
        let carry = std::mem::take(&mut self.carry);
        let consumed = self.consume(carry.get(self.start..).unwrap_or_default());
        self.carry = carry;
        self.start += consumed;
        if self.start == self.carry.len() {
            self.start = 0;
            self.carry.clear();
            if self.carry.capacity() > KEEP_CARRY_BYTES {
                self.carry = Vec::new();
            }
        } else if self.start > SCRATCH_BYTES && self.start > self.carry.len() / 2 {
            self.carry.drain(..self.start);
            self.start = 0;
        }
    }

    fn consume(&mut self, bytes: &[u8]) -> usize {
        if self.client.ending().is_some() {
            return bytes.len();
        }
        let Consumed { bytes: count, next } = self.dialogue.consume(bytes);
        self.paused = matches!(next, Next::Paused | Next::Yield);
        self.yielding |= next == Next::Yield;
        if next == Next::Close {
            self.client.end(Ending::AfterReplies);
            return bytes.len();
        }
        count
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), Over> {
        let mut ring = self.client.ring().borrow_mut();
        if let Some(Ending::Now(_)) = self.client.ending() {
            return Err(Over);
        }
        let mut progress = false;
        loop {
            let bytes = ring.writable();
            if bytes.is_empty() {
                break;
            }
            match Pin::new(&mut self.stream).poll_write(context, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return Err(Over),
                Poll::Ready(Ok(count)) => {
                    ring.wrote(count);
                    progress = true;
                    self.unflushed = true;
                }
            }
        }
        let buffered = ring.buffered();
        let waiting = !ring.writable().is_empty();
        let unread = waiting && ring.is_in_pieces();
        let much = ring.writable().len() > self.dialogue.limits().reply_buffer;
        drop(ring);
        let unflushed = self.flush(context)?;
        // What waits behind a slower shard is not the client's to take yet.
        let clogged = much || (!progress && waiting) || unflushed;
        // The clock is looked at only for who reads slowly.
        let now = (unread || clogged).then(clock::now);
        self.client.note_unread(now.filter(|_| unread), progress);
        self.client
            .note_clogged(now.filter(|_| clogged), progress && !much);
        self.client.feed();
        let many = self.client.in_flight() > 0 || self.client.patient.get();
        if buffered > self.dialogue.limits().reply_hard_limit() && many {
            self.client.end(Ending::Now("reply-buffer"));
            return Err(Over);
        }
        Ok(())
    }

    /// Whether bytes that were written wait for the client to read.
    fn flush(&mut self, context: &mut Context<'_>) -> Result<bool, Over> {
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(Over),
            }
        }
        Ok(self.unflushed)
    }
}
