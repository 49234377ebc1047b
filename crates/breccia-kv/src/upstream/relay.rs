//! One live connection of an [`Upstream`]: moves bytes until the socket is lost or given up.
//!
//! Not the reconnecting. Invariant: what is received is answered before anything more is written,
//! so the gate and the canary always see the latest news.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::stream::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::passing::{Passing, pass_on};
use super::{MAX_REPLY_BYTES, Scan, TICK, Upstream, Wire, describe, given_up, lost, moved};
use crate::front::client::LARGE_REPLY;
use crate::pipeline::{Cause, Recipient};
use crate::turn::{Pace, wake_after_others};

/// First size of the receive buffer.
const READ_BYTES: usize = 16 * 1024;
/// The receive buffer grows up to this under load; larger only for one larger reply.
const BUSY_READ_BYTES: usize = 256 * 1024;
/// Bytes of a large reply that are passed on in one turn.
const PIECE_BYTES: usize = 64 * 1024;
/// The same while others wait behind it.
const HURRIED_PIECE_BYTES: usize = BUSY_READ_BYTES;
/// How long replies are waited for that a server owes which has lost its role: long enough for what
/// it has answered already.
const FAREWELL: Duration = Duration::from_millis(200);
/// A part of a reply in pieces that must be seen whole, which is a line, is at most this long.
const MAX_HELD_PART: usize = 16 << 20;
/// Reads in one turn before other connections get theirs.
const READS_PER_TURN: usize = 8;

/// A live connection: the socket, the bytes received, and the clock of its deadlines.
pub(super) struct Relay<'u, W: Wire, R> {
    upstream: &'u Upstream<W, R>,
    stream: Stream,
    received: Vec<u8>,
    filled: usize,
    scanner: W::Scanner,
    tick: Pin<Box<Sleep>>,
    ticking: bool,
    unflushed: bool,
    /// Whether the write was put off once already.
    gathered: bool,
    /// Since when another connection is to take the place of this one.
    leaving: Option<Instant>,
    /// The reply that is passed on in pieces, if one is.
    passing: Option<Passing>,
    pace: Pace,
}

impl<'u, W: Wire, R: Recipient + 'static> Relay<'u, W, R> {
    pub(super) fn new(upstream: &'u Upstream<W, R>, stream: Stream) -> Self {
        Self {
            upstream,
            stream,
            received: vec![0; READ_BYTES],
            filled: 0,
            scanner: W::Scanner::default(),
            tick: Box::pin(tokio::time::sleep(TICK)),
            ticking: false,
            unflushed: false,
            gathered: false,
            leaving: None,
            passing: None,
            pace: Pace::default(),
        }
    }

    /// Relays until the connection is lost or given up; says why.
    pub(super) async fn run(mut self) -> Cause {
        poll_fn(|context| {
            self.upstream.park(context);
            match self.turn(context) {
                Ok(()) => Poll::Pending,
                Err(cause) => Poll::Ready(cause),
            }
        })
        .await
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Result<(), Cause> {
        let closing = self.upstream.closing.get();
        if closing || (self.upstream.sealed.get() && !self.upstream.pipeline.borrow().owes()) {
            if self.upstream.is_leaving() && !closing {
                return Err(moved());
            }
            return Err(given_up());
        }
        self.receive(context)?;
        if self.upstream.is_retired() && self.upstream.pipeline.borrow().is_empty() {
            self.upstream.closing.set(true);
            return Err(given_up());
        }
        if self.upstream.is_leaving() {
            self.leave()?;
            self.send(context, clock::now())?;
        } else if self.gathered || !self.upstream.pipeline.borrow().has_unsent() {
            self.gathered = false;
            let now = clock::now();
            self.prepare(now);
            self.send(context, now)?;
        } else {
            self.gather(context);
        }
        self.watch_deadlines(context)
    }

    fn receive(&mut self, context: &mut Context<'_>) -> Result<(), Cause> {
        if self.passing.is_some() && self.filled > 0 {
            // What was held back.
            self.take_replies(context, false)?;
        }
        let mut begun = false;
        for _ in 0..READS_PER_TURN {
            if !self.may_receive(context)? {
                return Ok(());
            }
            let most = self.passing.as_ref().map(|_| self.piece_bytes());
            let mut room = self.received.get_mut(self.filled..).unwrap_or_default();
            if let Some(most) = most {
                // What nobody takes hurries through.
                let hurries = self.upstream.pipeline.borrow().is_for_nobody();
                if std::mem::replace(&mut begun, true) && !hurries {
                    break;
                }
                if !hurries && !self.pace.may_pass(context) {
                    return Ok(());
                }
                let count = most.min(room.len());
                room = room.get_mut(..count).unwrap_or_default();
            }
            if room.is_empty() {
                // Nothing read into no room would look like the end.
                return Ok(());
            }
            let mut buffer = ReadBuf::new(room);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Ready(Ok(())) => {
                    let count = buffer.filled().len();
                    if count == 0 {
                        return Err(Cause::Lost("the server closed the connection".into()));
                    }
                    self.filled += count;
                    match most {
                        None => {}
                        Some(PIECE_BYTES) => self.pace.pass(count),
                        Some(_) => self.pace.hurry(),
                    }
                    // What comes through a pipe may be this process's own.
                    if self.upstream.options.through.is_none() {
                        self.upstream.health.note_bytes();
                    }
                    self.take_replies(context, true)?;
                }
            }
        }
        wake_after_others(context);
        Ok(())
    }

    /// Whether the server is read. Not while who gets its present reply in pieces takes no more.
    fn may_receive(&mut self, context: &mut Context<'_>) -> Result<bool, Cause> {
        match &mut self.passing {
            None => Ok(true),
            Some(passing) => {
                let mut pipeline = self.upstream.pipeline.borrow_mut();
                passing.may_receive(self.upstream, &mut pipeline, context)
            }
        }
    }

    fn piece_bytes(&self) -> usize {
        match self.upstream.pipeline.borrow().others_since() {
            None => PIECE_BYTES,
            Some(_) => HURRIED_PIECE_BYTES,
        }
    }

    /// Gives on what was received. `fresh`: some of it only now.
    fn take_replies(&mut self, context: &mut Context<'_>, fresh: bool) -> Result<(), Cause> {
        let mut pipeline = self.upstream.pipeline.borrow_mut();
        let now = clock::now();
        if fresh {
            pipeline.heard(now);
        }
        let (mut at, mut cut) = (0, false);
        while at < self.filled {
            let bytes = self.received.get(at..self.filled).unwrap_or_default();
            if let Some(passing) = &mut self.passing {
                if !passing.may_receive(self.upstream, &mut pipeline, context)? {
                    break;
                }
                let scanner = &mut self.scanner;
                let (count, ended) = pass_on::<W, R>(scanner, &mut pipeline, bytes, now)?;
                at += count;
                if !ended {
                    cut = count == 0; // the beginning of a part that is seen whole or not at all
                    break;
                }
                self.passing = None;
                self.pace.hurry();
                continue;
            }
            match W::scan(&mut self.scanner, pipeline.expected(), bytes) {
                Scan::Complete(length) => {
                    self.scanner = W::Scanner::default();
                    let reply = bytes.get(..length).unwrap_or_default();
                    if W::disowns(reply) {
                        self.upstream.options.endpoint.doubt();
                    }
                    if !pipeline.deliver(reply) {
                        return Err(Cause::Lost("the server sent a reply to no request".into()));
                    }
                    at += length;
                }
                Scan::Skip(length) => {
                    self.scanner = W::Scanner::default();
                    at += length;
                }
                Scan::Incomplete => {
                    let size = W::at_least(&self.scanner, bytes);
                    if size <= LARGE_REPLY {
                        break;
                    }
                    self.passing = self.upstream.begin_large(&mut pipeline, size)?;
                    if self.passing.is_none() {
                        break;
                    }
                }
                Scan::Wrong(why) => {
                    let why = format!("the server broke the protocol: {why}");
                    return Err(Cause::Lost(why.into()));
                }
            }
        }
        if let (Some(metrics), Some(sent)) = (&self.upstream.metrics, pipeline.take_sample()) {
            metrics.answered_after(now.saturating_duration_since(sent));
        }
        drop(pipeline);
        if cut && self.filled >= MAX_HELD_PART {
            let why = "a line of a reply is larger than 16 MiB";
            return Err(Cause::Lost(why.into()));
        }
        self.make_room(at, cut || self.passing.is_none());
        if self.filled >= MAX_REPLY_BYTES {
            return Err(Cause::Lost("a reply is larger than 1 GiB".into()));
        }
        Ok(())
    }

    /// Moves what is not yet a whole reply to the front, and fits the buffer to the traffic. `grows`:
    /// nothing can be taken out of it before there is more in it.
    fn make_room(&mut self, consumed: usize, grows: bool) {
        let was_full = self.filled == self.received.len();
        self.received.copy_within(consumed..self.filled, 0);
        self.filled -= consumed;
        if self.filled == self.received.len() && grows && self.filled < MAX_REPLY_BYTES {
            self.received.resize(self.filled * 2, 0);
        } else if was_full && self.received.len() < BUSY_READ_BYTES {
            self.received.resize(self.received.len() * 2, 0);
        } else if self.filled == 0 && self.received.len() > BUSY_READ_BYTES {
            self.received = vec![0; READ_BYTES];
        }
    }

    /// Puts the write off until sockets were looked at once more: the requests of clients that are
    /// readable by then leave in the same write. It costs one look and halves the writes.
    fn gather(&mut self, context: &mut Context<'_>) {
        self.gathered = true;
        wake_after_others(context);
    }

    /// Ends the connection once nothing is owed on it. Until then only what was begun is written.
    fn leave(&mut self) -> Result<(), Cause> {
        if self.leaving.is_none() {
            self.leaving = Some(clock::now());
        }
        if self.upstream.pipeline.borrow().owes() {
            return Ok(());
        }
        Err(moved())
    }

    /// Puts a canary first where one is needed.
    fn prepare(&self, now: Instant) {
        let mut pipeline = self.upstream.pipeline.borrow_mut();
        let canary = match self.upstream.in_transaction.get() {
            false => Some(W::canary()),
            true if self.upstream.canary_in_transaction.get() => Some(W::canary_in_transaction()),
            true => None,
        };
        if let Some(canary) = canary {
            pipeline.prepare(now, canary);
        }
    }

    fn send(&mut self, context: &mut Context<'_>, now: Instant) -> Result<(), Cause> {
        let mut pipeline = self.upstream.pipeline.borrow_mut();
        loop {
            let bytes = match self.leaving {
                None => pipeline.writable(now),
                Some(_) => pipeline.begun(),
            };
            if bytes.is_empty() {
                break;
            }
            match Pin::new(&mut self.stream).poll_write(context, bytes) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Ready(Ok(0)) => return Err(Cause::Lost("the socket takes no bytes".into())),
                Poll::Ready(Ok(count)) => {
                    pipeline.wrote(count, now);
                    self.unflushed = true;
                }
            }
        }
        drop(pipeline);
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn watch_deadlines(&mut self, context: &mut Context<'_>) -> Result<(), Cause> {
        if self.ticking && self.tick.as_mut().poll(context).is_ready() {
            self.ticking = false;
            let now = clock::now();
            let health = &self.upstream.health;
            let mut pipeline = self.upstream.pipeline.borrow_mut();
            if self.passing.as_ref().is_some_and(Passing::is_held_back) {
                pipeline.holds_back(now);
            }
            let mut failed = pipeline.expire(now);
            if let Some(down) = health.down() {
                failed += pipeline.fail_unsent(&Cause::Down(describe(&down).into()));
            }
            if failed > 0 && pipeline.is_incomplete() {
                // The rest of it will not be written: the server must never see its end.
                return Err(Cause::Timeout);
            }
            if failed > 0 && self.upstream.options.fragile {
                // Requests sent before may still be answered; none may follow the lost one.
                self.upstream.sealed.set(true);
                pipeline.fail_unsent(&Cause::Lost("a request before this one was lost".into()));
                context.waker().wake_by_ref();
            }
            if pipeline.silent_too_long(now) {
                return Err(Cause::Timeout);
            }
            let mut timeout = self.upstream.current.borrow().terms.limits.timeout;
            if self.upstream.has_news(|current| current.superseded) {
                timeout = timeout.min(FAREWELL);
            }
            // A client that blocks on a server which is no longer used would wait for ever.
            let leaving = self.leaving;
            if leaving.is_some_and(|since| now.saturating_duration_since(since) >= timeout) {
                return Err(moved());
            }
        }
        if !self.ticking && !self.upstream.pipeline.borrow().is_empty() {
            self.ticking = true;
            self.tick
                .as_mut()
                .reset(tokio::time::Instant::from_std(clock::now() + TICK));
            if self.tick.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        Ok(())
    }
}
