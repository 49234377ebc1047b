//! Scripts over several shards: known on all once one has run them.
//!
//! Invariant: what one Redis answers to EVALSHA, shards answer too, whichever ran the script.

use std::time::Duration;

use anyhow::Result;
use breccia_testkit::{Redis, RespClient, resp, wait_until};

use crate::common::{Config, Gateway, key_on};

/// The name of `return KEYS[1]`.
const NAME: &str = "4a2267357833227dd98abdedb8cf24b15a986445";
const NOSCRIPT: &[u8] = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";

fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

fn keys(shards: u64) -> Vec<String> {
    (0..shards)
        .map(|shard| key_on(shard, shards, "k"))
        .collect()
}

fn by_name(client: &mut RespClient, key: &str) -> Result<Vec<u8>> {
    client.call(&[b"EVALSHA", NAME.as_bytes(), b"1", key.as_bytes()])
}

fn eval(client: &mut RespClient, key: &str) -> Result<Vec<u8>> {
    client.call(&[b"EVAL", b"return KEYS[1]", b"1", key.as_bytes()])
}

#[test]
fn a_script_that_one_shard_ran_is_known_on_all() -> Result<()> {
    for (shards, version) in [(1, "2"), (1, "3"), (3, "2"), (3, "3")] {
        let servers = Redis::many(usize::try_from(shards)?)?;
        let gateway = Gateway::over(&servers)?;
        let mut client = gateway.client()?;
        client.words(&format!("HELLO {version}"))?;
        let keys = keys(shards);
        for key in &keys {
            assert_eq!(by_name(&mut client, key)?, NOSCRIPT);
        }
        assert_eq!(
            client.words(&format!("SCRIPT EXISTS {NAME}"))?,
            b"*1\r\n:0\r\n"
        );
        assert_eq!(eval(&mut client, &keys[0])?, bulk(&keys[0]));
        // Another client, which may be another worker's.
        for _ in 0..4 {
            let mut other = gateway.client()?;
            for key in &keys {
                assert_eq!(by_name(&mut other, key)?, bulk(key));
                assert_eq!(by_name(&mut other, key)?, bulk(key));
            }
            let read_only = format!("EVALSHA_RO {} 1 {}", NAME.to_uppercase(), keys[0]);
            assert_eq!(other.words(&read_only)?, bulk(&keys[0]));
            assert_eq!(other.words(&format!("EVALSHA {NAME} 1"))?[0], b'-');
        }
        let unknown = "f".repeat(40);
        let exists = client.words(&format!("SCRIPT EXISTS {NAME} {unknown} x"))?;
        assert_eq!(exists, b"*3\r\n:1\r\n:0\r\n:0\r\n");
        assert_eq!(client.words("SCRIPT FLUSH")?, b"+OK\r\n");
        for key in &keys {
            assert_eq!(by_name(&mut client, key)?, NOSCRIPT);
        }
    }
    Ok(())
}

#[test]
fn a_pipeline_may_name_the_script_it_has_just_shown() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let keys = keys(3);
    let mut client = gateway.client()?;
    let mut requests = resp::encode(&[b"EVAL", b"return KEYS[1]", b"1", keys[0].as_bytes()]);
    for key in &keys {
        let request: [&[u8]; 4] = [b"EVALSHA", NAME.as_bytes(), b"1", key.as_bytes()];
        requests.extend(resp::encode(&request));
    }
    client.send(&requests)?;
    let mut replies = Vec::new();
    for _ in 0..=keys.len() {
        replies.push(client.read_reply()?);
    }
    for (reply, key) in replies.iter().skip(1).zip(&keys) {
        assert_eq!(*reply, bulk(key));
    }
    Ok(())
}

#[test]
fn a_shard_that_was_started_again_is_told_its_scripts() -> Result<()> {
    let mut servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let keys = keys(3);
    let mut client = gateway.client()?;
    let loaded = client.call(&[b"SCRIPT", b"LOAD", b"return KEYS[1]"])?;
    assert_eq!(loaded, bulk(NAME));
    for key in &keys {
        assert_eq!(by_name(&mut client, key)?, bulk(key));
    }
    servers[1].kill9();
    servers[1].restart_same_port()?;
    let healed = wait_until(Duration::from_secs(5), "the shard", || {
        let reply = by_name(&mut client, &keys[1])?;
        assert!(!reply.starts_with(b"-NOSCRIPT"), "the script was not told");
        Ok((!reply.starts_with(b"-")).then_some(reply))
    })?;
    assert_eq!(healed, bulk(&keys[1]));
    // A flush that Breccia did not see costs one NOSCRIPT for each connection.
    servers[0].client()?.words("SCRIPT FLUSH")?;
    assert_eq!(by_name(&mut client, &keys[0])?, NOSCRIPT);
    assert_eq!(by_name(&mut client, &keys[0])?, bulk(&keys[0]));
    Ok(())
}

#[test]
fn scripts_are_known_within_transactions() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let keys = keys(3);
    let mut client = gateway.client()?;
    assert_eq!(eval(&mut client, &keys[0])?, bulk(&keys[0]));
    for key in &keys {
        for first in ["PING", "ECHO x"] {
            let named = format!("EVALSHA {NAME} 1 {key}");
            let replies = client.pipeline(&["MULTI", first, &named, &named, "EXEC"])?;
            assert_eq!(replies[2], b"+QUEUED\r\n");
            let last = [bulk(key), bulk(key)].concat();
            assert!(replies[4].ends_with(&last), "{}", replies[4].escape_ascii());
            let watched = format!("WATCH {key}");
            let replies = client.pipeline(&[&watched, &named, "MULTI", &named, "EXEC"])?;
            assert_eq!(replies[1], bulk(key));
            assert!(replies[4].ends_with(&bulk(key)));
        }
    }
    Ok(())
}

#[test]
fn what_is_no_script_is_not_kept() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let body = "this is no lua";
    let refused = client.call(&[b"EVAL", body.as_bytes(), b"1", b"k"])?;
    assert!(refused.starts_with(b"-ERR Error compiling script"));
    let refused = client.call(&[b"SCRIPT", b"LOAD", body.as_bytes()])?;
    assert!(refused.starts_with(b"-ERR Error compiling script"));
    let name = "ba441c2266862df3fa98c95f8b78ce150afee1bc";
    assert_eq!(client.words(&format!("EVALSHA {name} 1 k"))?, NOSCRIPT);
    // A script that fails is a script all the same.
    let fails = "return redis.call('INCR', KEYS[1], 'x')";
    let failed = client.call(&[b"EVAL", fails.as_bytes(), b"1", b"k"])?;
    assert!(failed.starts_with(b"-ERR"));
    Ok(())
}

#[test]
fn long_scripts_and_long_arguments_arrive() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Config::new("redis")?.over(&servers).start()?;
    let mut client = gateway.client()?;
    let keys = keys(3);
    let argument = vec![b'x'; 200_000];
    for key in &keys {
        eval(&mut client, key)?;
        let reply = client.call(&[b"EVALSHA", NAME.as_bytes(), b"1", key.as_bytes(), &argument])?;
        assert_eq!(reply, bulk(key));
    }
    let body = format!("return KEYS[1] --{}", "y".repeat(100_000));
    for key in &keys {
        let reply = client.call(&[b"EVAL", body.as_bytes(), b"1", key.as_bytes()])?;
        assert_eq!(reply, bulk(key));
    }
    Ok(())
}
