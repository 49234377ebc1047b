//! What one mail server sends: its whole traffic as it was seen, and its deletion by prefix.
//!
//! The script is in `scripts/stalwart.txt`; here is only what needs a loop. Invariant: both sides end
//! with the same keys.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use breccia_testkit::{Reply, RespClient};

use crate::scripts;
use crate::twins::Twins;

const SCRIPT: (&str, &str) = ("stalwart", include_str!("scripts/stalwart.txt"));

/// Keys with the prefixes that are rate limits, and with those around them.
fn fill(client: &mut RespClient) -> Result<()> {
    for prefix in 0..=26_u8 {
        for number in 0..60_u32 {
            let mut key = vec![prefix];
            key.extend_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
            key.extend_from_slice(b"*?[");
            client.expect_ok(&[b"SET", &key, b"1"])?;
        }
    }
    Ok(())
}

/// SCAN with a raw prefix, DEL of each page, each on the next connection of the pool, until the cursor
/// is 0 again.
fn delete_by_prefix(pool: &mut [RespClient], prefix: u8) -> Result<i64> {
    let (mut cursor, mut deleted, mut turn) = (b"0".to_vec(), 0, 0);
    let pattern = [prefix, b'*'];
    loop {
        let client = pool.get_mut(turn % 3).context("a pool of three")?;
        assert_eq!(client.call(&[b"PING"])?, b"+PONG\r\n");
        let page = client.call(&[b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", b"100"])?;
        let page = Reply::parse(&page)?;
        let [next, keys] = page.elements() else {
            bail!("{page:?}")
        };
        let keys = keys.elements().iter().filter_map(Reply::bytes);
        let request: Vec<&[u8]> = std::iter::once(b"DEL".as_slice()).chain(keys).collect();
        if request.len() > 1 {
            let reply = Reply::parse(&client.call(&request)?)?;
            deleted += reply.integer().context("a count")?;
        }
        // The library reads it as an unsigned number; 0 is the end.
        cursor = next.bytes().context("a cursor")?.to_vec();
        let _number: u64 = std::str::from_utf8(&cursor)?.parse()?;
        if cursor == b"0" {
            return Ok(deleted);
        }
        turn += 1;
    }
}

fn keys(client: &mut RespClient) -> Result<BTreeSet<Vec<u8>>> {
    let reply = client.reply("KEYS *")?;
    Ok(reply
        .elements()
        .iter()
        .filter_map(Reply::bytes)
        .map(<[u8]>::to_vec)
        .collect())
}

fn check(version: u8) -> Result<()> {
    let twins = Twins::over(3)?;
    scripts::check(&twins, version, &[SCRIPT]);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let [one, other] = twins.clients(version)?;
        direct.push(one);
        through.push(other);
    }
    for pool in [&mut direct, &mut through] {
        fill(pool.first_mut().context("a pool of three")?)?;
    }
    for prefix in 2..=10 {
        let wanted = delete_by_prefix(&mut direct, prefix)?;
        assert!(wanted >= 60, "{prefix}: {wanted}");
        assert_eq!(delete_by_prefix(&mut through, prefix)?, wanted, "{prefix}");
    }
    let [one, other] = [&mut direct, &mut through].map(|pool| keys(&mut pool[0]));
    assert_eq!(one?, other?);
    Ok(())
}

#[test]
fn a_mail_servers_traffic_is_answered_as_by_redis_in_resp2() -> Result<()> {
    check(2)
}

#[test]
fn a_mail_servers_traffic_is_answered_as_by_redis_in_resp3() -> Result<()> {
    check(3)
}
