//! Connections of one login on one server, lent to the sessions of all workers.
//!
//! Not a session's state. Invariant: at most `size` connections are open, whoever waits longest is
//! served first, and a connection that is given back dirty is closed, never lent again.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::health::EndpointHealth;
use breccia_net::stream::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot::{self, Sender};

use crate::error::SqlError;
use crate::outage::{check_up, until_down};

/// The pause between two looks whether a server is still there.
const LISTENING_PAUSE: Duration = Duration::from_millis(20);
/// How long it may take to see whether a server is still there.
const LISTENING_LOOK: Duration = Duration::from_millis(500);

/// Where connections come from: a server, spoken to in its protocol.
pub trait Wire: Debug + Send + Sync {
    /// Who logs in, and everything else that tells connections apart for good.
    type Login: Clone + Eq + Hash + Debug + Send + Sync;
    /// A connection that is logged in.
    type Connection: Connection;
    /// What is known of a pool's connections beside.
    type Kept: Default + Debug + Send + Sync;

    /// The store's name.
    fn name(&self) -> &str;

    /// Makes a connection and logs in, within a bounded time.
    fn open(
        &self,
        login: &Self::Login,
    ) -> impl Future<Output = Result<Self::Connection, SqlError>> + Send;
}

/// A connection as a pool sees it.
pub trait Connection: Debug + Send {
    /// Its stream, which is plain or under TLS.
    fn stream(&mut self) -> &mut Stream;

    /// The same with what `change` makes of its stream.
    fn with_stream(
        self: Box<Self>,
        change: impl FnOnce(Stream) -> io::Result<Stream>,
    ) -> io::Result<Box<Self>>;

    /// Whether there are bytes that were read and not looked at.
    fn has_unread(&self) -> bool;

    /// When it was made.
    fn born(&self) -> Instant;

    /// It is to lie idle: buffers that have grown are let go.
    fn rest(&mut self);
}

/// The limits of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// The most connections.
    pub size: usize,
    /// How long a session may wait for one.
    pub queue_timeout: Duration,
    /// A connection older than this is closed instead of lent again.
    pub max_lifetime: Duration,
    /// A connection nobody has used for this long is closed.
    pub idle_timeout: Duration,
}

/// The limits of all pools of one listener, as they are now.
#[derive(Debug)]
pub struct PoolLimits {
    listener: String,
    size: AtomicUsize,
    queue_timeout_ms: AtomicU64,
    max_lifetime_ms: AtomicU64,
    idle_timeout_ms: AtomicU64,
}

impl PoolLimits {
    /// The limits of the pools of `listener`.
    #[must_use]
    pub fn new(listener: &str, options: &PoolOptions) -> Arc<Self> {
        let limits = Self {
            listener: listener.to_owned(),
            size: AtomicUsize::default(),
            queue_timeout_ms: AtomicU64::default(),
            max_lifetime_ms: AtomicU64::default(),
            idle_timeout_ms: AtomicU64::default(),
        };
        limits.set(options);
        Arc::new(limits)
    }

    /// Changes them. Pools follow at their next [`Pool::tidy`], if not before.
    pub fn set(&self, options: &PoolOptions) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let set = |cell: &AtomicU64, time| cell.store(ms(time), Ordering::Relaxed);
        self.size.store(options.size, Ordering::Relaxed);
        set(&self.queue_timeout_ms, options.queue_timeout);
        set(&self.max_lifetime_ms, options.max_lifetime);
        set(&self.idle_timeout_ms, options.idle_timeout);
    }

    /// Whose they are.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// The most connections of one pool.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// How long a session may wait for a connection.
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        Duration::from_millis(self.queue_timeout_ms.load(Ordering::Relaxed))
    }

    fn max_lifetime(&self) -> Duration {
        Duration::from_millis(self.max_lifetime_ms.load(Ordering::Relaxed))
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms.load(Ordering::Relaxed))
    }
}

/// Connections of one login on one server.
#[derive(Debug)]
pub struct Pool<W: Wire> {
    endpoint: W,
    health: Arc<EndpointHealth>,
    login: W::Login,
    limits: Arc<PoolLimits>,
    state: Mutex<State<W::Connection>>,
    kept: W::Kept,
}

#[derive(Debug)]
struct State<C> {
    idle: Vec<Idle<C>>,
    /// Lent, idle and being made.
    open: usize,
    waiting: VecDeque<Sender<Grant<C>>>,
}

impl<C> Default for State<C> {
    fn default() -> Self {
        Self {
            idle: Vec::new(),
            open: 0,
            waiting: VecDeque::new(),
        }
    }
}

#[derive(Debug)]
struct Idle<C> {
    upstream: Box<C>,
    since: Instant,
    /// The worker whose runtime the connection is registered with.
    home: usize,
}

/// What one that waited is given.
#[derive(Debug)]
enum Grant<C> {
    Connection(Idle<C>),
    /// It may make one.
    Permit,
}

/// What one that comes for a connection finds.
enum Place<C> {
    Granted(Grant<C>),
    Waits(oneshot::Receiver<Grant<C>>),
}

/// A connection that is lent; dropped without [`Lease::give_back`] it is closed.
#[derive(Debug)]
pub struct Lease<W: Wire> {
    pool: Arc<Pool<W>>,
    pub(crate) upstream: Option<Box<W::Connection>>,
    given_back: bool,
}

/// A number of the thread that asks, which no other has.
fn this_worker() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = LAST.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl<W: Wire> Pool<W> {
    /// An empty pool.
    #[must_use]
    pub fn new(
        endpoint: W,
        health: Arc<EndpointHealth>,
        login: W::Login,
        limits: Arc<PoolLimits>,
    ) -> Self {
        Self {
            endpoint,
            health,
            login,
            limits,
            state: Mutex::default(),
            kept: W::Kept::default(),
        }
    }

    /// Where the connections go.
    #[must_use]
    pub fn endpoint(&self) -> &W {
        &self.endpoint
    }

    /// The endpoint's health.
    #[must_use]
    pub fn health(&self) -> &Arc<EndpointHealth> {
        &self.health
    }

    /// The listener it is of.
    #[must_use]
    pub fn listener(&self) -> &str {
        self.limits.listener()
    }

    /// Who its connections are logged in as.
    #[must_use]
    pub fn login(&self) -> &W::Login {
        &self.login
    }

    /// What is known of its connections beside.
    #[must_use]
    pub fn kept(&self) -> &W::Kept {
        &self.kept
    }

    /// Connections that are idle, and all that are open.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.idle.len(), state.open)
    }

    /// Whether who asks now must wait until a connection is given back.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        let state = self.lock();
        state.idle.is_empty() && state.open >= self.limits.size()
    }

    /// Sessions that wait for a connection.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.lock();
        let waits = |sender: &&Sender<Grant<W::Connection>>| !sender.is_closed();
        state.waiting.iter().filter(waits).count()
    }

    /// Closes what is idle.
    pub fn close_idle(&self) {
        let mut state = self.lock();
        state.open -= state.idle.len();
        state.idle.clear();
    }

    /// Lends a connection that is idle and registered with this worker, if there is one and nobody waits.
    pub fn lend_at_once(self: &Arc<Self>) -> Option<Lease<W>> {
        loop {
            let idle = {
                let mut state = self.lock();
                let at = state.waiting.is_empty().then(|| Self::idle_here(&state));
                state.idle.remove(at.flatten()?)
            };
            let mut lease = self.lease(Some(idle.upstream));
            if lease.upstream().is_some_and(is_quiet) {
                return Some(lease);
            }
            // Its server has ended it, or says so now.
        }
    }

    /// Lends a connection: an idle one, a new one, or the next that is given back within `queue-timeout`.
    pub async fn lend(self: &Arc<Self>) -> Result<Lease<W>, SqlError> {
        self.lend_by(clock::now() + self.limits.queue_timeout())
            .await
    }

    /// The same by `end`, for one that may have waited elsewhere before: if that is over, what there is.
    pub async fn lend_by(self: &Arc<Self>, end: Instant) -> Result<Lease<W>, SqlError> {
        let receiver = loop {
            match self.queue() {
                Place::Granted(Grant::Permit) => return self.make().await,
                Place::Granted(Grant::Connection(idle)) => {
                    let mut lease = self.adopt(idle).await?;
                    if lease.upstream().is_some_and(is_quiet) {
                        return Ok(lease);
                    }
                    // Its server has ended it, or says so now.
                }
                Place::Waits(receiver) => break receiver,
            }
        };
        let waiting = Waiting {
            pool: self,
            receiver,
        };
        // Whoever holds a connection to a server that is down gives back none that is of use.
        check_up(&self.health, self.endpoint.name())?;
        match tokio::time::timeout_at(end.into(), waiting.granted()).await {
            Ok(Some(Grant::Connection(idle))) => self.adopt(idle).await,
            Ok(Some(Grant::Permit)) => self.make().await,
            Ok(None) | Err(_) => Err(SqlError::PoolFull {
                server: self.endpoint.name().to_owned(),
                after: self.limits.queue_timeout(),
                size: self.limits.size(),
            }),
        }
    }

    /// Closes what is too old or has been idle for too long, and follows limits that were changed.
    pub fn tidy(&self) {
        let now = clock::now();
        let (size, limit) = (self.limits.size(), self.limits.idle_timeout());
        let lifetime = self.limits.max_lifetime();
        let mut guard = self.lock();
        let state = &mut *guard;
        let before = state.idle.len();
        state.idle.retain(|idle| {
            now.saturating_duration_since(idle.since) < limit
                && now.saturating_duration_since(idle.upstream.born()) < lifetime
        });
        let surplus = state.open.saturating_sub(size);
        let kept = before.saturating_sub(surplus).min(state.idle.len());
        // The first of them were used longest ago.
        state.idle.drain(..state.idle.len() - kept);
        state.open -= before - state.idle.len();
        while state.open < size
            && let Some(waiting) = state.waiting.pop_front()
        {
            if waiting.send(Grant::Permit).is_ok() {
                state.open += 1;
            }
        }
    }

    /// What there is for one that comes now, or its place behind those who wait. In one step: what is
    /// given back meanwhile would find nobody waiting, and lie idle while this one waits.
    fn queue(&self) -> Place<W::Connection> {
        let mut state = self.lock();
        while state.waiting.front().is_some_and(Sender::is_closed) {
            state.waiting.pop_front();
        }
        if state.waiting.is_empty() {
            if let Some(idle) = Self::take_idle(&mut state) {
                return Place::Granted(Grant::Connection(idle));
            }
            if state.open < self.limits.size() {
                state.open += 1;
                return Place::Granted(Grant::Permit);
            }
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(sender);
        Place::Waits(receiver)
    }

    /// An idle connection, best one of this worker, of those the one used last.
    fn take_idle(state: &mut State<W::Connection>) -> Option<Idle<W::Connection>> {
        match Self::idle_here(state) {
            Some(at) => Some(state.idle.remove(at)),
            None => state.idle.pop(),
        }
    }

    /// Where the one of this worker is that was used last.
    fn idle_here(state: &State<W::Connection>) -> Option<usize> {
        let here = this_worker();
        state.idle.iter().rposition(|idle| idle.home == here)
    }

    fn lease(self: &Arc<Self>, upstream: Option<Box<W::Connection>>) -> Lease<W> {
        Lease {
            pool: Arc::clone(self),
            upstream,
            given_back: false,
        }
    }

    /// Registers a connection of another worker with this one.
    async fn adopt(self: &Arc<Self>, idle: Idle<W::Connection>) -> Result<Lease<W>, SqlError> {
        let mut upstream = idle.upstream;
        if idle.home != this_worker() {
            match upstream.with_stream(moved) {
                Ok(here) => upstream = here,
                Err(_) => return self.make().await,
            }
        }
        Ok(self.lease(Some(upstream)))
    }

    /// Makes a connection under a permit this holds already.
    async fn make(self: &Arc<Self>) -> Result<Lease<W>, SqlError> {
        let mut lease = self.lease(None);
        check_up(&self.health, self.endpoint.name())?;
        let opening = self.endpoint.open(&self.login);
        match until_down(opening, &self.health, self.endpoint.name()).await {
            Ok(upstream) => {
                self.health.note_bytes();
                lease.upstream = Some(Box::new(upstream));
                Ok(lease)
            }
            Err(error) => {
                if let SqlError::Connect { source, .. } = &error {
                    self.health.connect_failed(&source.to_string());
                }
                Err(error)
            }
        }
    }

    /// Whether something listens where the connections go, be it that it refuses or is slow.
    pub async fn is_listening(&self) -> bool {
        let look = async {
            loop {
                match self.endpoint.open(&self.login).await {
                    Err(SqlError::Connect { .. }) => return false,
                    // It was killed just now, or kills what it has begun after a crash.
                    Err(SqlError::Lost { .. }) => tokio::time::sleep(LISTENING_PAUSE).await,
                    _ => return true,
                }
            }
        };
        tokio::time::timeout(LISTENING_LOOK, look)
            .await
            .unwrap_or(true)
    }

    /// A connection or a permit is free: to the one who waits longest, or back to the rest.
    fn free(&self, mut grant: Grant<W::Connection>) {
        let mut state = self.lock();
        if state.open > self.limits.size() {
            // A reload allows fewer: the connection, if there is one, is closed with its grant.
            state.open -= 1;
            return;
        }
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(grant) {
                Ok(()) => return,
                Err(back) => grant = back,
            }
        }
        match grant {
            Grant::Connection(idle) => state.idle.push(idle),
            Grant::Permit => state.open -= 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W::Connection>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits; if it goes away with a grant in its hands, the grant goes to the next.
struct Waiting<'a, W: Wire> {
    pool: &'a Arc<Pool<W>>,
    receiver: oneshot::Receiver<Grant<W::Connection>>,
}

impl<W: Wire> Waiting<'_, W> {
    async fn granted(mut self) -> Option<Grant<W::Connection>> {
        (&mut self.receiver).await.ok()
    }
}

impl<W: Wire> Drop for Waiting<'_, W> {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(grant) = self.receiver.try_recv() {
            self.pool.free(grant);
        }
    }
}

impl<W: Wire> Lease<W> {
    /// The connection.
    pub fn upstream(&mut self) -> Option<&mut W::Connection> {
        self.upstream.as_deref_mut()
    }

    /// The pool it is of.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool<W>> {
        &self.pool
    }

    /// Gives back a connection that is idle, outside any transaction, and has nothing unread.
    pub fn give_back(self) {
        self.give_back_at(clock::now());
    }

    /// The same for one who knows the time.
    pub fn give_back_at(mut self, now: Instant) {
        let Some(mut upstream) = self.upstream.take() else {
            return;
        };
        upstream.rest();
        if now.saturating_duration_since(upstream.born()) >= self.pool.limits.max_lifetime() {
            self.pool.free(Grant::Permit);
        } else {
            self.pool.free(Grant::Connection(Idle {
                upstream,
                since: now,
                home: this_worker(),
            }));
        }
        // The permit went with the connection.
        self.given_back = true;
    }
}

impl<W: Wire> Drop for Lease<W> {
    fn drop(&mut self) {
        // The connection, if there is one, is closed with this value.
        if !self.given_back {
            self.pool.free(Grant::Permit);
        }
    }
}

/// Whether an idle connection has nothing to say. It costs no system call while nothing came.
pub(crate) fn is_quiet<C: Connection>(upstream: &mut C) -> bool {
    let mut space = [0; 1];
    let waits = |read: io::Result<usize>| matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    !upstream.has_unread()
        && match upstream.stream() {
            Stream::Tcp(tcp) => waits(tcp.try_read(&mut space)),
            Stream::Unix(unix) => waits(unix.try_read(&mut space)),
            tls => {
                let mut context = Context::from_waker(Waker::noop());
                let mut buffer = ReadBuf::new(&mut space);
                Pin::new(tls)
                    .poll_read(&mut context, &mut buffer)
                    .is_pending()
            }
        }
}

/// Takes a plain connection out of the runtime it is registered with and into this one. Under TLS
/// it stays: it works from here too, only its wake-ups come over the other worker.
fn moved(stream: Stream) -> io::Result<Stream> {
    Ok(match stream {
        Stream::Tcp(tcp) => {
            let tcp = tcp.into_std()?;
            // The new runtime has not heard of it yet, so ask the system.
            match tcp.peek(&mut [0; 1]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
            Stream::Tcp(TcpStream::from_std(tcp)?.into())
        }
        Stream::Unix(unix) => Stream::Unix(UnixStream::from_std(unix.into_std()?)?),
        other => other,
    })
}
