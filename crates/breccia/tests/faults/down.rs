//! A shard that is killed and comes back.

use std::time::{Duration, Instant};

use anyhow::Result;
use breccia_testkit::{Redis, RedisOptions, wait_until};

use crate::alone;
use crate::common::{Gateway, key_on};
use crate::traffic::Traffic;

const PAUSE: Duration = Duration::from_millis(1);

#[test]
fn a_killed_shard_fails_only_its_own_keys_and_serves_again() -> Result<()> {
    let _alone = alone();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3, "k")).collect();
    let mut client = gateway.client()?;
    for key in &keys {
        client.words(&format!("SET {key} here"))?;
    }
    let traffic: Vec<Traffic> = keys
        .iter()
        .map(|key| {
            let request = format!("GET {key}");
            Traffic::start(&gateway.address(), PAUSE, move |_| {
                (request.clone(), Some(b"$4\r\nhere\r\n".to_vec()))
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    servers[1].kill9();
    let killed = Instant::now();
    std::thread::sleep(Duration::from_millis(1_500));
    let begun = Instant::now();
    let reply = client.words(&format!("GET {}", keys[1]))?;
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "{:?}",
        begun.elapsed()
    );
    let text = String::from_utf8_lossy(&reply).into_owned();
    assert!(
        text.starts_with("-SHARDDOWN all/r1 is unreachable"),
        "{text}"
    );
    assert!(text.contains("keys of other shards work"), "{text}");

    servers[1].restart_same_port()?;
    let restarted = Instant::now();
    wait_until(Duration::from_secs(2), "the shard to serve again", || {
        Ok((client.words(&format!("GET {}", keys[1]))? == b"$-1\r\n").then_some(()))
    })?;
    println!("served again {:?} after its restart", restarted.elapsed());
    let seen: Vec<_> = traffic
        .into_iter()
        .map(Traffic::stop)
        .collect::<Result<_>>()?;
    for shard in [0, 2] {
        assert!(
            seen[shard].errors.is_empty(),
            "shard {shard}: {:?}",
            seen[shard].errors.first()
        );
        assert_eq!(seen[shard].lost, 0, "shard {shard}");
        assert!(
            seen[shard].good > 500,
            "shard {shard}: {}",
            seen[shard].good
        );
    }
    assert!(!seen[1].errors.is_empty());
    let late = seen[1].errors.iter().filter(|(at, took, _)| {
        *at > killed + Duration::from_millis(50) && *took > Duration::from_millis(200)
    });
    assert_eq!(late.count(), 0, "a dead shard's keys must fail at once");
    Ok(())
}

#[test]
fn a_split_command_names_the_shard_that_failed() -> Result<()> {
    let _alone = alone();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3, "k")).collect();
    let mut client = gateway.client()?;
    client.words(&format!("MSET {} 1 {} 1 {} 1", keys[0], keys[1], keys[2]))?;
    servers[2].kill9();
    std::thread::sleep(Duration::from_millis(300));
    for request in ["MGET", "EXISTS", "TOUCH", "DEL"] {
        let reply = client.words(&format!("{request} {} {} {}", keys[0], keys[1], keys[2]))?;
        let text = String::from_utf8_lossy(&reply).into_owned();
        assert!(
            text.starts_with('-') && text.contains("r2"),
            "{request}: {text}"
        );
    }
    let reply = client.words(&format!("MSET {} 2 {} 2", keys[0], keys[2]))?;
    let text = String::from_utf8_lossy(&reply).into_owned();
    assert!(
        text.starts_with('-') && text.contains("r2") && text.contains("applied"),
        "{text}"
    );
    assert_eq!(
        client.words(&format!("MGET {} {}", keys[0], keys[1]))?,
        b"*2\r\n$1\r\n2\r\n$-1\r\n"
    );
    Ok(())
}

#[test]
fn a_counter_survives_kills_of_a_server_that_syncs() -> Result<()> {
    let _alone = alone();
    let options = RedisOptions {
        append_only: true,
        ..RedisOptions::default()
    };
    let mut servers = vec![Redis::start(options.clone())?, Redis::start(options)?];
    let gateway = Gateway::over(&servers)?;
    let counter = key_on(1, 2, "counter");
    let traffic: Vec<Traffic> = (0..4)
        .map(|_| {
            let request = format!("INCR {counter}");
            Traffic::start(&gateway.address(), Duration::ZERO, move |_| {
                (request.clone(), None)
            })
        })
        .collect();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        servers[1].kill9();
        std::thread::sleep(Duration::from_millis(200));
        servers[1].restart_same_port()?;
    }
    std::thread::sleep(Duration::from_millis(1_500));
    let seen: Vec<_> = traffic
        .into_iter()
        .map(Traffic::stop)
        .collect::<Result<_>>()?;
    let acknowledged: u64 = seen.iter().map(|seen| seen.good).sum();
    let unknown = seen.iter().flat_map(|seen| &seen.errors);
    let unknown = unknown
        .filter(|(_, _, text)| text.contains("unknown"))
        .count() as u64
        + seen.iter().map(|seen| seen.lost).sum::<u64>();
    let reply = servers[1].client()?.reply(&format!("GET {counter}"))?;
    let value: u64 = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).parse()?;
    println!("{acknowledged} acknowledged, {unknown} unknown, counted {value}");
    assert!(acknowledged > 100, "{acknowledged}");
    assert!(
        value >= acknowledged,
        "{value} counted, {acknowledged} acknowledged"
    );
    assert!(
        value <= acknowledged + unknown,
        "{value} counted, {acknowledged} + {unknown} sent"
    );
    Ok(())
}
