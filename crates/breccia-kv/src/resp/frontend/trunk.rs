//! Connections to one server that all workers of the process share, for fleets so large that
//! workers × members connections of each gateway are too many for a server.
//!
//! ```text
//! worker's Upstream ─ pipe ─▶ Branch ─┐  on the thread of typed stores
//! worker's Upstream ─ pipe ─▶ Branch ─┴▶ Upstream ─▶ server
//! ```
//!
//! A worker's side of it is an upstream like any other, with its own queue, gate and deadlines; only
//! its socket is a pipe. It costs a second pass over every request, and one thread carries them all.
//! Not for leases, large values and subscriptions, which keep connections of their own. Invariant: a
//! request whose outcome is unknown closes its worker's pipe and gets no reply, so what a worker
//! reads as an error was not applied.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::metrics::Registry;
use breccia_net::stream::Stream;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

use super::super::codec::reply::{Expected, RespWire};
use super::super::codec::request::{RequestLimits, RequestParser};
use super::super::encode;
use super::leaf::{Mode, RespLeaf, options};
use super::wire_error::failure_text;
use crate::front::metrics::StoreMetrics;
use crate::front::ring::{ReplyRing, Sequence};
use crate::io::KvIo;
use crate::pipeline::{Failure, Patience, Recipient};
use crate::turn::wake_after_others;
use crate::upstream::{Dial, Upstream};

/// What a pipe holds in each direction before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;
/// How long a request may wait here for a server that takes none; then it was not applied.
const TRUNK_WAIT: Duration = Duration::from_secs(1);
/// Replies that a worker has not taken yet may be this long; more of its requests wait then.
const MAX_UNREAD_BYTES: usize = 4 << 20;
/// Requests of a worker that are under way here; more wait in its pipe.
const MAX_REQUESTS: usize = 16_384;
/// New pipes that wait for the thread.
const WAITING_PIPES: usize = 1024;
/// Reads of one turn; then other branches get theirs.
const READS_PER_TURN: usize = 4;
/// What workers send was bounded by their listeners already.
const LIMITS: RequestLimits = RequestLimits {
    max_request_size: 1 << 30,
    max_arguments: 1 << 20,
};

/// One of a server's shared connections: what it was set up for, and its number.
pub(crate) type Number = (Mode, usize);

/// A store's connections for the whole process.
pub struct Trunks {
    io: KvIo,
    registry: Registry,
    open: Mutex<BTreeMap<Number, mpsc::Sender<DuplexStream>>>,
}

impl std::fmt::Debug for Trunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trunks").finish_non_exhaustive()
    }
}

impl Trunks {
    /// None yet; each is opened when first used, and stays until the store goes.
    #[must_use]
    pub fn new(io: KvIo, registry: Registry) -> Arc<Self> {
        Arc::new(Self {
            io,
            registry,
            open: Mutex::default(),
        })
    }

    /// A pipe to one of them.
    fn pipe(&self, spec: &Arc<RespLeaf>, number: Number) -> DuplexStream {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let pipes = open.entry(number).or_insert_with(|| {
            let (sender, pipes) = mpsc::channel(WAITING_PIPES);
            // The task must not keep the store, whose going ends it.
            let (parts, registry) = (options(spec, number.0, false), self.registry.clone());
            let (store, name) = (spec.store.clone(), spec.name.clone());
            self.io.run(Box::new(move || {
                let metrics = StoreMetrics::new(&registry, &store);
                let trunk = Upstream::open(parts, Some(metrics));
                tokio::task::spawn_local(serve(trunk, pipes, name.into()));
            }));
            sender
        });
        // If it cannot be taken, the far end is dropped and the near one is lost at once.
        let _ = pipes.try_send(far);
        near
    }
}

/// A worker's way to one of a store's trunks.
pub(super) struct Branching {
    pub(super) spec: Arc<RespLeaf>,
    pub(super) trunks: Arc<Trunks>,
    pub(super) number: Number,
}

impl Dial for Branching {
    fn dial(&self) -> Stream {
        Stream::Pipe(self.trunks.pipe(&self.spec, self.number))
    }
}

type Trunk = Upstream<RespWire, Owed>;

async fn serve(trunk: Rc<Trunk>, mut pipes: mpsc::Receiver<DuplexStream>, name: Rc<str>) {
    while let Some(pipe) = pipes.recv().await {
        let replies = Replies {
            name: Rc::clone(&name),
            ring: RefCell::default(),
            waker: RefCell::default(),
            feeder: RefCell::default(),
            gone: Cell::new(false),
            lost: Cell::new(false),
        };
        let branch = Branch {
            pipe,
            trunk: Rc::clone(&trunk),
            replies: Rc::new(replies),
            parser: RequestParser::default(),
            bytes: Vec::new(),
            scratch: vec![0; PIPE_BYTES].into(),
        };
        tokio::task::spawn_local(branch.run());
    }
    trunk.close();
}

/// What a worker's pipe is owed.
struct Replies {
    /// The store's path, for errors.
    name: Rc<str>,
    ring: RefCell<ReplyRing>,
    waker: RefCell<Option<Waker>>,
    /// The trunk's task, while it waits until the pipe takes another piece of a large reply.
    feeder: RefCell<Option<Waker>>,
    gone: Cell<bool>,
    /// A request is lost: the pipe ends once what came before it is written.
    lost: Cell<bool>,
}

/// One request of a worker.
struct Owed(Rc<Replies>, Sequence);

impl Owed {
    fn answer(&self, reply: &[u8]) {
        let Self(replies, sequence) = self;
        if !replies.gone.get() {
            replies.ring.borrow_mut().fill(*sequence, reply);
            replies.wake();
        }
    }
}

impl Replies {
    /// Lets the trunk give another piece of a large reply.
    fn feed(&self) {
        if let Some(feeder) = self.feeder.borrow_mut().take() {
            feeder.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Recipient for Owed {
    fn deliver(self, reply: &[u8]) {
        self.answer(reply);
    }

    fn fail(self, failure: &Failure) {
        if failure.effect == Effect::Unknown {
            self.0.lost.set(true);
            self.0.wake();
        } else {
            let mut reply = Vec::new();
            encode::error(&mut reply, &failure_text(failure, &self.0.name));
            self.answer(&reply);
        }
    }

    fn abandoned(&self) -> bool {
        self.0.gone.get()
    }

    fn takes_pieces(&mut self) -> bool {
        true
    }

    fn piece(&self, bytes: &[u8]) {
        let Self(replies, sequence) = self;
        if !replies.gone.get() {
            replies.ring.borrow_mut().piece(*sequence, bytes);
            replies.wake();
        }
    }

    fn end_pieces(self) {
        let Self(replies, sequence) = &self;
        if !replies.gone.get() {
            replies.ring.borrow_mut().end_pieces(*sequence);
            replies.wake();
        }
    }

    fn has_room(&self, context: &mut Context<'_>) -> bool {
        let Self(replies, sequence) = self;
        let room = replies.gone.get() || replies.ring.borrow().has_room(*sequence);
        if !room {
            *replies.feeder.borrow_mut() = Some(context.waker().clone());
        }
        room
    }

    fn cut_off(&self) {
        // The worker learns that the reply breaks off.
        self.0.lost.set(true);
        self.0.wake();
    }
}

/// One worker's pipe: its requests go on the trunk, in order.
struct Branch {
    pipe: DuplexStream,
    trunk: Rc<Trunk>,
    replies: Rc<Replies>,
    parser: RequestParser,
    /// The beginning of a request.
    bytes: Vec<u8>,
    scratch: Box<[u8]>,
}

/// The pipe has ended.
struct Ended;

impl Branch {
    async fn run(mut self) {
        // What a worker notes of a server, its scripts for one, holds for one connection.
        let mut losses = self.trunk.losses();
        let replies = Rc::clone(&self.replies);
        let losing = async {
            // An error means that the trunk is gone for good.
            let _ = losses.changed().await;
            replies.lost.set(true);
            replies.wake();
            std::future::pending::<()>().await;
        };
        let relaying = poll_fn(|context| match self.turn(context) {
            Ok(()) => Poll::Pending,
            Err(Ended) => Poll::Ready(()),
        });
        tokio::select! {
            () = relaying => {}
            () = losing => {}
        }
        self.replies.gone.set(true);
        self.replies.feed();
        *self.replies.ring.borrow_mut() = ReplyRing::default();
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Result<(), Ended> {
        *self.replies.waker.borrow_mut() = Some(context.waker().clone());
        self.write(context)?;
        if !self.replies.lost.get() {
            self.read(context)?;
        }
        // What was refused at once is in the ring already.
        self.write(context)
    }

    fn may_read(&self) -> bool {
        let ring = self.replies.ring.borrow();
        ring.in_flight() < MAX_REQUESTS && ring.buffered() < MAX_UNREAD_BYTES
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Ended> {
        for _ in 0..READS_PER_TURN {
            if !self.may_read() {
                return Ok(());
            }
            let mut buffer = ReadBuf::new(&mut self.scratch);
            match Pin::new(&mut self.pipe).poll_read(context, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.bytes.extend_from_slice(buffer.filled());
                    self.forward()?;
                }
                Poll::Ready(_) => return Err(Ended),
            }
        }
        wake_after_others(context);
        Ok(())
    }

    /// Puts the whole requests among the bytes on the trunk.
    fn forward(&mut self) -> Result<(), Ended> {
        let mut at = 0;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some(length) = self.parser.parse(rest, &LIMITS).map_err(|_| Ended)? else {
                break;
            };
            self.parser.reset();
            let frame = rest.get(..length).unwrap_or_default();
            let sequence = self.replies.ring.borrow_mut().reserve(false);
            let owed = Owed(Rc::clone(&self.replies), sequence);
            let expires = clock::now() + TRUNK_WAIT;
            let queued =
                self.trunk
                    .enqueue(owed, Expected::One, expires, Patience::Timeout, |out| {
                        out.extend_from_slice(frame);
                    });
            if let Err((owed, failure)) = queued {
                owed.fail(&failure);
            }
            at += length;
        }
        self.bytes.drain(..at);
        Ok(())
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), Ended> {
        let mut ring = self.replies.ring.borrow_mut();
        while !ring.writable().is_empty() {
            match Pin::new(&mut self.pipe).poll_write(context, ring.writable()) {
                Poll::Ready(Ok(count @ 1..)) => ring.wrote(count),
                Poll::Ready(_) => return Err(Ended),
                Poll::Pending => break,
            }
        }
        if ring.is_low() {
            self.replies.feed();
        }
        if !ring.writable().is_empty() {
            return Ok(());
        }
        // Everything that came before the lost request is written.
        if self.replies.lost.get() {
            return Err(Ended);
        }
        Ok(())
    }
}
