//! A server as the gateway speaks to it: where it is, who logs in, and how long it is waited for.
//! All of it may change while connections to it are open.
//!
//! Not the connections, which follow by themselves. Invariant: what was sent to one place is
//! answered from there or not at all; only what was not sent moves on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use breccia_core::address::Address;
use breccia_net::health::EndpointHealth;
use breccia_net::tls::TlsClient;
use tokio::sync::{Notify, watch};

use crate::pipeline::PipelineLimits;

/// Where a server is, and how to be let in.
#[derive(Clone)]
pub struct Place {
    /// The server's address.
    pub address: Address,
    /// TLS, if the server is spoken to over it.
    pub tls: Option<TlsClient>,
    /// The user to log in as; none means Redis's default user.
    pub user: Option<String>,
    /// The password, if it needs one.
    pub password: Option<String>,
    /// The database that holds the keys; 0 where there is only one.
    pub database: u32,
    /// Why there is no server, while none is known: nothing is connected to then.
    pub vacant: Option<Arc<str>>,
}

impl Place {
    /// A server that lets everybody in, over plain TCP or a socket.
    #[must_use]
    pub fn plain(address: Address) -> Self {
        Self {
            address,
            tls: None,
            user: None,
            password: None,
            database: 0,
            vacant: None,
        }
    }

    /// The same on another server.
    #[must_use]
    pub fn on(&self, address: Address) -> Self {
        let tls = self.tls.as_ref();
        Self {
            tls: tls.map(|tls| tls.for_host(address.host().unwrap_or_default())),
            address,
            vacant: None,
            ..self.clone()
        }
    }

    fn is_elsewhere(&self, other: &Self) -> bool {
        self.address != other.address
            || self.database != other.database
            || self.vacant.is_some() != other.vacant.is_some()
    }

    /// Whether open connections were let in otherwise. Certificates read anew are no reason: they
    /// are for connections to come.
    fn lets_in_otherwise(&self, other: &Self) -> bool {
        self.user != other.user
            || self.password != other.password
            || self.tls.is_some() != other.tls.is_some()
    }
}

impl std::fmt::Debug for Place {
    // The login is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("address", &self.address)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// On which terms a server is used.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Where it is.
    pub place: Place,
    /// Limits of each connection's queue.
    pub limits: PipelineLimits,
    /// Leases of each worker.
    pub max_leases: usize,
    /// How many databases clients may select.
    pub databases: u32,
}

impl Terms {
    /// A place without leases, and with one database: as memcached is.
    #[must_use]
    pub fn simple(place: Place, limits: PipelineLimits) -> Self {
        Self {
            place,
            limits,
            max_leases: 0,
            databases: 1,
        }
    }
}

/// The terms now, and when they came to be: epochs count the changes of an endpoint.
#[derive(Debug)]
pub struct Current {
    /// The terms.
    pub terms: Terms,
    /// Counts all changes.
    pub epoch: u64,
    /// The last change after which open connections are to be made anew.
    pub renewed: u64,
    /// The last change to another server, or another database of one.
    pub moved: u64,
    /// The last change after which the former server's word counts no more: what it owes is not
    /// waited for.
    pub superseded: u64,
}

/// A server whose terms may change. See the module's page.
#[derive(Debug)]
pub struct Endpoint {
    health: Arc<EndpointHealth>,
    /// The same as `current` has; to be looked at without its lock.
    epoch: AtomicU64,
    current: watch::Sender<Arc<Current>>,
    doubts: Arc<Notify>,
}

impl Endpoint {
    /// An endpoint and what the process knows of its health.
    #[must_use]
    pub fn new(terms: Terms, health: Arc<EndpointHealth>) -> Arc<Self> {
        Self::made(terms, health, Arc::default())
    }

    /// An endpoint whose doubts are heard where those of `other` are.
    #[must_use]
    pub fn beside(other: &Self, terms: Terms, health: Arc<EndpointHealth>) -> Arc<Self> {
        Self::made(terms, health, Arc::clone(&other.doubts))
    }

    fn made(terms: Terms, health: Arc<EndpointHealth>, doubts: Arc<Notify>) -> Arc<Self> {
        let current = Current {
            terms,
            epoch: 0,
            renewed: 0,
            moved: 0,
            superseded: 0,
        };
        Arc::new(Self {
            health,
            epoch: AtomicU64::new(0),
            current: watch::Sender::new(Arc::new(current)),
            doubts,
        })
    }

    /// What the process knows of the endpoint.
    #[must_use]
    pub fn health(&self) -> &Arc<EndpointHealth> {
        &self.health
    }

    /// The terms now.
    #[must_use]
    pub fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.borrow())
    }

    /// How often the terms have changed.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Puts other terms in force, for open connections too.
    pub fn set(&self, terms: Terms) {
        self.change(false, |_| terms);
    }

    /// Puts other terms in force at the place where the endpoint is, whatever place they name: it
    /// may have moved since they were made.
    pub fn renew(&self, terms: &Terms) {
        self.change(false, |now| {
            let mut place = terms.place.on(now.address.clone());
            place.vacant.clone_from(&now.vacant);
            Terms {
                place,
                ..terms.clone()
            }
        });
    }

    /// The same where the former server is known to have lost its role: open connections are made
    /// anew even if the address is the same, and what they are owed is not waited for.
    pub fn supersede(&self, terms: Terms) {
        self.change(true, |_| terms);
    }

    fn change(&self, supersedes: bool, terms: impl FnOnce(&Place) -> Terms) {
        self.current.send_modify(|current| {
            let before = &current.terms.place;
            let terms = terms(before);
            let epoch = current.epoch + 1;
            let moved = supersedes || terms.place.is_elsewhere(before);
            let renewed = moved || terms.place.lets_in_otherwise(before);
            *current = Arc::new(Current {
                epoch,
                renewed: if renewed { epoch } else { current.renewed },
                moved: if moved { epoch } else { current.moved },
                superseded: if supersedes {
                    epoch
                } else {
                    current.superseded
                },
                terms,
            });
            self.epoch.store(epoch, Ordering::Release);
        });
    }

    /// Something speaks against the place: a connection was lost, or the server refused what only
    /// a primary takes.
    pub fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// Returns once something speaks against the place.
    pub async fn doubted(&self) {
        self.doubts.notified().await;
    }

    /// Hears of every change to come.
    pub(crate) fn news(&self) -> watch::Receiver<Arc<Current>> {
        self.current.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::DEFAULT_LIMITS;

    #[test]
    fn epochs_tell_which_connections_a_change_concerns() {
        let address = |port: u16| Address::tcp("127.0.0.1", port).expect("an address");
        let terms = Terms::simple(Place::plain(address(1)), DEFAULT_LIMITS);
        let health = EndpointHealth::new("a".into(), address(1));
        let endpoint = Endpoint::new(terms.clone(), health);
        let check = |change: &dyn Fn(&mut Terms), expected: (u64, u64, u64)| {
            let mut terms = endpoint.current().terms.clone();
            change(&mut terms);
            endpoint.set(terms);
            let now = endpoint.current();
            assert_eq!((now.epoch, now.renewed, now.moved), expected);
            assert_eq!(endpoint.epoch(), now.epoch);
        };
        check(&|terms| terms.max_leases = 3, (1, 0, 0));
        check(&|terms| terms.place.password = Some("p".into()), (2, 2, 0));
        check(&|terms| terms.place.address = address(2), (3, 3, 3));
        check(&|terms| terms.limits.timeout *= 2, (4, 3, 3));
        check(&|terms| terms.place.database = 4, (5, 5, 5));
        assert_eq!(endpoint.current().superseded, 0);
        endpoint.supersede(endpoint.current().terms.clone());
        let now = endpoint.current();
        assert_eq!((now.renewed, now.moved, now.superseded), (6, 6, 6));
        let mut renewed = endpoint.current().terms.clone();
        (renewed.place.address, renewed.max_leases) = (address(1), 9);
        endpoint.renew(&renewed);
        let now = endpoint.current();
        assert_eq!(
            (now.terms.place.address.clone(), now.terms.max_leases),
            (address(2), 9)
        );
        assert_eq!((now.epoch, now.moved), (7, 6));
        let shown = format!("{:?}", endpoint.current());
        assert!(!shown.contains("password"), "{shown}");
    }
}
