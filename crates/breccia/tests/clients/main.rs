//! Client programs and libraries, unchanged.
//!
//! `cargo xtask test setup` puts the ones in other languages into `target/clients`; a missing one fails
//! the test. Invariant: nothing in a script knows that it does not talk to one server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use breccia_testkit::{Memcached, Redis, RespClient};
use redis::Commands;

#[allow(
    dead_code,
    reason = "shared with other test programs; each uses a part"
)]
#[path = "../gateway/common.rs"]
mod common;

use common::{Config, Gateway};

fn folder() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients");
    std::env::var_os("BRECCIA_TEST_CLIENTS").map_or_else(beside, PathBuf::from)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot start {name}; run: cargo xtask test setup"))?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{name}: {}\n{text}", output.status);
    Ok(text)
}

fn python(name: &str, arguments: &[&str]) -> Result<String> {
    run(Command::new(folder().join("python/bin/python"))
        .arg(script(name))
        .args(arguments))
}

#[test]
fn redis_py_works() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let text = python("redis_py.py", &[&gateway.config.port.to_string(), "-"])?;
    assert!(text.contains("RESP2") && text.contains("RESP3"), "{text}");
    Ok(())
}

#[test]
fn redis_py_works_with_a_password() -> Result<()> {
    let servers = Redis::many(2)?;
    let mut config = Config::new("redis")?.over(&servers);
    config.tables =
        "[[listener.main.user]]\nname = \"default\"\npassword = \"pass-word\"\n".to_owned();
    let gateway = config.start()?;
    python(
        "redis_py.py",
        &[&gateway.config.port.to_string(), "pass-word"],
    )?;
    Ok(())
}

#[test]
fn ioredis_works() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let modules = folder().join("node/node_modules");
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).arg(script("ioredis.js"));
    run(command.arg(gateway.config.port.to_string()))?;
    Ok(())
}

#[test]
fn redis_rs_works() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    for protocol in ["", "?protocol=resp3"] {
        let client = redis::Client::open(format!("redis://{}/{protocol}", gateway.address()))?;
        let mut connection = client.get_connection()?;
        let _: () = connection.set("rs:a", 1)?;
        assert_eq!(connection.get::<_, i64>("rs:a")?, 1);
        let (counter, renewed): (i64, bool) = redis::pipe()
            .atomic()
            .incr("rs:tx", 5)
            .expire("rs:tx", 60)
            .query(&mut connection)?;
        assert!(counter % 5 == 0 && renewed);
        let mut pipe = redis::pipe();
        for number in 0..200 {
            pipe.set(format!("rs:p{number}"), number).ignore();
            pipe.get(format!("rs:p{number}"));
        }
        let values: Vec<i64> = pipe.query(&mut connection)?;
        assert_eq!(values, (0..200).collect::<Vec<i64>>());
        let found: Vec<String> = connection.scan_match("rs:p*")?.collect::<Result<_, _>>()?;
        assert_eq!(found.len(), 200);
        let keys: Vec<String> = (0..200).map(|number| format!("rs:p{number}")).collect();
        assert_eq!(connection.del::<_, i64>(&keys)?, 200);
        let mut listener = client.get_connection()?;
        let mut pubsub = listener.as_pubsub();
        pubsub.subscribe("rs:news")?;
        let _: i64 = connection.publish("rs:news", "hello")?;
        assert_eq!(pubsub.get_message()?.get_payload::<String>()?, "hello");
    }
    Ok(())
}

#[test]
fn redis_cli_works() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let port = gateway.config.port.to_string();
    let cli = |arguments: &[&str]| -> Result<String> {
        let text = run(Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments))?;
        Ok(text.trim().to_owned())
    };
    assert_eq!(cli(&["SET", "a", "1"])?, "OK");
    assert_eq!(cli(&["GET", "a"])?, "1");
    assert_eq!(cli(&["-3", "HSET", "h", "f", "v"])?, "1");
    assert!(cli(&["-3", "--no-raw", "HGETALL", "h"])?.contains("\"f\" => \"v\""));
    assert_eq!(cli(&["MSET", "x", "1", "y", "2", "z", "3"])?, "OK");
    assert_eq!(cli(&["--scan"])?.lines().count(), 5);
    assert_eq!(cli(&["EVAL", "return KEYS[1]", "1", "k"])?, "k");
    assert!(cli(&["INFO"])?.contains("redis_version"));
    assert!(cli(&["--bigkeys", "-i", "0"])?.contains("summary"));
    let bench = run(Command::new("redis-benchmark").args(["-p", &port, "-q", "-n", "2000", "-P", "8"]).args(
        ["-t", "ping_inline,ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange,mset"],
    ))?;
    assert!(bench.contains("MSET") && !bench.contains("rror"), "{bench}");
    Ok(())
}

/// Everything the mail server of the fact sheet sends, in its order: as Redis answers.
#[test]
fn what_a_mail_server_sends_answers_as_redis() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    let gateway = Gateway::over(&servers)?;
    let run = |client: &mut RespClient| -> Result<Vec<String>> {
        let mut said = Vec::new();
        let mut call = |arguments: &[&[u8]]| -> Result<Vec<u8>> {
            let reply = client.call(arguments)?;
            said.push(reply.escape_ascii().to_string());
            Ok(reply)
        };
        call(&[b"CLIENT", b"SETINFO", b"LIB-NAME", b"redis-rs"])?;
        call(&[b"PING"])?;
        let keys: Vec<Vec<u8>> = (0..40_u8)
            .map(|number| vec![3, number, 0xff, b'*', number ^ 0x55])
            .collect();
        for key in &keys {
            call(&[b"SET", key, b"\x00value\r\n"])?;
            call(&[b"SETEX", key, b"3600", b"with expiry"])?;
            call(&[b"GET", key])?;
            call(&[b"EXISTS", key])?;
        }
        call(&[b"GET", b"\x02none"])?;
        call(&[b"INCRBY", b"\x05counter", b"-7"])?;
        for _ in 0..3 {
            call(&[b"MULTI"])?;
            call(&[b"INCRBY", b"\x06limit", b"1"])?;
            call(&[b"EXPIRE", b"\x06limit", b"60"])?;
            call(&[b"EXEC"])?;
        }
        for _ in 0..2 {
            call(&[b"SET", b"\x15lock", b"1790000000", b"NX", b"EX", b"60"])?;
        }
        call(&[b"DEL", b"\x15lock"])?;
        call(&[b"SET", b"\x15lock", b"1790000000", b"NX", b"EX", b"60"])?;
        call(&[b"PUBLISH", b"stwt.agora", b"\x00\x01binary"])?;
        Ok(said)
    };
    let (mut one, mut other) = (direct.client()?, gateway.client()?);
    assert_eq!(run(&mut one)?, run(&mut other)?);
    assert_eq!(delete_by_prefix(&mut one)?, 40);
    assert_eq!(delete_by_prefix(&mut other)?, 40);
    Ok(())
}

/// SCAN with a raw prefix, then DEL of each page, until the cursor is 0 again.
fn delete_by_prefix(client: &mut RespClient) -> Result<i64> {
    let (mut cursor, mut deleted) = (b"0".to_vec(), 0);
    loop {
        let page = client.call(&[b"SCAN", &cursor, b"MATCH", b"\x03*", b"COUNT", b"100"])?;
        let page = breccia_testkit::Reply::parse(&page)?;
        let [next, keys] = page.elements() else {
            anyhow::bail!("{page:?}")
        };
        let keys = keys
            .elements()
            .iter()
            .filter_map(breccia_testkit::Reply::bytes);
        let request: Vec<&[u8]> = std::iter::once(b"DEL".as_slice()).chain(keys).collect();
        if request.len() > 1 {
            let reply = breccia_testkit::Reply::parse(&client.call(&request)?)?;
            deleted += reply.integer().context("a count")?;
        }
        cursor = next.bytes().context("a cursor")?.to_vec();
        if cursor == b"0" {
            return Ok(deleted);
        }
    }
}

#[test]
fn python_memcached_clients_work() -> Result<()> {
    let servers = Memcached::many(3)?;
    let gateway = Config::new("memcached")?.over_memcached(&servers).start()?;
    let text = python("memcached_py.py", &[&gateway.config.port.to_string()])?;
    assert!(text.contains("python-memcached: good"), "{text}");
    Ok(())
}

#[test]
fn libmemcached_tools_work() -> Result<()> {
    let servers = Memcached::many(3)?;
    let gateway = Config::new("memcached")?.over_memcached(&servers).start()?;
    let server = format!("--servers={}", gateway.address());
    let folder = tempfile::tempdir()?;
    let mut names = Vec::new();
    for number in 0..10 {
        let path = folder.path().join(format!("file{number}"));
        std::fs::write(&path, format!("content {number}\n"))?;
        run(Command::new("memccp").arg(&server).arg(&path))?;
        names.push(format!("file{number}"));
    }
    let text = run(Command::new("memccat").arg(&server).args(&names))?;
    assert_eq!(text.matches("content").count(), 10, "{text}");
    run(Command::new("memcexist").arg(&server).arg("file3"))?;
    run(Command::new("memctouch")
        .arg(&server)
        .args(["--expire=100", "file3"]))?;
    run(Command::new("memcrm").arg(&server).arg("file3"))?;
    assert!(run(Command::new("memcexist").arg(&server).arg("file3")).is_err());
    run(Command::new("memcping").arg(&server))?;
    assert!(run(Command::new("memcstat").arg(&server))?.contains("pid"));
    run(Command::new("memcflush").arg(&server))?;
    assert!(run(Command::new("memcexist").arg(&server).arg("file4")).is_err());
    Ok(())
}
