//! Every member and every composite passes the same suite.

use std::sync::Arc;

use anyhow::{Context, Result};
use breccia_core::layout::Role;
use breccia_kv::io::KvIo;
use breccia_kv::memcached::backend::{MemcachedOptions, MemcachedStore};
use breccia_kv::memory::{Eviction, MemoryOptions, MemoryStore};
use breccia_kv::resp::backend::{RedisOptions, RedisStore};
use breccia_kv::sharded::{ShardedKv, ShardedOptions};
use breccia_kv::store::KvStore;
use breccia_net::layout_store::LayoutStore;
use breccia_testkit::conformance::kv_conformance;
use breccia_testkit::{Memcached, Redis};

fn memory(name: &str) -> Arc<dyn KvStore> {
    Arc::new(MemoryStore::new(MemoryOptions::new(name)))
}

fn redis(io: &KvIo, name: &str, server: &Redis) -> Result<Arc<dyn KvStore>> {
    let address = server.address().parse().context("an address")?;
    Ok(Arc::new(RedisStore::new(
        io,
        RedisOptions::new(name, address),
    )))
}

fn memcached(io: &KvIo, name: &str, server: &Memcached) -> Result<Arc<dyn KvStore>> {
    let address = server.address().parse().context("an address")?;
    Ok(Arc::new(MemcachedStore::new(
        io,
        MemcachedOptions::new(name, address),
    )))
}

fn composite(name: &str, role: Role, members: Vec<Arc<dyn KvStore>>) -> Result<Arc<dyn KvStore>> {
    let options = ShardedOptions {
        role,
        ..ShardedOptions::new(name)
    };
    Ok(Arc::new(ShardedKv::open(
        &LayoutStore::ephemeral(),
        &options,
        members,
    )?))
}

#[tokio::test]
async fn memory_conforms() -> Result<()> {
    kv_conformance(&*memory("mem")).await
}

#[tokio::test]
async fn memory_that_evicts_conforms() -> Result<()> {
    let mut options = MemoryOptions::new("mem");
    options.max_memory = Some(64 << 20);
    options.eviction = Eviction::S3Fifo;
    kv_conformance(&MemoryStore::new(options)).await
}

#[tokio::test]
async fn redis_conforms() -> Result<()> {
    let server = Redis::new()?;
    kv_conformance(&*redis(&KvIo::start()?, "redis-a", &server)?).await
}

#[tokio::test]
async fn redis_shards_and_nested_memory_conform() -> Result<()> {
    let (io, servers) = (KvIo::start()?, Redis::many(2)?);
    let inner = composite(
        "inner",
        Role::Inner,
        vec![memory("m1"), memory("m2"), memory("m3")],
    )?;
    let members = vec![
        redis(&io, "redis-a", &servers[0])?,
        inner,
        redis(&io, "redis-b", &servers[1])?,
    ];
    kv_conformance(&*composite("outer", Role::Outer, members)?).await
}

#[tokio::test]
async fn memcached_conforms() -> Result<()> {
    let server = Memcached::new()?;
    kv_conformance(&*memcached(&KvIo::start()?, "mc-a", &server)?).await
}

#[tokio::test]
async fn memcached_shards_conform() -> Result<()> {
    let (io, servers) = (KvIo::start()?, Memcached::many(2)?);
    let members = vec![
        memcached(&io, "mc-a", &servers[0])?,
        memcached(&io, "mc-b", &servers[1])?,
    ];
    kv_conformance(&*composite("cache", Role::Outer, members)?).await
}

#[tokio::test]
async fn mixed_members_conform() -> Result<()> {
    let (io, redis_server, memcached_server) = (KvIo::start()?, Redis::new()?, Memcached::new()?);
    let members = vec![
        redis(&io, "redis-a", &redis_server)?,
        memcached(&io, "mc-a", &memcached_server)?,
        memory("mem-a"),
    ];
    kv_conformance(&*composite("cache", Role::Outer, members)?).await
}
