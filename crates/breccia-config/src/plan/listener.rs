//! The plans of listeners: where clients come in, and what they may ask for.
//!
//! Not the admin listener. Invariant: a listener that others can reach has users with passwords,
//! asks for client certificates, or says `insecure`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::sql::{SqlListenerPlan, SqlUserPlan};
use crate::Secret;

/// One `[listener.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerPlan {
    /// What clients speak.
    pub protocol: Protocol,
    /// Where it listens.
    pub bind: BindPlan,
    /// The store it serves; empty for an S3 listener with fixed buckets: see
    /// [`ListenerPlan::stores`].
    pub store: String,
    /// TLS towards clients; `None`: plain.
    pub tls: Option<TlsServerPlan>,
    /// Whether anybody who can reach it may use it.
    pub insecure: bool,
    /// How long a request may wait here before it is sent.
    pub deadline: Duration,
    /// The most clients at once.
    pub max_clients: usize,
    /// How long a client may be silent; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// The largest request, in bytes.
    pub max_request_size: u64,
    /// The largest request that is held until it is whole, in bytes. Only for Redis.
    pub max_held_request: u64,
    /// The most arguments of a request.
    pub max_arguments: usize,
    /// The most unanswered requests of one client.
    pub max_in_flight: usize,
    /// How many bytes of replies may wait for one client.
    pub reply_buffer: u64,
    /// How long a full reply buffer may stay full.
    pub write_timeout: Duration,
    /// How many bytes a second the sender of a big request must keep up; 0: no floor.
    pub min_body_rate: u64,
    /// Who may log in; none: nobody has to.
    pub users: Vec<UserPlan>,
    /// What only an S3 listener has; present exactly when `protocol` is S3.
    pub s3: Option<S3ListenerPlan>,
    /// What only an SQL listener has; present exactly when `protocol` is SQL's.
    pub sql: Option<SqlListenerPlan>,
}

impl ListenerPlan {
    /// Every store it serves, each once, whatever the protocol.
    pub fn stores(&self) -> Vec<&str> {
        let fixed = self.s3.as_ref().and_then(|s3| s3.buckets.as_ref());
        match fixed {
            Some(buckets) => {
                let stores: BTreeSet<&str> = buckets.values().map(String::as_str).collect();
                stores.into_iter().collect()
            }
            None => vec![self.store.as_str()],
        }
    }
}

/// What only an S3 listener has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3ListenerPlan {
    /// The store of each bucket; `None`: clients make buckets in [`ListenerPlan::store`].
    pub buckets: Option<BTreeMap<String, String>>,
    /// The domain whose subdomains are buckets, lower case; `None`: path style only.
    pub domain: Option<String>,
    /// The region it says it is in.
    pub region: String,
    /// How many bytes of bodies it may hold at once, of all clients.
    pub buffer_memory: u64,
}

/// What the clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// RESP2 and RESP3.
    Redis,
    /// memcached's text protocol with meta commands.
    Memcached,
    /// Amazon S3's.
    S3,
    /// `PostgreSQL`'s, version 3.
    Postgresql,
    /// `MySQL`'s and `MariaDB`'s.
    Mysql,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: &[Self] = &[
        Self::Redis,
        Self::Memcached,
        Self::S3,
        Self::Postgresql,
        Self::Mysql,
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Memcached => "memcached",
            Self::S3 => "s3",
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
        }
    }

    /// Whether it is one of SQL.
    pub fn is_sql(self) -> bool {
        matches!(self, Self::Postgresql | Self::Mysql)
    }
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindPlan {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl BindPlan {
    /// Whether only this machine can reach it: loopback or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for BindPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `tls` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServerPlan {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who signs client certificates, PEM; `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// One `[[listener.NAME.user]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserPlan {
    /// The name to log in with.
    pub name: String,
    /// The password; `None`: any will do, or with SQL: there is a verifier. Never there for S3.
    pub password: Option<Secret>,
    /// What only a user of an S3 listener has; present exactly then.
    pub s3: Option<S3UserPlan>,
    /// What only a user of an SQL listener has; present exactly then.
    pub sql: Option<SqlUserPlan>,
}

/// What only a user of an S3 listener has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3UserPlan {
    /// The public half of the key pair.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Secret,
    /// The buckets the user sees; `None`: all.
    pub buckets: Option<Vec<String>>,
    /// Whether the user may only read.
    pub read_only: bool,
}
