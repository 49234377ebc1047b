//! A shard that is frozen (SIGSTOP) and thaws again, under traffic on shared connections.
//!
//! Default settings. Invariant: late is worse than never; a request that was answered with an error
//! after the stall was known never runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Redis, RespClient};

use crate::common::{Gateway, key_on};
use crate::driver::{
    Answer, Traffic, alone, among_others, integer, no_errors, quantile, request, until_answered,
};

const FROZEN: u64 = 1;
const STALL: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(1);

/// The key that one request of one client writes: its own, on the frozen shard.
fn own_key(client: u64, number: u64) -> String {
    key_on(FROZEN, 3, &format!("c{client}n{number}:"))
}

/// When the stall began and ended, seen from outside: it lasted at least that long.
struct Stall {
    began: Instant,
    ended: Instant,
}

fn freeze(server: &mut Redis) -> Result<Stall> {
    server.sigstop()?;
    let began = Instant::now();
    std::thread::sleep(STALL);
    let ended = Instant::now();
    server.sigcont()?;
    Ok(Stall { began, ended })
}

/// Counters on the shard itself, by key; absent ones are 0.
fn counters(server: &Redis, keys: &[String]) -> Result<BTreeMap<String, i64>> {
    let mut client: RespClient = server.client()?;
    let mut found = BTreeMap::new();
    for batch in keys.chunks(500) {
        let reply = client.reply(&format!("MGET {}", batch.join(" ")))?;
        for (key, value) in batch.iter().zip(reply.elements()) {
            let text = String::from_utf8_lossy(value.bytes().unwrap_or(b"0")).into_owned();
            found.insert(key.clone(), text.parse()?);
        }
    }
    Ok(found)
}

#[test]
fn a_frozen_shard_fails_its_own_keys_and_nothing_runs_late() -> Result<()> {
    let _quiet = alone();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let pause = Duration::from_millis(5);
    let live = Traffic::start(&gateway.address(), 4, pause, |client, number| {
        let shard = if client % 2 == 0 { 0 } else { 2 };
        request(&format!(
            "SET {} v",
            key_on(shard, 3, &format!("l{}:", number % 50))
        ))
    });
    // Most of the busy clients' requests are on their way when the shard freezes; those of the
    // seldom ones come later.
    let busy = Traffic::start(&gateway.address(), 8, pause, |client, number| {
        request(&format!("INCR {}", own_key(client, number)))
    });
    let seldom = Duration::from_millis(200);
    let frozen = Traffic::start(&gateway.address(), 72, seldom, |client, number| {
        request(&format!("INCR {}", own_key(8 + client, number)))
    });
    std::thread::sleep(Duration::from_millis(1_500));
    let stall = freeze(&mut servers[1])?;
    std::thread::sleep(Duration::from_millis(2_600));
    let (live, mut frozen) = (live.end_all()?, frozen.end()?);
    frozen.splice(..0, busy.end()?);

    no_errors("live shards", &live)?;
    live_clients_keep_their_pace(&live, &stall)?;
    let late: Vec<&Answer> = frozen
        .iter()
        .flatten()
        .filter(|answer| {
            answer.sent > stall.began + Duration::from_millis(100)
                && answer.sent + Duration::from_millis(100) < stall.ended
        })
        .collect();
    errors_come_in_time(&late, &stall)?;
    none_ran_late(&servers[1], &frozen, &stall)?;
    let after = stall.ended + Duration::from_secs(2);
    let served: Vec<&Answer> = frozen
        .iter()
        .flatten()
        .filter(|answer| answer.sent > after)
        .collect();
    assert!(
        served.len() > 100,
        "{} answers after the stall",
        served.len()
    );
    for answer in served {
        assert!(!answer.is_error(), "2 s after the stall: {}", answer.text());
    }
    Ok(())
}

fn live_clients_keep_their_pace(live: &[Answer], stall: &Stall) -> Result<()> {
    let part = |from: Instant, to: Instant| -> Vec<&Answer> {
        live.iter()
            .filter(|answer| from < answer.sent && answer.sent < to)
            .collect()
    };
    let before = part(live[0].sent + Duration::from_millis(200), stall.began);
    let during = part(stall.began, stall.ended);
    let (calm, stalled) = (quantile(&before, 990)?, quantile(&during, 990)?);
    println!("live shards' p99: {calm:?} before, {stalled:?} during the stall");
    let bound = calm * 3 + Duration::from_millis(20);
    ensure!(
        stalled < bound,
        "p99 of live shards rose from {calm:?} to {stalled:?}"
    );
    Ok(())
}

/// Every request that came while the shard was frozen fails within the deadline, and at once when
/// the probe has seen it.
fn errors_come_in_time(late: &[&Answer], stall: &Stall) -> Result<()> {
    ensure!(late.len() > 200, "{} requests during the stall", late.len());
    let slack = Duration::from_millis(400);
    for answer in late {
        ensure!(
            answer.is_error(),
            "answered during the stall: {}",
            answer.text()
        );
        ensure!(
            answer.took < DEADLINE + slack,
            "{:?}: {}",
            answer.took,
            answer.text()
        );
        ensure!(answer.text().contains("not applied"), "{}", answer.text());
    }
    let seen = late
        .iter()
        .filter(|answer| answer.reply.starts_with(b"-SHARDDOWN"))
        .map(|answer| answer.sent + answer.took)
        .min()
        .context("the probe saw nothing")?;
    println!(
        "the probe saw the stall after {:?}",
        seen.saturating_duration_since(stall.began)
    );
    ensure!(
        seen < stall.began + Duration::from_millis(2_700),
        "the probe was late"
    );
    let fast: Vec<&Answer> = late
        .iter()
        .filter(|answer| answer.sent > seen)
        .copied()
        .collect();
    let p99 = quantile(&fast, 990)?;
    println!("from then on {} requests failed, p99 {p99:?}", fast.len());
    ensure!(
        p99 < Duration::from_millis(200),
        "once seen, errors took {p99:?}"
    );
    Ok(())
}

/// Counters of requests that were refused are 0, those of acknowledged ones 1.
fn none_ran_late(server: &Redis, frozen: &[Vec<Answer>], stall: &Stall) -> Result<()> {
    let by_key: Vec<(String, &Answer)> = (0..)
        .zip(frozen)
        .flat_map(|(client, answers)| {
            answers
                .iter()
                .map(move |answer| (own_key(client, answer.number), answer))
        })
        .collect();
    let keys: Vec<String> = by_key.iter().map(|(key, _)| key.clone()).collect();
    let found = counters(server, &keys)?;
    let mut refused = 0;
    for (key, answer) in by_key {
        let count = found.get(&key).copied().context("a counter")?;
        if !answer.is_error() {
            ensure!(count == 1, "{key} was acknowledged and is {count}");
        } else if answer.sent > stall.began + Duration::from_millis(100)
            || answer.text().contains("not applied")
        {
            refused += 1;
            ensure!(
                count == 0,
                "{key} ran though its client was told {}",
                answer.text()
            );
        }
    }
    println!("{refused} refused requests, none of them ran");
    Ok(())
}

#[test]
fn an_idle_gateway_writes_nothing_to_a_frozen_shard() -> Result<()> {
    let _quiet = alone();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut clients: Vec<RespClient> = (0..8).map(|_| gateway.client()).collect::<Result<_>>()?;
    for client in &mut clients {
        client.words(&format!("SET {} v", own_key(99, 0)))?;
    }
    servers[1].sigstop()?;
    std::thread::sleep(Duration::from_millis(150));
    let begun = Instant::now();
    for (number, client) in (0..).zip(&mut clients) {
        for turn in 0..12 {
            client.send(&request(&format!("INCR {}", own_key(number, turn))))?;
        }
    }
    for client in &mut clients {
        for _ in 0..12 {
            let reply = client.read_reply()?.escape_ascii().to_string();
            ensure!(
                reply.starts_with('-') && reply.contains("not applied"),
                "{reply}"
            );
        }
    }
    let took = begun.elapsed();
    println!("refused after {took:?}");
    ensure!(
        took < DEADLINE + Duration::from_millis(500),
        "refused after {took:?}"
    );
    servers[1].sigcont()?;
    std::thread::sleep(Duration::from_millis(300));
    let keys: Vec<String> = (0..8)
        .flat_map(|client| (0..12).map(move |turn| own_key(client, turn)))
        .collect();
    let ran = counters(&servers[1], &keys)?;
    ensure!(ran.values().all(|count| *count == 0), "some ran: {ran:?}");
    Ok(())
}

#[test]
fn a_pause_within_the_deadline_costs_no_error() -> Result<()> {
    let _quiet = alone();
    let mut servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let traffic = Traffic::start(
        &gateway.address(),
        8,
        Duration::from_millis(2),
        |client, number| request(&format!("INCR c{client}n{number}")),
    );
    std::thread::sleep(Duration::from_millis(300));
    servers[0].sigstop()?;
    std::thread::sleep(Duration::from_millis(500));
    servers[0].sigcont()?;
    std::thread::sleep(Duration::from_millis(300));
    no_errors("a short pause", &traffic.end_all()?)
}

#[test]
fn a_sent_request_is_unknown_after_the_stores_timeout_and_its_late_reply_goes_nowhere() -> Result<()>
{
    let _others = among_others();
    let mut servers = Redis::many(1)?;
    let config = crate::common::Config::new("redis")?;
    let more = "timeout = \"700ms\"\nprobe-interval = \"60s\"";
    let config = config.redis("r0", &servers[0].address(), more);
    let gateway = config.listener("deadline = \"300ms\"").start()?;
    let (mut one, mut other) = (gateway.client()?, gateway.client()?);
    one.words("SET a before")?;
    other.words("SET b before")?;
    servers[0].sigstop()?;
    one.send(&request("SET a late"))?;
    std::thread::sleep(Duration::from_millis(100));
    one.send(&request("SET a refused"))?;
    let sent = one.read_reply()?.escape_ascii().to_string();
    assert!(
        sent.starts_with("-TIMEOUT ") || sent.starts_with("-SHARDDOWN "),
        "{sent}"
    );
    assert!(sent.contains("unknown"), "{sent}");
    let unsent = one.read_reply()?.escape_ascii().to_string();
    assert!(
        unsent.starts_with("-TIMEOUT ") && unsent.contains("not applied"),
        "{unsent}"
    );
    servers[0].sigcont()?;
    until_answered(&gateway.address(), "GET b", b"$6\r\nbefore\r\n")?;
    for number in 0..50 {
        let value = format!("value{number}");
        assert_eq!(one.words(&format!("SET c {value}"))?, b"+OK\r\n");
        let reply = one.reply("GET c")?;
        assert_eq!(reply.bytes(), Some(value.as_bytes()), "a reply went astray");
    }
    assert_ne!(one.reply("GET a")?.bytes(), Some(b"refused".as_slice()));
    Ok(())
}

#[test]
fn a_blocked_client_is_not_a_stall() -> Result<()> {
    let _quiet = alone();
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let mut waiting = gateway.client()?;
    waiting.send(&request("BLPOP queue 0"))?;
    let traffic = Traffic::start(
        &gateway.address(),
        4,
        Duration::from_millis(1),
        |client, number| request(&format!("INCR c{client}n{number}")),
    );
    // Longer than deadline and probes together.
    std::thread::sleep(Duration::from_millis(2_500));
    let answers = traffic.end_all()?;
    no_errors("beside a blocked client", &answers)?;
    let all: Vec<&Answer> = answers.iter().collect();
    let p99 = quantile(&all, 990)?;
    ensure!(
        p99 < Duration::from_millis(100),
        "a blocked client slows others: p99 {p99:?}"
    );
    let pushed = gateway.client()?.words("RPUSH queue job")?;
    assert_eq!(integer(&pushed), Some(1));
    assert_eq!(waiting.read_reply()?, b"*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    Ok(())
}
