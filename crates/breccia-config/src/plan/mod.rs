//! The checked plan: what a good file asks for, in the types the rest of Breccia works with.
//!
//! Not the file: no spans, no optional key whose default is known. Invariant: every store name in
//! a plan (a composite's parts, what a listener serves) is defined in `Plan::stores`, and
//! composites contain no cycle.

mod blob;
mod listener;
mod sql;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use breccia_core::layout::Role;

pub use blob::{
    AzureCredential, AzurePlan, FsPlan, GcsCredential, GcsPlan, HttpStorePlan, KeyForm,
    S3Credential, S3Plan, ShardedBlobPlan, SqlPlan, SqlTlsMode, SqlTlsPlan, SqlitePlan,
};
pub(crate) use blob::{bucket_location, normalised};
pub use listener::{
    BindPlan, ListenerPlan, Protocol, S3ListenerPlan, S3UserPlan, TlsServerPlan, UserPlan,
};
pub use sql::{
    Consistency, PoolMode, SqlListenerPlan, SqlReadReplicaPlan, SqlUserPlan, TransactionRouting,
};
pub use store::{
    CommandPlan, ConnectionsPer, Eviction, MemcachedPlan, MemoryPlan, MultiKey, RedisGroupKind,
    RedisGroupPlan, RedisPlan, ShardedPlan, StorePlan, SubscriptionLoss, TlsClientPlan,
};

use crate::Secret;

/// A whole configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How many workers to run; `None`: one for each core.
    pub workers: Option<usize>,
    /// Whether a worker's sends may leave in one system call.
    pub io_uring: bool,
    /// How long a drain waits for requests in flight.
    pub drain_timeout: Duration,
    /// What is logged, and how.
    pub log: LogPlan,
    /// The admin listener, if there is one.
    pub admin: Option<AdminPlan>,
    /// The folder that keeps layouts.
    pub state_dir: PathBuf,
    /// Every `[store.NAME]`.
    pub stores: BTreeMap<String, StorePlan>,
    /// Every `[listener.NAME]`.
    pub listeners: BTreeMap<String, ListenerPlan>,
}

impl Plan {
    /// Whether some composite with a layout lists this store. A composite that is listed *and*
    /// served by a listener is inner: a layout has one role, and the listing decides it.
    pub fn is_inner(&self, store: &str) -> bool {
        self.stores
            .values()
            .any(|plan| plan.members().iter().any(|member| member == store))
    }

    /// The role of a store's layout: see [`Plan::is_inner`].
    pub fn role(&self, store: &str) -> Role {
        if self.is_inner(store) {
            Role::Inner
        } else {
            Role::Outer
        }
    }

    /// Whether a store is a database and holds no objects, because it is a server of
    /// `sql-read-replica` composites only, or nothing uses it: nothing of the blob slice should
    /// open it.
    pub fn is_only_sql(&self, store: &str) -> bool {
        let server = self.stores.get(store).is_some_and(StorePlan::is_server);
        let mut composites = self.stores.values();
        server && composites.all(|plan| plan.is_sql() || !plan.parts().contains(&store))
    }

    /// The stores under `store` that are no composites, depth first in config order; a leaf is
    /// its own only leaf, and an undefined store has none.
    pub fn leaves(&self, store: &str) -> Vec<(&str, &StorePlan)> {
        let mut leaves = Vec::new();
        let mut waiting = vec![store];
        while let Some(name) = waiting.pop() {
            match self.stores.get_key_value(name) {
                Some((_, plan)) if plan.is_composite() => {
                    waiting.extend(plan.parts().into_iter().rev());
                }
                Some((name, plan)) => leaves.push((name.as_str(), plan)),
                None => {}
            }
        }
        leaves
    }

    /// The protocol that the servers of a `sql-read-replica` speak; `None`: it is none, or has no
    /// server.
    pub fn spoken(&self, name: &str) -> Option<Protocol> {
        let parts = self
            .stores
            .get(name)
            .filter(|store| store.is_sql())?
            .parts();
        parts
            .first()
            .and_then(|first| match self.stores.get(*first)? {
                StorePlan::Postgresql(_) => Some(Protocol::Postgresql),
                StorePlan::Mysql(_) => Some(Protocol::Mysql),
                _ => None,
            })
    }

    /// The leaves behind a listener, each once, whatever its protocol.
    pub fn served(&self, listener: &ListenerPlan) -> Vec<(&str, &StorePlan)> {
        let mut served = Vec::new();
        let mut seen = BTreeSet::new();
        for store in listener.stores() {
            let leaves = self.leaves(store).into_iter();
            served.extend(leaves.filter(|(name, _)| seen.insert(*name)));
        }
        served
    }
}

/// `log`: what is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlan {
    /// The least severe level that is logged.
    pub level: LogLevel,
    /// The form of a log line.
    pub format: LogFormat,
}

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// Also what an operator should look at.
    Warn,
    /// Also what happened.
    Info,
    /// Also what helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Every level, most severe first.
    pub const ALL: &[Self] = &[
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Every form.
    pub const ALL: &[Self] = &[Self::Text, Self::Json];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// `[admin]`: the listener for metrics, status and steering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminPlan {
    /// Where it listens.
    pub bind: SocketAddr,
    /// What a caller must show for `/status`, `/reload` and `/stores/…`; `None`: nothing.
    pub token: Option<Secret>,
    /// Whether it may listen off loopback without a token.
    pub insecure: bool,
}

macro_rules! display_as_name {
    ($($kind:ty),+) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )+};
}

display_as_name!(
    LogLevel,
    LogFormat,
    Protocol,
    Eviction,
    MultiKey,
    ConnectionsPer,
    SubscriptionLoss,
    KeyForm,
    SqlTlsMode,
    Consistency,
    TransactionRouting,
    PoolMode
);
