//! Where keys lie.
//!
//! The plain rule is `xxh3_64(key) mod n` in the order of the configuration. What a gateway refuses
//! to start over is in `refusals`. Invariant: where a key lies is read from the servers themselves,
//! never from Breccia.

use std::fmt::Write as _;

use anyhow::Result;
use breccia_core::HashKind;
use breccia_testkit::{Breccia, Redis, RespClient, free_port};

use crate::common::{Config, Gateway};
use crate::keys::{found, keys, lying_on, plain_rule, write};

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
