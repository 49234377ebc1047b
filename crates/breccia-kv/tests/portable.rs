//! The portable set over a memory store against a real Redis: equal bytes.
//!
//! Tables of commands first, then random histories. Invariant: a reply is compared byte for byte
//! unless it holds keys in no order, or a time that passes.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use breccia_kv::memory::{MemoryOptions, MemoryStore};
use breccia_kv::resp::encode::RespVersion;
use breccia_kv::resp::{commands, portable};
use breccia_testkit::{Redis, Reply, RespClient};

#[path = "../../breccia/tests/gateway/words.rs"]
mod words;

const SCRIPTS: [&str; 3] = [
    include_str!("../../breccia/tests/gateway/scripts/portable.txt"),
    include_str!("../../breccia/tests/gateway/scripts/strings.txt"),
    include_str!("../../breccia/tests/gateway/scripts/generic.txt"),
];

/// Whether the command is one both sides answer.
fn is_common(request: &[Vec<u8>], store: &MemoryStore) -> bool {
    let Some(spec) = request.first().and_then(|name| commands::find(name)) else { return true };
    let mut refusal = Vec::new();
    portable::check_queued(store, &[], request, &mut refusal)
        || !refusal.starts_with(b"-ERR breccia: ")
        || ["scan", "keys", "dbsize", "randomkey", "flushdb", "flushall"].contains(&spec.name)
}

/// What of a reply must be equal.
fn comparable(request: &[Vec<u8>], reply: &[u8]) -> Result<String> {
    let name = request.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    let parsed = Reply::parse(reply)?;
    Ok(match (&name[..], &parsed) {
        (b"scan", Reply::Array(parts)) => {
            format!("{:?}", parts.iter().cloned().map(Reply::sorted).collect::<Vec<_>>())
        }
        (b"keys", _) => format!("{:?}", parsed.sorted()),
        // A millisecond may pass between the two.
        (b"pttl", Reply::Integer(left)) if *left > 0 => "some time".into(),
        _ => reply.escape_ascii().to_string(),
    })
}

fn connect(redis: &Redis, version: RespVersion) -> Result<RespClient> {
    let mut client = redis.client()?;
    if version == RespVersion::V3 {
        client.words("HELLO 3")?;
    }
    Ok(client)
}

/// Runs one request on both sides; the difference, if there is one.
async fn difference(
    request: &[Vec<u8>],
    store: &MemoryStore,
    direct: &mut RespClient,
    version: RespVersion,
) -> Result<Option<String>> {
    let arguments: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    let wanted = direct.call(&arguments)?;
    let mut found = Vec::new();
    portable::execute(store, request, version, &mut found).await;
    let line = || arguments.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>();
    if comparable(request, &wanted)? == comparable(request, &found)? {
        return Ok(None);
    }
    let (wanted, found) = (wanted.escape_ascii(), found.escape_ascii());
    Ok(Some(format!("{}\n  Redis:  {wanted}\n  memory: {found}", line().join(" "))))
}

#[tokio::test]
async fn the_scripts_answer_as_in_redis() -> Result<()> {
    for version in [RespVersion::V2, RespVersion::V3] {
        let redis = Redis::new()?;
        let mut direct = connect(&redis, version)?;
        let store = MemoryStore::new(MemoryOptions::new("mem-a"));
        let mut found = Vec::new();
        let mut count = 0;
        let lines = SCRIPTS.iter().flat_map(|script| script.lines());
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let request = words::split(line)?;
            if is_common(&request, &store) {
                count += 1;
                found.extend(
                    difference(&request, &store, &mut direct, version).await.context(line)?,
                );
            }
        }
        assert!(count > 250, "only {count} lines were compared");
        assert!(found.is_empty(), "{version:?}:\n{}", found.join("\n"));
    }
    Ok(())
}

/// Small random numbers; the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = breccia_core::hash::splitmix64(self.0);
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

const NAMES: [&str; 35] = [
    "GET", "SET", "SETNX", "SETEX", "PSETEX", "GETSET", "GETDEL", "GETEX", "APPEND", "STRLEN",
    "GETRANGE", "SUBSTR", "SETRANGE", "INCR", "DECR", "INCRBY", "DECRBY", "INCRBYFLOAT", "MGET",
    "MSET", "DEL", "UNLINK", "EXISTS", "TOUCH", "EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT",
    "TTL", "EXPIRETIME", "PEXPIRETIME", "PERSIST", "TYPE", "SCAN", "KEYS",
];
const WORDS: [&str; 32] = [
    "k1", "k2", "k3", "0", "1", "-1", "7", "100", "100000", "33177117420", "33177117420000",
    "9223372036854775807", "-9223372036854775808", "1.5", "1e3", "abc", "", "NX", "XX", "GET",
    "EX", "PX", "EXAT", "PXAT", "KEEPTTL", "PERSIST", "GT", "LT", "MATCH", "COUNT", "k*", "nx",
];

fn random_request(random: &mut Random) -> VecDeque<String> {
    let name = random.pick(&NAMES);
    let spec = commands::find(name.as_bytes()).unwrap();
    let least = spec.arity.unsigned_abs() as usize - 1;
    let extra = if spec.arity < 0 { random.below(4) } else { usize::from(random.below(30) == 0) };
    let mut request: VecDeque<String> =
        (0..least + extra).map(|_| random.pick(&WORDS).to_owned()).collect();
    if spec.first_key == 1 && let Some(key) = request.front_mut() {
        *key = random.pick(&["k1", "k2", "k3"]).to_owned();
    }
    if name == "SCAN" {
        // What another cursor means is each server's own affair.
        request = ["0", "COUNT", "100"].map(str::to_owned).into();
    }
    request.push_front(name.to_owned());
    request
}

/// Whether the reply, or a later one, would depend on the moment at which each side is asked.
fn depends_on_the_moment(request: &VecDeque<String>) -> bool {
    let has = |words: &[&str]| request.iter().any(|word| words.contains(&word.as_str()));
    has(&["EXPIRETIME", "PEXPIRETIME"])
        || has(&["PEXPIRE", "PSETEX", "PX"]) && has(&["1", "7", "100"])
        || has(&["EXPIRE", "SETEX", "EX"]) && has(&["1", "7"])
}

#[tokio::test]
async fn random_histories_answer_as_in_redis() -> Result<()> {
    let redis = Redis::new()?;
    let version = RespVersion::V2;
    let mut direct = connect(&redis, version)?;
    let store = MemoryStore::new(MemoryOptions::new("mem-a"));
    let mut random = Random(2);
    let mut found = Vec::new();
    for round in 0..40_000 {
        let request = random_request(&mut random);
        if depends_on_the_moment(&request) {
            continue;
        }
        let request: Vec<Vec<u8>> = request.into_iter().map(String::into_bytes).collect();
        found.extend(
            difference(&request, &store, &mut direct, version)
                .await?
                .map(|text| format!("{round}: {text}")),
        );
        if found.len() > 9 {
            break;
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
