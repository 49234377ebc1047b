//! INCR through frozen, reset and killed servers.
//!
//! Invariant: acknowledged <= counter <= sent, and what was answered "not applied" is not in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use breccia_testkit::{Fault, FaultyProxy, Redis, RedisOptions, RespClient};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{Numbers, among_others, integer, request};

/// What became of the increments of one counter.
#[derive(Debug, Default, Clone)]
struct Tally {
    sent: i64,
    acknowledged: i64,
    not_applied: i64,
    highest: i64,
    /// Values that were acknowledged, to see one that comes twice.
    values: Vec<i64>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.not_applied += other.not_applied;
        self.highest = self.highest.max(other.highest);
        self.values.extend(other.values);
    }
}

type Tallies = BTreeMap<String, Tally>;

fn keys() -> Vec<String> {
    (0..12)
        .map(|number| key_on(number % 3, 3, &format!("counter{number}:")))
        .collect()
}

/// One client: pipelines of increments until told to stop.
fn count_up(address: &str, seed: u64, stop: &AtomicBool) -> Result<Tallies> {
    let (keys, mut numbers) = (keys(), Numbers::new(seed));
    let mut tallies = Tallies::new();
    let mut client = RespClient::connect(address)?;
    while !stop.load(Ordering::Relaxed) {
        let depth = 1 + numbers.below(16);
        let picked: Vec<&String> = (0..depth)
            .filter_map(|_| keys.get(usize::try_from(numbers.below(12)).unwrap_or(0)))
            .collect();
        let bytes: Vec<u8> = picked
            .iter()
            .flat_map(|key| request(&format!("INCR {key}")))
            .collect();
        client.send(&bytes)?;
        for key in picked {
            let tally = tallies.entry(key.clone()).or_default();
            let reply = client.read_reply()?;
            tally.sent += 1;
            if let Some(value) = integer(&reply) {
                ensure!(
                    value > tally.highest,
                    "{key} went from {} to {value}",
                    tally.highest
                );
                tally.highest = value;
                tally.acknowledged += 1;
                tally.values.push(value);
            } else {
                let text = reply.escape_ascii().to_string();
                ensure!(text.starts_with('-'), "{text}");
                // Redis itself refuses while it loads.
                if text.contains("not applied") || text.starts_with("-LOADING") {
                    tally.not_applied += 1;
                } else {
                    ensure!(
                        text.contains("unknown"),
                        "an error without an outcome: {text}"
                    );
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(tallies)
}

/// Runs clients while `trouble` goes on, then holds the counters on the shards against what the
/// clients were told. Answers whether some request was not acknowledged.
fn counted(
    gateway: &Gateway,
    servers: &mut [Redis],
    trouble: impl FnOnce(&mut [Redis]) -> Result<()>,
) -> Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (address, stop) = (gateway.address(), Arc::clone(&stop));
            std::thread::spawn(move || count_up(&address, client << 32, &stop))
        })
        .collect();
    let outcome = trouble(servers);
    std::thread::sleep(Duration::from_millis(1_500));
    stop.store(true, Ordering::Relaxed);
    let mut tallies = Tallies::new();
    for client in clients {
        let told = client.join().map_err(|_| anyhow!("a client panicked"))??;
        for (key, tally) in told {
            tallies.entry(key).or_default().add(tally);
        }
    }
    outcome?;
    let (mut sent, mut acknowledged, mut counter, mut refused) = (0, 0, 0, 0);
    for (number, key) in keys().iter().enumerate() {
        let tally = tallies.get_mut(key).with_context(|| key.clone())?;
        let reply = servers[number % 3].client()?.reply(&format!("GET {key}"))?;
        let value: i64 = String::from_utf8_lossy(reply.bytes().unwrap_or(b"0")).parse()?;
        ensure!(tally.acknowledged <= value, "{key} is {value}: {tally:?}");
        ensure!(
            value <= tally.sent - tally.not_applied,
            "{key} is {value}: {tally:?}"
        );
        tally.values.sort_unstable();
        let twice = tally.values.windows(2).find(|pair| pair[0] == pair[1]);
        ensure!(twice.is_none(), "{key}: {twice:?} was answered twice");
        sent += tally.sent;
        acknowledged += tally.acknowledged;
        counter += value;
        refused += tally.not_applied;
    }
    println!("{acknowledged} acknowledged <= {counter} counted <= {sent} sent - {refused} refused");
    ensure!(
        acknowledged > 2_000,
        "{acknowledged} acknowledged: hardly anything was tested"
    );
    Ok(acknowledged < sent)
}

#[test]
fn counters_hold_through_stalls() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    // A stall may be felt as a wait alone: what was sent before the gate closed is answered later.
    counted(&gateway, &mut servers, |servers| {
        for (turn, pause) in [60, 150, 700, 1_500, 2_600].into_iter().enumerate() {
            std::thread::sleep(Duration::from_millis(300));
            servers[turn % 3].sigstop()?;
            std::thread::sleep(Duration::from_millis(pause));
            servers[turn % 3].sigcont()?;
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn counters_hold_through_resets() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
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
    let felt = counted(&gateway, &mut servers, |_| {
        let mut numbers = Numbers::new(7);
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until {
            let proxy = &proxies[usize::try_from(numbers.below(3))?];
            if numbers.below(2) == 0 {
                proxy.reset_all();
            } else {
                proxy.set(Fault::ResetAfter(numbers.below(500)));
            }
            std::thread::sleep(Duration::from_millis(20));
            proxy.set(Fault::None);
            std::thread::sleep(Duration::from_millis(numbers.below(40)));
        }
        Ok(())
    })?;
    ensure!(felt, "the trouble was not felt");
    Ok(())
}

#[test]
fn counters_hold_through_kills_of_servers_that_sync() -> Result<()> {
    let _others = among_others();
    let options = RedisOptions {
        append_only: true,
        ..RedisOptions::default()
    };
    let mut servers: Vec<Redis> = (0..3)
        .map(|_| Redis::start(options.clone()))
        .collect::<Result<_>>()?;
    let gateway = Gateway::over(&servers)?;
    let felt = counted(&gateway, &mut servers, |servers| {
        for turn in 0..6 {
            std::thread::sleep(Duration::from_millis(700));
            servers[turn % 3].kill9();
            std::thread::sleep(Duration::from_millis(100));
            servers[turn % 3].restart_same_port()?;
        }
        Ok(())
    })?;
    ensure!(felt, "the trouble was not felt");
    Ok(())
}
