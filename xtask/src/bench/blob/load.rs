//! The loader: threads that each keep one connection busy.
//!
//! Not clever: one request after the other. Invariant: every object that is read was written by
//! the load before it, on the same way.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

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

/// Runs a load to its end.
pub(crate) fn run(door: &Door, load: &Load) -> Result<Measured> {
    let bytes: Vec<u8> = (0..=250_u8).cycle().take(load.size).collect();
    let start = Barrier::new(load.clients + 1);
    let (begun, all) = std::thread::scope(|scope| -> Result<_> {
        let threads: Vec<_> = (0..load.clients)
            .map(|number| {
                let (start, bytes) = (&start, &bytes);
                scope.spawn(move || client(door, load, number, start, bytes))
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        let mut all = Vec::new();
        for thread in threads {
            let times = thread.join().ok().context("a loader panicked")?;
            all.extend(times?);
        }
        Ok((begun, all))
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

fn client(
    door: &Door,
    load: &Load,
    number: usize,
    start: &Barrier,
    bytes: &[u8],
) -> Result<Vec<Duration>> {
    let connected = Client::new(door);
    start.wait();
    let mut client = connected?;
    let mut times = Vec::with_capacity(load.requests);
    let objects = objects(load);
    for request in 0..load.requests {
        let key = format!("bench/{}/{number}/{}", load.size, request % objects);
        let begun = Instant::now();
        match load.verb {
            Verb::Put => client.put(&key, bytes)?,
            Verb::Get => {
                let size = client.get(&key)?;
                ensure!(size == load.size, "{key} has {size} bytes");
            }
        }
        times.push(begun.elapsed());
    }
    Ok(times)
}
