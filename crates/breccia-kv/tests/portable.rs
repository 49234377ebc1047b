//! The portable set over each kind of store against a real Redis: equal bytes, or a refusal.
//!
//! Tables of commands first, then random histories. Invariant: a reply is compared byte for byte
//! unless it holds keys in no order, or a time that passes; what is refused is not run on the other
//! side either, so both keep the same history.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use breccia_kv::io::KvIo;
use breccia_kv::memcached::backend::{MemcachedOptions, MemcachedStore};
use breccia_kv::memory::{MemoryOptions, MemoryStore};
use breccia_kv::resp::backend::{RedisOptions, RedisStore};
use breccia_kv::resp::encode::RespVersion;
use breccia_kv::resp::{commands, portable};
use breccia_kv::sharded::{ShardedKv, ShardedOptions};
use breccia_kv::store::KvStore;
use breccia_net::layout_store::LayoutStore;
use breccia_testkit::{Memcached, Redis, Reply, RespClient};

#[path = "../../breccia/tests/differential/words.rs"]
mod words;

const SCRIPTS: [&str; 3] = [
    include_str!("../../breccia/tests/differential/scripts/portable.txt"),
    include_str!("../../breccia/tests/differential/scripts/strings.txt"),
    include_str!("../../breccia/tests/differential/scripts/generic.txt"),
];

/// What of a reply must be equal.
fn comparable(request: &[Vec<u8>], reply: &[u8]) -> Result<String> {
    let name = request
        .first()
        .map(|name| name.to_ascii_lowercase())
        .unwrap_or_default();
    let parsed = Reply::parse(reply)?;
    Ok(match (&name[..], &parsed) {
        (b"scan", Reply::Array(parts)) => {
            format!(
                "{:?}",
                parts.iter().cloned().map(Reply::sorted).collect::<Vec<_>>()
            )
        }
        (b"keys", _) => format!("{:?}", parsed.sorted()),
        // A moment passes between the two.
        (b"pttl", Reply::Integer(left)) if *left > 0 => "some time".into(),
        _ => reply.escape_ascii().to_string(),
    })
}

/// Whether both replies are times near now that a tick of a clock may part.
fn is_the_same_moment(request: &[Vec<u8>], wanted: &[u8], found: &[u8]) -> Result<bool> {
    let name = request
        .first()
        .map(|name| name.to_ascii_lowercase())
        .unwrap_or_default();
    let near = |reply: &[u8]| -> Result<Option<i64>> {
        Ok(Reply::parse(reply)?
            .integer()
            .filter(|time| (1..4_000_000_000).contains(time)))
    };
    Ok(match (near(wanted)?, near(found)?) {
        (Some(wanted), Some(found)) if name == b"ttl" || name == b"expiretime" => {
            wanted.abs_diff(found) <= 1
        }
        _ => false,
    })
}

fn connect(redis: &Redis, version: RespVersion) -> Result<RespClient> {
    let mut client = redis.client()?;
    if version == RespVersion::V3 {
        client.words("HELLO 3")?;
    }
    Ok(client)
}

/// What came of one request on both sides.
enum Verdict {
    Equal,
    /// The store refused it, naming the member in the way.
    Refused(String),
    Different(String),
}

async fn compare(
    request: &[Vec<u8>],
    store: &dyn KvStore,
    direct: &mut RespClient,
    version: RespVersion,
) -> Result<Verdict> {
    let arguments: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
    let mut found = Vec::new();
    portable::execute(store, request, version, &mut found).await;
    if found.starts_with(b"-ERR breccia: ") {
        return Ok(Verdict::Refused(
            String::from_utf8_lossy(&found).into_owned(),
        ));
    }
    let wanted = direct.call(&arguments)?;
    if comparable(request, &wanted)? == comparable(request, &found)?
        || is_the_same_moment(request, &wanted, &found)?
    {
        return Ok(Verdict::Equal);
    }
    let words = arguments.iter().map(|word| word.escape_ascii().to_string());
    let line = words.collect::<Vec<_>>().join(" ");
    let (wanted, found) = (wanted.escape_ascii(), found.escape_ascii());
    Ok(Verdict::Different(format!(
        "{line}\n  Redis: {wanted}\n  here:  {found}"
    )))
}

/// Runs the scripts; `may_refuse` says of which member's refusals it is no fault.
async fn check_scripts(store: &dyn KvStore, version: RespVersion, may_refuse: &str) -> Result<()> {
    store.flush().await?;
    let redis = Redis::new()?;
    let mut direct = connect(&redis, version)?;
    let (mut equal, mut refused, mut faults) = (0, 0, Vec::new());
    let lines = SCRIPTS.iter().flat_map(|script| script.lines());
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let request = words::split(line)?;
        match compare(&request, store, &mut direct, version)
            .await
            .context(line)?
        {
            Verdict::Equal => equal += 1,
            Verdict::Refused(why) if is_outside(&why) => {}
            Verdict::Refused(why) if why.contains(may_refuse) => refused += 1,
            Verdict::Refused(fault) => faults.push(format!("{line}\n  refused: {fault}")),
            Verdict::Different(fault) => faults.push(fault),
        }
    }
    ensure!(faults.is_empty(), "{version:?}:\n{}", faults.join("\n"));
    ensure!(
        equal > 300 && refused < 60,
        "{equal} equal, {refused} refused"
    );
    Ok(())
}

/// Whether a refusal says that the command is not in the portable set.
fn is_outside(why: &str) -> bool {
    why.contains("needs Redis shards") || why.contains("is not offered over this kind of store")
}

const NOBODY: &str = "(nobody)";

#[tokio::test]
async fn memory_answers_the_scripts_as_redis() -> Result<()> {
    for version in [RespVersion::V2, RespVersion::V3] {
        let store = MemoryStore::new(MemoryOptions::new("mem-a"));
        check_scripts(&store, version, NOBODY).await?;
    }
    Ok(())
}

fn redis_store(io: &KvIo, server: &Redis) -> Result<Arc<dyn KvStore>> {
    let address = server.address().parse().context("an address")?;
    Ok(Arc::new(RedisStore::new(
        io,
        RedisOptions::new("redis-a", address),
    )))
}

fn mixed(io: &KvIo, redis: &Redis, memcached: &Memcached) -> Result<ShardedKv> {
    let address = memcached.address().parse().context("an address")?;
    let members: Vec<Arc<dyn KvStore>> = vec![
        redis_store(io, redis)?,
        Arc::new(MemcachedStore::new(
            io,
            MemcachedOptions::new("mc-a", address),
        )),
        Arc::new(MemoryStore::new(MemoryOptions::new("mem-a"))),
    ];
    Ok(ShardedKv::open(
        &LayoutStore::ephemeral(),
        &ShardedOptions::new("cache"),
        members,
    )?)
}

#[tokio::test]
async fn a_redis_member_answers_the_scripts_as_redis() -> Result<()> {
    let (io, server) = (KvIo::start()?, Redis::new()?);
    check_scripts(&*redis_store(&io, &server)?, RespVersion::V2, NOBODY).await
}

#[tokio::test]
async fn mixed_members_answer_the_scripts_as_redis_or_refuse() -> Result<()> {
    let (io, redis, memcached) = (KvIo::start()?, Redis::new()?, Memcached::new()?);
    check_scripts(&mixed(&io, &redis, &memcached)?, RespVersion::V3, "mc-a").await
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
    "GET",
    "SET",
    "SETNX",
    "SETEX",
    "PSETEX",
    "GETSET",
    "GETDEL",
    "GETEX",
    "APPEND",
    "STRLEN",
    "GETRANGE",
    "SUBSTR",
    "SETRANGE",
    "INCR",
    "DECR",
    "INCRBY",
    "DECRBY",
    "INCRBYFLOAT",
    "MGET",
    "MSET",
    "DEL",
    "UNLINK",
    "EXISTS",
    "TOUCH",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "TTL",
    "EXPIRETIME",
    "PEXPIRETIME",
    "PERSIST",
    "TYPE",
    "SCAN",
    "KEYS",
];
const WORDS: [&str; 32] = [
    "k1",
    "k2",
    "k3",
    "0",
    "1",
    "-1",
    "7",
    "100",
    "100000",
    "33177117420",
    "33177117420000",
    "9223372036854775807",
    "-9223372036854775808",
    "1.5",
    "1e3",
    "abc",
    "",
    "NX",
    "XX",
    "GET",
    "EX",
    "PX",
    "EXAT",
    "PXAT",
    "KEEPTTL",
    "PERSIST",
    "GT",
    "LT",
    "MATCH",
    "COUNT",
    "k*",
    "nx",
];

fn random_request(random: &mut Random) -> VecDeque<String> {
    let name = random.pick(&NAMES);
    let spec = commands::find(name.as_bytes()).unwrap();
    let least = spec.arity.unsigned_abs() as usize - 1;
    let extra = if spec.arity < 0 {
        random.below(4)
    } else {
        usize::from(random.below(30) == 0)
    };
    let mut request: VecDeque<String> = (0..least + extra)
        .map(|_| random.pick(&WORDS).to_owned())
        .collect();
    if spec.first_key == 1
        && let Some(key) = request.front_mut()
    {
        random.pick(&["k1", "k2", "k3"]).clone_into(key);
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

async fn check_histories(store: &dyn KvStore, rounds: usize, may_refuse: &str) -> Result<()> {
    store.flush().await?;
    let redis = Redis::new()?;
    let version = RespVersion::V2;
    let mut direct = connect(&redis, version)?;
    let mut random = Random(2);
    let (mut refused, mut faults) = (0, Vec::new());
    for round in 0..rounds {
        let request = random_request(&mut random);
        if depends_on_the_moment(&request) {
            continue;
        }
        let request: Vec<Vec<u8>> = request.into_iter().map(String::into_bytes).collect();
        match compare(&request, store, &mut direct, version).await? {
            Verdict::Equal => {}
            Verdict::Refused(why) if why.contains(may_refuse) => refused += 1,
            Verdict::Refused(fault) | Verdict::Different(fault) => {
                faults.push(format!("{round}: {fault}"));
            }
        }
        if faults.len() > 9 {
            break;
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(refused < rounds / 4, "{refused} of {rounds} refused");
    Ok(())
}

#[tokio::test]
async fn random_histories_of_memory_are_those_of_redis() -> Result<()> {
    check_histories(
        &MemoryStore::new(MemoryOptions::new("mem-a")),
        40_000,
        NOBODY,
    )
    .await
}

#[tokio::test]
async fn random_histories_of_a_redis_member_are_those_of_redis() -> Result<()> {
    let (io, server) = (KvIo::start()?, Redis::new()?);
    check_histories(&*redis_store(&io, &server)?, 10_000, NOBODY).await
}

#[tokio::test]
async fn random_histories_of_mixed_members_are_those_of_redis_or_refused() -> Result<()> {
    let (io, redis, memcached) = (KvIo::start()?, Redis::new()?, Memcached::new()?);
    check_histories(&mixed(&io, &redis, &memcached)?, 10_000, "mc-a").await
}
