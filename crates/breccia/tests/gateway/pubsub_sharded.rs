//! Sharded channels, and questions about who is subscribed.
//!
//! Invariant: a sharded channel is subscribed on its own shard and on no other, and PUBSUB counts
//! this gateway's clients, whichever worker serves them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use breccia_testkit::{Redis, RedisOptions, Reply, RespClient, wait_until};

use crate::common::{Config, Gateway, key_on};

fn text(reply: &[u8]) -> String {
    reply.escape_ascii().to_string()
}

fn names(reply: &[u8]) -> Result<BTreeSet<Vec<u8>>> {
    let reply = Reply::parse(reply)?;
    let names = reply.elements().iter().filter_map(|element| match element {
        Reply::Bulk(name) => Some(name.clone()),
        _ => None,
    });
    Ok(names.collect())
}

#[test]
fn a_sharded_channel_lives_on_its_own_shard() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    for shard in 0..3_u64 {
        let channel = key_on(shard, 3, "c");
        let mut subscriber = gateway.client()?;
        subscriber.words(&format!("SSUBSCRIBE {channel}"))?;
        for (number, redis) in servers.iter().enumerate() {
            let home = number as u64 == shard;
            let reply = redis
                .client()?
                .words(&format!("SPUBLISH {channel} direct"))?;
            assert_eq!(reply, if home { b":1\r\n" } else { b":0\r\n" });
        }
        assert!(text(&subscriber.read_reply()?).contains("direct"));
        let reply = gateway.client()?.words(&format!("SPUBLISH {channel} m"))?;
        assert_eq!(reply, b":1\r\n");
        let message = text(&subscriber.read_reply()?);
        assert!(
            message.contains("smessage") && message.contains("\\r\\nm\\r\\n"),
            "{message}"
        );
    }
    Ok(())
}

#[test]
fn sharded_messages_are_pushes_in_resp3() -> Result<()> {
    for shards in [1, 3] {
        let servers = Redis::many(shards)?;
        let gateway = Gateway::over(&servers)?;
        let mut client = gateway.client()?;
        client.words("HELLO 3")?;
        assert_eq!(
            client.words("SSUBSCRIBE c")?,
            b">3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n"
        );
        assert_eq!(client.words("SET k v")?, b"+OK\r\n");
        let mut publisher = gateway.client()?;
        publisher.words("SPUBLISH c m")?;
        assert_eq!(
            client.read_reply()?,
            b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
        );
        // Who goes back to RESP2 is sent arrays from then on, as by Redis.
        client.words("HELLO 2")?;
        publisher.words("SPUBLISH c m")?;
        assert_eq!(
            client.read_reply()?,
            b"*3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
        );
    }
    Ok(())
}

#[test]
fn a_lost_shard_disconnects_only_those_who_listen_to_it() -> Result<()> {
    let mut servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let (lost, kept) = (key_on(0, 2, "c"), key_on(1, 2, "c"));
    let mut leaves = gateway.client()?;
    leaves.words(&format!("SSUBSCRIBE {lost}"))?;
    let mut stays = gateway.client()?;
    stays.words(&format!("SSUBSCRIBE {kept}"))?;
    servers[0].kill9();
    leaves.set_patience(Duration::from_secs(3))?;
    assert!(
        leaves.closed(),
        "a subscriber that may have missed something stays"
    );
    gateway.client()?.words(&format!("SPUBLISH {kept} m"))?;
    assert!(text(&stays.read_reply()?).contains("smessage"));
    let refused = wait_until(
        Duration::from_secs(5),
        "the shard to be known as down",
        || {
            let mut late = gateway.client()?;
            late.set_patience(Duration::from_millis(500))?;
            let reply = late.words(&format!("SSUBSCRIBE {lost}"));
            Ok(reply.ok().filter(|reply| reply.starts_with(b"-")))
        },
    )?;
    assert!(
        refused.starts_with(b"-SHARDDOWN the shard of"),
        "{}",
        text(&refused)
    );
    let (_, metrics) = gateway.breccia.admin("/metrics")?;
    assert!(metrics.contains("breccia_subscription_losses_total{store=\"all\"} 1"));
    Ok(())
}

#[test]
fn questions_are_answered_for_all_workers() -> Result<()> {
    for shards in [1, 3] {
        let servers = Redis::many(shards)?;
        let gateway = Config::new("redis")?.over(&servers).start()?;
        let mut subscribers: Vec<RespClient> = Vec::new();
        for number in 0..4 {
            let mut client = gateway.client()?;
            client.words("SUBSCRIBE all")?;
            client.words(&format!("SUBSCRIBE own:{number}"))?;
            client.words(&format!("PSUBSCRIBE p:{}*", number % 2))?;
            client.words("SSUBSCRIBE shard")?;
            subscribers.push(client);
        }
        for _ in 0..4 {
            let mut asks = gateway.client()?;
            let counts = asks.words("PUBSUB NUMSUB all own:1 none")?;
            assert_eq!(
                text(&counts),
                text(b"*6\r\n$3\r\nall\r\n:4\r\n$5\r\nown:1\r\n:1\r\n$4\r\nnone\r\n:0\r\n")
            );
            assert_eq!(asks.words("PUBSUB NUMPAT")?, b":2\r\n");
            assert_eq!(
                asks.words("PUBSUB SHARDNUMSUB shard")?,
                b"*2\r\n$5\r\nshard\r\n:4\r\n"
            );
            let all = names(&asks.words("PUBSUB CHANNELS")?)?;
            assert_eq!(all.len(), 5);
            assert_eq!(names(&asks.words("PUBSUB CHANNELS own:[01]")?)?.len(), 2);
            assert_eq!(names(&asks.words("PUBSUB SHARDCHANNELS")?)?.len(), 1);
            assert!(asks.words("MULTI")?.starts_with(b"+OK"));
            assert!(text(&asks.words("PUBSUB NUMPAT")?).starts_with("-ERR breccia:"));
        }
        subscribers.clear();
        let mut asks = gateway.client()?;
        wait_until(Duration::from_secs(5), "the subscribers to be gone", || {
            let left = asks.words("PUBSUB CHANNELS")?;
            Ok((left == b"*0\r\n").then_some(()))
        })?;
        assert_eq!(asks.words("PUBSUB NUMPAT")?, b":0\r\n");
    }
    Ok(())
}

#[test]
fn a_server_without_sharded_channels_keeps_its_other_subscribers() -> Result<()> {
    let renamed = ["SSUBSCRIBE", "SUNSUBSCRIBE"].map(|name| ["--rename-command", name, ""]);
    let old = Redis::start(RedisOptions {
        arguments: renamed.concat().into_iter().map(str::to_owned).collect(),
        ..RedisOptions::default()
    })?;
    let gateway = Gateway::over(std::slice::from_ref(&old))?;
    let mut subscriber = gateway.client()?;
    subscriber.words("SUBSCRIBE c")?;
    for _ in 0..3 {
        let mut wants = gateway.client()?;
        let refused = text(&wants.words("SSUBSCRIBE c")?);
        assert!(refused.starts_with("-ERR unknown command"), "{refused}");
        assert!(wants.closed());
    }
    let mut asks = gateway.client()?;
    assert_eq!(asks.words("PUBSUB SHARDCHANNELS")?, b"*0\r\n");
    asks.words("PUBLISH c m")?;
    assert!(text(&subscriber.read_reply()?).contains("message"));
    Ok(())
}
