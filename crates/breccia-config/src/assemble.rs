//! From checked tables to the plan.
//!
//! No checks: this runs only when none has failed. Invariant: a `None` here is a gap in the field
//! tables (a required value without a fault, a default of the wrong kind), never a user's mistake.

pub(crate) mod blob;
mod listener;
mod sql;

use std::collections::BTreeMap;

use breccia_core::hash::HashKind;

use crate::check::{Tables, only_servers};
use crate::plan::{
    AdminPlan, CommandPlan, ConnectionsPer, Eviction, LogFormat, LogLevel, LogPlan, MemcachedPlan,
    MemoryPlan, MultiKey, Plan, RedisGroupKind, RedisGroupPlan, RedisPlan, ShardedPlan, StorePlan,
    SubscriptionLoss, TlsClientPlan,
};
use crate::tables;
use crate::url::RedisUrl;
use crate::value::{Decoded, Name};

pub(crate) fn plan(file: &Decoded) -> Option<Plan> {
    let log: &Decoded = file.get("log")?;
    let state: &Decoded = file.get("state")?;
    Some(Plan {
        workers: file.get("workers"),
        io_uring: file.get("io-uring")?,
        drain_timeout: file.get("drain-timeout")?,
        log: LogPlan {
            level: log.choice("level", LogLevel::ALL, LogLevel::name)?,
            format: log.choice("format", LogFormat::ALL, LogFormat::name)?,
        },
        admin: optional(file, "admin", admin).ok()?,
        state_dir: state.get("dir")?,
        stores: stores(file)?,
        listeners: named(file, "listener", listener::listener)?,
    })
}

/// A table that may be absent: `Ok(None)` if it is.
fn optional<T>(
    table: &Decoded,
    key: &str,
    read: impl Fn(&Decoded) -> Option<T>,
) -> Result<Option<T>, Gap> {
    table
        .get::<&Decoded>(key)
        .map(|inner| read(inner).ok_or(Gap))
        .transpose()
}

/// A value that a field table should have provided.
struct Gap;

fn named<T>(
    table: &Decoded,
    key: &str,
    read: impl Fn(&Decoded) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let none = Tables::new();
    let tables: &Tables = table.get(key).unwrap_or(&none);
    tables
        .iter()
        .map(|(name, inner)| Some((name.clone(), read(inner)?)))
        .collect()
}

fn admin(table: &Decoded) -> Option<AdminPlan> {
    Some(AdminPlan {
        bind: table.get("bind")?,
        token: table.get("token"),
        insecure: table.get("insecure")?,
    })
}

fn stores(file: &Decoded) -> Option<BTreeMap<String, StorePlan>> {
    let none = Tables::new();
    let tables: &Tables = file.get("store").unwrap_or(&none);
    let only_sql = only_servers(tables);
    let plan = |(name, table): (&String, _)| {
        let plan = store(table, only_sql.contains(name.as_str()))?;
        Some((name.clone(), plan))
    };
    tables.iter().map(plan).collect()
}

/// One store; a database may be nothing but a server of SQL.
fn store(table: &Decoded, only_sql: bool) -> Option<StorePlan> {
    let kind = table.kind;
    if kind == tables::REDIS.name {
        redis(table).map(StorePlan::Redis)
    } else if kind == tables::REDIS_SENTINEL.name || kind == tables::REDIS_CLUSTER.name {
        group(table).map(StorePlan::RedisGroup)
    } else if kind == tables::MEMCACHED.name {
        memcached(table).map(StorePlan::Memcached)
    } else if kind == tables::MEMORY.name {
        memory(table).map(StorePlan::Memory)
    } else if kind == tables::SHARDED_IN_MEMORY.name {
        sharded(table).map(StorePlan::ShardedInMemory)
    } else if kind == tables::SQL_READ_REPLICA.name {
        sql::read_replica(table).map(StorePlan::SqlReadReplica)
    } else {
        blob::store(table, only_sql)
    }
}

fn redis(table: &Decoded) -> Option<RedisPlan> {
    let url: &RedisUrl = table.get("url")?;
    let mut tls = match optional(table, "tls", tls_client).ok()? {
        None if url.tls => Some(TlsClientPlan::default()),
        tls => tls,
    };
    if let Some(tls) = &mut tls {
        tls.insecure |= url.insecure;
    }
    Some(RedisPlan {
        user: url.user.clone().or_else(|| table.get("user")),
        password: url.password.clone().or_else(|| table.get("password")),
        ..server(table, url, tls)?
    })
}

/// Redis servers that are found by asking others. Until one is found, its plan is that of whoever
/// is asked first.
fn group(table: &Decoded) -> Option<RedisGroupPlan> {
    let urls: &[RedisUrl] = table.get("urls")?;
    let first = urls.first()?;
    let mut tls = match optional(table, "tls", tls_client).ok()? {
        None if first.tls => Some(TlsClientPlan::default()),
        tls => tls,
    };
    if let Some(tls) = &mut tls {
        tls.insecure |= urls.iter().any(|url| url.insecure);
    }
    let kind = if table.kind == tables::REDIS_SENTINEL.name {
        RedisGroupKind::Sentinel {
            service: table.get("service")?,
            user: table.get("sentinel-user"),
            password: table.get("sentinel-password"),
        }
    } else {
        RedisGroupKind::Cluster
    };
    Some(RedisGroupPlan {
        urls: urls.iter().map(|url| url.address.clone()).collect(),
        kind,
        read_from_replicas: table.get("read-from-replicas")?,
        redis: server(table, first, tls)?,
    })
}

/// What tables of Redis servers share.
fn server(table: &Decoded, url: &RedisUrl, tls: Option<TlsClientPlan>) -> Option<RedisPlan> {
    Some(RedisPlan {
        address: url.address.clone(),
        database: url.database,
        user: table.get("user"),
        password: table.get("password"),
        tls,
        timeout: table.get("timeout")?,
        stall_gate: table.get("stall-gate")?,
        connections: table.get("connections")?,
        connections_per: table
            .choice("connections-per", ConnectionsPer::ALL, ConnectionsPer::name)
            .unwrap_or(ConnectionsPer::Worker),
        max_in_flight: table.get("max-in-flight")?,
        max_leases: table.get("max-leases")?,
        databases: table.get("databases").unwrap_or(1),
        probe_interval: table.get("probe-interval")?,
        probe_timeout: table.get("probe-timeout")?,
    })
}

fn tls_client(table: &Decoded) -> Option<TlsClientPlan> {
    Some(TlsClientPlan {
        ca: table.get("ca"),
        cert: table.get("cert"),
        key: table.get("key"),
        server_name: table.get("server-name"),
        insecure: table.get("insecure")?,
    })
}

fn memcached(table: &Decoded) -> Option<MemcachedPlan> {
    Some(MemcachedPlan {
        address: table
            .get::<&breccia_core::address::Address>("address")?
            .clone(),
        timeout: table.get("timeout")?,
        stall_gate: table.get("stall-gate")?,
        connections: table.get("connections")?,
        max_in_flight: table.get("max-in-flight")?,
        probe_interval: table.get("probe-interval")?,
        probe_timeout: table.get("probe-timeout")?,
    })
}

fn memory(table: &Decoded) -> Option<MemoryPlan> {
    Some(MemoryPlan {
        max_memory: table.get("max-memory"),
        eviction: table.choice("eviction", Eviction::ALL, Eviction::name)?,
    })
}

fn sharded(table: &Decoded) -> Option<ShardedPlan> {
    let loss = SubscriptionLoss::ALL;
    Some(ShardedPlan {
        stores: store_names(table, "stores")?,
        hash: table.choice("hash", HashKind::ALL, HashKind::name)?,
        hash_tag: table.get("hash-tag"),
        marker: table.get("marker")?,
        layout_digest: table.get("layout-digest"),
        multi_key: table.choice("multi-key", MultiKey::ALL, MultiKey::name)?,
        commands: named(table, "command", command)?,
        subscription_loss: table.choice("subscription-loss", loss, SubscriptionLoss::name)?,
    })
}

fn store_names(table: &Decoded, key: &str) -> Option<Vec<String>> {
    let names: &[Name] = table.get(key)?;
    Some(names.iter().map(|name| name.name.clone()).collect())
}

fn command(table: &Decoded) -> Option<CommandPlan> {
    Some(CommandPlan {
        first_key: table.get("first-key")?,
        last_key: table.get("last-key").or_else(|| table.get("first-key"))?,
        step: table.get("step")?,
        write: table.get("write")?,
    })
}
