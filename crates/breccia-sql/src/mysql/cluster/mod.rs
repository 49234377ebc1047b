//! A primary and its replicas, as all workers see them.
//!
//! Not the questions to the servers ([`super::monitor`]) and not the rules ([`election`]).
//! Invariant: a view is replaced as a whole, and workers hold the one they began a statement with.

pub mod election;
mod history;
mod positions;
pub mod report;
mod standing;
mod steer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::health::EndpointHealth;
use breccia_net::metrics::Registry;
use tokio::sync::{Notify, watch};

use super::class::Classifier;
use super::gtid::Gtids;
use super::pool::Pool;
use super::upstream::{Credential, Endpoint, Login};
pub use crate::consistency::Consistency;
use crate::freshness::Position as _;
use crate::members::{Member, Members};
use crate::pause::{Gate, Gates};
use crate::placing::{Replicas, Sight as _};
use crate::pool::PoolLimits;
use crate::pools::Pools;
use crate::routed::Routed;
use crate::sampler::{self, Sampler};
use election::Election;
pub use election::View;
use report::{Answer, Heard, Report};

/// What Breccia's own questions are written in: `utf8mb4_general_ci`, which all servers know.
const OWN_COLLATION: u8 = 45;

/// How often the schemas are read soon after a change of which nobody heard the end.
const DOUBTS: u64 = 10;

/// What a server said of its position.
pub type Sample = sampler::Sample<Gtids>;
/// What a replica has applied. A run of it is the second it was started in.
pub type Replayed = sampler::Replayed<Gtids>;

/// A server of a cluster.
#[derive(Debug)]
pub struct ServerOptions {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The user that clients have there; `None`: each is itself.
    pub client_login: Option<(String, Credential)>,
    /// The user Breccia's own questions are asked as; `None`: none is configured.
    pub own_login: Option<(String, Credential)>,
    /// Its share of reads.
    pub weight: u32,
    /// Its health.
    pub health: Arc<EndpointHealth>,
}

/// How a cluster is used.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The composite's name.
    pub name: String,
    /// How fresh a read must be.
    pub consistency: Consistency,
    /// A replica that is further behind serves nobody.
    pub max_lag: Duration,
    /// How long a read may wait for a replica.
    pub replica_wait: Duration,
    /// Reads at the beginning of a transaction may go to a replica, under READ COMMITTED.
    pub lazy: bool,
    /// Functions that count as reads because the administrator says so.
    pub read_functions: Vec<String>,
}

/// A server, and what is known of it.
#[derive(Debug)]
pub struct Server {
    /// Where and how.
    pub options: ServerOptions,
    /// Its positions.
    pub sampler: Sampler<Gtids>,
    gate: Arc<Gate>,
    /// Set by an administrator: no new statement goes there.
    pub drained: AtomicBool,
    heard: Mutex<Heard>,
    /// Why it could not be asked, if the last probe failed so that its role is unknown.
    trouble: Mutex<Option<String>>,
    /// The version and the collation it greets with, once it was met.
    greets: Mutex<Option<(String, u8)>>,
}

impl Server {
    /// The store's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.endpoint.name
    }

    /// What it last said of itself, if it still answers.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        lock(&self.heard).answer().map(|it| it.report.clone())
    }

    /// Whether it follows another server, if it still answers.
    #[must_use]
    pub fn is_replica(&self) -> Option<bool> {
        lock(&self.heard).answer().map(|it| it.report.is_replica())
    }

    /// Whether this server is paused by itself, whatever its composite is.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.gate.is_paused()
    }

    /// Statements and transactions that run there now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.gate.running()
    }

    fn answer(&self) -> Option<Answer> {
        lock(&self.heard).answer().cloned()
    }

    /// The login for Breccia's own questions.
    pub(super) fn own_login(&self) -> Option<Login> {
        let (user, credential) = self.options.own_login.clone()?;
        Some(Login {
            user,
            credential,
            capabilities: 0,
            collation: OWN_COLLATION,
            with_schema: false,
            read_only: false,
        })
    }
}

impl Member for Server {
    type Position = Gtids;

    fn name(&self) -> &str {
        Self::name(self)
    }

    fn health(&self) -> &EndpointHealth {
        &self.options.health
    }

    fn gate(&self) -> &Gate {
        &self.gate
    }

    fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    fn weight(&self) -> u32 {
        self.options.weight
    }

    fn sampler(&self) -> &Sampler<Gtids> {
        &self.sampler
    }

    fn reported(&self) -> Option<Replayed> {
        let answer = self.answer().filter(|answer| answer.report.is_replica())?;
        Some(Replayed {
            position: answer.report.position,
            asked: answer.at,
            run: answer.run,
        })
    }
}

/// What is to be known of the schemas, which all servers of a cluster share.
#[derive(Debug, Default)]
pub struct Schemas {
    /// Tells reads from the rest.
    pub classifier: Classifier,
    /// Changes seen so far: after each they must be read again, by all who keep something of them.
    changes: watch::Sender<u64>,
    /// Readings still to be made soon, though nobody says that there was a change.
    doubts: AtomicU64,
    /// Where the primary stood when they were read: what they say of functions and views need not
    /// hold on a replica that is further back.
    floor: Mutex<Gtids>,
}

impl Schemas {
    /// Changes seen so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Tells of every change from now on.
    pub(in crate::mysql) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether they are to be read again soon, though nobody says that there was a change.
    pub(in crate::mysql) fn take_doubt(&self) -> bool {
        let less = |doubts: u64| doubts.checked_sub(1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.doubts.fetch_update(set, get, less).is_ok()
    }

    /// Something new was read at this position, and is used from now on.
    pub fn raise_floor(&self, position: &Gtids) {
        position.clone_into(&mut lock(&self.floor));
    }
}

/// A primary and its replicas.
#[derive(Debug)]
pub struct Cluster {
    /// How it is used.
    pub options: ClusterOptions,
    /// Its servers.
    pub servers: Vec<Server>,
    /// Reads and writes by where they went and why.
    pub routed: Routed,
    /// What is to be known of the schemas.
    pub schemas: Schemas,
    gates: Arc<Gates>,
    election: Mutex<Election>,
    view: Mutex<Arc<View>>,
    version: AtomicU64,
    pools: Pools<Endpoint>,
    /// A read found no replica that is known to have come far enough.
    pub(super) missed: Notify,
}

impl Replicas for Cluster {
    type Position = Gtids;
    type View = View;
    type Server = Server;

    fn members(&self) -> Members<'_, Server> {
        Members {
            store: &self.options.name,
            servers: &self.servers,
            gates: &self.gates,
        }
    }

    fn promise(&self) -> (Consistency, Duration) {
        (self.options.consistency, self.options.replica_wait)
    }

    fn server_of(&self, number: usize) -> Option<&Server> {
        self.servers.get(number)
    }
}

impl Cluster {
    /// A cluster of which nothing is known yet. [`super::monitor::watch`] finds out.
    #[must_use]
    pub fn new(options: ClusterOptions, servers: Vec<ServerOptions>, registry: &Registry) -> Self {
        let names = servers.iter().map(|it| it.endpoint.name.clone()).collect();
        let gates = Gates::new(servers.len());
        let server = |(options, gate): (ServerOptions, &Arc<Gate>)| Server {
            options,
            sampler: Sampler::default(),
            gate: Arc::clone(gate),
            drained: AtomicBool::new(false),
            heard: Mutex::default(),
            trouble: Mutex::default(),
            greets: Mutex::default(),
        };
        Self {
            election: Mutex::new(Election::new(names, options.max_lag)),
            options,
            servers: servers.into_iter().zip(gates.all()).map(server).collect(),
            routed: Routed::new(registry.clone()),
            schemas: Schemas::default(),
            gates,
            view: Mutex::default(),
            version: AtomicU64::new(0),
            pools: Pools::default(),
            missed: Notify::new(),
        }
    }

    /// Grows with every new view: one relaxed load tells whether a kept one is still in force.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The view in force.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&lock(&self.view))
    }

    /// A server.
    #[must_use]
    pub fn server(&self, number: usize) -> Option<&Server> {
        self.servers.get(number)
    }

    /// Who clients are on a server; `None`: each is itself.
    #[must_use]
    pub fn client_login(&self, server: usize) -> Option<(String, Credential)> {
        self.server(server)?.options.client_login.clone()
    }

    /// Somebody has changed the schemas, or may have: until they are read again, what they said is
    /// not true.
    pub fn ddl_seen(&self) {
        self.schemas.changes.send_modify(|changes| *changes += 1);
        self.schemas.classifier.forget();
    }

    /// A change was sent, and nobody will hear of its end: it may take effect later.
    pub fn ddl_doubted(&self) {
        self.schemas.doubts.store(DOUBTS, Ordering::Relaxed);
        self.ddl_seen();
    }

    /// The least position that a replica must have applied for what is known of the schemas to be true.
    #[must_use]
    pub fn catalogue_floor(&self) -> Gtids {
        lock(&self.schemas.floor).clone()
    }

    /// Whether a replica that has applied `has` is there.
    #[must_use]
    pub fn has_catalogue(&self, has: &Gtids) -> bool {
        has.covers(&lock(&self.schemas.floor))
    }

    /// A server has said something of itself, or does not answer; `trouble`: why not, if the reason is
    /// one that an operator can mend.
    pub(super) fn note(
        &self,
        server: usize,
        trouble: Option<String>,
        then: impl FnOnce(Heard) -> Heard,
    ) {
        if let Some(server) = self.server(server) {
            let mut heard = lock(&server.heard);
            *heard = then(std::mem::take(&mut heard));
            drop(heard);
            let mut known = lock(&server.trouble);
            if let Some(why) = trouble.as_ref().filter(|_| *known != trouble) {
                let store = self.options.name.as_str();
                tracing::warn!(
                    store,
                    server = server.name(),
                    why,
                    "a server cannot be asked"
                );
            }
            *known = trouble;
        }
        self.weigh(clock::now());
    }

    fn weigh(&self, now: Instant) {
        let mut election = lock(&self.election);
        let heard = |it: &Server| lock(&it.heard).clone();
        let heard: Vec<_> = self.servers.iter().map(heard).collect();
        let view = election.step(now, &heard);
        let mut current = lock(&self.view);
        if **current == view {
            return;
        }
        self.tell(&current, &view);
        if current.epoch != view.epoch {
            // What was read from another primary need not be true of this one.
            self.ddl_seen();
        }
        *current = Arc::new(view);
        drop(current);
        self.version.fetch_add(1, Ordering::AcqRel);
        self.gates.turn();
    }

    /// What an operator should know of the step from one view to the next.
    fn tell(&self, old: &View, new: &View) {
        let name = |server: usize| self.server(server).map_or("?", Server::name);
        let store = self.options.name.as_str();
        if old.primary != new.primary || old.epoch != new.epoch {
            match &new.primary {
                Ok(server) => tracing::info!(
                    store,
                    primary = name(*server),
                    position = %new.first,
                    "the primary is known"
                ),
                Err(why) => tracing::warn!(store, why, "there is no primary"),
            }
        }
        if new.shut && !(old.shut && old.primary == new.primary) {
            let primary = new.primary.as_ref().map_or("?", |it| name(*it));
            tracing::warn!(
                store,
                primary,
                "read_only is ON at the primary: it refuses most users' writes (1290)"
            );
        }
        self.members().tell(old.others(), new.others());
    }

    /// Whether a replica may serve.
    #[must_use]
    pub fn may_serve(&self, view: &View, server: usize) -> bool {
        self.members().may_serve(view.others(), server)
    }

    /// A replica that may serve, of two drawn at random the one with less to do for its weight.
    #[must_use]
    pub fn choose(&self, view: &View, fits: impl Fn(usize) -> bool) -> Option<usize> {
        self.members().choose(view.others(), fits)
    }

    /// The pool of a login on a server, for the listener whose limits these are.
    #[must_use]
    pub fn pool(&self, server: usize, login: Login, limits: &Arc<PoolLimits>) -> Option<Arc<Pool>> {
        let ServerOptions {
            endpoint, health, ..
        } = &self.server(server)?.options;
        let new = |login| {
            Pool::new(
                Endpoint {
                    health: Some(Arc::clone(health)),
                    ..endpoint.clone()
                },
                Arc::clone(health),
                login,
                Arc::clone(limits),
            )
        };
        Some(self.pools.get(server, login, limits, new))
    }

    /// Every pool.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.pools.all()
    }

    /// Lets pools follow their limits, closes what is idle for long, and forgets pools nobody uses: of
    /// logins that failed, say.
    pub fn tidy(&self) {
        self.pools.tidy();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
