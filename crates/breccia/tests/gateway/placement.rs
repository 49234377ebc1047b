//! Where keys lie.
//!
//! The plain rule is `xxh3_64(key) mod n` in the order of the configuration. What a gateway refuses
//! to start over is in `refusals`. Invariant: where a key lies is read from the servers themselves,
//! never from Breccia.

use std::fmt::Write as _;

use anyhow::Result;
use breccia_core::HashKind;
use breccia_testkit::{Breccia, Redis, Reply, RespClient, free_port};

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

/// `outer` composites `c0`, `c1`, … of as many shards each as the servers give, in one, `all`.
fn nested(servers: &[Redis], outer: usize, port: u16) -> String {
    let mut text = "workers = 1\n".to_owned();
    let composite = |name: &str, members: &[String]| {
        let listed = members.join("\", \"");
        format!("[store.{name}]\ntype = \"sharded-in-memory\"\nstores = [\"{listed}\"]\n")
    };
    let mut tables = String::new();
    let inner = servers.len() / outer;
    for (index, redis) in servers.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[store.r{index}]\ntype = \"redis\"\nurl = \"{}\"",
            redis.url()
        );
    }
    for index in 0..outer {
        let members = (index * inner..(index + 1) * inner).map(|member| format!("r{member}"));
        tables += &composite(&format!("c{index}"), &members.collect::<Vec<_>>());
    }
    let all: Vec<String> = (0..outer).map(|index| format!("c{index}")).collect();
    tables += &composite("all", &all);
    format!(
        "{text}{tables}[listener.main]\nprotocol = \"redis\"\nstore = \"all\"\n\
         bind = \"127.0.0.1:{port}\"\n"
    )
}

#[test]
fn inner_composites_fill_evenly_whatever_the_counts_share() -> Result<()> {
    for (outer, inner) in [(2_usize, 2_usize), (3, 3), (2, 4)] {
        let count = outer * inner;
        let (servers, port) = (Redis::many(count)?, free_port()?);
        let mut breccia = Breccia::start(&nested(&servers, outer, port))?;
        let keys = keys(9_000);
        let client = || RespClient::connect(&format!("127.0.0.1:{port}"));
        write(&mut client()?, &keys)?;
        let mean = keys.len() / count;
        for (index, redis) in servers.iter().enumerate() {
            let held = lying_on(redis)?;
            assert!(
                held.len().abs_diff(mean) < mean / 5,
                "shard {index} of {outer} × {inner} holds {}",
                held.len()
            );
            for key in held {
                assert_eq!(
                    plain_rule(&key, outer),
                    index / inner,
                    "the outer composite keeps the plain rule"
                );
            }
        }
        // Every list of the file the other way round: the layouts know the order.
        let reversed: Vec<String> = nested(&servers, outer, port)
            .lines()
            .map(reversed_list)
            .collect();
        breccia.restart(&reversed.join("\n"))?;
        assert_eq!(found(&mut client()?, &keys)?, keys.len());
    }
    Ok(())
}

/// A line `stores = [...]` the other way round; any other as it is.
fn reversed_list(line: &str) -> String {
    let list = line.strip_prefix("stores = [");
    let Some(list) = list.and_then(|list| list.strip_suffix(']')) else {
        return line.to_owned();
    };
    let mut members: Vec<&str> = list.split(", ").collect();
    members.reverse();
    format!("stores = [{}]", members.join(", "))
}

#[test]
fn each_hash_places_by_its_own_plain_rule() -> Result<()> {
    for hash in HashKind::ALL {
        let servers = Redis::many(3)?;
        let config = Config::new("redis")?.over(&servers);
        let gateway = config.composite(&format!("hash = \"{hash}\"")).start()?;
        write(&mut gateway.client()?, &keys(600))?;
        let mut seen = 0;
        for (index, redis) in (0_u64..).zip(&servers) {
            for key in lying_on(redis)? {
                assert_eq!(hash.hash(&key) % 3, index, "{hash} {}", key.escape_ascii());
                seen += 1;
            }
        }
        assert_eq!(seen, 600, "{hash}");
    }
    Ok(())
}

#[test]
fn with_a_hash_tag_only_the_tag_is_hashed() -> Result<()> {
    let servers = Redis::many(3)?;
    let config = Config::new("redis")?.over(&servers);
    let gateway = config.composite("hash-tag = \"{}\"").start()?;
    write(&mut gateway.client()?, &keys(900))?;
    for (index, redis) in servers.iter().enumerate() {
        for key in lying_on(redis)? {
            let tagged = key.starts_with(b"{tag}");
            let hashed: &[u8] = if tagged { b"tag" } else { &key };
            assert_eq!(plain_rule(hashed, 3), index, "{}", key.escape_ascii());
        }
    }
    // Keys of one tag may be used together.
    let mut client = gateway.client()?;
    assert_eq!(client.words("SINTERSTORE {t}a {t}b {t}c")?, b":0\r\n");
    Ok(())
}

#[test]
fn keys_of_every_length_lie_where_the_plain_rule_puts_them() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let keys: Vec<Vec<u8>> = [
        0, 1, 2, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 1024, 70_000,
    ]
    .iter()
    .map(|length| vec![0xa5; *length])
    .collect();
    write(&mut gateway.client()?, &keys)?;
    assert_eq!(found(&mut gateway.client()?, &keys)?, keys.len());
    for (index, redis) in servers.iter().enumerate() {
        for key in lying_on(redis)? {
            assert_eq!(plain_rule(&key, 3), index, "{} bytes", key.len());
        }
    }
    Ok(())
}

#[test]
fn databases_of_one_server_are_shards_like_others() -> Result<()> {
    let redis = Redis::new()?;
    let config = (0..4).fold(Config::new("redis")?, |config, database| {
        let address = format!("{}/{database}", redis.address());
        config.redis(&format!("db{database}"), &address, "")
    });
    let gateway = config.start()?;
    let keys = keys(2_000);
    write(&mut gateway.client()?, &keys)?;
    let mut direct = redis.client()?;
    for database in 0..4 {
        direct.expect_ok(&[b"SELECT", database.to_string().as_bytes()])?;
        let reply = direct.reply("KEYS *")?;
        for key in reply.elements().iter().filter_map(Reply::bytes) {
            assert_eq!(plain_rule(key, 4), database, "{}", key.escape_ascii());
        }
        assert!(reply.elements().len() > 400, "{database}");
    }
    assert_eq!(gateway.client()?.words("DBSIZE")?, b":2000\r\n");
    // FLUSHALL is for this store's databases only.
    direct.expect_ok(&[b"SELECT", b"9"])?;
    direct.expect_ok(&[b"SET", b"ours", b"not"])?;
    gateway.client()?.expect_ok(&[b"FLUSHALL"])?;
    assert_eq!(gateway.client()?.words("DBSIZE")?, b":0\r\n");
    assert_eq!(direct.words("GET ours")?, b"$3\r\nnot\r\n");
    Ok(())
}

#[test]
fn explain_names_the_server_on_which_a_key_lies() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let config = gateway.breccia.config_path();
    for key in keys(30) {
        write(&mut gateway.client()?, std::slice::from_ref(&key))?;
        let mut digits = String::new();
        for byte in &key {
            let _ = write!(digits, "{byte:02x}");
        }
        let arguments = [
            "explain",
            "--config",
            &config.to_string_lossy(),
            "--hex",
            "all",
            &digits,
        ];
        let output = Breccia::run(std::env::temp_dir().as_path(), &arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let server = &servers[plain_rule(&key, 3)];
        assert!(
            text.contains(&format!("server   {}/0", server.address())),
            "{text}"
        );
        assert!(lying_on(server)?.contains(&key));
    }
    Ok(())
}
