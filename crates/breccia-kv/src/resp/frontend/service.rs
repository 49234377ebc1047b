//! One Redis listener on one worker: takes connections and gives each its dialogue.
//!
//! Invariant: all listeners of a worker that lead to the same store share its connections, so the
//! number of upstream connections is workers × members, whatever the number of listeners; the last
//! listener and its last client take them along.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use breccia_net::metrics;
use breccia_net::worker::{Accepted, Service};

use super::dialogue::RespDialogue;
use super::fleet::Fleet;
use super::leaf::{Leaf, RespLeaf};
use super::metrics::{FrontMetrics, front_metrics};
use super::pubsub::Hub;
use super::route::Routes;
use super::settings::{ForwardStore, RespBackend, RespListener};
use crate::endpoint::Endpoint;
use crate::front::client::{Ending, KILLED};
use crate::front::connection::{Connection, Scratch, scratch};
use crate::front::kept::{Kept, kept};
use crate::front::registry::Registry;
use crate::topology::{LeafIndex, Place};

/// What all Redis listeners of one worker share.
pub struct RespWorker {
    leaves: Rc<RefCell<Kept<Leaf>>>,
    hubs: RefCell<Kept<Hub>>,
    routes: Rc<Routes>,
    scratch: Scratch,
    /// How often a shared connection was retired.
    retirements: Rc<Cell<u64>>,
}

impl RespWorker {
    /// An empty one; make it on the worker's own thread.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            leaves: Rc::default(),
            hubs: RefCell::default(),
            routes: Rc::new(Routes::new()),
            scratch: scratch(),
            retirements: Rc::default(),
        })
    }

    fn leaf(&self, spec: &Arc<RespLeaf>, registry: &metrics::Registry) -> Rc<Leaf> {
        kept_leaf(
            &self.leaves,
            &spec.store,
            spec,
            (registry, &self.retirements),
        )
    }

    fn hub(&self, store: &Arc<ForwardStore>, registry: &metrics::Registry) -> Rc<Hub> {
        let (name, same) = (store.topology.name(), |hub: &Hub| hub.is_of(store));
        let make = || Hub::new(store, registry);
        kept(&mut self.hubs.borrow_mut(), name, same, make)
    }
}

/// The leaf of that name which the worker's services share.
pub(super) fn kept_leaf(
    leaves: &RefCell<Kept<Leaf>>,
    name: &str,
    spec: &Arc<RespLeaf>,
    (registry, retirements): (&metrics::Registry, &Rc<Cell<u64>>),
) -> Rc<Leaf> {
    // A store that went and came again has another endpoint.
    let same = |leaf: &Leaf| Arc::ptr_eq(&leaf.spec.endpoint, &spec.endpoint);
    let make = || Leaf::new(Arc::clone(spec), registry, Rc::clone(retirements));
    kept(&mut leaves.borrow_mut(), name, same, make)
}

/// A store of Redis servers as one worker uses it.
pub(crate) struct Forward {
    pub store: Arc<ForwardStore>,
    /// The leaves of the topology, in its order.
    pub leaves: Vec<Rc<Leaf>>,
    /// The clusters among them.
    pub fleet: Fleet,
    pub hub: Rc<Hub>,
    /// Whether some leaf carries markers.
    pub marked: bool,
}

impl Forward {
    /// The leaf at a place of this store's own topology, or a server of one of its clusters.
    pub(crate) fn leaf(&self, index: LeafIndex) -> Rc<Leaf> {
        let leaf = self.leaves.get(index.get()).map(Rc::clone);
        let leaf = leaf.or_else(|| self.fleet.leaf(index));
        leaf.expect("a topology places keys on its own leaves only")
    }

    /// The place of the leaf, or server of a cluster, that is reached at an endpoint.
    pub(crate) fn leaf_at(&self, endpoint: &Arc<Endpoint>) -> Option<LeafIndex> {
        let mut places = (0..self.count()).filter_map(LeafIndex::new);
        places.find(|place| Arc::ptr_eq(&self.leaf(*place).spec.endpoint, endpoint))
    }

    /// Where a key lies: which leaf, and of a cluster which server.
    #[inline]
    pub(crate) fn place(&self, key: &[u8]) -> Place {
        let place = self.store.topology.place(key);
        if self.fleet.is_empty() {
            return place;
        }
        self.fleet.place(place, key)
    }

    /// How many leaves and servers there have been: their places are below.
    pub(crate) fn count(&self) -> usize {
        self.leaves.len() + self.fleet.count()
    }

    /// Everybody who holds keys now, in layout order; the servers of a cluster by lowest slot.
    pub(crate) fn holders(&self) -> Vec<LeafIndex> {
        let each = (0..self.leaves.len()).filter_map(LeafIndex::new);
        each.flat_map(|leaf| self.fleet.holders(leaf)).collect()
    }

    /// Whether keys may lie apart from each other.
    pub(crate) fn is_sharded(&self) -> bool {
        self.leaves.len() > 1 || self.fleet.has_slots()
    }
}

/// What stands behind the listener, on this worker.
pub(crate) enum Backend {
    Forward(Rc<Forward>),
    Portable(Arc<dyn crate::store::KvStore>),
}

/// One Redis listener on one worker.
pub struct RespService {
    pub(crate) listener: RespListener,
    pub(crate) backend: Backend,
    pub(crate) routes: Rc<Routes>,
    pub(crate) metrics: Rc<FrontMetrics>,
    pub(crate) clients: Rc<Registry>,
    /// How often a shared connection of this worker was retired.
    pub(crate) retirements: Rc<Cell<u64>>,
    scratch: Scratch,
    warned_same_shard: Cell<bool>,
}

impl RespService {
    /// The listener's service on this worker; needs a worker.
    #[must_use]
    pub fn new(worker: &RespWorker, listener: RespListener) -> Rc<Self> {
        let (backend, leaves) = match &listener.backend {
            RespBackend::Forward(store) => {
                let specs = store.topology.leaves();
                let names = specs
                    .iter()
                    .map(|leaf| (leaf.name.clone(), leaf.store.clone()))
                    .collect();
                let forward = Forward {
                    leaves: specs
                        .iter()
                        .map(|spec| worker.leaf(spec, &listener.registry))
                        .collect(),
                    fleet: Fleet::new(
                        specs,
                        &worker.leaves,
                        (&listener.registry, &worker.retirements),
                    ),
                    hub: worker.hub(store, &listener.registry),
                    marked: specs.iter().any(|spec| spec.identity.is_some()),
                    store: Arc::clone(store),
                };
                (Backend::Forward(Rc::new(forward)), names)
            }
            RespBackend::Portable(store) => (Backend::Portable(Arc::clone(store)), Vec::new()),
        };
        let registry = listener.registry.clone();
        let metrics = Rc::new(front_metrics(listener.name.clone(), registry, leaves));
        metrics.keep_slow(Arc::clone(&listener.slow));
        if let Backend::Forward(forward) = &backend {
            Fleet::begin(forward, &metrics);
        }
        Rc::new(Self {
            backend,
            routes: Rc::clone(&worker.routes),
            metrics,
            clients: Registry::start(Arc::clone(&listener.settings), listener.drain.clone()),
            scratch: Rc::clone(&worker.scratch),
            retirements: Rc::clone(&worker.retirements),
            warned_same_shard: Cell::new(false),
            listener,
        })
    }

    /// Says once that a multi-key command worked only because of where its keys lie today.
    pub(crate) fn warn_same_shard_once(&self, command: &[u8]) {
        if !self.warned_same_shard.replace(true) {
            tracing::warn!(
                listener = self.listener.name,
                command = %command.escape_ascii(),
                "the keys of a multi-key command share a shard but not a slot: it works until the \
                 store grows; use hash tags, or refuse such commands with multi-key = \"slot\""
            );
        }
    }

    async fn run(self: Rc<Self>, connection: Accepted) {
        let settings = self.clients.renew();
        let client = self.clients.admit(connection.peer);
        let trusted = settings.users.is_empty();
        let card = self.listener.clients.admit(&client, connection.local);
        let service = Rc::clone(&self);
        let dialogue = RespDialogue::new(service, Rc::clone(&client), settings, card, trusted);
        Connection::new(
            connection.stream,
            Rc::clone(&client),
            dialogue,
            Rc::clone(&self.scratch),
            self.listener.drain.clone(),
        )
        .serve()
        .await;
        self.listener.clients.dismiss(client.id);
        if let Some(Ending::Now(limit)) = client.ending()
            && limit != KILLED
        {
            self.metrics.limit_hit(limit);
        }
        self.clients.dismiss(&client);
    }
}

impl Service for RespService {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.run(connection))
    }
}
