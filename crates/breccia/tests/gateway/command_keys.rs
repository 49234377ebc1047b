//! Key positions, held against a real server's COMMAND GETKEYS.
//!
//! Not a test of routing. Invariant: where we and the server both find keys, they are the same keys;
//! where we find an error, the server refuses the request.

use anyhow::Result;
use breccia_kv::resp::commands::{self, COMMANDS, CommandSpec, KeyFlags};
use breccia_testkit::{Redis, Reply, RespClient};

/// Requests of every family whose keys are not simply "one, at a fixed place".
const REQUESTS: &str = "
    GET a
    SET a 1 PX 5 GET
    GETDEL a
    GETEX a EX 5
    MGET a
    MGET a b c
    MSET a 1 b 2 c 3
    MSETNX a 1 b 2
    DEL a b
    UNLINK a b
    EXISTS a b a
    TOUCH a b
    RENAME a b
    RENAMENX a b
    COPY a b
    COPY a b DB 1 REPLACE
    LMOVE a b LEFT RIGHT
    BLMOVE a b LEFT RIGHT 0
    RPOPLPUSH a b
    BRPOPLPUSH a b 0
    SMOVE a b m
    LCS a b
    BITOP AND d a b
    BITOP NOT d a
    BITFIELD a GET u8 0
    BITFIELD a SET u8 0 1
    BITFIELD_RO a GET u8 0
    PFADD a x
    PFCOUNT a b
    PFMERGE d a b
    PFMERGE d
    PFDEBUG GETREG a
    SINTER a b
    SINTERSTORE d a b
    SINTERCARD 2 a b LIMIT 1
    SUNION a b
    SUNIONSTORE d a b
    SDIFF a b
    SDIFFSTORE d a b
    ZUNION 2 a b
    ZUNION 1 a WITHSCORES
    ZUNIONSTORE d 2 a b WEIGHTS 1 2 AGGREGATE MAX
    ZINTER 2 a b
    ZINTERSTORE d 1 a
    ZINTERCARD 2 a b LIMIT 5
    ZDIFF 2 a b
    ZDIFFSTORE d 2 a b
    ZRANGESTORE d s 0 -1
    ZMPOP 2 a b MIN
    BZMPOP 0 2 a b MAX COUNT 2
    BZPOPMIN a b 0
    BZPOPMAX a 0
    LMPOP 1 a LEFT
    BLMPOP 0 2 a b LEFT
    BLPOP a 0
    BRPOP a b c 0
    SORT a
    SORT a BY nosort
    SORT a BY w_* LIMIT 0 5 GET o_* GET # ASC ALPHA STORE d
    SORT a STORE d STORE e
    SORT a GET store STORE d
    SORT_RO a BY w_* GET o_*
    SORT_RO a LIMIT 0 1
    GEOADD a 1 1 m
    GEORADIUS a 1 1 1 m
    GEORADIUS a 1 1 1 m WITHDIST STORE d
    GEORADIUS a 1 1 1 m STOREDIST d
    GEORADIUSBYMEMBER a m 1 m
    GEORADIUSBYMEMBER a m 1 m STORE d
    GEORADIUSBYMEMBER a m 1 m ASC STOREDIST d
    GEORADIUS_RO a 1 1 1 m
    GEORADIUSBYMEMBER_RO a m 1 m
    GEOSEARCH a FROMMEMBER m BYRADIUS 1 m
    GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m
    XADD a * f v
    XREAD STREAMS a 0
    XREAD COUNT 1 BLOCK 1 STREAMS a b 0 0
    XREADGROUP GROUP g c STREAMS a >
    XREADGROUP GROUP streams streams COUNT 1 NOACK STREAMS a b > >
    XREADGROUP GROUP g streams STREAMS a >
    XGROUP CREATE a g $ MKSTREAM
    XGROUP DESTROY a g
    XINFO STREAM a FULL
    XINFO GROUPS a
    XINFO CONSUMERS a g
    XCLAIM a g c 0 1-1
    XAUTOCLAIM a g c 0 0
    XACK a g 1-1
    OBJECT ENCODING a
    OBJECT FREQ a
    MEMORY USAGE a
    MEMORY USAGE a SAMPLES 0
    DEBUG OBJECT a
    MIGRATE 127.0.0.1 1 a 0 5
    MIGRATE 127.0.0.1 1 a 0 5 COPY REPLACE AUTH p
    MIGRATE 127.0.0.1 1 '' 0 5 KEYS a b
    MIGRATE 127.0.0.1 1 '' 0 5 COPY AUTH2 KEYS p KEYS a b
    MIGRATE 127.0.0.1 1 '' 0 5 AUTH KEYS KEYS a
    RESTORE a 0 x
    RESTORE-ASKING a 0 x
    DUMP a
    EVAL s 0
    EVAL s 0 x y
    EVAL s 1 a x
    EVAL s 2 a b
    EVALSHA s 1 a
    EVAL_RO s 1 a
    EVALSHA_RO s 2 a b x
    FCALL f 0
    FCALL f 2 a b x
    FCALL_RO f 1 a
    EVAL s 3 a b
    EVAL s -1 a
    EVAL s x a
    ZUNION 3 a b
    ZUNIONSTORE d 9 a
    LMPOP 2 a LEFT
    XREAD COUNT 1 a 0
    XREAD STREAMS
    GET
    GET a b
    OBJECT NOSUCH a
    PING
    SELECT 1
    PUBLISH c m
    SUBSCRIBE c
    SPUBLISH c m
    CONFIG GET x
    SWAPDB 0 1
    WATCH a b
    RANDOMKEY
    SCAN 0 MATCH a
    SSCAN a 0
    HRANDFIELD a 1
    SUBSTR a 0 1
";

fn arguments(request: &str) -> Vec<&[u8]> {
    let word = |word: &'static str| {
        if word == "''" {
            b"".as_slice()
        } else {
            word.as_bytes()
        }
    };
    let request: &'static str = Box::leak(request.to_owned().into_boxed_str());
    request.split_whitespace().map(word).collect()
}

/// The keys by our table; none for a request that is wrong.
fn ours(arguments: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    commands::keys(commands::find(arguments[0])?, arguments, &mut found).ok()?;
    Some(
        found
            .into_iter()
            .map(|index| arguments[index].to_vec())
            .collect(),
    )
}

/// The keys by the server; none for a request that it refuses or finds without keys.
fn theirs(client: &mut RespClient, arguments: &[&[u8]]) -> Result<Option<Vec<Vec<u8>>>> {
    let request = [[b"COMMAND".as_slice(), b"GETKEYS"].as_slice(), arguments].concat();
    let reply = Reply::parse(&client.call(&request)?)?;
    if reply.error().is_some() {
        return Ok(None);
    }
    let keys = reply
        .elements()
        .iter()
        .filter_map(Reply::bytes)
        .map(<[u8]>::to_vec);
    Ok(Some(keys.collect()))
}

fn check(client: &mut RespClient, arguments: &[&[u8]]) -> Result<()> {
    let shown = arguments.join(b" ".as_slice());
    match (ours(arguments), theirs(client, arguments)?) {
        (Some(mut ours), Some(mut theirs)) => {
            // The server names a command's keys in its own order of specifications.
            ours.sort();
            theirs.sort();
            assert_eq!(ours, theirs, "{}", shown.escape_ascii());
        }
        // The server takes this request, but its own specifications find nothing in it.
        (Some(ours), None) if arguments[0].eq_ignore_ascii_case(b"pfmerge") => {
            assert_eq!(ours, arguments[1..]);
        }
        (None | Some(_), None) => {
            let found = ours(arguments).unwrap_or_default();
            assert!(
                found.is_empty(),
                "{}: the server finds no keys",
                shown.escape_ascii()
            );
        }
        // GETKEYS is milder than the command: a key count beyond the arguments finds nothing.
        (None, Some(theirs)) => {
            let none: Vec<Vec<u8>> = Vec::new();
            assert_eq!(
                none,
                theirs,
                "{}: the server finds keys",
                shown.escape_ascii()
            );
        }
    }
    Ok(())
}

#[test]
fn keys_are_those_that_the_server_finds() -> Result<()> {
    let redis = Redis::new()?;
    let mut client = redis.client()?;
    for request in REQUESTS
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        check(&mut client, &arguments(request))?;
    }
    Ok(())
}

/// A request of the right length for a command whose keys stand at fixed places.
fn plain_request(name: &[&str], spec: &CommandSpec) -> Option<Vec<String>> {
    let fixed = |key: &commands::KeySpec| {
        matches!(key.begin, commands::Begin::Index(_))
            && matches!(key.find, commands::Find::Range { .. })
            && !key.flags.contains(KeyFlags::VARIABLE_FLAGS)
    };
    if spec.keys.is_empty() || !spec.keys.iter().all(fixed) {
        return None;
    }
    let length = spec.arity.unsigned_abs() as usize;
    let mut request: Vec<String> = name.iter().map(|&word| word.to_owned()).collect();
    while request.len() < length {
        request.push(format!("k{}", request.len()));
    }
    Some(request)
}

#[test]
fn every_command_with_fixed_keys_agrees_with_the_server() -> Result<()> {
    let redis = Redis::new()?;
    let mut client = redis.client()?;
    let mut checked = 0;
    for spec in COMMANDS {
        let own = plain_request(&[spec.name], spec);
        let inner = spec
            .subcommands
            .iter()
            .map(|sub| plain_request(&[spec.name, sub.name], sub));
        for request in std::iter::once(own).chain(inner).flatten() {
            let arguments: Vec<&[u8]> = request.iter().map(String::as_bytes).collect();
            check(&mut client, &arguments)?;
            checked += 1;
        }
    }
    assert!(checked > 120, "only {checked} commands were checked");
    Ok(())
}
