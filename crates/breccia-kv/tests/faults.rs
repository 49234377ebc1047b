//! Typed stores over servers that break off and freeze. Invariant: an acknowledged increment is in
//! the counter, and none is in it twice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_core::error::Effect;
use breccia_kv::entry::{Condition, Operation};
use breccia_kv::error::KvError;
use breccia_kv::io::KvIo;
use breccia_kv::memcached::backend::{MemcachedOptions, MemcachedStore};
use breccia_kv::resp::backend::{RedisOptions, RedisStore};
use breccia_kv::store::{KvStore, KvStoreExt, SetOptions};
use breccia_testkit::{FaultyProxy, Memcached, Redis};

fn redis(io: &KvIo, address: &str) -> Result<Arc<dyn KvStore>> {
    let address = address.parse().context("an address")?;
    Ok(Arc::new(RedisStore::new(
        io,
        RedisOptions::new("redis-a", address),
    )))
}

fn memcached(io: &KvIo, address: &str) -> Result<Arc<dyn KvStore>> {
    let address = address.parse().context("an address")?;
    Ok(Arc::new(MemcachedStore::new(
        io,
        MemcachedOptions::new("mc-a", address),
    )))
}

/// Counts while connections are reset; what is known of each increment must hold.
async fn count_through_resets(store: Arc<dyn KvStore>, proxy: FaultyProxy) -> Result<()> {
    let resetting = tokio::spawn(async move {
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(37)).await;
            proxy.reset_all();
        }
        proxy
    });
    let (mut acknowledged, mut unknown) = (0_u64, 0_u64);
    while !resetting.is_finished() {
        let operations = [
            Operation::Increment { delta: 1 },
            Operation::Append {
                data: b"",
                condition: Condition::Always,
            },
        ];
        match store.apply(b"n", &operations).await {
            Ok(_) => acknowledged += 1,
            Err(error) if error.effect() == Effect::Unknown => unknown += 1,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    let _proxy = resetting.await?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let value = store.get(b"n").await?.context("no counter")?;
    let value: u64 = std::str::from_utf8(&value.data)?.parse()?;
    ensure!(acknowledged > 100, "only {acknowledged} were acknowledged");
    ensure!(
        value >= acknowledged,
        "{value} after {acknowledged} acknowledged"
    );
    ensure!(
        value <= acknowledged + unknown,
        "{value} after {acknowledged} acknowledged and {unknown} unknown"
    );
    Ok(())
}

#[tokio::test]
async fn counters_on_redis_survive_resets() -> Result<()> {
    let (io, server) = (KvIo::start()?, Redis::new()?);
    let proxy = FaultyProxy::start(&server.address())?;
    count_through_resets(redis(&io, &proxy.address())?, proxy).await
}

#[tokio::test]
async fn counters_on_memcached_survive_resets() -> Result<()> {
    let (io, server) = (KvIo::start()?, Memcached::new()?);
    let proxy = FaultyProxy::start(&server.address())?;
    count_through_resets(memcached(&io, &proxy.address())?, proxy).await
}

#[tokio::test]
async fn what_a_frozen_server_was_not_sent_never_runs() -> Result<()> {
    let (io, mut server) = (KvIo::start()?, Redis::new()?);
    let store = redis(&io, &server.address())?;
    ensure!(
        store.increment(b"n", 1, None).await? == 1,
        "a first increment"
    );
    server.sigstop()?;
    // One request may be on its way; those that come later wait here and are refused.
    let (mut not_applied, mut unknown) = (0, 0);
    let late = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        store.increment(b"n", 1000, None).await
    };
    let (first, second) = tokio::join!(store.increment(b"n", 1, None), late);
    for answer in [first, second] {
        match answer.map_err(|error| error.effect()) {
            Err(Effect::NotApplied) => not_applied += 1,
            Err(Effect::Unknown) => unknown += 1,
            Ok(value) => anyhow::bail!("a frozen server answered {value}"),
        }
    }
    ensure!(
        not_applied >= 1,
        "{not_applied} not applied, {unknown} unknown"
    );
    server.sigcont()?;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let value = store.increment(b"n", 0, None).await?;
    ensure!(
        value <= 2,
        "an increment that was refused ran later: {value}"
    );
    Ok(())
}

#[tokio::test]
async fn a_dead_server_fails_at_once_and_serves_again_after_its_restart() -> Result<()> {
    let (io, mut server) = (KvIo::start()?, Redis::new()?);
    let store = redis(&io, &server.address())?;
    store.set(b"k", b"v", SetOptions::default()).await?;
    server.kill9();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        let asked = breccia_net::clock::now();
        let error = store
            .get(b"k")
            .await
            .err()
            .context("a dead server answered")?;
        ensure!(
            matches!(error, KvError::Down { .. } | KvError::Lost { .. }),
            "{error}"
        );
        let waited = breccia_net::clock::now() - asked;
        ensure!(
            waited < Duration::from_millis(200),
            "it took {waited:?}: {error}"
        );
    }
    server.restart_same_port()?;
    let restarted = breccia_net::clock::now();
    while store.set(b"k", b"w", SetOptions::default()).await.is_err() {
        let waited = breccia_net::clock::now() - restarted;
        ensure!(waited < Duration::from_secs(2), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
