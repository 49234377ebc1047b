//! SLOWLOG and LATENCY: what came late from a shard.
//!
//! Invariant: an entry names the command, the shard and the client, and never an argument.

use std::time::Duration;

use anyhow::{Context, Result};
use breccia_testkit::{Redis, Reply, RespClient, wait_until};

use crate::common::{Config, Gateway, key_on};

/// Keeps a server busy while a client asks it something.
fn ask_while_busy(redis: &Redis, client: &mut RespClient, request: &str) -> Result<Vec<u8>> {
    let mut direct = redis.client()?;
    direct.send(b"DEBUG SLEEP 0.1\r\n")?;
    // The server has begun to sleep once it has taken the request.
    std::thread::sleep(Duration::from_millis(20));
    let reply = client.words(request)?;
    direct.read_reply()?;
    Ok(reply)
}

/// A gateway that sends requests to a busy server too.
fn patient(servers: &[Redis]) -> Result<Gateway> {
    let servers = servers.iter().enumerate();
    let config = servers.fold(Config::new("redis")?, |config, (number, redis)| {
        let name = format!("r{number}");
        config.redis(&name, &redis.address(), "stall-gate = \"5s\"")
    });
    config.start()
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned()
}

#[test]
fn late_replies_are_listed_with_their_shard() -> Result<()> {
    for (shards, version) in [(1, 2), (3, 3)] {
        let servers = Redis::many(shards)?;
        let gateway = patient(&servers)?;
        let mut client = gateway.client()?;
        client.words(&format!("HELLO {version}"))?;
        client.words("CLIENT SETNAME slow")?;
        let key = key_on(0, shards as u64, "secret");
        client.words(&format!("SET {key} v"))?;
        client.words("SLOWLOG RESET")?;
        client.words("LATENCY RESET")?;
        assert_eq!(
            ask_while_busy(&servers[0], &mut client, &format!("GET {key}"))?,
            b"$1\r\nv\r\n"
        );
        let mut asks = gateway.client()?;
        assert!(asks.reply("SLOWLOG LEN")?.integer() >= Some(1));
        let entries = asks.reply("SLOWLOG GET -1")?;
        let found = entries.elements().iter().find(|entry| {
            let words = entry
                .elements()
                .get(3)
                .map(Reply::elements)
                .unwrap_or_default();
            words.first().map(text).as_deref() == Some("GET")
        });
        let entry = found.context("no entry of GET")?.elements().to_vec();
        assert_eq!(entry.len(), 6);
        assert!(entry[2].integer() >= Some(50_000) && entry[2].integer() < Some(5_000_000));
        let shard = text(&entry[3].elements()[1]);
        assert!(
            shard.contains("all/r0") && !shard.contains("secret"),
            "{shard}"
        );
        assert!(text(&entry[4]).starts_with("127.0.0.1:"));
        assert_eq!(text(&entry[5]), "slow");
        let latest = asks.reply("LATENCY LATEST")?;
        let event = latest.elements()[0].elements().to_vec();
        assert_eq!(text(&event[0]), "command");
        assert!(event[3].integer() >= Some(50));
        let history = asks.reply("LATENCY HISTORY command")?;
        assert!(!history.elements().is_empty());
        assert_eq!(asks.words("LATENCY RESET command")?, b":1\r\n");
        assert_eq!(asks.words("SLOWLOG RESET")?, b"+OK\r\n");
        assert_eq!(asks.words("SLOWLOG LEN")?, b":0\r\n");
    }
    Ok(())
}

#[test]
fn parts_are_listed_and_waiting_is_not_slow() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = patient(&servers)?;
    let mut client = gateway.client()?;
    client.words("DBSIZE")?;
    client.words("SLOWLOG RESET")?;
    ask_while_busy(&servers[1], &mut client, "DBSIZE")?;
    let shown = |client: &mut RespClient| -> Result<String> {
        Ok(String::from_utf8_lossy(&client.words("SLOWLOG GET -1")?).into_owned())
    };
    assert!(shown(&mut client)?.contains("all/r1"));
    let mut waits = gateway.client()?;
    waits.send(b"BLPOP nothing 0\r\n")?;
    std::thread::sleep(Duration::from_millis(100));
    client.words("RPUSH nothing x")?;
    waits.read_reply()?;
    assert!(!shown(&mut client)?.contains("BLPOP"));
    Ok(())
}

#[test]
fn what_is_not_measured_is_refused() -> Result<()> {
    let gateway = Config::new("redis")?.memory("a").memory("b").start()?;
    let mut client = gateway.client()?;
    for request in [
        "SLOWLOG GET",
        "LATENCY LATEST",
        "SLOWLOG HELP",
        "CLIENT HELP",
        "CONFIG HELP",
    ] {
        let reply = wait_until(Duration::from_secs(2), "a reply", || {
            client.words(request).map(Some)
        })?;
        assert!(reply.starts_with(b"-ERR breccia: '"), "{request}");
    }
    Ok(())
}
