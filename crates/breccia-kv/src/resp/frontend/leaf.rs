//! One Redis server as one worker uses it: its shared connections and its leases.
//!
//! Invariant: a lease goes back to the pool only when nothing is owed on it and its client's state
//! (MULTI, WATCH) has ended; dropped in any other way it is closed.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use breccia_core::error::Effect;
use breccia_net::metrics::Registry;

use super::super::cluster::Cluster;
use super::super::codec::reply::RespWire;
use super::super::encode::{self, RespVersion};
use super::super::greeting::{Login, Transactions};
use super::ticket::Ticket;
use super::trunk::{Branching, Trunks};
use crate::endpoint::{Current, Endpoint, Place, Terms};
use crate::front::metrics::StoreMetrics;
use crate::identity::Identity;
use crate::pipeline::{Cause, Failure};
use crate::upstream::{Greeting, Upstream, UpstreamOptions};

/// A Redis connection of this worker.
pub(crate) type RespUpstream = Upstream<RespWire, Ticket>;

/// A `redis` store, as the configuration describes it.
pub struct RespLeaf {
    /// Its path for messages, as in `cache/redis-b`.
    pub name: String,
    /// The store's own name.
    pub store: String,
    /// The server, and the terms on which it is used.
    pub endpoint: Arc<Endpoint>,
    /// Shared connections of each worker and protocol version, or of the process.
    pub connections: usize,
    /// The process's shared connections, if workers have none of their own.
    pub trunks: Option<Arc<Trunks>>,
    /// Its markers, if its composite has them.
    pub identity: Option<Arc<Identity>>,
    /// The servers behind it, if it is a cluster, or if replicas of it are read.
    pub cluster: Option<Arc<Cluster>>,
    /// Whether it is a cluster: its endpoint is some server of it then.
    pub has_slots: bool,
}

impl RespLeaf {
    /// Whether requests should be sent there.
    pub(crate) fn is_up(&self) -> bool {
        self.endpoint.health().is_up()
    }

    /// Whether another leaf lives on the same server.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        let address = |leaf: &Self| leaf.endpoint.current().terms.place.address.clone();
        address(self) == address(other)
    }
}

impl std::fmt::Debug for RespLeaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RespLeaf")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a connection was set up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mode {
    pub version: RespVersion,
    pub database: u32,
    /// To a replica of a cluster, which answers only who says that old answers will do.
    pub readonly: bool,
}

/// One Redis server as one worker uses it.
pub(crate) struct Leaf {
    pub spec: Arc<RespLeaf>,
    metrics: Rc<StoreMetrics>,
    shared: RefCell<BTreeMap<(Mode, usize), Rc<RespUpstream>>>,
    idle: RefCell<Vec<(Mode, Rc<RespUpstream>)>>,
    leased: Cell<usize>,
    /// The endpoint's terms as they were last seen here.
    seen: RefCell<Arc<Current>>,
}

/// Idle leases kept for the next client.
const IDLE_LEASES: usize = 16;

impl Leaf {
    pub(crate) fn new(spec: Arc<RespLeaf>, registry: &Registry) -> Rc<Self> {
        Rc::new(Self {
            metrics: StoreMetrics::new(registry, &spec.store),
            seen: RefCell::new(spec.endpoint.current()),
            spec,
            shared: RefCell::default(),
            idle: RefCell::default(),
            leased: Cell::new(0),
        })
    }

    /// The terms on which the server is used now. No lock is taken unless they have changed.
    pub(crate) fn terms(&self) -> Ref<'_, Terms> {
        let endpoint = &self.spec.endpoint;
        if self.seen.borrow().epoch != endpoint.epoch() {
            *self.seen.borrow_mut() = endpoint.current();
        }
        Ref::map(self.seen.borrow(), |seen| &seen.terms)
    }

    /// The shared connection a client uses, always the same one; without a client, the one for
    /// those who read large replies.
    pub(crate) fn shared(&self, mode: Mode, client: Option<u64>) -> Rc<RespUpstream> {
        let connections = self.spec.connections.max(1);
        let number = match client.map(usize::try_from) {
            Some(client) => client.unwrap_or(0) % connections,
            None => connections,
        };
        let mut shared = self.shared.borrow_mut();
        let open = || self.open_shared(mode, number);
        Rc::clone(shared.entry((mode, number)).or_insert_with(open))
    }

    /// Leases a connection for one client.
    ///
    /// # Errors
    /// When `max-leases` are out.
    pub(crate) fn lease(self: &Rc<Self>, mode: Mode) -> Result<Lease, Failure> {
        let max_leases = self.terms().max_leases;
        if self.leased.get() >= max_leases {
            let text = format!("max-leases ({max_leases}) is reached");
            return Err(Failure {
                cause: Cause::Full(text.into()),
                effect: Effect::NotApplied,
            });
        }
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, upstream)| {
            if !upstream.is_current() {
                upstream.close();
            }
            !upstream.is_closed()
        });
        let found = idle.iter().position(|(known, _)| *known == mode);
        let upstream = match found {
            Some(place) => idle.swap_remove(place).1,
            None => self.open(mode, true),
        };
        self.leased.set(self.leased.get() + 1);
        Ok(Lease {
            leaf: Rc::clone(self),
            mode,
            upstream,
            returnable: false,
        })
    }

    fn open(&self, mode: Mode, fragile: bool) -> Rc<RespUpstream> {
        let options = options(&self.spec, mode, fragile);
        Upstream::open(options, Some(Rc::clone(&self.metrics)))
    }

    /// A shared connection: of this worker, or a pipe to one of the process.
    fn open_shared(&self, mode: Mode, number: usize) -> Rc<RespUpstream> {
        let (Some(trunks), true) = (&self.spec.trunks, number < self.spec.connections.max(1))
        else {
            return self.open(mode, false);
        };
        let branching = Branching {
            spec: Arc::clone(&self.spec),
            trunks: Arc::clone(trunks),
            number: (mode, number),
        };
        // The trunk logs in and looks for the marker.
        let options = UpstreamOptions {
            greeter: Arc::new(|_| Greeting::default()),
            through: Some(Arc::new(branching)),
            ..options(&self.spec, mode, false)
        };
        Upstream::open(options, None)
    }
}

/// How connections to a server are made.
pub(super) fn options(spec: &RespLeaf, mode: Mode, fragile: bool) -> UpstreamOptions {
    let identity = spec.identity.clone();
    UpstreamOptions {
        name: spec.name.clone(),
        endpoint: Arc::clone(&spec.endpoint),
        identity: identity.clone(),
        greeter: Arc::new(move |place| greeting(place, mode, fragile, identity.as_ref())),
        through: None,
        fragile,
    }
}

fn greeting(place: &Place, mode: Mode, lease: bool, identity: Option<&Arc<Identity>>) -> Greeting {
    let login = Login {
        version: mode.version,
        user: place.user.as_deref(),
        password: place.password.as_deref(),
        database: place.database + mode.database,
        transactions: if lease {
            Transactions::Stepwise
        } else {
            Transactions::Never
        },
        identity: identity.map(|identity| (identity, place.database)),
    };
    let mut greeting = login.greeting();
    if mode.readonly {
        encode::request(&mut greeting.bytes, &[b"READONLY"]);
        greeting.replies += 1;
    }
    greeting
}

impl Drop for Leaf {
    fn drop(&mut self) {
        for shared in self.shared.get_mut().values() {
            shared.close();
        }
        for (_, idle) in self.idle.get_mut() {
            idle.close();
        }
    }
}

/// Exclusive use of an upstream connection.
pub(crate) struct Lease {
    leaf: Rc<Leaf>,
    mode: Mode,
    pub upstream: Rc<RespUpstream>,
    returnable: bool,
}

impl Lease {
    /// Gives the connection back: its client's state on it has ended.
    pub(crate) fn give_back(mut self) {
        self.returnable = true;
        self.upstream.set_in_transaction(false);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leaf
            .leased
            .set(self.leaf.leased.get().saturating_sub(1));
        let mut idle = self.leaf.idle.borrow_mut();
        let upstream = &self.upstream;
        let usable = self.returnable && upstream.is_idle() && !upstream.is_closed();
        let usable = usable && upstream.is_current();
        if usable && idle.len() < IDLE_LEASES {
            idle.push((self.mode, Rc::clone(&self.upstream)));
        } else {
            self.upstream.close();
        }
    }
}
