//! One connection to one server, opened when first used and opened again when lost, or when its
//! [`Endpoint`] has moved. It moves bytes between a socket and a [`Pipeline`]; it decides nothing
//! about keys or commands.
//!
//! Invariant: everything here lives on one worker thread; a recipient's `deliver` and `fail` never
//! queue another request on the same upstream.

mod growing;
mod passing;
mod relay;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use breccia_core::error::Effect;
use breccia_net::clock;
use breccia_net::health::{DownReason, EndpointHealth};
use breccia_net::stream::{Stream, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::endpoint::{Current, Endpoint, Place};
use crate::front::metrics::StoreMetrics;
use crate::identity::Identity;
use crate::pipeline::{Canary, Cause, Failure, Patience, Pipeline, Recipient};
use relay::Relay;

/// What a look at the bytes received says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The next reply is this many bytes long.
    Complete(usize),
    /// This many bytes are out of band (a push) and answer no request.
    Skip(usize),
    /// More bytes are needed.
    Incomplete,
    /// These bytes are no reply; the text says why.
    Wrong(&'static str),
}

/// What a look at more of a reply says that is passed on as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// This many bytes more belong to it, and it goes on.
    Part(usize),
    /// It ends after this many bytes more.
    End(usize),
    /// These bytes are no reply; the text says why.
    Wrong(&'static str),
}

/// The reply side of a protocol: how a stream of bytes is cut into replies.
pub trait Wire: 'static {
    /// What must be known of a request to frame its reply.
    type Shape: Copy + 'static;
    /// How far a reply that is not yet whole has been looked at.
    type Scanner: Default + 'static;
    /// What a frontend notes of the server at the other end; forgotten with the connection.
    type Memory: Default + 'static;
    /// Looks for the end of the reply that starts at `bytes[0]`. The same scanner is passed again
    /// with the same bytes and more behind them until the answer is not `Incomplete`.
    fn scan(scanner: &mut Self::Scanner, shape: Option<Self::Shape>, bytes: &[u8]) -> Scan;
    /// How many bytes the reply has at least of which `bytes` are the beginning, once
    /// [`Self::scan`] has said that they are not all. Zero: it must be collected.
    fn at_least(_scanner: &Self::Scanner, _bytes: &[u8]) -> usize {
        0
    }
    /// Goes on with a reply that is passed on as it comes. First `bytes` are those of the last
    /// [`Self::scan`], then they begin where the part before ended.
    fn pass(_scanner: &mut Self::Scanner, _bytes: &[u8]) -> Pass {
        Pass::Wrong("a reply that cannot be passed on in pieces")
    }
    /// Whether a reply says that its server has lost the role for which it is asked.
    fn disowns(_reply: &[u8]) -> bool {
        false
    }
    /// A request without effect, sent first on a connection that was quiet (see [`Pipeline`]).
    fn canary() -> Canary<Self::Shape>;
    /// The same within a transaction, where the usual one would become part of it.
    fn canary_in_transaction() -> Canary<Self::Shape> {
        Self::canary()
    }
}

/// What is sent on a fresh connection before any request.
#[derive(Clone, Default)]
pub struct Greeting {
    /// The bytes; they may hold a password, so they are never printed.
    pub bytes: Vec<u8>,
    /// How many replies they bring.
    pub replies: usize,
    /// Replies that must be these bytes, by their number from zero: they prove that the server is
    /// the one that is meant.
    pub proofs: Vec<(usize, Vec<u8>)>,
    /// Replies that may be errors, by their number: they show life, or are looked at otherwise.
    pub tolerated: Vec<usize>,
    /// The reply, by its number, that tells whether a canary within a transaction is harmless: it
    /// is, if the reply is an empty array.
    pub transaction_probe: Option<usize>,
}

impl std::fmt::Debug for Greeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Greeting")
            .field("replies", &self.replies)
            .finish_non_exhaustive()
    }
}

/// What is sent first on every connection to a place.
pub type Greeter = Arc<dyn Fn(&Place) -> Greeting + Send + Sync>;

/// Where and how to connect.
pub struct UpstreamOptions {
    /// The name errors use, for example `cache/redis-b`.
    pub name: String,
    /// The server, and the terms on which it is used.
    pub endpoint: Arc<Endpoint>,
    /// Sent first on every connection.
    pub greeter: Greeter,
    /// What is known of the server's identity, if it has one.
    pub identity: Option<Arc<Identity>>,
    /// Another way to the server than a connection of one's own.
    pub through: Option<Arc<dyn Dial>>,
    /// A lease: it carries state of its client, so it is never opened twice, and one request that
    /// got no reply ends it. Else a command meant for a lost transaction would run outside it.
    pub fragile: bool,
}

/// Makes connections to a server that is reached in another way than by its address.
pub trait Dial: Send + Sync {
    /// A connection, over which nothing has been sent yet.
    fn dial(&self) -> Stream;
}

impl std::fmt::Debug for UpstreamOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamOptions")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One connection to one server, with its queue. See the module's page.
pub struct Upstream<W: Wire, R> {
    options: UpstreamOptions,
    health: Arc<EndpointHealth>,
    /// The terms of the endpoint, as far as they are known here.
    current: RefCell<Arc<Current>>,
    /// The epoch whose place is connected to, or was last.
    connected_to: Cell<u64>,
    pipeline: RefCell<Pipeline<R, W::Shape>>,
    waker: RefCell<Option<Waker>>,
    woken: Cell<bool>,
    closing: Cell<bool>,
    /// A lease of which a request was lost: it takes no more, and ends when nothing is owed.
    sealed: Cell<bool>,
    /// A shared connection that a large reply keeps busy: others use another one from now on.
    retired: Cell<bool>,
    /// Where the connection is to be found that takes its place.
    successor: OnceCell<Successor<W, R>>,
    /// Whether the server has a transaction open on this connection.
    in_transaction: Cell<bool>,
    /// Whether the server takes a canary within a transaction without spoiling it.
    canary_in_transaction: Cell<bool>,
    memory: RefCell<W::Memory>,
    metrics: Option<Rc<StoreMetrics>>,
    /// How many connections were lost so far.
    losses: watch::Sender<u64>,
    /// After a failed attempt: why, and until when the next attempt is put off.
    held_off: RefCell<Option<(Arc<str>, Instant)>>,
}

/// Finds the connection that takes the place of a retired one.
pub type Successor<W, R> = Box<dyn Fn() -> Option<Rc<Upstream<W, R>>>>;

/// The least time between two attempts to connect.
const HOLD_OFF: Duration = Duration::from_millis(100);
/// How often deadlines are looked at while something is queued.
const TICK: Duration = Duration::from_millis(20);
/// A reply larger than this closes the connection, where it must be collected.
pub const MAX_REPLY_BYTES: usize = 1 << 30;

impl<W: Wire, R: Recipient + 'static> Upstream<W, R> {
    /// Makes the upstream and its task on this worker. Nothing is connected yet.
    #[must_use]
    pub fn open(options: UpstreamOptions, metrics: Option<Rc<StoreMetrics>>) -> Rc<Self> {
        let current = options.endpoint.current();
        let upstream = Rc::new(Self {
            pipeline: RefCell::new(Pipeline::new(current.terms.limits)),
            health: Arc::clone(options.endpoint.health()),
            connected_to: Cell::new(current.epoch),
            current: RefCell::new(current),
            options,
            waker: RefCell::new(None),
            woken: Cell::new(false),
            closing: Cell::new(false),
            sealed: Cell::new(false),
            retired: Cell::new(false),
            successor: OnceCell::new(),
            in_transaction: Cell::new(false),
            canary_in_transaction: Cell::new(false),
            memory: RefCell::default(),
            metrics,
            losses: watch::Sender::new(0),
            held_off: RefCell::new(None),
        });
        tokio::task::spawn_local(Rc::clone(&upstream).run());
        upstream
    }

    /// Queues a request; see [`Pipeline::enqueue`].
    ///
    /// # Errors
    /// At once, with the recipient, while the endpoint is known to be down or the queue is full.
    pub fn enqueue(
        &self,
        recipient: R,
        shape: W::Shape,
        expires: Instant,
        patience: Patience,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), (R, Failure)> {
        if let Some(failure) = self.unreachable() {
            return Err((recipient, failure));
        }
        self.pipeline
            .borrow_mut()
            .enqueue(recipient, shape, expires, patience, write)?;
        self.wake();
        Ok(())
    }

    /// Lets the last request take another one in; see [`Pipeline::widen`].
    pub fn widen(
        &self,
        shape: &W::Shape,
        join: impl FnOnce(&mut R, Instant, &mut Vec<u8>, usize) -> bool,
    ) -> bool
    where
        W::Shape: PartialEq,
    {
        self.pipeline.borrow_mut().widen(shape, join)
    }

    /// Why a request would fail at once, if it would.
    #[must_use]
    pub fn unreachable(&self) -> Option<Failure> {
        let cause = if !self.health.is_up()
            && let Some(down) = self.health.down()
        {
            Cause::Down(describe(&down).into())
        } else if let Some(identity) = &self.options.identity
            && let Some(why) = identity.refusal()
        {
            Cause::Down(why)
        } else if let Some((why, until)) = &*self.held_off.borrow()
            && clock::now() < *until
        {
            Cause::Down(Arc::clone(why))
        } else if self.is_closed() {
            Cause::Lost("the connection that held this client's state".into())
        } else {
            return None;
        };
        Some(Failure {
            cause,
            effect: Effect::NotApplied,
        })
    }

    /// Whether the connection was given up, or was a lease and is lost.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closing.get() || self.sealed.get()
    }

    /// Takes no more requests; what is sent may still be answered. Safe to call from a recipient.
    pub fn seal(&self) {
        self.sealed.set(true);
        self.wake();
    }

    /// Tells whether a transaction is open on the server: it changes what a sign of life looks
    /// like. Safe to call from a recipient.
    pub fn set_in_transaction(&self, open: bool) {
        self.in_transaction.set(open);
    }

    /// What is noted of the server at the other end. Safe to use from a recipient.
    #[must_use]
    pub fn memory(&self) -> &RefCell<W::Memory> {
        &self.memory
    }

    /// Hears of every connection that is lost from now on, after its requests were failed. A change
    /// of the server's place is no loss.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// Whether it carries state of one client, so that nothing on it may be sent elsewhere.
    #[must_use]
    pub fn is_lease(&self) -> bool {
        self.options.fragile
    }

    /// Whether nothing is queued and no reply is owed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pipeline.borrow().is_empty()
    }

    /// Whether a connection that is open now is as one opened now would be.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let known = self.current.borrow();
        // What has changed is heard of a moment later: until then it counts as a reason.
        known.epoch == self.options.endpoint.epoch() && known.renewed <= self.connected_to.get()
    }

    /// Whether this connection is to end because its endpoint has changed, and, unless it is a
    /// lease, another one to take its place. A lease is used up before it is made anew.
    fn is_leaving(&self) -> bool {
        self.has_news(|current| {
            if self.options.fragile {
                current.moved
            } else {
                current.renewed
            }
        })
    }

    /// Whether a change came after the one whose place is connected to.
    fn has_news(&self, change: impl FnOnce(&Current) -> u64) -> bool {
        change(&self.current.borrow()) > self.connected_to.get()
    }

    /// Takes over changed terms: limits at once, a place as soon as replies that are owed by the
    /// former one have come. A lease whose server is another now takes no more.
    fn renew(&self, current: Arc<Current>) {
        self.pipeline.borrow_mut().set_limits(current.terms.limits);
        *self.current.borrow_mut() = current;
        if self.has_news(|current| current.renewed) {
            *self.held_off.borrow_mut() = None;
        }
        if self.options.fragile && self.is_leaving() {
            self.sealed.set(true);
        }
        self.wake();
    }

    /// Closes the connection and ends the task. What is queued fails.
    pub fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if !self.woken.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    fn park(&self, context: &Context<'_>) {
        self.woken.set(false);
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
    }

    async fn run(self: Rc<Self>) {
        let news = self.options.endpoint.news();
        // What changed before this task began is heard of, too.
        self.renew(self.options.endpoint.current());
        let following = tokio::task::spawn_local(follow(Rc::downgrade(&self), news));
        self.connect_and_relay().await;
        following.abort();
    }

    async fn connect_and_relay(&self) {
        while !self.closing.get() {
            // Nobody asks a retired connection any more.
            if self.retired.get() && self.pipeline.borrow().is_empty() {
                self.closing.set(true);
                break;
            }
            poll_fn(|context| {
                self.park(context);
                let idle = self.pipeline.borrow().is_empty() && !self.closing.get();
                if idle { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            if self.closing.get() {
                break;
            }
            match self.establish().await {
                Ok(stream) => {
                    *self.held_off.borrow_mut() = None;
                    self.metrics.iter().for_each(|metrics| metrics.connected());
                    let cause = Relay::new(self, stream).run().await;
                    self.options.endpoint.doubt();
                    self.metrics
                        .iter()
                        .for_each(|metrics| metrics.disconnected());
                    self.closing.set(self.closing.get() || self.options.fragile);
                    self.memory.replace(W::Memory::default());
                    if self.is_leaving() && !self.closing.get() {
                        self.pipeline.borrow_mut().carry_over(&cause);
                    } else {
                        self.pipeline.borrow_mut().fail_all(&cause);
                        self.losses.send_modify(|losses| *losses += 1);
                    }
                }
                Err(Unmade::Moved) if self.options.fragile => {
                    self.closing.set(true);
                    self.pipeline.borrow_mut().fail_all(&moved());
                }
                Err(Unmade::Moved) => {}
                Err(Unmade::Failed(why)) => self.hold_off(&why),
            }
        }
        self.pipeline.borrow_mut().fail_all(&given_up());
    }

    fn hold_off(&self, why: &str) {
        let why: Arc<str> = why.into();
        let told = self
            .held_off
            .borrow()
            .as_ref()
            .is_some_and(|(known, _)| *known == why);
        if !told && !self.options.fragile && self.health.is_up() {
            // The endpoint answers its prober, so nothing else would say why its keys fail.
            tracing::warn!(store = self.options.name, reason = %why, "no connection can be used");
        }
        *self.held_off.borrow_mut() = Some((Arc::clone(&why), clock::now() + HOLD_OFF));
        self.closing.set(self.closing.get() || self.options.fragile);
        self.pipeline.borrow_mut().fail_unsent(&Cause::Down(why));
    }

    /// Connects and greets, while deadlines of what waits go on.
    async fn establish(&self) -> Result<Stream, Unmade> {
        let current = Arc::clone(&self.current.borrow());
        self.connected_to.set(current.epoch);
        let timeout = current.terms.limits.timeout;
        let ticking = async {
            while !self.closing.get() && !self.is_leaving() {
                tokio::time::sleep(TICK).await;
                let failed = self.pipeline.borrow_mut().expire(clock::now());
                if failed > 0 && self.options.fragile {
                    break;
                }
            }
        };
        let connecting = async {
            let place = &current.terms.place;
            if let Some(through) = &self.options.through {
                return Ok(through.dial());
            }
            if let Some(why) = &place.vacant {
                return Err(why.to_string());
            }
            let connected = connect(&place.address, place.tls.as_ref(), timeout).await;
            let mut stream = connected.map_err(|error| {
                let why = error.to_string();
                if !self.has_news(|current| current.moved) {
                    self.options.endpoint.doubt();
                    self.health.connect_failed(&why);
                }
                why
            })?;
            let greeting = (self.options.greeter)(place);
            self.greet(&greeting, &mut stream).await?;
            Ok(stream)
        };
        let failed = |why: String| Err(Unmade::Failed(why));
        tokio::select! {
            outcome = tokio::time::timeout(timeout, connecting) => match outcome {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(_)) if self.is_leaving() => Err(Unmade::Moved),
                Ok(Err(why)) => failed(why),
                Err(_) => failed(format!("no answer to the greeting within {timeout:?}")),
            },
            () = ticking => if self.is_leaving() && !self.closing.get() {
                Err(Unmade::Moved)
            } else {
                failed("the connection was given up".to_owned())
            },
        }
    }

    async fn greet(&self, greeting: &Greeting, stream: &mut Stream) -> Result<(), String> {
        if greeting.replies == 0 {
            return Ok(());
        }
        let lost = |error: io::Error| format!("lost while greeting ({error})");
        stream.write_all(&greeting.bytes).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut bytes = Vec::with_capacity(512);
        let mut scanner = W::Scanner::default();
        let mut replies = 0;
        while replies < greeting.replies {
            match W::scan(&mut scanner, None, &bytes) {
                Scan::Complete(length) => {
                    let reply: Vec<u8> = bytes.drain(..length).collect();
                    if greeting.transaction_probe == Some(replies) {
                        self.canary_in_transaction.set(reply == b"*0\r\n");
                    }
                    let tolerated = greeting.tolerated.contains(&replies);
                    if reply.first() == Some(&b'-') && !tolerated {
                        let text = String::from_utf8_lossy(&reply);
                        return Err(format!("the server refused our login: {}", text.trim_end()));
                    }
                    let proof = greeting
                        .proofs
                        .iter()
                        .find(|(number, _)| *number == replies);
                    if proof.is_some_and(|(_, expected)| *expected != reply) {
                        return Err(
                            "the server there does not carry this shard's marker".to_owned()
                        );
                    }
                    scanner = W::Scanner::default();
                    replies += 1;
                }
                Scan::Skip(length) => drop(bytes.drain(..length)),
                Scan::Incomplete => {
                    if stream.read_buf(&mut bytes).await.map_err(lost)? == 0 {
                        return Err("closed while greeting".to_owned());
                    }
                }
                Scan::Wrong(why) => return Err(format!("answered our greeting with {why}")),
            }
        }
        self.pipeline.borrow_mut().heard(clock::now());
        Ok(())
    }
}

/// Why there is no connection.
enum Unmade {
    /// It failed; the text says how.
    Failed(String),
    /// The endpoint is elsewhere by now.
    Moved,
}

/// Tells an upstream what becomes of its endpoint. A task of its own: it costs nothing while bytes
/// are moved.
async fn follow<W: Wire, R: Recipient + 'static>(
    upstream: Weak<Upstream<W, R>>,
    mut news: watch::Receiver<Arc<Current>>,
) {
    while news.changed().await.is_ok() {
        let current = Arc::clone(&news.borrow_and_update());
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        upstream.renew(current);
    }
}

/// `connection refused, 3 s`
fn describe(down: &DownReason) -> String {
    let seconds = clock::now().saturating_duration_since(down.since).as_secs();
    format!("{}, {seconds} s", down.text)
}

fn lost(error: &io::Error) -> Cause {
    Cause::Lost(error.to_string().into())
}

fn given_up() -> Cause {
    Cause::Lost("the connection was given up".into())
}

fn moved() -> Cause {
    Cause::Lost("the store has another address or login now".into())
}

#[cfg(test)]
mod tests;
