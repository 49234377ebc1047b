//! The loader: clients that each keep one connection busy.
//!
//! Not clever: one request after the other. Small requests are sent by one thread for all clients:
//! it shares the cores with what is measured, and a thread for each client would spend more on
//! switching between them than the servers spend on the requests. Invariant: every object that is read was written by
//! the load before it, on the same way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::Load;
use super::s3::{Client, Door};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Put,
    Get,
}

impl Verb {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verb::Put => "put",
            Verb::Get => "get",
        }
    }
}

/// What a loader measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// The objects of one client and size that are written over and over, so that the disk does not
/// fill: no more than the shortest load of puts has.
fn objects(load: &Load) -> usize {
    match load.size {
        0..=4096 => 50,
        4097..=1_048_576 => 20,
        _ => 1,
    }
}

/// Up to this size one thread sends and receives for all clients.
const ONE_THREAD_BYTES: usize = 64 * 1024;

/// The longest that a load may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// A runtime of this very thread.
pub(super) fn runtime() -> Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.context("no runtime for the loader")
}

fn runtime_of(load: &Load) -> Result<Runtime> {
    if load.size <= ONE_THREAD_BYTES {
        return runtime();
    }
    let runtime = Builder::new_multi_thread().enable_all().build();
    runtime.context("no runtime for the loader")
}

/// Runs a load to its end.
pub(crate) fn run(door: &Door, load: &Load) -> Result<Measured> {
    let bytes: Arc<[u8]> = (0..=250_u8).cycle().take(load.size).collect();
    let (begun, all) = runtime_of(load)?.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..load.clients {
            clients.push(Client::new(door).await?);
        }
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, connected) in clients.into_iter().enumerate() {
            tasks.spawn(client(connected, *load, number, Arc::clone(&bytes)));
        }
        let mut all = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, async {
            while let Some(ended) = tasks.join_next().await {
                all.extend(ended.context("a client panicked")??);
            }
            anyhow::Ok((begun, all))
        });
        ended.await.context("the load does not end")?
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let mut times: Vec<Duration> = all;
    times.sort_unstable();
    let at = |share: usize| {
        let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
        times
            .get(index)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    };
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let count = times.len() as f64;
    Ok(Measured {
        per_second: count / seconds,
        p50_ms: at(50),
        p99_ms: at(99),
    })
}

async fn client(
    mut client: Client,
    load: Load,
    number: usize,
    bytes: Arc<[u8]>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(load.requests);
    let objects = objects(&load);
    for request in 0..load.requests {
        let key = format!("bench/{}/{number}/{}", load.size, request % objects);
        let begun = Instant::now();
        match load.verb {
            Verb::Put => client.put(&key, &bytes).await?,
            Verb::Get => {
                let size = client.get(&key).await?;
                ensure!(size == load.size, "{key} has {size} bytes");
            }
        }
        times.push(begun.elapsed());
    }
    Ok(times)
}
