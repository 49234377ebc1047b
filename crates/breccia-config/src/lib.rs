//! Breccia's configuration: the file as written, checked into a [`Plan`].
//!
//! It reads one TOML file (and the secret files it names) and opens nothing else: no socket, no
//! store, no clock. Invariant: a `Plan` that leaves this crate has passed every check, so nobody
//! behind it checks again.
//!
//! The way through: [`load`] parses the text and reads each table by its description
//! (`tables.rs`), holds the tables against each other (`check/`) and makes the plan
//! (`assemble.rs`). Faults are gathered on the way and returned all at once. The same
//! descriptions make the JSON [`schema`] and the [`reference_markdown`].

mod assemble;
mod check;
mod decode;
mod fault;
mod field;
mod http_url;
mod locate;
mod plan;
mod quick_start;
mod read;
mod reference;
mod rule;
mod schema;
mod secret;
mod source;
mod tables;
mod units;
mod url;
mod value;

pub use fault::{ConfigError, Fault, Notice, Place, RedisConfigError, SqlConfigError, Warning};
pub use http_url::HttpEndpoint;
pub use locate::line_of;
pub use plan::{
    AdminPlan, AzureCredential, AzurePlan, BindPlan, CommandPlan, ConnectionsPer, Consistency,
    Eviction, FsPlan, GcsCredential, GcsPlan, HttpStorePlan, KeyForm, ListenerPlan, LogFormat,
    LogLevel, LogPlan, MemcachedPlan, MemoryPlan, MultiKey, Plan, PoolMode, Protocol,
    RedisGroupKind, RedisGroupPlan, RedisPlan, S3Credential, S3ListenerPlan, S3Plan, S3UserPlan,
    ShardedBlobPlan, ShardedPlan, SqlListenerPlan, SqlPlan, SqlReadReplicaPlan, SqlTlsMode,
    SqlTlsPlan, SqlUserPlan, SqlitePlan, StorePlan, SubscriptionLoss, TlsClientPlan, TlsServerPlan,
    TransactionRouting, UserPlan,
};
pub use quick_start::{QUICK_START, quick_start};
pub use read::{Checked, load, parse};
pub use reference::reference_markdown;
pub use schema::schema;
pub use secret::Secret;

#[cfg(test)]
mod tests;
