//! A shard that is frozen with SIGSTOP: its socket takes bytes, nothing answers.
//!
//! Late is worse than never: what was answered with an error must not run after the thaw.

use std::time::{Duration, Instant};

use anyhow::Result;
use breccia_testkit::{Redis, RespClient, wait_until};

use crate::alone;
use crate::common::{Gateway, key_on};
use crate::traffic::Traffic;

const PAUSE: Duration = Duration::from_millis(1);

#[test]
fn live_shards_keep_their_pace_and_the_frozen_one_fails_in_time() -> Result<()> {
    let _alone = alone();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3, "k")).collect();
    let get = |key: &str| {
        let request = format!("GET {key}");
        Traffic::start(&gateway.address(), PAUSE, move |_| {
            (request.clone(), Some(b"$-1\r\n".to_vec()))
        })
    };
    let calm = get(&keys[0]);
    std::thread::sleep(Duration::from_millis(1_500));
    let calm = calm.stop()?.permille(990);

    let (live, frozen) = ([get(&keys[0]), get(&keys[1])], get(&keys[2]));
    std::thread::sleep(Duration::from_millis(200));
    servers[2].sigstop()?;
    let stalled = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    servers[2].sigcont()?;
    let thawed = Instant::now();
    let mut client = gateway.client()?;
    wait_until(Duration::from_secs(3), "the thawed shard to serve", || {
        Ok((client.words(&format!("GET {}", keys[2]))? == b"$-1\r\n").then_some(()))
    })?;
    println!("serves {:?} after the thaw", thawed.elapsed());
    for live in live {
        let live = live.stop()?;
        let p99 = live.permille(990);
        println!("p99 of a live shard: {calm:?} before, {p99:?} during");
        assert!(
            live.errors.is_empty() && live.lost == 0,
            "{:?}",
            live.errors.first()
        );
        assert!(
            p99 < calm * 3 + Duration::from_millis(10),
            "{p99:?} against {calm:?}"
        );
    }
    let frozen = frozen.stop()?;
    assert!(!frozen.errors.is_empty());
    for (at, took, text) in &frozen.errors {
        // `deadline` is 1 s, `timeout` of what was sent before the stall 5 s.
        assert!(
            *took < Duration::from_millis(1_400) || text.contains("unknown"),
            "{took:?}: {text}"
        );
        let seen = *at > stalled + Duration::from_millis(2_600) && *at < thawed;
        assert!(
            !seen || *took < Duration::from_millis(100),
            "after the probe: {took:?} {text}"
        );
    }
    Ok(())
}

#[test]
fn nothing_answered_with_an_error_runs_after_the_thaw() -> Result<()> {
    let _alone = alone();
    let mut servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let keys: Vec<String> = (0..600)
        .map(|number| key_on(1, 2, &format!("n{number}-")))
        .collect();
    gateway
        .client()?
        .words(&format!("SET {} 0", key_on(1, 2, "warm")))?;
    servers[1].sigstop()?;
    std::thread::sleep(Duration::from_millis(100));
    // Traffic that makes the stall known to the gate, then what must not run.
    let mut refused = Vec::new();
    for batch in keys.chunks(100) {
        let mut clients: Vec<RespClient> =
            (0..4).map(|_| gateway.client()).collect::<Result<_>>()?;
        for (number, key) in batch.iter().enumerate() {
            clients[number % 4].send(format!("INCR {key}\r\n").as_bytes())?;
        }
        for (number, key) in batch.iter().enumerate() {
            let reply = clients[number % 4].read_reply()?;
            assert!(reply.starts_with(b"-"), "{}", reply.escape_ascii());
            refused.push((
                key.clone(),
                String::from_utf8_lossy(&reply).trim_end().to_owned(),
            ));
        }
        if refused.len() >= 300 {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    servers[1].sigcont()?;
    std::thread::sleep(Duration::from_millis(500));
    let mut direct = servers[1].client()?;
    let mut executed = Vec::new();
    for (key, error) in &refused {
        if direct.words(&format!("EXISTS {key}"))? == b":1\r\n" {
            executed.push(format!("{key}: {error}"));
        }
    }
    let said_so = executed
        .iter()
        .filter(|line| line.contains("unknown"))
        .count();
    println!(
        "{} refused, {} of them ran ({said_so} were called unknown)",
        refused.len(),
        executed.len()
    );
    assert_eq!(
        executed.len(),
        said_so,
        "ran though called not applied: {executed:?}"
    );
    assert!(executed.is_empty(), "ran after the thaw: {executed:?}");
    Ok(())
}

#[test]
fn with_traffic_running_nothing_late_is_executed() -> Result<()> {
    let _alone = alone();
    let mut servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let traffic: Vec<Traffic> = (0..6)
        .map(|client| {
            Traffic::start(&gateway.address(), Duration::ZERO, move |number| {
                (
                    format!("SET c{client}:{number} 1"),
                    Some(b"+OK\r\n".to_vec()),
                )
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let before: Vec<Instant> = vec![Instant::now()];
    servers[1].sigstop()?;
    let stalled = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    servers[1].sigcont()?;
    std::thread::sleep(Duration::from_millis(1_500));
    let seen: Vec<_> = traffic
        .into_iter()
        .map(Traffic::stop)
        .collect::<Result<_>>()?;
    assert!(before[0] <= stalled);
    let late: u64 = seen
        .iter()
        .flat_map(|seen| &seen.errors)
        .filter(|(at, _, text)| {
            *at > stalled + Duration::from_millis(100) && text.contains("unknown")
        })
        .count() as u64;
    assert_eq!(
        late, 0,
        "requests of 100 ms into the stall must not be sent"
    );
    let stored: u64 = servers
        .iter()
        .map(|redis| {
            Ok(redis
                .client()?
                .reply("DBSIZE")?
                .integer()
                .unwrap_or_default()
                .unsigned_abs())
        })
        .sum::<Result<u64>>()?;
    let acknowledged: u64 = seen.iter().map(|seen| seen.good).sum();
    let unknown = seen.iter().flat_map(|seen| &seen.errors);
    let unknown = unknown
        .filter(|(_, _, text)| text.contains("unknown"))
        .count() as u64;
    println!("{acknowledged} acknowledged, {unknown} unknown, {stored} stored");
    assert!(
        stored >= acknowledged && stored <= acknowledged + unknown,
        "{stored}"
    );
    Ok(())
}

#[test]
fn a_counter_never_exceeds_what_was_sent_through_freezes() -> Result<()> {
    let _alone = alone();
    let mut servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let counter = key_on(0, 2, "counter");
    let traffic: Vec<Traffic> = (0..4)
        .map(|_| {
            let request = format!("INCR {counter}");
            Traffic::start(&gateway.address(), Duration::ZERO, move |_| {
                (request.clone(), None)
            })
        })
        .collect();
    for pause in [100, 700, 1_500] {
        std::thread::sleep(Duration::from_millis(300));
        servers[0].sigstop()?;
        std::thread::sleep(Duration::from_millis(pause));
        servers[0].sigcont()?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let seen: Vec<_> = traffic
        .into_iter()
        .map(Traffic::stop)
        .collect::<Result<_>>()?;
    let acknowledged: u64 = seen.iter().map(|seen| seen.good).sum();
    let unknown = seen.iter().flat_map(|seen| &seen.errors);
    let unknown = unknown
        .filter(|(_, _, text)| text.contains("unknown"))
        .count() as u64;
    let reply = servers[0].client()?.reply(&format!("GET {counter}"))?;
    let value: u64 = String::from_utf8_lossy(reply.bytes().unwrap_or_default()).parse()?;
    println!("{acknowledged} acknowledged, {unknown} unknown, counted {value}");
    assert!(
        value >= acknowledged && value <= acknowledged + unknown,
        "{value}"
    );
    Ok(())
}
