//! One memcached listener on one worker: takes connections and gives each its dialogue.
//!
//! Invariant: all listeners of a worker that lead to the same store share its connections, so the
//! number of upstream connections is workers × members, whatever the number of listeners; the last
//! listener and its last client take them along.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use breccia_net::clock;
use breccia_net::metrics;
use breccia_net::worker::{Accepted, Service};

use super::super::local::VERSION;
use super::commands::front_metrics;
use super::dialogue::MemcachedDialogue;
use super::leaf::{Leaf, MemcachedLeaf};
use super::settings::{MemcachedBackend, MemcachedListener};
use crate::front::client::Ending;
use crate::front::connection::{Connection, Scratch, scratch};
use crate::front::kept::{Kept, kept};
use crate::front::metrics::FrontMetrics;
use crate::front::registry::Registry;
use crate::store::{KvStore, StoreKind};
use crate::topology::Topology;

/// What all memcached listeners of one worker share.
pub struct MemcachedWorker {
    leaves: RefCell<Kept<Leaf>>,
    scratch: Scratch,
}

impl MemcachedWorker {
    /// An empty one; make it on the worker's own thread.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            leaves: RefCell::default(),
            scratch: scratch(),
        })
    }

    fn leaf(&self, spec: &Arc<MemcachedLeaf>, registry: &metrics::Registry) -> Rc<Leaf> {
        // A store that went and came again has another endpoint.
        let same = |leaf: &Leaf| Arc::ptr_eq(&leaf.spec.endpoint, &spec.endpoint);
        let make = || Leaf::new(Arc::clone(spec), registry);
        kept(&mut self.leaves.borrow_mut(), &spec.store, same, make)
    }
}

/// A store of memcached servers as one worker uses it.
pub(super) struct Forward {
    pub(super) topology: Arc<Topology<Arc<MemcachedLeaf>>>,
    pub(super) leaves: Vec<Rc<Leaf>>,
}

/// What stands behind the listener, on this worker.
pub(super) enum Backend {
    Forward(Rc<Forward>),
    /// `inline`: its futures are always ready at once.
    Typed {
        store: Arc<dyn KvStore>,
        inline: bool,
    },
}

/// One memcached listener on one worker.
pub struct MemcachedService {
    pub(super) listener: MemcachedListener,
    pub(super) backend: Backend,
    pub(super) metrics: Rc<FrontMetrics>,
    pub(super) clients: Rc<Registry>,
    scratch: Scratch,
    started: Instant,
}

impl MemcachedService {
    /// The listener's service on this worker; needs a worker.
    #[must_use]
    pub fn new(worker: &MemcachedWorker, listener: MemcachedListener) -> Rc<Self> {
        let (backend, leaves) = match &listener.backend {
            MemcachedBackend::Forward(topology) => {
                let specs = topology.leaves();
                let names = specs
                    .iter()
                    .map(|leaf| (leaf.name.clone(), leaf.store.clone()))
                    .collect();
                let leaves = specs
                    .iter()
                    .map(|spec| worker.leaf(spec, &listener.registry))
                    .collect();
                let forward = Forward {
                    topology: Arc::clone(topology),
                    leaves,
                };
                (Backend::Forward(Rc::new(forward)), names)
            }
            MemcachedBackend::Typed(store) => {
                let leaves = &store.capabilities().leaves;
                let inline = leaves.iter().all(|leaf| leaf.kind == StoreKind::Memory);
                (
                    Backend::Typed {
                        store: Arc::clone(store),
                        inline,
                    },
                    Vec::new(),
                )
            }
        };
        let registry = listener.registry.clone();
        Rc::new(Self {
            backend,
            metrics: Rc::new(front_metrics(listener.name.clone(), registry, leaves)),
            clients: Registry::start(Arc::clone(&listener.settings), listener.drain.clone()),
            scratch: Rc::clone(&worker.scratch),
            started: clock::now(),
            listener,
        })
    }

    /// The lines of `stats`: about this gateway, and which of its shards are up.
    pub(super) fn stats(&self) -> Vec<(String, String)> {
        let uptime = clock::now()
            .saturating_duration_since(self.started)
            .as_secs();
        let mut stats = vec![
            ("pid".to_owned(), std::process::id().to_string()),
            ("uptime".to_owned(), uptime.to_string()),
            ("time".to_owned(), (clock::unix_ms() / 1000).to_string()),
            ("version".to_owned(), VERSION.to_owned()),
            ("pointer_size".to_owned(), usize::BITS.to_string()),
        ];
        match &self.backend {
            Backend::Forward(servers) => {
                for spec in servers.topology.leaves() {
                    let health = if spec.endpoint.health().is_up() {
                        "up"
                    } else {
                        "down"
                    };
                    stats.push((format!("breccia_shard:{}", spec.name), health.to_owned()));
                }
            }
            Backend::Typed { store, .. } => {
                for leaf in &store.capabilities().leaves {
                    stats.push((
                        format!("breccia_shard:{}", leaf.name),
                        leaf.kind.to_string(),
                    ));
                }
            }
        }
        stats
    }

    async fn run(self: Rc<Self>, connection: Accepted) {
        let settings = self.clients.renew();
        let client = self.clients.admit(connection.peer);
        let dialogue = MemcachedDialogue::new(Rc::clone(&self), Rc::clone(&client), settings);
        Connection::new(
            connection.stream,
            Rc::clone(&client),
            dialogue,
            Rc::clone(&self.scratch),
            self.listener.drain.clone(),
        )
        .serve()
        .await;
        if let Some(Ending::Now(limit)) = client.ending() {
            self.metrics.limit_hit(limit);
        }
        self.clients.dismiss(&client);
    }
}

impl Service for MemcachedService {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(self.run(connection))
    }
}
