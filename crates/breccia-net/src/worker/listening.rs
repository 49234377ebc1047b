//! Listeners at work: whom they take, and to which worker a connection goes.
//!
//! Not the sockets themselves. Invariant: what a connection counts for (its listener's clients, its
//! worker's load) is given back exactly once, however the connection ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::{ListenerIndex, Order, Worker};
use crate::drain::Drain;
use crate::listener::{BACKLOG, Bind, Listener, Taken};
use crate::metrics::{self, Gauge, Registry, SharedCounter};
use crate::tls::TlsServer;

/// How a listener takes connections.
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// Its name in the configuration.
    pub name: String,
    /// TLS, if it speaks it.
    pub tls: Option<TlsServer>,
    /// More connections than this are refused.
    pub max_clients: usize,
    /// What a refused client is told, in its protocol; not sent under TLS.
    pub refusal: &'static [u8],
    /// The way out of this listener: the gateway's own, or a part of it.
    pub drain: Drain,
}

/// A listener that accepts.
#[derive(Debug, Clone)]
pub struct ListenerHandle {
    shared: Arc<ListenerShared>,
}

impl ListenerHandle {
    pub(super) fn new(shared: Arc<ListenerShared>) -> Self {
        Self { shared }
    }

    /// The listener's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it listens, with the port the system chose if it was asked to.
    #[must_use]
    pub fn bind(&self) -> &Bind {
        &self.shared.bind
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Its way out: it stops to accept when that begins to drain.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.shared.drain
    }

    /// Changes how many connections it takes. Open ones stay.
    pub fn set_max_clients(&self, max_clients: usize) {
        self.shared
            .max_clients
            .store(max_clients, Ordering::Relaxed);
    }

    /// Changes the TLS of connections to come: renewed certificates, say.
    pub fn set_tls(&self, tls: Option<TlsServer>) {
        *self
            .shared
            .tls
            .write()
            .unwrap_or_else(PoisonError::into_inner) = tls;
    }
}

impl ListenerShared {
    pub(super) fn new(
        index: ListenerIndex,
        listener: &Listener,
        options: ListenerOptions,
        registry: &Registry,
    ) -> Arc<Self> {
        let name: Arc<str> = options.name.into();
        let refused =
            |reason| registry.shared_counter(&metrics::CONNECTIONS_REFUSED, &[&name, reason]);
        Arc::new(Self {
            bind: listener.bind().clone(),
            local: listener.bind().to_string().into(),
            index,
            max_clients: AtomicUsize::new(options.max_clients),
            open: AtomicUsize::new(0),
            gauge: registry.gauge(&metrics::CONNECTIONS, &[&name]),
            accepted: registry.shared_counter(&metrics::CONNECTIONS_ACCEPTED, &[&name]),
            refused_full: refused("max-clients"),
            refused_handshake: refused("tls"),
            limit_hits: registry.shared_counter(&metrics::LIMIT_HITS, &[&name, "max-clients"]),
            tls: RwLock::new(options.tls),
            refusal: options.refusal,
            drain: options.drain,
            name,
        })
    }

    pub(super) fn tls(&self) -> Option<TlsServer> {
        self.tls
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[derive(Debug)]
pub(super) struct ListenerShared {
    pub(super) name: Arc<str>,
    pub(super) drain: Drain,
    bind: Bind,
    pub(super) local: Arc<str>,
    pub(super) index: ListenerIndex,
    tls: RwLock<Option<TlsServer>>,
    refusal: &'static [u8],
    max_clients: AtomicUsize,
    open: AtomicUsize,
    gauge: Gauge,
    accepted: SharedCounter,
    refused_full: SharedCounter,
    pub(super) refused_handshake: SharedCounter,
    limit_hits: SharedCounter,
}

/// A connection on its way to a worker. Its counts are given back when it is dropped.
#[derive(Debug)]
pub(super) struct Dealt {
    pub(super) socket: Option<Taken>,
    pub(super) peer: String,
    pub(super) listener: Arc<ListenerShared>,
    load: Arc<AtomicUsize>,
}

impl Drop for Dealt {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
        self.listener.gauge.decrement();
    }
}

pub(super) async fn accept_all(
    listener: Listener,
    shared: Arc<ListenerShared>,
    workers: Arc<Vec<Worker>>,
) {
    loop {
        let (socket, peer) = tokio::select! {
            biased;
            () = shared.drain.draining() => break,
            taken = listener.accept() => taken,
        };
        deal(socket, peer, &shared, &workers);
    }
    // What waits in the backlog may have sent its request already: it is answered too.
    let waiting = Duration::from_millis(1);
    for _ in 0..BACKLOG {
        match tokio::time::timeout(waiting, listener.accept()).await {
            Ok((socket, peer)) => deal(socket, peer, &shared, &workers),
            Err(_) => break,
        }
    }
    for worker in workers.iter() {
        let _ = worker.sender.send(Order::Retire(shared.index));
    }
}

fn deal(socket: Taken, peer: String, shared: &Arc<ListenerShared>, workers: &[Worker]) {
    if shared.open.load(Ordering::Relaxed) >= shared.max_clients.load(Ordering::Relaxed) {
        shared.refused_full.increment();
        shared.limit_hits.increment();
        if shared.tls().is_none() {
            socket.try_tell(shared.refusal);
        }
        return;
    }
    let alive = workers.iter().filter(|worker| !worker.sender.is_closed());
    let by_load = |worker: &&Worker| worker.load.load(Ordering::Relaxed);
    let Some(worker) = alive.min_by_key(by_load) else {
        return;
    };
    worker.load.fetch_add(1, Ordering::Relaxed);
    shared.open.fetch_add(1, Ordering::Relaxed);
    shared.gauge.increment();
    shared.accepted.increment();
    let dealt = Dealt {
        socket: Some(socket),
        peer,
        listener: Arc::clone(shared),
        load: Arc::clone(&worker.load),
    };
    // If the worker is gone the connection is closed with the value.
    let _ = worker.sender.send(Order::Serve(dealt));
}
