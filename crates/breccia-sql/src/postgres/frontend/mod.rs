//! What a client of PostgreSQL sees: the login, then its session.
//!
//! ```text
//! accept ─▶ arrival ─▶ login
//!                        └─▶ session ─┬─ batch: what is asked, and is it a read?
//!                                     ├─ route: which server has seen enough
//!                                     ├─ translate: names of statements
//!                                     ├─ attached: bytes both ways at once
//!                                     └─ expected: which answer is whose
//! ```
//!
//! Not the wire itself ([`super::codec`]). Invariant: every client gets an answer in its protocol
//! or a closed connection, whatever it sends.

mod arrival;
mod attached;
mod batch;
mod begun;
mod cancel;
mod client;
mod deposed;
mod expected;
mod failed;
mod feed;
mod gate;
mod hear;
mod leave;
mod lend;
mod limits;
mod login;
mod looks;
mod lost;
mod names;
mod noted;
mod own;
mod route;
mod serve;
mod session;
mod shows;
mod tell;
mod told;
mod translate;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use breccia_net::drain::Drain;
use breccia_net::metrics::{self, Registry, SharedCounter};
use breccia_net::tls::TlsServer;
use breccia_net::worker::{Accepted, Service};

use super::cluster::Cluster;
use super::pool::PoolLimits;
use super::scram::Verifier;
use super::upstream::{Credential, Upstream};
use crate::bells::{Bells, Rung};
use crate::ends::Ends;
pub use crate::guesses::Guesses;
pub use arrival::ALPN;
pub use cancel::Cancels;
use client::{SCRATCH, Scratch};
use tell::Gates;

/// Who may log in.
#[derive(Debug, Clone)]
pub struct SqlUser {
    /// What its password is held against.
    pub verifier: Verifier,
    /// The password itself, where it is configured.
    pub password: Option<String>,
    /// The role to use upstream instead, and what that proves itself with.
    pub upstream: Option<(String, Credential)>,
}

/// What a listener allows.
#[derive(Debug, Clone)]
pub struct SqlLimits {
    /// How long a client may be silent outside a transaction; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a client may be silent inside a transaction; `None`: for ever.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// How long a transaction may take; `None`: for ever.
    pub transaction_timeout: Option<Duration>,
    /// How long a client may leave answers unread.
    pub write_timeout: Duration,
    /// The longest query, in bytes. Parameters and copies pass in pieces and may be longer.
    pub max_request_size: usize,
    /// A statement that takes this long is told to the log.
    pub slow_statement: Duration,
    /// Each session keeps its connection to the primary.
    pub session_mode: bool,
    /// The pools.
    pub pool: Arc<PoolLimits>,
}

/// A question for verifiers, and the one connection it is asked on: strangers make no more.
#[derive(Debug)]
pub struct AuthQuery {
    sql: String,
    connection: tokio::sync::Mutex<Option<(usize, Upstream)>>,
}

impl AuthQuery {
    /// Asks `sql`, whose `$1` is the user's name.
    #[must_use]
    pub fn new(sql: String) -> Self {
        Self {
            sql,
            connection: tokio::sync::Mutex::default(),
        }
    }

    /// The question.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

/// A listener, as its sessions have it from their beginning to their end.
#[derive(Debug)]
pub struct SqlListener {
    /// Its name.
    pub name: String,
    /// What it serves.
    pub cluster: Arc<Cluster>,
    /// Who may log in; `None`: everybody, under the name they give.
    pub users: Option<HashMap<String, SqlUser>>,
    /// The query for verifiers of users that are not listed; `$1` is the user's name. Its row is
    /// name and verifier, as in `pg_shadow`.
    pub auth_query: Option<Arc<AuthQuery>>,
    /// TLS, of the protocol [`ALPN`]; with it, no session goes without.
    pub tls: Option<TlsServer>,
    /// MD5 may be used by clients that cannot do better; needs passwords.
    pub allow_md5: bool,
    /// What it allows.
    pub limits: SqlLimits,
    /// Who may cancel what.
    pub cancels: Arc<Cancels>,
    /// Draws the salts of users that do not exist.
    pub secret: Vec<u8>,
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
    /// What the log is told of statements is counted too, and bounded.
    gates: Arc<Gates>,
    ends: Arc<Ends>,
    logins_refused: SharedCounter,
    handshakes_refused: SharedCounter,
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
        Self {
            reads: requests("replica", "ok"),
            writes: requests("primary", "ok"),
            failed: requests("any", "error"),
            gates: Arc::default(),
            ends: Arc::new(Ends::new(registry, name)),
            logins_refused: refused("login"),
            handshakes_refused: refused("tls"),
        }
    }
}

/// A listener as it is now, shared by all workers. A reload replaces it for clients that connect from
/// then on; sessions go on with the one they began with.
#[derive(Debug)]
pub struct SharedListener(RwLock<Arc<SqlListener>>);

impl SharedListener {
    /// One to begin with.
    #[must_use]
    pub fn new(listener: SqlListener) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(listener))))
    }

    /// The listener now.
    #[must_use]
    pub fn get(&self) -> Arc<SqlListener> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it.
    pub fn set(&self, listener: SqlListener) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(listener);
    }
}

/// A listener on one worker.
#[derive(Debug)]
pub struct SqlService {
    listener: Arc<SharedListener>,
    worker: Worker,
}

/// What sessions of one listener on one worker share.
#[derive(Debug)]
struct Worker {
    scratch: Scratch,
    /// Made for the first session.
    bells: OnceCell<Rc<Bells>>,
}

impl Worker {
    fn hang(&self, listener: &SqlListener) -> Rung {
        let start = || Bells::start(&listener.cluster, &listener.drain);
        self.bells.get_or_init(start).hang()
    }
}

impl SqlService {
    /// The service of one worker.
    #[must_use]
    pub fn new(listener: Arc<SharedListener>) -> Rc<Self> {
        Rc::new(Self {
            listener,
            worker: Worker {
                scratch: Rc::new(RefCell::new(vec![0; SCRATCH])),
                bells: OnceCell::new(),
            },
        })
    }
}

impl Service for SqlService {
    fn serve(self: Rc<Self>, connection: Accepted) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let listener = self.listener.get();
            let drain = listener.drain.clone();
            let peer = connection.peer;
            let login = login::login(&listener, connection.stream, &peer, &self.worker);
            let session = tokio::select! {
                session = login => session,
                () = drain.draining() => return,
            };
            match session {
                Ok(Some(session)) => session.run().await,
                Ok(None) => {}
                Err(error) => tell::tell_login(&listener, &peer, &error),
            }
        })
    }
}
