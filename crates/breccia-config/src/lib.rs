//! Breccia's configuration: the file as written, checked into a [`Plan`].
//!
//! It reads one TOML file (and the secret files it names) and opens nothing else: no socket, no
//! store, no clock. Invariant: a `Plan` that leaves this crate has passed every check, so nobody
//! behind it checks again.

mod plan;
mod secret;

pub use plan::{
    AdminPlan, BindPlan, CommandPlan, Eviction, ListenerPlan, LogFormat, LogLevel, LogPlan,
    MemcachedPlan, MemoryPlan, MultiKey, Plan, Protocol, RedisPlan, ShardedPlan, StorePlan,
    SubscriptionLoss, TlsClientPlan, TlsServerPlan, UserPlan,
};
pub use secret::Secret;
