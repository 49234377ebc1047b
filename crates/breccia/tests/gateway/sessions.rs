//! What is answered here instead of by a server, and what needs a whole connection.
//!
//! Invariant: where Redis would answer the same to everybody, the bytes are Redis's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use breccia_testkit::{Redis, Reply, RespClient};

use crate::common::{Gateway, key_on};

#[test]
fn inline_commands_are_taken() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(2)?);
    let gateway = Gateway::over(&servers)?;
    let (mut one, mut other) = (direct.client()?, gateway.client()?);
    for line in [
        "SET a \"b c\"\r\n",
        "GET a\n",
        "PING\r\n",
        "get 'a'\r\n",
        "NOSUCH\r\n",
        "MGET a b\r\n",
    ] {
        one.send(line.as_bytes())?;
        other.send(line.as_bytes())?;
        assert_eq!(one.read_reply()?, other.read_reply()?, "{line:?}");
    }
    other.send(b"\r\n\r\n  \r\nPING\r\n")?;
    assert_eq!(other.read_reply()?, b"+PONG\r\n");
    Ok(())
}

#[test]
fn quit_answers_and_closes() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let replies = client.pipeline(&["SET a 1", "QUIT"])?;
    assert_eq!(replies, [b"+OK\r\n", b"+OK\r\n"]);
    assert!(client.closed());
    Ok(())
}

#[test]
fn hello_describes_a_redis() -> Result<()> {
    let servers = Redis::many(1)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let hello = client.reply("HELLO 3 SETNAME tester")?;
    let fields: Vec<String> = hello
        .elements()
        .chunks(2)
        .filter_map(|pair| {
            pair[0]
                .bytes()
                .map(|name| String::from_utf8_lossy(name).into_owned())
        })
        .collect();
    assert_eq!(
        fields,
        [
            "server", "version", "proto", "id", "mode", "role", "modules"
        ]
    );
    assert_eq!(hello.elements()[1], Reply::Bulk(b"redis".to_vec()));
    assert_eq!(client.words("CLIENT GETNAME")?, b"$6\r\ntester\r\n");
    assert_eq!(client.words("GET none")?, b"_\r\n");
    assert!(client.words("HELLO 2")?.starts_with(b"*14\r\n"));
    assert_eq!(client.words("GET none")?, b"$-1\r\n");
    Ok(())
}

#[test]
fn protocol_switches_do_not_reorder_a_pipeline() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let mut requests = Vec::new();
    for number in 0..50 {
        requests.push(format!("HELLO {}", 2 + number % 2));
        requests.push(format!("HSET h{number} f v"));
        requests.push(format!("HGETALL h{number}"));
    }
    let words: Vec<&str> = requests.iter().map(String::as_str).collect();
    let replies = client.pipeline(&words)?;
    for (number, three) in replies.chunks(3).enumerate() {
        let (hello, map): (&[u8], &[u8]) = if number % 2 == 0 {
            (b"*14", b"*2\r\n")
        } else {
            (b"%7", b"%1\r\n")
        };
        assert!(
            three[0].starts_with(hello) && three[2].starts_with(map),
            "turn {number}"
        );
        assert_eq!(three[1], b":1\r\n");
    }
    Ok(())
}

#[test]
fn start_up_questions_of_libraries_are_answered() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let check = |reply: Reply, what: &str, good: &dyn Fn(&Reply) -> bool| {
        assert!(good(&reply), "{what}: {reply:?}");
    };
    let text =
        |reply: &Reply| String::from_utf8_lossy(reply.bytes().unwrap_or_default()).into_owned();
    check(client.reply("INFO")?, "INFO", &|reply| {
        let info = text(reply);
        info.contains("redis_version:7.0") && info.contains("# Replication")
    });
    check(client.reply("INFO server")?, "INFO server", &|reply| {
        text(reply).starts_with("# Server")
    });
    check(client.reply("CLIENT ID")?, "CLIENT ID", &|reply| {
        reply.integer() > Some(0)
    });
    check(client.reply("CLIENT INFO")?, "CLIENT INFO", &|reply| {
        text(reply).starts_with("id=")
    });
    check(
        client.reply("CLIENT SETINFO LIB-NAME x")?,
        "SETINFO",
        &|reply| reply.bytes() == Some(b"OK"),
    );
    check(client.reply("COMMAND DOCS get")?, "DOCS", &|reply| {
        !reply.elements().is_empty()
    });
    check(client.reply("COMMAND")?, "COMMAND", &|reply| {
        reply.elements().len() > 200
    });
    check(
        client.reply("COMMAND INFO get set")?,
        "COMMAND INFO",
        &|reply| reply.elements().len() == 2,
    );
    check(client.reply("CONFIG GET save")?, "CONFIG GET", &|reply| {
        reply.error().is_none()
    });
    check(
        client.reply("CONFIG GET maxmemory-policy")?,
        "CONFIG GET",
        &|reply| reply.error().is_none(),
    );
    Ok(())
}

#[test]
fn client_reply_modes_swallow_the_right_replies() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    client.send(b"CLIENT REPLY SKIP\r\nSET a 1\r\nGET a\r\nCLIENT REPLY OFF\r\nSET b 1\r\nGET b\r\nMGET a b\r\nCLIENT REPLY ON\r\nGET b\r\n")?;
    assert_eq!(client.read_reply()?, b"$1\r\n1\r\n");
    assert_eq!(client.read_reply()?, b"+OK\r\n");
    assert_eq!(client.read_reply()?, b"$1\r\n1\r\n");
    Ok(())
}

#[test]
fn several_keys_are_split_and_merged() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    let gateway = Gateway::over(&servers)?;
    let (mut one, mut other) = (direct.client()?, gateway.client()?);
    let pairs: Vec<String> = (0..100)
        .map(|number| format!("key{number} {number}"))
        .collect();
    let keys: Vec<String> = (0..120).map(|number| format!("key{number}")).collect();
    let requests = [
        format!("MSET {}", pairs.join(" ")),
        format!("MGET {} key5 key5", keys.join(" ")),
        format!("EXISTS {} key5", keys.join(" ")),
        format!("TOUCH {}", keys.join(" ")),
        "DEL key1 key2 key3 key3 none".to_owned(),
        "UNLINK key4 key5 key6 key6 none".to_owned(),
        format!("MGET {}", keys.join(" ")),
        "LPUSH list x".to_owned(),
        "MGET list key10 key11".to_owned(),
        "DBSIZE".to_owned(),
    ];
    for request in &requests {
        assert_eq!(
            one.words(request)?,
            other.words(request)?,
            "{}",
            request.get(..20).unwrap_or(request)
        );
    }
    Ok(())
}

#[test]
fn keys_of_two_shards_are_refused_where_they_cannot_be_split() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let (a, b, also_a) = (key_on(0, 3, "a"), key_on(1, 3, "b"), key_on(0, 3, "c"));
    let crossslot: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same shard\r\n";
    for request in [
        format!("RENAME {a} {b}"),
        format!("SINTERSTORE {a} {b}"),
        format!("MSETNX {a} 1 {b} 2"),
        format!("EVAL return 2 {a} {b}"),
        format!("BLPOP {a} {b} 0"),
        format!("XREAD STREAMS {a} {b} 0 0"),
        format!("WATCH {a} {b}"),
    ] {
        let reply = client.words(&request)?;
        if request.starts_with("WATCH") {
            continue; // Watching several shards may be possible; a transaction over them is not.
        }
        assert_eq!(reply, crossslot, "{request}: {}", reply.escape_ascii());
    }
    client.words("UNWATCH")?;
    client.words(&format!("SET {a} 1"))?;
    assert_eq!(client.words(&format!("RENAME {a} {also_a}"))?, b"+OK\r\n");
    assert!(
        gateway
            .breccia
            .metric("breccia_multikey_same_shard_total")?
            >= 1.0
    );

    client.words("MULTI")?;
    assert_eq!(client.words(&format!("SET {a} 1"))?, b"+QUEUED\r\n");
    assert_eq!(client.words(&format!("SET {b} 1"))?, crossslot);
    assert!(client.words("EXEC")?.starts_with(b"-EXECABORT"));
    assert_eq!(client.words(&format!("GET {b}"))?, b"$-1\r\n");
    Ok(())
}

#[test]
fn a_slot_rule_refuses_what_growth_would_break() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = crate::common::Config::new("redis")?
        .over(&servers)
        .composite("multi-key = \"slot\"")
        .start()?;
    let mut client = gateway.client()?;
    let (a, also_a) = (key_on(0, 2, "a"), key_on(0, 2, "c"));
    client.words(&format!("SET {a} 1"))?;
    assert!(
        client
            .words(&format!("RENAME {a} {also_a}"))?
            .starts_with(b"-CROSSSLOT")
    );
    assert_eq!(client.words(&format!("RENAME {a} {a}"))?, b"+OK\r\n");
    Ok(())
}

#[test]
fn scan_and_its_kin_cover_every_shard() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let keys: Vec<String> = (0..2_000).map(|number| format!("key{number}")).collect();
    for batch in keys.chunks(200) {
        let pairs: Vec<String> = batch.iter().map(|key| format!("{key} v")).collect();
        client.words(&format!("MSET {}", pairs.join(" ")))?;
    }
    let mut found = std::collections::BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = client.reply(&format!("SCAN {cursor} MATCH key* COUNT 50"))?;
        let [next, all] = page.elements() else {
            panic!("{page:?}")
        };
        found.extend(
            all.elements()
                .iter()
                .filter_map(Reply::bytes)
                .map(<[u8]>::to_vec),
        );
        cursor = String::from_utf8_lossy(next.bytes().context("a cursor")?).into_owned();
        assert!(
            cursor.parse::<i64>()? >= 0,
            "a cursor that signed clients can parse"
        );
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), keys.len());
    assert_eq!(client.reply("KEYS key*")?.elements().len(), keys.len());
    assert_eq!(client.reply("DBSIZE")?, Reply::Integer(2_000));
    assert!(client.reply("RANDOMKEY")?.bytes().is_some());
    assert!(client.words("SCAN notacursor")?.starts_with(b"-ERR"));
    assert_eq!(client.words("FLUSHALL")?, b"+OK\r\n");
    assert_eq!(client.reply("DBSIZE")?, Reply::Integer(0));
    assert_eq!(client.words("RANDOMKEY")?, b"$-1\r\n");
    for redis in &servers {
        assert_eq!(redis.client()?.reply("DBSIZE")?, Reply::Integer(0));
    }
    Ok(())
}

#[test]
fn flushall_leaves_other_databases_of_a_server_alone() -> Result<()> {
    let servers = Redis::many(2)?;
    for redis in &servers {
        redis.client()?.pipeline(&["SELECT 5", "SET others 1"])?;
    }
    let gateway = Gateway::over(&servers)?;
    gateway.client()?.words("FLUSHALL")?;
    for redis in &servers {
        assert_eq!(
            redis.client()?.pipeline(&["SELECT 5", "GET others"])?[1],
            b"$1\r\n1\r\n"
        );
    }
    Ok(())
}

#[test]
fn what_reaches_past_the_layout_is_refused() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    for request in [
        "SWAPDB 0 1",
        "MOVE a 1",
        "COPY a a DB 1",
        "SELECT 1",
        "SHUTDOWN",
        "DEBUG SLEEP 5",
        "REPLICAOF NO ONE",
        "CONFIG SET maxmemory 1",
        "MONITOR",
        "SYNC",
        "MIGRATE 127.0.0.1 1 a 0 5",
        "CLUSTER INFO",
    ] {
        let reply = client.words(request)?;
        assert!(
            reply.starts_with(b"-"),
            "{request}: {}",
            reply.escape_ascii()
        );
    }
    assert_eq!(client.words("PING")?, b"+PONG\r\n");
    Ok(())
}

#[test]
fn sort_by_pattern_is_refused_over_several_shards() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    client.words("RPUSH list 1 2")?;
    assert!(client.words("SORT list BY w_*")?.starts_with(b"-ERR"));
    assert!(client.words("SORT list GET o_*")?.starts_with(b"-ERR"));
    assert!(
        client
            .words("SORT list BY nosort GET #")?
            .starts_with(b"*2")
    );
    Ok(())
}

#[test]
fn a_blocked_client_is_woken_and_blocks_nobody() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut waiting = gateway.client()?;
    waiting.send(b"BLPOP queue 5\r\nPING\r\n")?;
    let mut other = gateway.client()?;
    let begun = Instant::now();
    for number in 0..50 {
        assert_eq!(other.words(&format!("SET k{number} 1"))?, b"+OK\r\n");
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    std::thread::sleep(Duration::from_millis(100));
    other.words("RPUSH queue job")?;
    assert_eq!(waiting.read_reply()?, b"*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    assert_eq!(waiting.read_reply()?, b"+PONG\r\n");
    Ok(())
}

#[test]
fn a_client_reads_its_own_write_in_the_transaction_after_it() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    for number in 0..300 {
        let (set, get) = (format!("SET a {number}"), "GET a");
        let replies = client.pipeline(&[&set, "MULTI", get, "EXEC", get])?;
        let value = number.to_string();
        let wanted = format!("*1\r\n${}\r\n{value}\r\n", value.len());
        assert_eq!(replies[3], wanted.as_bytes(), "turn {number}");
        assert_eq!(replies[4], wanted.as_bytes()[4..], "turn {number}");
    }
    Ok(())
}

#[test]
fn a_watched_key_changed_by_anybody_fails_the_transaction() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let (mut watcher, mut other) = (gateway.client()?, gateway.client()?);
    for number in 0..100 {
        let key = format!("watched{number}");
        watcher.pipeline(&[&format!("WATCH {key}"), &format!("GET {key}")])?;
        match number % 4 {
            0 => drop(other.words(&format!("SET {key} other"))?),
            1 => drop(watcher.words(&format!("SET {key} own"))?),
            2 => drop(other.pipeline(&["MULTI", &format!("SET {key} other"), "EXEC"])?),
            _ => {}
        }
        let replies = watcher.pipeline(&["MULTI", &format!("SET {key} tx"), "EXEC"])?;
        let wanted: &[u8] = if number % 4 == 3 {
            b"*1\r\n+OK\r\n"
        } else {
            b"*-1\r\n"
        };
        assert_eq!(replies[2], wanted, "turn {number}");
    }
    Ok(())
}

#[test]
fn wait_counts_the_replicas_of_the_shards_written_to() -> Result<()> {
    let servers = Redis::many(2)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    client.words("SET a 1")?;
    assert_eq!(client.words("WAIT 0 100")?, b":0\r\n");
    assert_eq!(client.words("WAIT 1 50")?, b":0\r\n");
    Ok(())
}

#[test]
fn scripts_are_loaded_on_every_shard() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let load = [
        b"SCRIPT".as_slice(),
        b"LOAD",
        b"return redis.call('SET', KEYS[1], ARGV[1])",
    ];
    let loaded = Reply::parse(&client.call(&load)?)?;
    let sha = String::from_utf8_lossy(loaded.bytes().context("a digest")?).into_owned();
    for number in 0..30 {
        assert_eq!(
            client.words(&format!("EVALSHA {sha} 1 k{number} v"))?,
            b"+OK\r\n"
        );
    }
    assert_eq!(
        client.words(&format!("SCRIPT EXISTS {sha} 0000"))?,
        b"*2\r\n:1\r\n:0\r\n"
    );
    assert_eq!(client.words("SCRIPT FLUSH")?, b"+OK\r\n");
    assert!(
        client
            .words(&format!("EVALSHA {sha} 1 k v"))?
            .starts_with(b"-NOSCRIPT")
    );
    Ok(())
}

/// The replies to requests that end in `ECHO the-end`.
fn replies_to(client: &mut RespClient, requests: &str) -> Result<Vec<String>> {
    client.set_patience(Duration::from_secs(5))?;
    client.send(requests.as_bytes())?;
    let mut replies = Vec::new();
    loop {
        let reply = client.read_reply()?.escape_ascii().to_string();
        let last = reply.contains("the-end");
        replies.push(reply);
        if last {
            return Ok(replies);
        }
    }
}

#[test]
fn the_reply_that_is_skipped_is_the_one_redis_skips() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(2)?);
    let gateway = Gateway::over(&servers)?;
    for requests in [
        "CLIENT REPLY SKIP\r\nSUBSCRIBE c\r\nGET x\r\nECHO one\r\nECHO the-end\r\n",
        "CLIENT REPLY SKIP\r\nUNSUBSCRIBE c\r\nGET x\r\nECHO the-end\r\n",
        "CLIENT REPLY SKIP\r\nPUNSUBSCRIBE\r\nGET x\r\nECHO the-end\r\n",
        "CLIENT REPLY SKIP\r\nSUBSCRIBE\r\nGET x\r\nECHO the-end\r\n",
        "CLIENT REPLY SKIP\r\nRESET\r\nECHO the-end\r\n",
        "CLIENT REPLY OFF\r\nECHO no\r\nRESET\r\nECHO the-end\r\n",
        "CLIENT REPLY OFF\r\nSUBSCRIBE c\r\nGET x\r\nCLIENT REPLY ON\r\nECHO the-end\r\n",
    ] {
        let (mut one, mut other) = (direct.client()?, gateway.client()?);
        one.words("HELLO 3")?;
        other.words("HELLO 3")?;
        assert_eq!(
            replies_to(&mut other, requests)?,
            replies_to(&mut one, requests)?,
            "{requests:?}"
        );
    }
    Ok(())
}
