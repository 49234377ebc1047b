//! A shard that is killed with kill -9, and one that was never there.
//!
//! Not about frozen shards; see `stall`. Invariant: clients that use only live shards never see an
//! error, whatever happens to another shard.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use breccia_testkit::{Breccia, Redis, free_port};

use crate::common::{Config, Gateway, key_on};
use crate::driver::{Answer, Traffic, alone, among_others, no_errors, quantile, request};

const SHARDS: u64 = 3;

/// Clients that write and read keys of one shard.
fn traffic_on(gateway: &Gateway, shard: u64, clients: u64, pause_ms: u64) -> Traffic {
    let keys: Vec<String> = (0..20)
        .map(|salt| key_on(shard, SHARDS, &format!("k{salt}:")))
        .collect();
    Traffic::start(
        &gateway.address(),
        clients,
        Duration::from_millis(pause_ms),
        move |client, number| {
            let key = &keys[usize::try_from((client + number) % 20).unwrap_or(0)];
            request(&if number % 2 == 0 {
                format!("SET {key} {number}")
            } else {
                format!("GET {key}")
            })
        },
    )
}

fn wait(milliseconds: u64) -> Instant {
    std::thread::sleep(Duration::from_millis(milliseconds));
    Instant::now()
}

#[test]
fn a_killed_shard_fails_its_own_keys_at_once_and_serves_again_soon() -> Result<()> {
    let _quiet = alone();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let first = traffic_on(&gateway, 0, 3, 1);
    let last = traffic_on(&gateway, 2, 3, 1);
    let dead = traffic_on(&gateway, 1, 3, 2);
    wait(700);
    let killed = Instant::now();
    servers[1].kill9();
    wait(1_500);
    let restarting = Instant::now();
    servers[1].restart_same_port()?;
    let restarted = Instant::now();
    wait(2_600);

    no_errors("shard 0", &first.end_all()?)?;
    no_errors("shard 2", &last.end_all()?)?;
    let answers = dead.end_all()?;
    let part = |from: Instant, to: Instant| -> Vec<&Answer> {
        answers
            .iter()
            .filter(|answer| from <= answer.sent && answer.sent < to)
            .collect()
    };
    let mut before = answers
        .iter()
        .filter(|answer| answer.sent + answer.took < killed);
    assert!(
        before.all(|answer| !answer.is_error()),
        "an error before the kill"
    );
    let down = part(killed + Duration::from_millis(50), restarting);
    assert!(
        down.len() > 100,
        "{} answers while the shard was dead",
        down.len()
    );
    for answer in &down {
        assert!(
            answer.reply.starts_with(b"-SHARDDOWN all/r1 "),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains("not applied"), "{}", answer.text());
    }
    at_once(&down)?;
    let again = answers
        .iter()
        .find(|answer| answer.sent > killed && !answer.is_error())
        .context("it never served again")?;
    println!(
        "served {:?} after its restart",
        again.sent.saturating_duration_since(restarted)
    );
    let late = part(restarted + Duration::from_secs(2), Instant::now());
    assert!(late.len() > 50, "{} answers after the restart", late.len());
    for answer in late {
        assert!(
            !answer.is_error(),
            "2 s after the restart: {}",
            answer.text()
        );
    }
    Ok(())
}

/// Holds the time that errors took against what "at once" may mean on a busy machine.
fn at_once(down: &[&Answer]) -> Result<()> {
    let (median, p99) = (quantile(down, 500)?, quantile(down, 990)?);
    println!("dead shard's keys fail after {median:?} (median), {p99:?} (p99)");
    assert!(
        median < Duration::from_millis(20),
        "the median is {median:?}"
    );
    assert!(
        p99 < Duration::from_millis(200),
        "the 99th percentile is {p99:?}"
    );
    Ok(())
}

#[test]
fn a_pipeline_over_all_shards_loses_only_the_dead_ones_replies() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let mut requests = Vec::new();
    for number in 0..300 {
        let key = key_on(number % SHARDS, SHARDS, &format!("p{number}:"));
        requests.push(format!("SET {key} {number}"));
        requests.push(format!("GET {key}"));
    }
    let words: Vec<&str> = requests.iter().map(String::as_str).collect();
    servers[1].kill9();
    for turn in 0..5 {
        let replies = client.pipeline(&words)?;
        for (number, pair) in replies.chunks(2).enumerate() {
            if number % 3 == 1 {
                assert!(
                    pair[0].starts_with(b"-SHARDDOWN all/r1 "),
                    "turn {turn} {number}"
                );
                assert!(
                    pair[1].starts_with(b"-SHARDDOWN all/r1 "),
                    "turn {turn} {number}"
                );
            } else {
                let value = number.to_string();
                assert_eq!(pair[0], b"+OK\r\n", "turn {turn} {number}");
                let wanted = format!("${}\r\n{value}\r\n", value.len());
                assert_eq!(pair[1], wanted.as_bytes(), "turn {turn} {number}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_a_killed_shard_had_received_is_unknown_and_the_rest_not_applied() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let key = key_on(1, SHARDS, "k");
    for _ in 0..5 {
        // Only a connection that was heard a moment ago is trusted with a request.
        client.words(&format!("GET {key}"))?;
        servers[1].sigstop()?;
        client.send(&request(&format!("INCR {key}")))?;
        wait(150);
        client.send(&request(&format!("INCR {key}")))?;
        wait(50);
        servers[1].kill9();
        let (sent, waiting) = (client.read_reply()?, client.read_reply()?);
        let sent = sent.escape_ascii().to_string();
        let waiting = waiting.escape_ascii().to_string();
        servers[1].restart_same_port()?;
        crate::driver::until_answered(&gateway.address(), &format!("EXISTS {key}"), b":0\r\n")?;
        assert!(sent.starts_with("-SHARDDOWN all/r1 "), "{sent}");
        assert!(waiting.starts_with("-SHARDDOWN all/r1 "), "{waiting}");
        assert!(waiting.ends_with("not applied\\r\\n"), "{waiting}");
        if sent.ends_with("outcome unknown\\r\\n") {
            return Ok(());
        }
        assert!(sent.ends_with("not applied\\r\\n"), "{sent}");
    }
    bail!("the machine is too slow: no request was on its way when the shard froze")
}

#[test]
fn clients_that_wait_on_a_killed_shard_hear_of_it() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let key = key_on(1, SHARDS, "k");
    let [mut blocked, mut watching, mut open] =
        [gateway.client()?, gateway.client()?, gateway.client()?];
    blocked.send(&request(&format!("BLPOP {key} 0")))?;
    watching.words(&format!("WATCH {key}"))?;
    open.pipeline(&["MULTI", &format!("SET {key} 1")])?;
    wait(100);
    servers[1].kill9();
    let begun = Instant::now();
    let reply = blocked.read_reply()?.escape_ascii().to_string();
    assert!(reply.starts_with("-SHARDDOWN all/r1 "), "{reply}");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    wait(100);
    servers[1].restart_same_port()?;
    let set = format!("SET {key} other");
    crate::driver::until_answered(&gateway.address(), &set, b"+OK\r\n")?;
    let late = watching.pipeline(&["MULTI", &format!("SET {key} mine"), "EXEC"])?;
    assert!(
        late[2].starts_with(b"-EXECABORT"),
        "{}",
        late[2].escape_ascii()
    );
    let late = open.words("EXEC")?;
    assert!(late.starts_with(b"-EXECABORT"), "{}", late.escape_ascii());
    assert_eq!(blocked.words(&format!("GET {key}"))?, b"$5\r\nother\r\n");
    Ok(())
}

#[test]
fn a_shard_that_was_never_there_stops_nobody_else() -> Result<()> {
    let _others = among_others();
    let servers = Redis::many(2)?;
    let nobody = format!("127.0.0.1:{}", free_port()?);
    let config = Config::new("redis")?
        .redis("r0", &servers[0].address(), "")
        .redis("r1", &nobody, "")
        .redis("r2", &servers[1].address(), "");
    let breccia = Breccia::start_unready(&config.text())?;
    let gateway = Gateway { breccia, config };
    let mut client = gateway.client()?;
    for number in 0..60 {
        let key = key_on(number % SHARDS, SHARDS, &format!("n{number}:"));
        let reply = client.words(&format!("SET {key} v"))?;
        if number % SHARDS == 1 {
            ensure!(
                reply.starts_with(b"-SHARDDOWN all/r1 "),
                "{}",
                reply.escape_ascii()
            );
        } else {
            ensure!(reply == b"+OK\r\n", "{}", reply.escape_ascii());
        }
    }
    Ok(())
}
