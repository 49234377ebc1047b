//! The plans of SQL: a primary with its read replicas, and what only its listeners and users have.
//!
//! Not the servers: those are stores of type `postgresql` or `mysql`. Invariant: what is here of a listener or
//! a user is there exactly when its protocol is SQL's.

use std::time::Duration;

use crate::Secret;

/// A store of type `sql-read-replica`. It has no layout: every server holds everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlReadReplicaPlan {
    /// The server that writes go to until the servers themselves say otherwise.
    pub primary: String,
    /// The servers that may answer reads; may be none.
    pub replicas: Vec<String>,
    /// How old an answer may be.
    pub consistency: Consistency,
    /// Where the statements of a transaction go.
    pub transactions: TransactionRouting,
    /// A replica that lags more answers nobody.
    pub max_lag: Duration,
    /// How long a read may wait for a replica to come up to it.
    pub replica_wait: Duration,
    /// Functions that count as reads because the administrator says so.
    pub read_functions: Vec<String>,
}

/// How old the answer of a replica may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// Not older than what the session wrote or has read.
    Session,
    /// Not older than any commit that was acknowledged before the read arrived.
    Store,
    /// Not older than `max-lag`.
    Eventual,
}

impl Consistency {
    /// Every promise.
    pub const ALL: &[Self] = &[Self::Session, Self::Store, Self::Eventual];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Store => "store",
            Self::Eventual => "eventual",
        }
    }
}

/// Where the statements of a transaction go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionRouting {
    /// All of them to the primary.
    Primary,
    /// Proven reads at its beginning may go to one replica.
    Lazy,
}

impl TransactionRouting {
    /// Every way.
    pub const ALL: &[Self] = &[Self::Primary, Self::Lazy];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Lazy => "lazy",
        }
    }
}

/// What only an SQL listener has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlListenerPlan {
    /// How long a client keeps an upstream connection.
    pub pool_mode: PoolMode,
    /// The most upstream connections for each role, database and server.
    pub pool_size: usize,
    /// How long a client may wait for an upstream connection.
    pub queue_timeout: Duration,
    /// How long a transaction may wait for its client; `None`: for ever.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// How long a transaction may take; `None`: for ever.
    pub transaction_timeout: Option<Duration>,
    /// A statement that takes this long is told to the log.
    pub slow_statement: Duration,
    /// How old an upstream connection may grow.
    pub max_lifetime: Duration,
    /// How long an upstream connection may be idle.
    pub upstream_idle_timeout: Duration,
    /// The query for the verifiers of users that the file does not name.
    pub auth_query: Option<String>,
    /// Whether clients may prove a password with MD5; never with `MySQL`.
    pub allow_md5: bool,
    /// Whether `MySQL` clients may be asked for files of theirs, with `LOAD DATA LOCAL`.
    pub local_infile: bool,
}

/// How long a client keeps an upstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolMode {
    /// Until its transaction ends.
    Transaction,
    /// Until it leaves.
    Session,
}

impl PoolMode {
    /// Every mode.
    pub const ALL: &[Self] = &[Self::Transaction, Self::Session];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// What only a user of an SQL listener has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlUserPlan {
    /// `SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`; there exactly when the user has no
    /// password, and never with `MySQL`.
    pub scram_verifier: Option<Secret>,
    /// The role the user has upstream; `None`: the store's `user`, or else its own name.
    pub upstream_user: Option<String>,
    /// The password of `upstream_user`; never without it.
    pub upstream_password: Option<Secret>,
}
