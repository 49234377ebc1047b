//! The clients of one listener on one worker, and the task that holds them to their time limits.
//!
//! Invariant: an idle client costs no timer; one sweep a second serves all of them, and is also when
//! those who are connected see what a reload has changed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breccia_net::clock;
use breccia_net::drain::Drain;

use super::client::Client;
use super::settings::{ListenerSettings, SharedSettings};

/// Client numbers, unique in the process as Redis's are.
static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);
/// How long after a drain began what had arrived before is known to the runtime: it has looked at
/// its sockets since, because a timer has fired.
const ARRIVED: Duration = Duration::from_millis(2);
/// The same for those who are accepted while it drains.
const ARRIVED_LATE: Duration = Duration::from_millis(50);
/// The pause between two looks at all clients.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The clients of one listener on one worker.
#[derive(Debug)]
pub struct Registry {
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    shared: Arc<SharedSettings>,
    settings: RefCell<Arc<ListenerSettings>>,
}

impl Registry {
    /// An empty registry and its sweeping task, on this worker.
    #[must_use]
    pub fn start(shared: Arc<SharedSettings>, drain: Drain) -> Rc<Self> {
        let registry = Rc::new(Self {
            clients: RefCell::default(),
            settings: RefCell::new(shared.get()),
            shared,
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

    /// Looks whether a reload has changed the settings; answers those in force.
    #[must_use]
    pub fn renew(&self) -> Arc<ListenerSettings> {
        let settings = self.shared.get();
        *self.settings.borrow_mut() = Arc::clone(&settings);
        settings
    }

    /// The settings in force, if they are others than `known`. Cheap: it is asked in every turn of
    /// a client.
    #[must_use]
    pub fn newer_than(&self, known: &Arc<ListenerSettings>) -> Option<Arc<ListenerSettings>> {
        let settings = self.settings.borrow();
        (!Arc::ptr_eq(&settings, known)).then(|| Arc::clone(&settings))
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
        let (now, settings) = (clock::now(), registry.renew());
        registry.each(|client| client.sweep(now, &settings.limits));
    }
}

/// Wakes all clients when the drain begins and when it closes, so that idle ones notice. A client
/// whose socket shows nothing is done only after the sockets were looked at since: what lies there
/// was received.
async fn hurry(registry: Weak<Registry>, drain: Drain) {
    drain.draining().await;
    let mut pause = ARRIVED;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = drain.closing() => break,
        }
        let Some(registry) = registry.upgrade() else {
            return;
        };
        registry.each(Client::hurry);
        pause = ARRIVED_LATE;
    }
    if let Some(registry) = registry.upgrade() {
        registry.each(Client::wake);
    }
}
