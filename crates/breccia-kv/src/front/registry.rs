//! The clients of one listener on one worker, and the task that holds them to their time limits.
//!
//! Invariant: an idle client costs no timer; one sweep a second serves all of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breccia_net::clock;
use breccia_net::drain::Drain;

use super::client::Client;
use super::limits::ListenerLimits;

/// Client numbers, unique in the process as Redis's are.
static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);
/// The pause between two looks at all clients.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The clients of one listener on one worker.
#[derive(Debug)]
pub struct Registry {
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    limits: RefCell<Rc<ListenerLimits>>,
}

impl Registry {
    /// An empty registry and its sweeping task, on this worker.
    #[must_use]
    pub fn start(limits: Rc<ListenerLimits>, drain: Drain) -> Rc<Self> {
        let registry = Rc::new(Self {
            clients: RefCell::default(),
            limits: RefCell::new(limits),
        });
        tokio::task::spawn_local(sweep(Rc::downgrade(&registry)));
        tokio::task::spawn_local(hurry(Rc::downgrade(&registry), drain));
        registry
    }

    /// Takes a client that has just connected.
    #[must_use]
    pub fn admit(&self, peer: String) -> Rc<Client> {
        let id = NEXT_CLIENT.fetch_add(1, Ordering::Relaxed);
        let client = Client::new(id, peer, clock::now());
        self.clients.borrow_mut().insert(id, Rc::clone(&client));
        client
    }

    /// Forgets a client that has left.
    pub fn dismiss(&self, client: &Client) {
        self.clients.borrow_mut().remove(&client.id);
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Rc<ListenerLimits> {
        Rc::clone(&self.limits.borrow())
    }

    /// Puts new limits in force for clients that connect from now on, and for all time limits.
    pub fn set_limits(&self, limits: ListenerLimits) {
        *self.limits.borrow_mut() = Rc::new(limits);
    }

    /// The clients now, in the order they came.
    #[must_use]
    pub fn clients(&self) -> Vec<Rc<Client>> {
        self.clients.borrow().values().cloned().collect()
    }

    fn each(&self, mut visit: impl FnMut(&Client)) {
        for client in self.clients.borrow().values() {
            visit(client);
        }
    }
}

async fn sweep(registry: Weak<Registry>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(registry) = registry.upgrade() else {
            return;
        };
        let (now, limits) = (clock::now(), registry.limits());
        registry.each(|client| client.sweep(now, &limits));
    }
}

/// Wakes all clients when the drain begins and when it closes, so that idle ones notice.
async fn hurry(registry: Weak<Registry>, drain: Drain) {
    drain.draining().await;
    if let Some(registry) = registry.upgrade() {
        registry.each(Client::wake);
    }
    drain.closing().await;
    if let Some(registry) = registry.upgrade() {
        registry.each(Client::wake);
    }
}
