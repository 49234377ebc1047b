//! `marker = true`: each shard says which shard of which layout it is.
//!
//! What a shard's marker leads to is tested where it is decided; here it is the whole way, over
//! servers that are emptied, exchanged and renamed. Invariant: a client never sees a marker, and
//! never reaches a server that was not proven.

use std::time::Duration;

use anyhow::Result;
use breccia_testkit::{Breccia, Redis, RespClient, free_port, wait_until};

use crate::common::{Config, Gateway, key_on};
use crate::keys::{found, keys, write};

const KEY: &str = "breccia:layout:all";

fn marked(servers: &[Redis]) -> Result<Config> {
    Ok(Config::new("redis")?
        .over(servers)
        .composite("marker = true"))
}

/// What a server carries as its marker.
fn carried(redis: &Redis) -> Result<String> {
    Ok(redis
        .client()?
        .words(&format!("GET {KEY}"))?
        .escape_ascii()
        .to_string())
}

fn command(gateway: &Gateway, line: &str) -> Result<(Option<i32>, String)> {
    let config = gateway.breccia.config_path();
    let mut words: Vec<&str> = line.split(' ').collect();
    let config = config.to_string_lossy();
    words.extend(["--config", &*config]);
    let output = Breccia::run(&std::env::temp_dir(), &words)?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((output.status.code(), text))
}

fn expect(output: &str, words: &[&str]) {
    for word in words {
        assert!(output.contains(word), "{word:?} is missing in:\n{output}");
    }
}

/// Every key a SCAN shows.
fn scanned(client: &mut RespClient) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = client.reply(&format!("SCAN {cursor} COUNT 7"))?;
        let [next, list] = reply.elements() else {
            anyhow::bail!("not a reply to SCAN: {reply:?}");
        };
        let text = |reply: &breccia_testkit::Reply| {
            String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned()
        };
        keys.extend(list.elements().iter().map(text));
        cursor = text(next);
        if cursor == "0" {
            keys.sort();
            return Ok(keys);
        }
    }
}

fn shows_no_marker(client: &mut RespClient, expected: &[String]) -> Result<()> {
    let reply = client.reply("KEYS *")?;
    let listed = reply.elements().iter().filter_map(|key| key.bytes());
    let mut listed: Vec<String> = listed
        .map(|key| String::from_utf8_lossy(key).into_owned())
        .collect();
    listed.sort();
    assert_eq!(listed, expected);
    assert_eq!(scanned(client)?, expected);
    let count = format!(":{}\r\n", expected.len()).into_bytes();
    assert_eq!(client.words("DBSIZE")?, count);
    for _ in 0..20 {
        let drawn = client.reply("RANDOMKEY")?;
        let drawn = drawn.bytes().map(String::from_utf8_lossy);
        match drawn {
            None => assert!(expected.is_empty(), "there are keys to draw"),
            Some(key) => assert!(expected.contains(&key.into_owned())),
        }
    }
    Ok(())
}

#[test]
fn markers_are_on_every_shard_and_no_client_sees_them() -> Result<()> {
    for count in [1, 3] {
        let servers = Redis::many(count)?;
        let gateway = marked(&servers)?.start()?;
        for (index, redis) in servers.iter().enumerate() {
            let text = carried(redis)?;
            expect(
                &text,
                &[
                    "breccia marker",
                    "composite = ",
                    &format!("shard \\\"r{index}\\\""),
                ],
            );
        }
        let (mut resp2, mut resp3) = (gateway.client()?, gateway.client()?);
        resp3.words("HELLO 3")?;
        for client in [&mut resp2, &mut resp3] {
            shows_no_marker(client, &[])?;
            client.words("SET one 1")?;
            shows_no_marker(client, &["one".to_owned()])?;
            let mut all: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
            for key in &all {
                client.words(&format!("SET {key} 1"))?;
            }
            all.push("one".to_owned());
            all.sort();
            shows_no_marker(client, &all)?;
            client.expect_ok(&[b"FLUSHALL"])?;
            shows_no_marker(client, &[])?;
        }
    }
    Ok(())
}

#[test]
fn clients_cannot_touch_a_marker() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = marked(&servers)?.start()?;
    let mut client = gateway.client()?;
    let before: Vec<String> = servers.iter().map(carried).collect::<Result<_>>()?;
    for request in [
        "GET KEY",
        "SET KEY x",
        "DEL KEY",
        "DEL a b KEY",
        "MGET a KEY",
        "MSET a 1 KEY 2",
        "RENAME a KEY",
        "COPY KEY a",
        "EXPIRE KEY 1",
        "OBJECT ENCODING KEY",
        "WATCH KEY",
        "EVAL return 1 KEY",
        "BLPOP KEY 1",
        "XREAD STREAMS KEY 0",
        "SORT a STORE KEY",
    ] {
        let words: Vec<String> = request
            .split(' ')
            .map(|word| word.replace("KEY", KEY))
            .collect();
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let reply = client.call(&words)?.escape_ascii().to_string();
        assert!(
            reply.starts_with("-ERR breccia: keys that begin"),
            "{request}: {reply}"
        );
    }
    let replies = client.pipeline(&["MULTI", &format!("DEL {KEY}"), "EXEC"])?;
    assert!(
        replies[2].starts_with(b"-EXECABORT"),
        "{}",
        replies[2].escape_ascii()
    );
    for request in ["FLUSHALL", "KEYS *", "DBSIZE", "RANDOMKEY"] {
        let replies = client.pipeline(&["MULTI", request, "EXEC"])?;
        assert!(replies[2].starts_with(b"-EXECABORT"), "{request}");
    }
    let after: Vec<String> = servers.iter().map(carried).collect::<Result<_>>()?;
    assert_eq!(before, after);
    Ok(())
}

#[test]
fn a_flush_leaves_the_markers_in_place() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = marked(&servers)?.start()?;
    let before: Vec<String> = servers.iter().map(carried).collect::<Result<_>>()?;
    let keys = keys(90);
    for flush in ["FLUSHALL", "FLUSHDB", "flushall ASYNC", "FLUSHDB sync"] {
        write(&mut gateway.client()?, &keys)?;
        assert_eq!(gateway.client()?.words(flush)?, b"+OK\r\n", "{flush}");
        let after: Vec<String> = servers.iter().map(carried).collect::<Result<_>>()?;
        assert_eq!(before, after, "{flush}");
        assert_eq!(gateway.client()?.words("DBSIZE")?, b":0\r\n");
    }
    write(&mut gateway.client()?, &keys)?;
    let wrong = gateway.client()?.words("FLUSHALL NOW")?;
    assert!(wrong.starts_with(b"-"), "{}", wrong.escape_ascii());
    assert_eq!(found(&mut gateway.client()?, &keys)?, keys.len());

    // At the server itself: the gateway sees it and writes the marker again.
    servers[1].client()?.expect_ok(&[b"FLUSHALL"])?;
    wait_until(Duration::from_secs(5), "the marker to be back", || {
        Ok((carried(&servers[1])? == before[1]).then_some(()))
    })?;
    write(&mut gateway.client()?, &keys)?;
    assert!(gateway.breccia.log().contains("the marker was gone"));
    Ok(())
}

#[test]
fn a_lost_state_folder_is_rebuilt_whatever_order_the_config_has() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = marked(&servers)?.start()?;
    let keys = keys(300);
    write(&mut gateway.client()?, &keys)?;
    let (_, document) = command(&gateway, "layout export all")?;
    // A second gateway, with no state and another order, takes the layout from the shards.
    let mut second = gateway.config.clone();
    second.members.reverse();
    second.port = free_port()?;
    let second = second.start()?;
    assert_eq!(found(&mut second.client()?, &keys)?, keys.len());
    assert_eq!(command(&second, "layout export all")?.1, document);
    expect(
        &second.breccia.log(),
        &["restored from the shards' markers"],
    );
    Ok(())
}

/// Both servers' addresses the other way round.
fn swapped(text: &str, [one, other]: [&Redis; 2]) -> String {
    let (one, other) = (one.address(), other.address());
    text.replace(&one, "ONE")
        .replace(&other, &one)
        .replace("ONE", &other)
}

#[test]
fn exchanged_servers_are_refused_even_without_a_state_folder() -> Result<()> {
    let servers = Redis::many(2)?;
    let mut gateway = marked(&servers)?.start()?;
    let text = swapped(&gateway.config.text(), [&servers[0], &servers[1]]);
    let (status, output) = {
        gateway.breccia.terminate(Duration::from_secs(10))?;
        std::fs::remove_dir_all(gateway.breccia.state_folder())?;
        gateway.breccia.restart_refused(&text)?
    };
    assert_eq!(status.code(), Some(2), "{output}");
    expect(
        &output,
        &[
            "'r0'",
            "it is shard 'r1'",
            "it is shard 'r0'",
            "put the addresses back",
        ],
    );
    let (code, said) = command(&gateway, "check --connect")?;
    assert_eq!(code, Some(1), "{said}");
    expect(&said, &["it is shard 'r1'"]);
    gateway.breccia.restart(&gateway.config.text())?;
    Ok(())
}

#[test]
fn a_server_of_another_layout_is_refused_with_both_ways_out() -> Result<()> {
    let servers = Redis::many(3)?;
    let other = Config::new("redis")?
        .over(&servers[2..])
        .composite("marker = true");
    drop(other.start()?);
    let mut gateway = marked(&servers[..2])?.start()?;
    let port = servers[2].address();
    let text = gateway.config.text().replace(&servers[1].address(), &port);
    let (status, output) = gateway.breccia.restart_refused(&text)?;
    assert_eq!(status.code(), Some(2), "{output}");
    expect(
        &output,
        &[
            "'r1'",
            "another layout",
            "layout export",
            "layout mark --replace",
        ],
    );
    gateway.breccia.restart(&gateway.config.text())?;
    Ok(())
}

#[test]
fn a_server_that_comes_back_empty_is_refused_until_it_is_marked() -> Result<()> {
    let mut servers = Redis::many(2)?;
    let gateway = marked(&servers)?.start()?;
    let mut client = gateway.client()?;
    let (ours, theirs) = (key_on(0, 2, "k"), key_on(1, 2, "k"));
    client.words(&format!("SET {theirs} 1"))?;
    // It keeps nothing on disk: as one whose disk was not mounted.
    servers[1].kill9();
    servers[1].restart_same_port()?;
    let refused = wait_until(Duration::from_secs(5), "the refusal", || {
        let reply = client.words(&format!("SET {theirs} 2"))?;
        assert!(reply.starts_with(b"-"), "{}", reply.escape_ascii());
        let reply = reply.escape_ascii().to_string();
        Ok(reply.contains("has none now").then_some(reply))
    })?;
    assert!(refused.starts_with("-SHARDDOWN all/r1"), "{refused}");
    assert_eq!(client.words(&format!("SET {ours} 1"))?, b"+OK\r\n");
    assert_eq!(
        servers[1].client()?.words("DBSIZE")?,
        b":0\r\n",
        "nothing was written to it"
    );
    let (_, ready) = gateway.breccia.admin("/readyz")?;
    expect(&ready, &["r1 is not used", "has none now"]);
    expect(
        &gateway.breccia.admin("/status")?.1,
        &["\"marker\": \"right\"", "has none now"],
    );
    expect(&gateway.breccia.log(), &["breccia layout mark --config"]);
    let (code, said) = command(&gateway, "check --connect")?;
    assert_eq!(code, Some(1), "{said}");

    let (code, said) = command(&gateway, "layout mark all r1")?;
    assert_eq!(code, Some(0), "{said}");
    wait_until(Duration::from_secs(2), "the shard to serve again", || {
        Ok((client.words(&format!("SET {theirs} 3"))? == b"+OK\r\n").then_some(()))
    })?;
    assert_eq!(command(&gateway, "check --connect")?.0, Some(0));
    Ok(())
}

#[test]
fn a_server_that_was_emptied_refuses_the_start() -> Result<()> {
    let servers = Redis::many(2)?;
    let mut gateway = marked(&servers)?.start()?;
    gateway.breccia.terminate(Duration::from_secs(10))?;
    servers[0].client()?.expect_ok(&[b"FLUSHALL"])?;
    let text = gateway.config.text();
    let (status, output) = gateway.breccia.restart_refused(&text)?;
    assert_eq!(status.code(), Some(2), "{output}");
    let path = gateway.breccia.config_path();
    let mark = format!("`breccia layout mark --config {} all r0`", path.display());
    expect(&output, &["'r0'", "has none now", &mark]);
    let (code, said) = command(&gateway, "layout mark all r0 r1")?;
    assert_eq!(code, Some(0), "{said}");
    expect(&said, &["r0: marked", "r1: carries the marker already"]);
    gateway.breccia.restart(&text)
}

#[test]
fn a_shard_that_is_down_at_start_is_checked_before_its_first_use() -> Result<()> {
    let mut servers = Redis::many(3)?;
    let theirs = key_on(1, 2, "k");
    servers[1].kill9();
    let config = marked(&servers[..2])?;
    let breccia = Breccia::start_unready(&config.text())?;
    let gateway = Gateway { breccia, config };
    let mut client = gateway.client()?;
    let reply = client.words(&format!("SET {theirs} 1"))?;
    assert!(
        reply.starts_with(b"-SHARDDOWN all/r1"),
        "{}",
        reply.escape_ascii()
    );
    // What comes up says that it is a shard of something else.
    servers[1].restart_same_port()?;
    let foreign = "breccia marker: composite \"all\", shard \"r9\"";
    let until = Duration::from_secs(5);
    let mut direct = servers[1].client()?;
    wait_until(until, "the shard to serve", || {
        Ok((client.words(&format!("SET {theirs} 1"))? == b"+OK\r\n").then_some(()))
    })?;
    expect(&carried(&servers[1])?, &["shard \\\"r1\\\""]);
    direct.expect_ok(&[b"SET", KEY.as_bytes(), foreign.as_bytes()])?;
    wait_until(until, "the refusal", || {
        let reply = client.words(&format!("GET {theirs}"))?;
        Ok(reply.starts_with(b"-SHARDDOWN").then_some(()))
    })?;
    assert!(
        carried(&servers[1])?.contains("r9"),
        "a foreign marker is left alone"
    );
    Ok(())
}

#[test]
fn markers_follow_renamed_shards_and_composites() -> Result<()> {
    let servers = Redis::many(2)?;
    let mut gateway = marked(&servers)?.start()?;
    let keys = keys(100);
    write(&mut gateway.client()?, &keys)?;
    gateway.breccia.terminate(Duration::from_secs(10))?;
    let renamed = gateway
        .config
        .text()
        .replace("store.r1", "store.east")
        .replace("\"r1\"", "\"east\"")
        .replace("[store.all]", "[store.cache]")
        .replace("\"all\"", "\"cache\"");
    for line in ["layout rename-shard all r1 east", "layout rename all cache"] {
        let (code, said) = command(&gateway, line)?;
        assert_eq!(code, Some(0), "{said}");
    }
    gateway.breccia.restart(&renamed)?;
    assert_eq!(found(&mut gateway.client()?, &keys)?, keys.len());
    let mut direct = servers[1].client()?;
    let text = direct
        .words("GET breccia:layout:cache")?
        .escape_ascii()
        .to_string();
    expect(&text, &["shard \\\"east\\\""]);
    assert_eq!(direct.words(&format!("EXISTS {KEY}"))?, b":0\r\n");
    assert_eq!(gateway.client()?.words("DBSIZE")?, b":100\r\n");
    Ok(())
}

#[test]
fn empty_shards_are_adopted_with_their_markers() -> Result<()> {
    let servers = Redis::many(2)?;
    let mut gateway = marked(&servers)?.start()?;
    gateway.client()?.words("SET a 1")?;
    let text = gateway
        .config
        .clone()
        .composite("hash = \"crc16-xmodem\"")
        .text();
    let (status, output) = gateway.breccia.restart_refused(&text)?;
    assert_eq!(status.code(), Some(2), "{output}");
    let (code, said) = command(&gateway, "layout adopt all")?;
    assert_eq!(code, Some(2), "{said}");
    expect(&said, &["holds 1 keys"]);
    for redis in &servers {
        redis.client()?.words("DEL a")?;
    }
    let (code, said) = command(&gateway, "layout adopt all")?;
    assert_eq!(code, Some(0), "{said}");
    gateway.breccia.restart(&text)?;
    expect(&carried(&servers[0])?, &["crc16-xmodem"]);
    Ok(())
}

#[test]
fn nested_composites_mark_their_servers_each_for_itself() -> Result<()> {
    let (servers, port) = (Redis::many(2)?, free_port()?);
    let text = format!(
        "workers = 1\n[store.r0]\ntype = \"redis\"\nurl = \"{}\"\ndatabases = 2\n\
         [store.r1]\ntype = \"redis\"\nurl = \"{}/3\"\ndatabases = 2\n\
         [store.left]\ntype = \"sharded-in-memory\"\nstores = [\"r0\"]\nmarker = true\n\
         [store.all]\ntype = \"sharded-in-memory\"\nstores = [\"left\", \"r1\"]\nmarker = true\n\
         [listener.main]\nprotocol = \"redis\"\nstore = \"all\"\nbind = \"127.0.0.1:{port}\"\n",
        servers[0].url(),
        servers[1].url()
    );
    let breccia = Breccia::start(&text)?;
    let mut client = RespClient::connect(&format!("127.0.0.1:{port}"))?;
    let mut direct = servers[0].client()?;
    wait_until(Duration::from_secs(5), "both markers", || {
        let text = direct.words("MGET breccia:layout:all breccia:layout:left")?;
        let text = text.escape_ascii().to_string();
        let both = text.contains("shard \\\"left\\\"") && text.contains("shard \\\"r0\\\"");
        Ok((both && breccia.admin("/readyz")?.1 == "ready\n").then_some(()))
    })?;
    let mut direct = servers[1].client()?;
    direct.expect_ok(&[b"SELECT", b"3"])?;
    assert_eq!(direct.words("DBSIZE")?, b":1\r\n");
    for key in keys(50) {
        client.expect_ok(&[b"SET", &key, b"1"])?;
    }
    assert_eq!(client.words("DBSIZE")?, b":50\r\n");
    // The second database of the clients has no markers, and is flushed alone.
    client.expect_ok(&[b"SELECT", b"1"])?;
    client.expect_ok(&[b"SET", b"a", b"1"])?;
    assert_eq!(client.words("DBSIZE")?, b":1\r\n");
    assert_eq!(client.words("RANDOMKEY")?, b"$1\r\na\r\n");
    client.expect_ok(&[b"FLUSHDB"])?;
    assert_eq!(client.words("DBSIZE")?, b":0\r\n");
    client.expect_ok(&[b"SELECT", b"0"])?;
    assert_eq!(client.words("DBSIZE")?, b":50\r\n");
    let status = breccia.admin("/status")?.1;
    assert_eq!(
        status.matches("\"marker\": \"right\"").count(),
        2,
        "{status}"
    );
    Ok(())
}
