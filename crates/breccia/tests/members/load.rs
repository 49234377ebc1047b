//! Clients that write and read keys of their own and would notice a reply that is not theirs.
//!
//! Invariant: every reply is held against its request: a value names its key and its number.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use breccia_testkit::RespClient;
use breccia_testkit::resp::encode;

/// Requests of one pipeline.
const DEPTH: u64 = 32;
/// Keys of one client.
const KEYS: u64 = 500;

/// What the clients have met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Errors, each once, without what differs from one to the next.
    pub(crate) errors: BTreeSet<String>,
    pub(crate) failed: u64,
    pub(crate) answered: u64,
}

/// Clients under way.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<Met>>>,
}

impl Load {
    /// Starts so many clients. `may_lose`: acknowledged writes may be lost, as asynchronous
    /// replication does it.
    pub(crate) fn start(port: u16, clients: u64, may_lose: bool) -> Load {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..clients).map(|client| {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || one(port, client, may_lose, &stop, &sent))
        });
        Load {
            clients: clients.collect(),
            stop,
            sent,
        }
    }

    /// How many requests were answered so far, errors apart.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends all clients.
    pub(crate) fn finish(self) -> Result<Met> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Met::default();
        for client in self.clients {
            let met = client.join().ok().context("a client panicked")??;
            all.errors.extend(met.errors);
            all.failed += met.failed;
            all.answered += met.answered;
        }
        for error in &all.errors {
            let inner = ["MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT"];
            let inner = inner.iter().find(|word| error.contains(**word));
            ensure!(inner.is_none(), "a client saw {error}");
        }
        Ok(all)
    }
}

fn one(
    port: u16,
    client: u64,
    may_lose: bool,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Result<Met> {
    let mut connection = RespClient::connect(&format!("127.0.0.1:{port}"))?;
    let mut met = Met::default();
    // The number last written to each key, and whether it is known to be there.
    let mut written = vec![(0_u64, false); usize::try_from(KEYS)?];
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let failed = met.failed;
        let mut pipeline = Vec::new();
        let mut asked = Vec::new();
        for step in 0..DEPTH / 2 {
            number += 1;
            let key = (number * 7 + step) % KEYS;
            let name = format!("k:{client}:{key}");
            let value = format!("{name}:{number}");
            pipeline.extend(encode(&[b"SET", name.as_bytes(), value.as_bytes()]));
            pipeline.extend(encode(&[b"GET", name.as_bytes()]));
            asked.push((key, name, number));
        }
        connection.send(&pipeline)?;
        for (key, name, number) in asked {
            let place = &mut written[usize::try_from(key)?];
            let set = connection.read_reply()?;
            let was = *place;
            match set.first() {
                Some(b'+') if set == b"+OK\r\n" => *place = (number, true),
                Some(b'-') => {
                    met.error(&set);
                    place.1 &= String::from_utf8_lossy(&set).contains("not applied");
                }
                _ => bail!("SET {name} got {}", set.escape_ascii()),
            }
            let got = connection.read_reply()?;
            match got.first() {
                Some(b'-') => met.error(&got),
                Some(b'$') => {
                    let text = String::from_utf8_lossy(&got).into_owned();
                    let value = text.split("\r\n").nth(1).unwrap_or_default();
                    let found = value.strip_prefix(&format!("{name}:"));
                    let found: Option<u64> = found.and_then(|found| found.parse().ok());
                    let absent = text == "$-1\r\n";
                    ensure!(found.is_some() || absent, "GET {name} got {text}");
                    let right = found == Some(place.0) || !place.1 || may_lose;
                    ensure!(
                        right,
                        "GET {name}: {text}, written {place:?}, before {was:?}"
                    );
                }
                _ => bail!("GET {name} got {}", got.escape_ascii()),
            }
            met.answered += 2;
        }
        answered.fetch_add(DEPTH - (met.failed - failed), Ordering::Relaxed);
        if met.failed > failed {
            // Who has no server now does not become faster by asking more often.
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(met)
}

impl Met {
    fn error(&mut self, reply: &[u8]) {
        let text = String::from_utf8_lossy(reply).into_owned();
        self.failed += 1;
        if self.errors.len() < 100 {
            let digits = |letter: char| letter.is_ascii_digit();
            self.errors.insert(text.trim_end().replace(digits, "N"));
        }
    }
}
