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
use super::own::OwnPaths;
use super::streams::{Place as StreamPlace, Streams};
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
    /// The connections of the leases that count among `max-leases`, by number.
    leased: RefCell<BTreeMap<u64, Rc<RespUpstream>>>,
    leases: Cell<u64>,
    pub own: OwnPaths,
    /// Places for requests that are streamed to it.
    pub streams: Streams,
    /// How often a shared connection of this worker was retired.
    retirements: Rc<Cell<u64>>,
    /// The endpoint's terms as they were last seen here.
    seen: RefCell<Arc<Current>>,
}

/// Idle leases kept for the next client.
const IDLE_LEASES: usize = 16;

impl Leaf {
    /// A server on this worker; `retirements` counts those of all its servers.
    pub(crate) fn new(
        spec: Arc<RespLeaf>,
        registry: &Registry,
        retirements: Rc<Cell<u64>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            metrics: StoreMetrics::new(registry, &spec.store),
            seen: RefCell::new(spec.endpoint.current()),
            spec,
            shared: RefCell::default(),
            idle: RefCell::default(),
            leased: RefCell::default(),
            leases: Cell::new(0),
            own: OwnPaths::default(),
            streams: Streams::default(),
            retirements,
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

    /// The shared connection a client uses, always the same one while no large reply keeps it busy;
    /// without a client, the one for large requests.
    pub(crate) fn shared(self: &Rc<Self>, mode: Mode, client: Option<u64>) -> Rc<RespUpstream> {
        let connections = self.spec.connections.max(1);
        let number = match client.map(usize::try_from) {
            Some(client) => client.unwrap_or(0) % connections,
            None => connections,
        };
        self.shared_at(mode, number)
    }

    fn shared_at(self: &Rc<Self>, mode: Mode, number: usize) -> Rc<RespUpstream> {
        let mut shared = self.shared.borrow_mut();
        let known = shared.get(&(mode, number));
        if let Some(known) = known.filter(|known| !known.is_retired()) {
            return Rc::clone(known);
        }
        let upstream = self.open_shared(mode, number);
        let leaf = Rc::downgrade(self);
        upstream.set_successor(Box::new(move || {
            let leaf = leaf.upgrade()?;
            leaf.retirements.set(leaf.retirements.get() + 1);
            Some(leaf.shared_at(mode, number))
        }));
        shared.insert((mode, number), Rc::clone(&upstream));
        upstream
    }

    /// A connection for one client that reads large values, if there are not too many.
    pub(crate) fn take_own(&self, mode: Mode) -> Option<Rc<RespUpstream>> {
        self.own.take(mode, || self.open(mode, false))
    }

    /// Leases a connection for one client.
    ///
    /// # Errors
    /// When `max-leases` are out.
    pub(crate) fn lease(self: &Rc<Self>, mode: Mode) -> Result<Lease, Failure> {
        let max_leases = self.terms().max_leases;
        let mut leased = self.leased.borrow_mut();
        if leased.len() >= max_leases {
            // A client may hold what was lost for as long as it likes.
            leased.retain(|_, upstream| !upstream.is_closed());
        }
        if leased.len() >= max_leases {
            let text = format!("max-leases ({max_leases}) is reached");
            return Err(Failure {
                cause: Cause::Full(text.into()),
                effect: Effect::NotApplied,
            });
        }
        let mut lease = self.lend(mode, None);
        lease.number = self.leases.get();
        self.leases.set(lease.number + 1);
        leased.insert(lease.number, Rc::clone(&lease.upstream));
        Ok(lease)
    }

    /// Leases a connection for a streamed request. It does not count among `max-leases`.
    pub(crate) fn stream(self: &Rc<Self>, mode: Mode, place: StreamPlace) -> Lease {
        self.lend(mode, Some(place))
    }

    fn lend(self: &Rc<Self>, mode: Mode, place: Option<StreamPlace>) -> Lease {
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
        Lease {
            leaf: Rc::clone(self),
            mode,
            upstream,
            returnable: false,
            number: 0,
            place,
        }
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
    /// Its number among those that count.
    number: u64,
    /// Its place among the streamed requests, if it serves one.
    place: Option<StreamPlace>,
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
        if self.place.is_none() {
            self.leaf.leased.borrow_mut().remove(&self.number);
        }
        let mut idle = self.leaf.idle.borrow_mut();
        let upstream = &self.upstream;
        let usable = self.returnable && upstream.is_idle() && !upstream.is_closed();
        let usable = usable && upstream.is_current();
        // Who was to be unblocked was this client: the next one must not be instead.
        let usable = usable && !upstream.memory().borrow().number.is_marked();
        if usable && idle.len() < IDLE_LEASES {
            idle.push((self.mode, Rc::clone(&self.upstream)));
        } else {
            self.upstream.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use breccia_core::address::Address;
    use breccia_net::health::EndpointHealth;

    use super::*;
    use crate::io::DEFAULT_LIMITS;

    /// A server of which at most two leases are out.
    fn leaf() -> Rc<Leaf> {
        let address = Address::tcp("127.0.0.1", 1).expect("an address");
        let terms = Terms {
            max_leases: 2,
            ..Terms::simple(Place::plain(address.clone()), DEFAULT_LIMITS)
        };
        let spec = Arc::new(RespLeaf {
            name: "all/r0".to_owned(),
            store: "r0".to_owned(),
            endpoint: Endpoint::new(terms, EndpointHealth::new("r0".into(), address)),
            connections: 1,
            trunks: None,
            identity: None,
            cluster: None,
            has_slots: false,
        });
        Leaf::new(spec, &Registry::new(), Rc::default())
    }

    /// Whether the connection that one client gives back is lent to the next one.
    fn is_lent_again(change: impl FnOnce(&RespUpstream)) -> bool {
        let leaf = leaf();
        let first = leaf.lease(Mode::default()).expect("a lease");
        let upstream = Rc::clone(&first.upstream);
        change(&upstream);
        first.give_back();
        let second = leaf.lease(Mode::default()).expect("a lease");
        Rc::ptr_eq(&upstream, &second.upstream)
    }

    #[tokio::test]
    async fn a_lease_that_is_lost_does_not_count() {
        let check = async {
            let leaf = leaf();
            let lease = || leaf.lease(Mode::default());
            let (first, second) = (lease().expect("a lease"), lease().expect("a lease"));
            assert!(lease().is_err());
            first.upstream.close();
            let third = lease().expect("the place of the lost one");
            assert!(lease().is_err());
            drop(first);
            assert!(lease().is_err(), "its place was given away twice");
            drop(second);
            let _fourth = lease().expect("the place of one that was returned");
            drop(third);
        };
        tokio::task::LocalSet::new().run_until(check).await;
    }

    #[tokio::test]
    async fn a_connection_that_was_to_be_unblocked_is_not_lent_again() {
        let check = async {
            assert!(is_lent_again(|_| {}));
            assert!(!is_lent_again(|upstream| upstream
                .memory()
                .borrow()
                .number
                .mark()));
        };
        tokio::task::LocalSet::new().run_until(check).await;
    }
}
