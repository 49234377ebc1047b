//! Connections that are reset in the middle of a reply.
//!
//! The one thing that must never happen: a client gets a reply that belongs to another request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use breccia_testkit::{Fault, FaultyProxy, Redis, RespClient, resp};

use crate::alone;
use crate::common::{Config, key_on};
use crate::traffic::Traffic;

/// Requests of the big run, over all its clients.
fn requests() -> u64 {
    let wanted = std::env::var("BRECCIA_FAULT_REQUESTS")
        .ok()
        .and_then(|text| text.parse().ok());
    wanted.unwrap_or(1_000_000)
}

const KEYS: u64 = 5_000;

fn value(key: u64) -> String {
    // Of different lengths, so that a shifted reply cannot fit by chance.
    format!(
        "value-of-{key}-{}",
        "x".repeat(usize::try_from(key % 97).unwrap_or_default())
    )
}

/// A small generator: the tests need no better.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// One client: pipelines of GET and ECHO until the budget is used up; wrong replies.
fn client(address: &str, id: u64, budget: &AtomicU64) -> Result<(u64, u64, Vec<String>)> {
    let mut state = (id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut failed, mut wrong) = (0, 0, Vec::new());
    let mut connection = RespClient::connect(address)?;
    let depth = 10 + id * 13 % 60;
    while budget.fetch_sub(depth, Ordering::Relaxed) > depth {
        let mut wanted = Vec::new();
        let mut bytes = Vec::new();
        for number in 0..depth {
            let key = next(&mut state) % KEYS;
            if number % 10 == 9 {
                let text = format!("echo-{id}-{}", next(&mut state));
                bytes.extend_from_slice(&resp::encode(&[b"ECHO", text.as_bytes()]));
                wanted.push(text);
            } else {
                bytes.extend_from_slice(&resp::encode(&[b"GET", format!("k{key}").as_bytes()]));
                wanted.push(value(key));
            }
        }
        connection.send(&bytes)?;
        for wanted in wanted {
            let reply = connection
                .read_reply()
                .context("a client of the gateway was cut off")?;
            let whole = format!("${}\r\n{wanted}\r\n", wanted.len());
            if reply == whole.as_bytes() {
                good += 1;
            } else if reply.starts_with(b"-") {
                failed += 1;
            } else {
                wrong.push(format!("{wanted}: {}", reply.escape_ascii()));
            }
        }
    }
    Ok((good, failed, wrong))
}

#[test]
fn no_client_gets_another_ones_reply_through_random_resets() -> Result<()> {
    let _alone = alone();
    let servers = Redis::many(3)?;
    let proxies: Vec<FaultyProxy> = servers
        .iter()
        .map(|redis| FaultyProxy::start(&redis.address()))
        .collect::<Result<_>>()?;
    let config = proxies
        .iter()
        .enumerate()
        .fold(Config::new("redis")?, |config, (index, proxy)| {
            config.redis(&format!("r{index}"), &proxy.address(), "")
        });
    let gateway = config.start()?;
    let mut setup = gateway.client()?;
    for key in 0..KEYS {
        assert_eq!(
            setup.words(&format!("SET k{key} {}", value(key)))?,
            b"+OK\r\n"
        );
    }
    let (address, budget) = (gateway.address(), Arc::new(AtomicU64::new(requests())));
    let clients: Vec<_> = (0..8)
        .map(|id| {
            let (address, budget) = (address.clone(), Arc::clone(&budget));
            std::thread::spawn(move || client(&address, id, &budget))
        })
        .collect();
    let mut state = 42;
    let mut kills = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        let pick = usize::try_from(next(&mut state) % 3)?;
        match next(&mut state) % 3 {
            0 => proxies[pick].reset_all(),
            1 => proxies[pick].set(Fault::ResetAfter(next(&mut state) % 100_000)),
            _ => proxies[pick].set(Fault::CutAfter(next(&mut state) % 100_000)),
        }
        kills += 1;
        std::thread::sleep(Duration::from_millis(20 + next(&mut state) % 60));
        proxies[pick].set(Fault::None);
        std::thread::sleep(Duration::from_millis(next(&mut state) % 60));
    }
    let (mut good, mut failed) = (0, 0);
    for client in clients {
        let (more_good, more_failed, wrong) =
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        assert!(
            wrong.is_empty(),
            "{} wrong replies, the first: {}",
            wrong.len(),
            wrong[0]
        );
        good += more_good;
        failed += more_failed;
    }
    println!("{good} good, {failed} errors, {kills} faults");
    assert!(
        good + failed > requests() * 9 / 10 && good > failed,
        "{good} good, {failed} errors"
    );
    Ok(())
}

#[test]
fn a_counter_never_exceeds_what_was_sent_through_resets() -> Result<()> {
    let _alone = alone();
    let redis = Redis::new()?;
    let proxy = FaultyProxy::start(&redis.address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .start()?;
    let ended = Arc::new(AtomicBool::new(false));
    let traffic: Vec<Traffic> = (0..4)
        .map(|_| {
            Traffic::start(&gateway.address(), Duration::ZERO, |_| {
                ("INCR counter".to_owned(), None)
            })
        })
        .collect();
    let mut state = 7;
    for _ in 0..40 {
        proxy.set(Fault::ResetAfter(next(&mut state) % 3_000));
        std::thread::sleep(Duration::from_millis(30));
        proxy.set(Fault::None);
        std::thread::sleep(Duration::from_millis(40));
    }
    ended.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(500));
    let seen: Vec<_> = traffic
        .into_iter()
        .map(Traffic::stop)
        .collect::<Result<_>>()?;
    let acknowledged: u64 = seen.iter().map(|seen| seen.good).sum();
    let unknown = seen.iter().flat_map(|seen| &seen.errors);
    let unknown = unknown
        .filter(|(_, _, text)| text.contains("unknown"))
        .count() as u64;
    let wrong: Vec<&String> = seen.iter().flat_map(|seen| &seen.wrong).collect();
    let reply = redis.client()?.reply("GET counter")?;
    let value: u64 = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).parse()?;
    println!("{acknowledged} acknowledged, {unknown} unknown, counted {value}");
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(acknowledged > 1_000, "{acknowledged}");
    assert!(
        value >= acknowledged && value <= acknowledged + unknown,
        "{value}"
    );
    Ok(())
}

#[test]
fn a_lost_lease_fails_the_transaction() -> Result<()> {
    let _alone = alone();
    let redis = Redis::new()?;
    let proxy = FaultyProxy::start(&redis.address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &proxy.address(), "")
        .start()?;
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for turn in 0..20 {
        let mut client = gateway.client()?;
        let key = key_on(0, 1, &format!("t{turn}-"));
        if client.words(&format!("WATCH {key}"))? != b"+OK\r\n" {
            continue;
        }
        client.words(&format!("GET {key}"))?;
        proxy.reset_all();
        // Nobody watches any more: whatever is written now, EXEC must not run.
        std::thread::sleep(Duration::from_millis(30));
        redis.client()?.words(&format!("SET {key} other"))?;
        let replies = client.pipeline(&["MULTI", &format!("SET {key} mine"), "EXEC"])?;
        let reply = String::from_utf8_lossy(&replies[2]).trim_end().to_owned();
        assert!(!reply.starts_with("*1"), "turn {turn}: EXEC ran unwatched");
        assert_eq!(
            redis.client()?.words(&format!("GET {key}"))?,
            b"$5\r\nother\r\n"
        );
        *outcomes.entry(reply).or_default() += 1;
    }
    println!("{outcomes:?}");
    assert!(!outcomes.is_empty());
    Ok(())
}

#[test]
fn a_black_hole_times_out_and_nobody_else_waits() -> Result<()> {
    let _alone = alone();
    let servers = Redis::many(2)?;
    let proxy = FaultyProxy::start(&servers[1].address())?;
    let gateway = Config::new("redis")?
        .redis("r0", &servers[0].address(), "")
        .redis("r1", &proxy.address(), "timeout = \"2s\"")
        .start()?;
    let (live, dark) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    let mut client = gateway.client()?;
    client.words(&format!("SET {dark} 1"))?;
    proxy.set(Fault::BlackHole);
    let begun = std::time::Instant::now();
    client.send(format!("INCR {dark}\r\n").as_bytes())?;
    let mut other = gateway.client()?;
    for _ in 0..50 {
        assert_eq!(other.words(&format!("SET {live} 1"))?, b"+OK\r\n");
    }
    assert!(begun.elapsed() < Duration::from_millis(1_000));
    let reply = String::from_utf8_lossy(&client.read_reply()?).into_owned();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        reply.starts_with('-') && reply.contains("unknown"),
        "{reply}"
    );
    Ok(())
}
