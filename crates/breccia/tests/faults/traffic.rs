//! Clients that work in threads until they are told to stop, and what they saw.
//!
//! Invariant: a client that is cut off counts it and connects again; only the test decides what is
//! wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use breccia_testkit::RespClient;

/// What one client saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) good: u64,
    /// When, how long it took, and the error's text.
    pub(crate) errors: Vec<(Instant, Duration, String)>,
    /// Of good replies.
    pub(crate) times: Vec<Duration>,
    /// Replies that are neither the wanted one nor an error.
    pub(crate) wrong: Vec<String>,
    /// Connections lost.
    pub(crate) lost: u64,
}

impl Seen {
    /// The time below which so many of a thousand good replies stayed.
    pub(crate) fn permille(&self, permille: usize) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times
            .get(times.len().saturating_sub(1) * permille / 1000)
            .copied()
            .unwrap_or_default()
    }
}

/// A running client.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

impl Traffic {
    /// Sends one request after another; `request` makes the n-th, with its wanted reply (`None`: any
    /// that is no error).
    pub(crate) fn start(
        address: &str,
        pause: Duration,
        mut request: impl FnMut(u64) -> (String, Option<Vec<u8>>) + Send + 'static,
    ) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let (until, address) = (Arc::clone(&stop), address.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut seen, mut number) = (Seen::default(), 0);
            let mut client = RespClient::connect(&address)?;
            while !until.load(Ordering::Relaxed) {
                let (words, wanted) = request(number);
                number += 1;
                let begun = Instant::now();
                match client.words(&words) {
                    Err(_) => {
                        seen.lost += 1;
                        client = RespClient::connect(&address)?;
                    }
                    Ok(reply) if reply.starts_with(b"-") => {
                        let text = String::from_utf8_lossy(&reply).trim_end().to_owned();
                        seen.errors.push((begun, begun.elapsed(), text));
                    }
                    Ok(reply) if wanted.as_ref().is_none_or(|wanted| *wanted == reply) => {
                        seen.good += 1;
                        seen.times.push(begun.elapsed());
                    }
                    Ok(reply) => seen
                        .wrong
                        .push(format!("{words}: {}", reply.escape_ascii())),
                }
                std::thread::sleep(pause);
            }
            Ok(seen)
        });
        Traffic { stop, thread }
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self
            .thread
            .join()
            .map_err(|_| anyhow!("a client thread panicked"))?;
        seen.context("a client could not connect")
    }
}
