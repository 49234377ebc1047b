//! memcached clients that send quiet and malformed requests, beside each other and through resets.
//!
//! Invariant: replies never shift. Markers, requests whose reply names them, stand between all others:
//! each marker's reply comes in its turn and holds its own client's value, and nothing but errors and
//! the replies of loud requests lies between.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use breccia_testkit::{Fault, FaultyProxy, Memcached};

use crate::common::{Config, Gateway};
use crate::driver::{Numbers, among_others};

/// Requests without a use, or with `noreply` or `q`, or both. Each ends within itself; `KEY` is a key
/// of the client, `LONG` one of 251 bytes.
const NOISE: &[&str] = &[
    "bogus\r\n",
    "\r\n",
    "get\r\n",
    "get LONG\r\n",
    "get KEY LONG\r\n",
    "gets\r\n",
    "gat\r\n",
    "gat soon KEY\r\n",
    "gat 10\r\n",
    "set KEY\r\n",
    "set KEY 0 0 2 noreply\r\nab\r\n",
    "set KEY 0 0 2 noreply\r\nabcdef\r\n",
    "set KEY 0 0 2 noreply extra\r\nab\r\n",
    "set KEY x 0 2 noreply\r\nab\r\n",
    "set KEY 0 x 2 noreply\r\nab\r\n",
    "set KEY 0 0 x noreply\r\n",
    "set KEY 0 0 -1 noreply\r\n",
    "set KEY 4294967296 0 2 noreply\r\nab\r\n",
    "set LONG 0 0 2 noreply\r\nab\r\n",
    "add KEY 0 0 1 noreply\r\nx\r\n",
    "add KEY 0 0 1 noreply\r\nxyz\r\n",
    "replace KEY 0 0 3 noreply\r\nabc\r\n",
    "append KEY 0 0 1 noreply\r\nx\r\n",
    "prepend KEY 0 0 1 noreply\r\nxx\r\n",
    "cas KEY 0 0 1 12345 noreply\r\nx\r\n",
    "cas KEY 0 0 1 notatoken noreply\r\nx\r\n",
    "cas KEY 0 0 1 noreply\r\nx\r\n",
    "incr KEY 1 noreply\r\n",
    "incr KEY one noreply\r\n",
    "incr NOTHING 1 noreply\r\n",
    "decr KEY -1 noreply\r\n",
    "incr noreply\r\n",
    "touch KEY soon noreply\r\n",
    "touch NOTHING 10 noreply\r\n",
    "touch noreply\r\n",
    "delete NOTHING noreply\r\n",
    "delete KEY 5 noreply\r\n",
    "delete KEY 0 noreply\r\n",
    "delete LONG noreply\r\n",
    "flush_all soon noreply\r\n",
    "verbosity noreply\r\n",
    "verbosity 1 noreply\r\n",
    "mg\r\n",
    "mg KEY q\r\n",
    "mg NOTHING q v\r\n",
    "mg NOTHING q v k Oquiet\r\n",
    "mg LONG q v\r\n",
    "mg KEY q !\r\n",
    "ms\r\n",
    "ms KEY\r\n",
    "ms KEY x q\r\n",
    "ms KEY 2 q\r\nab\r\n",
    "ms KEY 2 q\r\nabcd\r\n",
    "ms KEY 2 q MZ\r\nab\r\n",
    "ms KEY 2 q C1\r\nab\r\n",
    "ms KEY 2 q Tsoon\r\nab\r\n",
    "ms LONG 2 q\r\nab\r\n",
    "ms !!! 2 q b\r\nab\r\n",
    "md\r\n",
    "md NOTHING q\r\n",
    "md KEY q C1\r\n",
    "md LONG q\r\n",
    "ma KEY q D1\r\n",
    "ma KEY q Dx\r\n",
    "ma NOTHING q\r\n",
    "ma KEY q MZ\r\n",
    "me NOTHING\r\n",
    "mn\r\n",
    "mx KEY\r\n",
    "get\0KEY\r\n",
];

struct Speaker {
    id: u64,
    numbers: Numbers,
    wanted: VecDeque<u64>,
    next: u64,
    /// Markers whose own reply came, and those that failed with their shard.
    seen: u64,
    lost: u64,
}

impl Speaker {
    fn new(id: u64) -> Speaker {
        let numbers = Numbers::new(id << 32);
        Speaker {
            id,
            numbers,
            wanted: VecDeque::new(),
            next: 0,
            seen: 0,
            lost: 0,
        }
    }

    /// Some noise, then a marker.
    fn say(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.numbers.below(4) {
            let place = usize::try_from(self.numbers.below(NOISE.len() as u64)).unwrap_or(0);
            let line = NOISE.get(place).copied().unwrap_or_default();
            let key = format!("noise{}-{}", self.id, self.numbers.below(20));
            let line = line
                .replace("KEY", &key)
                .replace("NOTHING", &format!("nothing{}", self.numbers.below(100)))
                .replace("LONG", &"l".repeat(251));
            bytes.extend_from_slice(line.as_bytes());
        }
        let (id, key) = (self.id, self.numbers.below(30));
        bytes.extend_from_slice(format!("mg own{id}-{key} v k O{}\r\n", self.next).as_bytes());
        self.wanted.push_back(self.next);
        self.next += 1;
    }

    /// Reads replies until so many `MN` have come; with `faults` markers may fail.
    fn hear(
        &mut self,
        stream: &mut BufReader<TcpStream>,
        mut ends: usize,
        faults: bool,
    ) -> Result<()> {
        while ends > 0 {
            let mut line = String::new();
            stream.read_line(&mut line).context("reading a reply")?;
            ensure!(line.ends_with("\r\n"), "closed after {line:?}");
            match line.as_str() {
                "MN\r\n" => ends -= 1,
                "ERROR\r\n" | "END\r\n" | "EN\r\n" | "HD\r\n" | "NF\r\n" | "NS\r\n" | "EX\r\n" => {}
                _ if line.starts_with("VA ") => self.marker(&line, stream, faults)?,
                _ if line.starts_with("CLIENT_ERROR ") => {}
                _ if line.starts_with("SERVER_ERROR ") && faults => {}
                _ => bail!("a stray reply: {line:?}"),
            }
        }
        let left = self.wanted.len() as u64;
        ensure!(faults || left == 0, "{left} markers without a reply");
        self.lost += left;
        self.wanted.clear();
        Ok(())
    }

    fn marker(
        &mut self,
        line: &str,
        stream: &mut BufReader<TcpStream>,
        faults: bool,
    ) -> Result<()> {
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let find = |flag: char| {
            words
                .iter()
                .skip(2)
                .find_map(|word| word.strip_prefix(flag))
        };
        let length: usize = words.get(1).context("a length")?.parse()?;
        let mut data = vec![0; length + 2];
        stream.read_exact(&mut data)?;
        let (key, number) = (find('k').context("a key")?, find('O').context("a number")?);
        let number: u64 = number.parse()?;
        let mut front = self.wanted.pop_front();
        while faults && front.is_some_and(|front| front < number) {
            self.lost += 1;
            front = self.wanted.pop_front();
        }
        ensure!(front == Some(number), "{front:?} was due, {line:?} came");
        ensure!(
            key.starts_with(&format!("own{}-", self.id)),
            "another client's: {line:?}"
        );
        ensure!(
            data == format!("value of {key}\r\n").as_bytes(),
            "{line:?} with another value"
        );
        self.seen += 1;
        Ok(())
    }
}

fn connect(gateway: &str) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(gateway)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(BufReader::new(stream))
}

/// One client: stores its values, then noise and markers, so many batches or until told to stop.
fn speak(
    address: &str,
    id: u64,
    batches: u64,
    stop: &AtomicBool,
    faults: bool,
) -> Result<(u64, u64)> {
    let (mut stream, mut speaker) = (connect(address)?, Speaker::new(id));
    for key in 0..30 {
        let value = format!("value of own{id}-{key}");
        let store = format!("set own{id}-{key} 0 0 {}\r\n{value}\r\n", value.len());
        stream.get_mut().write_all(store.as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        ensure!(line == "STORED\r\n", "{line}");
    }
    for _ in 0..batches {
        let mut bytes = Vec::new();
        for _ in 0..=speaker.numbers.below(30) {
            speaker.say(&mut bytes);
        }
        bytes.extend_from_slice(b"mn\r\n");
        stream.get_mut().write_all(&bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let ends = text.lines().filter(|line| *line == "mn").count();
        speaker
            .hear(&mut stream, ends, faults)
            .with_context(|| format!("client {id} after {text:?}"))?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok((speaker.seen, speaker.lost))
}

/// Eight clients at once; how many markers came in their turn, and how many failed.
fn speakers(
    gateway: &Gateway,
    batches: u64,
    faults: bool,
    meanwhile: impl FnOnce(),
) -> Result<(u64, u64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..8)
        .map(|id| {
            let (address, stop) = (gateway.address(), Arc::clone(&stop));
            std::thread::spawn(move || speak(&address, id, batches, &stop, faults))
        })
        .collect();
    // Values are stored first.
    std::thread::sleep(Duration::from_millis(300));
    meanwhile();
    if faults {
        stop.store(true, Ordering::Relaxed);
    }
    let (mut seen, mut lost) = (0, 0);
    for thread in threads {
        let told = thread.join().map_err(|_| anyhow!("a client panicked"))??;
        seen += told.0;
        lost += told.1;
    }
    Ok((seen, lost))
}

#[test]
fn quiet_and_malformed_requests_shift_no_reply() -> Result<()> {
    let _others = among_others();
    let servers = Memcached::many(3)?;
    let gateway = Config::new("memcached")?.over_memcached(&servers).start()?;
    let (seen, _) = speakers(&gateway, 150, false, || {})?;
    println!("{seen} markers came in their turn");
    ensure!(seen > 10_000, "{seen} markers: hardly anything was tested");
    Ok(())
}

#[test]
fn quiet_and_malformed_requests_shift_no_reply_through_resets() -> Result<()> {
    let _others = among_others();
    let servers = Memcached::many(3)?;
    let proxies: Vec<FaultyProxy> = servers
        .iter()
        .map(|memcached| FaultyProxy::start(&memcached.address()))
        .collect::<Result<_>>()?;
    let config = (0..)
        .zip(&proxies)
        .fold(Config::new("memcached")?, |config, (index, proxy)| {
            config.memcached(&format!("m{index}"), &proxy.address(), "")
        });
    let gateway = config.start()?;
    let (seen, lost) = speakers(&gateway, u64::MAX, true, || {
        let mut numbers = Numbers::new(9);
        for turn in 0..120 {
            let proxy = &proxies[turn % 3];
            if turn % 4 == 0 {
                proxy.reset_all();
            } else {
                proxy.set(Fault::ResetAfter(numbers.below(2_000)));
            }
            std::thread::sleep(Duration::from_millis(10));
            proxy.set(Fault::None);
            std::thread::sleep(Duration::from_millis(10 + numbers.below(30)));
        }
    })?;
    println!("{seen} markers came in their turn, {lost} failed with their shard");
    ensure!(seen > 2_000 && lost > 20, "{seen} seen, {lost} lost");
    Ok(())
}
