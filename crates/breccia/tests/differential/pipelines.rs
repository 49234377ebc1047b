//! Pipelines of mixed commands, cut at any byte: the same bytes come back.
//!
//! `BRECCIA_SOAK=1000` sends that many pipelines a client. Invariant: requests and cuts are drawn from a
//! fixed seed, so a failure can be repeated.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use breccia_testkit::resp;

use crate::compare;
use crate::twins::{Twins, difference, none};
use crate::words::split;

/// Numbers from a fixed seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        breccia_core::hash::splitmix64(self.0) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or(0)]
    }
}

/// Requests that mix everything; `N` is a small number, so that they meet on the same keys.
const REQUESTS: &[&str] = &[
    "SET sN vN",
    "SET sN N",
    "GET sN",
    "INCR sN",
    "APPEND sN tail",
    "STRLEN sN",
    "GETRANGE sN 0 2",
    "DEL sN",
    "SETEX sN 1000 v",
    "RPUSH lN a N",
    "LPOP lN",
    "LRANGE lN 0 -1",
    "BLPOP lN 0.001",
    "HSET hN f N",
    "HGET hN f",
    "HINCRBY hN n N",
    "ZADD zN N m",
    "ZRANGE zN 0 -1 WITHSCORES",
    "SADD tN N",
    "SMEMBERS tN",
    "XADD xN * f v",
    "XLEN xN",
    "MGET sN sN1 sN2 lN none sN",
    "MSET sN N sN1 N sN2 N",
    "DEL sN lN hN",
    "EXISTS sN sN1 sN2 lN hN none",
    "UNLINK sN1 sN2",
    "PING",
    "ECHO N",
    "NOSUCH N",
    "GET",
    "LPUSH sN x",
    "OBJECT ENCODING sN",
    "EVAL \"return redis.call('GET', KEYS[1])\" 1 sN",
    "SET sN @@",
    "TYPE sN",
    "SELECT 0",
    "CLIENT GETNAME",
    "KEYS nothing",
    "HELLO 2",
    "HELLO 3",
    "RESET",
    "UNWATCH",
    "EXEC",
    "DISCARD",
    "SCRIPT EXISTS N",
    "PUBLISH nobody N",
    "COPY sN sN",
    "RANDOMKEY x",
    "FLUSHDB NEVER",
    "MULTI",
    "WATCH sN",
];

/// What follows a MULTI or a WATCH: all of it on one key.
const TRANSACTION: &[&str] = &["SET sN q", "GET sN", "INCR sN", "GET", "TYPE sN"];

fn request(line: &str, number: u64, dice: &mut Dice) -> Vec<Vec<u8>> {
    let words = split(&line.replace('N', &number.to_string())).expect("a good line");
    let size = dice.below(200_000);
    let value = || {
        (0..size)
            .map(|index| u8::try_from(index % 253).unwrap_or(0))
            .collect()
    };
    words
        .into_iter()
        .map(|word| if word == b"@@" { value() } else { word })
        .collect()
}

/// Requests on the six keys of each type that are this client's own.
fn requests(count: usize, client: u64, dice: &mut Dice) -> Vec<Vec<Vec<u8>>> {
    let mut requests = Vec::new();
    while requests.len() < count {
        let number = client * 10 + dice.below(6);
        let line = dice.pick(REQUESTS);
        requests.push(request(line, number, dice));
        if line == "MULTI" || line.starts_with("WATCH") {
            if line.starts_with("WATCH") {
                requests.push(request("MULTI", number, dice));
            }
            for _ in 0..dice.below(4) {
                let line = dice.pick(TRANSACTION);
                requests.push(request(line, number, dice));
            }
            let end = dice.pick(&["EXEC", "EXEC", "DISCARD"]);
            requests.push(request(end, number, dice));
        }
    }
    requests
}

/// As an array, or as a person would type it where that is possible.
fn encode(request: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let typed = request
        .iter()
        .all(|word| word.iter().all(u8::is_ascii_alphanumeric));
    if typed && dice.below(4) == 0 {
        let mut line = request.join(&b' ');
        line.extend_from_slice(if dice.below(2) == 0 { b"\r\n" } else { b"\n" });
        return line;
    }
    resp::encode(&request.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn send_in_pieces(mut sender: TcpStream, bytes: &[u8], mut dice: Dice) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // Mostly a few bytes, now and then a lot.
        let most = [3, 40, 500, 100_000][usize::try_from(dice.below(4)).unwrap_or(0)];
        let length = usize::try_from(1 + dice.below(most))
            .unwrap_or(1)
            .min(rest.len());
        let (piece, after) = rest.split_at(length);
        sender.write_all(piece)?;
        if dice.below(20) == 0 {
            std::thread::sleep(Duration::from_micros(300));
        }
        rest = after;
    }
    Ok(())
}

/// How many pipelines a test sends; more with `BRECCIA_SOAK`.
fn turns() -> u32 {
    let wanted = std::env::var("BRECCIA_SOAK")
        .ok()
        .and_then(|text| text.parse().ok());
    wanted.unwrap_or(12)
}

/// Sends pipelines of one client, numbered from 1 to 9, and compares what comes back.
fn play(twins: &Twins, version: u8, client: u64, seed: u64) -> Result<Vec<String>> {
    let mut dice = Dice(seed);
    let mut differences = Vec::new();
    for turn in 0..turns() {
        let [mut direct, mut through] = twins.clients(version)?;
        let requests = requests(150, client, &mut dice);
        let bytes = requests
            .iter()
            .flat_map(|request| encode(request, &mut dice))
            .collect::<Vec<_>>();
        // What is sent must not wait for somebody to read: both directions at once.
        let sender = through.sender()?;
        let cuts = Dice(seed ^ u64::from(turn) << 32);
        let sending = std::thread::spawn(move || send_in_pieces(sender, &bytes, cuts));
        for request in requests {
            let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
            let wanted = direct.call(&words)?;
            let found = through.read_reply().with_context(|| format!("{words:?}"))?;
            if !compare::alike(compare::how(&request), &request, &wanted, &found)? {
                let what = request.join(&b' ').escape_ascii().to_string();
                differences.push(difference(&what, &wanted, &found));
            }
        }
        sending.join().expect("the sender does not panic")?;
    }
    Ok(differences)
}

fn check(shards: usize, version: u8, seed: u64, members: &str) -> Result<()> {
    let twins = Twins::with(shards, "", members)?;
    let what = format!("over {shards} shards, RESP{version}, seed {seed}");
    none(&what, &play(&twins, version, 1, seed)?);
    Ok(())
}

#[test]
fn pipelines_cut_anywhere_answer_as_redis_over_one_shard() -> Result<()> {
    check(1, 3, 1_000, "")?;
    check(1, 2, 2_000, "connections = 2")
}

#[test]
fn pipelines_cut_anywhere_answer_as_redis_over_three_shards() -> Result<()> {
    check(3, 2, 3_000, "")?;
    check(3, 3, 4_000, "connections = 3")
}

#[test]
fn clients_at_once_are_answered_as_if_each_were_alone() -> Result<()> {
    let twins = Twins::over(3)?;
    std::thread::scope(|scope| {
        let play = |client| {
            play(
                &twins,
                2 + u8::from(client % 2 == 0),
                client,
                5_000 * client,
            )
        };
        let playing: Vec<_> = (1..=8)
            .map(|client| scope.spawn(move || play(client)))
            .collect();
        for (client, playing) in playing.into_iter().enumerate() {
            let differences = playing.join().expect("a client does not panic")?;
            none(&format!("client {client}"), &differences);
        }
        Ok(())
    })
}
