//! redis-rs, in both protocol versions.
//!
//! Invariant: the same function holds against one Redis and against the gateway.

use std::collections::BTreeMap;

use anyhow::Result;
use breccia_testkit::Redis;
use redis::{Client, Commands, Connection, ErrorKind, ServerErrorKind};

use crate::common::Gateway;

fn values(connection: &mut Connection) -> Result<()> {
    let _: () = connection.set("rs:a", 1)?;
    assert_eq!(connection.get::<_, i64>("rs:a")?, 1);
    assert_eq!(connection.get::<_, Option<i64>>("rs:none")?, None);
    let binary: Vec<u8> = (0..=255).collect();
    let _: () = connection.set(&binary, &binary)?;
    assert_eq!(connection.get::<_, Vec<u8>>(&binary)?, binary);
    let _: () = connection.hset_multiple("rs:h", &[("f", "v"), ("g", "w")])?;
    let hash: BTreeMap<String, String> = connection.hgetall("rs:h")?;
    assert_eq!(hash.len(), 2);
    let _: () = connection.zadd_multiple("rs:z", &[(1.5, "one"), (2.0, "two")])?;
    let scores: Vec<(String, f64)> = connection.zrange_withscores("rs:z", 0, -1)?;
    assert_eq!(scores, [("one".to_owned(), 1.5), ("two".to_owned(), 2.0)]);
    let _: () = connection.mset(&[("rs:m1", 1), ("rs:m2", 2), ("rs:m3", 3)])?;
    let all: Vec<Option<i64>> = connection.mget(&["rs:m1", "rs:m2", "rs:m3", "rs:none"])?;
    assert_eq!(all, [Some(1), Some(2), Some(3), None]);
    let wrong: redis::RedisResult<i64> = connection.llen("rs:a");
    let wrong = wrong.expect_err("a string is no list");
    assert_eq!(wrong.code(), Some("WRONGTYPE"));
    let script = redis::Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    assert_eq!(script.key("rs:script").arg(7).invoke::<i64>(connection)?, 7);
    Ok(())
}

fn pipelines(connection: &mut Connection) -> Result<()> {
    let (counter, renewed): (i64, bool) = redis::pipe()
        .atomic()
        .incr("rs:tx", 5)
        .expire("rs:tx", 60)
        .query(connection)?;
    assert!(counter == 5 && renewed);
    let mut pipe = redis::pipe();
    for number in 0..200 {
        pipe.set(format!("rs:p{number}"), number).ignore();
        pipe.get(format!("rs:p{number}"));
    }
    let values: Vec<i64> = pipe.query(connection)?;
    assert_eq!(values, (0..200).collect::<Vec<i64>>());
    let found: Vec<String> = connection.scan_match("rs:p*")?.collect::<Result<_, _>>()?;
    assert_eq!(found.len(), 200);
    let keys: Vec<String> = (0..200).map(|number| format!("rs:p{number}")).collect();
    assert_eq!(connection.del::<_, i64>(&keys)?, 200);
    Ok(())
}

fn transactions(client: &Client, connection: &mut Connection) -> Result<()> {
    let mut other = client.get_connection()?;
    let mut turns = 0;
    // The first turn meets a conflict, the second does not.
    let (value,): (i64,) = redis::transaction(connection, &["rs:w"], |connection, pipe| {
        turns += 1;
        let old: Option<i64> = connection.get("rs:w")?;
        if turns == 1 {
            let _: () = other.set("rs:w", 40)?;
        }
        pipe.set("rs:w", old.unwrap_or(0) + 2)
            .ignore()
            .get("rs:w")
            .query(connection)
    })?;
    assert_eq!((value, turns), (42, 2));
    let aborted: redis::RedisResult<()> = redis::pipe()
        .atomic()
        .set("rs:x", 1)
        .cmd("NOSUCH")
        .query(connection);
    let kind = aborted.expect_err("an unknown command spoils it").kind();
    assert!(
        matches!(kind, ErrorKind::Server(ServerErrorKind::ExecAbort)),
        "{kind:?}"
    );
    Ok(())
}

fn messages(client: &Client, connection: &mut Connection) -> Result<()> {
    let mut listener = client.get_connection()?;
    let mut pubsub = listener.as_pubsub();
    pubsub.subscribe(&["rs:news", "rs:more"])?;
    pubsub.psubscribe("rs:pat*")?;
    for number in 0..20 {
        let _: i64 = connection.publish("rs:news", number)?;
    }
    for number in 0..20 {
        assert_eq!(pubsub.get_message()?.get_payload::<i64>()?, number);
    }
    let _: i64 = connection.publish("rs:pattern", "hello")?;
    let message = pubsub.get_message()?;
    assert_eq!(
        message.get_pattern::<Option<String>>()?.as_deref(),
        Some("rs:pat*")
    );
    pubsub.unsubscribe("rs:news")?;
    Ok(())
}

fn check(address: &str) -> Result<()> {
    for protocol in ["", "?protocol=resp3"] {
        let client = Client::open(format!("redis://{address}/{protocol}"))?;
        let mut connection = client.get_connection()?;
        let _: () = redis::cmd("FLUSHALL").query(&mut connection)?;
        values(&mut connection)?;
        pipelines(&mut connection)?;
        transactions(&client, &mut connection)?;
        messages(&client, &mut connection)?;
    }
    Ok(())
}

#[test]
fn redis_rs_works_as_over_one_redis() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    check(&direct.address())?;
    check(&Gateway::over(&servers)?.address())
}
