//! CLIENT UNBLOCK: a client that waits is let go by the shard on which it waits.
//!
//! Not about other subcommands of CLIENT. Invariant: an element that was taken for a client that was let
//! go reaches it, or stays where it was.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Redis, RedisOptions, Reply, RespClient, resp, wait_until};

use crate::common::{Config, Gateway, key_on};
use crate::twins::{Twins, difference, none};

/// What can wait, on a key of a shard that stands for `@`; it has nothing to give.
const WAITS: [&str; 11] = [
    "BLPOP @ 0",
    "BRPOP @ 0",
    "BLMOVE @ @ LEFT RIGHT 0",
    "BRPOPLPUSH @ @ 0",
    "BLMPOP 0 1 @ LEFT",
    "BZPOPMIN @ 0",
    "BZPOPMAX @ 0",
    "BZMPOP 0 1 @ MIN",
    "XREAD BLOCK 0 STREAMS @ $",
    "XREADGROUP GROUP g c BLOCK 0 STREAMS @ >",
    "BLPOP @ 60",
];

fn send(client: &mut RespClient, request: &str) -> Result<()> {
    let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    client.send(&resp::encode(&words))
}

fn id(client: &mut RespClient) -> Result<i64> {
    client.reply("CLIENT ID")?.integer().context("a number")
}

/// Waits until the server, or the gateway, shows the client as one that waits.
fn until_blocked(asks: &mut RespClient, id: i64) -> Result<()> {
    wait_until(Duration::from_secs(10), "a client to wait", || {
        let reply = asks.words(&format!("CLIENT LIST ID {id}"))?;
        let text = String::from_utf8_lossy(&reply);
        Ok(text.contains(" flags=b").then_some(()))
    })
}

/// One wait and its end, on one side: what the two clients were told.
fn history(
    [waits, asks]: [&mut RespClient; 2],
    request: &str,
    reason: &str,
) -> Result<Vec<Vec<u8>>> {
    let id = id(waits)?;
    let order = format!("CLIENT UNBLOCK {id}{reason}");
    let mut replies = vec![asks.words(&order)?];
    send(waits, request)?;
    until_blocked(asks, id)?;
    replies.push(asks.words(&order)?);
    replies.push(waits.read_reply()?);
    replies.push(asks.words(&order)?);
    replies.push(waits.words("PING")?);
    Ok(replies)
}

fn check(shards: usize, version: u8) -> Result<()> {
    let twins = Twins::over(shards)?;
    let (mut waits, mut asks) = (twins.clients(version)?, twins.clients(version)?);
    let mut differences = Vec::new();
    for (number, wait) in WAITS.iter().enumerate() {
        for reason in ["", " TIMEOUT", " ERROR", " error"] {
            let key = key_on((number % shards) as u64, shards as u64, reason.trim());
            let request = wait.replace('@', &key);
            let mut both = Vec::new();
            for (waits, asks) in waits.iter_mut().zip(&mut asks) {
                asks.words(&format!("DEL {key}"))?;
                if wait.starts_with("XREADGROUP") {
                    asks.words(&format!("XGROUP CREATE {key} g $ MKSTREAM"))?;
                }
                let replies = history([waits, asks], &request, reason);
                both.push(replies.with_context(|| format!("{request}{reason}"))?);
            }
            if let [wanted, found] = both.as_slice()
                && wanted != found
            {
                let what = format!("{request}, then CLIENT UNBLOCK{reason}");
                differences.push(difference(&what, &wanted.concat(), &found.concat()));
            }
        }
    }
    none(&format!("{shards} shards, RESP{version}"), &differences);
    Ok(())
}

#[test]
fn who_waits_is_unblocked_as_by_redis_over_one_shard() -> Result<()> {
    check(1, 2)?;
    check(1, 3)
}

#[test]
fn who_waits_is_unblocked_as_by_redis_over_three_shards() -> Result<()> {
    check(3, 2)?;
    check(3, 3)
}

#[test]
fn who_waits_and_watches_is_unblocked() -> Result<()> {
    let twins = Twins::over(3)?;
    let (mut waits, mut asks) = (twins.clients(2)?, twins.clients(2)?);
    for (waits, asks) in waits.iter_mut().zip(&mut asks) {
        waits.words("WATCH k")?;
        let replies = history([&mut *waits, asks], "BLPOP k 0", " ERROR")?;
        let text = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
        assert_eq!(replies[2], text);
        waits.words("MULTI")?;
        waits.words("SET k v")?;
        assert_eq!(waits.words("EXEC")?, b"*1\r\n+OK\r\n");
    }
    Ok(())
}

#[test]
fn what_was_taken_for_a_client_that_is_unblocked_is_not_lost() -> Result<()> {
    let twins = Twins::over(3)?;
    let gateway = &twins.gateway;
    let (mut waits, mut asks, mut gives) =
        (gateway.client()?, gateway.client()?, gateway.client()?);
    let id = id(&mut waits)?;
    let (mut received, mut let_go) = (0, 0);
    for round in 0..300 {
        send(&mut waits, "BLPOP queue 0")?;
        until_blocked(&mut asks, id)?;
        // Both at once, from connections of their own.
        send(&mut gives, &format!("RPUSH queue {round}"))?;
        send(&mut asks, &format!("CLIENT UNBLOCK {id}"))?;
        let unblocked = asks.read_reply()? == b":1\r\n";
        gives.read_reply()?;
        let reply = Reply::parse(&waits.read_reply()?)?;
        if let [_, element] = reply.elements() {
            received += 1;
            ensure!(!unblocked, "round {round}: an element and let go");
            assert_eq!(element.bytes(), Some(round.to_string().as_bytes()));
        } else {
            let_go += 1;
            ensure!(unblocked, "round {round}: nothing and not let go");
            let left = gives.reply("LPOP queue")?;
            assert_eq!(left.bytes(), Some(round.to_string().as_bytes()));
        }
        assert_eq!(gives.words("LLEN queue")?, b":0\r\n");
    }
    println!("{received} received, {let_go} let go");
    Ok(())
}

#[test]
fn a_login_that_may_not_know_its_number_is_told_so() -> Result<()> {
    let server = Redis::start(RedisOptions::default())?;
    let mut admin = server.client()?;
    admin.words("ACL SETUSER gate on >pass-word ~* &* +@all -client|id")?;
    let login = "user = \"gate\"\npassword = \"pass-word\"";
    let config = Config::new("redis")?.redis("r0", &server.address(), login);
    let gateway: Gateway = config.start()?;
    let (mut waits, mut asks) = (gateway.client()?, gateway.client()?);
    let id = id(&mut waits)?;
    send(&mut waits, "BLPOP queue 0")?;
    until_blocked(&mut asks, id)?;
    let refused = asks.words(&format!("CLIENT UNBLOCK {id}"))?;
    assert!(
        refused.starts_with(b"-ERR breccia: 'CLIENT UNBLOCK'"),
        "{}",
        refused.escape_ascii()
    );
    asks.words("RPUSH queue x")?;
    assert_eq!(Reply::parse(&waits.read_reply()?)?.elements().len(), 2);
    Ok(())
}
