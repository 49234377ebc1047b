//! Commands over several shards while one of them is dead.
//!
//! Invariant: the whole reply is one error that names the shard, and for writes says what became of
//! each part; what it says is what the shards hold.

use anyhow::Result;
use breccia_testkit::Redis;

use crate::common::{Gateway, key_on};
use crate::driver::among_others;

#[test]
fn a_command_over_a_dead_shard_is_one_error_that_tells_the_truth() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3, "m")).collect();
    let (all, live) = (keys.join(" "), format!("{} {}", keys[0], keys[2]));
    client.words(&format!("MSET {} 0 {} 0 {} 0", keys[0], keys[1], keys[2]))?;
    servers[1].kill9();
    let mut check = |request: &str, parts: &[&str]| -> Result<()> {
        let reply = client.words(request)?.escape_ascii().to_string();
        assert!(
            reply.starts_with("-SHARDDOWN all/r1 "),
            "{request}: {reply}"
        );
        for part in parts {
            assert!(
                reply.contains(part),
                "{request}: {part:?} is missing in {reply}"
            );
        }
        Ok(())
    };
    let writes = ["applied on all/r0, all/r2", "not applied on all/r1"];
    check(&format!("MGET {all}"), &[])?;
    check(&format!("EXISTS {all}"), &[])?;
    check(
        &format!("MSET {} 1 {} 1 {} 1", keys[0], keys[1], keys[2]),
        &writes,
    )?;
    check(&format!("DEL {all}"), &writes)?;
    check(&format!("UNLINK {all}"), &writes)?;
    check("DBSIZE", &[])?;
    check("KEYS *", &[])?;
    check("FLUSHDB", &writes)?;
    assert_eq!(
        client.words(&format!("MGET {live}"))?,
        b"*2\r\n$-1\r\n$-1\r\n"
    );
    assert_eq!(
        client.words(&format!("MSET {} 7 {} 7", keys[0], keys[2]))?,
        b"+OK\r\n"
    );
    assert_eq!(client.words(&format!("DEL {live}"))?, b":2\r\n");
    Ok(())
}

#[test]
fn parts_of_a_write_are_on_the_shards_that_the_error_names() -> Result<()> {
    let _others = among_others();
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    servers[2].kill9();
    let pairs: Vec<String> = (0..90)
        .map(|number| format!("w{number} {number}"))
        .collect();
    let reply = client
        .words(&format!("MSET {}", pairs.join(" ")))?
        .escape_ascii()
        .to_string();
    assert!(
        reply.contains("applied on all/r0, all/r1; not applied on all/r2"),
        "{reply}"
    );
    for number in 0..90_u64 {
        let key = format!("w{number}");
        let home = breccia_core::HashKind::Xxh3_64.hash(key.as_bytes()) % 3;
        if home == 2 {
            continue;
        }
        let server = &servers[usize::try_from(home)?];
        let found = server.client()?.reply(&format!("GET {key}"))?;
        assert_eq!(found.bytes(), Some(number.to_string().as_bytes()), "{key}");
    }
    Ok(())
}
