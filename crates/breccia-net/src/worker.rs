//! Worker threads, and the connections dealt to them.
//!
//! Not a work-stealing pool: a connection stays on its worker. Invariant: no lock and no message
//! between threads per request; threads meet only when a connection is dealt or ends, or a listener
//! comes or goes.

mod listening;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;

use crate::clock;
use crate::drain::Drain;
use crate::error::NetError;
use crate::listener::{Listener, Taken};
use crate::metrics::Registry;
use crate::sends;
use crate::stream::Stream;

use listening::{Dealt, ListenerShared, accept_all};
pub use listening::{ListenerHandle, ListenerOptions};

/// A client must finish the TLS handshake within this time.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long connections have to end once the drain timeout has passed.
const CLOSING_GRACE: Duration = Duration::from_secs(1);

/// The number of a worker, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerIndex(pub usize);

/// The number of a listener. It is never given to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerIndex(pub usize);

/// A connection of a client, ready to be served.
#[derive(Debug)]
pub struct Accepted {
    /// The connection; a TLS handshake is done.
    pub stream: Stream,
    /// The client's address, or `unix`.
    pub peer: String,
    /// The address it came in on, as the listener is bound.
    pub local: Arc<str>,
    /// The listener it came in on.
    pub listener: ListenerIndex,
    /// Whether the client has shown a certificate that the listener's authority signed.
    pub client_certificate: bool,
}

/// What one listener does with connections, on one worker.
pub trait Service {
    /// Serves a connection until it ends. It ends soon after the drain begins, and at once when it
    /// reaches its closing phase.
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>>;
}

/// Makes the services of one worker, on its own thread.
pub trait Workshop {
    /// The service of a listener, before the first connection of it comes.
    fn service(&mut self, index: ListenerIndex, name: &str) -> Option<Rc<dyn Service>>;
}

/// Services made beforehand, in the order of the listeners.
impl Workshop for Vec<Rc<dyn Service>> {
    fn service(&mut self, index: ListenerIndex, _: &str) -> Option<Rc<dyn Service>> {
        self.get(index.0).map(Rc::clone)
    }
}

/// What a worker is told.
#[derive(Debug)]
enum Order {
    /// A listener begins.
    Open(ListenerIndex, Arc<str>),
    /// A connection came.
    Serve(Dealt),
    /// A listener has ended, and its last connection was dealt.
    Retire(ListenerIndex),
}

#[derive(Debug)]
struct Worker {
    sender: mpsc::UnboundedSender<Order>,
    load: Arc<AtomicUsize>,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when the time was up.
    pub cut: usize,
}

/// The worker threads of a gateway.
#[derive(Debug)]
pub struct WorkerPool {
    workers: Arc<Vec<Worker>>,
    threads: Vec<JoinHandle<()>>,
    acceptors: Acceptors,
    drain: Drain,
}

/// The tasks that accept.
type Acceptors = Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>;

impl WorkerPool {
    /// Starts `count` threads. `factory` runs on each and makes its workshop; that may spawn local
    /// tasks.
    pub fn start<F, W>(count: usize, drain: Drain, factory: F) -> Result<Self, NetError>
    where
        F: Fn(WorkerIndex) -> W + Clone + Send + 'static,
        W: Workshop,
    {
        let mut workers = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        let (started, starts) = std_mpsc::channel();
        for number in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (factory, started) = (factory.clone(), started.clone());
            let thread = std::thread::Builder::new()
                .name(format!("breccia-worker-{number}"))
                .spawn(move || run_worker(WorkerIndex(number), &factory, receiver, &started))
                .map_err(|source| NetError::Worker {
                    worker: number,
                    source,
                })?;
            threads.push(thread);
            workers.push(Worker {
                sender,
                load: Arc::default(),
            });
        }
        drop(started);
        for _ in 0..count {
            starts.recv().unwrap_or_else(|_| {
                let source = io::Error::other("its thread ended");
                Err(NetError::Worker {
                    worker: count,
                    source,
                })
            })?;
        }
        Ok(Self {
            workers: Arc::new(workers),
            threads,
            acceptors: Acceptors::default(),
            drain,
        })
    }

    /// Starts to accept on `listener`, in the tokio runtime this is called in.
    pub fn listen(
        &self,
        index: ListenerIndex,
        listener: Listener,
        options: ListenerOptions,
        registry: &Registry,
    ) -> ListenerHandle {
        listen(
            &self.workers,
            &self.acceptors,
            (index, listener),
            options,
            registry,
        )
    }

    /// The way to further listeners.
    #[must_use]
    pub fn openings(&self) -> Openings {
        Openings {
            workers: Arc::downgrade(&self.workers),
            acceptors: Arc::clone(&self.acceptors),
        }
    }

    /// Connections that are open on all workers.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.workers
            .iter()
            .map(|worker| worker.load.load(Ordering::Relaxed))
            .sum()
    }

    /// Stops accepting, waits until every connection has ended or `timeout` has passed, then closes
    /// what is left and ends the threads.
    pub async fn drain(self, timeout: Duration) -> Drained {
        self.drain.begin();
        let Self {
            workers,
            threads,
            acceptors,
            drain,
        } = self;
        for acceptor in taken(&acceptors) {
            let _ = acceptor.await;
        }
        let cut = wait_until_idle(&workers, clock::now() + timeout).await;
        drain.close();
        wait_until_idle(&workers, clock::now() + CLOSING_GRACE).await;
        // Without senders the workers end.
        drop(workers);
        let end = clock::now() + CLOSING_GRACE;
        while !threads.iter().all(JoinHandle::is_finished) && clock::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Drained { cut }
    }
}

/// Opens further listeners of a pool for as long as it runs.
#[derive(Debug, Clone)]
pub struct Openings {
    workers: Weak<Vec<Worker>>,
    acceptors: Acceptors,
}

impl Openings {
    /// The same as [`WorkerPool::listen`]; `None` if the pool has ended.
    #[must_use]
    pub fn listen(
        &self,
        index: ListenerIndex,
        listener: Listener,
        options: ListenerOptions,
        registry: &Registry,
    ) -> Option<ListenerHandle> {
        let workers = self.workers.upgrade()?;
        Some(listen(
            &workers,
            &self.acceptors,
            (index, listener),
            options,
            registry,
        ))
    }
}

fn listen(
    workers: &Arc<Vec<Worker>>,
    acceptors: &Acceptors,
    (index, listener): (ListenerIndex, Listener),
    options: ListenerOptions,
    registry: &Registry,
) -> ListenerHandle {
    let shared = ListenerShared::new(index, &listener, options, registry);
    for worker in workers.iter() {
        // If the worker is gone, no connection is dealt to it.
        let _ = worker
            .sender
            .send(Order::Open(index, Arc::clone(&shared.name)));
    }
    let acceptor = accept_all(listener, Arc::clone(&shared), Arc::clone(workers));
    let mut accepting = acceptors.lock().unwrap_or_else(PoisonError::into_inner);
    accepting.retain(|acceptor| !acceptor.is_finished());
    accepting.push(tokio::spawn(acceptor));
    ListenerHandle::new(shared)
}

fn taken(acceptors: &Acceptors) -> Vec<tokio::task::JoinHandle<()>> {
    std::mem::take(&mut *acceptors.lock().unwrap_or_else(PoisonError::into_inner))
}

async fn wait_until_idle(workers: &[Worker], end: Instant) -> usize {
    loop {
        let open = workers
            .iter()
            .map(|worker| worker.load.load(Ordering::Relaxed))
            .sum();
        if open == 0 || clock::now() >= end {
            return open;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn run_worker<F, W>(
    index: WorkerIndex,
    factory: &F,
    orders: mpsc::UnboundedReceiver<Order>,
    started: &std_mpsc::Sender<Result<(), NetError>>,
) where
    F: Fn(WorkerIndex) -> W,
    W: Workshop,
{
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(source) => {
            let _ = started.send(Err(NetError::Worker {
                worker: index.0,
                source,
            }));
            return;
        }
    };
    // Not a `LocalSet` in a runtime: its tasks take a lock and one more queue for each wake-up.
    runtime.block_on(async {
        let workshop = factory(index);
        let _ = started.send(Ok(()));
        obey(workshop, orders).await;
        sends::part_here();
    });
}

async fn obey<W: Workshop>(mut workshop: W, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut services = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(index, name) => {
                if let Some(service) = workshop.service(index, &name) {
                    services.insert(index, service);
                } else {
                    tracing::error!(listener = &*name, "the listener has no service");
                }
            }
            // Connections that are open keep their service.
            Order::Retire(index) => drop(services.remove(&index)),
            Order::Serve(dealt) => {
                if let Some(service) = services.get(&dealt.listener.index) {
                    tokio::task::spawn_local(serve_one(Rc::clone(service), dealt));
                }
            }
        }
    }
}

async fn serve_one(service: Rc<dyn Service>, mut dealt: Dealt) {
    let drain = dealt.listener.drain.clone();
    let Some(socket) = dealt.socket.take() else {
        return;
    };
    let prepared = tokio::select! {
        biased;
        prepared = prepare(socket, &dealt) => prepared,
        // No request can have arrived before the handshake is done: nothing is lost.
        () = drain.draining() => return,
    };
    match prepared {
        Ok(accepted) => service.serve(accepted).await,
        Err(error) => {
            dealt.listener.refused_handshake.increment();
            tracing::debug!(listener = &*dealt.listener.name, %error, "a connection was not taken");
        }
    }
}

/// Registers the socket with this worker and does the TLS handshake.
async fn prepare(socket: Taken, dealt: &Dealt) -> Result<Accepted, NetError> {
    let broken = |source| NetError::Handshake {
        peer: dealt.peer.clone(),
        source,
    };
    let socket = socket.register().map_err(broken)?;
    let (stream, client_certificate) = match dealt.listener.tls() {
        None => (Stream::from(socket), false),
        Some(tls) => {
            let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, tls.handshake(socket)).await;
            let late = |_| NetError::HandshakeTimeout {
                peer: dealt.peer.clone(),
                after: HANDSHAKE_LIMIT,
            };
            let stream = shaken.map_err(late)?.map_err(broken)?;
            let certificate = stream.get_ref().1.peer_certificates().is_some();
            (Stream::TlsServer(Box::new(stream)), certificate)
        }
    };
    Ok(Accepted {
        stream,
        peer: dealt.peer.clone(),
        local: Arc::clone(&dealt.listener.local),
        listener: dealt.listener.index,
        client_certificate,
    })
}

#[cfg(test)]
mod tests;
