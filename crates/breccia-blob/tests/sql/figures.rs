//! How fast the three are on this machine: `cargo nextest run --release … --run-ignored only figures`.
//!
//! Not a test of anything: other load on the machine shows. Invariant: servers write as they would
//! in earnest, with fsync.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use breccia_blob::sql::SqlStore;
use breccia_blob::store::{BlobStoreExt, GetOptions};
use breccia_blob::{BlobStore, Body};

use crate::place::{Kind, Place, key, pattern};

const TASKS: u32 = 32;
const SPAN: Duration = Duration::from_secs(4);
const LARGE: usize = 100 * 1024 * 1024;

/// Runs 32 tasks for some seconds; each puts or gets 1 KiB again and again.
async fn per_second(store: &Arc<SqlStore>, put: bool) -> Result<u32> {
    let count = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, count) = (Arc::clone(store), Arc::clone(&count));
            tokio::spawn(async move {
                let mut round = 0;
                while begun.elapsed() < SPAN {
                    let name = key(&format!("{task}/{}", round % 50));
                    if put {
                        store.put_bytes(&name, pattern(1024, round)).await?;
                    } else {
                        let options = GetOptions::default();
                        let opened = store.get(&name, options).await?;
                        Body::new(opened.source, 1024).collect().await?;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
                Ok::<(), anyhow::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let total = f64::from(count.load(Ordering::Relaxed));
    let rate = total / begun.elapsed().as_secs_f64();
    Ok(format!("{rate:.0}").parse()?)
}

fn mib_per_second(begun: Instant) -> String {
    format!("{:.0} MiB/s", 100.0 / begun.elapsed().as_secs_f64())
}

async fn figures(kind: Kind) -> Result<()> {
    let place = Place::start(kind, true, &[])?;
    let store = place.open("t_", |options| options.max_connections = 16);
    for task in 0..TASKS {
        for round in 0..50 {
            let name = key(&format!("{task}/{round}"));
            store.put_bytes(&name, pattern(1024, round)).await?;
        }
    }
    // Makes the connections: logging in to PostgreSQL costs much in a build without optimisation.
    let _warm = per_second(&store, false).await?;
    let puts = per_second(&store, true).await?;
    let gets = per_second(&store, false).await?;
    eprintln!("{kind:?}: {puts} puts/s, {gets} gets/s");
    let (name, bytes) = (key("large"), pattern(LARGE, 1));
    let begun = Instant::now();
    store.put_bytes(&name, bytes).await?;
    let large_put = mib_per_second(begun);
    let begun = Instant::now();
    let opened = store.get(&name, GetOptions::default()).await?;
    let mut body = Body::new(opened.source, opened.meta.size);
    while let Some(piece) = body.next().await {
        piece?;
    }
    let large_get = mib_per_second(begun);
    eprintln!("{kind:?}: 100 MiB: put {large_put}, get {large_get}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, takes long"]
async fn figures_of_sqlite() -> Result<()> {
    figures(Kind::Sqlite).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, takes long"]
async fn figures_of_postgresql() -> Result<()> {
    figures(Kind::Postgresql).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, takes long"]
async fn figures_of_mariadb() -> Result<()> {
    figures(Kind::Mysql).await
}
