//! A primary and its replicas, as all workers see them.
//!
//! Not the questions to the servers ([`super::monitor`]) and not the rules ([`election`]).
//! Invariant: a view is replaced as a whole, and workers hold the one they began a statement with.

pub mod election;
pub mod report;
mod standing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use breccia_net::clock;
use breccia_net::health::EndpointHealth;
use breccia_net::metrics::Registry;
use tokio::sync::Notify;

use super::pool::{Pool, PoolLimits};
use super::statement::Statements;
use super::token::Lsn;
use super::upstream::{Credential, Endpoint, Login};
use crate::class::Classifier;
pub use crate::consistency::Consistency;
use crate::freshness::Question;
use crate::members::{Member, Members};
use crate::pause::{Gate, Gates};
use crate::placing::{Replicas, Sight as _};
use crate::pools::Pools;
use crate::routed::Routed;
use crate::sampler::{self, Sampler};
use election::{Election, View};
use report::{Answer, Heard, Report};

/// How often a catalogue is read soon after a change of which nobody heard the end.
const DOUBTS: u64 = 10;

/// A server of a cluster.
#[derive(Debug)]
pub struct ServerOptions {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The role that clients have there; `None`: each is itself.
    pub client_role: Option<(String, Credential)>,
    /// The role Breccia's own questions are asked as; `None`: none is configured.
    pub own_role: Option<(String, Credential)>,
    /// The database they are asked in.
    pub own_database: String,
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
    /// Reads at the beginning of a transaction may go to a replica.
    pub lazy: bool,
    /// Functions that count as reads because the administrator says so.
    pub read_functions: Vec<String>,
}

/// What a replica has replayed. A run of it: see [`super::upstream::Instance`].
pub type Replayed = sampler::Replayed<Lsn>;

/// A server, and what is known of it.
#[derive(Debug)]
pub struct Server {
    /// Where and how.
    pub options: ServerOptions,
    /// Its positions.
    pub sampler: Sampler<Lsn>,
    gate: Arc<Gate>,
    /// Set by an administrator: no new statement goes there.
    pub drained: AtomicBool,
    heard: Mutex<Heard>,
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
        self.answer().map(|answer| answer.report)
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
        lock(&self.heard).answer().copied()
    }

    /// The login for Breccia's own questions.
    #[must_use]
    pub fn own_login(&self, database: Option<&str>) -> Option<Login> {
        let (role, credential) = self.options.own_role.clone()?;
        Some(Login {
            role,
            database: database.unwrap_or(&self.options.own_database).to_owned(),
            credential,
            read_only: false,
        })
    }
}

impl Member for Server {
    type Position = Lsn;

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

    fn sampler(&self) -> &Sampler<Lsn> {
        &self.sampler
    }

    fn reported(&self) -> Option<Replayed> {
        let answer = self.answer().filter(|answer| answer.report.recovery)?;
        Some(Replayed {
            position: answer.report.position,
            asked: answer.at,
            run: answer.run,
        })
    }
}

/// A database of a cluster, and what its catalogue says.
#[derive(Debug)]
pub struct Database {
    /// The how many-eth it is of those met.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Tells reads from the rest.
    pub classifier: Classifier,
    /// Somebody has changed it: the catalogue must be read again.
    pub changed: Notify,
    /// Changes seen so far.
    pub changes: AtomicU64,
    /// Where the primary stood when the catalogue was read: what it says of functions and views need
    /// not hold on a replica that is further back.
    floor: AtomicU64,
    /// Catalogues still to be read soon, though nobody says that there was a change.
    doubts: AtomicU64,
    /// Some transaction that was prepared changes the catalogue.
    prepared: AtomicBool,
}

impl Database {
    /// One that nobody has met: nothing is a read there.
    pub(super) fn unknown() -> Arc<Self> {
        Arc::new(Self {
            number: usize::MAX,
            name: String::new(),
            classifier: Classifier::default(),
            changed: Notify::new(),
            changes: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            prepared: AtomicBool::new(false),
        })
    }

    /// The least position that a replica must have replayed for what the catalogue says to be true.
    #[must_use]
    pub fn floor(&self) -> Lsn {
        Lsn(self.floor.load(Ordering::Acquire))
    }

    /// A catalogue that says something new was read at this position, and is used from now on.
    pub(super) fn raise_floor(&self, position: Lsn) {
        self.floor.store(position.0, Ordering::Release);
    }

    /// A change was sent, and nobody will hear of its end: it may take effect later.
    pub fn note_doubt(&self) {
        self.doubts.store(DOUBTS, Ordering::Relaxed);
        self.note_change();
    }

    /// Whether the catalogue is to be read again soon.
    pub(super) fn take_doubt(&self) -> bool {
        let less = |doubts: u64| doubts.checked_sub(1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        self.doubts.fetch_update(set, get, less).is_ok()
    }

    /// PREPARE TRANSACTION inside a transaction that changes the catalogue or not, or the end of a
    /// prepared one outside of any: whether that may change the catalogue.
    pub fn note_two_phase(&self, changes: bool, inside: bool) -> bool {
        if inside {
            self.prepared.fetch_or(changes, Ordering::Relaxed);
            return changes;
        }
        let may = self.prepared.load(Ordering::Relaxed);
        if may {
            self.note_change();
        }
        may
    }

    /// Somebody changes what the catalogue says: until it is read again, nothing is a read.
    pub fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.classifier.forget_catalogue();
        self.changed.notify_one();
    }
}

/// A primary and its replicas.
#[derive(Debug)]
pub struct Cluster {
    /// How it is used.
    pub options: ClusterOptions,
    /// Its servers.
    pub servers: Vec<Server>,
    /// Prepared statements of all sessions.
    pub statements: Statements,
    /// Reads and writes by where they went and why.
    pub routed: Routed,
    gates: Arc<Gates>,
    election: Mutex<Election>,
    view: Mutex<Arc<View>>,
    version: AtomicU64,
    databases: Mutex<HashMap<String, Arc<Database>>>,
    pools: Pools<Endpoint>,
    /// A database was met for the first time.
    pub(super) met: Notify,
    /// A read found no replica that is known to have come far enough.
    pub(super) missed: Notify,
}

impl Replicas for Cluster {
    type Position = Lsn;
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
        };
        Self {
            election: Mutex::new(Election::new(names, options.max_lag)),
            options,
            servers: servers.into_iter().zip(gates.all()).map(server).collect(),
            statements: Statements::default(),
            routed: Routed::new(registry.clone()),
            gates,
            view: Mutex::default(),
            version: AtomicU64::new(0),
            databases: Mutex::default(),
            pools: Pools::default(),
            met: Notify::new(),
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

    /// The question that would tell how far a server has come by now, if it were asked.
    #[must_use]
    pub fn question(&self, server: usize) -> Option<Question> {
        let number = self.server(server)?.sampler.ticket().0;
        Some(Question { server, number })
    }

    /// How far a replica is behind, at least: time and bytes.
    #[must_use]
    pub fn lag(&self, server: usize) -> Option<(Duration, u64)> {
        let report = self.server(server)?.report()?;
        let election = lock(&self.election);
        let now = clock::now();
        let lag = election.lag(now, report.position);
        let lag = lag.unwrap_or_else(|| election.remembered(now));
        Some((lag, election.lag_bytes(report.position)))
    }

    /// An administrator names the primary among several claimants; `None`: no more.
    pub fn name_primary(&self, server: Option<usize>) {
        lock(&self.election).name(server);
        self.weigh(clock::now());
    }

    /// The primary had to answer a read: positions are asked for without anybody waiting, so that the
    /// next one finds them known.
    pub fn note_missed(&self) {
        self.missed.notify_one();
    }

    /// A server has said something of itself, or does not answer.
    pub(super) fn note(&self, server: usize, then: impl FnOnce(Heard) -> Heard) {
        if let Some(server) = self.server(server) {
            let mut heard = lock(&server.heard);
            *heard = then(*heard);
        }
        self.weigh(clock::now());
    }

    fn weigh(&self, now: Instant) {
        let mut election = lock(&self.election);
        let heard: Vec<_> = self.servers.iter().map(|it| *lock(&it.heard)).collect();
        let view = election.step(now, &heard);
        let mut current = lock(&self.view);
        if **current == view {
            return;
        }
        self.tell(&current, &view);
        let begins = current.epoch != view.epoch;
        if begins {
            // What was read from another primary need not be true of this one.
            self.databases().iter().for_each(|it| it.note_change());
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
        if old.primary != new.primary || old.timeline != new.timeline {
            match &new.primary {
                Ok(server) => tracing::info!(
                    store,
                    primary = name(*server),
                    timeline = new.timeline,
                    "the primary is known"
                ),
                Err(why) => tracing::warn!(store, why, "there is no primary"),
            }
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

    /// What administrators hold back, and what still runs.
    #[must_use]
    pub fn gates(&self) -> &Arc<Gates> {
        &self.gates
    }

    /// A database, perhaps met for the first time.
    #[must_use]
    pub fn database(&self, name: &str) -> Arc<Database> {
        let mut databases = lock(&self.databases);
        if let Some(database) = databases.get(name) {
            return Arc::clone(database);
        }
        let database = Arc::new(Database {
            number: databases.len(),
            name: name.to_owned(),
            classifier: Classifier::default(),
            changed: Notify::new(),
            changes: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            prepared: AtomicBool::new(false),
        });
        databases.insert(name.to_owned(), Arc::clone(&database));
        self.met.notify_one();
        database
    }

    /// Every database met so far.
    pub(super) fn databases(&self) -> Vec<Arc<Database>> {
        lock(&self.databases).values().map(Arc::clone).collect()
    }

    /// The pool of a login on a server, for the listener whose limits these are.
    #[must_use]
    pub fn pool(&self, server: usize, login: Login, limits: &Arc<PoolLimits>) -> Option<Arc<Pool>> {
        let ServerOptions {
            endpoint, health, ..
        } = &self.server(server)?.options;
        let new = |login| {
            Pool::new(
                endpoint.clone(),
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
