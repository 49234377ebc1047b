//! SCAN and its kin over all shards: the sets of keys that one Redis gives.
//!
//! Invariant: a key that is there from the first step of a scan to its last is given at least once.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use breccia_testkit::{Reply, RespClient, resp};

use crate::twins::Twins;

fn write(client: &mut RespClient, requests: &[String]) -> Result<()> {
    for batch in requests.chunks(200) {
        let words = batch.iter().map(String::as_str).collect::<Vec<_>>();
        for reply in client.pipeline(&words)? {
            assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        }
    }
    Ok(())
}

/// Every key a scan gives; `between` is called after each step.
fn scan(
    client: &mut RespClient,
    options: &str,
    mut between: impl FnMut() -> Result<()>,
) -> Result<BTreeSet<Vec<u8>>> {
    let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
    for _ in 0..10_000 {
        let page = client.reply(&format!("SCAN {cursor} {options}"))?;
        let [next, keys] = page.elements() else {
            bail!("SCAN {cursor} {options}: {page:?}")
        };
        found.extend(
            keys.elements()
                .iter()
                .filter_map(Reply::bytes)
                .map(<[u8]>::to_vec),
        );
        cursor = String::from_utf8(next.bytes().context("a cursor")?.to_vec())?;
        let _signed: i64 = cursor.parse()?;
        if cursor == "0" {
            return Ok(found);
        }
        between()?;
    }
    bail!("a scan without an end")
}

fn fill(client: &mut RespClient) -> Result<()> {
    let mut requests: Vec<String> = (0..600).map(|number| format!("SET s{number} v")).collect();
    requests.extend((0..200).map(|number| format!("RPUSH l{number} v")));
    requests.extend((0..100).map(|number| format!("HSET h{number} f v")));
    write(client, &requests)?;
    client.send(&resp::encode(&[b"SET", b"\x00\xff\r\n*?[", b"v"]))?;
    client.read_reply()?;
    Ok(())
}

#[test]
fn scans_give_the_keys_that_one_redis_gives() -> Result<()> {
    for (shards, version) in [(1, 2), (3, 3), (5, 2)] {
        let twins = Twins::over(shards)?;
        let [mut direct, mut through] = twins.clients(version)?;
        fill(&mut direct)?;
        fill(&mut through)?;
        for options in [
            "",
            "COUNT 1",
            "COUNT 7",
            "COUNT 5000",
            "MATCH s1*",
            "MATCH s1* COUNT 1000",
            "MATCH *[37]",
            "MATCH nothing",
            "TYPE list",
            "TYPE hash COUNT 50",
            "TYPE nosuch",
            "match S* type STRING count 100",
            "MATCH l* TYPE list COUNT 3",
        ] {
            let wanted = scan(&mut direct, options, || Ok(()))?;
            let found = scan(&mut through, options, || Ok(()))?;
            assert_eq!(wanted, found, "SCAN {options} over {shards} shards");
        }
        for pattern in ["*", "s?", "l1*", "*\u{ff}*", "[hl]1"] {
            let request = format!("KEYS {pattern}");
            assert_eq!(
                direct.reply(&request)?.sorted(),
                through.reply(&request)?.sorted()
            );
        }
        assert_eq!(direct.words("DBSIZE")?, through.words("DBSIZE")?);
    }
    Ok(())
}

#[test]
fn a_scan_goes_on_where_another_connection_left_it() -> Result<()> {
    let twins = Twins::over(3)?;
    let [_, mut filler] = twins.clients(2)?;
    fill(&mut filler)?;
    let mut pool = (0..5)
        .map(|_| twins.gateway.client())
        .collect::<Result<Vec<_>>>()?;
    let (mut cursor, mut found, mut turn) = ("0".to_owned(), BTreeSet::new(), 0);
    loop {
        let page = pool[turn % 5].reply(&format!("SCAN {cursor} COUNT 20"))?;
        found.extend(
            page.elements()[1]
                .elements()
                .iter()
                .filter_map(Reply::bytes)
                .map(<[u8]>::to_vec),
        );
        cursor = String::from_utf8(page.elements()[0].bytes().context("a cursor")?.to_vec())?;
        if cursor == "0" {
            break;
        }
        turn += 1;
    }
    assert_eq!(found.len(), 901);
    Ok(())
}

#[test]
fn keys_that_stay_are_found_while_others_come_and_go() -> Result<()> {
    let twins = Twins::over(3)?;
    let [_, mut client] = twins.clients(2)?;
    let [_, mut other] = twins.clients(2)?;
    let stays: Vec<String> = (0..500)
        .map(|number| format!("SET stay{number} v"))
        .collect();
    write(&mut client, &stays)?;
    let mut number = 0;
    let found = scan(&mut client, "COUNT 10", || {
        number += 1;
        let comes = (0..40).map(|more| format!("SET comes{number}-{more} v"));
        let goes = (0..40).map(|more| format!("DEL comes{}-{more}", number - 1));
        write(&mut other, &comes.chain(goes).collect::<Vec<_>>())
    })?;
    let missed = (0..500).filter(|number| !found.contains(format!("stay{number}").as_bytes()));
    assert_eq!(missed.count(), 0);
    Ok(())
}

#[test]
fn a_random_key_is_one_of_any_shard() -> Result<()> {
    let twins = Twins::over(3)?;
    let [_, mut client] = twins.clients(2)?;
    let keys: Vec<String> = (0..9).map(|number| format!("SET k{number} v")).collect();
    write(&mut client, &keys)?;
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        let reply = client.reply("RANDOMKEY")?;
        seen.insert(reply.bytes().context("a key")?.to_vec());
    }
    // Each of nine is missed by 300 draws once in 10^15, if every shard is drawn alike.
    assert_eq!(seen.len(), 9);
    Ok(())
}
