//! Values of all sizes in one pipeline: small ones on shared connections, large ones on others.
//!
//! Invariant: a client's requests act in its order, whatever connections they take; through resets
//! every value that is read is one that was written under that key, whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use breccia_testkit::{Fault, FaultyProxy, Redis, Reply, RespClient, resp};

use crate::common::{Config, Gateway};
use crate::driver::{Numbers, among_others};

/// Around the limits at which requests and readers move to another connection.
const SIZES: [usize; 7] = [20, 400, 65_000, 66_000, 200_000, 1_048_000, 1_300_000];

/// The value that a client writes under one of its keys for the n-th time: it names itself, and its
/// size follows from its number.
fn value(key: &str, number: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(number);
    // Large ones are seldom, as they take their time.
    let place = numbers.below(7).min(numbers.below(10));
    let size = SIZES[usize::try_from(place).unwrap_or(0)];
    let mut value = format!("{key}:{number}:").into_bytes();
    let fill = numbers.byte();
    value.resize(size.max(value.len()), fill);
    value
}

fn is_value(key: &str, bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(3, |byte| *byte == b':');
    let (name, number) = (parts.next(), parts.next());
    let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    name == Some(key.as_bytes()) && number.is_some_and(|number| bytes == value(key, number))
}

struct Writer {
    id: u64,
    numbers: Numbers,
    /// The number of the last value sent under each key.
    keys: [u64; 3],
    written: u64,
}

/// What one reply must be.
enum Wanted {
    Ok,
    Value(String, u64),
    Length(String, u64),
    Values(Vec<(String, u64)>),
    /// MULTI, a queued GET, and the transaction's one value.
    Queued,
    Transaction(String, u64),
}

impl Writer {
    fn key(&self, index: usize) -> String {
        format!("large{}-{index}", self.id)
    }

    /// Adds one request, or a whole transaction, and what must come back.
    fn next(&mut self, bytes: &mut Vec<u8>, wanted: &mut Vec<Wanted>) {
        let index = usize::try_from(self.numbers.below(3)).unwrap_or(0);
        let (key, number) = (self.key(index), self.keys[index]);
        let mut say = |words: &[&[u8]]| bytes.extend_from_slice(&resp::encode(words));
        match self.numbers.below(8) {
            0..=2 => {
                self.written += 1;
                self.keys[index] = self.written;
                say(&[b"SET", key.as_bytes(), &value(&key, self.written)]);
                wanted.push(Wanted::Ok);
            }
            3 | 4 => {
                say(&[b"GET", key.as_bytes()]);
                wanted.push(Wanted::Value(key, number));
            }
            5 => {
                say(&[b"STRLEN", key.as_bytes()]);
                wanted.push(Wanted::Length(key, number));
            }
            6 => {
                let all: Vec<String> = (0..3).map(|index| self.key(index)).collect();
                say(&[
                    b"MGET",
                    all[0].as_bytes(),
                    all[1].as_bytes(),
                    all[2].as_bytes(),
                ]);
                wanted.push(Wanted::Values(all.into_iter().zip(self.keys).collect()));
            }
            _ => {
                say(&[b"MULTI"]);
                say(&[b"GET", key.as_bytes()]);
                say(&[b"EXEC"]);
                wanted.extend([Wanted::Ok, Wanted::Queued, Wanted::Transaction(key, number)]);
            }
        }
    }
}

fn holds(reply: &Reply, key: &str, number: u64, faults: bool) -> bool {
    match reply.bytes() {
        Some(bytes) if faults => is_value(key, bytes),
        Some(bytes) => bytes == value(key, number),
        None => faults && *reply == Reply::Nil,
    }
}

/// Whether a reply is what it must be; with `faults` also an error, or another value of that key.
fn fits(reply: &Reply, wanted: &Wanted, faults: bool) -> bool {
    if reply.error().is_some() {
        return faults;
    }
    let has = |reply: &Reply, key: &str, number: u64| holds(reply, key, number, faults);
    match wanted {
        Wanted::Ok => reply.bytes() == Some(b"OK"),
        Wanted::Queued => reply.bytes() == Some(b"QUEUED"),
        Wanted::Value(key, number) => has(reply, key, *number),
        Wanted::Length(key, number) => {
            let length = i64::try_from(value(key, *number).len()).ok();
            faults || reply.integer() == length
        }
        Wanted::Values(all) => {
            let values = reply.elements();
            values.len() == 3
                && all
                    .iter()
                    .zip(values)
                    .all(|((key, number), reply)| has(reply, key, *number))
        }
        Wanted::Transaction(key, number) => {
            reply.elements().len() == 1 && has(&reply.elements()[0], key, *number)
        }
    }
}

/// One client until it has sent its batches or is told to stop: good replies and errors.
fn write(
    address: &str,
    id: u64,
    batches: u64,
    stop: &AtomicBool,
    faults: bool,
) -> Result<[u64; 2]> {
    let mut client = RespClient::connect(address)?;
    let mut writer = Writer {
        id,
        numbers: Numbers::new(id << 32),
        keys: [0; 3],
        written: 0,
    };
    for index in 0..3 {
        let key = writer.key(index);
        client.expect_ok(&[b"SET", key.as_bytes(), &value(&key, 0)])?;
    }
    let mut counts = [0, 0];
    for batch in 0..batches {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
        for _ in 0..=writer.numbers.below(6) {
            writer.next(&mut bytes, &mut wanted);
        }
        client.send(&bytes)?;
        for (place, wanted) in wanted.iter().enumerate() {
            let frame = match client.read_reply() {
                Ok(frame) => frame,
                // A large reply that breaks off ends the connection.
                Err(_) if faults => {
                    client = RespClient::connect(address)?;
                    counts[1] += 1;
                    break;
                }
                Err(error) => return Err(error.context("a client was cut off")),
            };
            let reply = Reply::parse(&frame)?;
            let shown = frame.get(..100).unwrap_or(&frame).escape_ascii();
            ensure!(
                fits(&reply, wanted, faults),
                "client {id}, {batch}.{place}: {shown}"
            );
            counts[usize::from(reply.error().is_some())] += 1;
        }
    }
    Ok(counts)
}

fn writers(
    gateway: &Gateway,
    count: u64,
    batches: u64,
    faults: bool,
    meanwhile: impl FnOnce(),
) -> Result<[u64; 2]> {
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..count)
        .map(|id| {
            let (address, stop) = (gateway.address(), Arc::clone(&stop));
            std::thread::spawn(move || write(&address, id, batches, &stop, faults))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    meanwhile();
    if faults {
        stop.store(true, Ordering::Relaxed);
    }
    let mut sum = [0, 0];
    for thread in threads {
        let [good, failed] = thread.join().map_err(|_| anyhow!("a client panicked"))??;
        sum = [sum[0] + good, sum[1] + failed];
    }
    Ok(sum)
}

#[test]
fn a_clients_order_holds_between_small_and_large_values() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let [good, failed] = writers(&gateway, 4, 60, false, || {})?;
    println!("{good} replies");
    ensure!(failed == 0 && good > 500, "{good} good, {failed} errors");
    Ok(())
}

#[test]
fn values_stay_whole_through_resets() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let proxies: Vec<FaultyProxy> = servers
        .iter()
        .map(|redis| FaultyProxy::start(&redis.address()))
        .collect::<Result<_>>()?;
    let config = (0..)
        .zip(&proxies)
        .fold(Config::new("redis")?, |config, (index, proxy)| {
            config.redis(&format!("r{index}"), &proxy.address(), "")
        });
    let gateway = config.start()?;
    let [good, failed] = writers(&gateway, 4, u64::MAX, true, || {
        let mut numbers = Numbers::new(13);
        for turn in 0..60 {
            let proxy = &proxies[turn % 2];
            if turn % 3 == 0 {
                proxy.reset_all();
            } else {
                proxy.set(Fault::ResetAfter(numbers.below(500_000)));
            }
            std::thread::sleep(Duration::from_millis(20));
            proxy.set(Fault::None);
            std::thread::sleep(Duration::from_millis(30 + numbers.below(60)));
        }
    })?;
    println!("{good} replies, {failed} errors");
    ensure!(good > 200 && failed > 10, "{good} good, {failed} errors");
    Ok(())
}
