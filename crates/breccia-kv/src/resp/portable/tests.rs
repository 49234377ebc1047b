//! The portable set over a memory store. The replies in the tables are Redis 7.0's; the testkit's
//! differential suite holds the same commands against a running server.

use super::*;
use crate::memory::{MemoryOptions, MemoryStore};
use crate::store::{Capabilities, StoreKind};

fn memory() -> MemoryStore {
    MemoryStore::new(MemoryOptions::new("mem-a"))
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

async fn run(store: &dyn KvStore, line: &str, version: RespVersion) -> String {
    let mut out = Vec::new();
    execute(store, &words(line), version, &mut out).await;
    String::from_utf8(out).unwrap()
}

/// Runs lines of `command => reply` on one store; `\r\n` inside a reply is written as a space.
async fn check(script: &str) {
    let store = memory();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (command, expected) = line.split_once(" => ").unwrap();
        let reply = run(&store, command, RespVersion::V2).await;
        assert_eq!(reply.trim_end().replace("\r\n", " "), expected, "{command}");
    }
}

#[tokio::test]
async fn replies_are_those_of_redis() {
    check(
        "SET k v => +OK
         GET k => $1 v
         SET k w NX => $-1
         SET k w XX GET => $1 v
         SET m w XX => $-1
         SET m w NX GET => $-1
         GETSET m x => $1 w
         SET k v NX XX => -ERR syntax error
         SET k v EX => -ERR syntax error
         SET k v EX 0 => -ERR invalid expire time in 'set' command
         SET k v EX abc => -ERR value is not an integer or out of range
         SET k v EX 9223372036854775807 => -ERR invalid expire time in 'set' command
         SETEX k 0 v => -ERR invalid expire time in 'setex' command
         SETEX k 10 v => +OK
         TTL k => :10
         SET k v KEEPTTL => +OK
         TTL k => :10
         GETEX k PERSIST => $1 v
         TTL k => :-1
         PTTL none => :-2
         GETEX none EX 0 => $-1
         GETEX k EX 0 => -ERR invalid expire time in 'getex' command
         SCAN 0 COUNT 0 => -ERR syntax error",
    )
    .await;
}

#[tokio::test]
async fn replies_of_edits_and_of_the_whole_store_are_those_of_redis() {
    check(
        "SET k v => +OK
         APPEND k w => :2
         STRLEN k => :2
         GETRANGE k 0 -1 => $2 vw
         SETRANGE k 3 x => :4
         SETRANGE k -1 x => -ERR offset is out of range
         GETDEL k => $4 vw\0x
         INCR n => :1
         DECRBY n 5 => :-4
         DECRBY n -9223372036854775808 => -ERR decrement would overflow
         INCRBY n 9223372036854775807 => :9223372036854775803
         INCRBY n 5 => -ERR increment or decrement would overflow
         INCRBYFLOAT f 0.1 => $3 0.1
         INCRBYFLOAT f 0.2 => $3 0.3
         INCR f => -ERR value is not an integer or out of range
         MSET a 1 b 2 => +OK
         MSET a 1 b => -ERR wrong number of arguments for 'mset' command
         MGET a none b => *3 $1 1 $-1 $1 2
         EXISTS a a none => :2
         TOUCH a none => :1
         DEL a none b => :2
         TYPE f => +string
         TYPE none => +none
         EXPIRE f 100 GT => :0
         EXPIRE f 100 LT => :1
         EXPIRE f 50 NX => :0
         EXPIRE f 200 NX GT => -ERR NX and XX, GT or LT options at the same time are not compatible
         EXPIRE f 200 what => -ERR Unsupported option what
         PERSIST f => :1
         EXPIRE f -1 => :1
         EXISTS f => :0
         GET => -ERR wrong number of arguments for 'get' command
         FOO a b => -ERR unknown command 'FOO', with args beginning with: 'a' 'b'
         LPUSH l x => -ERR breccia: 'LPUSH' needs Redis shards; 'mem-a' is memory
         SCAN x => -ERR invalid cursor
         SCAN 0 COUNT 0 => -ERR syntax error
         SCAN 0 TYPE list COUNT 100 => *2 $1 0 *0
         FLUSHDB LATER => -ERR syntax error
         FLUSHALL => +OK
         DBSIZE => :0
         RANDOMKEY => $-1
         SET only 1 => +OK
         RANDOMKEY => $4 only
         KEYS o?l* => *1 $4 only
         SCAN 0 MATCH o* COUNT 100 => *2 $1 0 *1 $4 only
         DBSIZE => :1",
    )
    .await;
}

#[tokio::test]
async fn nulls_follow_the_protocol_version() {
    let store = memory();
    assert_eq!(run(&store, "GET none", RespVersion::V3).await, "_\r\n");
    assert_eq!(
        run(&store, "MGET none", RespVersion::V3).await,
        "*1\r\n_\r\n"
    );
}

async fn transact(store: &dyn KvStore, lines: &[&str]) -> Result<String, String> {
    let mut queued = Vec::new();
    for line in lines {
        let mut refusal = Vec::new();
        if !check_queued(store, &queued, &words(line), &mut refusal) {
            return Err(String::from_utf8(refusal).unwrap());
        }
        queued.push(words(line));
    }
    let mut out = Vec::new();
    execute_transaction(store, &queued, RespVersion::V2, &mut out).await;
    Ok(String::from_utf8(out)
        .unwrap()
        .trim_end()
        .replace("\r\n", " "))
}

#[tokio::test]
async fn a_transaction_answers_each_command_in_its_place() {
    let store = memory();
    let check = async |lines: &[&str], expected: &str| {
        assert_eq!(transact(&store, lines).await.as_deref(), Ok(expected));
    };
    check(&["INCRBY k 1", "EXPIRE k 100"], "*2 :1 :1").await;
    check(
        &[
            "INCR k",
            "SET k v EX x",
            "PING",
            "GET k",
            "APPEND k x",
            "INCR k",
            "TTL k",
        ],
        "*7 :2 -ERR value is not an integer or out of range +PONG $1 2 :2 \
         -ERR value is not an integer or out of range :100",
    )
    .await;
    check(&[], "*0").await;
    check(&["MGET k k", "DEL k", "GET k"], "*3 *2 $2 2x $2 2x :1 $-1").await;
}

#[tokio::test]
async fn what_cannot_be_part_of_a_transaction_is_refused_when_it_is_queued() {
    let store = memory();
    let check = async |lines: &[&str], expected: &str| {
        let refusal = transact(&store, lines).await.unwrap_err();
        assert!(refusal.starts_with(expected), "{refusal}");
    };
    check(&["GET a", "GET b"], "-CROSSSLOT ").await;
    check(&["DEL a b"], "-CROSSSLOT ").await;
    check(&["GET"], "-ERR wrong number of arguments for 'get' command").await;
    check(&["NOPE x"], "-ERR unknown command 'NOPE'").await;
    check(
        &["LPUSH a b"],
        "-ERR breccia: 'LPUSH' needs Redis shards; 'mem-a' is memory",
    )
    .await;
    check(&["DBSIZE"], "-ERR breccia: 'DBSIZE' needs Redis shards").await;
}

#[test]
fn every_portable_command_is_one_of_redis_and_is_planned() {
    for spec in commands::COMMANDS {
        if plan::is_portable(spec.name) {
            let arguments: Vec<Vec<u8>> = std::iter::once(spec.name)
                .chain(std::iter::repeat_n(
                    "1",
                    spec.arity.unsigned_abs() as usize - 1,
                ))
                .map(|word| word.as_bytes().to_vec())
                .collect();
            let refused = plan(spec, &arguments).err().unwrap_or_default();
            let refused = String::from_utf8(refused).unwrap();
            assert!(!refused.contains("portable set"), "{refused}");
        }
    }
}

#[test]
fn listing_needs_members_that_list() {
    #[derive(Debug)]
    struct Mute(Capabilities);
    impl KvStore for Mute {
        fn capabilities(&self) -> &Capabilities {
            &self.0
        }
        fn apply<'a>(
            &'a self,
            _: &'a [u8],
            _: &'a [Operation<'a>],
        ) -> crate::store::StoreFuture<'a, Vec<crate::entry::Outcome>> {
            unreachable!()
        }
        fn apply_each<'a>(
            &'a self,
            _: &'a [crate::store::KeyedOperation<'a>],
        ) -> crate::store::StoreFuture<'a, Vec<crate::entry::Outcome>> {
            unreachable!()
        }
        fn scan<'a>(
            &'a self,
            _: crate::store::ScanRequest<'a>,
        ) -> crate::store::StoreFuture<'a, crate::store::ScanPage> {
            unreachable!()
        }
        fn key_count(&self) -> crate::store::StoreFuture<'_, u64> {
            unreachable!()
        }
        fn flush(&self) -> crate::store::StoreFuture<'_, ()> {
            unreachable!()
        }
        fn random_key(&self, _: u64) -> crate::store::StoreFuture<'_, Option<bytes::Bytes>> {
            unreachable!()
        }
    }
    let store = Mute(Capabilities::leaf("mc-a", StoreKind::Memcached));
    let refused = look_up(&store, &words("SCAN 0")).unwrap_err();
    assert_eq!(
        String::from_utf8(refused).unwrap(),
        "ERR breccia: 'SCAN' needs Redis or memory shards; 'mc-a' is memcached"
    );
}
