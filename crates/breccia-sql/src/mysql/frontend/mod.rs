//! What a client of MySQL or MariaDB sees: the login, then its session.
//!
//! ```text
//! accept ─▶ login ─▶ session ─▶ dispatch ─┬─ route: which server has seen enough
//!                                         ├─ lend: a connection at the session's settings
//!                                         ├─ serve: the command there
//!                                         └─ relay: its answer back
//! ```
//!
//! Not the wire itself ([`super::codec`]). Invariant: every client gets an answer in its protocol
//! or a closed connection, whatever it sends.

mod after;
mod amid;
mod attached;
mod away;
mod change_user;
mod client;
mod dispatch;
mod elsewhere;
mod ending;
mod execution;
mod kill;
mod lend;
mod limits;
mod login;
mod long;
mod own;
mod prepared;
mod previous;
mod relay;
mod route;
mod serve;
mod session;
mod tell;
mod traces;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use breccia_net::clock;
use breccia_net::drain::Drain;
use breccia_net::log_gate::LogGate;
use breccia_net::metrics::{self, Registry, SharedCounter};
use breccia_net::tls::TlsServer;
use breccia_net::worker::{Accepted, Service};

use super::cluster::Cluster;
use super::upstream::Credential;
use crate::bells::{Bells, Rung};
use crate::ends::Ends;
use crate::flow::{SCRATCH, Scratch};
use crate::guesses::Guesses;
use crate::pool::PoolLimits;
pub use kill::Clients;

/// At most so many refused logins of a listener are told to the log in a second.
const LINES_A_SECOND: u32 = 10;
/// The most characters that a line holds of why a login was refused.
const WHY_CHARACTERS: usize = 512;

/// Who may log in.
#[derive(Debug, Clone)]
pub struct MysqlUser {
    /// The password.
    pub password: String,
    /// The user to log in as upstream instead, and what that proves itself with.
    pub upstream: Option<(String, Credential)>,
}

/// What a listener allows.
#[derive(Debug, Clone)]
pub struct MysqlLimits {
    /// How long a client may be silent outside a transaction; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a client may be silent inside a transaction; `None`: for ever.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// How long a transaction may take; `None`: for ever.
    pub transaction_timeout: Option<Duration>,
    /// How long a client may leave answers unread.
    pub write_timeout: Duration,
    /// A statement that takes this long is told to the log.
    pub slow_statement: Duration,
    /// Each session keeps its connection to the primary.
    pub session_mode: bool,
    /// LOAD DATA LOCAL may ask clients for their files.
    pub local_infile: bool,
    /// The most bytes of one command.
    pub max_request_size: u64,
    /// The pools.
    pub pool: Arc<PoolLimits>,
}

/// A listener, as its sessions have it from their beginning to their end.
#[derive(Debug)]
pub struct MysqlListener {
    /// Its name.
    pub name: String,
    /// What it serves.
    pub cluster: Arc<Cluster>,
    /// Who may log in; `None`: everybody, under the name they give, with whatever password.
    pub users: Option<HashMap<String, MysqlUser>>,
    /// TLS; with it, no session goes without.
    pub tls: Option<TlsServer>,
    /// What it allows.
    pub limits: MysqlLimits,
    /// Its clients, by their numbers.
    pub clients: Arc<Clients>,
    /// Logins that failed.
    pub guesses: Arc<Guesses>,
    /// The gateway's end.
    pub drain: Drain,
    /// Counters.
    pub counters: Counters,
}

/// What a listener counts.
#[derive(Debug, Clone)]
pub struct Counters {
    reads: SharedCounter,
    writes: SharedCounter,
    failed: SharedCounter,
    logins_refused: SharedCounter,
    handshakes_refused: SharedCounter,
    logins: Arc<LogGate>,
    slow: Arc<LogGate>,
    refused: Arc<LogGate>,
    ends: Arc<Ends>,
}

impl Counters {
    /// The counters of the listener `name`.
    #[must_use]
    pub fn new(registry: &Registry, name: &str) -> Self {
        let requests = |command, outcome| {
            registry.shared_counter(&metrics::REQUESTS, &[name, command, outcome])
        };
        let refused =
            |reason| registry.shared_counter(&metrics::CONNECTIONS_REFUSED, &[name, reason]);
        let gate = || Arc::new(LogGate::of_several(LINES_A_SECOND, Duration::from_secs(1)));
        Self {
            reads: requests("replica", "ok"),
            writes: requests("primary", "ok"),
            failed: requests("any", "error"),
            logins_refused: refused("login"),
            handshakes_refused: refused("tls"),
            logins: gate(),
            slow: gate(),
            refused: gate(),
            ends: Arc::new(Ends::new(registry, name)),
        }
    }
}

/// A listener as it is now, shared by all workers. A reload replaces it for clients that connect from
/// then on; sessions go on with the one they began with.
#[derive(Debug)]
pub struct SharedListener(RwLock<Arc<MysqlListener>>);

impl SharedListener {
    /// One to begin with.
    #[must_use]
    pub fn new(listener: MysqlListener) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(listener))))
    }

    /// The listener now.
    #[must_use]
    pub fn get(&self) -> Arc<MysqlListener> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it.
    pub fn set(&self, listener: MysqlListener) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(listener);
    }
}

/// A listener on one worker.
#[derive(Debug)]
pub struct MysqlService {
    worker: Worker,
}

/// What sessions of one listener on one worker share.
#[derive(Debug)]
struct Worker {
    listener: Arc<SharedListener>,
    scratch: Scratch,
    /// Made for the first session.
    bells: OnceCell<Rc<Bells>>,
}

impl Worker {
    fn hang(&self, listener: &MysqlListener) -> Rung {
        let start = || Bells::start(&listener.cluster, &listener.drain);
        self.bells.get_or_init(start).hang()
    }
}

impl MysqlService {
    /// The service of one worker.
    #[must_use]
    pub fn new(listener: Arc<SharedListener>) -> Rc<Self> {
        Rc::new(Self {
            worker: Worker {
                listener,
                scratch: Rc::new(RefCell::new(vec![0; SCRATCH])),
                bells: OnceCell::new(),
            },
        })
    }
}

impl Service for MysqlService {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let listener = self.worker.listener.get();
            let drain = listener.drain.clone();
            let peer = connection.peer;
            let login = login::login(&listener, connection.stream, &peer, &self.worker);
            let session = tokio::select! {
                session = login => session,
                () = drain.draining() => return,
            };
            match session {
                Ok(session) => session.run().await,
                Err(error) => tell_login(&listener, &peer, &error),
            }
        })
    }
}

/// A client was let in to no session.
#[cold]
fn tell_login(listener: &MysqlListener, peer: &str, error: &login::LoginError) {
    if !error.is_a_refusal() {
        // Whoever only looks whether the port is open leaves like this, and is no line.
        tracing::debug!(listener = listener.name, peer, why = %error, "a login ended");
        return;
    }
    if !matches!(error, login::LoginError::Handshake(_)) {
        listener.counters.logins_refused.increment();
    }
    if let Some(left_out) = listener.counters.logins.pass(clock::now()) {
        // A stranger has chosen the name in it.
        let why: String = error.to_string().chars().take(WHY_CHARACTERS).collect();
        let listener = listener.name.as_str();
        tracing::warn!(listener, peer, why, left_out, "a login is refused");
    }
}
