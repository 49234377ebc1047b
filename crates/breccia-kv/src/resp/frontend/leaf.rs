//! One Redis server as one worker uses it: its shared connections and its leases.
//!
//! Invariant: a lease goes back to the pool only when nothing is owed on it and its client's state
//! (MULTI, WATCH) has ended; dropped in any other way it is closed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use breccia_core::address::Address;
use breccia_core::error::Effect;
use breccia_net::health::EndpointHealth;
use breccia_net::metrics::Registry;
use breccia_net::tls::TlsClient;

use super::super::codec::reply::RespWire;
use super::super::encode::RespVersion;
use super::super::greeting::{Login, Transactions};
use super::ticket::Ticket;
use crate::front::metrics::StoreMetrics;
use crate::identity::Identity;
use crate::pipeline::{Cause, Failure, PipelineLimits};
use crate::upstream::{Greeting, Upstream, UpstreamOptions};

/// A Redis connection of this worker.
pub(crate) type RespUpstream = Upstream<RespWire, Ticket>;

/// A `redis` store, as the configuration describes it.
pub struct RespLeaf {
    /// Its path for messages, as in `cache/redis-b`.
    pub name: String,
    /// The store's own name.
    pub store: String,
    /// Where it is.
    pub address: Address,
    /// TLS towards it.
    pub tls: Option<TlsClient>,
    /// The user to log in as; none means Redis's default user.
    pub user: Option<String>,
    /// The password, if it needs one.
    pub password: Option<String>,
    /// The database that holds the keys of `SELECT 0`.
    pub database: u32,
    /// How many databases clients may select.
    pub databases: u32,
    /// Shared connections of each worker and protocol version.
    pub connections: usize,
    /// Leases of each worker.
    pub max_leases: usize,
    /// Limits of each connection's queue.
    pub limits: PipelineLimits,
    /// What the process knows of the endpoint.
    pub health: Arc<EndpointHealth>,
    /// Its markers, if its composite has them.
    pub identity: Option<Arc<Identity>>,
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
}

/// One Redis server as one worker uses it.
pub(crate) struct Leaf {
    pub spec: Arc<RespLeaf>,
    metrics: Rc<StoreMetrics>,
    shared: RefCell<BTreeMap<(Mode, usize), Rc<RespUpstream>>>,
    idle: RefCell<Vec<(Mode, Rc<RespUpstream>)>>,
    leased: Cell<usize>,
}

/// Idle leases kept for the next client.
const IDLE_LEASES: usize = 16;

impl Leaf {
    pub(crate) fn new(spec: Arc<RespLeaf>, registry: &Registry) -> Rc<Self> {
        Rc::new(Self {
            metrics: StoreMetrics::new(registry, &spec.store),
            spec,
            shared: RefCell::default(),
            idle: RefCell::default(),
            leased: Cell::new(0),
        })
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
        let open = || self.open(mode, false);
        Rc::clone(shared.entry((mode, number)).or_insert_with(open))
    }

    /// Leases a connection for one client.
    ///
    /// # Errors
    /// When `max-leases` are out.
    pub(crate) fn lease(self: &Rc<Self>, mode: Mode) -> Result<Lease, Failure> {
        if self.leased.get() >= self.spec.max_leases {
            let text = format!("max-leases ({}) is reached", self.spec.max_leases);
            return Err(Failure {
                cause: Cause::Full(text.into()),
                effect: Effect::NotApplied,
            });
        }
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, upstream)| !upstream.is_closed());
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
        let options = Arc::new(self.options(mode, fragile));
        Upstream::open(options, Some(Rc::clone(&self.metrics)))
    }

    fn options(&self, mode: Mode, fragile: bool) -> UpstreamOptions {
        UpstreamOptions {
            name: self.spec.name.clone(),
            address: self.spec.address.clone(),
            tls: self.spec.tls.clone(),
            greeting: self.greeting(mode, fragile),
            limits: self.spec.limits,
            health: Arc::clone(&self.spec.health),
            fragile,
        }
    }

    fn greeting(&self, mode: Mode, lease: bool) -> Greeting {
        let identity = self.spec.identity.as_ref();
        let login = Login {
            version: mode.version,
            user: self.spec.user.as_deref(),
            password: self.spec.password.as_deref(),
            database: self.spec.database + mode.database,
            transactions: if lease {
                Transactions::Stepwise
            } else {
                Transactions::Never
            },
            identity: identity.map(|identity| (identity, self.spec.database)),
        };
        login.greeting()
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
        let usable = self.returnable && self.upstream.is_idle() && !self.upstream.is_closed();
        if usable && idle.len() < IDLE_LEASES {
            idle.push((self.mode, Rc::clone(&self.upstream)));
        } else {
            self.upstream.close();
        }
    }
}
