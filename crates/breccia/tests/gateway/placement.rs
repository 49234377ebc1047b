//! Where keys lie, and what a gateway refuses to start over.
//!
//! The plain rule is `xxh3_64(key) mod n` in the order of the configuration. Invariant: where a key
//! lies is read from the servers themselves, never from Breccia.

use std::time::Duration;

use anyhow::{Context, Result};
use breccia_core::HashKind;
use breccia_testkit::{Breccia, Redis, Reply, RespClient, free_port, resp};

use crate::common::{Config, Gateway};

/// Text keys and binary ones.
fn keys(count: u32) -> Vec<Vec<u8>> {
    let binary = |number: u32| {
        let mut key = number.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec();
        key.extend_from_slice(b"\x00\r\n\xff");
        key.extend_from_slice(&number.to_le_bytes());
        key
    };
    let key = |number| match number % 3 {
        0 => format!("user:{number}:name").into_bytes(),
        1 => binary(number),
        _ => format!("{{tag}}{number}").into_bytes(),
    };
    (0..count).map(key).collect()
}

/// Writes every key with itself as its value, in pipelines.
fn write(client: &mut RespClient, keys: &[Vec<u8>]) -> Result<()> {
    for batch in keys.chunks(500) {
        let requests: Vec<Vec<u8>> = batch
            .iter()
            .map(|key| resp::encode(&[b"SET", key, key]))
            .collect();
        client.send(&requests.concat())?;
        for _ in batch {
            assert_eq!(client.read_reply()?, b"+OK\r\n");
        }
    }
    Ok(())
}

/// How many of the keys answer with themselves.
fn found(client: &mut RespClient, keys: &[Vec<u8>]) -> Result<usize> {
    let mut found = 0;
    for batch in keys.chunks(500) {
        let requests: Vec<Vec<u8>> = batch
            .iter()
            .map(|key| resp::encode(&[b"GET", key]))
            .collect();
        client.send(&requests.concat())?;
        for key in batch {
            let reply = Reply::parse(&client.read_reply()?)?;
            found += usize::from(reply.bytes() == Some(key));
        }
    }
    Ok(found)
}

/// The keys that lie on one server.
fn lying_on(redis: &Redis) -> Result<Vec<Vec<u8>>> {
    let reply = redis.client()?.reply("KEYS *")?;
    Ok(reply
        .elements()
        .iter()
        .filter_map(Reply::bytes)
        .map(<[u8]>::to_vec)
        .collect())
}

fn plain_rule(key: &[u8], count: usize) -> usize {
    usize::try_from(HashKind::Xxh3_64.hash(key) % count as u64).unwrap_or_default()
}

#[test]
fn keys_lie_where_the_plain_rule_puts_them() -> Result<()> {
    for count in [2, 3, 5] {
        let servers = Redis::many(count)?;
        let mut gateway = Gateway::over(&servers)?;
        let keys = keys(10_000);
        write(&mut gateway.client()?, &keys)?;
        let mut seen = 0;
        for (index, redis) in servers.iter().enumerate() {
            for key in lying_on(redis)? {
                assert_eq!(
                    plain_rule(&key, count),
                    index,
                    "{} of {count}",
                    key.escape_ascii()
                );
                seen += 1;
            }
        }
        assert_eq!(seen, keys.len());

        let mut reversed = gateway.config.clone();
        reversed.members.reverse();
        gateway.breccia.restart(&reversed.text())?;
        assert_eq!(
            found(&mut gateway.client()?, &keys)?,
            keys.len(),
            "after another order"
        );
    }
    Ok(())
}

#[test]
fn data_written_straight_to_the_shards_is_found() -> Result<()> {
    let servers = Redis::many(3)?;
    let keys = keys(3_000);
    for (index, redis) in servers.iter().enumerate() {
        let own: Vec<Vec<u8>> = keys
            .iter()
            .filter(|key| plain_rule(key, 3) == index)
            .cloned()
            .collect();
        write(&mut redis.client()?, &own)?;
    }
    let gateway = Gateway::over(&servers)?;
    assert_eq!(found(&mut gateway.client()?, &keys)?, keys.len());
    Ok(())
}

/// Two composites of two shards each, within one.
fn nested(servers: &[Redis], port: u16) -> String {
    let member = |index: usize| {
        let url = servers.get(index).map(Redis::url).unwrap_or_default();
        format!("[store.r{index}]\ntype = \"redis\"\nurl = \"{url}\"\n")
    };
    let members: String = (0..4).map(member).collect();
    format!(
        "workers = 1\n{members}\
         [store.left]\ntype = \"sharded-in-memory\"\nstores = [\"r0\", \"r1\"]\n\
         [store.right]\ntype = \"sharded-in-memory\"\nstores = [\"r2\", \"r3\"]\n\
         [store.all]\ntype = \"sharded-in-memory\"\nstores = [\"left\", \"right\"]\n\
         [listener.main]\nprotocol = \"redis\"\nstore = \"all\"\nbind = \"127.0.0.1:{port}\"\n"
    )
}

#[test]
fn inner_composites_fill_evenly() -> Result<()> {
    let (servers, port) = (Redis::many(4)?, free_port()?);
    let _breccia = Breccia::start(&nested(&servers, port))?;
    let keys = keys(8_000);
    write(
        &mut RespClient::connect(&format!("127.0.0.1:{port}"))?,
        &keys,
    )?;
    for (index, redis) in servers.iter().enumerate() {
        let count = lying_on(redis)?.len();
        assert!(
            (1_800..2_200).contains(&count),
            "shard {index} holds {count} of 8000"
        );
        for key in lying_on(redis)? {
            assert_eq!(
                plain_rule(&key, 2),
                index / 2,
                "the outer composite keeps the plain rule"
            );
        }
    }
    Ok(())
}

/// Starts, stops, and starts again with a changed configuration that must be refused.
fn check_refused(
    what: &str,
    wanted: &[&str],
    change: impl Fn(Config, &[Redis]) -> String,
) -> Result<()> {
    let servers = Redis::many(4)?;
    let three = servers.get(..3).context("three servers")?;
    let mut gateway = Gateway::over(three)?;
    let text = change(gateway.config.clone(), &servers);
    let (status, output) = gateway.breccia.restart_refused(&text)?;
    assert_eq!(status.code(), Some(2), "{what}: {output}");
    for word in wanted {
        assert!(
            output.contains(word),
            "{what}: {word:?} is missing in:\n{output}"
        );
    }
    Ok(())
}

#[test]
fn a_removed_shard_is_refused() -> Result<()> {
    check_refused(
        "removed",
        &["all", "r2", "breccia layout"],
        |mut config, _| {
            config.members.pop();
            config.text()
        },
    )
}

#[test]
fn an_added_shard_is_refused() -> Result<()> {
    check_refused(
        "added",
        &["all", "r3", "breccia layout"],
        |config, servers| config.redis("r3", &servers[3].address(), "").text(),
    )
}

#[test]
fn a_renamed_shard_is_refused() -> Result<()> {
    check_refused(
        "renamed",
        &["r2", "r9", "breccia layout rename-shard"],
        |config, _| {
            config
                .text()
                .replace("store.r2", "store.r9")
                .replace("\"r2\"", "\"r9\"")
        },
    )
}

#[test]
fn a_renamed_composite_is_refused() -> Result<()> {
    check_refused(
        "renamed",
        &["all", "other", "breccia layout rename"],
        |config, _| {
            config
                .text()
                .replace("[store.all]", "[store.other]")
                .replace("\"all\"", "\"other\"")
        },
    )
}

#[test]
fn another_hash_is_refused() -> Result<()> {
    check_refused(
        "hash",
        &["xxh3-64", "fnv1a-64", "breccia layout"],
        |config, _| config.composite("hash = \"fnv1a-64\"").text(),
    )
}

#[test]
fn a_hash_tag_switched_on_is_refused() -> Result<()> {
    check_refused(
        "hash-tag",
        &["hash-tag", "{}", "breccia layout"],
        |config, _| config.composite("hash-tag = \"{}\"").text(),
    )
}

#[test]
fn swapped_addresses_are_refused() -> Result<()> {
    check_refused(
        "swapped",
        &["r0", "r1", "breccia layout accept-address"],
        |config, servers| {
            let (one, other) = (servers[0].address(), servers[1].address());
            let text = config.text();
            text.replace(&one, "ONE")
                .replace(&other, &one)
                .replace("ONE", &other)
        },
    )
}

#[test]
fn a_composite_moved_into_another_is_refused() -> Result<()> {
    check_refused("moved", &["all", "breccia layout"], |config, servers| {
        let url = servers[3].url();
        let outer = format!(
            "[store.r3]\ntype = \"redis\"\nurl = \"{url}\"\n\
             [store.outer]\ntype = \"sharded-in-memory\"\nstores = [\"all\", \"r3\"]\n\
             [listener.main]"
        );
        let text = config.text().replace("[listener.main]", &outer);
        text.replace("store = \"all\"", "store = \"outer\"")
    })
}

#[test]
fn a_second_process_on_one_state_folder_is_refused() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut second = gateway.config.clone();
    second.port = free_port()?;
    let state = gateway.breccia.state_folder();
    let text = format!("{}\n[state]\ndir = '{}'\n", second.text(), state.display());
    let (status, output) = Breccia::refused(&text)?;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains(&*state.to_string_lossy()), "{output}");
    Ok(())
}

#[test]
fn a_second_gateway_with_another_layout_is_refused_by_the_digest() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let (_, status) = gateway.breccia.admin("/status")?;
    let after = status
        .split("\"digest\"")
        .nth(1)
        .context("a digest in /status")?;
    let digest = after
        .split('"')
        .nth(1)
        .context("a digest's text")?
        .to_owned();
    assert_eq!(digest.len(), 16, "{status}");

    let mut same = gateway
        .config
        .clone()
        .composite(&format!("layout-digest = \"{digest}\""));
    same.port = free_port()?;
    let mut breccia = Breccia::start(&same.text())?;
    breccia.terminate(Duration::from_secs(10))?;

    let mut reversed = same;
    reversed.members.reverse();
    let (exit, output) = Breccia::refused(&reversed.text())?;
    assert_eq!(exit.code(), Some(2), "{output}");
    assert!(
        output.contains(&digest) && output.contains("layout-digest"),
        "{output}"
    );
    Ok(())
}
