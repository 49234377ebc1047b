//! The portable set through the gateway, over members of several kinds, as over one Redis.
//!
//! The library's own tests compare each store; here are the wire, the sessions and the transactions
//! around them. Invariant: a refusal names a command outside the set, or a member and its limit, and
//! a refused command changed nothing: it is kept from the Redis as well.

use anyhow::{Context, Result};
use breccia_kv::resp::commands;
use breccia_testkit::{Memcached, RespClient};

use crate::common::{Config, Gateway};
use crate::compare::{self, How};
use crate::twins::{difference, none, redis};
use crate::words::split;

const SCRIPTS: [&str; 4] = [
    include_str!("scripts/portable.txt"),
    include_str!("scripts/strings.txt"),
    include_str!("scripts/generic.txt"),
    include_str!("scripts/portable_transactions.txt"),
];

/// What every kind of member offers, in Redis's words. Listing keys needs members that can.
const OFFERED: [&str; 43] = [
    "append",
    "dbsize",
    "decr",
    "decrby",
    "del",
    "discard",
    "echo",
    "exec",
    "exists",
    "expire",
    "expireat",
    "expiretime",
    "flushall",
    "flushdb",
    "get",
    "getdel",
    "getex",
    "getrange",
    "getset",
    "incr",
    "incrby",
    "incrbyfloat",
    "mget",
    "mset",
    "multi",
    "persist",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "ping",
    "psetex",
    "pttl",
    "set",
    "setex",
    "setnx",
    "setrange",
    "strlen",
    "substr",
    "touch",
    "ttl",
    "type",
    "unlink",
    "unwatch",
];
const LISTING: [&str; 4] = ["keys", "scan", "randomkey", "dbsize"];
/// Answered by the gateway itself.
const SESSION: [&str; 1] = ["reset"];

/// How a refusal is justified: `None` if it is not.
fn excuse(request: &[Vec<u8>], reply: &str, limited: &str) -> Option<&'static str> {
    let name = commands::find(request.first()?)?.name;
    let known = [&OFFERED[..], &LISTING, &SESSION]
        .iter()
        .any(|names| names.contains(&name));
    if !known {
        return Some("outside the set");
    }
    let names_it = [format!("'{limited}'"), format!("/{limited}")];
    names_it
        .iter()
        .any(|name| reply.contains(name))
        .then_some("the member's limit")
}

struct Count {
    equal: usize,
    outside: usize,
    limits: usize,
}

/// Plays the scripts; `limited` is the member that cannot do everything.
fn play(gateway: &Gateway, version: u8, limited: &str) -> Result<Count> {
    let direct = redis()?;
    let mut clients = [direct.client()?, gateway.client()?];
    for client in &mut clients {
        client.words(&format!("HELLO {version}"))?;
    }
    let [mut direct, mut through] = clients;
    let mut differences = Vec::new();
    let mut count = Count {
        equal: 0,
        outside: 0,
        limits: 0,
    };
    let lines = SCRIPTS.iter().flat_map(|script| script.lines());
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let request = split(line)?;
        let ask = |client: &mut RespClient| {
            let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            client.call(&words).with_context(|| line.to_owned())
        };
        let found = ask(&mut through)?;
        if found.starts_with(b"-ERR breccia: ") {
            let text = String::from_utf8_lossy(&found);
            match excuse(&request, &text, limited) {
                Some("outside the set") => count.outside += 1,
                Some(_) => count.limits += 1,
                None => differences.push(difference(line, b"(no refusal)", &found)),
            }
            continue;
        }
        let wanted = ask(&mut direct)?;
        // A scan of several members takes several steps: see keyspace.rs for where it leads.
        let part = request[0].eq_ignore_ascii_case(b"scan") && gateway.config.members.len() > 1;
        let how = if part {
            How::Scan { whole: false }
        } else {
            compare::how(&request)
        };
        if compare::alike(how, &request, &wanted, &found)? {
            count.equal += 1;
        } else {
            differences.push(difference(line, &wanted, &found));
        }
    }
    none(
        &format!("RESP{version}, over {:?}", gateway.config.members),
        &differences,
    );
    Ok(count)
}

#[test]
fn memory_members_answer_as_redis() -> Result<()> {
    for (members, version) in [(1, 2), (3, 3)] {
        let config = (0..members).fold(Config::new("redis")?, |config, number| {
            config.memory(&format!("mem{number}"))
        });
        let gateway = config.start()?;
        let count = play(&gateway, version, "(nobody)")?;
        assert!(
            count.equal > 400 && count.limits == 0,
            "{} equal",
            count.equal
        );
        assert!(count.outside > 20, "{} outside", count.outside);
    }
    Ok(())
}

#[test]
fn mixed_members_answer_as_redis_or_name_the_limit() -> Result<()> {
    for version in [2, 3] {
        let (server, memcached) = (redis()?, Memcached::new()?);
        let gateway = Config::new("redis")?
            .redis("red-a", &server.address(), "")
            .memcached("mc-a", &memcached.address(), "")
            .memory("mem-a")
            .start()?;
        let count = play(&gateway, version, "mc-a")?;
        assert!(
            count.equal > 300 && count.limits < 80,
            "{} {}",
            count.equal,
            count.limits
        );
    }
    Ok(())
}

#[test]
fn a_refusal_names_the_member_in_the_way() -> Result<()> {
    let (server, memcached) = (redis()?, Memcached::new()?);
    let gateway = Config::new("redis")?
        .redis("red-a", &server.address(), "")
        .memcached("mc-a", &memcached.address(), "")
        .memory("mem-a")
        .start()?;
    let mut client = gateway.client()?;
    for (request, wanted) in [
        (
            "LPUSH l x",
            "-ERR breccia: 'LPUSH' needs Redis shards; 'mc-a' is memcached\r\n",
        ),
        (
            "hset h f v",
            "-ERR breccia: 'HSET' needs Redis shards; 'mc-a' is memcached\r\n",
        ),
        (
            "KEYS *",
            "-ERR breccia: 'KEYS' needs Redis or memory shards; 'mc-a' is memcached\r\n",
        ),
        (
            "SCAN 0",
            "-ERR breccia: 'SCAN' needs Redis or memory shards; 'mc-a' is memcached\r\n",
        ),
    ] {
        assert_eq!(String::from_utf8(client.words(request)?)?, wanted);
    }
    for request in [
        "SUBSCRIBE c",
        "PUBLISH c m",
        "WATCH k",
        "EVAL x 0",
        "BLPOP l 0",
        "XLEN s",
    ] {
        let reply = String::from_utf8(client.words(request)?)?;
        assert!(
            reply.starts_with("-ERR breccia: '") && reply.contains("mc-a"),
            "{request}: {reply}"
        );
    }
    Ok(())
}

#[test]
fn redis_and_memory_together_answer_as_redis() -> Result<()> {
    let server = redis()?;
    let gateway = Config::new("redis")?
        .redis("red-a", &server.address(), "")
        .memory("mem-a")
        .start()?;
    let count = play(&gateway, 3, "(nobody)")?;
    assert!(
        count.equal > 400 && count.limits == 0,
        "{} {}",
        count.equal,
        count.limits
    );
    Ok(())
}
