//! The plans of stores: members and composites.
//!
//! Not the stores themselves: the slices define those, and the binary maps these plans to their
//! options. Invariant: addresses are normalised, so two spellings of one host compare equal.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use breccia_core::address::Address;
use breccia_core::hash::{HashKind, HashTag};

use super::blob::{
    AzurePlan, FsPlan, GcsPlan, S3Plan, ShardedBlobPlan, SqlPlan, SqlitePlan, bucket_location,
    normalised,
};
use super::sql::SqlReadReplicaPlan;
use crate::Secret;

/// One `[store.NAME]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StorePlan {
    /// `type = "redis"`.
    Redis(RedisPlan),
    /// `type = "redis-sentinel"` or `type = "redis-cluster"`.
    RedisGroup(RedisGroupPlan),
    /// `type = "memcached"`.
    Memcached(MemcachedPlan),
    /// `type = "memory"`.
    Memory(MemoryPlan),
    /// `type = "sharded-in-memory"`.
    ShardedInMemory(ShardedPlan),
    /// `type = "fs"`.
    Fs(FsPlan),
    /// `type = "sqlite"`.
    Sqlite(SqlitePlan),
    /// `type = "s3"`.
    S3(S3Plan),
    /// `type = "azure"`.
    Azure(AzurePlan),
    /// `type = "gcs"`.
    Gcs(GcsPlan),
    /// `type = "postgresql"`.
    Postgresql(SqlPlan),
    /// `type = "mysql"`.
    Mysql(SqlPlan),
    /// `type = "sharded-blob"`.
    ShardedBlob(ShardedBlobPlan),
    /// `type = "sql-read-replica"`.
    SqlReadReplica(SqlReadReplicaPlan),
}

impl StorePlan {
    /// The store's `type`, as in the file.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::RedisGroup(plan) => plan.kind.type_name(),
            Self::Memcached(_) => "memcached",
            Self::Memory(_) => "memory",
            Self::ShardedInMemory(_) => "sharded-in-memory",
            Self::Fs(_) => "fs",
            Self::Sqlite(_) => "sqlite",
            Self::S3(_) => "s3",
            Self::Azure(_) => "azure",
            Self::Gcs(_) => "gcs",
            Self::Postgresql(_) => "postgresql",
            Self::Mysql(_) => "mysql",
            Self::ShardedBlob(_) => "sharded-blob",
            Self::SqlReadReplica(_) => "sql-read-replica",
        }
    }

    /// Whether the store is made of other stores.
    pub fn is_composite(&self) -> bool {
        self.has_layout() || self.is_sql()
    }

    /// Whether the store is a composite whose shards each hold a part of the keys.
    pub fn has_layout(&self) -> bool {
        matches!(self, Self::ShardedInMemory(_) | Self::ShardedBlob(_))
    }

    /// Whether the store holds keys with values in memory.
    pub fn is_in_memory(&self) -> bool {
        matches!(
            self,
            Self::Redis(_)
                | Self::RedisGroup(_)
                | Self::Memcached(_)
                | Self::Memory(_)
                | Self::ShardedInMemory(_)
        )
    }

    /// Whether the store can hold objects. A database can, also if it is only a server of a
    /// `sql-read-replica`: see [`Plan::is_only_sql`](super::Plan::is_only_sql).
    pub fn is_blob(&self) -> bool {
        !self.is_in_memory() && !self.is_sql()
    }

    /// Whether the store is a database server with its read replicas.
    pub fn is_sql(&self) -> bool {
        matches!(self, Self::SqlReadReplica(_))
    }

    /// Whether the store is a database server of the kinds that a `sql-read-replica` is made of.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Postgresql(_) | Self::Mysql(_))
    }

    /// Every store a composite is made of, in config order: the shards, or the primary and then
    /// the replicas; none for a leaf.
    pub fn parts(&self) -> Vec<&str> {
        let (first, rest) = match self {
            Self::SqlReadReplica(plan) => (Some(&plan.primary), plan.replicas.as_slice()),
            _ => (None, self.members()),
        };
        let parts = first.into_iter().chain(rest);
        parts.map(String::as_str).collect()
    }

    /// The shards of a composite that has a layout, in config order; none for other stores.
    pub fn members(&self) -> &[String] {
        match self {
            Self::ShardedInMemory(plan) => &plan.stores,
            Self::ShardedBlob(plan) => &plan.stores,
            _ => &[],
        }
    }

    /// How a Redis server of this store is used; none for stores of other protocols.
    pub fn redis(&self) -> Option<&RedisPlan> {
        match self {
            Self::Redis(plan) => Some(plan),
            Self::RedisGroup(plan) => Some(&plan.redis),
            _ => None,
        }
    }

    /// The endpoint of a leaf that lies on a server. Of servers that are found by asking others
    /// none is known here.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Redis(plan) => Some(&plan.address),
            Self::Memcached(plan) => Some(&plan.address),
            Self::S3(plan) => Some(&plan.endpoint.address),
            Self::Azure(plan) => Some(&plan.endpoint.address),
            Self::Gcs(plan) => Some(&plan.endpoint.address),
            Self::Postgresql(plan) | Self::Mysql(plan) => Some(&plan.address),
            Self::RedisGroup(_)
            | Self::Memory(_)
            | Self::ShardedInMemory(_)
            | Self::Fs(_)
            | Self::Sqlite(_)
            | Self::ShardedBlob(_)
            | Self::SqlReadReplica(_) => None,
        }
    }

    /// Where the store's data lies, as one text: the address, and what tells it from other data
    /// there. A composite and a memory store have none. No secret is in it.
    pub fn location(&self) -> Option<String> {
        let in_bucket = |endpoint, bucket, prefix| {
            Some(bucket_location(self.type_name(), endpoint, bucket, prefix))
        };
        let in_file = |path| {
            Some(format!(
                "{}:{}",
                self.type_name(),
                normalised(path).display()
            ))
        };
        match self {
            Self::Redis(plan) => Some(format!("{}/{}", plan.address, plan.database)),
            Self::RedisGroup(plan) => Some(plan.location()),
            Self::Memcached(plan) => Some(plan.address.to_string()),
            Self::Fs(plan) => in_file(&plan.path),
            Self::Sqlite(plan) => in_file(&plan.path),
            Self::S3(plan) => in_bucket(&plan.endpoint, &plan.bucket, &plan.http.key_prefix),
            Self::Azure(plan) => in_bucket(&plan.endpoint, &plan.container, &plan.http.key_prefix),
            Self::Gcs(plan) => in_bucket(&plan.endpoint, &plan.bucket, &plan.http.key_prefix),
            Self::Postgresql(plan) | Self::Mysql(plan) => Some(format!(
                "{}:{}/{}/{}",
                self.type_name(),
                plan.address,
                plan.database,
                plan.table_prefix
            )),
            Self::Memory(_)
            | Self::ShardedInMemory(_)
            | Self::ShardedBlob(_)
            | Self::SqlReadReplica(_) => None,
        }
    }
}

/// A store of type `redis`.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisPlan {
    /// The server.
    pub address: Address,
    /// The database of the `url`: what a client calls database 0.
    pub database: u32,
    /// The user to log in as; `None` with a password: Redis's `default`.
    pub user: Option<String>,
    /// The password to log in with.
    pub password: Option<Secret>,
    /// TLS towards the server; `None`: plain.
    pub tls: Option<TlsClientPlan>,
    /// How long a sent request may stay unanswered.
    pub timeout: Duration,
    /// How old the oldest unanswered request may be before nothing more is written.
    pub stall_gate: Duration,
    /// Shared connections per worker, or process, and protocol version.
    pub connections: usize,
    /// Whose the shared connections are.
    pub connections_per: ConnectionsPer,
    /// Requests in flight per worker.
    pub max_in_flight: usize,
    /// Leased connections per worker.
    pub max_leases: usize,
    /// How many databases a client may SELECT, from `database` on.
    pub databases: u32,
    /// Time between probes.
    pub probe_interval: Duration,
    /// How long a probe may stay unanswered.
    pub probe_timeout: Duration,
}

/// Who has a store's shared connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionsPer {
    /// Each worker: nothing crosses a thread.
    Worker,
    /// All workers together: fewer connections, more CPU.
    Process,
}

impl ConnectionsPer {
    /// Everybody who can.
    pub const ALL: &[Self] = &[Self::Worker, Self::Process];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Process => "process",
        }
    }
}

/// A store of type `redis-sentinel` or `redis-cluster`: servers that are found by asking others.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisGroupPlan {
    /// Who is asked first: sentinels, or servers of the cluster.
    pub urls: Vec<Address>,
    /// Whom they tell of.
    pub kind: RedisGroupKind,
    /// Whether replicas answer commands that only read.
    pub read_from_replicas: bool,
    /// How each server is used; its address is that of the first who is asked.
    pub redis: RedisPlan,
}

/// The kinds of [`RedisGroupPlan`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RedisGroupKind {
    /// A primary with its replicas, watched by sentinels.
    Sentinel {
        /// The name the sentinels watch it under.
        service: String,
        /// The user to log in to the sentinels as.
        user: Option<String>,
        /// The password to log in to the sentinels with.
        password: Option<Secret>,
    },
    /// A Redis Cluster.
    Cluster,
}

impl RedisGroupKind {
    /// The store's `type`, as in the file.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Sentinel { .. } => "redis-sentinel",
            Self::Cluster => "redis-cluster",
        }
    }
}

impl RedisGroupPlan {
    /// Where the data lies, as far as the file says: whoever is asked, whatever their order.
    fn location(&self) -> String {
        let mut asked: Vec<String> = self.urls.iter().map(Address::to_string).collect();
        asked.sort_unstable();
        let asked = asked.join(",");
        match &self.kind {
            RedisGroupKind::Sentinel { service, .. } => format!("sentinel:{service}@{asked}"),
            RedisGroupKind::Cluster => format!("cluster:{asked}"),
        }
    }
}

/// `tls` of a store: how to be sure of the server, and how to prove oneself to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsClientPlan {
    /// Certificates that are trusted, PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The own certificate, PEM; present exactly when `key` is.
    pub cert: Option<PathBuf>,
    /// The own key, PEM.
    pub key: Option<PathBuf>,
    /// The name the server's certificate must carry; `None`: that of the address.
    pub server_name: Option<String>,
    /// Whether any certificate is good enough.
    pub insecure: bool,
}

/// A store of type `memcached`.
#[derive(Debug, Clone, PartialEq)]
pub struct MemcachedPlan {
    /// The server.
    pub address: Address,
    /// How long a sent request may stay unanswered.
    pub timeout: Duration,
    /// How old the oldest unanswered request may be before nothing more is written.
    pub stall_gate: Duration,
    /// Connections per worker.
    pub connections: usize,
    /// Requests in flight per worker.
    pub max_in_flight: usize,
    /// Time between probes.
    pub probe_interval: Duration,
    /// How long a probe may stay unanswered.
    pub probe_timeout: Duration,
}

/// A store of type `memory`: inside this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The most it may hold, in bytes; `None`: no limit.
    pub max_memory: Option<u64>,
    /// What happens at `max_memory`; anything but `NoEviction` comes with a limit.
    pub eviction: Eviction,
}

/// What a memory store does when it is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// Writes that need room are refused.
    NoEviction,
    /// The least used entries go, by the S3-FIFO rule.
    S3Fifo,
}

impl Eviction {
    /// Every policy.
    pub const ALL: &[Self] = &[Self::NoEviction, Self::S3Fifo];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::S3Fifo => "s3-fifo",
        }
    }
}

/// A store of type `sharded-in-memory`.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardedPlan {
    /// The shards; their order counts once, when the layout is made.
    pub stores: Vec<String>,
    /// The hash of a key.
    pub hash: HashKind,
    /// Which part of a key is hashed; `None`: all of it.
    pub hash_tag: Option<HashTag>,
    /// Whether each shard holds a marker with the layout.
    pub marker: bool,
    /// The only layout that is accepted: 16 hex digits, lower case.
    pub layout_digest: Option<String>,
    /// What keys of one command must share.
    pub multi_key: MultiKey,
    /// Where the keys of module commands are; by upper-case command name.
    pub commands: BTreeMap<String, CommandPlan>,
    /// What subscribers see when a shard's subscription connection is lost.
    pub subscription_loss: SubscriptionLoss,
}

/// What the keys of a command that cannot be split must share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MultiKey {
    /// A shard: works today, and may stop working when the composite grows.
    Shard,
    /// A slot: works for ever.
    Slot,
}

impl MultiKey {
    /// Every rule.
    pub const ALL: &[Self] = &[Self::Shard, Self::Slot];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Slot => "slot",
        }
    }
}

/// What subscribers see when a shard's subscription connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionLoss {
    /// Those who may have missed a message are disconnected.
    Disconnect,
    /// Nothing: the subscription is made again.
    Resubscribe,
}

impl SubscriptionLoss {
    /// Every way.
    pub const ALL: &[Self] = &[Self::Disconnect, Self::Resubscribe];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Resubscribe => "resubscribe",
        }
    }
}

/// `command.NAME`: where the keys of a module command are, as in Redis's own COMMAND reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandPlan {
    /// The first argument that is a key; the command's name is argument 0.
    pub first_key: u32,
    /// The last one; below zero it counts from the end, -1 being the last argument.
    pub last_key: i32,
    /// The distance between keys.
    pub step: u32,
    /// Whether the command may change data.
    pub write: bool,
}
