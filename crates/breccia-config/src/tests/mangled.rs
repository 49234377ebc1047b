//! No text makes the reader panic, hang or say a secret.

use std::fmt::Write as _;
use std::path::Path;

use breccia_core::hash::splitmix64;

use super::env;
use crate::{Protocol, QUICK_START, parse};

const SEED: &str = r#"
workers = 2
log = { level = "info", format = "text" }
[admin]
token = { env = "CACHE_PASSWORD" }
[store.redis-a]
type = "redis"
url = "redis://ann:hunter2@127.0.0.1:6379/0"
timeout = "5s"
[store.redis-b]
type = "redis"
url = "rediss://[::1]:6379/1#insecure"
password = "hunter2"
[store.mc]
type = "memcached"
address = "unix:/run/mc.sock"
[store.inner]
type = "sharded-in-memory"
stores = ["redis-a", "mc"]
command."JSON.GET" = { first-key = 1, last-key = -1 }
[store.cache]
type = "sharded-in-memory"
stores = ["inner", "redis-b"]
hash-tag = "{}"
[store.disk]
type = "fs"
path = "blobs/./1"
[store.s3]
type = "s3"
bucket = "mail"
endpoint = "http://127.0.0.1:3900"
access-key = "AKIA"
secret-key = "hunter2"
key-prefix = "a/"
[store.pg]
type = "postgresql"
host = "[::1]"
user = "ann"
password = "hunter2"
tls = { mode = "require" }
[store.blobs]
type = "sharded-blob"
stores = ["disk", "s3", "pg"]
placement-key = "stalwart"
upload-expiry = "7d"
[store.pg-2]
type = "postgresql"
socket = "/run/pg"
[store.db]
type = "sql-read-replica"
primary = "pg"
replicas = ["pg-2"]
consistency = "eventual"
[listener.sql]
protocol = "postgresql"
bind = "127.0.0.1:5433"
store = "db"
pool-size = 5
user = [{ name = "ann", scram-verifier = "SCRAM-SHA-256$4096:aHVudGVyMg==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", upstream-user = "a", upstream-password = "hunter2" }]
[listener.s3]
protocol = "s3"
bind = "127.0.0.1:9100"
buckets = { mail = "blobs" }
user = [{ name = "ann", access-key = "a", secret-key = "hunter2", buckets = ["mail"] }]
[listener.cache]
protocol = "redis"
bind = "0.0.0.0:6380"
store = "cache"
max-request-size = "64MiB"
[[listener.cache.user]]
name = "default"
password = "hunter2"
"#;

const PIECES: &[&str] = &[
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "\"\"\"",
    "\n",
    ".",
    ",",
    "#",
    "\0",
    "\u{feff}",
    "é",
    "inner",
    "cache",
    "stores = ",
    "type = ",
    "\"redis\"",
    "99999999999999999999",
    "-1",
    "1e5",
    "[store.cache]",
    "unix:",
    "redis://",
    "https://",
    "buckets = ",
    "\"sharded-blob\"",
    "protocol = \"s3\"\n",
    "%",
    "@",
    "0.0.0.0:0",
    "\"\\u0000\"",
    "1979-05-27",
];

/// One change of a text, chosen by a number.
fn mangle(text: &mut String, number: u64) {
    let nth = |shift: u32, most: usize| {
        let most = u64::try_from(most.max(1)).unwrap();
        usize::try_from((number >> shift) % most).unwrap()
    };
    let boundary = |mut at: usize| {
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let at = boundary(nth(8, text.len() + 1));
    let end = boundary((at + nth(40, 30)).min(text.len()));
    match number % 4 {
        0 => text.insert_str(at, PIECES[nth(32, PIECES.len())]),
        1 => text.replace_range(at..end, ""),
        2 => text.replace_range(at..end, PIECES[nth(32, PIECES.len())]),
        _ => {
            let piece = text[at..end].to_owned();
            text.insert_str(boundary(nth(24, text.len() + 1)), &piece);
        }
    }
}

#[test]
fn mangled_files_never_panic_and_never_show_a_secret() {
    let mut number = 1;
    for round in 0..4000 {
        let mut text = if round % 5 == 0 { QUICK_START } else { SEED }.to_owned();
        for _ in 0..=round % 6 {
            number = splitmix64(number);
            mangle(&mut text, number);
        }
        match parse(&text, "f", Path::new("/nowhere"), &env) {
            Ok((plan, _)) => {
                for (name, store) in &plan.stores {
                    let _ = (plan.is_inner(name), plan.leaves(name));
                    let location = store.location().unwrap_or_default();
                    assert!(!location.contains("hunter2"), "{location}");
                }
                for listener in plan.listeners.values() {
                    assert_eq!(listener.s3.is_some(), listener.protocol == Protocol::S3);
                    let _ = plan.served(listener);
                }
                let shown = format!("{plan:?}");
                assert!(!shown.contains("from-env"), "{shown}");
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                for fault in faults {
                    let said = fault.to_string();
                    let whole =
                        said.starts_with("f:") && said.contains("; ") && !said.contains('\n');
                    assert!(whole, "{said:?}\nof:\n{text}");
                    assert!(
                        !matches!(fault.error, crate::ConfigError::Incomplete),
                        "{text}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_beginning_of_a_file_is_read() {
    for (end, _) in SEED.char_indices() {
        let _ = parse(&SEED[..end], "f", Path::new("/nowhere"), &env);
    }
}

/// The last fault of a text with very many.
fn last_fault(text: &str) -> String {
    parse(text, "f", Path::new(""), &env)
        .unwrap_err()
        .last()
        .unwrap()
        .to_string()
}

#[test]
fn a_flood_of_faults_ends_at_a_thousand() {
    let mut text = String::new();
    for number in 0..5000 {
        writeln!(text, "key-{number} = 1").unwrap();
    }
    let faults = parse(&text, "f", Path::new(""), &env).unwrap_err();
    assert_eq!(faults.len(), 1001);
    assert_eq!(
        last_fault(&text),
        "f: has more than 1000 faults; mend these first"
    );
}

#[test]
fn large_graphs_are_walked_without_recursion() {
    // One long chain, and one cycle through all of it.
    let mut chain = String::from("[store.s20000]\ntype = \"memory\"\n");
    let mut cycle = String::new();
    for number in 0..20_000 {
        let next = number + 1;
        let table = "type = \"sharded-in-memory\"";
        writeln!(chain, "[store.s{number}]\n{table}\nstores = [\"s{next}\"]").unwrap();
        let next = next % 20_000;
        writeln!(cycle, "[store.s{number}]\n{table}\nstores = [\"s{next}\"]").unwrap();
    }
    assert!(last_fault(&chain).contains("more than 8 deep"));
    let said = last_fault(&cycle);
    assert!(said.contains("contains itself (s0 -> s1 -> "), "{said}");
    assert!(said.contains("s7 -> … -> s0)"), "{said}");
}

#[test]
fn more_shards_than_a_layout_holds_are_refused() {
    let mut text = String::from("[store]\n");
    let mut names = Vec::new();
    for number in 0..2049 {
        writeln!(text, "m{number} = {{ type = \"memory\" }}").unwrap();
        names.push(format!("\"m{number}\""));
    }
    let stores = names.join(", ");
    writeln!(
        text,
        "all = {{ type = \"sharded-in-memory\", stores = [{stores}] }}"
    )
    .unwrap();
    assert_eq!(
        last_fault(&text),
        "f:2051: store.all.stores: has 2049 shards in all, more than 2048; list fewer stores"
    );
}
