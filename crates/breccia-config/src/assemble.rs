//! From checked tables to the plan.
//!
//! No checks: this runs only when none has failed. Invariant: a `None` here is a gap in the field
//! tables (a required value without a fault, a default of the wrong kind), never a user's mistake.

use std::collections::BTreeMap;

use breccia_core::hash::HashKind;

use crate::check::Tables;
use crate::plan::{
    AdminPlan, BindPlan, CommandPlan, Eviction, ListenerPlan, LogFormat, LogLevel, LogPlan,
    MemcachedPlan, MemoryPlan, MultiKey, Plan, Protocol, RedisPlan, ShardedPlan, StorePlan,
    SubscriptionLoss, TlsClientPlan, TlsServerPlan, UserPlan,
};
use crate::tables;
use crate::url::RedisUrl;
use crate::value::{Decoded, Name};

pub(crate) fn plan(file: &Decoded) -> Option<Plan> {
    let log: &Decoded = file.get("log")?;
    let state: &Decoded = file.get("state")?;
    Some(Plan {
        workers: file.get("workers"),
        drain_timeout: file.get("drain-timeout")?,
        log: LogPlan {
            level: log.choice("level", LogLevel::ALL, LogLevel::name)?,
            format: log.choice("format", LogFormat::ALL, LogFormat::name)?,
        },
        admin: optional(file, "admin", admin).ok()?,
        state_dir: state.get("dir")?,
        stores: named(file, "store", store)?,
        listeners: named(file, "listener", listener)?,
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

fn store(table: &Decoded) -> Option<StorePlan> {
    let kind = table.kind;
    if kind == tables::REDIS.name {
        redis(table).map(StorePlan::Redis)
    } else if kind == tables::MEMCACHED.name {
        memcached(table).map(StorePlan::Memcached)
    } else if kind == tables::MEMORY.name {
        memory(table).map(StorePlan::Memory)
    } else if kind == tables::SHARDED_IN_MEMORY.name {
        sharded(table).map(StorePlan::ShardedInMemory)
    } else {
        None
    }
}

fn redis(table: &Decoded) -> Option<RedisPlan> {
    let url: &RedisUrl = table.get("url")?;
    let tls = match optional(table, "tls", |tls| tls_client(tls, url)).ok()? {
        None if url.tls => Some(TlsClientPlan {
            insecure: url.insecure,
            ..TlsClientPlan::default()
        }),
        tls => tls,
    };
    Some(RedisPlan {
        address: url.address.clone(),
        database: url.database,
        user: url.user.clone().or_else(|| table.get("user")),
        password: url.password.clone().or_else(|| table.get("password")),
        tls,
        timeout: table.get("timeout")?,
        stall_gate: table.get("stall-gate")?,
        connections: table.get("connections")?,
        max_in_flight: table.get("max-in-flight")?,
        max_leases: table.get("max-leases")?,
        databases: table.get("databases")?,
        probe_interval: table.get("probe-interval")?,
        probe_timeout: table.get("probe-timeout")?,
    })
}

fn tls_client(table: &Decoded, url: &RedisUrl) -> Option<TlsClientPlan> {
    Some(TlsClientPlan {
        ca: table.get("ca"),
        cert: table.get("cert"),
        key: table.get("key"),
        server_name: table.get("server-name"),
        insecure: table.get::<bool>("insecure")? || url.insecure,
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
        stores: table
            .get::<&[Name]>("stores")?
            .iter()
            .map(|name| name.name.clone())
            .collect(),
        hash: table.choice("hash", HashKind::ALL, HashKind::name)?,
        hash_tag: table.get("hash-tag"),
        marker: table.get("marker")?,
        layout_digest: table.get("layout-digest"),
        multi_key: table.choice("multi-key", MultiKey::ALL, MultiKey::name)?,
        commands: named(table, "command", command)?,
        subscription_loss: table.choice("subscription-loss", loss, SubscriptionLoss::name)?,
    })
}

fn command(table: &Decoded) -> Option<CommandPlan> {
    Some(CommandPlan {
        first_key: table.get("first-key")?,
        last_key: table.get("last-key").or_else(|| table.get("first-key"))?,
        step: table.get("step")?,
        write: table.get("write")?,
    })
}

fn listener(table: &Decoded) -> Option<ListenerPlan> {
    Some(ListenerPlan {
        protocol: table.choice("protocol", Protocol::ALL, Protocol::name)?,
        bind: table.get::<&BindPlan>("bind")?.clone(),
        store: table.get("store")?,
        tls: optional(table, "tls", tls_server).ok()?,
        insecure: table.get("insecure")?,
        deadline: table.get("deadline")?,
        max_clients: table.get("max-clients")?,
        idle_timeout: table.get("idle-timeout"),
        max_request_size: table.get("max-request-size")?,
        max_arguments: table.get("max-arguments")?,
        max_in_flight: table.get("max-in-flight")?,
        reply_buffer: table.get("reply-buffer")?,
        write_timeout: table.get("write-timeout")?,
        min_body_rate: table.get("min-body-rate")?,
        users: table
            .get::<&[Decoded]>("user")
            .unwrap_or(&[])
            .iter()
            .map(user)
            .collect::<Option<_>>()?,
    })
}

fn tls_server(table: &Decoded) -> Option<TlsServerPlan> {
    Some(TlsServerPlan {
        cert: table.get("cert")?,
        key: table.get("key")?,
        client_ca: table.get("client-ca"),
    })
}

fn user(table: &Decoded) -> Option<UserPlan> {
    Some(UserPlan {
        name: table.get("name")?,
        password: table.get("password"),
    })
}
