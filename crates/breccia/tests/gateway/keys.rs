//! Many keys, text and binary, and where they lie.
//!
//! Not assertions about placement. Invariant: where a key lies is read from the servers themselves,
//! never from Breccia.

use anyhow::Result;
use breccia_core::HashKind;
use breccia_testkit::{Redis, Reply, RespClient, resp};

/// Text keys and binary ones.
pub(crate) fn keys(count: u32) -> Vec<Vec<u8>> {
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
pub(crate) fn write(client: &mut RespClient, keys: &[Vec<u8>]) -> Result<()> {
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
pub(crate) fn found(client: &mut RespClient, keys: &[Vec<u8>]) -> Result<usize> {
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
pub(crate) fn lying_on(redis: &Redis) -> Result<Vec<Vec<u8>>> {
    let reply = redis.client()?.reply("KEYS *")?;
    Ok(reply
        .elements()
        .iter()
        .filter_map(Reply::bytes)
        .map(<[u8]>::to_vec)
        .collect())
}

/// The shard the plain rule `xxh3_64(key) mod n` puts a key on.
pub(crate) fn plain_rule(key: &[u8], count: usize) -> usize {
    usize::try_from(HashKind::Xxh3_64.hash(key) % count as u64).unwrap_or_default()
}
