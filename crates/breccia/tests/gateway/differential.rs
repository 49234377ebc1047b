//! The same commands direct and through Breccia: equal bytes.
//!
//! Each script runs against a fresh Redis and, with the same history, through a gateway over one shard
//! and over three, in RESP2 and RESP3. What the server's own tips call nondeterministic compares as a
//! set or by shape. Invariant: every command of the table that has keys is in a script, or in
//! [`LEFT_OUT`] with its reason.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use breccia_kv::resp::commands::{self, COMMANDS, CommandSpec, KeyFlags};
use breccia_testkit::{Redis, Reply, RespClient};

use crate::common::{Config, Gateway};
use crate::words::split;

const SINGLE: [(&str, &str); 10] = [
    ("strings", include_str!("scripts/strings.txt")),
    ("bitmaps", include_str!("scripts/bitmaps.txt")),
    ("lists", include_str!("scripts/lists.txt")),
    ("sets", include_str!("scripts/sets.txt")),
    ("sorted sets", include_str!("scripts/sorted_sets.txt")),
    ("hashes", include_str!("scripts/hashes.txt")),
    ("streams", include_str!("scripts/streams.txt")),
    ("generic", include_str!("scripts/generic.txt")),
    ("transactions", include_str!("scripts/transactions.txt")),
    ("sessions", include_str!("scripts/sessions.txt")),
];

const MULTI: (&str, &str) = ("several keys", include_str!("scripts/multi.txt"));

/// Commands with keys that no script can hold, and why.
const LEFT_OUT: [(&str, &str); 5] = [
    ("pfdebug", "refused: for administrators of one server"),
    ("move", "refused: another database of a shard is not ours"),
    ("migrate", "refused: it would move keys past the layout"),
    (
        "restore-asking",
        "for servers of a cluster among themselves",
    ),
    ("spublish", "a channel, not a key: see pubsub.rs"),
];

/// Replies that hold times, though no tip of the server's says so.
const WITH_TIMES: [&str; 1] = ["XINFO STREAM x:b FULL"];

fn lines(script: &'static str) -> impl Iterator<Item = (&'static str, Vec<Vec<u8>>)> {
    let lines = script
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        (
            line,
            split(line).unwrap_or_else(|error| panic!("{line}: {error}")),
        )
    })
}

fn spec_of(request: &[Vec<u8>]) -> Option<&'static CommandSpec> {
    let spec = commands::find(request.first()?)?;
    Some(
        request
            .get(1)
            .and_then(|word| spec.subcommand(word))
            .unwrap_or(spec),
    )
}

/// How two replies to one request may differ.
fn comparable(line: &str, request: &[Vec<u8>], reply: &[u8]) -> Result<String> {
    let Some(spec) = spec_of(request) else {
        return Ok(reply.escape_ascii().to_string());
    };
    let parsed = Reply::parse(reply)?;
    let scan = spec.name.ends_with("scan");
    Ok(if parsed.error().is_some() {
        reply.escape_ascii().to_string()
    } else if scan {
        format!("{:?}", all_sorted(parsed))
    } else if spec.nondeterministic_output || WITH_TIMES.contains(&line) {
        parsed.shape()
    } else if spec.nondeterministic_order {
        format!("{:?}", pairs_or_set(&request[0], parsed))
    } else {
        reply.escape_ascii().to_string()
    })
}

/// The elements in sorted order; RESP2's HGETALL is a flat array of pairs.
fn pairs_or_set(command: &[u8], reply: Reply) -> Reply {
    match reply {
        Reply::Array(all) if command.eq_ignore_ascii_case(b"hgetall") => Reply::Map(all).sorted(),
        other => other.sorted(),
    }
}

fn all_sorted(reply: Reply) -> Reply {
    match reply {
        Reply::Array(all) => Reply::Array(all.into_iter().map(all_sorted).collect()).sorted(),
        other => other,
    }
}

/// Runs one script on both sides; the differences found.
fn differences(
    script: &'static str,
    direct: &mut RespClient,
    through: &mut RespClient,
) -> Result<Vec<String>> {
    let mut differences = Vec::new();
    for (line, request) in lines(script) {
        let arguments: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let wanted = direct
            .call(&arguments)
            .with_context(|| format!("direct: {line}"))?;
        let found = through
            .call(&arguments)
            .with_context(|| format!("through: {line}"))?;
        if comparable(line, &request, &wanted)? != comparable(line, &request, &found)? {
            let (wanted, found) = (wanted.escape_ascii(), found.escape_ascii());
            differences.push(format!("{line}\n  direct:  {wanted}\n  through: {found}"));
        }
    }
    Ok(differences)
}

fn check(
    shards: usize,
    version: &str,
    hash_tag: bool,
    scripts: &[(&str, &'static str)],
) -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(shards)?);
    let config = Config::new("redis")?.over(&servers);
    let config = if hash_tag {
        config.composite("hash-tag = \"{}\"")
    } else {
        config
    };
    let gateway = config.start()?;
    let (mut one, mut other) = (direct.client()?, gateway.client()?);
    for client in [&mut one, &mut other] {
        client.words(&format!("HELLO {version}"))?;
    }
    let mut found = Vec::new();
    for (name, script) in scripts {
        for difference in differences(script, &mut one, &mut other)? {
            found.push(format!("{name}: {difference}"));
        }
    }
    let what = format!(
        "{} differences over {shards} shards, RESP{version}",
        found.len()
    );
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn one_shard_answers_as_redis_in_resp2() -> Result<()> {
    check(1, "2", false, &SINGLE)?;
    check(1, "2", false, &[MULTI])
}

#[test]
fn one_shard_answers_as_redis_in_resp3() -> Result<()> {
    check(1, "3", false, &SINGLE)?;
    check(1, "3", false, &[MULTI])
}

#[test]
fn three_shards_answer_as_redis_in_resp2() -> Result<()> {
    check(3, "2", false, &SINGLE)?;
    check(3, "2", true, &[MULTI])
}

#[test]
fn three_shards_answer_as_redis_in_resp3() -> Result<()> {
    check(3, "3", false, &SINGLE)?;
    check(3, "3", true, &[MULTI])
}

#[test]
fn restored_values_are_the_dumped_ones() -> Result<()> {
    let (direct, servers) = (Redis::new()?, Redis::many(3)?);
    let gateway = Gateway::over(&servers)?;
    let (mut one, mut other) = (direct.client()?, gateway.client()?);
    for setup in [
        "SET s v",
        "RPUSH l a b c",
        "HSET h f v",
        "ZADD z 1.5 m",
        "XADD x 1-1 f v",
    ] {
        assert_eq!(one.words(setup)?, other.words(setup)?);
        let key = setup.split(' ').nth(1).context("a key")?;
        let (dump, same) = (
            one.words(&format!("DUMP {key}"))?,
            other.words(&format!("DUMP {key}"))?,
        );
        assert_eq!(dump, same, "{setup}");
        let payload = Reply::parse(&dump)?;
        let payload = payload.bytes().context("a payload")?;
        let copy = format!("copy-of-{key}");
        let request = [b"RESTORE".as_slice(), copy.as_bytes(), b"0", payload];
        assert_eq!(other.call(&request)?, b"+OK\r\n", "{setup}");
        assert_eq!(other.words(&format!("DUMP {copy}"))?, dump, "{setup}");
    }
    Ok(())
}

#[test]
fn one_pipeline_over_all_shards_keeps_its_order() -> Result<()> {
    let servers = Redis::many(3)?;
    let gateway = Gateway::over(&servers)?;
    let mut client = gateway.client()?;
    let requests: Vec<String> = (0..3000)
        .map(|number| match number % 3 {
            0 => format!("SET k{number} {number}"),
            1 => format!("GET k{}", number - 1),
            _ => format!("APPEND k{} x", number - 2),
        })
        .collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    for (number, reply) in client.pipeline(&requests)?.into_iter().enumerate() {
        let wanted = match number % 3 {
            0 => "+OK\r\n".to_owned(),
            1 => {
                let value = (number - 1).to_string();
                format!("${}\r\n{value}\r\n", value.len())
            }
            _ => format!(":{}\r\n", (number - 2).to_string().len() + 1),
        };
        assert_eq!(reply, wanted.as_bytes(), "request {number}");
    }
    Ok(())
}

#[test]
fn every_command_with_keys_is_in_a_script() {
    let mut used = BTreeSet::new();
    for (_, script) in SINGLE.iter().chain([&MULTI]) {
        for (_, request) in lines(script) {
            used.insert(request[0].to_ascii_lowercase());
            used.insert(
                request
                    .iter()
                    .take(2)
                    .map(|word| word.to_ascii_lowercase())
                    .collect::<Vec<_>>()
                    .join(&b'|'),
            );
        }
    }
    let has_keys = |spec: &CommandSpec| {
        spec.keys
            .iter()
            .any(|key| !key.flags.contains(KeyFlags::NOT_KEY))
    };
    let mut missing = Vec::new();
    for spec in COMMANDS {
        let own = has_keys(spec).then(|| spec.name.to_owned());
        let inner = spec.subcommands.iter().filter(|sub| has_keys(sub));
        for name in own
            .into_iter()
            .chain(inner.map(|sub| format!("{}|{}", spec.name, sub.name)))
        {
            let left_out = LEFT_OUT.iter().any(|(other, _)| *other == name);
            if !left_out && !used.contains(name.as_bytes()) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "in no script: {}", missing.join(" "));
}
