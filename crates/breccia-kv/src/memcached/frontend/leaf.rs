//! One memcached server as one worker uses it: its shared connections, and one for bulk.
//!
//! Invariant: a client always uses the same connection, or waits for its earlier replies before it
//! changes to another: its requests to one server are carried out in its order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use breccia_net::metrics::Registry;

use super::super::wire::MemcachedWire;
use super::ticket::Ticket;
use crate::endpoint::Endpoint;
use crate::front::metrics::StoreMetrics;
use crate::upstream::{Greeting, Upstream, UpstreamOptions};

/// A memcached connection of this worker.
pub(crate) type MemcachedUpstream = Upstream<MemcachedWire, Ticket>;

/// A `memcached` store, as the configuration describes it.
#[derive(Debug)]
pub struct MemcachedLeaf {
    /// Its path for messages, as in `cache/mc-b`.
    pub name: String,
    /// The store's own name.
    pub store: String,
    /// The server, and the terms on which it is used.
    pub endpoint: Arc<Endpoint>,
    /// Shared connections of each worker.
    pub connections: usize,
}

/// Which of a worker's connections to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// A shared one, by number.
    Shared(usize),
    /// The one for large requests, and for clients that were sent a large reply.
    Bulk,
}

/// One memcached server as one worker uses it.
pub(crate) struct Leaf {
    pub(crate) spec: Arc<MemcachedLeaf>,
    metrics: Rc<StoreMetrics>,
    open: RefCell<BTreeMap<Lane, Rc<MemcachedUpstream>>>,
}

impl Leaf {
    pub(crate) fn new(spec: Arc<MemcachedLeaf>, registry: &Registry) -> Rc<Self> {
        Rc::new(Self {
            metrics: StoreMetrics::new(registry, &spec.store),
            spec,
            open: RefCell::default(),
        })
    }

    /// The shared connection that a client uses.
    pub(crate) fn shared(&self, client: u64) -> Rc<MemcachedUpstream> {
        let connections = u64::try_from(self.spec.connections.max(1)).unwrap_or(1);
        self.lane(Lane::Shared(
            usize::try_from(client % connections).unwrap_or(0),
        ))
    }

    /// The connection for what would hold others up.
    pub(crate) fn bulk(&self) -> Rc<MemcachedUpstream> {
        self.lane(Lane::Bulk)
    }

    fn lane(&self, lane: Lane) -> Rc<MemcachedUpstream> {
        let mut open = self.open.borrow_mut();
        let connect = || Upstream::open(self.options(), Some(Rc::clone(&self.metrics)));
        Rc::clone(open.entry(lane).or_insert_with(connect))
    }

    fn options(&self) -> UpstreamOptions {
        UpstreamOptions {
            name: self.spec.name.clone(),
            endpoint: Arc::clone(&self.spec.endpoint),
            greeter: Arc::new(|_| Greeting::default()),
            identity: None,
            through: None,
            fragile: false,
        }
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        for open in self.open.get_mut().values() {
            open.close();
        }
    }
}
