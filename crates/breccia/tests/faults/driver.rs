//! Traffic for tests of faults: clients in threads that keep asking and write down what they got.
//!
//! Not a benchmark. Invariant: a client thread ends when it is told to stop, and hands over every
//! answer it has read, in the order it read them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{RespClient, wait_until};

static QUIET: RwLock<()> = RwLock::new(());

/// For a test that measures time: no other test of this program runs meanwhile.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    QUIET.write().unwrap_or_else(PoisonError::into_inner)
}

/// For all other tests.
pub(crate) fn among_others() -> RwLockReadGuard<'static, ()> {
    QUIET.read().unwrap_or_else(PoisonError::into_inner)
}

/// A small generator of numbers that differ; the same seed gives the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// Begins at a seed.
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// A byte.
    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        breccia_core::hash::splitmix64(self.0) % limit
    }
}

/// One request and what came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// When the request was sent.
    pub(crate) sent: Instant,
    /// How long the reply took.
    pub(crate) took: Duration,
    /// The reply.
    pub(crate) reply: Vec<u8>,
    /// Which request it was: the number that the client's request function got.
    pub(crate) number: u64,
}

impl Answer {
    /// Whether the reply is an error.
    pub(crate) fn is_error(&self) -> bool {
        self.reply.starts_with(b"-")
    }

    /// The reply as text.
    pub(crate) fn text(&self) -> String {
        self.reply.escape_ascii().to_string()
    }
}

/// Clients in threads, each with one request in flight; every other one speaks RESP3.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Answer>>>>,
}

impl Traffic {
    /// Starts `count` clients of `address`. `request(client, number)` makes the bytes of one
    /// request; after each reply a client pauses.
    pub(crate) fn start(
        address: &str,
        count: u64,
        pause: Duration,
        request: impl Fn(u64, u64) -> Vec<u8> + Send + Sync + 'static,
    ) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let request = Arc::new(request);
        let client = |client: u64| {
            let (stop, address) = (Arc::clone(&stop), address.to_owned());
            let request = Arc::clone(&request);
            let make = move |number| request(client, number);
            let resp3 = client % 2 == 1;
            std::thread::spawn(move || converse(&address, resp3, &stop, pause, make))
        };
        let threads = (0..count).map(client).collect();
        Traffic { stop, threads }
    }

    /// Ends the traffic; the answers of each client.
    pub(crate) fn end(self) -> Result<Vec<Vec<Answer>>> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.threads.into_iter().map(|thread| {
            let outcome = thread.join();
            outcome.map_err(|_| anyhow::anyhow!("a client thread panicked"))?
        });
        joined.collect()
    }

    /// Ends the traffic; the answers of all clients.
    pub(crate) fn end_all(self) -> Result<Vec<Answer>> {
        Ok(self.end()?.into_iter().flatten().collect())
    }
}

fn converse(
    address: &str,
    resp3: bool,
    stop: &AtomicBool,
    pause: Duration,
    request: impl Fn(u64) -> Vec<u8>,
) -> Result<Vec<Answer>> {
    let mut client = RespClient::connect(address)?;
    if resp3 {
        client.words("HELLO 3")?;
    }
    let mut answers = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (bytes, sent) = (request(number), Instant::now());
        client.send(&bytes)?;
        let reply = client.read_reply().context("a client's connection")?;
        let took = sent.elapsed();
        answers.push(Answer {
            sent,
            took,
            reply,
            number,
        });
        std::thread::sleep(pause);
    }
    Ok(answers)
}

/// A request of words split at blanks, as bytes.
pub(crate) fn request(words: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = words.split_whitespace().map(str::as_bytes).collect();
    breccia_testkit::resp::encode(&words)
}

/// The time below which `share` (of 1000) of the answers lie.
pub(crate) fn quantile(answers: &[&Answer], share: usize) -> Result<Duration> {
    let mut times: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
    times.sort_unstable();
    let place = times.len() * share / 1000;
    times.get(place).copied().context("no answers to measure")
}

/// Waits until a request of a fresh client is answered as wanted; how long that took.
pub(crate) fn until_answered(address: &str, words: &str, wanted: &[u8]) -> Result<Duration> {
    let begun = Instant::now();
    wait_until(
        Duration::from_secs(15),
        &format!("{words} to be answered"),
        || {
            let reply = RespClient::connect(address)?.words(words)?;
            Ok((reply == wanted).then_some(()))
        },
    )?;
    Ok(begun.elapsed())
}

/// Fails with the first of these answers that is an error.
pub(crate) fn no_errors(what: &str, answers: &[Answer]) -> Result<()> {
    ensure!(!answers.is_empty(), "{what}: no answer at all");
    let error = answers.iter().find(|answer| answer.is_error());
    ensure!(
        error.is_none(),
        "{what}: {}",
        error.map(Answer::text).unwrap_or_default()
    );
    Ok(())
}

/// The integer of a `:N` reply.
pub(crate) fn integer(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply)
        .ok()?
        .strip_prefix(':')?
        .trim_end()
        .parse()
        .ok()
}
