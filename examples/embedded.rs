//! A store sharded over two Redis servers, embedded in a program.
//!
//! Run it with two servers: `cargo run -p breccia --example embedded -- 127.0.0.1:6379 127.0.0.1:6380`
//! It keeps its layout in the folder `embedded-layouts`: the invariant is that the same servers,
//! in any order, find the same keys again.

use std::sync::Arc;
use std::time::Duration;

use breccia::core::Address;
use breccia::kv::io::KvIo;
use breccia::kv::resp::backend::{RedisOptions, RedisStore};
use breccia::kv::sharded::{ShardedKv, ShardedOptions};
use breccia::kv::store::{KvStore, KvStoreExt, SetOptions};
use breccia::net::layout_store::LayoutStore;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let io = KvIo::start()?;
    let mut members: Vec<Arc<dyn KvStore>> = Vec::new();
    for (number, address) in std::env::args().skip(1).enumerate() {
        let options = RedisOptions::new(format!("redis-{number}"), address.parse::<Address>()?);
        members.push(Arc::new(RedisStore::new(&io, options)));
    }
    anyhow::ensure!(
        !members.is_empty(),
        "give the addresses of Redis servers, as host:port"
    );
    let layouts = LayoutStore::open("embedded-layouts".as_ref())?;
    let store = ShardedKv::open(&layouts, &ShardedOptions::new("sessions"), members)?;

    store
        .set(
            b"user:1",
            b"Ada",
            SetOptions::with_ttl(Duration::from_mins(1)),
        )
        .await?;
    let visits = store.increment(b"visits", 1, None).await?;
    let name = store.get(b"user:1").await?.map(|value| value.data);
    println!(
        "{name:?} is visitor {visits}; layout {}",
        store.layout().digest()
    );
    if store
        .try_lock(b"lock:report", b"me", Duration::from_secs(10))
        .await?
    {
        println!(
            "locked, and unlocked: {}",
            store.unlock(b"lock:report", b"me").await?
        );
    }
    Ok(())
}
