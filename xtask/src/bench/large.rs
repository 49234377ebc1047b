//! What clients of small values feel while another one fetches a value of 256 MiB again and again: on
//! the shard that has it, and on the others.
//!
//! The same is measured with all of them connected to the servers themselves: they share the machine, too.
//! Invariant: a figure is of requests that were answered while the large value was on its way.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Wire;
use super::report::{Page, median, versions};
use super::rig::Rig;
use crate::process::Server;
use crate::resp::Connection;

const LARGE_BYTES: usize = 256 << 20;
const LARGE_KEY: &str = "large";
/// Clients of small values, each with one request on its way.
const CLIENTS: usize = 8;
/// How long each figure is taken.
const SPAN: Duration = Duration::from_secs(4);
/// The pause of such a client between two requests: it shall feel, and not fill the machine.
const PAUSE: Duration = Duration::from_micros(500);

/// Who asks for what.
#[derive(Clone, Copy)]
struct Case {
    same_shard: bool,
    loaded: bool,
    direct: bool,
}

/// Measures and writes the page's table.
pub(crate) fn run(rig: &Rig, rounds: u32) -> Result<()> {
    let breccia = rig.breccia(Wire::Redis, 1)?;
    let quiet_peak = breccia.peak_resident_bytes()?;
    let value = "x".repeat(LARGE_BYTES);
    Connection::open(breccia.port)?.call(&["SET", LARGE_KEY, &value])?;
    let shards = Shards::find(rig, &breccia)?;
    let mut rows: Vec<(u32, Case, f64)> = Vec::new();
    for round in 1..=rounds {
        for number in 0..8 {
            let case = Case {
                same_shard: number & 1 != 0,
                loaded: number & 2 != 0,
                direct: number & 4 != 0,
            };
            let p99 = measure(&shards, &breccia, case)?;
            println!(
                "round {round} same shard {} loaded {} direct {}: p99 {p99:.2} ms",
                case.same_shard, case.loaded, case.direct
            );
            rows.push((round, case, p99));
        }
    }
    let more = breccia.peak_resident_bytes()?.saturating_sub(quiet_peak);
    Connection::open(breccia.port)?.call(&["DEL", LARGE_KEY])?;
    let table = table(&rows, more)?;
    println!("\n{table}");
    let rows: Vec<Value> = rows
        .iter()
        .map(|(round, case, p99)| {
            json!({"round": round, "same_shard": case.same_shard, "loaded": case.loaded,
                   "direct": case.direct, "p99_ms": p99})
        })
        .collect();
    let page = Page {
        name: "kv-large",
        versions: versions()?,
    };
    page.write(&rows, &table, rounds)
}

fn table(rows: &[(u32, Case, f64)], more: u64) -> Result<String> {
    let of = |same_shard: bool, loaded: bool, direct: bool| {
        let wanted = (same_shard, loaded, direct);
        let is = |case: &Case| (case.same_shard, case.loaded, case.direct) == wanted;
        median(rows.iter().filter(|it| is(&it.1)).map(|it| it.2).collect())
    };
    let mut table = String::from(
        "| small GETs on | p99 ms quiet d / b | p99 ms beside 256 MiB GETs d / b | d: beside ÷ quiet | b: beside ÷ quiet | beside: b ÷ d |\n\
         |---|---|---|---|---|---|\n",
    );
    for (name, same) in [("the other shards", false), ("the same shard", true)] {
        let (direct, breccia) = (of(same, false, true), of(same, false, false));
        let (beside_direct, beside) = (of(same, true, true), of(same, true, false));
        writeln!(
            table,
            "| {name} | {direct:.2} / {breccia:.2} | {beside_direct:.2} / {beside:.2} | {:.2} | {:.2} | {:.2} |",
            beside_direct / direct,
            beside / breccia,
            beside / beside_direct,
        )?;
    }
    writeln!(
        table,
        "\nBreccia's peak memory rose by {} MiB meanwhile.",
        more >> 20
    )?;
    Ok(table)
}

/// Where keys lie.
struct Shards {
    /// The port of the server that has the large value, and a small key there.
    same: (u16, String),
    other: (u16, String),
}

impl Shards {
    fn find(rig: &Rig, breccia: &Server) -> Result<Shards> {
        let has = |port: u16, key: &str| -> Result<bool> {
            let found = Connection::open(port)?.call(&["EXISTS", key])?;
            Ok(found.integer()? == 1)
        };
        let ports: Vec<u16> = rig.redis_ports();
        let mut same = None;
        for port in &ports {
            if has(*port, LARGE_KEY)? {
                same = Some(*port);
            }
        }
        let same = same.context("nobody has the large value")?;
        let mut keys = (None, None);
        for number in 0..64 {
            let key = format!("small:{number}");
            Connection::open(breccia.port)?.call(&["SET", &key, "xxx"])?;
            if has(same, &key)? {
                keys.0 = Some((same, key));
            } else {
                for port in ports.iter().filter(|port| **port != same) {
                    if has(*port, &key)? {
                        keys.1 = Some((*port, key.clone()));
                    }
                }
            }
        }
        Ok(Shards {
            same: keys.0.context("no key on the same shard")?,
            other: keys.1.context("no key on another shard")?,
        })
    }
}

fn measure(shards: &Shards, breccia: &Server, case: Case) -> Result<f64> {
    let (own, key) = if case.same_shard {
        &shards.same
    } else {
        &shards.other
    };
    let port = |direct: u16| if case.direct { direct } else { breccia.port };
    let (small, large) = (port(*own), port(shards.same.0));
    let done = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let fetching = case.loaded.then(|| scope.spawn(|| fetch(large, &done)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| small_client(small, key)))
            .collect();
        let mut times = Vec::new();
        for client in clients {
            times.push(client.join());
        }
        done.store(true, Ordering::Relaxed);
        if let Some(fetching) = fetching {
            let fetched = fetching.join().ok().context("the fetcher died")??;
            ensure!(fetched > 0, "nothing large was fetched");
        }
        let mut all = Vec::new();
        for part in times {
            all.extend(part.ok().context("a client died")??);
        }
        Ok(all)
    })?;
    times.sort_by(f64::total_cmp);
    times
        .get(times.len() * 99 / 100)
        .copied()
        .context("no request")
}

/// Fetches the large value again and again; how often.
fn fetch(port: u16, done: &AtomicBool) -> Result<u32> {
    let mut stream = BufReader::with_capacity(1 << 20, TcpStream::connect(("127.0.0.1", port))?);
    let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{LARGE_KEY}\r\n", LARGE_KEY.len());
    let mut times = 0;
    while !done.load(Ordering::Relaxed) {
        stream.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        stream.read_line(&mut head)?;
        ensure!(head.trim_end() == format!("${LARGE_BYTES}"), "{head}");
        let mut left = LARGE_BYTES + 2;
        while left > 0 {
            let here = stream.fill_buf()?.len().min(left);
            ensure!(here > 0, "the large value was cut");
            stream.consume(here);
            left -= here;
        }
        times += 1;
    }
    Ok(times)
}

/// Asks for a small value for a while; how long each answer took, in milliseconds.
fn small_client(port: u16, key: &str) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < SPAN {
        let asked = Instant::now();
        stream.write_all(request.as_bytes())?;
        let mut reply = [0; 9];
        stream.read_exact(&mut reply)?;
        ensure!(&reply == b"$3\r\nxxx\r\n", "another answer");
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(PAUSE);
    }
    Ok(times)
}
